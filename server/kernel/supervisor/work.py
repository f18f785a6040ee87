"""Second part of a turn: the worker runs the agent, and what it says is recorded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import structlog

from server.kernel.errors import LaunchFailed, NoRoom, StoreUnavailable, WorkerLost, WorkerProtocolBroken
from server.kernel.event import Fact
from server.kernel.journal.writer import RETRY_SECONDS
from server.kernel.ports.launcher import Assignment, Worker, WorkerExit, WorkerItem, WorkerNotice, WorkerRequest, WorkerResult
from server.kernel.supervisor.attend import hear_notice, hear_request
from server.kernel.supervisor.checkpoint import keep_checkpoints
from server.kernel.supervisor.drive import Drive, now
from server.kernel.supervisor.ledger import kept_ledger
from server.kernel.turn import Outcome, TurnCode, TurnState

log = structlog.get_logger()

ACKNOWLEDGE_EVENTS = 256
ACKNOWLEDGE_SECONDS = 0.1
"""The worker is told after so many durable events, or so long after the first. Its window has 2,048 events."""

DISK_SECONDS = 2.0
DISK_PAUSES = 20
DISK_MOST_SECONDS = 30.0
"""The disk that a workspace takes is looked at so often, and no longer than one part of so many of the time; but at least so often."""

ROOM_SECONDS = 1.0
"""So long after it was said that no machine has room for a worker, it is asked again."""

NOTICE_BYTES = 1024
"""What a notice counts for: it adds little to the log, but each asks the database something."""

MAX_TURN_BYTES = 256 * 1024 * 1024
"""What one worker may add to a log, as far as one server sees it: an agent that prints for an hour fills no disk."""


class _NotEnded(WorkerLost):
    """Nothing is heard of the worker any more, and it could not be ended either: it may still be there."""


@dataclass
class _Stop:
    """Why the turn is being stopped, once it is."""

    outcome: Outcome | None = None


async def work(drive: Drive) -> None:
    """From RUNNING to FINALIZING, with the worker's doors to models and to the network open all the while."""
    try:
        async with _door_to_models(drive), _door_to_network(drive):
            await _agents_part(drive)
    except LaunchFailed as error:
        await drive.conclude(Outcome(TurnState.FAILED, TurnCode.LAUNCH, error.message))
    except WorkerLost as error:
        await _lost(drive, error)


@asynccontextmanager
async def _door_to_models(drive: Drive) -> AsyncIterator[None]:
    """Open before the agent can knock, closed with all that is under way when its part is over: token and socket are dead then.
    Errors: LaunchFailed, WorkerLost."""
    models, provider = drive.ports.models, drive.turn.provider
    if not models.serves(provider):
        yield
        return
    bill = await drive.opened_bill()
    door = await drive.ports.launcher.models(drive.worker_id)
    async with models.open(door, provider=provider, bill=bill):
        yield


@asynccontextmanager
async def _door_to_network(drive: Drive) -> AsyncIterator[None]:
    """The same for the network, where the session allows any of it. Errors: LaunchFailed, WorkerLost."""
    hosts = drive.session.allowed_hosts
    if not hosts:
        yield
        return
    door = await drive.ports.launcher.egress(drive.worker_id)
    egress, passed = drive.ports.egress, drive.turn.network_bytes
    async with kept_ledger(drive) as ledger, egress.open(door, hosts=hosts, passed=passed, ledger=ledger):
        yield


async def _agents_part(drive: Drive) -> None:
    """Start the worker, or find it again, and follow it to its result or its end. Errors: LaunchFailed, WorkerLost when there is none."""
    with drive.passing("spawn"):
        worker = await _launched(drive)
    if worker is None:
        await drive.conclude(drive.stopped_as)
        return
    try:
        with drive.ports.tracer.span("agent", provider=drive.turn.provider, attempt=drive.turn.attempt, adopted=worker.has_turn):
            drive.agent_trace = drive.ports.tracer.current()
            await _follow(drive, worker)
    finally:
        await worker.close()


