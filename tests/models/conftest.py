from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from support.fake_upstream import FakeUpstream, fake_upstream
from support.model_door import Agent, RecordingBill

from server.config import Settings
from server.kernel.ports.launcher import ModelDoor
from server.models.gateway import open_models

TOKEN = "t" * 64


@pytest.fixture
async def upstream() -> AsyncIterator[FakeUpstream]:
    async with fake_upstream() as fake:
        yield fake


@pytest.fixture
def settings(upstream: FakeUpstream, tmp_path: Path) -> dict[str, Any]:
    """What a test changes, it changes before it opens a door."""
    return {
        "data_dir": tmp_path,
        "anthropic_url": upstream.url,
        "openai_url": upstream.url,
        "anthropic_api_key": SecretStr("sk-ant-the-real-key"),
        "openai_api_key": SecretStr("sk-openai-the-real-key"),
        "model_retries": 2,
    }


class Doors:
    """Opens doors on one gateway."""

    def __init__(self, settings: dict[str, Any], folder: Path) -> None:
        self._settings = settings
        self._folder = folder

    def open(
        self, provider: str = "claude", *, bill: RecordingBill | None = None, token: str = TOKEN, name: str = "model.sock"
    ) -> AbstractAsyncContextManager[Agent]:
        return self._open(provider, bill or RecordingBill(), ModelDoor(self._folder / name, token, None))

    @asynccontextmanager
    async def _open(self, provider: str, bill: RecordingBill, door: ModelDoor) -> AsyncIterator[Agent]:
        async with (
            open_models(Settings(**self._settings)) as models,
            models.gateway.open(door, provider=provider, bill=bill),
            Agent.at(door, bill) as agent,
        ):
            yield agent


@pytest.fixture
def doors(settings: dict[str, Any]) -> Any:
    with tempfile.TemporaryDirectory(prefix="treadle-") as folder:
        yield Doors(settings, Path(folder))


@pytest.fixture
async def agent(doors: Doors) -> AsyncIterator[Agent]:
    """An agent that speaks Anthropic's format."""
    async with doors.open() as opened:
        yield opened


@pytest.fixture
async def openai_agent(doors: Doors) -> AsyncIterator[Agent]:
    async with doors.open("codex") as opened:
        yield opened
