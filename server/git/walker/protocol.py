"""What the trusted half and the walker say to each other.

Request (the walker's stdin): a JSON object (`Limits`) in LIMITS_BYTES, a line with the turn's start (`Start`), a line with the length of
the list that was made when the workspace was given away (server/sandbox/listing.py), and the list; then the base tree as
`git ls-tree -r -z -l` prints it, which may still be written when the walker starts: it is whole when a pipe ends that the walker is given.
Answer (the walker's stdout, an empty regular file): a pack of blobs, then the records, then the footer: 8 bytes length of the pack
(big-endian) and `MAGIC`. Records are how the tree differs from the base: `<mode> <id>\\t<path>\\0`, where the id is `=` for "as in the
base", and `delete -\\t<path>\\0`; what is not named is as it was. Behind them, what was left out: `! <reason>\\t<path>\\0`.
Where the agent's own commits can be kept, they come first, each as `commit <seconds>\\t<message>\\0`, followed by records of what it
changes, and last `tree -\\t\\0`. The base of the records that follow is then the last commit's tree.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from server.git.walker.names import is_gitattributes, is_gitmodules

MAGIC = b"TREADLE1"
FOOTER_BYTES = 16
LIMITS_BYTES = 1024
SAME = b"="
FILE_MODES = frozenset({b"100644", b"100755", b"120000"})
GITLINK = b"160000"


class Limits(NamedTuple):
    """How much of a tree is read. Sizes in bytes."""

    entries: int = 200_000
    file_bytes: int = 100 * 1024 * 1024
    total_bytes: int = 2 * 1024 * 1024 * 1024
    depth: int = 128
    path_bytes: int = 3000
    names_bytes: int = 32 * 1024 * 1024
    """Of all new paths together: few files with long paths cost as much as many with short ones."""
    skipped: int = 1000
    """Records of left-out paths; the rest is only counted (record `! COUNT\\t<n>`)."""
    cpu_seconds: int = 300
    ignore_seconds: float = 30
    """Of these, for all of `.gitignore`; the process dies of SIGPROF when they are used up. With 0 there are no rules."""

    commits: int = 200
    """Of the agent's own, to be kept as commits; with 0 they are not looked at, and what they hold is one commit."""
    message_bytes: int = 8192
    history_bytes: int = 512 * 1024 * 1024
    """Of all objects that are read for the agent's commits."""
    history_seconds: float = 20
    """Of processor time, for the agent's commits."""

    def dump(self) -> bytes:
        """As a request begins: as long each time, so that others can be put in their place."""
        return json.dumps(self._asdict()).encode().ljust(LIMITS_BYTES)

    @classmethod
    def load(cls, head: bytes) -> Limits:
        """From the beginning of a request."""
        return cls(**json.loads(head))


class Start(NamedTuple):
    """What the workspace was made from: the ids of a commit and of its tree."""

    commit: bytes
    tree: bytes

    def dump(self) -> bytes:
        """As a line of a request."""
        return b"%s %s\n" % (self.commit, self.tree)

    @classmethod
    def load(cls, line: bytes) -> Start:
        """From a line of a request."""
        return cls(*line.split())


class Base(NamedTuple):
    """One entry of the base tree; `size` is -1 for a gitlink."""

    mode: bytes
    id: bytes
    size: int


class BaseTree(Mapping[bytes, Base]):
    """`git ls-tree -r -z -l`, of which only that is taken apart which somebody asks for: mostly next to nothing."""

    def __init__(self, listing: bytes) -> None:
        self._records = {record.partition(b"\t")[2]: record for record in listing.split(b"\0")[:-1]}

    def __getitem__(self, path: bytes) -> Base:
        mode, _kind, identity, size = self._records[path].partition(b"\t")[0].split()
        return Base(mode, identity, -1 if size == b"-" else int(size))

    def __contains__(self, path: object) -> bool:
        return path in self._records

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)


class ChangedTree(Mapping[bytes, Base]):
    """A tree, and what was changed in it since."""

    def __init__(self, before: Mapping[bytes, Base]) -> None:
        self._before = before
        self.changes: dict[bytes, Base | None] = {}
        """None for what is not there any more."""

    def put(self, path: bytes, entry: Base) -> None:
        """Here is this from now on."""
        self.changes[path] = entry

    def remove(self, path: bytes) -> bool:
        """Whether there was something."""
        there = path in self
        if there:
            self.changes[path] = None
        return there

    def __getitem__(self, path: bytes) -> Base:
        if path not in self.changes:
            return self._before[path]
        entry = self.changes[path]
        if entry is None:
            raise KeyError(path)
        return entry

    def __contains__(self, path: object) -> bool:
        return self.changes[path] is not None if path in self.changes else path in self._before

    def __iter__(self) -> Iterator[bytes]:
        yield from (path for path in self._before if path not in self.changes)
        yield from (path for path, entry in self.changes.items() if entry is not None)

    def __len__(self) -> int:
        gone = sum(entry is None and path in self._before for path, entry in self.changes.items())
        new = sum(entry is not None and path not in self._before for path, entry in self.changes.items())
        return len(self._before) + new - gone


def freely_named(base: Mapping[bytes, Base]) -> frozenset[bytes]:
    """Blobs of the base that a commit may have anywhere, without their bytes. Not those that git's fsck reads: each of them is judged
    where it is."""
    judged: set[bytes] = set()
    free: set[bytes] = set()
    for path, entry in base.items():
        name = path.rpartition(b"/")[2]
        (judged if entry.mode == GITLINK or is_gitmodules(name) or is_gitattributes(name) else free).add(entry.id)
    return frozenset(free - judged)
