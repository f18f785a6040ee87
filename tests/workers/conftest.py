from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.sandbox import require_sandbox
from support.workers import launcher_in

from server.workers.process import ProcessLauncher


@pytest.fixture
async def launcher(tmp_path: Path) -> AsyncIterator[ProcessLauncher]:
    require_sandbox()
    async with launcher_in(tmp_path) as opened:
        yield opened
