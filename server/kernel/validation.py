"""Limits of what a caller may send. All checks happen before anything is created."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from server.kernel.errors import InvalidField, RequestNotFound, RequestTooLarge

MAX_PROMPT = 100_000
MAX_ANSWER = 20_000
MAX_NOTE = 10_000
MAX_AGENT_REQUEST_ID = 64
MAX_REQUEST_ID = 128
MAX_TITLE = 200
MAX_NAME = 100
MAX_BASE_BRANCH = 255
MAX_LABELS = 32
MAX_LABEL_KEY = 63
MAX_LABEL_VALUE = 255

_REQUEST_ID = re.compile(r"[\x21-\x7e]*")
_NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9._:/-]*")
_LABEL_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")


def check_prompt(prompt: str, *, field: str = "prompt") -> None:
    """1 to 100,000 characters, not only blanks. Errors: InvalidField, RequestTooLarge."""
    if not prompt.strip():
        raise InvalidField(field, "say what shall be done")
    _check_text(field, prompt, limit=MAX_PROMPT)


def check_answer_texts(texts: Sequence[str], *, note: str) -> None:
    """At most 20,000 characters together, and 10,000 in the note. Errors: InvalidField, RequestTooLarge."""
    _check_text("answers", "".join(texts), limit=MAX_ANSWER)
    _check_text("note", note, limit=MAX_NOTE)


def check_agent_request_id(request_id: str) -> None:
    """Whether an agent's request can have this id: else nobody needs to look for it. Errors: RequestNotFound."""
    if not 0 < len(request_id) <= MAX_AGENT_REQUEST_ID or not request_id.isprintable():
        raise RequestNotFound(ascii(request_id[:MAX_AGENT_REQUEST_ID]))


def check_page_size(asked: int, *, default: int, limit: int) -> int:
    """How many to list: 0 means `default`. Errors: InvalidField."""
    if asked < 0 or asked > limit:
        raise InvalidField("page_size", f"0 (for {default}) to {limit}")
    return asked or default


def check_request_id(request_id: str) -> None:
    """At most 128 printable ASCII characters without blanks; empty for none. Errors: InvalidField, RequestTooLarge."""
    _check_text("request_id", request_id, limit=MAX_REQUEST_ID)
    if not _REQUEST_ID.fullmatch(request_id):
        raise InvalidField("request_id", "only printable ASCII characters without blanks")


def check_title(title: str) -> None:
    """At most 200 characters on one line. Errors: InvalidField, RequestTooLarge."""
    _check_text("title", title, limit=MAX_TITLE)
    if any(ord(character) < 32 for character in title):
        raise InvalidField("title", "only one line, without control characters")


def check_model(model: str) -> None:
    """At most 100 characters: letters, digits and `._:/-`; empty for the provider's choice. Errors: InvalidField, RequestTooLarge."""
    _check_text("model", model, limit=MAX_NAME)
    if model and not _NAME.fullmatch(model):
        raise InvalidField("model", "only letters, digits and ._:/- are allowed")


def check_provider(provider: str) -> None:
    """At most 100 characters; whether it is installed is another question. Errors: InvalidField, RequestTooLarge."""
    _check_text("provider", provider, limit=MAX_NAME)


def check_base_branch(branch: str) -> None:
    """At most 255 characters; which names exist only the remote knows. Empty for its default. Errors: InvalidField, RequestTooLarge."""
    _check_text("base_branch", branch, limit=MAX_BASE_BRANCH)


def check_labels(labels: Mapping[str, str]) -> None:
    """At most 32. Errors: InvalidField, RequestTooLarge."""
    if len(labels) > MAX_LABELS:
        raise InvalidField("labels", f"{len(labels)} labels, at most {MAX_LABELS} are allowed")
    for key, value in labels.items():
        _check_text("labels", key, limit=MAX_LABEL_KEY)
        _check_text("labels", value, limit=MAX_LABEL_VALUE)
        if not _LABEL_KEY.fullmatch(key):
            raise InvalidField("labels", f"key {key!r} may hold only letters, digits and ._/-")


def _check_text(field: str, text: str, *, limit: int) -> None:
    if len(text) > limit:
        raise RequestTooLarge(field, size=len(text), limit=limit)
    if "\x00" in text:
        raise InvalidField(field, "must not hold NUL characters")
