"""Beside a turn: what people say while it runs gets into the log and to the agent, and what the agent asks waits for its answer.

Callers only write rows. Here, where the session is driven, every change is told by a step, under the lease's epoch, and only then is the
worker told: so an answer stands in the log before anything that the agent makes of it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

import structlog

from server.kernel.errors import Fenced, KernelError, StoreRejected, WorkerProtocolBroken
from server.kernel.ports.desk_store import News
from server.kernel.ports.launcher import NoticeKind, Worker, WorkerNotice, WorkerRequest
from server.kernel.ports.turn_store import Opened
from server.kernel.supervisor.drive import Drive, now, patiently
from server.kernel.turn import TurnState
from server.kernel.user_input import InputState, UserInput

RETRY_SECONDS = 1.0

log = structlog.get_logger()


async def attend(drive: Drive) -> None:
    """Until cancelled, or another replica drives the session: whenever somebody calls, or a request expires, look what is new."""
    if drive.turn.state is TurnState.QUEUED:
        # A caller waits for the turn's first event, and nothing else can be told before it: `prepare` calls then.
        await drive.calls.after(0)
    while True:
        seen = drive.calls.count
        try:
            news = await _expired(drive, await drive.tell())
            if news.interrupting:
                drive.request_stop(f"interrupted by {drive.owner.name} for a new request")
            await _bring(drive, news)
            wait = _until_expiry(news)
        except Fenced:
            return
        except KernelError as error:
            # Nothing is lost: all that is not done is found again.
            log.warning("desk.not_attended", error=error.message)
            wait = RETRY_SECONDS
        await drive.calls.after(seen, wait)


# -- to the worker ----------------------------------------------------------------------------------------------------------


async def _bring(drive: Drive, news: News) -> None:
    """Answers to the requests that wait for them, and inputs to an agent that would take one. All of it can be repeated, and is, for
    a worker that was found again. Errors: WorkerLost."""
    worker = drive.worker
    if worker is None:
        return
    for resolution in news.resolved:
        if resolution.request_id not in drive.answered:
            drive.ports.mark("answer.before")
            await worker.resolve(resolution)
            drive.answered.add(resolution.request_id)
            drive.ports.mark("answer.after")
    for each in news.steering:
        await _steer(drive, worker, each)


async def _steer(drive: Drive, worker: Worker, given: UserInput) -> None:
    if given.state is InputState.QUEUED:
        if not drive.input_wanted or drive.stop_requested.is_set():
            return
        drive.ports.mark("offer.before")
        offered = await drive.ports.desk.offer(drive.turn, given.id, epoch=drive.log.epoch)
        drive.ports.mark("offer.after")
        if not offered:
            # Changed or cancelled a moment ago: look again.
            drive.call()
            return
        drive.input_wanted = False
    elif given.id in drive.given:
        return
    drive.ports.mark("give.before")
    await worker.give(given.id, given.text)
    drive.given.add(given.id)
    drive.ports.mark("give.after")


# -- from the worker --------------------------------------------------------------------------------------------------------


async def hear_request(drive: Drive, asked: WorkerRequest) -> None:
    """The agent asks: its event, the request and the session's state become durable together. Errors: WorkerProtocolBroken, Fenced."""
    drive.log.check(asked.batch)
    batch, request = drive.redactor.batch(asked.batch), asked.request
    await drive.log.drained()
    expires_at = _expiry(drive.limits.request_seconds)
    if expires_at is not None:
        batch = replace(batch, bodies=[drive.ports.codec.expiring(batch.bodies[0], expires_at)])
    try:
        await drive.ask(batch, Opened(request, expires_at))
    except StoreRejected as error:
        raise WorkerProtocolBroken("the worker asked twice under the same id") from error
    drive.call()


async def hear_notice(drive: Drive, notice: WorkerNotice) -> None:
    """What the worker tells that is no event. Known notices come again with every stream. Errors: Fenced."""
    if notice.kind in (NoticeKind.INPUT_WANTED, NoticeKind.INPUT_UNWANTED):
        drive.input_wanted = notice.kind is NoticeKind.INPUT_WANTED
        if drive.input_wanted:
            drive.call()
        return
    if notice.kind is NoticeKind.PREPARED:
        # The first one was told before the agent could tell any.
        drive.prepared = notice.id if drive.prepared is None else drive.prepared
        return
    await drive.log.drained()
    if notice.kind is NoticeKind.INPUT_TAKEN:
        await drive.take(notice.id)
    else:
        await patiently(partial(drive.ports.desk.withdraw, drive.turn, notice.id, epoch=drive.log.epoch))
        await drive.tell()


# -- time -------------------------------------------------------------------------------------------------------------------


async def _expired(drive: Drive, news: News) -> News:
    """The news after requests whose time is over were told so. The database's clock decides, so this may come a little early."""
    if all(each.expires_at is None or each.expires_at > now() for each in news.open):
        return news
    await drive.ports.desk.expire(drive.turn, epoch=drive.log.epoch)
    return await drive.tell()


def _until_expiry(news: News) -> float | None:
    """Seconds until the next request expires; None when none will. One whose time is over here, and is still open, waits for the
    database's clock, which may be a minute behind."""
    moments = [each.expires_at for each in news.open if each.expires_at is not None]
    if not moments:
        return None
    left = (min(moments) - now()).total_seconds()
    return max(0.1, left) if left > 0 else RETRY_SECONDS


def _expiry(seconds: float) -> datetime | None:
    return now() + timedelta(seconds=seconds) if seconds else None
