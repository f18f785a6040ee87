"""What changed between two commits of a mirror."""

from __future__ import annotations

import asyncio
import sys
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from server.git.command import Git
from server.git.manifest import printable
from server.git.refs import commit_id
from server.kernel.ports.repositories import Diff, FileDiff

LISTING_BYTES = 256 * 1024 * 1024
"""The longest list of changed files; with the limits of an import, none is longer."""

CACHED_BYTES = 32 * 1024 * 1024
"""Of differences that were asked for; some hundreds of what a person looks at."""

_OPERATIONS = {"A": "ADDED", "D": "DELETED", "R": "RENAMED", "C": "ADDED"}
_OPTIONS = ("-r", "--find-renames", "--no-ext-diff", "--no-textconv", "--no-color", "--full-index", "--no-commit-id")
_LITERAL = {"GIT_LITERAL_PATHSPECS": "1"}
LISTED = (*(option for option in _OPTIONS if option != "--no-commit-id"), "--raw", "--numstat", "-z")
"""Options of a diff-tree that says of which commit or trees each list is."""
_HEADERS_BYTES = 2048
"""Room for one file's `diff --git` lines, which count against no limit."""


@dataclass(frozen=True)
class _Change:
    file: FileDiff
    sections: int
    """How many `diff --git` sections the patch has for it: two when a file became a link, or the reverse."""


class Compared:
    """The differences that were asked for last. Two commits never change, so what differs between them does not either: a client that
    asks again, or a second one, costs no git."""

    def __init__(self, *, most_bytes: int = CACHED_BYTES) -> None:
        self._most = most_bytes
        self._bytes = 0
        self._found: OrderedDict[tuple[Path, str, str, int, int, str], Diff] = OrderedDict()
        """The one that was asked for last is last."""

    async def compare(self, git: Git, mirror: Path, *, base: str, head: str, path: str = "", max_patch_bytes: int, max_files: int) -> Diff:
        """See Repositories.diff. Errors: GitFailed, ValueError."""
        key = (mirror, commit_id(base), commit_id(head), max_patch_bytes, max_files, path)
        if (found := self._found.get(key)) is not None:
            self._found.move_to_end(key)
            return found
        diff = await compare(git, mirror, base=base, head=head, path=path, max_patch_bytes=max_patch_bytes, max_files=max_files)
        self._keep(key, diff)
        return diff

    def _keep(self, key: tuple[Path, str, str, int, int, str], diff: Diff) -> None:
        if key in self._found:  # somebody asked for the same meanwhile
            return
        self._found[key] = diff
        self._bytes += _weight(diff)
        while self._bytes > self._most:
            self._bytes -= _weight(self._found.popitem(last=False)[1])


def _weight(diff: Diff) -> int:
    """About what it takes in memory; a character of a patch can take four bytes."""
    return 500 + sum(500 + sys.getsizeof(file.path) + sys.getsizeof(file.old_path) + sys.getsizeof(file.patch) for file in diff.files)


async def compare(git: Git, mirror: Path, *, base: str, head: str, path: str = "", max_patch_bytes: int, max_files: int) -> Diff:
    """See Repositories.diff; one process, which looks for renames once. Errors: GitFailed, ValueError."""
    forms = ("--raw", "--numstat", *(["--patch"] if max_patch_bytes else []))
    arguments = ("diff-tree", *_OPTIONS, *forms, "-z", commit_id(base), commit_id(head), *_below(path))
    async with git.deadline(), aclosing(git.stream(*arguments, git_dir=mirror, environment=_LITERAL)) as told:
        listing, patch = await _listing(told)
        if listing is None:
            return Diff(truncated=True)
        # It grows with the change: off the loop.
        shown, summary = await asyncio.to_thread(_sum_up, *_apart(listing), max_files)
        cut = not await _read_on(told, patch, max_patch_bytes + _HEADERS_BYTES * len(shown)) or not max_patch_bytes
    files = await asyncio.to_thread(lambda: tuple(_with_patches(shown, _sections(bytes(patch)), max_patch_bytes, cut=cut)))
    return replace(summary, files=files)


async def _listing(told: AsyncGenerator[bytes, None]) -> tuple[bytes | None, bytearray]:
    """What stands before the patch, None when it is too long; and what was read of the patch. No path is empty and none holds a zero
    byte, so nothing in a list looks like its end."""
    read = bytearray()
    async for chunk in told:
        begin = max(0, len(read) - 1)
        read += chunk
        end = read.find(b"\0\0", begin)
        if (len(read) if end < 0 else end) > LISTING_BYTES:
            return None, bytearray()
        if end >= 0:
            return bytes(read[: end + 1]), read[end + 2 :]
    return bytes(read), bytearray()


async def _read_on(told: AsyncGenerator[bytes, None], patch: bytearray, room: int) -> bool:
    """The patch, as far as there is room; whether that is all of it."""
    while len(patch) <= room:
        chunk = await anext(told, b"")
        if not chunk:
            return True
        patch += chunk
    del patch[room:]
    return False


def patch(git: Git, mirror: Path, *, base: str, head: str, path: str) -> AsyncGenerator[bytes, None]:
    """The whole difference as one patch, below `path` alone if there is one. Errors: GitFailed, ValueError."""
    return git.stream(
        "diff-tree", *_OPTIONS, "--patch", "--binary", commit_id(base), commit_id(head), *_below(path),
        git_dir=mirror, environment=_LITERAL,
    )  # fmt: skip


