"""Owns the turns of this replica: their tasks, their leases, and their recovery after a restart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import Context
from dataclasses import dataclass

import structlog
from structlog.contextvars import bound_contextvars

from server.kernel.errors import Fenced, KernelError, ShuttingDown, StoreUnavailable
from server.kernel.event import Envelope
from server.kernel.finish import Finishing
from server.kernel.ports.input_store import Starter
from server.kernel.ports.launcher import WorkerId
from server.kernel.ports.tracer import trace_fields
from server.kernel.ports.turn_store import Claimed, Leftover
from server.kernel.supervisor.attend import attend
from server.kernel.supervisor.drive import Drive, Limits, Ports, now
from server.kernel.supervisor.life import live
from server.kernel.supervisor.rescue import rescue
from server.kernel.supervisor.waiting import WaitingRoom
from server.kernel.turn import Turn, TurnState

SWEEP_DIVISOR = 3
"""Leases are renewed three times within their length."""

SWEEP_WORKERS_SECONDS = 30.0
"""Nothing is left of a worker a minute after nobody needs it."""
MOST_RESCUE_SECONDS = 3600.0
SWEPT_AT_ONCE = 8
"""Each may take a minute, where whoever ends workers does not answer."""
USES_SWEEP_SECONDS = 3600.0
FOLLOW_UPS_PER_SWEEP = 100
CANCEL_SECONDS = 5.0

log = structlog.get_logger()


@dataclass(frozen=True)
class _Kept:
    """When the work of a worker is tried again that could not be published."""

    again: float = 0.0
    """By the monotonic clock."""
    pause: float = SWEEP_WORKERS_SECONDS


class Supervisor:
    """Turns belong to it; RPC handlers only watch."""

    def __init__(self, ports: Ports, limits: Limits) -> None:
        self._ports = ports
        self._limits = limits
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._drives: dict[str, Drive] = {}
        self._sessions: dict[str, str] = {}
        self._stops: dict[str, str] = {}
        self._kept: dict[WorkerId, _Kept] = {}
        self._stop_all = ""
        self._draining = False
        self._recovered = asyncio.Event()
        self._places = 0
        self._leaving = 0
        """Turns that have ended, while their tasks look for what follows and remove what their workers left."""
        self._finishing = Finishing()
        self._waiting = WaitingRoom(ports, limits, room=lambda: self._room, take=self._take_waiting)

    @property
    def active(self) -> int:
        """How many turns run here."""
        return len(self._tasks)

    @property
    def waiting(self) -> int:
        """How many turns wait for a place, over all replicas."""
        return self._waiting.waiting

    @property
    def _room(self) -> int:
        return self._limits.max_turns - len(self._tasks) - self._places + self._leaving

    def admit(self) -> None:
        """Check that one more turn may be accepted. Errors: ShuttingDown."""
        if self._draining:
            raise ShuttingDown

    @contextmanager
    def place(self) -> Iterator[str]:
        """A place for one more turn, held until the block has made the turn and called `begin`: the name of this replica, or nothing where
        the turn has to wait, since there is none or others wait for it. Errors: as for `admit`."""
        self.admit()
        if self._room <= 0 or self._waiting.startable:
            yield ""
            return
        self._places += 1
        try:
            yield self._limits.replica
        finally:
            self._places -= 1

    def begin(self, begun: Claimed | Turn) -> Turn:
        """Drive a new turn that has a place; one that has none is told where it stands."""
        if isinstance(begun, Claimed):
            self.start(begun)
            return begun.turn
        self._waiting.joined()
        return begun

    def start(self, claimed: Claimed) -> None:
        """Drive a turn that this replica has claimed."""
        turn = claimed.turn
        if turn.state is TurnState.QUEUED:
            self._ports.rush.enter(turn.id)
        # In a context of its own: it outlives the call that started it, whose ids do not belong into its log.
        task = asyncio.create_task(self._drive(claimed), name=f"turn {turn.id}", context=Context())
        self._tasks[turn.id] = task
        self._sessions[turn.id] = turn.session_id
        task.add_done_callback(lambda done: self._forget(turn.id, done))

    def call(self, session_id: str) -> None:
        """Somebody has said something to a session; it is durable already. Told and passed on now if the session is driven here."""
        if (drive := self.driven(session_id)) is not None:
            drive.call()
        else:
            self._call_waiting()

    def driven(self, session_id: str) -> Drive | None:
        """The session's turn, if it is driven here."""
        return next((drive for drive in self._drives.values() if drive.turn.session_id == session_id), None)

    def request_stop(self, turn_id: str, reason: str) -> None:
        """Stop a turn early, if it runs here; the request is durable already."""
        drive = self._drives.get(turn_id)
        if drive is not None:
            drive.request_stop(reason)
        elif turn_id in self._tasks:
            self._stops[turn_id] = reason
        else:
            self._waiting.call()

    async def recover(self) -> None:
        """Take up the turns that an earlier process of this replica left. Once, before the first caller is let in: a turn that is
        started here must not be taken for one of them."""
        claimed = await self._claim(restart=True)
        for each in claimed:
            self.start(each)
        if claimed:
            log.info("turns.recovered", count=len(claimed))
        await self._start_due()
        await self._waiting.attend()
        self._recovered.set()

    async def run(self) -> None:
        """Keep leases, take over lost turns, remove what ended turns left and repeat what is pending, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_leases())
            group.create_task(self._keep_queue())
            group.create_task(self._sweep_workers())
            group.create_task(self._sweep_uses())

    async def detach(self) -> None:
        """Let go of all turns without ending them: their workers go on, and the next process takes them up."""
        self._draining = True
        await self._finishing.finished()
        await self._cancel([*self._tasks.values()])

    async def interrupt_all(self, reason: str, *, seconds: float) -> int:
        """Stop all turns, publish their work, and wait for that at most `seconds`. Returns how many were not done by then."""
        self._draining = True
        self._stop_all = reason
        for drive in self._drives.values():
            drive.request_stop(reason)
        if not self._tasks:
            return 0
        _, pending = await asyncio.wait([*self._tasks.values()], timeout=seconds)
        return len(pending)

    # -- one turn -----------------------------------------------------------------------------------------------------------

    async def _drive(self, claimed: Claimed) -> None:
        turn = claimed.turn
        with bound_contextvars(session_id=turn.session_id, turn_id=turn.id):
            try:
                with (
                    self._ports.tracer.span(
                        "turn", parent=turn.trace_parent, session_id=turn.session_id, turn_id=turn.id, provider=turn.provider
                    ),
                    bound_contextvars(**trace_fields(self._ports.tracer)),
                ):
                    worker = await self._live(claimed)
                with self._left_place(turn.id):
                    await self._start_due(turn.session_id)
                    if worker is not None:
                        await self._remove(worker)
            except Fenced as error:
                log.warning("turn.fenced", error=error.message)
            except Exception:  # the task's owner: the lease runs out, and the turn is claimed and tried again
                log.exception("turn.abandoned")

    @contextmanager
    def _left_place(self, turn_id: str) -> Iterator[None]:
        """What is done by the task of a turn that has ended: nobody waits for it, and nobody calls it."""
        self._leaving += 1
        self._drives.pop(turn_id, None)
        self._sessions.pop(turn_id, None)
        self._call_waiting()
        try:
            yield
        finally:
            self._leaving -= 1

    async def _live(self, claimed: Claimed) -> WorkerId | None:
        """To the turn's end. Returns the worker of which nothing is needed any more, if there was one."""
        turn = claimed.turn
        envelope = Envelope(
            turn.session_id,
            turn.id,
            0,
            claimed.epoch,
            "SERVER",
            self._limits.replica,
            on_behalf_of=turn.owner_id,
            trace_parent=self._ports.tracer.current(),
        )
        journal = self._ports.journal
        session_log = journal.open(claimed, server=envelope)
        try:
            drive = Drive(self._ports, self._limits, claimed, session_log)
            self._drives[turn.id] = drive
            # Whoever asked for a stop before this task began is heard too.
            if reason := self._stops.pop(turn.id, "") or self._stop_all:
                drive.request_stop(reason)
            log.info("turn.driven", state=turn.state, epoch=claimed.epoch)
            async with _attended(drive):
                await live(drive)
        finally:
            if drive.bill is not None:
                drive.bill.close()
            journal.close(session_log)
        return drive.worker_id if drive.turn.attempt and drive.turn.imported else None

    async def _remove(self, worker: WorkerId) -> None:
        """What cannot be removed now is swept later."""
        self._ports.mark("remove.before")
        try:
            await self._ports.launcher.remove(worker)
        except (KernelError, OSError) as error:
            log.warning("worker.leftover_stays", worker_id=str(worker), error=str(error))

    def _forget(self, turn_id: str, task: asyncio.Task[None]) -> None:
        self._ports.rush.leave(turn_id)
        if self._tasks.get(turn_id) is not task:
            return
        self._tasks.pop(turn_id, None)
        self._drives.pop(turn_id, None)
        self._sessions.pop(turn_id, None)
        self._stops.pop(turn_id, None)
        self._call_waiting()

    def _call_waiting(self) -> None:
        if self._waiting.waiting:
            self._waiting.call()

    async def _start_due(self, session_id: str = "") -> None:
        """Start the next turn of a session (or of all sessions) whose queue may go on, or let it wait. Whose start fails now is found by
        the next sweep."""
        if self._draining:
            return
        try:
            # Between the database's yes and the start of the turn's task no cancel may come.
            await self._finishing.run(self._start_next(session_id) if session_id else self._start_overdue())
        except StoreUnavailable as error:
            log.warning("follow_ups.not_started", error=error.message)

    async def _start_next(self, session_id: str) -> None:
        with self.place() as replica:
            self._ports.mark("follow_up.before")
            begun = await self._ports.desk.start_next(self._starter(replica), session_id=session_id)
            self._ports.mark("follow_up.after")
            self._follow_up(begun)

    async def _start_overdue(self) -> None:
        """They were left over, so they wait in the queue as all others do."""
        self._follow_up(await self._ports.desk.start_next(self._starter(""), limit=FOLLOW_UPS_PER_SWEEP))

    def _starter(self, replica: str) -> Starter:
        return Starter(replica, self._limits.lease_seconds, self._limits.default_provider)

    def _follow_up(self, begun: Sequence[Claimed | Turn]) -> None:
        for each in begun:
            turn = each.turn if isinstance(each, Claimed) else each
            log.info("turn.follows", session_id=turn.session_id, turn_id=turn.id)
            if not self._draining:  # else the next process takes it up
                self.begin(each)

    # -- turns that wait for a place ----------------------------------------------------------------------------------------

    async def _keep_queue(self) -> None:
        # What an earlier process of this replica had begun has its places first.
        await self._recovered.wait()
        await self._waiting.run()

    async def _take_waiting(self, limit: int) -> int:
        if self._draining:
            return 0
        # As for follow-ups.
        return await self._finishing.run(self._take(limit))

    async def _take(self, limit: int) -> int:
        self._ports.mark("take.before")
        taken = await self._ports.queue.take(self._limits.replica, lease_seconds=self._limits.lease_seconds, limit=limit)
        self._ports.mark("take.after")
        for each in taken:
            if each.turn.created_at is not None and not each.turn.interrupt_reason:
                self._ports.waited((now() - each.turn.created_at).total_seconds())
            if not self._draining:  # else the next process takes it up
                self.start(each)
        return len(taken)

    async def _cancel(self, tasks: list[asyncio.Task[None]]) -> None:
        """Bounded: leases of other turns are not lost because one takes long to let go."""
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CANCEL_SECONDS)

    # -- recovery and leases ------------------------------------------------------------------------------------------------

    async def _sweep_workers(self) -> None:
        """Workers that nobody needs: their turn has ended. Their processes, if any, are ended, and their files go, or are kept. One that
        cannot be removed is tried again, and stops nothing else."""
        several = asyncio.Semaphore(SWEPT_AT_ONCE)

        async def settle(worker: WorkerId) -> None:
            async with several:
                try:
                    await self._settle_leftover(worker)
                except (KernelError, OSError) as error:
                    log.warning("worker.leftover_stays", worker_id=str(worker), error=str(error))

        while True:
            try:
                leftovers = await self._ports.launcher.leftovers()
            except (KernelError, OSError) as error:
                log.warning("workers.sweep_failed", error=str(error))
                leftovers = []
            await asyncio.gather(*map(settle, leftovers))
            await asyncio.sleep(min(self._limits.lease_seconds, SWEEP_WORKERS_SECONDS))

    async def _settle_leftover(self, worker: WorkerId) -> None:
        if worker.turn_id in self._tasks:
            return
        left = await self._ports.turns.leftover(worker.turn_id)
        if left is Leftover.NEEDED:
            return
        await self._ports.launcher.collect(worker)
        if left is Leftover.NOBODYS:
            log.info("worker.leftover_removed", worker_id=str(worker))
            await self._ports.launcher.remove(worker)
        elif time.monotonic() > self._kept.get(worker, _Kept()).again:
            await self._rescue(worker)

    async def _rescue(self, worker: WorkerId) -> None:
        """What stands in the way mostly passes; where it does not, each try comes later, and its log line is for an operator."""
        kept = self._kept.pop(worker, _Kept())
        try:
            if await rescue(self._ports, self._limits, worker):
                await self._ports.launcher.remove(worker)
        except Exception as error:  # as for turns: a defect is logged, and stops no other worker's sweep
            self._kept[worker] = _Kept(time.monotonic() + kept.pause, min(2 * kept.pause, MOST_RESCUE_SECONDS))
            workspace = str(await self._ports.launcher.left(worker))
            defect = None if isinstance(error, KernelError | OSError) else error
            log.warning("worker.kept", worker_id=str(worker), error=str(error), workspace=workspace, pause_s=kept.pause, exc_info=defect)

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(self._limits.lease_seconds / SWEEP_DIVISOR)
            with suppress(StoreUnavailable):
                await self._renew()
                if not self._draining:
                    for each in await self._claim(restart=False):
                        # Its lease had run out, so what drove it here, if it still lives, is fenced: one at a time.
                        await self._cancel([task for turn_id, task in self._tasks.items() if turn_id == each.turn.id])
                        self.start(each)
                for turn_id, reason in await self._ports.turns.interrupts(self._limits.replica):
                    self.request_stop(turn_id, reason)
                for session_id in await self._ports.desk.calls(self._limits.replica):
                    self.call(session_id)
                await self._start_due()

    async def _claim(self, *, restart: bool) -> list[Claimed]:
        room = self._limits.max_turns - len(self._tasks) + self._leaving
        if room <= 0:
            return []
        return await self._ports.turns.claim(self._limits.replica, lease_seconds=self._limits.lease_seconds, restart=restart, limit=room)

    async def _renew(self) -> None:
        mine = dict(self._sessions)
        if not mine:
            return
        held = await self._ports.turns.renew(self._limits.replica, [*mine.values()], lease_seconds=self._limits.lease_seconds)
        lost = [self._tasks[turn_id] for turn_id, session_id in mine.items() if session_id not in held and turn_id in self._tasks]
        if lost:
            log.warning("leases.lost", count=len(lost))
            await self._cancel(lost)

    # -- what models were used, when it is old -------------------------------------------------------------------------------

    async def _sweep_uses(self) -> None:
        while True:
            try:
                if removed := await self._ports.treasury.forget():
                    log.info("model_uses.removed", rows=removed)
            except KernelError as error:
                log.warning("model_uses.sweep_failed", error=error.message)
            await asyncio.sleep(USES_SWEEP_SECONDS)


@asynccontextmanager
async def _attended(drive: Drive) -> AsyncIterator[None]:
    """With the task beside a turn; what goes wrong in it is told, and never hides how the turn ended."""
    attending = asyncio.create_task(attend(drive), name=f"desk {drive.turn.id}")
    try:
        yield
    finally:
        attending.cancel()
        (result,) = await asyncio.gather(attending, return_exceptions=True)
        if isinstance(result, Exception):
            log.error("desk.crashed", error=str(result), error_type=type(result).__name__, exc_info=result)
