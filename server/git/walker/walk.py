"""The walk: one directory descriptor per level, nothing followed, everything bounded."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from itertools import islice

from server.git.walker import content as contents
from server.git.walker.ahead import Ahead
from server.git.walker.ignore import Ignored
from server.git.walker.known import Known
from server.git.walker.names import is_gitattributes, is_gitmodules
from server.git.walker.packfile import Pack
from server.git.walker.protocol import GITLINK, BaseTree, Limits
from server.git.walker.records import Records
from server.git.walker.screen import refused_content, refused_name

_EXAMINED_PER_ENTRY = 10
_IGNORE_FILE_BYTES = 1024 * 1024


class Walk:
    """Compares a tree with the base: changed files go into the pack, everything into the records."""

    def __init__(
        self,
        *,
        base: BaseTree,
        known: Known,
        ahead: Ahead,
        limits: Limits,
        pack: Pack,
        records: Records,
        ignored: Ignored,
    ) -> None:
        self._base = base
        self._known = known
        self._ahead = ahead
        self._limits = limits
        self._pack = pack
        self._records = records
        self._ignored = ignored
        self._new = 0
        self._names = 0
        self._examined = 0
        self._bytes = 0
        self._device = -1

    def tree(self, root: int) -> None:
        """Walk the tree whose root directory is open as `root`."""
        self._device = os.fstat(root).st_dev
        self._directory(root, b"", depth=0)

    def _directory(self, directory: int, prefix: bytes, *, depth: int) -> None:
        """Files first, then directories, those of the base before new ones: a flood in one place does not hide work in another."""
        below = self._known_directories(directory, prefix)
        for name in self._read(directory, prefix) if below is None else below:
            self._descend(directory, name, prefix, depth=depth)

    def _known_directories(self, directory: int, prefix: bytes) -> list[bytes] | None:
        """Those in a directory that need not be read, as all that it holds is known and in the base."""
        below = self._known.directories(prefix, directory) if self._known.is_held(prefix) else None
        if below is None:
            return None
        if any(self._is_new(prefix + name) or len(prefix + name) > self._limits.path_bytes for name in below):
            return None
        self._records.same_files(prefix)
        return sorted(below)

    def _read(self, directory: int, prefix: bytes) -> list[bytes]:
        """Look at all that is in a directory; the directories in it that are to be walked."""
        with os.scandir(directory) as listing:
            entries = list(islice(listing, self._limits.entries + 1))
        if len(entries) > self._limits.entries:
            self._records.skip(prefix.rstrip(b"/"), "TOO_MANY")
            return []
        files = [entry for entry in entries if not entry.is_dir(follow_symlinks=False)]
        self._learn_ignore_file(directory, prefix, files)
        untouched = self._known.untouched(prefix, files)
        if untouched is None:
            self._records.same_files(prefix)
            entries = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
        directories = []
        for is_new, name, entry in sorted(self._named(entries, prefix)):
            path = prefix + name
            if path == b".git":
                continue  # the workspace's own, which is read for its commits alone
            is_directory = entry.is_dir(follow_symlinks=False)
            refusal = refused_name(name, is_directory=is_directory) or ("BAD_NAME" if len(path) > self._limits.path_bytes else "")
            if refusal:
                self._records.skip(path, refusal)
            elif not is_new or self._admitted(path, is_directory=is_directory):
                if is_directory:
                    directories.append(name)
                elif untouched and name in untouched:
                    self._records.same(path, self._base[path].mode)
                else:
                    self._file(directory, entry, name, path)
        return directories

    def _descend(self, parent: int, name: bytes, prefix: bytes, *, depth: int) -> None:
        path = prefix + name
        if self._is_submodule(path):
            self._records.keep(path)
        elif depth + 1 > self._limits.depth:
            self._records.skip(path, "TOO_DEEP")
        elif self._ahead.saw(path + b"/") and self._known.is_held(path + b"/"):
            self._records.same_files(path + b"/")
        else:
            try:
                descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            except OSError:
                self._records.skip(path, "UNREADABLE")
                return
            try:
                if os.fstat(descriptor).st_dev != self._device:
                    self._records.skip(path, "NOT_A_FILE")
                else:
                    self._directory(descriptor, path + b"/", depth=depth + 1)
            finally:
                os.close(descriptor)

    def _is_submodule(self, path: bytes) -> bool:
        held = self._base.get(path) if self._base.may_have_submodules else None
        return held is not None and held.mode == GITLINK

    def _named(self, entries: list[os.DirEntry[str]], prefix: bytes) -> Iterator[tuple[bool, bytes, os.DirEntry[str]]]:
        """With the bytes of their names, and whether the base has nothing at or below them."""
        for entry in entries:
            name = os.fsencode(entry.name)
            yield self._is_new(prefix + name), name, entry

    def _is_new(self, path: bytes) -> bool:
        return not self._records.holds_below(path) and path not in self._base

    def _admitted(self, path: bytes, *, is_directory: bool) -> bool:
        """Whether a path that the base does not have is looked at: what is neither ignored nor too much."""
        self._examined += 1
        if self._new >= self._limits.entries or self._examined > self._limits.entries * _EXAMINED_PER_ENTRY:
            self._records.skip(path, "TOO_MANY")
            return False
        if self._ignored(path, is_directory=is_directory):
            return False
        if self._names + len(path) > self._limits.names_bytes:
            self._records.skip(path, "TOO_MANY")
            return False
        self._new += 1
        self._names += len(path)
        return True

    def _file(self, directory: int, entry: os.DirEntry[str], name: bytes, path: bytes) -> None:
        try:
            if entry.is_file(follow_symlinks=False):
                self._regular(directory, name, path)
            elif entry.is_symlink():
                self._link(directory, name, path)
            else:
                self._records.skip(path, "NOT_A_FILE")
        except OSError:
            self._records.skip(path, "UNREADABLE")

    def _link(self, directory: int, name: bytes, path: bytes) -> None:
        if is_gitmodules(name):
            self._records.skip(path, "BAD_GITMODULES")
        elif is_gitattributes(name):
            self._records.skip(path, "BAD_GITATTRIBUTES")
        else:
            self._record(path, b"120000", contents.link(name, directory))

    def _regular(self, directory: int, name: bytes, path: bytes) -> None:
        descriptor, status = contents.open_regular(name, directory)
        try:
            held = self._base.get(path)
            size = status.st_size
            grown = held is None or held.size != size
            if grown and (size > self._limits.file_bytes or self._bytes + size > self._limits.total_bytes):
                self._records.skip(path, "TOO_LARGE")
                return
            content = contents.regular(descriptor, size)
            refusal = refused_content(name, content.whole)
            if refusal and (held is None or held.id != content.id):
                self._records.skip(path, refusal)
            else:
                self._record(path, b"100755" if status.st_mode & stat.S_IXUSR else b"100644", content)
        finally:
            os.close(descriptor)

    def _record(self, path: bytes, mode: bytes, content: contents.Content) -> None:
        held = self._base.get(path)
        if held is not None and held.id == content.id:
            self._records.same(path, mode)
            return
        self._bytes += content.size
        # What is packed may be another content than what was compared: a large file is read twice, and somebody may write to it.
        self._records.found(path, mode, self._pack.add(content.id, content.size, content.chunks()))

    def _learn_ignore_file(self, directory: int, prefix: bytes, files: list[os.DirEntry[str]]) -> None:
        names = [file.name for file in files]
        if ".gitignore" not in names or not files[names.index(".gitignore")].is_file(follow_symlinks=False):
            return
        try:
            descriptor, status = contents.open_regular(b".gitignore", directory)
        except OSError:
            return  # it is reported as unreadable when its turn comes
        try:
            size = min(status.st_size, _IGNORE_FILE_BYTES)
            self._ignored.learn(prefix.rstrip(b"/"), contents.regular(descriptor, size).whole or b"")
        finally:
            os.close(descriptor)
