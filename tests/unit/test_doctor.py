# SPDX-License-Identifier: Apache-2.0
"""What the doctor finds: each problem made on purpose, and none on a host without."""

from __future__ import annotations

import json
import os
import resource
import stat
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest

from libpod import doctor, seccomp
from libpod.cgroup import Cgroups
from libpod.cli import main
from libpod.doctor import Problem
from libpod.errors import SharingRefused
from libpod.settings import RuntimeConfig


def script(path: Path, text: str, mode: int = 0o755) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(mode)
    return str(path)


def said(problems: Iterable[Problem]) -> list[tuple[str, str]]:
    return [(problem.severity, problem.what) for problem in problems]


def only(problems: Iterable[Problem]) -> Problem:
    (problem,) = problems
    assert problem.remedy
    return problem


@pytest.fixture
def sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RuntimeConfig:
    """A configuration, and what is said of this host apart from it, without any problem."""
    for check in ("_privilege", "_kernel", "_seccomp", "_limits", "_user_namespaces"):
        monkeypatch.setattr(doctor, check, tuple)
    monkeypatch.setattr(doctor, "_cgroups", lambda cgroups: ())
    monkeypatch.setattr(doctor, "_file_system", lambda device: "tmpfs")
    return RuntimeConfig(
        runtime_path=[script(tmp_path / "ociruntime", "echo ociruntime 1.0")],
        conmon_path=[script(tmp_path / "conmon", "echo conmon version 2.1.6")],
    )


def test_a_sound_host_has_no_problem(sound: RuntimeConfig, tmp_path: Path) -> None:
    assert doctor.examine(sound, f"{tmp_path}/run", f"{tmp_path}/lib") == []
    assert not (tmp_path / "run").exists()


