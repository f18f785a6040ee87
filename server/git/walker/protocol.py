"""What the trusted half and the walker say to each other.

Request (the walker's stdin): a JSON object (`Limits`) in LIMITS_BYTES, a line with the turn's start (`Start`), a line with the length of
the list that was made when the workspace was given away (server/sandbox/listing.py), and the list; then the base tree (`dump_base`), which
may still be written when the walker starts: it is whole when a pipe ends that the walker is given.
Answer (the walker's stdout, an empty regular file): a pack of blobs, then the records, then the footer: 8 bytes length of the pack
(big-endian) and `MAGIC`. Records are how the tree differs from the base: `<mode> <id>\\t<path>\\0`, where the id is `=` for "as in the
base", and `delete -\\t<path>\\0`; what is not named is as it was. Behind them, what was left out: `! <reason>\\t<path>\\0`.
Where the agent's own commits can be kept, they come first, each as `commit <seconds>\\t<message>\\0`, followed by records of what it
changes, and last `tree -\\t\\0`. The base of the records that follow is then the last commit's tree.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

from server.git.walker.names import are_plain, is_gitattributes, is_gitmodules, is_plain
from server.sandbox.listing import frames, parts

MAGIC = b"TREADLE1"
FOOTER_BYTES = 16
LIMITS_BYTES = 1024
SAME = b"="
FILE_MODES = frozenset({b"100644", b"100755", b"120000"})
GITLINK = b"160000"
_BASE = b"BASE0001"
_HEAD = struct.Struct("=8sQI")
"""Of the dump of a base tree: its version, how much git prints for it, and the sum (CRC-32) of what follows."""
_FRAME = struct.Struct("=III")
"""Of a directory in the dump of a base tree: how long its path is, its names, and what they are."""


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
    """The base, by directories: one is taken apart when somebody asks for what is in it, and that is next to none of them, mostly."""

    def __init__(self, dumped: bytes = b"") -> None:
        """As `dump_base` makes it; nothing for an empty tree. Errors: ValueError when it is not, or not whole."""
        self._held: dict[bytes, tuple[bytes, bytes]] = {}
        """Of each directory with files in it (submodules are files here): their names, and in the same order what they are."""
        self._opened: dict[bytes, dict[bytes, Base]] = {}
        self.listing_bytes = 0
        """What git prints for it."""
        self.may_have_submodules = GITLINK + b" commit" in dumped
        if dumped:
            if not is_whole(dumped):
                raise ValueError("no whole base tree")
            self.listing_bytes = _HEAD.unpack_from(dumped)[1]
            self._held = {prefix: (names, told) for prefix, names, told in frames(dumped, _HEAD.size, _FRAME)}

    def changed(self, changes: Mapping[bytes, Base | None]) -> BaseTree:
        """Another tree: this one, and some changes; None for what is not there any more."""
        made = BaseTree()
        made._held = dict(self._held)
        made.may_have_submodules = True
        for path, entry in changes.items():
            prefix, name = _split(path)
            if prefix not in made._opened:
                made._opened[prefix] = dict(self._open(prefix))
            here = made._opened[prefix]
            if entry is None:
                here.pop(name, None)
            else:
                here[name] = entry
        for prefix, here in made._opened.items():
            made._held.pop(prefix, None)
            if here:
                made._held[prefix] = (_joined(sorted(here)), b"")
        return made

    @cached_property
    def directories(self) -> frozenset[bytes]:
        """All that hold something, and those that lead to them, each with a slash behind it; the root is the empty one."""
        found = {b""}
        for prefix in self._held:
            folder = prefix
            while folder not in found:
                found.add(folder)
                folder = _split(folder[:-1])[0]
        return frozenset(found)

    def names(self, prefix: bytes) -> bytes:
        """Of a directory's files, sorted, each with a NUL behind it."""
        return self._held.get(prefix, (b"", b""))[0]

    def files(self, prefix: bytes) -> list[bytes]:
        """The paths of a directory's files."""
        return [prefix + name for name in parts(self.names(prefix))]

    def unusual(self) -> list[bytes]:
        """The files whose names some file system may take for a name that git minds."""
        found = [prefix for prefix, (names, _) in self._held.items() if not are_plain(names)]
        return [prefix + name for prefix in found for name in parts(self.names(prefix)) if not is_plain(name)]

    def __getitem__(self, path: bytes) -> Base:
        prefix, name = _split(path)
        return self._open(prefix)[name]

    def __contains__(self, path: object) -> bool:
        if not isinstance(path, bytes):
            return False
        prefix, name = _split(path)
        return prefix in self._held and name in self._open(prefix)

    def __iter__(self) -> Iterator[bytes]:
        for prefix in self._held:
            yield from self.files(prefix)

    def __len__(self) -> int:
        return sum(names.count(b"\0") for names, _ in self._held.values())

    def _open(self, prefix: bytes) -> dict[bytes, Base]:
        opened = self._opened.get(prefix)
        if opened is None:
            names, told = self._held.get(prefix, (b"", b""))
            opened = self._opened[prefix] = dict(zip(parts(names), map(_base, parts(told)), strict=True))
        return opened


def dump_base(listing: bytes) -> bytes:
    """What `git ls-tree -r -z -l` prints, for a BaseTree: of a tree with two files of one path the last one counts."""
    held: dict[bytes, dict[bytes, bytes]] = {}
    for record in listing.split(b"\0")[:-1]:
        told, _, path = record.partition(b"\t")
        prefix, name = _split(path)
        held.setdefault(prefix, {})[name] = told
    dumped = []
    for prefix, files in held.items():
        names = sorted(files)
        fields = (prefix, _joined(names), _joined([files[name] for name in names]))
        dumped += [_FRAME.pack(*map(len, fields)), *fields]
    content = b"".join(dumped)
    return _HEAD.pack(_BASE, len(listing), zlib.crc32(content)) + content


def is_whole(dumped: bytes) -> bool:
    """Whether it is a base tree of this version, as it was made: what was cut off would not be missed."""
    if len(dumped) < _HEAD.size:
        return False
    magic, _, checked = _HEAD.unpack_from(dumped)
    return bool(magic == _BASE and checked == zlib.crc32(memoryview(dumped)[_HEAD.size :]))


def _split(path: bytes) -> tuple[bytes, bytes]:
    """The directory, with a slash behind it, and the name."""
    folder, slash, name = path.rpartition(b"/")
    return folder + slash, name


def _joined(parts: Sequence[bytes]) -> bytes:
    return b"\0".join([*parts, b""])


def _base(told: bytes) -> Base:
    mode, _kind, identity, size = told.split()
    # git says `-` of a submodule, and `BAD` of what the mirror has lost.
    return Base(mode, identity, int(size) if size.isdigit() else -1)


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
