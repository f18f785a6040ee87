"""Makes a tree below one open directory. Names are single ones, each opened in its parent and never through a link."""

from __future__ import annotations

import os
from collections.abc import Iterable

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Tree:
    """Everything is made and nothing replaced. Links come last, so that no path ever leads through one. Blocks. Errors: OSError."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._at: tuple[bytes, ...] = ()
        self._here = os.dup(root)
        self._links: list[tuple[tuple[bytes, ...], bytes]] = []

    def directory(self, path: tuple[bytes, ...]) -> None:
        """Make a directory, with its parents; it may be there."""
        self._go(path)

    def file(self, path: tuple[bytes, ...], pieces: Iterable[bytes], *, executable: bool = False) -> None:
        """Make a file."""
        self._go(path[:-1])
        descriptor = os.open(path[-1], _NEW_FILE, 0o700 if executable else 0o600, dir_fd=self._here)
        with os.fdopen(descriptor, "wb") as file:
            for piece in pieces:
                file.write(piece)

    def link(self, path: tuple[bytes, ...], target: bytes) -> None:
        """Make a symbolic link, in `close`."""
        self._links.append((path, target))

    def finish(self) -> None:
        """Make the links."""
        for path, target in self._links:
            self._go(path[:-1])
            os.symlink(target, path[-1], dir_fd=self._here)

    def close(self) -> None:
        """Let go of its own descriptor."""
        os.close(self._here)

    def _go(self, path: tuple[bytes, ...]) -> None:
        if path == self._at:
            return
        here = os.dup(self._root)
        try:
            for name in path:
                there = _entered(name, here)
                os.close(here)
                here = there
        except BaseException:
            os.close(here)
            raise
        os.close(self._here)
        self._here, self._at = here, path


def _entered(name: bytes, parent: int) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        os.mkdir(name, 0o700, dir_fd=parent)
        return os.open(name, _DIRECTORY, dir_fd=parent)
