"""Standard error, for a word beside the output."""

from __future__ import annotations

import os
import sys

_COLUMNS = 80
_HANG = 2


def aside(text: str, *, speaker: str = "treadle") -> None:
    """Say it; lines after the first are hints. On a terminal in lines that fit, elsewhere as it is."""
    prefix = f"{speaker}: "
    said = _folded(text, len(prefix)) if sys.stderr.isatty() else text
    print(prefix + said, file=sys.stderr, flush=True)


def _folded(text: str, columns: int) -> str:
    """`columns` are taken in the first line."""
    # Here and not above: it is rich's, which takes its time.
    from server.cli.wrapping import folded

    width = _width()
    said, *hints = text.split("\n")
    lines = [folded(" " * columns + said, width)[columns:], *(folded(hint, width, hang=_HANG) for hint in hints)]
    return "\n".join(lines)


def _width() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or _COLUMNS
    except OSError:
        return _COLUMNS
