"""The containers of this installation: one for each slot, made once, and recorded in the slot when it has ended."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import structlog

from server.kernel.ports.launcher import Occupied, WorkerExit
from server.refusal import StartRefused
from server.spawner.engine import Engine, EngineAway, EngineError, EngineRefused, NameTaken, State, to_its_end
from server.spawner.kernel import FirstProcess, first_process
from server.spawner.readiness import PROBE_LABEL, PROBE_NAME
from server.spawner.root import is_roots_alone, seal_key
from server.spawner.slots import NoUser, Slots, User
from server.spawner.template import Template
from server.workers.disk import occupied
from server.workers.slot import Slot, slots

_LABEL = re.compile(r"[A-Za-z0-9._-]{0,64}")
_SLOT = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_USER_LABEL = "treadle.uid"
_TAIL_CHARS = 64 * 1024
_PAUSE_SECONDS = 0.5
_SWEEP_SECONDS = 15.0
_RECORDED_AT_ONCE = 4
_PROBE_SECONDS = 300.0
"""Far longer than a wall is tried."""
_LAST_WORD_SECONDS = 2.0
"""So long the engine has to say how a container ended that has ended, as the kernel says."""
_LAST_WORD_PAUSE_SECONDS = 0.02
_KILLED = 128 + 9

T = TypeVar("T")

log = structlog.get_logger()


class Unnameable(Exception):
    """A slot or a label that is none."""


class NoSlot(Exception):
    """There is no such slot, or nothing was ever started there."""


class Refused(Exception):
    """No container is made; the message says why and what to do."""


class Started(Enum):
    """What became of a start."""

    NOW = "now"
    RUNNING = "running"
    """It was started before."""
    ENDED = "ended"
    """It was started before, and nothing is started in its place."""


@dataclass(frozen=True)
class Spawned:
    """A container, as it was asked for."""

    slot: str
    provider: str
    labels: Mapping[str, str]
    running: bool


class Containers:
    """See above. What is known of a container is the engine's and the slot's to say, so a spawner that was restarted knows as much; only
    who waits for an end is kept here."""

    def __init__(
        self,
        engine: Engine,
        template: Template,
        slots: Slots,
        *,
        installation: str,
        providers: Sequence[str],
        wall: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`wall`: tries it, before the first worker is made; None where that was done. Errors of it: StartRefused."""
        self._untried = wall
        self._trying = asyncio.Lock()
        self._engine = engine
        self._template = template
        self._slots = slots
        self._installation = installation
        self._providers = frozenset(providers)
        self._root = slots.root
        self._key = seal_key(self._root)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._news = asyncio.Event()
        self._starved: set[str] = set()
        self._stopping: set[str] = set()
        self._seen: dict[str, FirstProcess] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._slotless: set[str] = set()
        self._recording = asyncio.Semaphore(_RECORDED_AT_ONCE)

    async def begin(self) -> None:
        """Before anything else: learn which users have workers. Errors: EngineAway, OSError."""
        mine = filter(self._is_ours, await self._engine.list(self._mine))
        others = [int(each.labels.get(_USER_LABEL) or 0) for each in mine]
        await asyncio.to_thread(self._slots.begin, others)

    async def prepare(self, name: str, waiting: Sequence[str] = ()) -> str:
        """Make a slot, or give its name to one of those in which a worker waits; returns which. Errors: Unnameable, Refused, OSError."""
        async with self._locked(name) as slot:
            if slot.path.exists():
                return ""
            for each in waiting:
                # One that is being made or deleted is not to be waited for.
                if not self._lock(each).locked():
                    async with self._locked(each) as taken:
                        if await to_its_end(asyncio.to_thread(_renamed, taken, slot)):
                            return each
            try:
                await to_its_end(asyncio.to_thread(self._slots.make, name))
            except NoUser as error:
                raise Refused(str(error)) from error
        return ""

    async def start(self, name: str, provider: str, labels: Mapping[str, str], *, furnished: bool, unused: bool = False) -> Started:
        """Make and start the container of a slot, unless that was done before. Where the workspace is `furnished`, the worker gets it.
        Where the slot is `unused`, one that had waited for a turn and has ended is replaced. Errors: Unnameable, Refused, EngineAway."""
        check_labels(labels)
        async with self._locked(name) as slot:
            if not slot.path.is_dir():
                raise Refused(f"the spawner sees no slot {name} in {self._root}: TREADLE_WORKER_ROOT must be the same for both")
            user = _user(slot)
            # By its name: the one that takes its place has the slot's own.
            if unused and slot.container() not in ("", self._name(name)) and await self._recorded(slot):
                await self._renew(slot)
            if slot.exit() is not None:
                return Started.ENDED
            if (seen := self._seen.get(slot.container())) is not None and seen.alive:
                await self._give(slot, user, furnished=furnished)
                return Started.RUNNING
            state = await self._container(slot)
            if state is None and slot.container():
                return Started.ENDED
            if state is None or state.running or state.status == "created":
                await self._give(slot, user, furnished=furnished)
            if state is not None and state.status != "created":
                return Started.RUNNING if state.running else Started.ENDED
            if state is None:
                await self._create(slot, user, provider, labels)
            elif not slot.container():
                # Who asked for it was killed while the engine made it.
                await to_its_end(asyncio.to_thread(slot.hold, state.name))
            try:
                await self._engine.start(slot.container(), self._template.line(slot, provider, furnished=furnished))
            except EngineRefused as error:
                raise Refused(f"the engine does not start the worker: {error}") from error
            with contextlib.suppress(EngineError):  # later, then
                await self._watch(slot.container())
        log.info("container.started", slot=name, provider=provider)
        return Started.NOW

    async def _renew(self, slot: Slot) -> None:
        if (state := await self._container(slot)) is not None:
            await self._engine.remove(state.name)
        self._seen.pop(slot.container(), None)
        await to_its_end(asyncio.to_thread(self._slots.renew, slot))
        log.info("slot.renewed", slot=slot.path.name)

    async def _give(self, slot: Slot, user: User, *, furnished: bool) -> None:
        """The workspace, once it is complete."""
        if furnished:
            await to_its_end(asyncio.to_thread(self._slots.give, slot, user))

    async def seal(self, name: str) -> None:
        """The worker can put nothing else in the place of its socket any more. Errors: Unnameable, NoSlot, Refused, OSError."""
        async with self._locked(name) as slot:
            if not slot.path.is_dir():
                raise NoSlot(f"there is no slot {name}")
            _check(slot)
            await to_its_end(asyncio.to_thread(self._slots.seal, slot))

    async def occupied(self, name: str) -> Occupied:
        """What the workspace takes of the disk. Errors: Unnameable, NoSlot."""
        if not self._named(name).workspace.is_dir():
            raise NoSlot(f"there is no slot {name}")
        return await occupied(self._named(name).workspace)

    async def wait(self, name: str) -> None:
        """Until the slot's container has ended and that is recorded. Errors: Unnameable, NoSlot."""
        while True:
            # Before looking: what happens meanwhile is news.
            news = self._news
            with contextlib.suppress(EngineAway):
                async with self._locked(name) as slot:
                    if not slot.container() and slot.exit() is None:
                        raise NoSlot(f"no worker was started in slot {name}")
                    if await self._recorded(slot):
                        return
            await news.wait()

    async def kill(self, name: str) -> None:
        """End the slot's container, if there is one, and record that. None can be started there any more. Errors: Unnameable, NoSlot,
        EngineAway, EngineRefused."""
        async with self._locked(name) as slot:
            if not slot.path.is_dir():
                raise NoSlot(f"there is no slot {name}")
            _check(slot)
            await self._end(slot)
            await self._recorded(slot)

    async def _end(self, slot: Slot) -> None:
        seen = self._seen.get(slot.container())
        if seen is not None:
            if not seen.alive:
                return
            self._stopping.add(slot.container())
            if seen.kill():
                # As good as by the engine, which may be away; but somebody may have paused it, and only the engine can undo that.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LAST_WORD_SECONDS):
                        await seen.ended()
                        return
        state = await self._container(slot)
        if state is not None and state.running:
            self._stopping.add(state.name)
            await self._engine.kill(state.name)
        elif state is not None and state.status == "created":
            await self._engine.remove(state.name)

    async def remove(self, name: str) -> None:
        """Delete a slot and its container. Errors: Unnameable, Refused, EngineAway, EngineRefused, OSError."""
        async with self._locked(name) as slot:
            there = slot.path.is_dir()
            if there:
                _check(slot)
            state = await self._container(slot)
            # Where the slot has another name by now, so has whoever its container works for.
            if state is not None and (there or await asyncio.to_thread(self._slot_of, state) is None):
                await self._engine.remove(state.name)
                self._forget(state.name)
            if there:
                await to_its_end(asyncio.to_thread(self._slots.delete, slot))
        self._tell()

    async def end_all(self) -> None:
        """End and delete all containers of this installation; slots stay, with how it ended. Errors: EngineAway."""
        for state in filter(self._is_ours, await self._engine.list(self._mine)):
            try:
                slot = await asyncio.to_thread(self._slot_of, state)
                if slot is not None:
                    await self.kill(slot.path.name)
                await self._engine.remove(state.name)
            except (EngineError, NoSlot, Unnameable, OSError) as error:
                log.warning("container.not_ended", container=state.name, error=str(error))

    async def list(self) -> list[Spawned]:
        """All of this installation. Errors: EngineAway."""
        return [
            Spawned(each.labels.get("treadle.slot", ""), each.labels.get("treadle.provider", ""), each.labels, each.running)
            for each in await self._engine.list(self._mine)
            if self._is_ours(each)
        ]

    async def look_after(self) -> None:
        """Record what ends by itself; end what is too old; delete what has no slot any more. Runs for the spawner's life."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(group))
            group.create_task(self._sweep())
            group.create_task(self._clear())

    async def _clear(self) -> None:
        try:
            await asyncio.to_thread(self._slots.clear)
        except OSError as error:
            log.warning("slots.not_cleared", error=str(error))

    async def _listen(self, group: asyncio.TaskGroup) -> None:
        """The engine says what happens, as long as it lives; when it is there again, whoever waits looks anew."""
        while True:
            try:
                async with self._engine.happenings(self._mine) as heard:
                    await self._watch_all()
                    self._tell()
                    while (each := await heard.get()) is not None:
                        what, container = each
                        if what == "oom":
                            self._starved.add(container)
                        if what == "die":
                            # So that what takes long for one keeps nobody else waiting.
                            group.create_task(self._record_dead(container))
            except EngineError as error:
                log.warning("engine.unheard", error=str(error))
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _watch_all(self) -> None:
        """What was started by an earlier spawner. Errors: EngineError."""
        for each in await self._engine.list(self._mine):
            if each.running:
                await self._watch(each.name)

    async def _watch(self, container: str) -> None:
        """Where the kernel lets us. Not with a runtime of the operator's choice: what it calls its process may be anything.
        Errors: EngineError."""
        if container in self._seen or self._template.settings.worker_runtime:
            return
        state = await self._engine.inspect(container)
        if state is not None and container not in self._seen and (seen := first_process(state, lambda: self._ended(container))):
            self._seen[container] = seen

    def _ended(self, container: str) -> None:
        task = asyncio.get_running_loop().create_task(self._record_dead(container))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _forget(self, container: str) -> None:
        self._starved.discard(container)
        self._stopping.discard(container)
        if seen := self._seen.pop(container, None):
            seen.close()

    async def _sweep(self) -> None:
        while True:
            try:
                for each in await self._engine.list(PROBE_LABEL):
                    if each.name.startswith(PROBE_NAME) and time.time() - each.created_at > _PROBE_SECONDS:
                        log.info("container.removed", container=each.name, reason="who tried it is gone")
                        await self._engine.remove(each.name)
                found = await self._engine.list(self._mine)
                self._slotless &= {each.name for each in found}
                for name in [*self._seen]:
                    if name not in {each.name for each in found}:
                        self._forget(name)
                for each in filter(self._is_ours, found):
                    try:
                        await self._sweep_one(each)
                    except (EngineError, NoSlot, Refused, Unnameable, OSError) as error:
                        log.warning("container.not_swept", container=each.name, error=str(error))
            except EngineError as error:
                log.warning("containers.sweep_failed", error=str(error))
            await asyncio.sleep(_SWEEP_SECONDS)

    async def _sweep_one(self, state: State) -> None:
        slot = await asyncio.to_thread(self._slot_of, state)
        if slot is None and state.name in self._slotless:
            log.info("container.removed", container=state.name, reason="its slot is gone")
            await self._engine.remove(state.name)
            await asyncio.to_thread(self._slots.free, int(state.labels.get(_USER_LABEL) or 0))
        elif slot is None:
            # Slots are renamed while we look; the next look decides.
            self._slotless.add(state.name)
        elif state.running and time.time() - state.created_at > self._template.settings.worker_seconds:
            log.warning("container.too_old", slot=slot.path.name, limit_s=self._template.settings.worker_seconds)
            await self.kill(slot.path.name)
        elif state.running and slot.exit() is not None:
            # By a spawner that was killed while the engine started it.
            log.warning("container.killed", slot=slot.path.name, reason="its end was told before")
            await self.kill(slot.path.name)
        elif not state.running and state.status != "created":
            await self._record_dead(state.name)

    async def _record_dead(self, container: str) -> None:
        """Where that fails, the next look does it, or whoever waits."""
        try:
            slot = await asyncio.to_thread(self._slot_with, container)
            if slot is None:
                state = await self._engine.inspect(container)
                slot = await asyncio.to_thread(self._slot_of, state) if state else None
            if slot is not None:
                # In this order: a slot may be busy for as long as the engine takes, and that is no other's business.
                async with self._locked(slot.path.name) as locked, self._recording:
                    await self._recorded(locked)
        except (EngineError, Unnameable, OSError) as error:
            log.warning("container.not_recorded", container=container, error=str(error))
        finally:
            # Also one whose slot or record is gone: who waits for it sees that.
            self._tell()

    def _is_ours(self, state: State) -> bool:
        """Whether a spawner of this root has made it. Anybody can write labels; what says that it is ours and is not is left alone. A slot
        that names it says so too, of what was made by an earlier version."""
        slot = state.labels.get("treadle.slot", "")
        sealed = hmac.compare_digest(state.labels.get("treadle.seal", "").encode(), self._seal(state.name).encode())
        return (sealed and state.name == self._name(slot)) or self._slot_with(state.name) is not None

    def _seal(self, container: str) -> str:
        return hmac.new(self._key, container.encode(), hashlib.sha256).hexdigest()[:32]

    def _name(self, slot: str) -> str:
        return f"treadle-{self._installation}-{slot}"

    def _slot_of(self, state: State) -> Slot | None:
        """Where a container's slot is now: it moves with its directory, so the name that it was made with says little."""
        if slot := self._slot_with(state.name):
            return slot
        made_for = Slot(self._root / name) if _SLOT.fullmatch(name := state.labels.get("treadle.slot", "")) else None
        return made_for if made_for and made_for.path.is_dir() and not made_for.container() else None

    def _slot_with(self, container: str) -> Slot | None:
        return next((slot for slot in slots(self._root) if slot.container() == container), None)

    async def _create(self, slot: Slot, user: User, provider: str, labels: Mapping[str, str]) -> None:
        if provider not in self._providers:
            raise Refused(
                f"there is no image for the agent {provider!r}: {self._template.image(provider)}; `make images` builds it, and "
                "TREADLE_WORKER_IMAGE names another"
            )
        await self._tried()
        name, image = self._name(slot.path.name), self._template.image(provider)
        mine = {"treadle.installation": self._installation, "treadle.slot": slot.path.name, "treadle.provider": provider}
        mine |= {_USER_LABEL: str(user[0]), "treadle.seal": self._seal(name)}
        marked = {f"treadle.{key}": value for key, value in labels.items()} | mine
        try:
            await self._engine.create(name, image, self._template.configuration(user, marked), self._template.host(slot, user))
        except NameTaken:
            pass  # by a spawner that was killed before it could say so in the slot
        except EngineRefused as error:
            raise Refused(f"the engine makes no container: {error}") from error
        await to_its_end(asyncio.to_thread(slot.hold, name))

    async def _tried(self) -> None:
        async with self._trying:
            if self._untried is not None:
                try:
                    await self._untried()
                except StartRefused as error:
                    raise Refused(str(error)) from error
                self._untried = None

    async def _container(self, slot: Slot) -> State | None:
        """The slot's container; never one of somebody else."""
        state = await self._engine.inspect(slot.container() or self._name(slot.path.name))
        return state if state and state.labels.get("treadle.installation") == self._installation else None

    async def _recorded(self, slot: Slot) -> bool:
        """Whether the worker has ended; if so, that is in the slot. Errors: EngineAway."""
        if slot.exit() is not None:
            return True
        seen = self._seen.get(slot.container())
        if seen is not None and seen.alive:
            return False
        state = await (self._last_word(slot) if seen is not None else self._container(slot))
        if state is not None and state.running:
            return False
        name = slot.container()
        ended = WorkerExit(code=None, oom_killed=self._was_starved(name), stopped=name in self._stopping)
        if state is not None and state.status != "created":
            state = await self._with_reason(state)
            output = await self._output(state.name)
            starved = state.oom_killed or self._was_starved(name)
            ended = replace(ended, code=state.code, oom_killed=starved, log_tail=output[-_TAIL_CHARS:])
        with contextlib.suppress(FileNotFoundError):  # somebody has deleted it meanwhile
            await to_its_end(asyncio.to_thread(self._slots.take_back, slot))
            await to_its_end(asyncio.to_thread(slot.record, ended))
        self._tell()
        if state is not None or seen is not None:
            log.info("container.ended", slot=slot.path.name, code=ended.code, oom_killed=ended.oom_killed)
        return True

    async def _last_word(self, slot: Slot) -> State | None:
        """The engine's, of a container that has ended; None when it does not say in time. An engine that is away, or hangs, cannot say how
        it ended, but that it ended is known."""

        async def ask() -> State | None:
            while True:
                with contextlib.suppress(EngineError):
                    state = await self._container(slot)
                    if state is None or not state.running:
                        return state
                await asyncio.sleep(_LAST_WORD_PAUSE_SECONDS)

        return await _in_time(ask(), None)

    async def _with_reason(self, state: State) -> State:
        """An engine learns of a lack of memory and of an end on two ways, and may be late with the first: where a container was killed and
        nobody can say why, it is asked until it had the time. Where the kernel was asked in time, it has said."""
        seen = self._seen.get(state.name)
        known = self._was_starved(state.name) or state.name in self._stopping or (seen is not None and seen.starved is not None)
        if known or state.oom_killed or state.code != _KILLED:
            return state

        async def ask() -> State:
            while True:
                await asyncio.sleep(_LAST_WORD_PAUSE_SECONDS)
                again = await self._engine.inspect(state.name)
                if again is None or again.oom_killed or self._was_starved(state.name):
                    return again or state

        return await _in_time(ask(), state)

    async def _output(self, container: str) -> str:
        return await _in_time(self._engine.output(container), "")

    def _was_starved(self, container: str) -> bool:
        seen = self._seen.get(container)
        return container in self._starved or (seen is not None and bool(seen.starved))

    @asynccontextmanager
    async def _locked(self, name: str) -> AsyncIterator[Slot]:
        """One at a time for each slot. Errors: Unnameable."""
        lock = self._lock(name)
        async with lock:
            yield self._named(name)

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(self._named(name).path.name, asyncio.Lock())

    def _named(self, name: str) -> Slot:
        """Errors: Unnameable."""
        if not _SLOT.fullmatch(name):
            raise Unnameable(f"{name!r} is no slot's name")
        return Slot(self._root / name)

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    @property
    def _mine(self) -> str:
        return f"treadle.installation={self._installation}"


