# SPDX-License-Identifier: Apache-2.0
"""What a `Spec` means, seen from inside the container."""

from __future__ import annotations

import os
import re
import resource
import subprocess
from collections.abc import Callable

import pytest

from census import cgroup_mounts
from conftest import Dirs, containers_of
from libpod import InvalidArgument, Limits, Mount, Reason, Runtime, Spec, Unsupported
from libpod.job import CAPABILITIES

DEFAULT_CAPABILITIES = {
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
}
"""Podman's eleven."""

Say = Callable[..., str]


@pytest.fixture
def say(rt: Runtime, box: Spec) -> Say:
    """What a shell text prints in a box with these changes; it must succeed."""

    def run(text: str, **changes: object) -> str:
        r = rt.run(box.but(**changes), ["sh", "-c", text], timeout=60)
        assert (r.reason, r.exit_code, r.stderr) == (Reason.EXITED, 0, b""), r.stderr
        return r.stdout.decode()

    return run


def fields(text: str) -> dict[str, str]:
    """The "Name: value" lines of /proc/self/status."""
    return dict(re.findall(r"^(\w+):\t(.*)$", text, re.MULTILINE))


def names(mask: str) -> set[str]:
    bits = int(mask, 16)
    return {name for number, name in enumerate(CAPABILITIES) if bits >> number & 1}


# --- rights --------------------------------------------------------------------------


def test_default_capabilities_and_seccomp(say: Say) -> None:
    status = fields(say("cat /proc/self/status"))
    for kind in ("CapEff", "CapPrm", "CapBnd"):
        assert names(status[kind]) == DEFAULT_CAPABILITIES
    for kind in ("CapInh", "CapAmb"):
        assert names(status[kind]) == set()
    assert status["Seccomp"] == "2"
    assert status["NoNewPrivs"] == "0"


def test_a_user_has_no_capabilities(say: Say) -> None:
    status = fields(say("cat /proc/self/status", user="worker"))
    assert names(status["CapEff"]) == set()
    assert names(status["CapBnd"]) == DEFAULT_CAPABILITIES
    held = fields(say("cat /proc/self/status", user="worker", cap_add=["NET_RAW"]))
    assert names(held["CapEff"]) == {"CAP_NET_RAW"}


def test_capabilities_added_and_dropped(say: Say) -> None:
    def effective(**changes: object) -> set[str]:
        return names(fields(say("cat /proc/self/status", **changes))["CapEff"])

    assert effective(cap_add=["net_raw"]) == DEFAULT_CAPABILITIES | {"CAP_NET_RAW"}
    assert effective(cap_drop=["CAP_CHOWN"]) == DEFAULT_CAPABILITIES - {"CAP_CHOWN"}
    assert effective(cap_drop=["all"]) == set()
    assert effective(cap_drop=["all"], cap_add=["KILL"]) == {"CAP_KILL"}


def test_a_dropped_capability_is_missed(say: Say) -> None:
    attempt = "chown 1:1 /dev/shm 2>/dev/null && echo may || echo may not"
    assert say(attempt) == "may\n"
    assert say(attempt, cap_drop=["CHOWN"]) == "may not\n"


def test_privileged(say: Say) -> None:
    status = fields(say("cat /proc/self/status", privileged=True))
    with open("/proc/self/status", encoding="ascii") as ours:
        assert status["CapEff"] == fields(ours.read())["CapBnd"]
    assert status["Seccomp"] == "0"
    assert "rw" in say("grep ' /sys sysfs ' /proc/mounts", privileged=True).split()[3].split(",")


