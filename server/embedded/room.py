"""How much disk a data directory has: the same limits for `treadle up` and for the doctor."""

from __future__ import annotations

import shutil
from pathlib import Path

from server.data_dir import nearest_existing
from server.refusal import StartRefused

LITTLE_BYTES = 2 << 30
"""With less than this free, large repositories do not fit."""
TOO_LITTLE_BYTES = 200 << 20
"""With less than this free nothing is started: Postgres' log alone may take more, and a full disk stops it in the middle of a turn."""


class NoRoom(StartRefused):
    """The disk is all but full."""


def free_bytes(data_dir: Path) -> int:
    """What is free where the data directory is, or will be made."""
    return shutil.disk_usage(nearest_existing(data_dir)).free


def require_room(data_dir: Path) -> None:
    """Errors: NoRoom."""
    free = free_bytes(data_dir)
    if free < TOO_LITTLE_BYTES:
        raise NoRoom(
            f"only {in_words(free)} are free for {data_dir}, {in_words(TOO_LITTLE_BYTES)} are needed; make room, or choose another place "
            "with --data-dir"
        )


def in_words(size: int) -> str:
    """For people."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