async def _in_time(work: Coroutine[Any, Any, T], otherwise: T) -> T:
    """What it returns; `otherwise` when it takes too long or the engine does not say. Then it is left to itself: a thread that waits for an
    engine cannot be stopped, and changes nothing."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=_LAST_WORD_SECONDS)
    finally:
        # Also where nobody wants to know any more: else it would ask on and on.
        if not task.done():
            task.add_done_callback(_heard)
            task.cancel()
    if not task.done():
        return otherwise
    try:
        return task.result()
    except EngineError:
        return otherwise


def _heard(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()


def is_slot(name: str) -> bool:
    """Whether a slot can have this name."""
    return _SLOT.fullmatch(name) is not None


def check_labels(labels: Mapping[str, str]) -> None:
    """Errors: Unnameable."""
    for name, value in labels.items():
        if not _LABEL.fullmatch(value):
            raise Unnameable(f"{name}: {value!r} is no label")


def _check(slot: Slot) -> None:
    """Errors: Refused where what the slot says is not a spawner's word: see check_trust."""
    if not slot.is_spawners or (os.geteuid() == 0 and not is_roots_alone(slot.path)):
        raise Refused(f"slot {slot.path.name} was not made by a spawner, or others can change it; nothing is done there")


def _user(slot: Slot) -> User:
    """Uid and gid of the slot's worker. Errors: Refused."""
    _check(slot)
    user = slot.user()
    if user is None:
        raise Refused(f"slot {slot.path.name} does not say any more whose it is (a power cut?); no worker is started there")
    return user


def _renamed(waiting: Slot, slot: Slot) -> bool:
    """Whether a worker waits there, whose slot has another name now."""
    try:
        if not waiting.container() or waiting.exit() is not None:
            return False
        _user(waiting)
        waiting.path.rename(slot.path)
    except (FileNotFoundError, Refused):
        return False
    return True
