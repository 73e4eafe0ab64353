# SPDX-License-Identifier: Apache-2.0
"""Other kernels than the one at hand, as far as it can play them: one without pidfds
(a seccomp filter), and cgroup version 2 (a mount namespace)."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from conftest import needed

Python = Callable[..., "subprocess.Popen[str]"]

# What Linux 5.1 would answer to the calls that came later; inherited by conmon
# and the OCI runtime.
OLD_KERNEL = """
import ctypes, errno, platform, struct
CLONE, WAITID = {"x86_64": (56, 247), "aarch64": (220, 95)}[platform.machine()]
PIDFD_SEND_SIGNAL, PIDFD_OPEN, CLONE3, CLOSE_RANGE = 424, 434, 435, 436
LOAD, EQUAL, ANY, RETURN, ALLOW, ERRNO = 0x20, 0x15, 0x45, 0x06, 0x7FFF0000, 0x00050000

def step(code, k, if_not=0):
    return struct.pack("HBBI", code, 0, if_not, k)

def refuse(error):
    return step(RETURN, ERRNO | error)

program = [step(LOAD, 0)]
for number in PIDFD_SEND_SIGNAL, PIDFD_OPEN, CLONE3, CLOSE_RANGE:
    program += [step(EQUAL, number, 1), refuse(errno.ENOSYS)]
for number, test in (CLONE, step(ANY, 0x1000, 1)), (WAITID, step(EQUAL, 3, 1)):
    program += [step(EQUAL, number, 4), step(LOAD, 16), test, refuse(errno.EINVAL)]
    program += [step(RETURN, ALLOW)]
program = b"".join([*program, step(RETURN, ALLOW)])
buffer = ctypes.create_string_buffer(program, len(program))
filter = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
if ctypes.CDLL(None).prctl(22, 2, filter) != 0:
    sys.exit("no seccomp filter")
try:
    os.pidfd_open(os.getpid())
    sys.exit("the filter does not work")
except OSError as error:
    assert error.errno == errno.ENOSYS
"""


def finished(child: subprocess.Popen[str], timeout: float = 60) -> list[str]:
    out, err = child.communicate(timeout=timeout)
    assert child.returncode == 0, err
    return out.splitlines()


def test_a_kernel_without_pidfds(python: Python) -> None:
    child = python(
        OLD_KERNEL
        + """
with Runtime(**options) as rt:
    r = rt.run(box, ["sh", "-c", "cat; echo err >&2; exit 7"], input=b"in")
    say(r.reason.value, r.exit_code, r.stdout, r.stderr)
    for _ in range(5):
        assert rt.run(box, ["echo", "x"]).stdout == b"x\\n"
    r = rt.run(box, ["sh", "-c", "trap '' TERM; sleep 1000 & sleep 1000"], timeout=0.5, grace=0.2)
    say(r.reason.value, r.exit_code)
    c = rt.start(box, ["sleep", "1000"])
    c.pause()
    c.unpause()
    c.stop(grace=0)
    say(c.wait())
    c.remove()
    try:
        rt.run(box, ["nosuch"])
    except CommandNotFound as error:
        say(type(error).__name__)
"""
    )
    assert finished(child) == [
        "exited 7 b'in' b'err\\n'",
        "timeout 137",
        "137",
        "CommandNotFound",
    ]


@pytest.fixture
def version_2(python: Python, options: dict[str, str]) -> Callable[[str], list[str]]:
    """Runs a text where cgroup version 2 is all there is; with runc, as crun needs more
    controllers than are left for it."""

    def run(text: str) -> list[str]:
        options["oci_runtime"] = needed("runc")
        before = "umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup"
        return finished(python(text, before=before))

    return run


def test_cgroup_version_2(version_2: Callable[[str], list[str]]) -> None:
    said = version_2(
        """
with Runtime(**options) as rt:
    assert rt.engine.host.cgroups.mode == "v2"
    look = "grep ^0: /proc/self/cgroup; readlink /proc/self/ns/cgroup; exit 3"
    r = rt.run(box, ["sh", "-c", look])
    group, namespace = r.stdout.decode().split()
    say(r.reason.value, r.exit_code, group, namespace != os.readlink("/proc/self/ns/cgroup"))
    say(r.usage.cpu_seconds > 0)
    c = rt.start(box, ["sh", "-c", "while :; do echo tick; sleep 0.02; done"])
    with open(f"/proc/{c.state.pid}/cgroup") as file:
        say(f"0::/libpod-core/libpod-{c.id}" in file.read().split())
    c.pause()
    size = -1
    while size != (size := os.path.getsize(c.log_path)):
        time.sleep(0.2)  # what was under way when it froze
    c.unpause()
    c.stop(grace=0)
    say(c.wait())
    c.remove()
    family = "trap '' TERM; (setsid sleep 1000 &) ; sleep 1000 & sleep 1000"
    r = rt.run(box, ["sh", "-c", family], timeout=0.5, grace=0.1)
    say(r.reason.value, r.exit_code)
    with rt.start(box, ["sleep", "1000"]) as c:
        c.pause()  # and killed while it is frozen
"""
    )
    assert said == ["exited 3 0::/ True", "True", "True", "137", "timeout 137"]


def test_limits_without_controllers_on_version_2(version_2: Callable[[str], list[str]]) -> None:
    said = version_2(
        """
with Runtime(**options) as rt:
    with open("/sys/fs/cgroup/cgroup.controllers") as file:
        here = file.read().split()
    for name, limits in ("memory", Limits(memory="64M")), ("pids", Limits(pids=5)):
        try:
            rt.run(box.but(limits=limits), ["true"])
            say(name in here)
        except Unsupported as error:
            say(name not in here and "cgroup.subtree_control" in error.remedy)
"""
    )
    assert said == ["True", "True"]
