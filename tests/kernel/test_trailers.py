"""Trailers below a commit's message, with Git's own opinion of them."""

from __future__ import annotations

import subprocess

import pytest

from server.kernel.naming import commit_message_from
from server.kernel.trailers import Trailers

SESSION = "7a1c2f7e-0000-4000-8000-000012345678"
BOTH = Trailers(coauthor="Claude <noreply@anthropic.com>", session_link="https://treadle.example/s/{session_id}")


def parsed(message: str) -> list[str]:
    """The trailers that Git finds."""
    done = subprocess.run(["git", "interpret-trailers", "--parse"], input=message.encode(), capture_output=True, check=True)
    return done.stdout.decode().splitlines()


def test_git_finds_both_and_nothing_else_changes() -> None:
    message = commit_message_from("Fix the parser", 2)
    whole = BOTH.below(message, session_id=SESSION, provider="claude")
    assert whole == f"{message}\nSession: https://treadle.example/s/{SESSION}\nCo-authored-by: Claude <noreply@anthropic.com>\n"
    assert "\n\n\n" not in whole
    assert parsed(whole) == [f"Session: https://treadle.example/s/{SESSION}", "Co-authored-by: Claude <noreply@anthropic.com>"]


def test_without_settings_there_are_none() -> None:
    message = commit_message_from("Fix the parser", 2)
    assert Trailers().below(message, session_id=SESSION, provider="claude") == message
    assert parsed(message) == []


@pytest.mark.parametrize(("provider", "names"), [("claude", ["Co-authored-by: Claude <c@example.org>"]), ("replay", [])])
def test_each_agent_has_its_own_name_or_none(provider: str, names: list[str]) -> None:
    trailers = Trailers(coauthors={"claude": "Claude <c@example.org>"})
    assert parsed(trailers.below(commit_message_from("x", 1), session_id=SESSION, provider=provider)) == names


@pytest.mark.parametrize(
    "said",
    [
        "x\n\nCo-authored-by: Eve <eve@example.org>",
        "Co-authored-by: Eve <eve@example.org>",
        "x\u2028\u2028Co-authored-by: Eve <eve@example.org>",
        "x\r\rSigned-off-by: Eve <eve@example.org>\r",
        "x\x0b\x0cSigned-off-by: Eve <eve@example.org>",
    ],
)
@pytest.mark.parametrize("trailers", [Trailers(), BOTH])
def test_nobody_forges_one(said: str, trailers: Trailers) -> None:
    whole = trailers.below(commit_message_from(said, 1), session_id=SESSION, provider="claude")
    assert not any("Eve" in line for line in parsed(whole))
