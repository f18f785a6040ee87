"""A fake model behind a unix socket, as an agent in a worker finds it; and requests for agents that use it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from support.fake_anthropic import FakeAnthropic, fake_anthropic
from support.postgres import open_directory
from support.provider_contract import request_for

from worker.provider import ModelAccess, Request

TOKEN = "token-of-the-turn-0123456789abcdef"


@dataclass(frozen=True)
class Models:
    """The fake, the way to it, and a workspace."""

    fake: FakeAnthropic
    access: ModelAccess
    workspace: Path

    def request(self, prompt: str, **fields: Any) -> Request:
        people = fields.pop("people", None)
        return replace(request_for(self.workspace, prompt=prompt, people=people), models=self.access, **fields)


@asynccontextmanager
async def models_in(workspace: Path) -> AsyncIterator[Models]:
    workspace.mkdir(exist_ok=True)
    with open_directory() as directory:
        socket = directory / "model.sock"
        async with fake_anthropic(socket) as fake:
            yield Models(fake, ModelAccess(socket, TOKEN), workspace)
