"""The life of a turn."""

from __future__ import annotations

import structlog

from server.kernel.errors import Fenced, KernelError
from server.kernel.supervisor.drive import Drive
from server.kernel.supervisor.prepare import prepare
from server.kernel.supervisor.publish import end, publish
from server.kernel.supervisor.work import work
from server.kernel.turn import Outcome, TurnCode, TurnState

log = structlog.get_logger()


async def live(drive: Drive) -> None:
    """Go on from wherever the turn is to its terminal event. Cancelling stops nothing but this process's part: the next process
    that claims the turn goes on. Errors: Fenced, when another replica did that already."""
    await _reach_finalizing(drive)
    await _reach_the_end(drive)
    outcome = drive.turn.outcome
    log.info("turn.ended", state=drive.turn.state, code=outcome.code if outcome else "", commit=drive.turn.commit, pushed=drive.turn.pushed)


async def _reach_the_end(drive: Drive) -> None:
    try:
        await publish(drive)
    except Fenced:
        raise
    except Exception:  # as below: every turn gets its terminal event; the workspace is kept, and tried again
        log.exception("turn.publish_crashed")
        await end(drive, Outcome(TurnState.FAILED, TurnCode.INTERNAL, "a defect of the server kept the work from being published"))


async def _reach_finalizing(drive: Drive) -> None:
    try:
        if drive.turn.state in (TurnState.QUEUED, TurnState.PREPARING):
            await prepare(drive)
        if drive.turn.state is TurnState.RUNNING:
            await work(drive)
    except Fenced:
        raise
    except KernelError as error:
        log.warning("turn.failed", error=error.message, **error.metadata)
        await _conclude_once(drive, Outcome(TurnState.FAILED, TurnCode.INTERNAL, error.message))
    except Exception:  # the supervisor owns turns: a defect ends this one with a typed event and spares the others
        log.exception("turn.crashed")
        await _conclude_once(
            drive, Outcome(TurnState.FAILED, TurnCode.INTERNAL, "a defect of the server ended the turn; its log tells more")
        )


async def _conclude_once(drive: Drive, outcome: Outcome) -> None:
    """What goes wrong after the agent's part was concluded does not change how it ended."""
    if drive.turn.outcome is None:
        await drive.conclude(outcome)
