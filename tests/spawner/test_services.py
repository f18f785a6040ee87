"""Services of a Swarm, where calls come at the same time; the engine is played by what it answers."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import requests
from docker.errors import APIError, NotFound

from server.spawner import swarm
from server.spawner.containers import Refused
from server.spawner.engine import Engine, EngineAway
from server.spawner.settings import SpawnerSettings
from server.spawner.swarm import Birth, Services, Swarm
from server.spawner.swarm_template import SwarmTemplate

TIME = "2026-01-01T00:00:00Z"


class Api:
    """What is used of the SDK."""

    def __init__(self) -> None:
        self.made: dict[str, str] = {}
        self.entered, self.go = threading.Event(), threading.Event()
        self.secret_is_there = False
        self.status: dict[str, Any] = {}
        """Of all tasks; none, and there are no tasks."""
        self.listed = 0

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
        asked = filters.get("name")
        return [{"ID": id_, "Spec": {"Name": name}, "CreatedAt": TIME} for name, id_ in self.made.items() if asked in {None, name}]

    def tasks(self, filters: Any) -> list[Any]:
        self.listed += 1
        status = {"Timestamp": datetime.now(UTC).isoformat()} | self.status
        return [{"ID": f"task-{id_}", "ServiceID": id_, "Status": status} for id_ in self.made.values()] if self.status else []

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


def pending(why: str) -> dict[str, Any]:
    return {"State": "pending", "Message": "pending task scheduling", "Err": f"no suitable node ({why} on 2 nodes)"}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, api: Api) -> None:
    monkeypatch.setattr(swarm, "_ROOM_SECONDS", 0.0)
    monkeypatch.setattr(swarm, "_PREPARED_SECONDS", 0.0)
    api.go.set()


@pytest.mark.usefixtures("impatient")
class TestWaiting:
    async def test_a_worker_waits_for_room_and_then_for_its_image(self, services: Services, api: Api) -> None:
        api.status = pending("unsupported platform on 1 node; insufficient resources")
        birth, why = await services.start("slot", "replay", {}, b"{}")
        assert birth is Birth.NO_ROOM and "insufficient resources" in why
        api.status = {"State": "preparing", "Message": "preparing"}
        birth, why = await services.start("slot", "replay", {}, b"{}")
        assert birth is Birth.NO_ROOM and "image" in why
        api.status["Timestamp"] = TIME
        with pytest.raises(Refused, match="30 minutes"):
            await services.start("slot", "replay", {}, b"{}")

    async def test_what_no_machine_can_ever_take_is_refused(self, services: Services, api: Api) -> None:
        api.status = pending("unsupported platform")
        with pytest.raises(Refused, match="unsupported platform"):
            await services.start("slot", "replay", {}, b"{}")

    @pytest.mark.parametrize(("state", "done"), [("rejected", "preparing"), ("failed", "starting")])
    async def test_one_that_waited_and_is_then_refused_says_why(self, services: Services, api: Api, state: str, done: str) -> None:
        api.status = pending("insufficient resources")
        assert (await services.start("slot", "replay", {}, b"{}"))[0] is Birth.NO_ROOM
        api.status = {"State": state, "Message": done, "Err": "No such image: x"}
        with pytest.raises(Refused, match="No such image"):
            await services.start("slot", "replay", {}, b"{}")
        api.status = {"State": "failed", "Message": "started", "Err": "task: non-zero exit (1)"}
        assert (await services.start("slot", "replay", {}, b"{}"))[0] is Birth.ENDED

    async def test_all_who_wait_share_what_is_seen(self, services: Services, api: Api) -> None:
        api.status = {"State": "starting", "Message": "starting"}
        waiting = [asyncio.create_task(services.start(f"slot-{number}", "replay", {}, b"{}")) for number in range(50)]
        await asyncio.wait(waiting, timeout=1)
        assert len(api.made) == 50
        # Five a second at most.
        assert api.listed <= 10
        for each in waiting:
            each.cancel()
