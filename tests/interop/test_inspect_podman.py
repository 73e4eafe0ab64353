# SPDX-License-Identifier: Apache-2.0
"""`inspect` against the real podman's: the same records, shown by both."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from libpod import kv
from libpod.inspect import Size, container_data
from libpod.spec import DEFAULT_CAPABILITIES
from libpod.state.bolt import BoltState
from libpod.state.handles import ContainerRecord
from libpod.state.records import ContainerStatus
from tests.interop.podman import Podman

DIFFERENCES = {
    "HostConfig.PublishAllPorts": "podman 4.3.1 says false always; here it is what was asked for",
    "Dependencies": "podman's order is that of a hash table",
    "ExecIDs": "podman's order is that of a hash table",
}
"""What is not compared as it is; the lists are compared as sets."""

ENTERED = "ns:"
"""podman enters a network namespace that was given by its path and shows the interfaces in
it; here nothing but the record is looked at."""

# The distribution's containers.conf has a shorter list; CONTAINERS_CONF hides it.
PODMANS_CAPABILITIES = DEFAULT_CAPABILITIES | {"CAP_AUDIT_WRITE", "CAP_MKNOD", "CAP_NET_RAW"}

COMBINATIONS = {
    "plain": "--network none",
    "hosts": "--network host --pid host --ipc host --uts host --cgroupns host --user 5:5 "
    "--group-add 6 --workdir /tmp --env A=b --env C=",
    "privileged": "--network none --tty --interactive --privileged --rm --hostname named "
    "--label a=é --label b=<&> --annotation k=v",
    "undone": "--network none --privileged --cap-drop CHOWN --security-opt apparmor=unconfined "
    "--security-opt seccomp=/usr/share/containers/seccomp.json",
    "limits": "--network none --memory 64m --memory-swap 128m --memory-reservation 32m "
    "--cpus 0.5 --cpu-shares 512 --cpuset-cpus 0 --cpuset-mems 0 --pids-limit 99 "
    "--oom-score-adj 100 --oom-kill-disable --memory-swappiness 10",
    "realtime": "--network none --cpu-period 100000 --cpu-quota 20000 --cpu-rt-runtime 10 "
    "--cpu-rt-period 1000 --memory 64m --memory-swap -1 --pids-limit -1 --systemd=always",
    "health": "--network none --health-cmd true --health-interval 7s --health-retries 4 "
    "--health-on-failure kill --restart on-failure:3 --stop-signal USR1 --stop-timeout 3 "
    "--timeout 77",
    "healthless": '--network none --health-cmd ["/bin/true","x"] --health-start-period 3s '
    "--health-on-failure restart --restart unless-stopped",
    "stopping": "--network none --health-cmd none --health-on-failure stop --restart always",
    "volumes": "--network none --volume data:/data:ro --volume {dir}/src:/v:rw,rshared "
    "--volume {dir}/src:/z:z,noexec --volume /unnamed --tmpfs /t:size=1m "
    "--mount type=bind,src={dir}/src,dst=/m,ro,bind-propagation=rslave "
    "--mount type=tmpfs,dst=/t2 --mount type=devpts,dst=/pts",
    "devices": "--network none --device /dev/null:/dev/nn:r --device /dev/zero --device "
    "/dev/net:/dev/inside --device-cgroup-rule c=1:3=rwm",
    "mapped": "--network none --uidmap 0:1000:10 --gidmap 0:2000:10",
    "ports": "--network bridge --publish 8081:80 --publish 127.0.0.1:9000-9001:90-91/udp "
    "--expose 77 --expose 88/udp --dns 1.1.1.1 --dns-search s.x --dns-option ndots:1 "
    "--add-host h:1.2.3.4",
    "published": "--network bridge --publish-all --expose 80 --network-alias other",
    "secured": "--network none --cap-add SYS_ADMIN --cap-drop CHOWN --cap-drop NET_RAW --read-only "
    "--security-opt no-new-privileges --security-opt seccomp=unconfined "
    "--security-opt label=disable",
    "logged": "--network none --ulimit nofile=100:100 --shm-size 1m --log-driver json-file "
    "--log-opt max-size=1234567 --log-opt tag=xx --sysctl kernel.shmmax=65536",
    "joined": "--network container:ports --pid container:plain --ipc container:plain "
    "--uts container:plain --cgroupns container:plain --requires volumes",
    "user": "--network none --userns container:mapped --volumes-from volumes",
    "entry": "--network none --cgroup-parent /other --umask 0077 --tz UTC --systemd=false "
    '--entrypoint ["/a","b"] --cap-drop all --user 5',
    "files": "--network none --conmon-pidfile {dir}/conmon --pidfile {dir}/pid --cidfile {dir}/cid "
    "--secret kept --secret kept,type=env,target=SE",
    "private": "--network none --ipc private --userns host --chrootdirs /tmp --sdnotify ignore "
    "--cgroupns private --log-driver none --cgroups no-conmon",
    "by-path": "--network ns:/proc/self/ns/net --uts ns:/proc/self/ns/uts "
    "--ipc ns:/proc/self/ns/ipc",
    "slirp": "--network slirp4netns:mtu=1400",
    "in-pod": "--pod pod --network none",
}


class Stored(NamedTuple):
    """Of a container in the container store."""

    layer_id: str


def shown(podman: Podman, state: BoltState, record: ContainerRecord, **options: Any) -> Any:
    """Ours, as JSON."""
    containers = podman.directory / "root/overlay-containers"
    layers = {
        entry["id"]: entry["layer"]
        for name in ("containers.json", "volatile-containers.json")
        if (containers / name).exists()
        for entry in json.loads((containers / name).read_text())
    }
    owner = record.config.net_ns_from
    data = container_data(
        record,
        paths=podman.paths(),
        oci_path="/usr/sbin/runc",
        storage=Stored(layers[record.id]),
        networks=networks(podman, owner or record.id),
        network_owner=state.container(owner) if owner else None,
        default_capabilities=PODMANS_CAPABILITIES,
        **options,
    )
    return json.loads(json.dumps(data))


def networks(podman: Podman, identifier: str) -> dict[str, Any]:
    """What the container joins, from a copy: nothing in the library asks for it yet."""
    copy = shutil.copy(podman.database, podman.directory / "copy.db")
    with kv.Database(copy, read_only=True) as database, database.begin() as tx:
        container = tx.bucket(b"ctr").bucket(identifier.encode())
        try:
            found = container.bucket(b"networks")
        except kv.BucketNotFound:
            return {}
        return {name.decode(): json.loads(value or b"") for name, value in found.items()}


def differences(theirs: Any, ours: Any, path: str = "") -> Iterator[str]:
    """Where the two differ: members, their order, values and types."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        if list(theirs) != list(ours):
            yield f"{path}: members {list(theirs)} and ours {list(ours)}"
        for key in theirs.keys() & ours.keys():
            yield from differences(theirs[key], ours[key], f"{path}.{key}".lstrip("."))
    elif isinstance(theirs, list) and path in DIFFERENCES:
        if sorted(theirs) != sorted(ours):
            yield f"{path}: {theirs} and ours {ours}"
    elif (theirs != ours or type(theirs) is not type(ours)) and path not in DIFFERENCES:
        yield f"{path}: {theirs!r} and ours {ours!r}"


