"""Which files are as they were when the workspace was given to its worker, by the list that was made then: they hold what the base has
there, and are not opened."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence

from server.git.walker.names import is_plain
from server.sandbox.listing import each, is_as_listed, look, parts, read


class Known:
    """The list, but for what the agent has committed in another form since. Of what is not in the base it says nothing."""

    def __init__(self, listing: bytes, base: Iterable[bytes], *, without: Collection[bytes]) -> None:
        self._listed = read(listing)
        self._base = frozenset(base if listing else ())
        self._without = frozenset(without)

    def directories(self, prefix: bytes, here: int) -> list[bytes] | None:
        """The names of the directories in one that looks as listed, with all its files, and so need not be read; None for another one, or
        where git minds a name."""
        listed = self._listed.get(prefix)
        try:
            same = listed is not None and _are_plain(listed[2]) and is_as_listed(here, listed)
        except OSError:
            same = False
        return parts(listed[2]) if listed is not None and same else None

    def untouched(self, prefix: bytes, files: Sequence[os.DirEntry[str]]) -> set[bytes] | None:
        """The names of those files of a directory that nobody has touched; None when that is true of all, the base has each of them, and
        no name is one that git minds."""
        listed = self._listed.get(prefix)
        if listed is None:
            return set()
        try:
            now = look(files)
        except OSError:
            return set()  # a directory that may be listed and not searched
        if now == listed[:2] and self.all_held(prefix) is not None:
            return None
        before = each(listed[:2])
        untouched = {name for name, status in each(now).items() if before.get(name) == status}
        return {name for name in untouched if prefix + name in self._base and prefix + name not in self._without}

    def all_held(self, prefix: bytes) -> list[bytes] | None:
        """The paths of the listed files of a directory; None where there is no list of it, or the base lacks one, or git minds a name."""
        listed = self._listed.get(prefix)
        if listed is None or not _are_plain(listed[0]):
            return None
        paths = [prefix + name for name in parts(listed[0])]
        return paths if self._base.issuperset(paths) and self._without.isdisjoint(paths) else None


def _are_plain(names: bytes) -> bool:
    """Of names that each have a NUL behind them."""
    return is_plain(names) and b"\0." not in names
