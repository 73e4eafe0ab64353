# SPDX-License-Identifier: Apache-2.0
"""`NetworkSettings`, and ports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from libpod.state.handles import ContainerRecord
from libpod.state.records import ContainerConfig

DEFAULT_NETWORK = "podman"
"""The network that containers are on when they ask for none (podman's default)."""


def settings(record: ContainerRecord, networks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Of the container that owns the network namespace; addresses while it has one."""
    status = record.state.network_status if record.netns else {}
    single: Any = None
    if len(status) == 1 and (not networks or list(networks) == [DEFAULT_NETWORK]):
        (single,) = status.values()
    data = {
        **_addresses(single or {}),
        "Bridge": "",
        "SandboxID": "",
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "Ports": ports(record.config),
        "SandboxKey": record.netns,
    }
    if networks:
        data["Networks"] = {
            name: {
                **_addresses(status.get(name) or {}),
                "NetworkID": name,
                "DriverOpts": None,
                "IPAMConfig": None,
                "Links": None,
                "Aliases": list(networks[name].get("aliases") or ()) or None,
            }
            for name in sorted(networks)
        }
    return data


_IPV4 = ("Gateway", "IPAddress", "IPPrefixLen", "SecondaryIPAddresses")
_IPV6 = ("IPv6Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "SecondaryIPv6Addresses")


def _addresses(status: Mapping[str, Any]) -> dict[str, Any]:
    """Of one network's status: the first address of each family, then the others."""
    data: dict[str, Any] = {
        "EndpointID": "",
        "Gateway": "",
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "MacAddress": "",
    }
    more: dict[str, list[Any]] = {}
    for _, interface in sorted((status.get("interfaces") or {}).items()):
        for subnet in interface.get("subnets") or ():
            address, _, length = subnet["ipnet"].partition("/")
            gateway, first, prefix, others = _IPV6 if ":" in address else _IPV4
            if data[first]:
                entry = {"Addr": address, "PrefixLength": int(length)}
                more.setdefault(others, []).append(entry)
            else:
                data |= {first: address, prefix: int(length), gateway: subnet.get("gateway", "")}
        mac = interface.get("mac_address", "")
        if data["MacAddress"]:
            more.setdefault("AdditionalMACAddresses", []).append(mac)
        data["MacAddress"] = data["MacAddress"] or mac
    return _in_order(data, more)


def _in_order(data: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Secondary addresses stand behind the first one's prefix length."""
    if not more:
        return data
    behind = {
        "IPPrefixLen": "SecondaryIPAddresses",
        "GlobalIPv6PrefixLen": "SecondaryIPv6Addresses",
        "MacAddress": "AdditionalMACAddresses",
    }
    ordered = {}
    for key, value in data.items():
        ordered[key] = value
        if behind.get(key) in more:
            ordered[behind[key]] = more[behind[key]]
    return ordered


def ports(config: ContainerConfig) -> dict[str, Any]:
    """Port and protocol to where they are published; null for one only exposed."""
    found: dict[str, Any] = {}
    for mapping in config.port_mappings:
        first, host = mapping["container_port"], mapping.get("host_port", 0)
        for protocol in (mapping.get("protocol") or "tcp").split(","):
            for offset in range(mapping.get("range") or 1):
                entry = {"HostIp": mapping.get("host_ip", ""), "HostPort": str(host + offset)}
                found.setdefault(f"{first + offset}/{protocol}", []).append(entry)
    for port, protocols in config.exposed_ports.items():
        for protocol in protocols:
            found.setdefault(f"{port}/{protocol}", None)
    return dict(sorted(found.items()))
