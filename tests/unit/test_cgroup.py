# SPDX-License-Identifier: Apache-2.0
"""The hierarchies of hosts that this one is not: mount tables and counter files of
version 1, hybrid and version 2, written by hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from libpod.cgroup import Cgroups, Usage

V1 = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:26 / {base} ro,nosuid - tmpfs tmpfs ro,mode=755
31 30 0:27 / {base}/systemd rw,nosuid shared:9 - cgroup cgroup rw,xattr,name=systemd
32 30 0:28 / {base}/cpu,cpuacct rw,nosuid shared:10 - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 / {base}/memory rw,nosuid shared:11 - cgroup cgroup rw,memory
34 30 0:30 / {base}/pids rw,nosuid shared:12 - cgroup cgroup rw,pids
35 30 0:31 / {base}/blkio rw,nosuid shared:13 - cgroup cgroup rw,blkio
36 30 0:32 / {base}/cpuset rw,nosuid shared:14 - cgroup cgroup rw,cpuset
37 30 0:33 / {base}/freezer rw,nosuid shared:15 - cgroup cgroup rw,freezer
"""
UNIFIED = "38 30 0:34 / {base}/unified rw,nosuid shared:16 - cgroup2 cgroup2 rw,nsdelegate\n"
V2 = "30 22 0:26 / {base} rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
PATH = "/parent/libpod-id"


def hierarchies(tmp_path: Path, table: str) -> Cgroups:
    (tmp_path / "mountinfo").write_text(table.format(base=tmp_path / "cg"))
    return Cgroups(str(tmp_path / "mountinfo"))