def test_devices(say: Say) -> None:
    seen = set(say("ls /dev").split())
    assert {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm"} <= seen
    assert not {"mem", "kmsg", "sda", "vda"} & seen
    attempt = "mknod /dev/x c 1 {}; head -c 1 /dev/x >/dev/null 2>&1 && echo may || echo may not"
    assert say(attempt.format(5), cap_add=["MKNOD"]) == "may\n"  # /dev/zero
    assert say(attempt.format(11), cap_add=["MKNOD"]) == "may not\n"  # /dev/kmsg


def test_masked_and_read_only_paths(say: Say) -> None:
    assert say("cat /proc/keys /proc/timer_list | wc -c") == "0\n"
    assert say("ls /sys/firmware | wc -l") == "0\n"
    assert say("(echo h >/proc/sysrq-trigger) 2>/dev/null || echo refused") == "refused\n"
    assert say("(echo 0 >/proc/sys/kernel/panic) 2>/dev/null || echo refused") == "refused\n"


def test_namespaces(say: Say) -> None:
    inside = say("cd /proc/self/ns; for n in pid ipc uts mnt net user; do readlink $n; done")
    ours = [os.readlink(f"/proc/self/ns/{n}") for n in ("pid", "ipc", "uts", "mnt", "net", "user")]
    same = [a == b for a, b in zip(inside.split(), ours, strict=True)]
    assert same == [False, False, False, False, False, True]
    assert say("echo $$") == "1\n"


# --- who and where --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "user, expected, home",
    [
        (None, "0 0 0", "/root"),
        ("root", "0 0 0", "/root"),
        ("worker", "1000 1000 1000,2000", "/home/worker"),
        (1000, "1000 1000 1000,2000", "/home/worker"),
        ("worker:extra", "1000 2000 2000", "/home/worker"),
        ("1234:5678", "1234 5678 5678", "/"),
    ],
)
def test_users(say: Say, user: str | int | None, expected: str, home: str) -> None:
    said = say("echo $(id -u) $(id -g) $(id -G | tr ' ' '\\n' | sort -n | uniq) $HOME", user=user)
    *ids, seen_home = said.split()
    assert (f"{ids[0]} {ids[1]} {','.join(ids[2:])}", seen_home) == (expected, home)


def test_unknown_users_are_refused(rt: Runtime, box: Spec, dirs: Dirs) -> None:
    for user in ("nobody-here", "worker:nogroup", "0:nogroup"):
        with pytest.raises(InvalidArgument, match="user|group"):
            rt.run(box.but(user=user), ["true"])
    assert containers_of(dirs) == []


def test_environment(rt: Runtime, box: Spec) -> None:
    odd = "two words = and\na line, äöü"
    r = rt.run(box.but(env={"A": "1", "ODD": odd, "EMPTY": "", "HOME": "/x"}), ["env", "-0"])
    if r.exit_code:  # an older busybox
        r = rt.run(
            box.but(env={"A": "1", "ODD": odd, "EMPTY": "", "HOME": "/x"}),
            ["cat", "/proc/self/environ"],
        )
    seen = dict(entry.split("=", 1) for entry in r.stdout.decode().strip("\0").split("\0"))
    assert r.id is not None
    assert seen == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/x",
        "HOSTNAME": r.id[:12],
        "container": "libpod",
        "A": "1",
        "ODD": odd,
        "EMPTY": "",
    }