def compared(podman: Podman, state: BoltState, *words: str, **options: Any) -> list[str]:
    """All differences between the two, of all containers."""
    records = {record.id: record for record in state.all_containers()}
    found = []
    for theirs in json.loads(podman("inspect", *words, *records)):
        ours = shown(podman, state, records[theirs["Id"]], **options)
        if theirs["HostConfig"]["NetworkMode"].startswith(ENTERED):
            del theirs["NetworkSettings"], ours["NetworkSettings"]
        found += [f"{theirs['Name']}: {line}" for line in differences(theirs, ours)]
    return found


def test_what_was_created(podman: Podman, state: BoltState) -> None:
    (podman.directory / "src").mkdir()
    (podman.directory / "secret").write_text("hidden")
    podman("secret", "create", "kept", str(podman.directory / "secret"))
    podman("pod", "create", "--name", "pod", "--infra=false")
    rootfs = str(podman.directory / "rootfs")
    for name, options in COMBINATIONS.items():
        words = options.format(dir=podman.directory).split()
        words = [w.replace("c=1:3=rwm", "c 1:3 rwm") for w in words]
        podman("create", "--name", name, *words, "--rootfs", rootfs, "/bin/sh", "-c", "exit 7")
    # A command that stands alone is its only argument, too.
    podman("create", "--name", "single", "--network", "none", "--rootfs", rootfs, "/bin/sh")
    assert len(state.all_containers()) == len(COMBINATIONS) + 1
    assert compared(podman, state) == []
    asked = {
        record.name: shown(podman, state, record)["HostConfig"]["PublishAllPorts"]
        for record in state.all_containers()
    }
    assert [name for name, all_ports in asked.items() if all_ports] == ["published"]


