"""docs/seal.md says what the tests of the seal find."""

from __future__ import annotations

from support import seal


def test_the_page_is_what_the_tests_would_write() -> None:
    assert seal.PAGE.read_text() == seal.page(), "write it anew: cd tests && ../.venv/bin/python -m support.seal"


def test_every_test_that_it_names_is_there() -> None:
    assert seal.missing() == []
