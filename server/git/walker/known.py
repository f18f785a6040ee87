"""Which files are as they were when the workspace was given to its worker, by the list that was made then: they hold what the base has
there, and are not opened."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

from server.git.walker.names import is_plain
from server.sandbox.listing import each, look, read


class Known:
    """The list, but for what the agent has committed in another form since. Of what is not in the base it says nothing."""

    def __init__(self, listing: bytes, base: Iterable[bytes], *, without: Collection[bytes]) -> None:
        self._listed = read(listing)
        self._without = without
        self._marred = {path.rpartition(b"/")[0] for path in without}
        self._base: dict[bytes, list[bytes]] = defaultdict(list)
        for path in base if listing else ():
            folder, _, name = path.rpartition(b"/")
            self._base[folder].append(name)

    def untouched(self, prefix: bytes, files: Sequence[os.DirEntry[str]]) -> set[bytes] | None:
        """The names of those files of a directory that nobody has touched; None when that is true of all that the base has there, there
        is nothing else, and no name is one that git minds."""
        listed = self._listed.get(prefix)
        if listed is None:
            return set()
        try:
            now = look(files)
        except OSError:
            return set()  # a directory that may be listed and not searched
        if now == listed and self.are_all(prefix):
            return None
        before = each(listed)
        untouched = {name for name, status in each(now).items() if before.get(name) == status}
        return {name for name in untouched.intersection(self._base[prefix[:-1]]) if prefix + name not in self._without}

    def are_all(self, prefix: bytes) -> bool:
        """Whether the listed files of a directory are all that the base has there, and none has a name that git minds."""
        names, folder = self._listed[prefix][0], prefix[:-1]
        if folder in self._marred or not is_plain(names) or b"\0." in names:
            return False
        told, here = names.split(b"\0")[:-1], self._base[folder]
        return len(told) == len(here) and set(told) == set(here)
