"""The services of this installation in a Swarm: one for each slot, made once, with one task that is never started again.

A service is `replicated` and not a job: removing a job leaves its container running, removing a replicated service ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any
from weakref import WeakValueDictionary

import docker
import structlog
from docker.errors import APIError, NotFound

from server.refusal import StartRefused
from server.spawner.containers import Refused, Spawned, Unnameable, check_labels, is_slot
from server.spawner.engine import Engine, EngineAway, EngineError, EngineRefused, NameTaken
from server.spawner.swarm_template import SwarmTemplate

_LOOK_SECONDS = 0.2
_END_SECONDS = 30.0
_ROOM_SECONDS = 3.0
"""So long a start waits for a machine that has room before it says that there is none."""
_PASSING = ("insufficient resources", "not available for new tasks")
"""In the scheduler's words: why a machine takes no worker now, and may later. All else stays as it is (its platform, a missing plugin)."""
_PREPARED_SECONDS, _MOST_PREPARED_SECONDS = 8.0, 1800.0
"""So long a start waits for a machine that prepares the container before it says that it does, and so long it may do that: it may have an
image to fetch."""
_PAUSES = 5
"""The Swarm is looked at for no more than one part of so many of the time."""
_SWEEP_SECONDS = 30.0
_KEPT_SECONDS = 3600.0
"""A service whose task has ended is kept for its server to see; afterwards nobody will come."""
_UNBORN_SECONDS = 120.0
"""A secret without a service is one whose service could not be made."""
_MAX_CARRIER_BYTES = 64 * 1024
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)")
_OVER = frozenset({"complete", "shutdown", "failed", "rejected", "remove", "orphaned"})

log = structlog.get_logger()


class SwarmUnfit(StartRefused):
    """No services can be made here; the message says what to do."""


class Birth(Enum):
    """What became of a start."""

    NOW = "now"
    RUNNING = "running"
    ENDED = "ended"
    NO_ROOM = "no room"
    """Yet, or it is being prepared: it starts by itself."""


@dataclass(frozen=True)
class End:
    """How a task ended."""

    code: int | None = None
    message: str = ""


@dataclass(frozen=True)
class Task:
    """What the Swarm tells of one."""

    id: str
    service: str
    state: str
    """`pending`, `running`, `complete` …"""
    message: str
    code: int | None
    address: str
    changed_at: float
    ran: bool
    """Whether its program was ever started."""

    @property
    def over(self) -> bool:
        """Whether its container is gone, or never was."""
        return self.state in _OVER

    @property
    def unplaced(self) -> bool:
        """Whether no machine has been found for it, and why is known."""
        return self.state == "pending" and bool(self.message)

    @property
    def end(self) -> End:
        """How it ended."""
        return End(self.code, self.message)


@dataclass(frozen=True)
class Service:
    """What the Swarm tells of one."""

    id: str
    name: str
    labels: Mapping[str, str]
    created_at: float


