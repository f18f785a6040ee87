"""The worker root, held by one spawner at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server.refusal import StartRefused
from server.spawner.slots import DRAFT
from server.workers.slot import delete_tree

PROBE = ".probe-"
"""Begins the name of a slot in which a wall is tried."""


class RootUnusable(StartRefused):
    """The worker root cannot be used, or another spawner uses it."""


@contextmanager
def held_root(root: Path, *, group: int | None = None) -> Iterator[str]:
    """Hold the directory, which is made when it is not there; yields by what this installation's containers are known, also to the next
    spawner. `group`: that of a server of another user, who looks for slots there. Errors: RootUnusable."""
    try:
        # Before as well, so that nothing is made in a place of somebody else's.
        check_trust(root)
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_trust(root)
        if group is not None:
            os.chown(root, 0, group)
            root.chmod(0o750)
        lock = os.open(root / ".spawner", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(root, error) from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RootUnusable(f"another spawner serves {root}") from None
        try:
            for remains in (*root.glob(f"{PROBE}*"), *root.glob(f"{DRAFT}*")):
                delete_tree(remains)
            installation = _installation(root)
        except OSError as error:
            raise _unusable(root, error) from None
        yield installation
    finally:
        os.close(lock)


def check_trust(directory: Path, setting: str = "TREADLE_WORKER_ROOT") -> None:
    """A spawner that is root uses a directory only where nobody else can put anything in its place or into it: who swaps a name while
    root makes, gives away and mounts what is there has the machine. What is not there yet is not looked at.
    Errors: RootUnusable, OSError."""
    if os.geteuid() != 0:
        return
    path = directory.absolute()
    if (real := path.resolve()) != path:
        raise RootUnusable(f"{setting}: {path} leads through a link; for a spawner that is root, name it as {real}")
    for place in (path, *path.parents):
        with contextlib.suppress(FileNotFoundError):
            # Whose names are in a sticky directory, nobody else's can replace; but anybody makes new ones.
            if not is_roots_alone(place, sticky=place != path):
                raise RootUnusable(
                    f"{setting}: the spawner is root, and {place} can be changed by others, who would be as much as root then; use a "
                    "directory that only root can change, as are all above it. A server that is not root works with it too "
                    "(TREADLE_SERVER_USER)"
                )


def is_roots_alone(directory: Path, *, sticky: bool = False) -> bool:
    """Whether this is a directory (no link to one) in which nobody but root can change what a name means. With `sticky`, others may add
    names. Errors: FileNotFoundError."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except NotADirectoryError:
        return False
    try:
        found = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    shared = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return found.st_uid == 0 and (not shared or (sticky and bool(found.st_mode & stat.S_ISVTX)))


def _unusable(root: Path, error: OSError) -> RootUnusable:
    return RootUnusable(f"TREADLE_WORKER_ROOT: {error.filename or root} cannot be used: {error.strerror}")


def seal_key(root: Path) -> bytes:
    """By what a spawner of this root knows what a spawner of this root has made: whoever reads the label of the installation can write it,
    too. Where the disk is too full to keep it, it is this spawner's alone."""
    file, draft = root / ".seal", root / ".seal.new"
    with contextlib.suppress(FileNotFoundError):
        return file.read_bytes()
    key = secrets.token_bytes(32)
    with contextlib.suppress(OSError):
        # By a spawner that was killed: we hold the root.
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "wb") as made:
            made.write(key)
        draft.rename(file)
    return key


def _installation(root: Path) -> str:
    """Kept with the slots; complete from the moment it is there. Where it is there, nothing is written, so that a full disk is no reason
    not to serve."""
    file, draft = root / ".installation", root / ".installation.new"
    with contextlib.suppress(FileNotFoundError):
        return file.read_text(encoding="ascii")
    # By a spawner that was killed: we hold the root.
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "w") as made:
        made.write(secrets.token_hex(4))
    draft.rename(file)
    return file.read_text(encoding="ascii")
