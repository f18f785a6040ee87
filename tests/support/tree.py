"""What lies in a directory at whose content a server is at work."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path


def entries(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """All that is no directory, at any depth. What goes meanwhile is left out, where `Path.rglob` raises."""
    for folder, _, names in os.walk(root):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                yield (path := Path(folder, name)), path.lstat()


def contents(root: Path) -> Iterator[tuple[Path, bytes]]:
    """Every regular file that is still there when it is read."""
    for path, status in entries(root):
        if stat.S_ISREG(status.st_mode):
            with contextlib.suppress(FileNotFoundError):
                yield path, path.read_bytes()