def test_the_worst_comes_first(sound: RuntimeConfig, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    sound.conmon_path = [str(tmp_path / "nowhere")]
    sound.runtime_path.insert(0, str(tmp_path))
    sound.cni_default_network = "podman"
    problems = doctor.examine(sound, f"{tmp_path}/run", f"{tmp_path}/file")
    assert [p.severity for p in problems] == ["error", "error", "warning", "info"]


def test_a_host_that_cannot_be_looked_at_is_said(
    sound: RuntimeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden() -> tuple[Problem, ...]:
        raise PermissionError(13, "Permission denied", "/proc/x")

    monkeypatch.setattr(doctor, "_kernel", forbidden)
    problem = only(doctor.examine(sound, str(tmp_path), str(tmp_path)))
    assert (problem.severity, "/proc/x" in problem.what) == ("warning", True)


# --- programs --------------------------------------------------------------------------


def test_no_program_at_all(tmp_path: Path) -> None:
    problem = only(doctor._runtime([f"{tmp_path}/a", f"{tmp_path}/b"]))
    assert said([problem]) == [("error", f"there is no OCI runtime in {tmp_path}/a, {tmp_path}/b")]
    assert "install crun or runc" in problem.remedy
    assert only(doctor._conmon([f"{tmp_path}/a"])).severity == "error"


def test_a_program_that_cannot_be_used_is_passed_over(tmp_path: Path) -> None:
    plain = script(tmp_path / "plain", "true", 0o644)
    works = script(tmp_path / "works", "echo 2.1.0")
    problems = list(doctor._conmon([str(tmp_path), plain, works]))
    assert [p.severity for p in problems] == ["info", "info"]
    assert all(p.what.endswith(f"{works} is used") for p in problems)
    assert [p.severity for p in doctor._conmon([str(tmp_path), plain])] == ["error", "error"]
    assert "is not executable" in only(doctor._runtime([plain])).what


@pytest.mark.parametrize(
    ("version", "severity"),
    [
        ("conmon version 2.0.22\ncommit: x", "error"),
        ("conmon version 1.99.99", "error"),
        ("conmon version 2.0.23", None),
        ("conmon version 10.0.0", None),
        ("no idea", "warning"),
        ("", "warning"),
    ],
)
def test_conmon_must_be_new_enough(tmp_path: Path, version: str, severity: str | None) -> None:
    path = script(tmp_path / "conmon", f"echo '{version}'")
    assert [p.severity for p in doctor._conmon([path])] == ([severity] if severity else [])


@pytest.mark.parametrize("text", ["exit 3", "kill -9 $$", "exec sleep 60"])
def test_a_program_that_does_not_work(
    sound: RuntimeConfig, tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "TOOL_TIMEOUT", 0.5)
    path = script(tmp_path / "broken", text)
    for change in ({"runtime_path": [path]}, {"conmon_path": [path]}):
        config = sound.copy()
        for name, value in change.items():
            setattr(config, name, value)
        problem = only(doctor.examine(config, str(tmp_path), str(tmp_path)))
        assert problem.severity == "error"
        assert problem.what.startswith(f"{path} does not work: ")


def test_crun_on_a_hybrid_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "crun").mkdir()
    crun = script(tmp_path / "crun/crun", "echo crun 1.8.1")
    runc = script(tmp_path / "runc", "echo runc 1.1.5")
    cgroups = SimpleNamespace(mode="hybrid", unified="/unified")
    monkeypatch.setattr(doctor, "Cgroups", lambda: cgroups)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    problem = only(doctor._runtime([crun, runc]))
    assert problem.severity == "info"
    assert problem.what.endswith(f"crun refuses hybrid cgroups; {runc} is used")
    assert only(doctor._runtime([crun])).severity == "error"


# --- this process, its configuration ---------------------------------------------------


def test_others_than_root_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert only(doctor._privilege()).severity == "error"


@pytest.mark.parametrize(
    ("capabilities", "severity"),
    [("000001ffffffffff", None), ("000001fffeffffff", "info"), ("000001ffffdfffff", "error")],
)
def test_capabilities(
    capabilities: str, severity: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(doctor, "_status_field", lambda name: capabilities)
    assert [p.severity for p in doctor._privilege()] == ([severity] if severity else [])


def test_settings_without_effect_are_told() -> None:
    config = RuntimeConfig(cgroup_manager="systemd", cni_default_network="podman", hooks_dir="")
    assert said(doctor._configuration(config)) == [
        ("warning", "cgroup_manager: systemd is not built yet, cgroups are made by cgroupfs"),
        ("warning", "cni_default_network = 'podman' is kept but has no effect in this version"),
    ]
    config.of_host = True  # podman's packages ship such a file
    assert [p.severity for p in doctor._configuration(config)] == ["info", "info"]
    assert list(doctor._configuration(RuntimeConfig())) == []


def test_sharing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(doctor._sharing(RuntimeConfig(), str(tmp_path), str(tmp_path))) == []
    (tmp_path / "db.sql").write_bytes(b"SQLite")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(SharingRefused, match="SQLite"):
        list(doctor._sharing(RuntimeConfig(share="podman"), str(tmp_path), str(tmp_path)))


def test_few_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, 4096))
    assert "256 files" in only(doctor._limits()).what
    for enough in (4096, resource.RLIM_INFINITY):
        monkeypatch.setattr(resource, "getrlimit", lambda which, enough=enough: (enough, enough))
        assert list(doctor._limits()) == []


def test_the_configuration_file_is_read_and_its_faults_told_once(
    sound: RuntimeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "libpod.conf"
    path.write_text(
        f'static_dir = "{tmp_path}"\ntmp_dir = "{tmp_path}"\nmax_logsize = 3\n'
        f"runtime_path = {json.dumps(sound.runtime_path)}\n"
        f"conmon_path = {json.dumps(sound.conmon_path)}\n"
        'cni_default_network = "podman"\n'
    )
    unknown, unbuilt = doctor.diagnose({}, str(path))
    assert "unknown key 'max_logsize'; did you mean 'max_log_size'?" in unknown.what
    assert unbuilt.what.startswith("cni_default_network = 'podman'")
    assert caplog.records == []

    path.write_text("static_dir = 3\n")
    first = doctor.diagnose({}, str(path))[0]
    assert (first.severity, "static_dir" in first.what) == ("error", True)


def test_options_win_over_the_file(sound: RuntimeConfig, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    options = {
        "oci_runtime": sound.runtime_path[0],
        "conmon_path": sound.conmon_path[0],
        "static_dir": f"{tmp_path}/file/lib",
        "tmp_dir": f"{tmp_path}/run",
    }
    problem = only(p for p in doctor.diagnose(options) if p.severity == "error")
    assert problem.what == f"static_dir {tmp_path}/file/lib: {tmp_path}/file is not a directory"
    wrong = doctor.diagnose({"cgroup_manager": "none"})[0]
    assert (wrong.severity, "cgroup_manager" in wrong.what) == ("error", True)


# --- the kernel ------------------------------------------------------------------------


def test_an_old_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release="4.19.0-27-amd64"))
    assert [p.severity for p in doctor._kernel()] == ["warning", "info"]


