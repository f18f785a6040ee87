"""Which addresses are the public internet's: those that a worker may be let out to. Both walls of the way out, the door in the server and
Envoy, go by this one list."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_GLOBAL = tuple(map(ip_network, ("0.0.0.0/0", "2000::/3")))
"""IPv6 outside of 2000::/3 is all special: loopback, v4-mapped and v4-compatible, NAT64, unique local (fd00:ec2::254 among them),
link-local, multicast."""

_SPECIAL = tuple(
    map(
        ip_network,
        (
            # https://www.iana.org/assignments/iana-ipv4-special-registry: this network, private, shared (CGNAT), loopback, link-local
            # (where clouds have their metadata), protocol assignments, documentation, 6to4 relays, benchmarks, multicast, reserved.
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
            # Public by number, but every machine's own host on Azure.
            "168.63.129.16/32",
            # https://www.iana.org/assignments/iana-ipv6-special-registry: protocol assignments (Teredo among them), documentation, 6to4,
            # which carries any IPv4 address, documentation.
            "2001::/23",
            "2001:db8::/32",
            "2002::/16",
            "3fff::/20",
        ),
    )
)


def is_public(address: Address, *, besides: Sequence[Network] = ()) -> bool:
    """Whether it may be dialled, unless it is denied; `besides`: the operator's own networks, which may be private."""
    return within(address, besides) or (within(address, _GLOBAL) and not within(address, _SPECIAL))


def parse_networks(text: str) -> tuple[Network, ...]:
    """Networks by comma, `10.1.0.0/16`, or single addresses. Errors: ValueError."""
    return tuple(ip_network(part) for part in (part.strip() for part in text.split(",")) if part)


def parse_address(text: str) -> Address:
    """An address, also in the brackets of a URL. Errors: ValueError."""
    return ip_address(text.strip("[]"))


def permission(besides: Sequence[Network] = (), denied: Sequence[Network] = ()) -> dict[str, object]:
    """`is_public`, and not denied, as a permission of Envoy's RBAC filter on the address that was dialled for. An address that is not
    known is none."""
    public = {"and_rules": {"rules": [_any_of(_GLOBAL), {"not_rule": _any_of(_SPECIAL)}]}}
    allowed: dict[str, object] = {"or_rules": {"rules": [*(map(_is_in, besides)), public]}}
    return {"and_rules": {"rules": [allowed, {"not_rule": _any_of(denied)}]}} if denied else allowed


def _any_of(networks: Iterable[Network]) -> dict[str, object]:
    return {"or_rules": {"rules": list(map(_is_in, networks))}}


def _is_in(network: Network) -> dict[str, object]:
    matcher = {
        "@type": "type.googleapis.com/envoy.extensions.rbac.matchers.upstream_ip_port.v3.UpstreamIpPortMatcher",
        "upstream_ip": {"address_prefix": str(network.network_address), "prefix_len": network.prefixlen},
    }
    return {"matcher": {"name": "envoy.rbac.matchers.upstream_ip_port", "typed_config": matcher}}


def within(address: Address, networks: Iterable[Network]) -> bool:
    """Whether it is in one of them."""
    return any(address.version == network.version and address in network for network in networks)
