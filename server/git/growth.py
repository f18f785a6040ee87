"""Trees and commits of an import, made from their bytes.

Only directories in which something changes are read and written. Git's index would read and write each entry of the tree for every
commit: 80,000 files take it half a second, and an agent may have made 200 commits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from server.git.command import OUTPUT_LIMIT
from server.git.loose import Loose, loose
from server.git.manifest import Changes, folders
from server.git.objects import Reader
from server.git.refs import commit_id
from server.git.tree_object import EXECUTABLE, FILE, GITLINK, LINK, TREE, Node, dump, parse
from server.kernel.errors import WorkspaceFailed
from server.kernel.ports.repositories import Author

_MODES = frozenset({TREE, FILE, EXECUTABLE, LINK, GITLINK})
_CRUD = "".join(map(chr, range(33))) + ".,:;<>\"\\'"
"""What git drops at both ends of a name or an address (git-commit-tree(1))."""


@dataclass
class _Directory:
    entries: dict[bytes, Node | _Directory]
    id: str = ""
    """Empty for one that changed."""


@dataclass
class Growth:
    """A tree that changes from commit to commit; what it needs is opened before."""

    new: list[Loose] = field(default_factory=list)
    """The objects that were made."""
    _top: _Directory = field(default_factory=lambda: _Directory({}))

    async def open(self, reader: Reader, tree: str, paths: Iterable[bytes]) -> None:
        """Read the directories of `tree` that lead to these paths, as many as there are. Errors: GitFailed."""
        wanted = await asyncio.to_thread(lambda: {folder for path in paths for folder in folders(path)})
        level = {b"": tree}
        while level:
            contents = await reader.small(set(level.values()), kind="tree", limit=OUTPUT_LIMIT)
            level = await asyncio.to_thread(self._take, level, contents, wanted)

    def _take(self, level: dict[bytes, str], contents: dict[str, bytes], wanted: set[bytes]) -> dict[bytes, str]:
        """Put the directories in their places; returns those directly below that are wanted, too."""
        below = {}
        for path, identity in level.items():
            entries: dict[bytes, Node | _Directory] = {node.name: _usual(node) for node in parse(contents[identity])}
            opened = _Directory(entries, identity)
            if path:
                folder, _, name = path.rpartition(b"/")
                self._directory(folder).entries[name] = opened
            else:
                self._top = opened
            prefix = path + b"/" if path else b""
            below.update(
                {
                    prefix + name: node.id
                    for name, node in entries.items()
                    if isinstance(node, Node) and node.mode == TREE and prefix + name in wanted
                }
            )
        return below

    def change(self, changes: Changes) -> str:
        """Make the next tree; its id. Removals first, so that a file may take the place of a directory. Blocks. Errors: WorkspaceFailed
        for what no correct walker says."""
        for path in changes.deleted:
            self._remove(path)
        for path, (mode, identity) in changes.changed.items():
            folder, _, name = path.rpartition(b"/")
            directory = self._directory(folder, changed=True)
            if isinstance(directory.entries.get(name), _Directory) or _mode_of(directory.entries.get(name)) == TREE:
                raise WorkspaceFailed("the walker's answer puts a file where a directory is")
            directory.entries[name] = Node(mode, name, identity.decode())
        return self._finish(self._top)

    def commit(self, tree: str, parent: str, *, author: Author, at: datetime, message: str) -> str:
        """Make a commit; its id is what git-commit-tree(1) would give it."""
        by = f"{_plain(author.name) or 'Treadle'} <{_plain(author.email)}> {int(at.timestamp())} +0000"
        head = f"tree {tree}\nparent {commit_id(parent)}\nauthor {by}\ncommitter {by}\n\n"
        made = loose("commit", (head + message.replace("\0", "")).encode("utf-8", "replace"))
        self.new.append(made)
        return made.id

    def _directory(self, path: bytes, *, changed: bool = False) -> _Directory:
        """The one at a path, made where nothing is."""
        here = self._top
        if changed:
            here.id = ""
        for name in path.split(b"/") if path else ():
            below = here.entries.get(name)
            if below is None:
                below = here.entries[name] = _Directory({})
            elif isinstance(below, Node):
                raise WorkspaceFailed("the walker's answer puts a file below one")
            here = below
            if changed:
                here.id = ""
        return here

    def _remove(self, path: bytes) -> None:
        """With the directories that become empty by it: Git has none."""
        *folders, name = path.split(b"/")
        passed = [self._top]
        for folder in folders:
            below = passed[-1].entries.get(folder)
            if not isinstance(below, _Directory):
                raise WorkspaceFailed("the walker's answer deletes what is not there")
            passed.append(below)
        if passed[-1].entries.pop(name, None) is None:
            raise WorkspaceFailed("the walker's answer deletes what is not there")
        for directory in passed:
            directory.id = ""
        for above, directory, folder in zip(passed[-2::-1], passed[:0:-1], folders[::-1], strict=True):
            if directory.entries:
                break
            del above.entries[folder]

    def _finish(self, directory: _Directory) -> str:
        if not directory.id:
            nodes = [each if isinstance(each, Node) else Node(TREE, name, self._finish(each)) for name, each in directory.entries.items()]
            made = loose("tree", dump(nodes))
            self.new.append(made)
            directory.id = made.id
        return directory.id


def _usual(node: Node) -> Node:
    """With the mode that git writes today: it once allowed 100664."""
    if node.mode in _MODES:
        return node
    return Node(EXECUTABLE if int(node.mode, 8) & 0o100 else FILE, node.name, node.id)


def _mode_of(there: Node | _Directory | None) -> bytes:
    return there.mode if isinstance(there, Node) else b""


def _plain(text: str) -> str:
    return "".join(character for character in text.strip(_CRUD) if character not in "\n<>")
