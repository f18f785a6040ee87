"""Whether an address is this machine's own. Public ones are, too: what listens there may be meant for those behind its firewall only."""

from __future__ import annotations

import socket

from gateway.addresses import Address, parse_address

_ANY_PORT = 9


def is_own(address: Address) -> bool:
    """Whether one of this machine's interfaces has it. Nothing is sent."""
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            # The kernel chooses from where it would send: to its own addresses from these themselves.
            probe.connect((str(address), _ANY_PORT))
            return parse_address(probe.getsockname()[0]) == address
    except OSError:
        # There is no way to it.
        return False
