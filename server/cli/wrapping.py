"""Words are not cut at the right edge of a terminal, also while a text still grows, and what may be copied is not cut at all."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rich.cells import cell_len

_PIECES = re.compile(r"\n|[^\S\n]+|\S+")
_OURS = r"(?:\S*/|'[^']*/)?treadle'? .+"
_OTHERS = r"(?:apt-get|pip|setpriv|sysctl) (?:(?! \().)+"
_WHOLE = re.compile(rf"(?:^\s*|(?<=: ))(?:{_OURS}|{_OTHERS})|[^\s`]*`[^`]*`\S*|\S+")
"""A command that stands behind a colon or alone, what is in backticks, or a word."""


def fold(line: str, width: int, *, hang: int) -> Iterator[tuple[int, int]]:
    """A line as the (start, end) of lines that fit, when each but the first has `hang` columns before it. Broken between words only, and
    not before column `hang`; a word or command that is wider than a line gets its own, and is left to the terminal."""
    start = end = 0
    room = width
    for piece in _WHOLE.finditer(line):
        if cell_len(line[start : piece.end()]) > room and (start or cell_len(line[: piece.start()]) > hang):
            yield start, end
            start, room = piece.start(), width - hang
        end = piece.end()
    yield start, end


def folded(text: str, width: int, *, hang: int = 0) -> str:
    """Lines of words, each folded: what goes on stands `hang` columns to the right of where its line begins."""
    lines = []
    for line in text.split("\n"):
        indent = len(line) - len(line.lstrip(" ")) + hang
        first, *more = (line[start:end] for start, end in fold(line, width, hang=indent))
        lines += [first, *(" " * indent + each for each in more)]
    return "\n".join(lines)


class Wrapping:
    """Gives a growing text back in lines of at most `width` columns. A word is held back until it is complete; one that is wider than a
    line is left to the terminal."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._column = 0
        self._held = ""

    def feed(self, text: str) -> str:
        """What of it can be shown now."""
        shown = ""
        text, self._held = self._held + text, ""
        found = _PIECES.findall(text)
        if found and not found[-1].isspace():
            self._held = found.pop()
        for piece in found:
            shown += self._place(piece)
        return shown

    def end(self) -> str:
        """The rest; the next text begins at the left edge."""
        shown = self._place(self._held) if self._held else ""
        self._held, self._column = "", 0
        return shown

    def _place(self, piece: str) -> str:
        if piece == "\n":
            self._column = 0
            return piece
        room = self._width - self._column
        if cell_len(piece) <= room:
            self._column += cell_len(piece)
            return piece
        if piece.isspace():
            # It would stand at the edge, where nobody sees it.
            self._column = self._width
            return ""
        self._column = cell_len(piece)
        return f"\n{piece}" if room < self._width else piece
