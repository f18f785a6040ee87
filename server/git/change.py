"""What a commit has over its parent, told by a git that runs already: to start one for it takes longer than to make the commit."""

from __future__ import annotations

import re

from server.git.command import GitFailed
from server.git.loose import Loose, loose
from server.git.objects import ObjectMissing, ObjectTooLarge, Reader
from server.git.tree_object import EXECUTABLE, FILE, GITLINK, LINK, TREE, Node, dump, parse

BYTES = 60 * 1024
"""Of all contents together. A pack of them, which has no deltas, has less than 64 KiB."""
OBJECTS = 100
REPLACED_BYTES = 16 * 1024
"""Of one that takes another's place: of a larger one git stores a delta, which may be a hundredth of it, and here it is stored whole."""
_COMMIT = re.compile(rb"tree ([0-9a-f]{40})\nparent ([0-9a-f]{40})\nauthor ")
_KINDS = {TREE: "tree", GITLINK: "commit", LINK: "blob", FILE: "blob", EXECUTABLE: "blob"}


async def change(reader: Reader, base: str, head: str) -> list[Loose]:
    """The objects that `head` has and `base`, its only parent, has not: the trees are compared directory by directory. What `base` has at
    another place may be among them. Errors: GitFailed or ValueError where they are many or large, or anything is not as Git makes it."""
    (top,) = await reader.infos([f"{base}^{{tree}}"])
    commit = await _contents(reader, "commit", head)
    parsed = _COMMIT.match(commit[head])
    if top is None or parsed is None or parsed[2].decode() != base:
        raise GitFailed.of(f"{base} is not the only parent of {head}")
    found = _Found()
    found.add("commit", head, commit[head])
    had = {("tree", top.id)}
    common, added = [(top.id, parsed[1].decode())], list[tuple[Node, bool]]()
    while common:
        before, after = common.pop()
        if after in found.objects or ("tree", after) in had:
            continue
        trees = await _contents(reader, "tree", before, after)
        old = {node.name: node for node in _nodes(trees[before])}
        had.update((_KINDS[node.mode], node.id) for node in old.values())
        for node in _nodes(found.add("tree", after, trees[after], replaces=True)):
            there = old.get(node.name)
            if there is not None and there.mode == node.mode == TREE:
                common.append((there.id, node.id))
            else:
                added.append((node, there is not None))
    while added:
        node, replaces = added.pop()
        kind = _KINDS[node.mode]
        if kind == "commit" or (kind, node.id) in had or node.id in found.objects:  # a submodule's commit is not in here
            continue
        content = found.add(kind, node.id, (await _contents(reader, kind, node.id))[node.id], replaces=replaces)
        if kind == "tree":
            added += [(each, False) for each in _nodes(content)]
    return list(found.objects.values())


class _Found:
    """Objects that are what they are called, and stay few and small."""

    def __init__(self) -> None:
        self.objects: dict[str, Loose] = {}
        self._bytes = 0

    def add(self, kind: str, identity: str, content: bytes, *, replaces: bool = False) -> bytes:
        """The content. Errors: GitFailed."""
        made = self.objects[identity] = loose(kind, content)
        self._bytes += len(content)
        if made.id != identity:
            raise GitFailed.of(f"{identity} is damaged")
        if self._bytes > BYTES or len(self.objects) > OBJECTS:
            raise ObjectTooLarge("what is new", BYTES)
        if replaces and len(content) > REPLACED_BYTES:
            raise ObjectTooLarge(identity, REPLACED_BYTES)
        return content


async def _contents(reader: Reader, kind: str, *ids: str) -> dict[str, bytes]:
    """Errors: ObjectMissing, ObjectTooLarge, GitFailed."""
    # Their sizes first: a git that is left in the middle of an answer is of no more use.
    for identity, info in zip(ids, await reader.infos(ids), strict=True):
        if info is None:
            raise ObjectMissing(identity)
        if info.size > BYTES:
            raise ObjectTooLarge(identity, BYTES)
    return await reader.small(ids, kind=kind, limit=len(ids) * BYTES)


def _nodes(tree: bytes) -> list[Node]:
    """Errors: ValueError for a tree that does not say the same to everybody."""
    nodes = parse(tree)
    if dump(nodes) != tree or any(node.mode not in _KINDS or len(node.id) != 40 for node in nodes):
        raise ValueError("not a tree as Git writes it")
    return nodes
