"""A unix socket in the directory of a worker's doors: the server listens, the worker's user alone can connect."""

from __future__ import annotations

import os
import secrets
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

BACKLOG = 64
_PEER = struct.Struct("iII")


class _For(socket.socket):
    """Accepts whoever runs as one user, by the kernel's word; others are hung up on."""

    uid = -1

    def accept(self) -> tuple[socket.socket, object]:
        """See socket.accept."""
        while True:
            connection, address = super().accept()
            _, uid, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
            if uid == self.uid:
                return connection, address
            connection.close()


@contextmanager
def bound(path: Path, owner: tuple[int, int] | None) -> Iterator[socket.socket]:
    """A listening socket at `path`, by which `owner` alone is served (None: this process's own user); whoever sees it there can connect
    at once. Errors: OSError."""
    # By descriptor, and not by path: a slot may be deeper down than a socket's address is long.
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    draft = f".{secrets.token_hex(4)}"
    try:
        # Closed with the server that accepts on it, after this: as long as it is open, its number names no other file.
        listener = _For(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.uid = os.geteuid() if owner is None else owner[0]
        try:
            listener.setblocking(False)
            listener.bind(f"/proc/self/fd/{directory}/{draft}")
        except OSError:
            listener.close()
            raise
        identity = os.stat(draft, dir_fd=directory).st_ino
        try:
            if owner is not None and os.geteuid() == 0:
                os.chown(draft, *owner, dir_fd=directory, follow_symlinks=False)
            # Who may not give it away opens it to all; the directory is reached by few, and only `owner` is served.
            os.chmod(draft, 0o600 if owner is None or os.geteuid() == 0 else 0o666, dir_fd=directory)
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