class Swarm:
    """The engine's Swarm. Every call is bounded. Errors of all: EngineError."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def network(self, name: str) -> Mapping[str, Any] | None:
        """As the Swarm tells of it."""

        def look(api: docker.APIClient) -> Mapping[str, Any] | None:
            found: Sequence[Mapping[str, Any]] = api.networks(names=[name], filters={"scope": "swarm"})
            return next((each for each in found if each["Name"] == name), None)

        return await self._engine.call(look)

    async def is_manager(self) -> bool:
        """Whether services can be made here."""
        info = await self._engine.call(lambda api: api.info())
        return bool(info["Swarm"].get("ControlAvailable"))

    async def make_secret(self, name: str, data: bytes, labels: Mapping[str, str]) -> str:
        """Its id; of the one that is there under that name, if there is one."""

        def make(api: docker.APIClient) -> str:
            try:
                return str(api.create_secret(name, data, labels)["ID"])
            except APIError as error:
                if error.status_code != 409:
                    raise
            for each in api.secrets(filters={"name": name}):
                if each["Spec"]["Name"] == name:
                    return str(each["ID"])
            # Not StopIteration, which no future can hold: whoever waits for it would wait for ever.
            raise EngineAway(f"the secret {name} was just removed; try again")

        return await self._engine.call(make)

    async def make_service(self, name: str, task: Mapping[str, Any], labels: Mapping[str, str]) -> None:
        """With one task. Errors: NameTaken."""
        spec = {
            "name": name,
            "labels": dict(labels),
            "mode": docker.types.ServiceMode("replicated", 1),
            "endpoint_spec": docker.types.EndpointSpec(mode="dnsrr"),
        }

        def make(api: docker.APIClient) -> None:
            try:
                api.create_service(task, **spec)
            except APIError as error:
                if error.status_code == 409 or "name conflicts" in str(error.explanation):
                    raise NameTaken(str(error.explanation)) from error
                raise

        await self._engine.call(make)

    async def services(self, label: str) -> list[Service]:
        """All that have the label, `name=value`."""
        found = await self._engine.call(lambda api: api.services(filters={"label": label}))
        return [Service(each["ID"], each["Spec"]["Name"], each["Spec"].get("Labels") or {}, _seconds(each["CreatedAt"])) for each in found]

    async def service(self, name: str) -> Service | None:
        """By its name."""
        found = await self._engine.call(lambda api: api.services(filters={"name": name}))
        for each in found:
            if each["Spec"]["Name"] == name:
                return Service(each["ID"], name, each["Spec"].get("Labels") or {}, _seconds(each["CreatedAt"]))
        return None

    async def tasks(self, label: str) -> list[Task]:
        """Of all services whose tasks have the label."""
        found = await self._engine.call(lambda api: api.tasks(filters={"label": label}))
        return [_task(each) for each in found]

    async def largest_machine(self) -> int:
        """The memory in bytes of the largest that takes tasks; 0 where none does."""

        def look(api: docker.APIClient) -> int:
            ready = [each for each in api.nodes() if each["Status"]["State"] == "ready" and each["Spec"]["Availability"] == "active"]
            return max((int(each["Description"]["Resources"]["MemoryBytes"]) for each in ready), default=0)

        return await self._engine.call(look)

    async def task(self, id_: str) -> Task | None:
        """By its id."""

        def look(api: docker.APIClient) -> Task | None:
            try:
                return _task(api.inspect_task(id_))
            except NotFound:
                return None

        return await self._engine.call(look)

    async def remove_service(self, name: str) -> None:
        """If it is there."""

        def remove(api: docker.APIClient) -> None:
            with contextlib.suppress(NotFound):
                api.remove_service(name)

        await self._engine.call(remove)

    async def secrets(self, label: str) -> list[tuple[str, float]]:
        """Names, and when they were made."""
        found = await self._engine.call(lambda api: api.secrets(filters={"label": label}))
        return [(str(each["Spec"]["Name"]), _seconds(each["CreatedAt"])) for each in found]

    async def remove_secret(self, name: str) -> None:
        """If it is there, and nobody uses it."""

        def remove(api: docker.APIClient) -> None:
            for each in api.secrets(filters={"name": name}):
                if each["Spec"]["Name"] == name:
                    with contextlib.suppress(NotFound):
                        api.remove_secret(each["ID"])

        await self._engine.call(remove)


class Services:
    """See above. All that is known is the Swarm's to say, so there may be several spawners, and each may be started again."""

    def __init__(self, swarm: Swarm, template: SwarmTemplate, *, providers: Sequence[str]) -> None:
        self._swarm = swarm
        self._template = template
        self._providers = frozenset(providers)
        self._installation = template.network[:12]
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._looking = asyncio.Lock()
        self._look: asyncio.Task[Mapping[str, Task | None]] | None = None
        self._next_look = 0.0

    async def start(self, slot: str, provider: str, labels: Mapping[str, str], carrier: bytes) -> tuple[Birth, str]:
        """Make the service of a slot, unless that was done before; its address, once it runs, or why it does not yet.
        Errors: Unnameable, Refused, EngineAway."""
        check_labels(labels)
        name = self._name(slot)
        if not 0 < len(carrier) <= _MAX_CARRIER_BYTES:
            raise Unnameable("what the carrier is told is missing or too long; is the server's TREADLE_LAUNCHER swarm?")
        fresh, began = False, time.monotonic()
        async with self._lock(name):
            if await self._swarm.service(name) is None:
                fresh = await self._make(slot, name, provider, labels, carrier)
        while True:
            seen = await self._seen()
            task = seen.get(name)
            if name not in seen:
                return Birth.ENDED, ""
            if task is not None and task.over:
                # It may have waited for room meanwhile, so that this call did not make it.
                if fresh or not task.ran:
                    raise Refused(f"the Swarm does not start the worker: {task.message or task.state}")
                return Birth.ENDED, ""
            if task is not None and task.state == "running" and task.address:
                return (Birth.NOW if fresh else Birth.RUNNING), task.address
            if task is not None and (why := _waits(task, time.monotonic() - began)):
                return Birth.NO_ROOM, why

    async def _make(self, slot: str, name: str, provider: str, labels: Mapping[str, str], carrier: bytes) -> bool:
        if provider not in self._providers:
            raise Refused(
                f"there is no image for the agent {provider!r}: {self._template.image(provider)}; `make images` builds it, and "
                "TREADLE_WORKER_IMAGE names another"
            )
        mine = {"treadle.installation": self._installation, "treadle.slot": slot, "treadle.provider": provider}
        marked = {f"treadle.{key}": value for key, value in labels.items()} | mine
        try:
            secret = await self._swarm.make_secret(name, carrier, mine)
            await self._swarm.make_service(name, self._template.task(provider, marked, (secret, name)), marked)
        except NameTaken:
            return False
        except EngineRefused as error:
            raise Refused(f"the Swarm makes no service: {error}") from error
        log.info("service.made", slot=slot, provider=provider)
        return True

    async def wait(self, slot: str) -> End:
        """Until the slot's container has ended, or there is none. Errors: Unnameable."""
        self._name(slot)
        while True:
            with contextlib.suppress(EngineAway):
                seen = await self._seen()
                task = seen.get(self._name(slot))
                if self._name(slot) not in seen:
                    return End()
                if task is not None and task.over:
                    return task.end
            await asyncio.sleep(_LOOK_SECONDS * 5)

    async def kill(self, slot: str) -> End:
        """Remove the slot's service, and wait until its container is gone. Repeatable. Errors: Unnameable, EngineError."""
        name = self._name(slot)
        # Of a start that was given up nobody knows whether it has made it yet.
        async with self._lock(name):
            task = await self._task(slot)
            await self._swarm.remove_service(name)
        end = task.end if task is not None and task.over else End()
        deadline = time.monotonic() + _END_SECONDS
        while task is not None and not task.over:
            if time.monotonic() > deadline:
                # Its machine does not answer. It does nothing for anybody any more: only its server's carrier speaks to it.
                log.warning("service.not_seen_to_end", slot=slot, state=task.state)
                break
            await asyncio.sleep(_LOOK_SECONDS)
            task = await self._swarm.task(task.id)
        await self._swarm.remove_secret(name)
        log.info("service.removed", slot=slot, code=end.code)
        return end

    async def list(self) -> list[Spawned]:
        """All of this installation. Errors: EngineAway."""
        tasks = _newest(await self._swarm.tasks(self._mine))
        return [
            Spawned(
                each.labels.get("treadle.slot", ""),
                each.labels.get("treadle.provider", ""),
                each.labels,
                running=(task := tasks.get(each.id)) is None or not task.over,
            )
            for each in await self._swarm.services(self._mine)
        ]

    async def look_after(self) -> None:
        """Remove what is too old, and what nobody came for. Runs for the spawner's life."""
        while True:
            try:
                await self._sweep()
            except EngineError as error:
                log.warning("services.sweep_failed", error=str(error))
            await asyncio.sleep(_SWEEP_SECONDS)

    async def _sweep(self) -> None:
        now = time.time()
        tasks = _newest(await self._swarm.tasks(self._mine))
        names = set()
        for each in await self._swarm.services(self._mine):
            names.add(each.name)
            task = tasks.get(each.id)
            over = task is not None and task.over and now - task.changed_at > _KEPT_SECONDS
            if over or now - each.created_at > self._template.settings.worker_seconds:
                log.warning("service.removed", service=each.name, reason="nobody came for it" if over else "it is too old")
                await self._swarm.remove_service(each.name)
        for name, made_at in await self._swarm.secrets(self._mine):
            if name not in names and now - made_at > _UNBORN_SECONDS:
                await self._swarm.remove_secret(name)

    async def _task(self, slot: str) -> Task | None:
        """Its newest. Errors: EngineError."""
        found = await self._swarm.tasks(f"treadle.slot={slot}")
        service = await self._swarm.service(self._name(slot))
        return _newest(found).get(service.id) if service is not None else None

    async def _seen(self) -> Mapping[str, Task | None]:
        """All services by their names, and the newest task of each, as they are after this was called; asked once for all who wait.
        Errors: EngineError."""
        if self._look is None:
            self._look = asyncio.create_task(self._looked())
        return await asyncio.shield(self._look)

    async def _looked(self) -> Mapping[str, Task | None]:
        async with self._looking:
            await asyncio.sleep(self._next_look - time.monotonic())
            # Whoever comes from here on wants to know what is later.
            self._look = None
            began = time.monotonic()
            try:
                tasks = _newest(await self._swarm.tasks(self._mine))
                return {each.name: tasks.get(each.id) for each in await self._swarm.services(self._mine)}
            finally:
                ended = time.monotonic()
                self._next_look = ended + max(_LOOK_SECONDS, _PAUSES * (ended - began))

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    def _name(self, slot: str) -> str:
        if not is_slot(slot):
            raise Unnameable(f"{slot!r} is no slot's name")
        return f"treadle-{self._installation}-{slot}"

    @property
    def _mine(self) -> str:
        return f"treadle.installation={self._installation}"


