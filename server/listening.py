"""Addresses that can be listened on."""

from __future__ import annotations

import os
import socket

from server.refusal import StartRefused


class AddressTaken(StartRefused):
    """Somebody else listens there, or nobody may."""


def require_free(address: str, setting: str) -> None:
    """Look before anything starts: gRPC's own sentence does not name the setting. Errors: AddressTaken."""
    if reason := why_not(address):
        raise AddressTaken(f"{address} cannot be listened on ({reason}); choose another with {setting}")


def why_not(address: str) -> str:
    """Why nobody can listen on `host:port` now; empty when somebody can."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_server((host.strip("[]"), int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return ""
    except OSError as error:
        return os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error)
