from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.launchers import ALL_KINDS, opened

from server.workers.local import LocalLauncher


@pytest.fixture(params=ALL_KINDS)
async def launcher(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LocalLauncher]:
    """One launcher after the other."""
    async with opened(request.param, tmp_path) as launcher:
        yield launcher