async def _launched(drive: Drive) -> Worker | None:
    """The worker; one that has to wait for a machine with room may do so for as long as a turn may take. None when the turn shall stop
    before. Errors: LaunchFailed, WorkerLost."""
    waits, deadline = False, 0.0
    while True:
        try:
            return await drive.ports.launcher.launch(drive.worker_id)
        except NoRoom as error:
            if drive.stop_requested.is_set():
                return None
            if not waits:
                log.warning("worker.waits", worker_id=str(drive.worker_id), why=error.message)
                told = drive.ports.codec.worker_updated(str(drive.worker_id), "WAITING", launcher=drive.ports.launcher.capability)
                await drive.step("wait", told, key=f"wait.{drive.log.epoch}")
                waits, deadline = True, time.monotonic() + drive.limits.turn_seconds
            elif time.monotonic() > deadline:
                raise LaunchFailed(f"{error.message}; it was waited for that for {drive.limits.turn_seconds:g} s") from error
        with suppress(TimeoutError):
            async with asyncio.timeout(ROOM_SECONDS):
                await drive.stop_requested.wait()


async def _follow(drive: Drive, worker: Worker) -> None:
    journal, turn = drive.ports.journal, drive.turn
    done = await journal.durable_worker_seq(turn.session_id, turn.id, turn.attempt)
    drive.log.open_attempt(drive.worker_envelope(), worker_seq=done)
    phase = "ADOPTED" if worker.has_turn else "READY"
    told = drive.ports.codec.worker_updated(str(drive.worker_id), phase, launcher=drive.ports.launcher.capability)
    # Each server that takes up the turn says so: the one step that a turn may take more than once.
    await drive.step("ready", told, key=f"ready.{drive.log.epoch}", started_at=turn.started_at or now())
    drive.worker = worker
    drive.call()
    stop = _Stop()
    recording = asyncio.create_task(_record(drive, worker, done))
    sides = [asyncio.create_task(_acknowledge(drive, worker)), asyncio.create_task(_stop_when_due(drive, worker, stop))]
    sides.append(asyncio.create_task(_stop_when_outgrown(drive, stop)))
    sides.append(asyncio.create_task(keep_checkpoints(drive)))
    try:
        outcome = await _recorded(recording, sides)
    except WorkerProtocolBroken as error:
        await drive.log.drained()
        await drive.conclude(Outcome(TurnState.FAILED, TurnCode.PROTOCOL, f"the worker broke the protocol: {error.message}"))
    except (WorkerLost, LaunchFailed) as error:
        await drive.log.drained()
        await _lost(drive, error, drive.verdict or stop.outcome)
    else:
        transcript, complaints = await _transcript(drive, worker)
        verdict = drive.verdict or stop.outcome or await _explained(drive, outcome)
        await drive.conclude(verdict, *complaints, transcript=transcript)
    finally:
        drive.worker = None
        await _cancelled([recording, *sides])


async def _recorded(recording: asyncio.Task[Outcome], sides: Sequence[asyncio.Task[None]]) -> Outcome:
    """The recording's outcome. A side task that fails ends the turn too: without acknowledgements it would stand still, and without
    the one that stops it nothing would."""
    working = set(sides)
    while not recording.done():
        await asyncio.wait({recording, *working}, return_when=asyncio.FIRST_COMPLETED)
        for side in {side for side in working if side.done()}:
            working.discard(side)
            if side.cancelled():
                raise RuntimeError("a side task of the turn was cancelled by somebody else")
            side.result()
    return recording.result()


async def _record(drive: Drive, worker: Worker, done: int) -> Outcome:
    """Worker event → journal, until the result; returns when everything before it is durable."""
    if done and not worker.has_turn:
        raise WorkerLost("the worker does not know its turn any more")
    counted, said = drive.ports.models.serves(drive.turn.provider), 0
    if worker.has_turn:
        stream = worker.resume(done)
    else:
        await _remind(drive, worker)
        stream = worker.execute(_assignment(drive))
    async with aclosing(stream) as items:
        async for item in items:
            if isinstance(item, WorkerResult):
                if item.last_worker_seq != drive.log.submitted_worker_seq:
                    raise WorkerProtocolBroken(f"the result counts {item.last_worker_seq} events, {drive.log.submitted_worker_seq} came")
                await drive.log.drained()
                _trace(drive, item)
                return item.outcome
            said += _size(item)
            if said > MAX_TURN_BYTES:
                raise WorkerProtocolBroken(f"it said more than {MAX_TURN_BYTES >> 20} MiB in one turn")
            if isinstance(item, WorkerRequest):
                await hear_request(drive, item)
            elif isinstance(item, WorkerNotice):
                await hear_notice(drive, item)
            else:
                if counted and "usage_updated" in item.kinds:
                    raise WorkerProtocolBroken("it told what its models used, and that is counted by the server")
                for _ in range(item.kinds.count("provider_raw")):
                    # Counted: an agent that says what we do not know needs a newer provider.
                    drive.ports.mark("provider.raw")
                await drive.ports.journal.submit(drive.log, drive.redactor.batch(item))
    raise WorkerLost("the worker's stream ended without a result")


