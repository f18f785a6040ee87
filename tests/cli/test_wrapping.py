"""Growing text in lines that fit."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from server.cli.screen import Screen
from server.cli.wrapping import Wrapping, folded

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


SESSION = "01a2b3c4-0000-7000-8000-000000000000"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("treadle: the turn was not ended, wait", ["treadle: the turn was", "  not ended, wait"]),
        ("no:\n  a hint that is longer than that", ["no:", "  a hint that is longer", "    than that"]),
        # What may be copied stays whole, however long.
        (f"go on: treadle resume {SESSION} --after 3", ["go on:", f"  treadle resume {SESSION} --after 3"]),
        (f"x\n  '/a b/bin/treadle' resume {SESSION} x", ["x", f"  '/a b/bin/treadle' resume {SESSION} x"]),
        ("start one with `treadle up --data-dir /x`, or so", ["start one with", "  `treadle up --data-dir /x`,", "  or so"]),
        ("see https://example.org/a-b/c?d=e&f=g#h now", ["see", "  https://example.org/a-b/c?d=e&f=g#h", "  now"]),
        ("run: setpriv --inh-caps=-all X (or else not)", ["run:", "  setpriv --inh-caps=-all X", "  (or else not)"]),
        ("日本語の文章 日本語の文章 x", ["日本語の文章", "  日本語の文章 x"]),
        ("", [""]),
    ],
)
def test_words_go_on_below_and_what_may_be_copied_is_not_cut(text: str, lines: list[str]) -> None:
    assert folded(text, 24, hang=2).split("\n") == lines


def on_a_terminal_of(width: int) -> tuple[Screen, io.StringIO]:
    out = io.StringIO()
    return Screen(Console(file=out, force_terminal=True, width=width, color_system=None, soft_wrap=True)), out


def test_a_label_has_its_text_beside_it() -> None:
    screen, out = on_a_terminal_of(30)
    screen.label("push", "refused, the commit is kept: denied")
    screen.label("log", "/a/path/that/is/wider/than/the/terminal/is")
    assert out.getvalue().splitlines() == [
        "  push      refused, the",
        "            commit is kept:",
        "            denied",
        "  log       /a/path/that/is/wider/than/the/terminal/is",
    ]


def test_parts_keep_their_styles_in_every_line() -> None:
    out = io.StringIO()
    screen = Screen(Console(file=out, force_terminal=True, width=12, color_system="standard", soft_wrap=True))
    screen.parts(("› ", ""), ("one two three", "red"), hang=2)
    assert out.getvalue() == "› \x1b[31mone two\x1b[0m\n  \x1b[31mthree\x1b[0m\n"


def test_elsewhere_nothing_is_broken() -> None:
    out = io.StringIO()
    screen = Screen(Console(file=out, width=20, soft_wrap=True))
    screen.label("push", "refused, the commit is kept: denied")
    screen.prose("words and words and words and words")
    screen.parts(("› ", ""), ("words and words and words and words", ""), hang=2)
    assert [len(line) for line in out.getvalue().splitlines()] == [47, 35, 37]
