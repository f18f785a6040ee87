"""Names by rule."""

from __future__ import annotations

import pytest

from server.git.refs import is_branch
from server.kernel.errors import InvalidField
from server.kernel.naming import branch_from, check_branch_name, commit_message_from, title_from

SESSION = "7a1c2f7e-0000-4000-8000-0000abcd1234"


@pytest.mark.parametrize(
    ("prompt", "title"),
    [
        ("Add a login page", "Add a login page"),
        ("\n\n  ## Fix   the\tparser \nand more", "Fix the parser"),
        ('"Quoted"', "Quoted"),
        ("", "New session"),
        ("\x00\x1b[31m\n...", "..."),
        ("Make it \x1b[31mred\x1b[0m\x1b]0;title\x07", "Make it red"),
        ("x" * 100, "x" * 77 + "..."),
        ("日本語のタイトル", "日本語のタイトル"),
    ],
)
def test_a_title_is_the_first_line_that_says_something(prompt: str, title: str) -> None:
    assert title_from(prompt) == title


@pytest.mark.parametrize(
    ("prompt", "branch"),
    [
        ("Add a login page!", "treadle/add-a-login-page-abcd1234"),
        ("日本語", "treadle/session-abcd1234"),
        ("--upload-pack=x ../.. @{u} a.lock", "treadle/upload-pack-x-u-a-lock-abcd1234"),
        ("w" * 90, "treadle/" + "w" * 40 + "-abcd1234"),
    ],
)
def test_a_branch_is_a_slug_and_the_session(prompt: str, branch: str) -> None:
    assert branch_from("treadle/", prompt, SESSION) == branch
    assert is_branch(branch)


def test_a_commit_message_has_a_short_subject() -> None:
    subject, empty, body = commit_message_from("Do " + "it " * 40, 3).splitlines()
    assert len(subject) < 72
    assert (empty, body) == ("", "Treadle turn 3")


@pytest.mark.parametrize("name", ["main", "treadle/x-1", "a.b_c/d", "A" * 200])
def test_good_branch_names_pass(name: str) -> None:
    check_branch_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "-x", ".x", "/x", "x/", "x.", "a..b", "a//b", "a.lock", "a.lock/b", "a@{b", "a b", "a:b", "a~1", "é", "a/.b", "A" * 201, "x\n"],
)
def test_bad_branch_names_are_a_typed_error(name: str) -> None:
    with pytest.raises(InvalidField) as refused:
        check_branch_name(name)
    assert refused.value.field == "branch"