def _newest(tasks: Sequence[Task]) -> dict[str, Task]:
    """Of each service, by its id; one that is not over, if there is one."""
    return {task.service: task for task in sorted(tasks, key=lambda task: (not task.over, task.changed_at))}


def _waits(task: Task, waited: float) -> str:
    """Why it does not run yet, where it has been waited for that. Errors: Refused where it will hardly ever run."""
    if task.unplaced and waited > _ROOM_SECONDS:
        if not any(words in task.message for words in _PASSING):
            raise Refused(f"no machine of the Swarm can take the worker: {task.message}")
        return f"no machine of the Swarm takes the worker: {task.message}"
    if task.state == "preparing" and waited > _PREPARED_SECONDS:
        if time.time() - task.changed_at > _MOST_PREPARED_SECONDS:
            raise Refused(f"its machine has not prepared the worker in {_MOST_PREPARED_SECONDS / 60:g} minutes; can it fetch the image?")
        return "its machine prepares the worker; it may have to fetch the image"
    return ""


def _task(told: Mapping[str, Any]) -> Task:
    status = told["Status"]
    container = status.get("ContainerStatus") or {}
    addresses = [address for each in told.get("NetworksAttachments") or () for address in each.get("Addresses") or ()]
    over = status["State"] in _OVER
    return Task(
        id=told["ID"],
        service=told["ServiceID"],
        state=status["State"],
        message=str(status.get("Err", "")),
        code=container.get("ExitCode") if over and container else None,
        address=addresses[0].partition("/")[0] if addresses else "",
        changed_at=_seconds(status["Timestamp"]),
        # One that cannot be started has failed, and what was done last is "starting".
        ran=status["State"] != "rejected" and status.get("Message") not in {"starting", "preparing"},
    )


def _seconds(told: str) -> float:
    found = _TIME.match(told)
    return datetime.fromisoformat(found[1]).replace(tzinfo=UTC).timestamp() if found else 0.0
