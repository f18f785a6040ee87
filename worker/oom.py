"""Who goes first when memory runs out: what the agent runs, and then the worker, which has to tell of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ADJUSTMENT = Path("/proc/self/oom_score_adj")
_FIRST_TO_GO = b"1000"

_kept: list[tuple[int, bytes]] = []


def keep_place() -> None:
    """Remember this process's own place. Before it hides its memory: then it may not open the file any more."""
    # A kernel that is none of Linux's own may not have it.
    with contextlib.suppress(OSError):
        own = _ADJUSTMENT.read_bytes().strip()
        _kept.append((os.open(_ADJUSTMENT, os.O_WRONLY | os.O_CLOEXEC), own))


@contextmanager
def first_to_go() -> Iterator[None]:
    """What is started meanwhile goes before this process."""
    _move(_FIRST_TO_GO)
    try:
        yield
    finally:
        # Down to where whoever may do that has put it, everybody may go.
        for _, own in _kept:
            _move(own)


def _move(place: bytes) -> None:
    for descriptor, _ in _kept:
        with contextlib.suppress(OSError):
            os.pwrite(descriptor, place, 0)
