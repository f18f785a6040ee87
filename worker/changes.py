"""What became of a file, as a diff: looked at before and after."""

from __future__ import annotations

import difflib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from treadle.session.v1 import event_pb2 as session

_PATCH_CHARS = 64 * 1024
_MAX_BYTES = 1024 * 1024
_MAX_LINES = 20_000


@dataclass(frozen=True)
class Look:
    """A file as it was at one moment."""

    exists: bool
    content: bytes = b""
    whole: bool = True
    """False when it is too large to be compared, or no regular file."""


def look(path: Path) -> Look:
    """Read a file, at most 1 MiB of it. Never blocks on what is no file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return Look(exists=False)
    except OSError:
        return Look(exists=True, whole=False)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return Look(exists=True, whole=False)
        content = file.read(_MAX_BYTES + 1)
    return Look(exists=True, content=content[:_MAX_BYTES], whole=len(content) <= _MAX_BYTES)


def difference(path: str, before: Look, after: Look) -> session.FileChange | None:
    """What happened between two looks; None for nothing. `path` is relative to the workspace."""
    if before == after and before.whole:
        return None
    operation = session.FILE_OPERATION_MODIFIED
    if not before.exists:
        operation = session.FILE_OPERATION_ADDED
    elif not after.exists:
        operation = session.FILE_OPERATION_DELETED
    change = session.FileChange(path=path, operation=operation, binary=b"\0" in before.content or b"\0" in after.content)
    old, new = _lines(before), _lines(after)
    if change.binary:
        return change
    if not (before.whole and after.whole) or len(old) + len(new) > _MAX_LINES:
        change.patch_truncated = True
        return change
    lines = list(difflib.unified_diff(old, new, f"a/{path}", f"b/{path}"))
    patch = "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
    change.additions = sum(line.startswith("+") for line in lines[2:])
    change.deletions = sum(line.startswith("-") for line in lines[2:])
    change.patch = patch if len(patch) <= _PATCH_CHARS else ""
    change.patch_truncated = len(patch) > _PATCH_CHARS
    return change


def _lines(seen: Look) -> list[str]:
    return seen.content.decode(errors="replace").splitlines(keepends=True)
