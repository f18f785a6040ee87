"""What a test needs of the machine: it skips visibly where that is missing, and fails where everything is required."""

from __future__ import annotations

import os

import pytest


def all_required() -> bool:
    """Whether the environment variable TREADLE_REQUIRE is `all`, as on CI: then nothing may be skipped."""
    return os.environ.get("TREADLE_REQUIRE") == "all"


def require(condition: object, what: str, remedy: str) -> None:
    """Go on when `condition` holds; else skip (or fail, when all is required), naming what is missing and what to do about it."""
    if condition:
        return
    message = f"{what} is missing: {remedy}"
    if all_required():
        pytest.fail(message, pytrace=False)
    pytest.skip(message)
