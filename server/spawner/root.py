"""The worker root, held by one spawner at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server.refusal import StartRefused
from server.workers.slot import delete_tree

PROBE = ".probe-"
"""Begins the name of a slot in which a wall is tried."""


class RootUnusable(StartRefused):
    """The worker root cannot be used, or another spawner uses it."""


@contextmanager
def held_root(root: Path) -> Iterator[str]:
    """Hold the directory, which is made when it is not there; yields by what this installation's containers are known, also to the next
    spawner. Errors: RootUnusable."""
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(root / ".spawner", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RootUnusable(f"TREADLE_WORKER_ROOT: {error.filename or root} cannot be used: {error.strerror}") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RootUnusable(f"another spawner serves {root}") from None
        for remains in root.glob(f"{PROBE}*"):
            delete_tree(remains)
        yield _installation(root)
    finally:
        os.close(lock)


def _installation(root: Path) -> str:
    """Kept with the slots; complete from the moment it is there."""
    file, draft = root / ".installation", root / ".installation.new"
    draft.write_text(secrets.token_hex(4), encoding="ascii")
    with contextlib.suppress(FileExistsError):
        file.hardlink_to(draft)
    draft.unlink()
    return file.read_text(encoding="ascii")