def test_this_kernel_is_not_called_old_without_reason() -> None:
    major, minor = map(int, os.uname().release.split(".")[:2])
    told = {p.severity for p in doctor._kernel()}
    assert ("info" in told) == ((major, minor) < (5, 14))


def hierarchies(tmp_path: Path, *controllers: str, unified: bool = False) -> Cgroups:
    """Version 1 controllers, or the version 2 tree, on directories."""
    lines = []
    for number, name in enumerate(controllers):
        (tmp_path / name).mkdir()
        lines.append(f"{number} 1 0:{number} / {tmp_path}/{name} rw - cgroup cgroup rw,{name}")
    if unified:
        (tmp_path / "unified").mkdir()
        lines.append(f"99 1 0:99 / {tmp_path}/unified rw - cgroup2 cgroup2 rw")
    listing = tmp_path / "mountinfo"
    listing.write_text("".join(f"{line}\n" for line in lines))
    return Cgroups(str(listing))


V1 = ("memory", "cpu", "pids", "devices", "freezer")


@pytest.mark.parametrize("missing", V1)
def test_missing_controllers_of_version_1(tmp_path: Path, missing: str) -> None:
    cgroups = hierarchies(tmp_path, *(name for name in V1 if name != missing))
    (tmp_path / "memory").mkdir(exist_ok=True)
    (tmp_path / "memory/memory.memsw.limit_in_bytes").touch()
    problem = only(doctor._cgroups(cgroups))
    assert repr(missing) in problem.what
    assert problem.severity == ("error" if missing == "devices" else "warning")


def test_controllers_of_version_2(tmp_path: Path) -> None:
    cgroups = hierarchies(tmp_path, unified=True)
    listed = tmp_path / "unified/cgroup.controllers"
    listed.write_text("cpu io memory pids\n")
    assert list(doctor._cgroups(cgroups)) == []
    listed.write_text("cpu io memory\n")
    problem = only(doctor._cgroups(cgroups))
    assert "'pids'" in problem.what
    assert "subtree_control" in problem.remedy


def test_no_cgroups(tmp_path: Path) -> None:
    assert only(doctor._cgroups(hierarchies(tmp_path))).severity == "error"


def test_read_only_cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cgroups = hierarchies(tmp_path, *V1)
    (tmp_path / "memory/memory.memsw.limit_in_bytes").touch()
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=os.ST_RDONLY))
    assert {p.severity for p in doctor._cgroups(cgroups)} == {"error"}
    assert len(list(doctor._cgroups(cgroups))) == len(V1)


