"""Services of a Swarm, where calls come at the same time; the engine is played by what it answers."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import requests
from docker.errors import APIError, NotFound

from server.spawner.engine import Engine, EngineAway
from server.spawner.settings import SpawnerSettings
from server.spawner.swarm import Services, Swarm
from server.spawner.swarm_template import SwarmTemplate

TIME = "2026-01-01T00:00:00Z"


class Api:
    """What is used of the SDK."""

    def __init__(self) -> None:
        self.made: dict[str, str] = {}
        self.entered, self.go = threading.Event(), threading.Event()
        self.secret_is_there = False

    def create_secret(self, name: str, data: bytes, labels: Any) -> dict[str, str]:
        if self.secret_is_there:
            response = requests.Response()
            response.status_code = 409
            raise APIError("there is one", response)
        return {"ID": name}

    def secrets(self, filters: Any) -> list[Any]:
        return []

    def create_service(self, task: Any, name: str, **_: Any) -> None:
        self.entered.set()
        assert self.go.wait(30)
        self.made[name] = str(uuid4())

    def services(self, filters: Any) -> list[Any]:
        return [{"ID": id_, "Spec": {"Name": name}, "CreatedAt": TIME} for name, id_ in self.made.items() if name == filters["name"]]

    def tasks(self, filters: Any) -> list[Any]:
        return []

    def inspect_task(self, id_: str) -> Any:
        raise NotFound(id_)

    def remove_service(self, name: str) -> None:
        if self.made.pop(name, None) is None:
            raise NotFound(name)

    def close(self) -> None:
        """Nothing to close."""


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def services(api: Api, tmp_path: Path) -> Any:
    engine: Any = Engine("unix:///never-asked")
    engine._api = api
    yield Services(Swarm(engine), SwarmTemplate(SpawnerSettings(data_dir=tmp_path), "network"), providers=["replay"])
    engine.close()


async def test_a_start_that_was_given_up_does_not_happen_after_the_kill(services: Services, api: Api) -> None:
    starting = asyncio.create_task(services.start("slot", "replay", {}, b"{}"))
    assert await asyncio.to_thread(api.entered.wait, 30)
    starting.cancel()
    killing = asyncio.create_task(services.kill("slot"))
    await asyncio.wait({killing}, timeout=0.5)
    assert not killing.done(), "it may still be made"
    api.go.set()
    await asyncio.wait_for(killing, 30)
    assert starting.cancelled()
    assert not api.made


async def test_a_secret_that_goes_just_now_keeps_nobody_waiting(services: Services, api: Api) -> None:
    api.secret_is_there = True
    with pytest.raises(EngineAway, match="again"):
        await asyncio.wait_for(services.start("slot", "replay", {}, b"{}"), 10)
