"""Which keys an object store takes."""

from __future__ import annotations

import re

MAX_KEY_BYTES = 512

_SEGMENT = r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}"
_KEY = re.compile(rf"{_SEGMENT}(/{_SEGMENT})*")
_PREFIX = re.compile(rf"({_SEGMENT}/)*({_SEGMENT})?")


def checked_key(key: str) -> str:
    """The key itself when it is well-formed: segments of letters, digits, `.`, `_` and `-`, none of which begins with a dot.

    Stricter than any store needs, so that a key is also a safe file name, and looks the same in a URL. Errors: ValueError.
    """
    if len(key) > MAX_KEY_BYTES or not _KEY.fullmatch(key):
        raise ValueError(f"malformed object key {key[:MAX_KEY_BYTES]!r}")
    return key


def checked_prefix(prefix: str) -> str:
    """The prefix itself when a well-formed key can begin with it; the empty one begins all. Errors: ValueError."""
    if len(prefix) > MAX_KEY_BYTES or not _PREFIX.fullmatch(prefix):
        raise ValueError(f"malformed object key prefix {prefix[:MAX_KEY_BYTES]!r}")
    return prefix