def _trace(drive: Drive, result: WorkerResult) -> None:
    """The worker's part of the agent's span: it cannot reach a collector itself. Its clock counts as far as it can be true."""
    if result.worked is None or drive.turn.started_at is None:
        return
    began, ended = max(result.worked[0], drive.turn.started_at), min(result.worked[1], now())
    if began <= ended:
        drive.ports.tracer.record("worker", began, ended)


async def _remind(drive: Drive, worker: Worker) -> None:
    """Give the agent what it left in its last turn of this session, if it had one. Errors: WorkerLost."""
    if transcript := await _stored_transcript(drive):
        await worker.load_transcript(transcript)


async def _stored_transcript(drive: Drive) -> bytes:
    attempt = 0
    while True:
        try:
            return await drive.ports.turns.transcript(drive.session.id, drive.turn.provider)
        except StoreUnavailable:
            await asyncio.sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])
            attempt += 1


async def _transcript(drive: Drive, worker: Worker) -> tuple[bytes, list[Fact]]:
    """What the agent wants to remember, without secrets. Should it not be had, the one from before stays, and an event says so."""
    drive.ports.mark("transcript.before")
    try:
        transcript = await worker.read_transcript()
    except (WorkerLost, WorkerProtocolBroken) as error:
        log.warning("turn.transcript_lost", error=error.message)
        message = f"the agent will not remember this turn: {error.message}"
        return b"", [drive.ports.codec.error("TRANSCRIPT_LOST", message, retryable=False, fatal=False)]
    drive.ports.mark("transcript.after")
    return await asyncio.to_thread(drive.redactor.document, transcript), []


def _size(item: WorkerItem) -> int:
    if isinstance(item, WorkerNotice):
        return NOTICE_BYTES
    return sum(map(len, (item.batch if isinstance(item, WorkerRequest) else item).bodies))


async def _acknowledge(drive: Drive, worker: Worker) -> None:
    """Durable → acknowledged, early enough that the worker's window never fills while the journal keeps up; a call for each commit
    cost more than the commit."""
    done = drive.log.durable_worker_seq
    while True:
        await drive.log.durable(done)
        with suppress(TimeoutError):
            async with asyncio.timeout(ACKNOWLEDGE_SECONDS):
                await drive.log.durable(done + ACKNOWLEDGE_EVENTS - 1)
        done = drive.log.durable_worker_seq
        drive.ports.mark("acknowledge.before")
        while not await worker.acknowledge(done):
            await asyncio.sleep(ACKNOWLEDGE_SECONDS)
            done = drive.log.durable_worker_seq
        drive.ports.mark("acknowledge.after")


async def _stop_when_due(drive: Drive, worker: Worker, stop: _Stop) -> None:
    """Stop the agent when a user asks or its time is up: first politely, then for good. The stream tells `_record` of either."""
    stop.outcome = await _due(drive)
    try:
        await worker.interrupt(stop.outcome.message)
    except WorkerLost as error:
        log.info("worker.interrupt_failed", error=error.message)
    else:
        await asyncio.sleep(drive.limits.interrupt_grace_seconds)
    await _collected(drive)


