"""Whose session it was, and what else an operator knows of it: archives do not say, the old database does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

_EVERYBODY = "*"


@dataclass(frozen=True)
class Hint:
    """What is known besides an archive, and counts before what the archive says; empty for nothing."""

    owner: str = ""
    repository: str = ""
    base_branch: str = ""
    branch: str = ""
    title: str = ""


class Owners:
    """By session key. `*` stands for all that are not named."""

    def __init__(self, hints: Mapping[str, Hint]) -> None:
        self._hints = hints

    def of(self, key: str) -> Hint:
        """What is known of a session."""
        return self._hints.get(key) or self._hints.get(_EVERYBODY) or Hint()

    @classmethod
    def parse(cls, argument: str) -> Owners:
        """A user's id, or the name of a file: a JSON object, from session keys to a user's id or to an object with the fields of Hint.
        Errors: ValueError."""
        path = Path(argument)
        if not path.exists() or path.is_dir():
            if argument.endswith(".json"):
                raise ValueError(f"there is no file {argument}")
            return cls({_EVERYBODY: Hint(argument)})
        try:
            said = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise ValueError(f"{argument} cannot be read as JSON: {error}") from error
        if not isinstance(said, dict):
            raise ValueError(f"{argument} is no JSON object from session keys to users")  # noqa: TRY004 - of a file's content
        return cls({key: _hint(key, value) for key, value in said.items()})


def _hint(key: str, said: Any) -> Hint:
    if isinstance(said, str):
        return Hint(said)
    known = {field.name for field in fields(Hint)}
    # An export of the old database has null where nothing is known.
    given = {name: value for name, value in said.items() if value is not None} if isinstance(said, dict) else None
    if given is None or not given.keys() <= known or not all(isinstance(value, str) for value in given.values()):
        raise ValueError(f"{key}: a user's id, or an object with some of {', '.join(sorted(known))}")
    return Hint(**given)
