"""Standard output for people: styled on a terminal, plain lines elsewhere and with NO_COLOR."""

from __future__ import annotations

import os
import sys

from rich.console import Console
from rich.text import Text

from server.cli.wrapping import Wrapping, fold, folded
from server.kernel.escapes import ESCAPE_SEQUENCE

_CONTROLS = [*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_LABEL_COLUMNS = 12
_HARMLESS = str.maketrans(dict.fromkeys(_CONTROLS, "\ufffd") | {0x0D: ""})


def harmless(text: str) -> str:
    """Without anything that a terminal would obey: agents and repositories decide about this text. Colours go silently, other
    control characters and changes of writing direction become U+FFFD."""
    return ESCAPE_SEQUENCE.sub("", text).translate(_HARMLESS)


def _console() -> Console:
    # NO_COLOR asks for no styles at all; rich would still send bold and dim.
    plain = {"color_system": None} if os.environ.get("NO_COLOR") else {}
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=True, **plain)  # type: ignore[arg-type]


class Screen:
    """Writes lines. A line that is still being written (`piece`) is ended by whatever comes next."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or _console()
        self._open = False
        self._prompting = False
        self._wrapping = Wrapping(self._console.width if self.live else sys.maxsize)

    @property
    def live(self) -> bool:
        """Whether somebody watches: a terminal that can show text as it grows."""
        return self._console.is_terminal

    @property
    def prompting(self) -> bool:
        """Whether nothing was shown since the prompt."""
        return self._prompting

    @property
    def growing(self) -> bool:
        """Whether a line is still being written."""
        return self._open

    def line(self, text: str = "", style: str = "") -> None:
        """One line; `style` as rich has it."""
        self.parts((text, style))

    def parts(self, *parts: tuple[str, str], hang: int | None = None) -> None:
        """One line of several (text, style). With `hang` they are words: on a terminal in lines that fit, and what goes on begins in
        that column."""
        self.end_piece()
        whole = Text.assemble(*((harmless(text), style) for text, style in parts))
        if hang is None or not self.live:
            self._console.print(whole)
            return
        for start, end in fold(whole.plain, self._console.width, hang=hang):
            self._console.print(Text(" " * hang if start else "").append_text(whole[start:end]))

    def prose(self, text: str, style: str = "", *, indent: int = 0) -> None:
        """Words for people: on a terminal in lines that fit, each indented; elsewhere as they are. What may be copied, such as commands
        and diffs, is better a line, or in backticks. A word that is wider than a line is left to the terminal, so that it can be copied
        whole."""
        if not self.live:
            self.line(" " * indent + text, style)
            return
        for line in folded(harmless(text), self._console.width - indent).split("\n"):
            self.line(" " * indent + line, style)

    def piece(self, text: str) -> None:
        """Prose that grows."""
        if self._prompting:
            self.end_piece()
        self._console.print(Text(self._wrapping.feed(harmless(text))), end="")
        self._open = True

    def prompt(self, text: str) -> None:
        """A growing line in which the user types."""
        self.piece(text)
        self._prompting = True

    def typed(self) -> None:
        """The user has ended the growing line with the return key."""
        self._open = self._prompting = False
        self._wrapping.end()

    def end_piece(self) -> None:
        """End the growing line, if there is one."""
        if self._open:
            self._open = self._prompting = False
            self._console.print(Text(self._wrapping.end()))

    def label(self, name: str, text: str, style: str = "") -> None:
        """A fact with its name before it."""
        self.parts((f"  {name:<{_LABEL_COLUMNS - 2}}", "dim"), (text, style), hang=_LABEL_COLUMNS)
