"""Words are not cut at the right edge of a terminal, also while a text still grows."""

from __future__ import annotations

import re

from rich.cells import cell_len

_PIECES = re.compile(r"\n|[^\S\n]+|\S+")


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