def test_limits_of_block_devices(podman: Podman, state: BoltState) -> None:
    # podman takes any device of that number; character devices have numbers of their own.
    disk = next(
        f"/dev/{entry.resolve().name}"
        for entry in sorted(Path("/sys/dev/block").iterdir())
        if not Path(f"/sys/dev/char/{entry.name}").exists()
        and Path(f"/dev/{entry.resolve().name}").is_block_device()
    )
    limits = ["--device-read-bps", f"{disk}:1mb", "--device-write-iops", f"{disk}:10"]
    podman.create("one", "--blkio-weight-device", f"{disk}:20", *limits)
    assert compared(podman, state) == []
    host = shown(podman, state, state.lookup_container("one"))["HostConfig"]
    assert host["BlkioDeviceReadBps"] == [{"Path": disk, "Rate": 1 << 20}]


@pytest.fixture
def busybox(podman: Podman) -> Podman:
    binaries = podman.directory / "rootfs/bin"
    static = shutil.which("busybox")
    assert static is not None
    shutil.copy(static, binaries / "busybox")
    for name in ("sh", "sleep", "true"):
        (binaries / name).symlink_to("busybox")
    return podman


def test_what_was_started(busybox: Podman, state: BoltState) -> None:
    (busybox.directory / "src").mkdir()
    rootfs = str(busybox.directory / "rootfs")

    def run(name: str, *words: str, command: str = "sleep 600", verb: str = "run") -> None:
        detached = ["--detach"] if verb == "run" else []
        shell = ["--rootfs", rootfs, "/bin/sh", "-c", f"{command}; :"]
        busybox(verb, *detached, "--name", name, *words, *shell)

    run("running", "--network", "none", "--label", "k=v", "--tty")
    run("on-host", "--network", "host", "--pid", "host", "--volume", "data:/data",
        "--volume", f"{busybox.directory}/src:/v:ro", "--hostname", "named")  # fmt: skip
    run("joined", "--network", "container:running", "--ipc", "container:running")
    run("mighty", "--network", "none", "--privileged", "--device", "/dev/null")
    run("checked", "--network", "none", "--health-cmd", "true")
    busybox("healthcheck", "run", "checked")
    run("paused", "--network", "none", "--user", "5")
    busybox("pause", "paused")
    run("killed", "--network", "none")
    busybox("kill", "killed")
    busybox("wait", "killed")
    run("initialized", "--network", "none", verb="create")
    busybox("init", "initialized")
    run("again", "--network", "none", "--restart", "on-failure:2", command="exit 3")
    run("busy", "--network", "none")
    for _ in range(2):
        busybox("exec", "--detach", "busy", "sleep", "600")
    _settle(busybox, "killed", "again")
    assert compared(busybox, state) == []
    # The record's spec stands in for a config.json that is gone.
    killed = state.lookup_container("killed")
    Path(killed.state.config_path).unlink()
    ours = shown(busybox, state, killed)
    assert "io.container.manager" not in ours["Config"]["Annotations"]
    assert list(differences(json.loads(busybox("inspect", "killed"))[0], ours)) == []


