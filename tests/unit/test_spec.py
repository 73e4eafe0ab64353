# SPDX-License-Identifier: Apache-2.0
"""The OCI spec of a job: podman's defaults, each option, and what is refused."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from libpod import seccomp
from libpod import spec as module
from libpod.errors import InvalidArgument, NotBuilt, Unsupported
from libpod.job import CAPABILITIES
from libpod.spec import UNLIMITED, CgroupFacts, Limits, Mount, Spec, generate

ID = "0123456789ab" + "c" * 52
V1 = CgroupFacts(1, frozenset({"memory", "cpu", "pids", "devices"}), True, True)
V2 = V1._replace(version=2)
EVERYTHING = frozenset(range(41))
DEFAULT_CAPS = [
    *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL"),
    *("CAP_NET_BIND_SERVICE", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID"),
    "CAP_SYS_CHROOT",
]
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.fixture
def root(tmp_path: Path) -> str:
    etc = tmp_path / "root" / "etc"
    etc.mkdir(parents=True)
    (etc / "passwd").write_text("root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:\n")
    (etc / "group").write_text("staff:x:50:root,app\n")
    return str(etc.parent)


@pytest.fixture(autouse=True)
def profile(monkeypatch: pytest.MonkeyPatch) -> None:
    """A seccomp profile that says for which capabilities it was asked."""
    monkeypatch.setattr(seccomp, "profile", lambda capabilities: {"asked": sorted(capabilities)})


def make(job: Spec, command: list[str] | None = None, **changes: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "container_id": ID,
        "name": "web",
        "cgroup_path": f"/libpod_parent/libpod-{ID}",
        "cgroups": V1,
        "rlimits": {"RLIMIT_NOFILE": 20000, "RLIMIT_NPROC": UNLIMITED, "RLIMIT_CORE": 0},
        "bounding": EVERYTHING,
        "created_ns": 1_600_000_000_000_000_007,
    }
    result = generate(job, command or ["sh"], **{**arguments, **changes})
    assert json.loads(json.dumps(result)) == result
    return result


def mounts(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    targets = [mount["destination"] for mount in result["mounts"]]
    assert len(set(targets)) == len(targets)
    for position, target in enumerate(targets):
        hidden = [other for other in targets[:position] if other.startswith(f"{target}/")]
        assert not hidden, f"{target} is mounted over {hidden}"
    return {mount["destination"]: mount for mount in result["mounts"]}


def test_podmans_defaults(root: str) -> None:
    result = make(Spec(rootfs=root), ["sleep", "100"])
    result["mounts"] = {
        mount["destination"]: (mount["type"], mount["source"], ",".join(mount["options"]))
        for mount in result["mounts"]
    }
    assert result == {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0, "umask": 0o22, "additionalGids": [50]},
            "args": ["sleep", "100"],
            "env": [PATH, "container=libpod", "HOME=/root", "HOSTNAME=0123456789ab"],
            "cwd": "/",
            "capabilities": {
                "bounding": DEFAULT_CAPS,
                "effective": DEFAULT_CAPS,
                "permitted": DEFAULT_CAPS,
                "inheritable": [],
                "ambient": [],
            },
            "rlimits": [
                {"type": "RLIMIT_NOFILE", "hard": 20000, "soft": 20000},
                {"type": "RLIMIT_NPROC", "hard": 1048576, "soft": 1048576},
            ],
            "noNewPrivileges": False,
        },
        "root": {"path": root, "readonly": False},
        "hostname": "0123456789ab",
        "mounts": {
            "/proc": ("proc", "proc", "nosuid,noexec,nodev"),
            "/dev": ("tmpfs", "tmpfs", "nosuid,noexec,strictatime,mode=755,size=65536k"),
            "/sys": ("sysfs", "sysfs", "nosuid,noexec,nodev,ro"),
            "/dev/pts": (
                "devpts",
                "devpts",
                "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5",
            ),
            "/dev/mqueue": ("mqueue", "mqueue", "nosuid,noexec,nodev"),
            "/dev/shm": ("tmpfs", "shm", "nosuid,noexec,nodev,mode=1777,size=65536000"),
            "/sys/fs/cgroup": ("cgroup", "cgroup", "rprivate,nosuid,noexec,nodev,relatime,ro"),
        },
        "annotations": {
            "io.container.manager": "libpod",
            "io.container.name": "web",
            "io.kubernetes.cri-o.Created": "2020-09-13T12:26:40.000000007Z",
            "io.kubernetes.cri-o.TTY": "false",
            "org.opencontainers.image.stopSignal": "15",
        },
        "linux": {
            "resources": {
                "pids": {"limit": 2048},
                "devices": [{"allow": False, "access": "rwm"}],
            },
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")],
            "cgroupsPath": f"/libpod_parent/libpod-{ID}",
            "sysctl": {"net.ipv4.ping_group_range": "0 0"},
            "maskedPaths": [
                *("/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
                *("/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi"),
                *("/sys/firmware", "/sys/fs/selinux", "/sys/dev/block"),
            ],
            "readonlyPaths": [
                *("/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"),
                "/proc/sysrq-trigger",
            ],
            "seccomp": {"asked": DEFAULT_CAPS},
        },
    }


# --- the process ----------------------------------------------------------------


def test_what_runs(root: str) -> None:
    def arguments(job: Spec, command: list[str] | None) -> Any:
        options: dict[str, Any] = {"container_id": ID, "name": "n", "cgroup_path": ""}
        options |= {"cgroups": V1, "rlimits": {}, "bounding": EVERYTHING}
        return generate(job, command, **options)["process"]["args"]

    job = Spec(rootfs=root, command=["a", "b"])
    assert arguments(job, None) == ["a", "b"]
    assert arguments(job, ["c"]) == ["c"]
    assert arguments(job.but(entrypoint=["/init", "--"]), None) == ["/init", "--", "a", "b"]
    assert arguments(job.but(entrypoint=["/init"]), []) == ["/init"]
    for nothing, command in ((Spec(rootfs=root), None), (job, []), (job, [""])):
        with pytest.raises(InvalidArgument, match="nothing to run"):
            arguments(nothing, command)
    with pytest.raises(InvalidArgument, match="command"):
        arguments(job, "ls")  # type: ignore[arg-type]


def test_the_environment(root: str) -> None:
    job = Spec(rootfs=root, user="app", terminal=True, env={"A": "=1", "container": "x"})
    result = make(job.but(hostname="box"))
    expected = [PATH, "TERM=xterm", "container=x", "HOME=/home/app", "HOSTNAME=box", "A==1"]
    assert result["process"]["env"] == expected
    assert result["process"]["terminal"] is True
    assert result["annotations"]["io.kubernetes.cri-o.TTY"] == "true"
    replaced = make(job.but(env={"PATH": "/p", "HOME": "/h", "HOSTNAME": "n", "TERM": "vt"}))
    expected = ["PATH=/p", "TERM=vt", "container=libpod", "HOME=/h", "HOSTNAME=n"]
    assert replaced["process"]["env"] == expected


def test_the_user_comes_from_the_root_file_system(root: str) -> None:
    user = make(Spec(rootfs=root, user="app"))["process"]["user"]
    assert user == {"uid": 1000, "gid": 1001, "umask": 0o22, "additionalGids": [1001, 50]}
    with pytest.raises(InvalidArgument, match="unable to find user x: no matching entries"):
        make(Spec(rootfs=root, user="x"))


def test_the_working_directory_and_stop_signal(root: str) -> None:
    result = make(Spec(rootfs=root, workdir="/src", stop_signal="INT"))
    assert result["process"]["cwd"] == "/src"
    assert result["annotations"]["org.opencontainers.image.stopSignal"] == "2"


def caps(result: dict[str, Any]) -> dict[str, set[str]]:
    sets = result["process"]["capabilities"]
    for names in sets.values():
        assert names == sorted(set(names))
    return {kind: {name.removeprefix("CAP_") for name in names} for kind, names in sets.items()}


def test_added_and_dropped_capabilities(root: str) -> None:
    job = Spec(rootfs=root, cap_add=["net_raw"], cap_drop=["CAP_CHOWN", "sys_time"])
    expected = {name.removeprefix("CAP_") for name in DEFAULT_CAPS} - {"CHOWN"} | {"NET_RAW"}
    found = caps(result := make(job))
    assert found["bounding"] == found["effective"] == found["permitted"] == expected
    assert not found["inheritable"] | found["ambient"]
    assert {f"CAP_{name}" for name in expected} == set(result["linux"]["seccomp"]["asked"])


def test_all_capabilities(root: str) -> None:
    found = caps(make(Spec(rootfs=root, cap_drop=["all"], cap_add=["kill"])))
    assert found["bounding"] == found["effective"] == {"KILL"}
    assert not any(caps(make(Spec(rootfs=root, cap_drop=["ALL"]))).values())
    own = EVERYTHING - {CAPABILITIES.index("CAP_SYS_RESOURCE")}
    found = caps(make(Spec(rootfs=root, cap_add=["all"], cap_drop=["bpf"]), bounding=own))
    assert len(found["effective"]) == 39
    assert not found["bounding"] & {"SYS_RESOURCE", "BPF"}


def test_another_user_holds_only_what_was_added(root: str) -> None:
    job = Spec(rootfs=root, user="app")
    found = caps(make(job))
    assert len(found.pop("bounding")) == 11
    assert not any(found.values())
    found = caps(make(job.but(cap_add=["net_raw"])))
    assert len(found.pop("bounding")) == 12
    assert all(names == {"NET_RAW"} for names in found.values())
    found = caps(make(job.but(cap_add=["all"], cap_drop=["bpf"])))
    assert all(len(names) == 40 for names in found.values())


def test_never_more_than_the_caller_has(root: str) -> None:
    few = frozenset(CAPABILITIES.index(f"CAP_{name}") for name in ("CHOWN", "NET_RAW"))
    assert caps(make(Spec(rootfs=root), bounding=few))["bounding"] == {"CHOWN"}
    privileged = make(Spec(rootfs=root, privileged=True), bounding=few)
    assert caps(privileged)["bounding"] == {"CHOWN", "NET_RAW"}
    with pytest.raises(Unsupported, match="CAP_BPF, CAP_SYS_ADMIN"):
        make(Spec(rootfs=root, cap_add=["sys_admin", "bpf"]), bounding=few)
    unknown_to_us = few | {63}
    assert caps(make(Spec(rootfs=root, cap_add=["all"]), bounding=unknown_to_us))["bounding"]


def test_rlimits(root: str) -> None:
    ulimits: dict[str, Any] = {"nofile": "100:200", "core": 0, "stack": -1, "cpu": (5, -1)}
    limits = make(Spec(rootfs=root, ulimits=ulimits))["process"]["rlimits"]
    assert {limit["type"]: (limit["soft"], limit["hard"]) for limit in limits} == {
        "RLIMIT_NOFILE": (100, 200),
        "RLIMIT_NPROC": (1048576, 1048576),
        "RLIMIT_CORE": (0, 0),
        "RLIMIT_STACK": (2**64 - 1, 2**64 - 1),
        "RLIMIT_CPU": (5, 2**64 - 1),
    }


@pytest.mark.parametrize("value", [20001, "5:20001", -1, "5:-1"])
def test_rlimits_above_the_callers_own(root: str, value: str | int) -> None:
    with pytest.raises(Unsupported, match=r"ulimit nofile=.*hard limit of 20000"):
        make(Spec(rootfs=root, ulimits={"nofile": value}))


# --- the root file system and mounts --------------------------------------------


def test_the_root_is_found_from_where_we_stand(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("root")
    for given in ("root/", "./link", str(tmp_path / "link")):
        assert make(Spec(rootfs=given, read_only=True))["root"] == {"path": root, "readonly": True}


def test_a_root_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidArgument, match=r"'.*/nowhere' does not exist: unpack"):
        make(Spec(rootfs=str(tmp_path / "nowhere")))
    with pytest.raises(InvalidArgument, match=r"'.*/file' is not a directory"):
        make(Spec(rootfs=str(tmp_path / "file")))


def test_images_are_not_built() -> None:
    with pytest.raises(NotBuilt, match="'alpine'"):
        make(Spec("alpine"))


def test_mounts_of_the_user(root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "_SELINUX", str(tmp_path / "no-selinux"))
    given = [
        Mount("/etc", "/a/b/c"),
        Mount(".", "/a", read_only=True),
        Mount("/etc", "/d", options=["bind", "z", "rslave", "nosuid"]),
    ]
    result = make(Spec(rootfs=root, mounts=given, tmpfs={"/a/b": "1k"}))
    found = mounts(result)
    assert found["/a"] == {
        "destination": "/a",
        "type": "bind",
        "source": str(tmp_path),
        "options": ["rbind", "rprivate", "ro"],
    }
    assert found["/a/b/c"]["options"] == ["rbind", "rprivate", "rw"]
    assert found["/d"]["options"] == ["bind", "rslave", "nosuid", "rw"]
    assert found["/a/b"]["type"] == "tmpfs"
    assert "size=1024" in found["/a/b"]["options"]
    assert len(found) == 7 + 4
    assert result["linux"]["rootfsPropagation"] == "rslave"


def test_users_mounts_replace_ours(root: str) -> None:
    found = mounts(
        make(Spec(rootfs=root, tmpfs={"/dev/shm": "1M"}, mounts=[Mount("/sys", "/sys")]))
    )
    assert len(found) == 7
    assert found["/sys"]["type"] == "bind"
    assert "size=1048576" in found["/dev/shm"]["options"]
    found = mounts(make(Spec(rootfs=root, mounts=[Mount("/dev", "/dev")])))
    assert [target for target in found if target.startswith("/dev")] == ["/dev"]


@pytest.mark.parametrize(
    "option, propagation",
    [("shared", "shared"), ("rshared", "shared"), ("slave", "rslave"), ("private", None)],
)
def test_propagation_of_the_root(root: str, option: str, propagation: str | None) -> None:
    job = Spec(rootfs=root, mounts=[Mount("/etc", "/e", options=[option]), Mount("/etc", "/f")])
    assert make(job)["linux"].get("rootfsPropagation") == propagation


def test_a_source_that_is_missing(root: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=f"not exist: {tmp_path}/nowhere: make it"):
        make(Spec(rootfs=root, mounts=[Mount(f"{tmp_path}/x/../nowhere", "/a")]))


def test_relabelling_is_not_built(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SELINUX", str(tmp_path))
    with pytest.raises(NotBuilt, match="'Z' of /a"):
        make(Spec(rootfs=root, mounts=[Mount("/etc", "/a", options=["Z"])]))
    assert "/a" in mounts(make(Spec(rootfs=root, mounts=[Mount("/etc", "/a")])))


# --- namespaces, privilege, resources -------------------------------------------


def kinds(result: dict[str, Any]) -> list[str]:
    return [namespace["type"] for namespace in result["linux"]["namespaces"]]


def test_the_network_of_the_host(root: str) -> None:
    result = make(Spec(rootfs=root, network="host"))
    assert kinds(result) == ["pid", "ipc", "uts", "mount"]
    assert "sysctl" not in result["linux"]
    assert result["hostname"] == os.uname().nodename
    assert f"HOSTNAME={os.uname().nodename}" in result["process"]["env"]
    assert make(Spec(rootfs=root, network="host", hostname="box"))["hostname"] == "box"


def test_cgroup_version_2(root: str) -> None:
    assert kinds(make(Spec(rootfs=root), cgroups=V2))[-1] == "cgroup"
    assert "cgroupsPath" not in make(Spec(rootfs=root), cgroup_path="")["linux"]


def test_privileged(root: str) -> None:
    result = make(Spec(rootfs=root, privileged=True, cap_drop=["sys_boot"]))
    linux, found = result["linux"], mounts(result)
    assert not {"seccomp", "maskedPaths", "readonlyPaths"} & set(linux)
    assert linux["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert "rw" in found["/sys"]["options"] and "rw" in found["/sys/fs/cgroup"]["options"]
    assert caps(result)["effective"] == {n[4:] for n in CAPABILITIES} - {"SYS_BOOT"}


def test_privileged_devices_are_the_hosts(root: str) -> None:
    devices = {d["path"]: d for d in make(Spec(rootfs=root, privileged=True))["linux"]["devices"]}
    null = os.stat("/dev/null")
    assert devices["/dev/null"] == {
        "path": "/dev/null",
        "type": "c",
        "major": 1,
        "minor": 3,
        "fileMode": stat.S_IMODE(null.st_mode),
        "uid": null.st_uid,
        "gid": null.st_gid,
    }
    assert not any(re.match("/dev/(pts|shm|mqueue|console|ptmx|fd)", path) for path in devices)


def test_only_device_nodes_are_devices(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "below" / "fifo")
    assert list(module._host_devices(str(tmp_path))) == []


def test_a_device_that_goes_while_we_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "listdir", lambda _path: ["gone", "null"])
    assert [device["path"] for device in module._host_devices("/dev")] == ["/dev/null"]


def resources(root: str, limits: Limits, cgroups: CgroupFacts = V1) -> dict[str, Any]:
    result: dict[str, Any] = make(Spec(rootfs=root, limits=limits), cgroups=cgroups)
    found: dict[str, Any] = result["linux"]["resources"]
    found.pop("devices")
    return found


def test_limits(root: str) -> None:
    limits = Limits(memory="64M", swap="1M", cpus=0.5, pids=20, output=5)
    assert resources(root, limits) == {
        "memory": {"limit": 64 << 20, "swap": 65 << 20},
        "cpu": {"quota": 50000, "period": 100000},
        "pids": {"limit": 20},
    }
    assert resources(root, Limits(memory="64M"))["memory"] == {"limit": 64 << 20, "swap": 64 << 20}
    for unlimited in (0, -1):
        assert resources(root, Limits(pids=unlimited)) == {}


def test_podmans_pids_limit_where_it_can_be(root: str) -> None:
    bare = V1._replace(controllers=frozenset())
    assert resources(root, Limits(), bare) == {}
    assert resources(root, Limits(pids=0), bare) == {}


@pytest.mark.parametrize(
    "limits, limit, controller",
    [
        (Limits(memory=2**20), "memory", "memory"),
        (Limits(cpus=1), "cpus", "cpu"),
        (Limits(pids=1), "pids", "pids"),
    ],
)
def test_limits_that_cannot_be_enforced(
    root: str, limits: Limits, limit: str, controller: str
) -> None:
    rest = V1.controllers - {controller}
    with pytest.raises(Unsupported, match=f"limit {limit}: .*'{controller}' is missing.*boot with"):
        resources(root, limits, V1._replace(controllers=rest))
    with pytest.raises(Unsupported, match=rf"write \+{controller} to cgroup.subtree_control"):
        resources(root, limits, V2._replace(controllers=rest))


def test_memory_is_never_limited_without_swap(root: str) -> None:
    limits, blind = Limits(memory="64M", swap="1M"), V1._replace(swap_limit=False)
    with pytest.raises(Unsupported, match=r"cannot limit swap.*swapaccount=1"):
        resources(root, limits, blind)
    assert resources(root, limits, blind._replace(host_swap=False))["memory"] == {"limit": 64 << 20}


# --- cost -----------------------------------------------------------------------


def test_the_profile_is_not_copied(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = {"defaultAction": "SCMP_ACT_ALLOW"}
    monkeypatch.setattr(seccomp, "profile", lambda _capabilities: shared)
    assert make(Spec(rootfs=root))["linux"]["seccomp"] is shared
    monkeypatch.setattr(seccomp, "profile", lambda _capabilities: None)
    assert "seccomp" not in make(Spec(rootfs=root))["linux"]


def test_specs_share_nothing_else(root: str) -> None:
    job = Spec(rootfs=root)
    first = make(job)
    first["mounts"][0]["options"].append("x")
    first["linux"]["maskedPaths"].clear()
    first["process"]["env"].clear()
    assert make(job) == make(job)
    assert make(job)["linux"]["maskedPaths"]
    assert "x" not in make(job)["mounts"][0]["options"]


def test_importing_is_cheap() -> None:
    code = "import sys; own = set(sys.modules); import libpod.spec; print(*set(sys.modules) - own)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "libpod.job" in loaded
    heavy = (
        "asyncio subprocess dataclasses inspect importlib.metadata pathlib tempfile shutil socket"
    )
    assert not set(heavy.split()) & set(loaded)
