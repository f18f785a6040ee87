"""Names by rule: titles, branches and commit messages from the user's own words. Pure; a model may do better later."""

from __future__ import annotations

import re

from server.kernel.errors import InvalidField
from server.kernel.escapes import ESCAPE_SEQUENCE

TITLE_CHARS = 80
SUBJECT_CHARS = 71
BRANCH_CHARS = 200
_SLUG_CHARS = 40
_BRANCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}\Z")
_FORBIDDEN = ("..", "//", "@{", "/.", "./", "/-")


def title_from(prompt: str) -> str:
    """A session's title: the first line that says something, at most 80 characters."""
    for line in ESCAPE_SEQUENCE.sub("", prompt).splitlines():
        visible = "".join(character for character in " ".join(line.split()) if character.isprintable())
        title = visible.strip("\"'`#*- ")
        if title:
            return _cut(title, TITLE_CHARS)
    return "New session"


def branch_from(prefix: str, prompt: str, session_id: str) -> str:
    """A session's branch: `<prefix><slug>-<last 8 of the session id>`; the same input gives the same name.

    Errors: InvalidField("branch") when `prefix` cannot begin a branch name.
    """
    words = re.sub(r"[^a-z0-9]+", "-", title_from(prompt).lower()).strip("-")
    slug = words[:_SLUG_CHARS].strip("-") or "session"
    branch = f"{prefix}{slug}-{session_id[-8:]}"
    check_branch_name(branch)
    return branch


def commit_message_from(prompt: str, turn_number: int) -> str:
    """The message of a turn's commit: a subject under 72 characters; the prompt's own words, no more of it."""
    return f"{_cut(title_from(prompt), SUBJECT_CHARS)}\n\nTreadle turn {turn_number}\n"


def check_branch_name(name: str, *, field: str = "branch") -> None:
    """The rule for names of branches that Treadle makes. Errors: InvalidField(field)."""
    if not _BRANCH.match(name):
        raise InvalidField(field, "letters, digits and . _ / - only, beginning with a letter or digit, at most 200")
    if any(part in name for part in _FORBIDDEN) or name.endswith(("/", ".")) or any(part.endswith(".lock") for part in name.split("/")):
        raise InvalidField(field, "must not hold '..', '//', '@{' or '/.', nor end a part with '.lock', '/' or '.'")


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 3].rstrip() + "..."