def write(directory: Path, **files: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(text)


# --- where they are ------------------------------------------------------------------


def test_version_1(tmp_path: Path) -> None:
    cgroups = hierarchies(tmp_path, V1)
    base = f"{tmp_path}/cg"
    assert (cgroups.mode, cgroups.unified) == ("v1", None)
    assert cgroups.mounts["cpu"] == cgroups.mounts["cpuacct"] == f"{base}/cpu,cpuacct"
    assert cgroups.mounts["name=systemd"] == f"{base}/systemd"
    assert set(cgroups.mounts) == {
        *("cpu", "cpuacct", "memory", "pids", "blkio", "cpuset", "freezer", "name=systemd")
    }
    directories = cgroups.directories(PATH)
    assert len(directories) == len(set(directories)) == 7
    assert f"{base}/memory{PATH}" in directories


def test_hybrid(tmp_path: Path) -> None:
    cgroups = hierarchies(tmp_path, V1 + UNIFIED)
    assert (cgroups.mode, cgroups.unified) == ("hybrid", f"{tmp_path}/cg/unified")
    assert f"{tmp_path}/cg/unified{PATH}" in cgroups.directories(PATH)
    # Where systemd looks for the processes that end with a session.
    assert f"{tmp_path}/cg/unified{PATH}" in cgroups.for_conmon(PATH)


def test_version_2(tmp_path: Path) -> None:
    cgroups = hierarchies(tmp_path, V2)
    assert (cgroups.mode, cgroups.unified, cgroups.mounts) == ("v2", f"{tmp_path}/cg", {})
    assert cgroups.directories(PATH) == [f"{tmp_path}/cg{PATH}"]
    assert cgroups.for_conmon(PATH) == cgroups.directories(PATH)


def test_a_monitor_stays_out_of_the_cpuset(tmp_path: Path) -> None:
    cgroups = hierarchies(tmp_path, V1)
    left_out = set(cgroups.directories(PATH)) - set(cgroups.for_conmon(PATH))
    assert left_out == {f"{tmp_path}/cg/cpuset{PATH}"}


def test_the_first_of_two_mounts_is_used(tmp_path: Path) -> None:
    """A container with the host's cgroups below its own root has more of them."""
    again = "40 22 0:29 / /elsewhere/memory rw - cgroup cgroup rw,memory\n"
    cgroups = hierarchies(tmp_path, V1 + again)
    assert cgroups.mounts["memory"] == f"{tmp_path}/cg/memory"


def test_mount_points_with_odd_names(tmp_path: Path) -> None:
    table = "33 30 0:29 / /a\\040b\\134c rw - cgroup cgroup rw,memory\n"
    assert hierarchies(tmp_path, table).mounts["memory"] == "/a b\\c"


# --- what they can enforce -----------------------------------------------------------


def test_facts_of_version_1(tmp_path: Path) -> None:
    cgroups = hierarchies(tmp_path, V1)
    facts = cgroups.facts()
    assert facts.version == 1 and not facts.swap_limit
    assert {"memory", "pids", "cpu"} <= facts.controllers
    write(tmp_path / "cg/memory", memory__memsw__limit_in_bytes="1")
    assert cgroups.facts().swap_limit


def test_facts_of_version_2(tmp_path: Path) -> None:
    write(tmp_path / "cg", cgroup__controllers="cpu memory pids\n")
    facts = hierarchies(tmp_path, V2).facts()
    assert (facts.version, facts.swap_limit) == (2, True)
    assert facts.controllers == {"cpu", "memory", "pids"}


def test_facts_without_controllers(tmp_path: Path) -> None:
    write(tmp_path / "cg", cgroup__controllers="")
    facts = hierarchies(tmp_path, V2).facts()
    assert (facts.controllers, facts.swap_limit) == (frozenset(), False)


# --- what was used -----------------------------------------------------------------------


def test_usage_of_version_1(tmp_path: Path) -> None:
    base = tmp_path / "cg"
    write(base / f"cpu,cpuacct{PATH}", cpuacct__usage="1500000000\n")
    write(
        base / f"memory{PATH}",
        memory__max_usage_in_bytes="4096\n",
        memory__oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    )
    write(base / f"pids{PATH}", pids__peak="3\n")
    write(
        base / f"blkio{PATH}",
        blkio__throttle__io_service_bytes_recursive="8:0 Read 10\n8:0 Write 20\n8:0 Sync 5\n"
        "8:16 Read 1\n8:16 Write 2\nTotal 33\n",
    )
    assert hierarchies(tmp_path, V1).usage(PATH) == Usage(1.5, 4096, 2, 3, 11, 22)


def test_usage_of_version_2(tmp_path: Path) -> None:
    write(
        tmp_path / f"cg{PATH}",
        cpu__stat="usage_usec 1500000\nuser_usec 1000000\n",
        memory__peak="4096\n",
        memory__events="low 0\noom 1\noom_kill 2\n",
        pids__peak="3\n",
        io__stat="8:0 rbytes=10 wbytes=20 rios=1 wios=1\n8:16 rbytes=1 wbytes=2\n",
    )
    assert hierarchies(tmp_path, V2).usage(PATH) == Usage(1.5, 4096, 2, 3, 11, 22)


@pytest.mark.parametrize("table", [V1, V1 + UNIFIED, V2])
def test_usage_that_is_not_counted_is_none(tmp_path: Path, table: str) -> None:
    assert hierarchies(tmp_path, table).usage(PATH) == Usage()


@pytest.mark.parametrize("text", ["", "max\n", "-1\n", "garbage", "1 2", "\xff"])
def test_counters_that_are_no_numbers_are_none(tmp_path: Path, text: str) -> None:
    write(
        tmp_path / f"cg{PATH}",
        memory__peak=text,
        pids__peak=text,
        cpu__stat=f"usage_usec {text}",
        memory__events=f"oom_kill {text}",
    )
    usage = hierarchies(tmp_path, V2).usage(PATH)
    assert (usage.memory_peak, usage.pids_peak, usage.cpu_seconds) == (None, None, None)
    assert usage.oom_kills is None


# --- who is in them, and their end ---------------------------------------------------------


def test_processes_below_are_counted_too(tmp_path: Path) -> None:
    write(tmp_path / f"cg{PATH}", cgroup__procs="1\n2\n")
    write(tmp_path / f"cg{PATH}/below/deeper", cgroup__procs="3\n")
    write(tmp_path / "cg/parent/another", cgroup__procs="4\n")
    assert sorted(hierarchies(tmp_path, V2).processes(PATH)) == [1, 2, 3]
    assert hierarchies(tmp_path, V2).processes("/nothing") == []


def test_the_first_hierarchy_that_lists_everybody_is_asked(tmp_path: Path) -> None:
    write(tmp_path / f"cg/pids{PATH}", cgroup__procs="5\n")
    write(tmp_path / f"cg/memory{PATH}", cgroup__procs="6\n")
    assert hierarchies(tmp_path, V1).processes(PATH) == [5]
    without = "".join(line for line in V1.splitlines(True) if "pids" not in line)
    without = "".join(line for line in without.splitlines(True) if "freezer" not in line)
    assert hierarchies(tmp_path, without).processes(PATH) == [6]


def test_a_process_that_only_a_stale_list_names_is_not_killed(tmp_path: Path) -> None:
    """What is killed must say itself that it is in the cgroup: here it is ourselves."""
    write(tmp_path / f"cg{PATH}", cgroup__procs=f"{os.getpid()}\n999999999\n")
    assert hierarchies(tmp_path, V2).kill(PATH, 1.0)


def test_killing_where_nobody_is(tmp_path: Path) -> None:
    for table in (V1, V2):
        assert hierarchies(tmp_path, table).kill(PATH, 1.0)


def test_removing_goes_from_the_bottom_up(tmp_path: Path) -> None:
    for name in ("cpu,cpuacct", "memory", "pids"):
        (tmp_path / f"cg/{name}{PATH}/below/deeper").mkdir(parents=True)
    cgroups = hierarchies(tmp_path, V1)
    cgroups.remove(PATH)
    cgroups.remove(PATH)  # and nothing is no error
    assert not any(os.path.exists(directory) for directory in cgroups.directories(PATH))
    assert (tmp_path / "cg/memory/parent").is_dir()


def test_what_is_busy_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / f"cg{PATH}", file="")  # a directory that rmdir refuses
    hierarchies(tmp_path, V2).remove(PATH)
    assert "cannot remove the cgroup" in caplog.text
    assert (tmp_path / f"cg{PATH}").is_dir()


def test_the_cgroups_of_this_host() -> None:
    cgroups = Cgroups()
    assert cgroups.mode in ("v1", "hybrid", "v2")
    assert cgroups.facts().version == (2 if cgroups.mode == "v2" else 1)
