"""The work of a long turn, kept while it goes on: with a machine goes only what came after the last checkpoint."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import structlog

from server.kernel.errors import Fenced, StorageExhausted, WorkerLost, WorkspaceFailed
from server.kernel.finish import Finishing
from server.kernel.history import NewSnapshot, SnapshotKind
from server.kernel.ports.turn_store import Changes
from server.kernel.supervisor.drive import Drive, patiently
from server.kernel.supervisor.publish import message_by_rule, read_back

PAUSES = 20
"""A workspace is read no longer than one part of so many of the time."""
WALK_SECONDS = 60.0
"""One that takes longer to read keeps others from theirs."""
LONGEST_CHAIN = 10
"""So many stand each on the one before. Then all of the turn's work is stored anew, and they can go."""

log = structlog.get_logger()


async def keep_checkpoints(drive: Drive) -> None:
    """Until cancelled. One that cannot be taken stops nothing: the next is tried in its time."""
    if not drive.limits.checkpoint_seconds:
        return
    pause, count, finishing = drive.limits.checkpoint_seconds, 0, Finishing()
    chained = 0  # those of another server may not be in this one's mirror: nothing stands on them
    try:
        while True:
            await asyncio.sleep(pause)
            began, count = time.monotonic(), count + 1
            try:
                await patiently(partial(drive.ports.quota.check, drive.owner))
                drive.ports.mark("checkpoint.wait.before")
                async with drive.ports.checkpointing.place((drive.owner.tenant_id, drive.owner.user_id)):
                    drive.ports.mark("checkpoint.wait.after")
                    began = time.monotonic()
                    taken = await _taken(drive, goes_on=0 < chained < LONGEST_CHAIN)
                if taken is not None:
                    # A step that has begun is taken to its end: nobody could tell otherwise how the turn stands.
                    await finishing.run(_kept(drive, taken, key=f"checkpoint.{drive.log.epoch}.{count}"))
                    chained = 1 if taken.parent == drive.turn.base_commit else chained + 1
            except WorkerLost as error:
                log.info("checkpoints.not_here", worker_id=str(drive.worker_id), why=error.message)
                return
            except (WorkspaceFailed, StorageExhausted) as error:
                log.warning("checkpoint.not_taken", error=error.message)
            except Fenced:
                raise
            except Exception:  # the turn's owner: a defect here is logged, and ends no turn
                log.exception("checkpoint.failed")
            pause = max(drive.limits.checkpoint_seconds, PAUSES * (time.monotonic() - began))
    finally:
        await finishing.finished()


async def _taken(drive: Drive, *, goes_on: bool) -> NewSnapshot | None:
    """The workspace as it is read while its agent writes on; None when it is as it was. The commit is the one that the turn would make of
    these files at its end, so what did not change gives the same one again. Its bundle holds what it has over the last one, where it
    may go on from that; else all of the turn's work. Errors: WorkspaceFailed; WorkerLost where it is elsewhere."""
    workspace = await drive.ports.launcher.live(drive.worker_id)
    try:
        async with asyncio.timeout(WALK_SECONDS):
            with drive.passing("checkpoint"):
                imported = await read_back(drive, workspace)
    except TimeoutError as error:
        raise WorkspaceFailed(f"its files could not be read within {WALK_SECONDS:.0f} s") from error
    last = await patiently(partial(drive.ports.history.checkpoint, drive.turn))
    if not imported.commit or (last and imported.commit == last.commit):
        return None
    # On one that is not stored, and may never be, the next would be lost with it.
    stands_on = last.commit if last and last.stored and goes_on else drive.turn.base_commit
    return NewSnapshot(SnapshotKind.CHECKPOINT, imported.commit, stands_on, message_by_rule(drive))


async def _kept(drive: Drive, taken: NewSnapshot, *, key: str) -> None:
    told = drive.ports.codec.git_updated(
        "CHECKPOINTED", repository=drive.session.repository_url, branch=drive.turn.branch, sha=taken.commit, message=taken.message
    )
    await drive.step("checkpoint", told, key=key, changes=Changes(checkpoint=taken))
    made = await patiently(partial(drive.ports.history.checkpoint, drive.turn))
    if made is not None:
        drive.ports.recorded(made)
