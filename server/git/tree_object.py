"""Git's tree objects, as bytes and as what they say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass

from server.git.manifest import printable
from server.git.objects import ObjectMissing, Reader
from server.git.refs import commit_id
from server.kernel.errors import NotADirectory, PathNotFound, StateGone, TreeTooLarge
from server.kernel.ports.trees import Entry, Kind

TREE_BYTES = 16 * 1024 * 1024
"""The largest directory that is read: some 250,000 names."""
TREE = b"40000"
LINK = b"120000"
FILE = b"100644"
EXECUTABLE = b"100755"
GITLINK = b"160000"
_NO_NAMES = frozenset({b"", b".", b".."})
_ID_BYTES = 20
_DEPTH = 1000
_PATH_BYTES = 16 * 1024
"""Deeper than any checkout: what is below is not shown."""
MOST_ENTRIES = 1_000_000
"""Of one walk. A few objects can make a tree of billions of files."""
_INLINE_BYTES = 256 * 1024
"""A larger directory is taken apart in a thread."""
_KINDS = {TREE: Kind.DIRECTORY, LINK: Kind.LINK, EXECUTABLE: Kind.EXECUTABLE, GITLINK: Kind.SUBMODULE}


@dataclass(frozen=True)
class Node:
    """One entry of a tree object."""

    mode: bytes
    name: bytes
    id: str

    @property
    def kind(self) -> Kind:
        """Modes that Git once allowed, such as 100664, are files."""
        return _KINDS.get(self.mode, Kind.FILE)

    @property
    def sort_key(self) -> bytes:
        """In Git's order a directory stands where its content would stand in a list of all files."""
        return self.name + b"/" if self.mode == TREE else self.name


def parse(data: bytes) -> list[Node]:
    """Only names that can be a file's, and of two entries with one name the first: else a link and what claims to be below it would lead
    out of what is unpacked. Modes as Git writes them today. Errors: ValueError for what is no tree."""
    nodes: dict[bytes, Node] = {}
    at = 0
    while at < len(data):
        space = data.index(b" ", at)
        end = data.index(b"\0", space)
        name = data[space + 1 : end]
        if name not in _NO_NAMES and b"/" not in name:
            mode = b"%o" % int(data[at:space], 8)
            nodes.setdefault(name, Node(mode, name, data[end + 1 : end + 1 + _ID_BYTES].hex()))
        at = end + 1 + _ID_BYTES
    return list(nodes.values())


def dump(nodes: Iterable[Node]) -> bytes:
    """The tree object that holds these."""
    ordered = sorted(nodes, key=lambda node: node.sort_key)
    return b"".join(b"%b %b\0%b" % (node.mode, node.name, bytes.fromhex(node.id)) for node in ordered)


async def root(reader: Reader, commit: str) -> Node:
    """The tree of a commit, as an entry without a name. Errors: StateGone, GitFailed."""
    (found,) = await reader.infos([f"{commit_id(commit)}^{{tree}}"])
    if found is None:
        raise StateGone(commit)
    return Node(TREE, b"", found.id)


async def top(reader: Reader, commit: str) -> tuple[Node, list[Node]]:
    """The same, and what it holds: by one question, for each may have to wait for a processor. Errors: StateGone, GitFailed."""
    try:
        identity, data = await reader.named(f"{commit_id(commit)}^{{tree}}", kind="tree", limit=TREE_BYTES)
    except ObjectMissing:
        raise StateGone(commit) from None
    return Node(TREE, b"", identity), await _parsed(data)


async def children(reader: Reader, tree: Node) -> list[Node]:
    """What a directory holds, in Git's order. Errors: GitFailed."""
    return await _parsed(await reader.content(tree.id, kind="tree", limit=TREE_BYTES))


async def _parsed(data: bytes) -> list[Node]:
    return parse(data) if len(data) <= _INLINE_BYTES else await asyncio.to_thread(parse, data)


async def find(reader: Reader, commit: str, parts: Sequence[bytes]) -> Node:
    """The entry at a path, name by name. Errors: PathNotFound, NotADirectory, StateGone, GitFailed."""
    if not parts:
        return await root(reader, commit)
    node, held = await top(reader, commit)
    for depth, part in enumerate(parts):
        if node.mode != TREE:
            raise NotADirectory(printable(b"/".join(parts[:depth])))
        if depth:
            held = await children(reader, node)
        found = next((child for child in held if child.name == part), None)
        if found is None:
            raise PathNotFound(printable(b"/".join(parts)))
        node = found
    return node


async def files(reader: Reader, tree: Node, prefix: bytes, *, after: bytes = b"") -> AsyncGenerator[tuple[bytes, Node], None]:
    """All that a directory holds but directories, in the order of their paths; only what comes behind the path `after`, and nothing
    else is read for it. Errors: GitFailed, TreeTooLarge."""
    below = [(prefix, iter(await children(reader, tree)))]
    looked_at = 0
    while below:
        prefix, nodes = below[-1]
        node = next(nodes, None)
        if node is None:
            below.pop()
            continue
        looked_at += 1
        if looked_at > MOST_ENTRIES:
            raise TreeTooLarge(MOST_ENTRIES)
        path = prefix + node.sort_key
        if node.mode == TREE:
            if (path > after or after.startswith(path)) and len(below) < _DEPTH and len(path) < _PATH_BYTES:
                below.append((path, iter(await children(reader, node))))
        elif path > after:
            yield path, node


async def entries(reader: Reader, found: Sequence[tuple[bytes, Node]]) -> list[Entry]:
    """As callers see them, with sizes. Errors: ObjectMissing, GitFailed."""
    sized = [node.id for _, node in found if node.kind not in {Kind.DIRECTORY, Kind.SUBMODULE}]
    sizes = {}
    for identity, info in zip(sized, await reader.infos(sized), strict=True):
        if info is None:
            raise ObjectMissing(identity)
        sizes[identity] = info.size
    return [Entry(printable(path), node.kind, sizes.get(node.id, 0), "" if node.mode == TREE else node.id) for path, node in found]