@pytest.mark.parametrize(("swap", "told"), [(True, 1), (False, 0)])
def test_swap_that_cannot_be_limited(
    tmp_path: Path, swap: bool, told: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libpod.cgroup._host_has_swap", lambda: swap)
    problems = list(doctor._cgroups(hierarchies(tmp_path, *V1)))
    assert len(problems) == told
    assert all("swap" in p.what for p in problems)


def test_seccomp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "seccomp.json"
    monkeypatch.setattr(seccomp, "OVERRIDE_PATH", str(path))
    monkeypatch.setattr(seccomp, "DEFAULT_PATH", str(tmp_path / "none"))
    monkeypatch.setattr(doctor, "_status_field", lambda name: "0")
    assert "no seccomp profile" in only(doctor._seccomp()).what
    monkeypatch.setattr(doctor, "_status_field", lambda name: None)
    assert [p.severity for p in doctor._seccomp()] == ["warning", "warning"]


def test_a_malformed_seccomp_profile(
    sound: RuntimeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    path = tmp_path / "seccomp.json"
    path.write_text("{")
    monkeypatch.setattr(seccomp, "OVERRIDE_PATH", str(path))
    told = [p for p in doctor.examine(sound, str(tmp_path), str(tmp_path)) if str(path) in p.what]
    assert only(told).severity == "error"


def test_user_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"/proc/sys/user/max_user_namespaces": "0\n", "/etc/subuid": "1234:1:2\n"}
    monkeypatch.setattr(doctor, "_read", lambda path: files.get(path, ""))
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert [p.severity for p in doctor._user_namespaces()] == ["info"]
    monkeypatch.setattr(os, "getuid", lambda: 1234)
    whats = [p.what for p in doctor._user_namespaces()]
    assert len(whats) == 2
    assert whats[1].startswith("/etc/subgid gives 1234 no IDs")


# --- directories --------------------------------------------------------------------------


def test_a_directory_that_others_can_write(tmp_path: Path) -> None:
    path = tmp_path / "lib"
    path.mkdir()
    path.chmod(0o777)
    config = RuntimeConfig()
    told = [p for p in doctor.examine(config, str(tmp_path), str(path)) if str(path) in p.what]
    assert [p.severity for p in told] == ["error"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o777


def test_what_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for name in ("file", "file/below", "link"):
        assert only(doctor._directory("tmp_dir", f"{tmp_path}/{name}")).severity == "error"


@pytest.mark.parametrize(
    ("status", "severities"),
    [
        ({}, []),
        ({"f_flag": os.ST_RDONLY}, ["error"]),
        ({"f_bavail": 1}, ["warning"]),
        ({"f_bavail": 0}, ["error"]),
        ({"f_favail": 10}, ["warning"]),
        ({"f_favail": 0}, ["error"]),
        ({"f_favail": 0, "f_files": 0}, []),  # a file system that counts none
    ],
)
def test_room(
    tmp_path: Path,
    status: dict[str, int],
    severities: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    room = {"f_flag": 0, "f_bavail": 1 << 20, "f_frsize": 4096, "f_files": 9999, "f_favail": 9999}
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(**{**room, **status}))
    assert [p.severity for p in doctor._directory("static_dir", str(tmp_path))] == severities


def test_noexec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=os.ST_NOEXEC))
    assert only(doctor._executable(f"{tmp_path}/lib")).severity == "info"
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=0))
    assert list(doctor._executable(f"{tmp_path}/lib")) == []


def test_what_a_reboot_clears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = os.stat(tmp_path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for kind, told in (("ext4", 1), ("tmpfs", 0)):
        listing = f"1 2 99:99 / /x rw - proc proc rw\n3 4 {number} / /y rw - {kind} source rw\n"
        monkeypatch.setattr(doctor, "_read", lambda path, listing=listing: listing)
        assert len(list(doctor._cleared_by_reboot(f"{tmp_path}/run"))) == told


# --- the verb ------------------------------------------------------------------------------


def test_the_verb_shows_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    problems = [Problem("no room", "warning", "make some")]
    asked = []

    def diagnose(options: object, path: object) -> list[Problem]:
        asked.append((options, path))
        return problems

    monkeypatch.setattr(doctor, "diagnose", diagnose)
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out == (
        "SEVERITY    WHAT        REMEDY\nwarning     no room     make some\n"
    )
    problems.insert(0, Problem("no conmon", "error", "install it"))
    assert main(["doctor", "--format", "json"]) == 1
    assert json.loads(capsys.readouterr().out) == [
        {"what": "no conmon", "severity": "error", "remedy": "install it"},
        {"what": "no room", "severity": "warning", "remedy": "make some"},
    ]
    assert main(["doctor", "-f", "{{.What}}"]) == 1
    assert capsys.readouterr().out == "no conmon\nno room\n"
    problems.clear()
    assert main(["--tmpdir", "/x", "--config", "/y", "doctor"]) == 0
    assert capsys.readouterr().out == "Nothing keeps this host from running containers.\n"
    assert main(["doctor", "-f", "{{.What}}"]) == 0
    assert capsys.readouterr().out == ""
    assert asked[3] == ({"tmp_dir": "/x"}, "/y")
