"""Whether a server is there, by a lock that it holds beside the spawner's socket: so a spawner that is stopped can tell the end of a
deployment, where servers stop first, from a new version of its own."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def make_sign(socket: Path) -> None:
    """By the spawner, whose directory it is. Servers of other users only open it."""
    _sign(socket).touch(mode=0o644)


@contextmanager
def present(socket: Path) -> Iterator[None]:
    """A server is there for the time of the context."""
    try:
        sign = os.open(_sign(socket), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        # By a spawner of an earlier version, which does not ask.
        yield
        return
    try:
        fcntl.flock(sign, fcntl.LOCK_SH)
        yield
    finally:
        os.close(sign)


def is_anybody_present(socket: Path) -> bool:
    """Asked by the spawner."""
    with _sign(socket).open("rb") as sign:
        try:
            fcntl.flock(sign, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _sign(socket: Path) -> Path:
    return socket.with_name(f"{socket.name}.servers")