def _settle(podman: Podman, *names: str) -> None:
    """Until they have ended and were cleaned up."""
    for name in names:
        subprocess.run(["sleep", "0.2"], check=True)
        for _ in range(100):
            if podman.ps()[name]["State"] == "exited":
                break
            subprocess.run(["sleep", "0.1"], check=True)


def test_every_member_of_the_state(podman: Podman, state: BoltState) -> None:
    statuses = (ContainerStatus.CONFIGURED, ContainerStatus.EXITED, ContainerStatus.REMOVING)
    for status in statuses:
        podman.create(str(status))
        record = state.lookup_container(str(status))
        mine = record.state
        mine.status = status
        mine.started = 1_700_000_000 * 10**9
        mine.finished = 1_700_000_001 * 10**9 + 5
        mine.exit_code, mine.exited, mine.oom_killed = -1, True, True
        mine.pid, mine.conmon_pid, mine.restart_count = 17, 18, 4
        mine.checkpointed, mine.restored = True, True
        mine.checkpointed_time = mine.restored_time = 1_700_000_002 * 10**9
        mine.checkpoint_log, mine.checkpoint_path, mine.restore_log = "/cl", "/cp", "/rl"
        mine.bind_mounts = {"/etc/hosts": "/h", "/etc/hostname": "/n", "/etc/resolv.conf": "/r"}
        mine.mounted, mine.mount_point = True, "/elsewhere"
        mine.stopped_by_user = mine.restart_policy_match = True
        state.save_container(record)
    assert compared(podman, state) == []


SUBNETS = [
    {"ipnet": "10.88.0.3/16", "gateway": "10.88.0.1"},
    {"ipnet": "10.88.7.7/24", "gateway": "10.88.7.1"},
    {"ipnet": "fd00::5/64", "gateway": "fd00::1"},
    {"ipnet": "fd00::6/64", "gateway": "fd00::1"},
]
FIRST = {"interfaces": {"eth0": {"subnets": SUBNETS, "mac_address": "9a:d2:b7:b8:9d:ab"}}}
SECOND = {"interfaces": {"eth1": {"subnets": SUBNETS[:1], "mac_address": "9a:d2:b7:b8:9d:ac"}}}


@pytest.mark.parametrize("up", [True, False])
def test_addresses(up: bool, podman: Podman, state: BoltState) -> None:
    rootfs = str(podman.directory / "rootfs")
    podman("network", "create", "second")
    joins = {"one": {"podman": FIRST}, "two": {"second": SECOND, "podman": FIRST}}
    for name, status in joins.items():
        chosen = [word for network in status for word in ("--network", network)]
        podman("create", "--name", name, *chosen, "--rootfs", rootfs, "/bin/sh")
        record = state.lookup_container(name)
        record.state.network_status = status
        record.netns = "/proc/self/ns/net" if up else ""
        state.save_container(record)
    try:
        assert compared(podman, state) == []
        (shown_one,) = [
            shown(podman, state, record)["NetworkSettings"]
            for record in state.all_containers()
            if record.name == "one"
        ]
        assert shown_one["IPAddress"] == ("10.88.0.3" if up else "")
    finally:
        for record in state.all_containers():  # nothing that podman would have to take down
            record.state.network_status = {}
            record.netns = ""
            state.save_container(record)


def test_sizes(podman: Podman, state: BoltState) -> None:
    podman.create("one")
    (theirs,) = json.loads(podman("inspect", "--size", "one"))
    ours = shown(podman, state, state.lookup_container("one"), size=Size(theirs["SizeRw"]))
    assert list(differences(theirs, ours)) == []


def test_a_mended_answer(podman: Podman, state: BoltState) -> None:
    """What is listed as different is: else it would have to leave the list."""
    rootfs = str(podman.directory / "rootfs")
    podman("create", "--name", "one", "--publish-all", "--expose", "80", "--rootfs", rootfs, "sh")
    (theirs,) = json.loads(podman("inspect", "one"))
    assert theirs["HostConfig"]["PublishAllPorts"] is False
    assert theirs["Config"]["Annotations"]["io.podman.annotations.publish-all"] == "TRUE"
    assert shown(podman, state, state.lookup_container("one"))["HostConfig"]["PublishAllPorts"]