async def _stop_when_outgrown(drive: Drive, stop: _Stop) -> None:
    """Stop the agent at once when its workspace takes more of the disk than it may."""
    while drive.limits.workspace_bytes or drive.limits.workspace_files:
        began = time.monotonic()
        if too_much := await _outgrown(drive):
            message = f"the workspace {too_much} and the agent was stopped"
            stop.outcome = Outcome(TurnState.FAILED, TurnCode.OUT_OF_DISK, message)
            await drive.ports.launcher.collect(drive.worker_id)
            return
        await asyncio.sleep(min(max(DISK_SECONDS, DISK_PAUSES * (time.monotonic() - began)), DISK_MOST_SECONDS))


async def _outgrown(drive: Drive) -> str:
    """What of the disk the workspace has too much of, if anything."""
    most_bytes, most_files = drive.limits.workspace_bytes, drive.limits.workspace_files
    took = await drive.ports.launcher.occupied(drive.worker_id)
    if not took.counted:
        return "has so many files that counting them took too long"
    if most_bytes and took.bytes > most_bytes:
        return f"took more than {most_bytes >> 20} MiB of the disk"
    if most_files and took.files > most_files:
        return f"had more than {most_files:,} files and directories"
    return ""


async def _due(drive: Drive) -> Outcome:
    """Wait until a user asks or the time is up. The clock stands still while the agent waits for people."""
    while not drive.stop_requested.is_set():
        seen, left = drive.changes.count, drive.seconds_left()
        if left is not None and left <= 0:
            limit = f"{drive.limits.turn_seconds:g} s"
            return Outcome(TurnState.FAILED, TurnCode.TIMEOUT, f"the turn took longer than {limit} and was stopped")
        await drive.changes.after(seen, left)
    return drive.stopped_as


async def _lost(drive: Drive, error: WorkerLost | LaunchFailed, stopped: Outcome | None = None) -> None:
    """The worker is gone, or given up. What it wrote is still there, and will be published as soon as it is gone."""
    end = WorkerExit(code=None)
    if not isinstance(error, _NotEnded):  # asking takes a minute where nobody answers, and who publishes asks again
        try:
            end = await _collected(drive)
        except _NotEnded as failed:
            log.warning("worker.not_ended", worker_id=str(drive.worker_id), error=failed.message)
    told = drive.ports.codec.worker_updated(str(drive.worker_id), "LOST", launcher=drive.ports.launcher.capability, worker_exit=end)
    await drive.conclude(stopped or _loss(error, end), told)


async def _collected(drive: Drive) -> WorkerExit:
    """Errors: _NotEnded."""
    try:
        return await drive.ports.launcher.collect(drive.worker_id)
    except WorkerLost as error:
        raise _NotEnded(error.message) from error


async def _explained(drive: Drive, outcome: Outcome) -> Outcome:
    """What the worker says of its failure, or what it could not know: that something of it was killed for the lack of memory. Nothing is
    wanted of it any more."""
    if outcome.status is not TurnState.FAILED:
        return outcome
    try:
        end = await drive.ports.launcher.collect(drive.worker_id)
    except WorkerLost:  # who imports its work will try again
        return outcome
    if not end.oom_killed:
        return outcome
    message = f"a process of the worker used more memory than it may; then its agent failed: {outcome.message}"
    return Outcome(TurnState.FAILED, TurnCode.OUT_OF_MEMORY, message)


def _loss(error: WorkerLost | LaunchFailed, end: WorkerExit) -> Outcome:
    if end.oom_killed:
        return Outcome(TurnState.FAILED, TurnCode.OUT_OF_MEMORY, "the worker used more memory than it may")
    how = f" (exit code {end.code})" if end.code is not None and not end.stopped else ""
    return Outcome(TurnState.FAILED, TurnCode.WORKER_LOST, f"{error.message}{how}")


def _assignment(drive: Drive) -> Assignment:
    turn = drive.turn
    return Assignment(
        session_id=turn.session_id,
        turn_id=turn.id,
        attempt=turn.attempt,
        turn_number=turn.number,
        provider=turn.provider,
        model=turn.model,
        prompt=turn.prompt,
        trace_parent=drive.ports.tracer.current(),
        max_steps=drive.limits.agent_steps,
        approvals=turn.approvals,
        allowed_hosts=drive.session.allowed_hosts,
    )


async def _cancelled(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """End tasks whose results have been seen, or do not matter any more."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
