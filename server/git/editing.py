"""Edits of a tree by a user: from one commit to the next, without an index and without a working tree."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import assert_never

from server.git.loose import Loose, loose, store
from server.git.manifest import printable
from server.git.objects import Objects, Reader
from server.git.paths import DEPTH, FILE_BYTES, KEEP, PATH_BYTES, check_content, streamable_parts_of, without_content, writable_parts_of
from server.git.refs import commit_id
from server.git.staging import place
from server.git.tree_object import EXECUTABLE, FILE, TREE, TREE_BYTES, Node, children, dump, top
from server.kernel.errors import (
    FileChanged,
    FileExists,
    FileTooLarge,
    InvalidField,
    NotADirectory,
    NotAFile,
    PathInvalid,
    PathNotFound,
    TreeTooLarge,
)
from server.kernel.ports.repositories import Author
from server.kernel.ports.trees import (
    Change,
    Changes,
    Delete,
    Edit,
    Edited,
    Entry,
    Kind,
    MakeDirectory,
    Move,
    SetMode,
    Staged,
    Write,
    WriteStaged,
)

_OPENED = 500_000
_MADE = 4000
_MOVED = 10_000
"""Directories that a move may take along: how deep they go has to be seen."""

_INLINE_BYTES = 64 * 1024
"""More is hashed in a thread: it takes longer than to get one."""

Parts = tuple[bytes, ...]


@dataclass
class _Directory:
    """A directory of the tree that is being made; what is below it and not looked at stays what it was, by its id."""

    entries: dict[bytes, Node | _Directory]
    changed: bool = False


@dataclass
class Draft:
    """The tree that is being made. Directories are read when an edit leads into them."""

    reader: Reader
    top: _Directory
    new: list[Loose] = field(default_factory=list)
    staged: list[Staged] = field(default_factory=list)
    opened: int = 0
    """Entries of all directories that were read."""
    made: int = 0
    """Directories that are new."""

    async def apply(self, edit: Edit) -> Change | None:
        """None when nothing changes. Errors: those that Trees.edit names."""
        if isinstance(edit, Write):
            return await self._write(edit)
        if isinstance(edit, WriteStaged):
            return await self._write_staged(edit)
        if isinstance(edit, SetMode):
            return await self._set_mode(edit)
        if isinstance(edit, Move):
            return await self._move(edit)
        if isinstance(edit, Delete):
            return await self._delete(edit)
        if isinstance(edit, MakeDirectory):
            return await self._make_directory(edit)
        assert_never(edit)

    def finish(self) -> str:
        """The id of the whole tree; its objects are in `new` and `staged`."""
        return self._finish(self.top)

    async def _write(self, edit: Write) -> Change | None:
        parts = writable_parts_of(edit.path)
        if len(edit.content) > FILE_BYTES:
            raise FileTooLarge(edit.path, limit=FILE_BYTES)
        check_content(edit.path, parts[-1], edit.content)
        there = await self._writable(edit.path, parts, edit.expected_etag)
        inline = len(edit.content) <= _INLINE_BYTES
        made = loose("blob", edit.content) if inline else await asyncio.to_thread(loose, "blob", edit.content)
        if change := await self._written(edit, there, made.id, len(edit.content)):
            self.new.append(made)
        return change

    async def _write_staged(self, edit: WriteStaged) -> Change | None:
        there = await self.check(edit.path, edit.expected_etag)
        if change := await self._written(edit, there, edit.staged.id, edit.staged.size):
            self.staged.append(edit.staged)
        return change

    async def _set_mode(self, edit: SetMode) -> Change | None:
        there = await self._writable(edit.path, writable_parts_of(edit.path), edit.expected_etag)
        if there is None:
            raise without_content(edit.path)
        return await self._written(edit, there, there.id, (await self._entry(edit.path, there)).size)

    async def check(self, path: str, etag: str | None) -> Node | None:
        """What is there, if a file of any size may be written to it. Errors: as `apply`."""
        parts = streamable_parts_of(path)
        return await self._writable(path, parts, etag)

    async def _writable(self, path: str, parts: Parts, etag: str | None) -> Node | None:
        there = await self._at(parts)
        _expect(path, there, etag)
        if there is not None and (isinstance(there, _Directory) or there.kind not in {Kind.FILE, Kind.EXECUTABLE}):
            raise NotAFile(path, _kind(there))
        return there

    async def _written(self, edit: Write | WriteStaged | SetMode, there: Node | None, blob: str, size: int) -> Change | None:
        was_executable = there is not None and there.kind is Kind.EXECUTABLE
        mode = EXECUTABLE if (was_executable if edit.executable is None else edit.executable) else FILE
        if there is not None and (there.id, there.mode) == (blob, mode):
            return None
        parts = writable_parts_of(edit.path)
        node = Node(mode, parts[-1], blob)
        await self._put(parts, node)
        return Change(edit.path, "ADDED" if there is None else "MODIFIED", entry=Entry(edit.path, node.kind, size, blob))

    async def _move(self, edit: Move) -> Change | None:
        source, target = writable_parts_of(edit.path), writable_parts_of(edit.to)
        there = await self._at(source)
        _expect(edit.path, there, edit.expected_etag)
        if there is None:
            raise PathNotFound(edit.path)
        if target[: len(source)] == source:
            raise PathInvalid(edit.to, "is, or lies within, what is to be moved")
        if await self._at(target) is not None:
            raise FileExists(edit.to)
        if target[-1] != source[-1] and target[-1] in {b".gitmodules", b".gitattributes"}:
            raise PathInvalid(edit.to, "is written, not moved to: Git judges its content")
        await self._check_depth(edit.to, target, there)
        await self._remove(source)
        await self._put(target, there if isinstance(there, _Directory) else Node(there.mode, target[-1], there.id))
        return Change(edit.to, "RENAMED", old_path=edit.path, entry=await self._entry(edit.to, there))

    async def _delete(self, edit: Delete) -> Change | None:
        parts = writable_parts_of(edit.path)
        there = await self._at(parts)
        _expect(edit.path, there, edit.expected_etag)
        if there is None:
            raise PathNotFound(edit.path)
        if _kind(there) is Kind.DIRECTORY and not edit.recursive:
            raise NotAFile(edit.path, Kind.DIRECTORY)
        await self._remove(parts)
        return Change(edit.path, "DELETED")

    async def _make_directory(self, edit: MakeDirectory) -> Change | None:
        parts = writable_parts_of(edit.path)
        there = await self._at(parts)
        if there is not None:
            if _kind(there) is not Kind.DIRECTORY:
                raise NotADirectory(edit.path)
            return None
        keep = (*parts, KEEP)
        writable_parts_of(printable(b"/".join(keep)))
        self.new.append(empty := loose("blob", b""))
        await self._put(keep, Node(FILE, KEEP, empty.id))
        return Change(f"{edit.path}/{KEEP.decode()}", "ADDED", entry=Entry(edit.path, Kind.DIRECTORY, 0, ""))

    async def _at(self, parts: Parts) -> Node | _Directory | None:
        """What is at a path. Errors: NotADirectory for one that leads through a file."""
        directory = self.top
        for depth, part in enumerate(parts[:-1], 1):
            below = await self._opened(directory, part)
            if below is None:
                return None
            if isinstance(below, Node):
                raise NotADirectory(printable(b"/".join(parts[:depth])))
            directory = below
        return directory.entries.get(parts[-1])

    async def _opened(self, directory: _Directory, name: bytes) -> Node | _Directory | None:
        """The same entry, read if it is a directory."""
        there = directory.entries.get(name)
        if isinstance(there, Node) and there.mode == TREE:
            there = directory.entries[name] = _opened(await children(self.reader, there))
            self.opened += len(there.entries)
            if self.opened > _OPENED:
                raise FileTooLarge(printable(name), limit=TREE_BYTES)
        return there

    async def _put(self, parts: Parts, what: Node | _Directory) -> None:
        """`_at` has said that nothing is in the way."""
        directory = self.top
        for part in parts[:-1]:
            directory.changed = True
            below = await self._opened(directory, part)
            if not isinstance(below, _Directory):
                self.made += 1
                if self.made > _MADE:
                    raise InvalidField("edits", f"make more than {_MADE:,} directories")
                below = directory.entries[part] = _Directory({})
            directory = below
        directory.changed = True
        directory.entries[parts[-1]] = what

    async def _remove(self, parts: Parts) -> None:
        """With the directories that become empty by it: Git has none."""
        passed = [self.top]
        for part in parts[:-1]:
            below = await self._opened(passed[-1], part)
            assert isinstance(below, _Directory)  # noqa: S101 - something is in it
            passed.append(below)
        for directory, name in reversed(list(zip(passed, parts, strict=True))):
            below = directory.entries[name]
            if directory is not passed[-1] and isinstance(below, _Directory) and below.entries:
                break
            del directory.entries[name]
        for directory in passed:
            directory.changed = True

    async def _check_depth(self, to: str, target: Parts, what: Node | _Directory) -> None:
        """What hangs below a directory shall not get deeper, or to longer paths, than any checkout bears. Errors: PathInvalid."""
        below, looked_at = [(what, len(target), sum(map(len, target)) + len(target))], 0
        while below:
            each, depth, length = below.pop()
            if depth > DEPTH or length > PATH_BYTES:
                raise PathInvalid(to, "is too long or too deep with what is to be moved there")
            if isinstance(each, Node) and each.mode != TREE:
                continue
            looked_at += 1
            if looked_at > _MOVED:
                raise TreeTooLarge(_MOVED)
            held = each.entries if isinstance(each, _Directory) else {node.name: node for node in await children(self.reader, each)}
            below += [(entry, depth + 1, length + len(name) + 1) for name, entry in held.items()]

    async def _entry(self, path: str, what: Node | _Directory) -> Entry:
        if isinstance(what, _Directory) or what.kind in {Kind.DIRECTORY, Kind.SUBMODULE}:
            return Entry(path, _kind(what), 0, _etag(what))
        size = next((len(made.data) - made.data.index(b"\0") - 1 for made in self.new if made.id == what.id), None)
        size = next((each.size for each in self.staged if each.id == what.id), None) if size is None else size
        if size is None:
            (info,) = await self.reader.infos([what.id])
            size = info.size if info else 0
        return Entry(path, what.kind, size, what.id)

    def _finish(self, directory: _Directory) -> str:
        nodes = [each if isinstance(each, Node) else Node(TREE, name, self._finish(each)) for name, each in directory.entries.items()]
        made = loose("tree", dump(nodes))
        if directory.changed:
            self.new.append(made)
        return made.id


def _opened(held: list[Node]) -> _Directory:
    return _Directory({node.name: node for node in held})


async def check_write(reader: Reader, commit: str, path: str, etag: str | None) -> None:
    """See Trees.check. Errors: GitFailed, and those that the port names."""
    _, held = await top(reader, commit)
    await Draft(reader, _opened(held)).check(path, etag)


async def edit_commit(
    objects: Objects, mirror: Path, commit: str, edits: Sequence[Edit], *, author: Author, at: datetime, message: Callable[[Changes], str]
) -> Edited:
    """See Trees.edit. Errors: GitFailed, OSError, and those that the port names."""
    async with objects.reader(mirror) as reader:
        tree, held = await top(reader, commit)
        draft = Draft(reader, _opened(held))
        changes = tuple([await draft.apply(edit) for edit in edits])

    def stored() -> str:
        made = draft.finish()
        if made == tree.id:
            return commit
        for content in draft.staged:
            place(mirror, content)
        new = loose("commit", _commit(made, commit, author, at, message(changes)))
        store(mirror, {each.id: each for each in [*draft.new, new]}.values())
        return new.id

    return Edited(await asyncio.to_thread(stored), changes)


def _commit(tree: str, parent: str, author: Author, at: datetime, message: str) -> bytes:
    by = f"{_plain(author.name) or 'Treadle'} <{_plain(author.email)}> {int(at.timestamp())} +0000"
    text = message.replace("\0", "").strip()
    return f"tree {tree}\nparent {commit_id(parent)}\nauthor {by}\ncommitter {by}\n\n{text}\n".encode("utf-8", "replace")


def _plain(text: str) -> str:
    """As Git takes a name or an address: without what ends one."""
    return "".join(character for character in text if character not in "<>\n\0").strip()


def _kind(there: Node | _Directory) -> Kind:
    return there.kind if isinstance(there, Node) else Kind.DIRECTORY


def _etag(there: Node | _Directory | None) -> str:
    """Of files and links; what else there is has none."""
    return there.id if isinstance(there, Node) and there.mode != TREE else ""


def _expect(path: str, there: Node | _Directory | None, etag: str | None) -> None:
    if etag is None or (etag == _etag(there) and bool(etag) == (there is not None)):
        return
    if there is not None and _kind(there) is Kind.DIRECTORY:
        raise NotAFile(path, Kind.DIRECTORY)
    raise FileChanged(path, _etag(there), expected=etag)
