"""The sandbox of this machine, for tests that need one."""

from __future__ import annotations

import os
from functools import cache

import pytest

from server.sandbox.bubblewrap import Sandbox
from server.sandbox.probe import Unavailable, probe


@cache
def probed() -> Sandbox | Unavailable:
    return probe()


def require_sandbox() -> Sandbox:
    """The sandbox; skips the test where none works, or fails it with TREADLE_REQUIRE=all."""
    found = probed()
    if isinstance(found, Sandbox):
        return found
    reason = f"no sandbox here: {found.reason}; {found.remedy}"
    if os.environ.get("TREADLE_REQUIRE") == "all":
        pytest.fail(reason)
    pytest.skip(reason)
