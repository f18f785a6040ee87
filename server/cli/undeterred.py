"""Output that may lose its reader: a server does not end because `| head` has read enough."""

from __future__ import annotations

import os
from typing import Any, TextIO, cast


def undeterred(stream: TextIO) -> TextIO:
    """`stream`, except that what nobody reads any more goes nowhere."""
    return cast("TextIO", _Undeterred(stream))


class _Undeterred:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._let_go()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._let_go()

    def _let_go(self) -> None:
        # The descriptor itself: what the stream still holds back is written there too, at the latest when Python ends.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
