"""A reader behind this machine's sandbox."""

from __future__ import annotations

import pytest
from support.sandbox import require_sandbox

from server.legacy.isolation import Reader


@pytest.fixture
def reader() -> Reader:
    return Reader(require_sandbox(), seconds=60)
