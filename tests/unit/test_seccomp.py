# SPDX-License-Identifier: Apache-2.0
"""Seccomp profiles: conditions, architectures, errors, and the cache."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from libpod import seccomp
from libpod.errors import ConfigError

ALLOW, DENY = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"
NONE: frozenset[str] = frozenset()
ADMIN = frozenset({"CAP_SYS_ADMIN", "CAP_CHOWN"})
FILTER = {"index": 0, "value": 8, "valueTwo": 0, "op": "SCMP_CMP_EQ"}

PROFILE: dict[str, Any] = {
    "defaultAction": DENY,
    "defaultErrnoRet": 1,
    "defaultErrno": "ENOSYS",
    "archMap": [
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
    ],
    "syscalls": [
        {"names": ["read", "write"], "action": ALLOW, "args": [], "includes": {}, "excludes": {}},
        {"name": "personality", "action": ALLOW, "args": [FILTER]},
        {"names": ["old"], "action": DENY, "errnoRet": 9, "errno": "EPERM", "args": None},
        {"names": ["mount"], "action": ALLOW, "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["both"], "action": ALLOW, "includes": {"caps": ["CAP_SYS_ADMIN", "CAP_BPF"]}},
        {
            "names": ["mount"],
            "action": DENY,
            "errnoRet": 1,
            "excludes": {"caps": ["CAP_SYS_ADMIN", "CAP_BPF"]},
        },
        {"names": ["arm_only"], "action": ALLOW, "includes": {"arches": ["arm", "arm64"]}},
        {"names": ["x86_only"], "action": ALLOW, "includes": {"arches": ["amd64"]}},
        {"names": ["not_x86"], "action": ALLOW, "excludes": {"arches": ["amd64"]}},
        {"names": ["new"], "action": ALLOW, "includes": {"minKernel": "5.10"}},
        {"names": ["until_new"], "action": ALLOW, "excludes": {"minKernel": "5.10"}},
    ],
}


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    on_machine(monkeypatch, "x86_64", "5.9.0-1-amd64")


def on_machine(monkeypatch: pytest.MonkeyPatch, machine: str, release: str) -> None:
    uname = os.uname_result(("Linux", "host", release, "#1", machine))
    monkeypatch.setattr(os, "uname", lambda: uname)
    seccomp._compiled.cache_clear()
    seccomp._report_missing.cache_clear()


def write(path: Path, document: object) -> str:
    if isinstance(document, bytes):
        path.write_bytes(document)
    else:
        path.write_text(document if isinstance(document, str) else json.dumps(document))
    return str(path)


def compiled(tmp_path: Path, document: object, caps: frozenset[str] = NONE) -> dict[str, Any]:
    result = seccomp.profile(caps, (write(tmp_path / "profile.json", document),))
    assert result is not None
    return result


def names(result: dict[str, Any]) -> list[str]:
    return [name for rule in result["syscalls"] for name in rule["names"]]


def test_the_whole_result(tmp_path: Path) -> None:
    assert compiled(tmp_path, PROFILE) == {
        "defaultAction": DENY,
        "defaultErrnoRet": 38,  # the name goes before the number
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": [
            {"names": ["read", "write"], "action": ALLOW},
            {
                "names": ["personality"],
                "action": ALLOW,
                "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}],
            },
            {"names": ["old"], "action": DENY, "errnoRet": 1},
            {"names": ["mount"], "action": DENY, "errnoRet": 1},
            {"names": ["x86_only"], "action": ALLOW},
            {"names": ["until_new"], "action": ALLOW},
        ],
    }


def test_capabilities_open_and_close_rules(tmp_path: Path) -> None:
    result = compiled(tmp_path, PROFILE, ADMIN)
    assert [rule for rule in result["syscalls"] if rule["names"] == ["mount"]] == [
        {"names": ["mount"], "action": ALLOW}
    ]
    assert "both" not in names(result)
    assert "both" in names(compiled(tmp_path, PROFILE, ADMIN | {"CAP_BPF"}))


@pytest.mark.parametrize(
    "machine, release, expected, architectures",
    [
        (
            "aarch64",
            "5.10.1",
            ["arm_only", "not_x86", "new"],
            ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        ),
        ("armv7l", "4.19", ["arm_only", "not_x86", "until_new"], None),
        ("x86_64", "6.1", ["x86_only", "new"], ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]),
        ("elbrus", "10.0", ["not_x86", "new"], None),
    ],
)
def test_machines_and_kernels(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    machine: str,
    release: str,
    expected: list[str],
    architectures: list[str] | None,
) -> None:
    on_machine(monkeypatch, machine, release)
    result = compiled(tmp_path, PROFILE)
    assert names(result)[5:] == expected
    assert result.get("architectures") == architectures


def test_plain_architectures_flags_and_listener(tmp_path: Path) -> None:
    extra = {
        "architectures": ["SCMP_ARCH_X86"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "listenerPath": "/run/agent.sock",
        "listenerMetadata": "x",
    }
    document = {"defaultAction": ALLOW, **extra}
    assert compiled(tmp_path, document) == {"defaultAction": ALLOW, **extra, "syscalls": []}


def test_a_second_argument_is_kept(tmp_path: Path) -> None:
    masked = {"index": 1, "value": 3, "valueTwo": 1, "op": "SCMP_CMP_MASKED_EQ"}
    document = {
        "defaultAction": DENY,
        "syscalls": [{"names": ["a"], "action": ALLOW, "args": [masked]}],
    }
    assert compiled(tmp_path, document)["syscalls"][0]["args"] == [masked]


def rules(*changes: dict[str, Any]) -> dict[str, Any]:
    rule = {"names": ["a"], "action": ALLOW}
    return {"defaultAction": DENY, "syscalls": [{**rule, **change} for change in changes]}


@pytest.mark.parametrize(
    "document, text",
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        (b"\xff", "is not JSON"),
        ("[" * 200_000, "is not JSON"),
        ("[]", "is not a JSON object"),
        ({}, "lacks defaultAction"),
        ({"defaultAction": 1}, "defaultAction that is not a string"),
        ({"defaultAction": DENY, "defaultErrno": "ENOSUCH"}, "unknown defaultErrno: 'ENOSUCH'"),
        ({"defaultAction": DENY, "defaultErrnoRet": "1"}, "defaultErrnoRet that is not a number"),
        ({"defaultAction": DENY, "syscalls": {}}, "syscalls that is not a list"),
        ({"defaultAction": DENY, "syscalls": [1]}, "syscalls that is not a list of objects"),
        ({**PROFILE, "architectures": ["SCMP_ARCH_X86"]}, "both"),
        ({"defaultAction": DENY, "archMap": [{}]}, "lacks architecture"),
        (rules({"names": []}), 'either "name" or "names"'),
        (rules({"name": "b"}), 'either "name" or "names"'),
        (rules({"names": [1]}), "names that is not a list of strings"),
        (rules({"action": None}), "lacks action"),
        (rules({"args": [{"index": 0}]}), "lacks value"),
        (rules({"args": [{**FILTER, "value": True}]}), "value that is not a number"),
        (rules({"includes": []}), "includes that is not an object"),
        (rules({"includes": {"caps": "CAP_BPF"}}), "caps that is not a list"),
        (rules({"excludes": {"minKernel": "new"}}), "minKernel that is not like 4.8"),
    ],
)
def test_malformed_profiles_are_named(tmp_path: Path, document: object, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compiled(tmp_path, document)
    assert str(tmp_path / "profile.json") in str(caught.value)
    assert text in str(caught.value)


def test_the_override_wins(tmp_path: Path) -> None:
    override, default = tmp_path / "override.json", tmp_path / "default.json"
    paths = (str(override), write(default, {"defaultAction": "SCMP_ACT_KILL"}))
    assert seccomp.profile(NONE, paths) == {"defaultAction": "SCMP_ACT_KILL", "syscalls": []}
    write(override, {"defaultAction": ALLOW})
    assert seccomp.profile(NONE, paths) == {"defaultAction": ALLOW, "syscalls": []}
    write(override, "broken")
    with pytest.raises(ConfigError, match=r"override\.json"):
        seccomp.profile(NONE, paths)


def test_the_seeds_paths() -> None:
    assert seccomp.OVERRIDE_PATH == "/etc/crio/seccomp.json"
    assert seccomp.DEFAULT_PATH == "/usr/share/containers/seccomp.json"


def test_no_profile_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths = (str(tmp_path / "nowhere"), str(write(tmp_path / "file", "") + "/below"))
    with caplog.at_level(logging.WARNING, "libpod.seccomp"):
        assert [seccomp.profile(NONE, paths) for _ in range(3)] == [None] * 3
    assert len(caplog.records) == 1
    assert paths[0] in caplog.text


def test_what_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        seccomp.profile(NONE, (str(tmp_path),))


def test_results_are_shared_until_the_file_changes(tmp_path: Path) -> None:
    first = compiled(tmp_path, {"defaultAction": ALLOW})
    path = str(tmp_path / "profile.json")
    assert seccomp.profile(NONE, (path,)) is first
    assert seccomp.profile(ADMIN, (path,)) is not first
    assert compiled(tmp_path, {"defaultAction": DENY})["defaultAction"] == DENY
