"""Addresses that can be listened on."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from server.refusal import StartRefused


class AddressTaken(StartRefused):
    """Somebody else listens there, or nobody may."""


def require_free(wanted: Mapping[str, str]) -> None:
    """Look before anything starts, at all of them: by setting, an address or "". gRPC's own sentence does not name the setting.
    Errors: AddressTaken, which names each that cannot be had."""
    taken = [
        f"{address} cannot be listened on ({reason}); choose another with {setting}"
        for setting, address in wanted.items()
        if address and (reason := why_not(address))
    ]
    if taken:
        raise AddressTaken("\n  ".join(taken))


def why_not(address: str) -> str:
    """Why nobody can listen on `host:port` now; empty when somebody can."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_server((host.strip("[]"), int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return ""
    except OSError as error:
        return os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error)
