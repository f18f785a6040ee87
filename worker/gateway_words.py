"""What the server's gateway says in the place of a model, as an agent's client repeats it."""

from __future__ import annotations

import re

_BEFORE = re.compile(r"(?:API Error: \d{3} )?Treadle: ")


def own_words(said: str) -> str:
    """The reason alone. The status is the gateway's, chosen so that clients do not ask again; it says nothing to people."""
    return _BEFORE.sub("", said, count=1) if _BEFORE.match(said) else said
