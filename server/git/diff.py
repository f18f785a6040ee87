"""What changed between two commits of a mirror."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from server.git.command import Git
from server.git.manifest import printable
from server.git.refs import commit_id
from server.kernel.ports.repositories import Diff, FileDiff

LISTING_BYTES = 256 * 1024 * 1024
"""The longest list of changed files; with the limits of an import, none is longer."""

_OPERATIONS = {"A": "ADDED", "D": "DELETED", "R": "RENAMED", "C": "ADDED"}
_OPTIONS = ("-r", "--find-renames", "--no-ext-diff", "--no-textconv", "--no-color", "--full-index", "--no-commit-id")
_HEADERS_BYTES = 2048
"""Room for one file's `diff --git` lines, which count against no limit."""


@dataclass(frozen=True)
class _Change:
    file: FileDiff
    sections: int
    """How many `diff --git` sections the patch has for it: two when a file became a link, or the reverse."""


async def compare(git: Git, mirror: Path, *, base: str, head: str, max_patch_bytes: int, max_files: int) -> Diff:
    """See Repositories.diff. Errors: GitFailed, ValueError."""
    ends = (commit_id(base), commit_id(head))
    raw = await git.run("diff-tree", *_OPTIONS, "--raw", "-z", *ends, git_dir=mirror, max_output=LISTING_BYTES)
    counts = await git.run("diff-tree", *_OPTIONS, "--numstat", "-z", *ends, git_dir=mirror, max_output=LISTING_BYTES)
    if raw.truncated or counts.truncated:
        return Diff(truncated=True)
    # Both grow with the change: off the loop.
    shown, summary = await asyncio.to_thread(_sum_up, raw.stdout, counts.stdout, max_files)
    room = max_patch_bytes + _HEADERS_BYTES * len(shown)
    patch = await git.run("diff-tree", *_OPTIONS, "--patch", *ends, git_dir=mirror, max_output=room)
    files = await asyncio.to_thread(lambda: tuple(_with_patches(shown, _sections(patch.stdout), max_patch_bytes, cut=patch.truncated)))
    return replace(summary, files=files)


def patch(git: Git, mirror: Path, *, base: str, head: str, path: str) -> AsyncGenerator[bytes, None]:
    """The whole difference as one patch, below `path` alone if there is one. Errors: GitFailed, ValueError."""
    return git.stream(
        "diff-tree", *_OPTIONS, "--patch", "--binary", commit_id(base), commit_id(head), "--", *([path] if path else []),
        git_dir=mirror, environment={"GIT_LITERAL_PATHSPECS": "1"},
    )  # fmt: skip


def _sum_up(raw: bytes, numstat: bytes, max_files: int) -> tuple[list[_Change], Diff]:
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


def _changes(raw: bytes) -> Iterator[_Change]:
    fields = iter(raw.split(b"\0"))
    for meta in fields:
        if not meta:
            return
        status = meta.split()[-1][:1].decode()
        old = new = printable(next(fields))
        if status in "RC":
            new = printable(next(fields))
        file = FileDiff(new, _OPERATIONS.get(status, "MODIFIED"), old_path=old if status == "R" else "")
        yield _Change(file, sections=2 if status == "T" else 1)


def _counts(numstat: bytes) -> Iterator[tuple[bytes, bytes]]:
    fields = iter(numstat.split(b"\0"))
    for record in fields:
        if not record:
            return
        added, deleted, path = record.split(b"\t", 2)
        if not path:  # a rename: the two paths follow
            next(fields)
            next(fields)
        yield added, deleted


async def compare_each(git: Git, mirror: Path, *, base: str, commits: Sequence[str], max_files: int) -> list[Diff]:
    """See Repositories.diff_each; one process for all of them. Errors: GitFailed, ValueError."""
    pairs = zip(commits, [base, *commits], strict=False)
    asked = "".join(f"{commit_id(commit)} {commit_id(before)}\n" for commit, before in pairs)
    options = [option for option in _OPTIONS if option != "--no-commit-id"]
    told = await git.run(
        "diff-tree", "--stdin", *options, "--raw", "--numstat", "-z", git_dir=mirror, stdin=asked.encode(), max_output=LISTING_BYTES
    )
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
    # Paths are taken with what stands before them, so none of them is taken for something else.
    for field in fields:
        if field.startswith(b":"):
            raw += [field, *islice(fields, 2 if field.split()[-1][:1] in b"RC" else 1)]
        elif b"\t" in field:
            numstat += [field, *islice(fields, 2 if field.endswith(b"\t") else 0)]
        elif field:
            raw, numstat = parts.setdefault(field.decode(), ([], []))
    found = {}
    for commit, (changes, counts) in parts.items():
        shown, summary = _sum_up(b"\0".join([*changes, b""]), b"\0".join([*counts, b""]), max_files)
        found[commit] = replace(summary, files=tuple(replace(change.file, patch_truncated=True) for change in shown))
    return found


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
