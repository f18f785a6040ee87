from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.models import Models, models_in


@pytest.fixture
async def models(tmp_path: Path) -> AsyncIterator[Models]:
    """A fake model and a workspace."""
    async with models_in(tmp_path / "workspace") as opened:
        yield opened
