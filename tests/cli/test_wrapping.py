"""Growing text in lines that fit."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from server.cli.screen import Screen
from server.cli.wrapping import Wrapping

TEXT = (
    "The note goes into a folder of its own, so that nothing that exists is touched.\n\n  - one\n  - 日本語 の 文章 and some more words\n"
)


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
@pytest.mark.parametrize("width", [12, 20, 39])
def test_no_line_is_too_wide_and_no_word_is_lost(width: int, size: int) -> None:
    wrapping = Wrapping(width)
    shown = "".join(wrapping.feed(TEXT[at : at + size]) for at in range(0, len(TEXT), size)) + wrapping.end()
    assert shown.split() == TEXT.split()
    assert max(map(cell_len, shown.split("\n"))) <= width
    assert shown.count("\n\n  - one\n") == 1


def test_text_that_fits_stays_as_it_is() -> None:
    wrapping = Wrapping(200)
    assert wrapping.feed(TEXT) + wrapping.end() == TEXT


def test_a_word_that_is_wider_than_a_line_stays_whole() -> None:
    wrapping = Wrapping(5)
    assert wrapping.feed("ab abcdefghij c") + wrapping.end() == "ab \nabcdefghij\nc"


def test_a_word_is_shown_when_it_is_complete() -> None:
    wrapping = Wrapping(10)
    assert [wrapping.feed("hel"), wrapping.feed("lo wor"), wrapping.feed("ld"), wrapping.end()] == ["", "hello ", "", "\nworld"]


def test_what_is_typed_takes_no_room_from_the_next_text() -> None:
    out = io.StringIO()
    screen = Screen(Console(file=out, force_terminal=True, width=20, color_system=None, soft_wrap=True))
    for _ in range(2):
        screen.piece("answer> ")
        screen.typed()
    screen.piece("twenty columns wide.")
    screen.end_piece()
    assert out.getvalue() == "answer> answer> twenty columns wide.\n"
