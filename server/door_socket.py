"""A unix socket in the directory of a worker's doors: the server listens, the worker's user alone can connect."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

BACKLOG = 64


@contextmanager
def bound(path: Path, owner: tuple[int, int] | None) -> Iterator[socket.socket]:
    """A listening socket at `path`, which `owner` alone may connect to (None: this process's own user); whoever sees it there can connect
    at once. Errors: OSError."""
    # By descriptor, and not by path: a slot may be deeper down than a socket's address is long.
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    draft = f".{secrets.token_hex(4)}"
    try:
        # Closed with the server that accepts on it, after this: as long as it is open, its number names no other file.
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.setblocking(False)
            listener.bind(f"/proc/self/fd/{directory}/{draft}")
        except OSError:
            listener.close()
            raise
        identity = os.stat(draft, dir_fd=directory).st_ino
        try:
            if owner is not None:
                os.chown(draft, *owner, dir_fd=directory, follow_symlinks=False)
            os.chmod(draft, 0o600, dir_fd=directory)
            listener.listen(BACKLOG)
            os.rename(draft, path.name, src_dir_fd=directory, dst_dir_fd=directory)
            yield listener
        finally:
            for name in (draft, path.name):
                _remove(directory, name, identity)
    finally:
        os.close(directory)


def _remove(directory: int, name: str, identity: int) -> None:
    """Only our own socket: the next drive of the turn may have put its own there already."""
    with suppress(FileNotFoundError):
        if os.stat(name, dir_fd=directory, follow_symlinks=False).st_ino == identity:
            os.unlink(name, dir_fd=directory)
