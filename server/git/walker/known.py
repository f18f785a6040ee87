"""Which files are as they were when the workspace was given to its worker, by the list that was made then: they hold what the base has
there, and are not opened."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence

from server.git.walker.names import are_plain
from server.git.walker.protocol import BaseTree
from server.sandbox.listing import each, is_as_listed, look, parts, read


class Known:
    """The list, but for what the agent has committed in another form since. Of what is not in the base it says nothing."""

    def __init__(self, listing: bytes, base: BaseTree, *, without: Collection[bytes]) -> None:
        self._listed = read(listing)
        self._base = base
        self._without = frozenset(without)
        self._without_in = frozenset(path[: path.rfind(b"/") + 1] for path in without)

    def directories(self, prefix: bytes, here: int) -> list[bytes] | None:
        """The names of the directories in one that looks as listed, with all its files, and so need not be read; None for another one, or
        where git minds a name."""
        listed = self._listed.get(prefix)
        try:
            same = listed is not None and are_plain(listed[2]) and is_as_listed(here, listed)
        except OSError:
            same = False
        return parts(listed[2]) if listed is not None and same else None

    def untouched(self, prefix: bytes, files: Sequence[os.DirEntry[str]]) -> set[bytes] | None:
        """The names of those files of a directory that nobody has touched; None when that is true of all, they are those that the base has
        there, and no name is one that git minds."""
        listed = self._listed.get(prefix)
        if listed is None:
            return set()
        try:
            now = look(files)
        except OSError:
            return set()  # a directory that may be listed and not searched
        if now == listed[:2] and self.is_held(prefix):
            return None
        before = each(listed[:2])
        untouched = {name for name, status in each(now).items() if before.get(name) == status}
        return {name for name in untouched if prefix + name in self._base and prefix + name not in self._without}

    def is_held(self, prefix: bytes) -> bool:
        """Whether the listed files of a directory are those that the base has there, and git minds none of their names."""
        listed = self._listed.get(prefix)
        return listed is not None and listed[0] == self._base.names(prefix) and are_plain(listed[0]) and prefix not in self._without_in