def _below(path: str) -> tuple[str, ...]:
    return ("--", path) if path else ()


def _apart(told: bytes) -> tuple[list[bytes], list[bytes]]:
    """The fields of `--raw`, and those of `--numstat`."""
    raw: list[bytes] = []
    numstat: list[bytes] = []
    fields = iter(told.split(b"\0"))
    for field in fields:
        _take(field, fields, raw, numstat)
    return raw, numstat


def _take(field: bytes, fields: Iterator[bytes], raw: list[bytes], numstat: list[bytes]) -> bool:
    """Whether it begins a record, which then is taken. Paths are taken with what stands before them, so none of them is taken for
    something else."""
    if field.startswith(b":"):
        raw += [field, *islice(fields, 2 if field.split()[-1][:1] in b"RC" else 1)]
    elif b"\t" in field:
        numstat += [field, *islice(fields, 2 if field.split(b"\t", 2)[2] == b"" else 0)]
    else:
        return False
    return True


def _sum_up(raw: Sequence[bytes], numstat: Sequence[bytes], max_files: int) -> tuple[list[_Change], Diff]:
    """The changes that are shown, and the sums over all of them."""
    shown: list[_Change] = []
    changed = additions = deletions = 0
    for change, count in zip(_changes(raw), _counts(numstat), strict=True):
        counted = _counted(change, count)
        changed += 1
        additions += counted.file.additions
        deletions += counted.file.deletions
        if len(shown) < max_files:
            shown.append(counted)
    return shown, Diff(files_changed=changed, additions=additions, deletions=deletions, truncated=len(shown) < changed)


def _changes(raw: Sequence[bytes]) -> Iterator[_Change]:
    fields = iter(raw)
    for meta in fields:
        status = meta.split()[-1][:1].decode()
        old = new = printable(next(fields))
        if status in "RC":
            new = printable(next(fields))
        file = FileDiff(new, _OPERATIONS.get(status, "MODIFIED"), old_path=old if status == "R" else "")
        yield _Change(file, sections=2 if status == "T" else 1)


def _counts(numstat: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    fields = iter(numstat)
    for record in fields:
        added, deleted, path = record.split(b"\t", 2)
        if not path:  # a rename: the two paths follow
            next(fields)
            next(fields)
        yield added, deleted


async def compare_each(git: Git, mirror: Path, *, base: str, commits: Sequence[str], max_files: int) -> list[Diff]:
    """See Repositories.diff_each; one process for all of them. Errors: GitFailed, ValueError."""
    pairs = zip(commits, [base, *commits], strict=False)
    asked = "".join(f"{commit_id(commit)} {commit_id(before)}\n" for commit, before in pairs)
    told = await git.run("diff-tree", "--stdin", *LISTED, git_dir=mirror, stdin=asked.encode(), max_output=LISTING_BYTES)
    if told.truncated:
        return [Diff(truncated=True) for _ in commits]
    found = await asyncio.to_thread(_sum_up_each, told.stdout, max_files)
    return [found.get(commit, Diff()) for commit in commits]


def _sum_up_each(told: bytes, max_files: int) -> dict[str, Diff]:
    """By commit; one that changes nothing is not there."""
    parts: dict[str, tuple[list[bytes], list[bytes]]] = {}
    raw: list[bytes] = []
    numstat: list[bytes] = []
    fields = iter(told.split(b"\0"))
    for field in fields:
        if not _take(field, fields, raw, numstat) and field:
            raw, numstat = parts.setdefault(field.decode(), ([], []))
    return {commit: _without_patches(changes, counts, max_files) for commit, (changes, counts) in parts.items()}


def listed(told: bytes, max_files: int) -> Diff:
    """What git lists by `--raw --numstat -z`, without patches."""
    return _without_patches(*_apart(told), max_files)


def _without_patches(raw: Sequence[bytes], numstat: Sequence[bytes], max_files: int) -> Diff:
    shown, summary = _sum_up(raw, numstat, max_files)
    return replace(summary, files=tuple(replace(change.file, patch_truncated=True) for change in shown))


def _counted(change: _Change, count: tuple[bytes, bytes]) -> _Change:
    if count == (b"-", b"-"):
        return replace(change, file=replace(change.file, binary=True))
    return replace(change, file=replace(change.file, additions=int(count[0]), deletions=int(count[1])))


def _sections(patch: bytes) -> list[bytes]:
    """Split before each `diff --git` line; lines of content begin with a space, `+`, `-` or a backslash."""
    starts = [0] if patch.startswith(b"diff --git ") else []
    position = 0
    while (position := patch.find(b"\ndiff --git ", position)) >= 0:
        position += 1
        starts.append(position)
    return [patch[start:end] for start, end in zip(starts, [*starts, len(patch)][1:], strict=True)]


def _with_patches(changes: list[_Change], sections: list[bytes], room: int, *, cut: bool) -> Iterator[FileDiff]:
    position = 0
    for change in changes:
        patch = b"".join(sections[position : position + change.sections])
        position += change.sections
        whole = len(patch) <= room and (position < len(sections) or (position == len(sections) and not cut))
        if not whole:
            patch = patch[: patch.rfind(b"\n", 0, room) + 1]
        room -= len(patch)
        yield replace(change.file, patch=patch.decode("utf-8", "replace"), patch_truncated=not whole)