def test_our_environment_is_not_passed_on(
    rt: Runtime, box: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LP_SECRET", "ours")
    c = rt.start(box, ["sleep", "1000"])
    with open(f"/proc/{c.state.pid}/environ", "rb") as file:
        assert b"LP_SECRET" not in file.read()
    monitor = subprocess.run(
        [
            "grep",
            "-l",
            "-a",
            c.id,
            *(f"/proc/{p}/cmdline" for p in os.listdir("/proc") if p.isdigit()),
        ],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split()
    assert monitor
    for path in monitor:
        with open(os.path.join(os.path.dirname(path), "environ"), "rb") as file:
            assert b"LP_SECRET" not in file.read()


def test_hostname(rt: Runtime, box: Spec) -> None:
    drawn = rt.run(box, ["hostname"])
    assert drawn.id is not None and drawn.stdout == f"{drawn.id[:12]}\n".encode()
    chosen = rt.run(box.but(hostname="crate-1.example"), ["sh", "-c", "hostname; echo $HOSTNAME"])
    assert chosen.stdout == b"crate-1.example\ncrate-1.example\n"


def test_network_none_has_the_loopback_only(say: Say) -> None:
    routes = say("tail -n +2 /proc/net/route; grep -c : /proc/net/tcp || true")
    assert routes == "0\n"
    up = say("for n in /sys/class/net/*; do [ $(cat $n/operstate) = up ] && echo ${n##*/}; done; :")
    assert up == ""
    assert "lo" in say("ls /sys/class/net").split()


def test_network_host(rt: Runtime, say: Say, box: Spec) -> None:
    assert say("readlink /proc/self/ns/net", network="host").strip() == os.readlink(
        "/proc/self/ns/net"
    )
    assert say("hostname", network="host").strip() == os.uname().nodename


def test_working_directory(say: Say) -> None:
    assert say("pwd") == "/\n"
    assert say("pwd", workdir="/home/worker") == "/home/worker\n"


def test_umask(say: Say) -> None:
    assert say("umask") == "0022\n"


# --- files ----------------------------------------------------------------------------------


def test_the_root_can_be_written(rt: Runtime, own_rootfs: str) -> None:
    job = Spec(rootfs=own_rootfs)
    assert rt.run(job, ["sh", "-c", "echo kept >/file"]).exit_code == 0
    with open(f"{own_rootfs}/file", encoding="ascii") as file:
        assert file.read() == "kept\n"


def test_read_only(rt: Runtime, own_rootfs: str) -> None:
    job = Spec(rootfs=own_rootfs, read_only=True, tmpfs={"/tmp": "1M"})
    r = rt.run(job, ["sh", "-c", "echo x >/file; echo y >/tmp/file && cat /tmp/file"])
    assert r.stdout == b"y\n"
    assert b"Read-only file system" in r.stderr
    assert not os.path.exists(f"{own_rootfs}/file")


def test_tmpfs(rt: Runtime, box: Spec) -> None:
    job = box.but(tmpfs={"/tmp": "64k", "/var/scratch": "size=128k,mode=0700,ro"})
    r = rt.run(job, ["sh", "-c", "grep -E ' (/tmp|/var/scratch) ' /proc/mounts"])
    lines = {line.split()[1]: line.split()[3].split(",") for line in r.stdout.decode().splitlines()}
    assert {"rw", "nosuid", "nodev", "size=64k"} <= set(lines["/tmp"])
    assert {"ro", "size=128k", "mode=700"} <= set(lines["/var/scratch"])
    full = rt.run(job, ["dd", "if=/dev/zero", "of=/tmp/x", "bs=1k", "count=100"])
    assert full.exit_code == 1 and b"No space left" in full.stderr


def test_mounts(rt: Runtime, box: Spec, dirs: Dirs, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkdir(f"{dirs.work}/shared")
    with open(f"{dirs.work}/shared/in", "w", encoding="ascii") as file:
        file.write("from the host\n")
    job = box.but(
        mounts=[
            Mount(f"{dirs.work}/shared", "/rw"),
            Mount(f"{dirs.work}/shared", "/ro", read_only=True, options=["noexec"]),
            Mount(f"{dirs.work}/shared/in", "/etc/motd", read_only=True),
        ]
    )
    r = rt.run(
        job,
        ["sh", "-c", "cat /rw/in /etc/motd; echo back >/rw/out; echo no >/ro/out2; echo $?"],
    )
    assert r.stdout == b"from the host\nfrom the host\n1\n"
    assert b"Read-only file system" in r.stderr
    with open(f"{dirs.work}/shared/out", encoding="ascii") as file:
        assert file.read() == "back\n"
    assert sorted(os.listdir(f"{dirs.work}/shared")) == ["in", "out"]
    flags = rt.run(job, ["sh", "-c", "grep ' /ro ' /proc/mounts"]).stdout.split()[3].split(b",")
    assert {b"ro", b"noexec"} <= set(flags)
    monkeypatch.chdir(dirs.work)
    relative = box.but(mounts=[Mount("./shared", "/here")])
    assert rt.run(relative, ["cat", "/here/in"]).stdout == b"from the host\n"


def test_a_mount_of_nothing_is_refused(rt: Runtime, box: Spec, dirs: Dirs) -> None:
    with pytest.raises(InvalidArgument, match="/no/such/directory") as caught:
        rt.run(box.but(mounts=[Mount("/no/such/directory", "/x")]), ["true"])
    assert caught.value.remedy
    assert containers_of(dirs) == []


def test_mounts_do_not_leak_into_the_host(rt: Runtime, box: Spec, dirs: Dirs) -> None:
    os.mkdir(f"{dirs.work}/d")
    job = box.but(mounts=[Mount(f"{dirs.work}/d", "/d")], cap_add=["SYS_ADMIN"], privileged=True)
    r = rt.run(job, ["sh", "-c", "mount -t tmpfs none /d && echo x >/d/x && ls /d"])
    assert r.stdout == b"x\n"
    assert os.listdir(f"{dirs.work}/d") == []


# --- limits -----------------------------------------------------------------------------------


def controllers_v1() -> bool:
    return not any(mount == "/sys/fs/cgroup" for mount in cgroup_mounts())


def test_limits_are_in_the_cgroup(say: Say) -> None:
    limits = Limits(memory="64M", cpus=0.5, pids=50)
    if controllers_v1():
        said = say(
            "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us "
            "cpu/cpu.cfs_period_us pids/pids.max",
            limits=limits,
        )
        assert said.split() == [str(64 << 20), "50000", "100000", "50"]
    else:
        said = say("cd /sys/fs/cgroup; cat memory.max cpu.max pids.max", limits=limits)
        assert said.split() == [str(64 << 20), "50000", "100000", "50"]


def test_memory_is_limited_together_with_swap(say: Say) -> None:
    path = "/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes"
    if not controllers_v1():
        path = "/sys/fs/cgroup/memory.swap.max"
    elif not os.path.exists(path):
        # Without swap accounting a limit is given only where there is no swap at all.
        with open("/proc/swaps", encoding="ascii") as swaps:
            assert len(swaps.readlines()) == 1
        return
    plain = int(say(f"cat {path}", limits=Limits(memory="64M")))
    more = int(say(f"cat {path}", limits=Limits(memory="64M", swap="16M")))
    assert more - plain == 16 << 20
    assert plain == ((64 << 20) if controllers_v1() else 0)


def test_processes_are_limited(rt: Runtime, box: Spec) -> None:
    bomb = "i=0; while [ $i -lt 40 ]; do sleep 5 & i=$((i+1)); done; echo all"
    r = rt.run(box.but(limits=Limits(pids=10)), ["sh", "-c", bomb], timeout=60, grace=0)
    assert b"can't fork" in r.stderr and b"all" not in r.stdout
    free = rt.run(box.but(limits=Limits(pids=100)), ["sh", "-c", bomb], timeout=60, grace=0)
    assert (free.reason, free.stdout) == (Reason.EXITED, b"all\n")


def test_pids_default_and_none(say: Say) -> None:
    path = "/sys/fs/cgroup/pids/pids.max" if controllers_v1() else "/sys/fs/cgroup/pids.max"
    assert say(f"cat {path}") == "2048\n"
    assert say(f"cat {path}", limits=Limits(pids=0)) == "max\n"


def test_cpu_is_limited(rt: Runtime, box: Spec) -> None:
    r = rt.run(
        box.but(limits=Limits(cpus=0.1)), ["sh", "-c", "while :; do :; done"], timeout=1, grace=0
    )
    assert r.usage.cpu_seconds is not None and r.usage.cpu_seconds < 0.5


@pytest.mark.parametrize(
    "controller, limits",
    [("memory", "memory='64M'"), ("pids", "pids=10"), ("cpu", "cpus=0.5")],
)
def test_a_limit_without_its_controller_is_unsupported(
    python: Callable[..., subprocess.Popen[str]], controller: str, limits: str
) -> None:
    """In a mount namespace without that hierarchy; never a weaker container in silence."""
    child = python(
        f"""
with Runtime(**options) as rt:
    try:
        rt.run(box.but(limits=Limits({limits})), ["true"])
    except Unsupported as error:
        say(error.fault, error.remedy is not None, error)
""",
        before=f"umount /sys/fs/cgroup/{controller}",
    )
    out, err = child.communicate(timeout=60)
    assert out.startswith("host True limit "), err
    assert controller in out


def test_rlimits(say: Say) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    expected = min(1048576, hard) if hard != resource.RLIM_INFINITY else 1048576
    assert say("ulimit -n; ulimit -Hn") == f"{expected}\n{expected}\n"
    assert say("ulimit -n; ulimit -Hn", ulimits={"nofile": "100:200"}) == "100\n200\n"
    assert say("ulimit -c; ulimit -Hc", ulimits={"core": 0}) == "0\n0\n"


def test_rlimits_above_ours_are_unsupported(rt: Runtime, box: Spec) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert hard != resource.RLIM_INFINITY  # the kernel has none
    with pytest.raises(Unsupported, match="ulimit nofile") as caught:
        rt.run(box.but(ulimits={"nofile": hard + 1}), ["true"])
    assert caught.value.remedy


def cgroups_of(pid: int) -> dict[str, str]:
    """Controllers -> path, in the hierarchies that are mounted here."""
    with open(f"/proc/{pid}/cgroup", encoding="ascii") as file:
        found = dict(line.strip().split(":", 2)[1:] for line in file)
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        if " - cgroup2 " not in mounts.read():
            found.pop("", None)
    return found


def test_the_cgroups_are_where_they_belong(rt: Runtime, box: Spec) -> None:
    """The container in its own, the monitor beside it, neither in ours."""
    c = rt.start(box, ["sleep", "1000"])
    assert {path.removesuffix("/container") for path in cgroups_of(c.state.pid).values()} == {
        f"/libpod-core/libpod-{c.id}"
    }
    with open(
        f"{rt.paths.run_root}/overlay-containers/{c.id}/userdata/conmon.pid", encoding="ascii"
    ) as file:
        monitor = cgroups_of(int(file.read()))
    monitor.pop("cpuset", None)  # a new one takes no process
    assert set(monitor.values()) == {"/libpod-core/conmon"}
