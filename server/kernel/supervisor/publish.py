"""Last part of a turn, in every case: what there is gets imported, committed, pushed and kept; then the turn ends."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import structlog

from server.kernel.errors import (
    KernelError,
    ObjectStoreUnavailable,
    PushRefused,
    RepositoryNotAllowed,
    SnapshotDamaged,
    SnapshotUnavailable,
    StoreUnavailable,
    WorkerLost,
    WorkspaceFailed,
)
from server.kernel.event import Fact
from server.kernel.history import Snapshot
from server.kernel.identity import Principal
from server.kernel.ports.launcher import WorkerExit
from server.kernel.ports.repositories import Author, Diff, Imported, KeptCommit
from server.kernel.push_refusal import PushOutcome, PushRefusal
from server.kernel.supervisor.drive import Drive, now, patiently
from server.kernel.supervisor.names import commit_message, commit_message_of
from server.kernel.turn import SESSION_STATE, Outcome, TurnCode, TurnState
from server.kernel.uploads import store_bundle

MAX_PATCH_BYTES = 128 * 1024
MAX_LISTED_FILES = 500
_FIRST_PAUSE_SECONDS = 0.5

log = structlog.get_logger()


class _NotEnded(WorkerLost):
    """The worker could not be ended for as long as that was tried: it may still be there."""


async def publish(drive: Drive) -> None:
    """From FINALIZING to the terminal event; each step that was taken already is skipped."""
    outcome = drive.turn.outcome
    if outcome is None:
        raise ValueError("a turn is published when its outcome is known")
    if drive.turn.attempt and not drive.turn.imported:
        try:
            await _import(drive)
        except _NotEnded as error:
            await _keep_slot(drive, error)
            return
        except WorkspaceFailed as error:
            await _keep_workspace(drive, error)
            return
    if drive.turn.commit and not drive.turn.push_attempted:
        await _have_commit(drive)
    if _unpublished(drive) and not drive.turn.push_attempted:
        await _push(drive)
    if drive.turn.commit and not drive.turn.snapshot_state:
        await _keep(drive)
    await end(drive, drive.turn.outcome or outcome, imported=drive.turn.imported and not await _is_elsewhere(drive))


async def _is_elsewhere(drive: Drive) -> bool:
    """Whether the worker's files are on another machine. Should it come back, they hold what no checkpoint has, so they are not imported
    yet: the server there publishes them (rescue.py)."""
    if not drive.turn.attempt:
        return False
    launcher = drive.ports.launcher
    try:
        await launcher.live(drive.worker_id)
    except WorkerLost:
        return drive.worker_id not in await launcher.leftovers()
    return False


async def _import(drive: Drive) -> None:
    """Only when no process of the worker is left does anybody look at what it wrote. Errors: WorkspaceFailed, _NotEnded."""
    ports = drive.ports
    told = [_exited(drive, await _patiently_ended(drive))]
    outcome, is_checkpoint = drive.turn.outcome, False
    try:
        imported = await _patiently_read_back(drive)
    except WorkerLost as error:  # it ran on another machine: here is nothing to read, now or later
        imported, sentence = await _last_checkpoint(drive, error)
        is_checkpoint = True
        told.append(ports.codec.error("WORKSPACE", sentence, retryable=False, fatal=False))
        outcome = _worse(outcome, TurnCode.WORKER_LOST, sentence)
    diff, message = Diff(), message_by_rule(drive)
    if imported.commit:
        diff = await sum_up(drive, drive.turn.base_commit, imported.commit)
        if is_checkpoint:
            log.info("turn.ends_with_checkpoint", commit=imported.commit)
        elif imported.agent_made_the_last:
            message = drive.redactor.text(imported.kept[-1].message)
        else:
            imported, message = await _reworded(drive, imported, imported.commit, diff)
    told.append(ports.codec.file_changed(diff))
    told += await _git_facts(drive, imported, diff, message)
    await drive.step(
        "import",
        *told,
        imported=True,
        commit=imported.commit or "",
        commit_message=message if imported.commit else "",
        head_commit=imported.commit,
        outcome=outcome,
    )
    if drive.prepared:
        await _keep_prepared(drive, drive.prepared)


async def _last_checkpoint(drive: Drive, lost: WorkerLost) -> tuple[Imported, str]:
    """What there is of the work of a worker whose files are gone, and a sentence for its user."""
    newest = await patiently(partial(drive.ports.history.checkpoint, drive.turn))
    unless = ", unless that machine comes back: then it is published too" if await _is_elsewhere(drive) else ""
    if newest is None:
        return Imported(None, ""), f"{lost.message}; what it did is lost{unless}"
    stored = await patiently(partial(drive.ports.history.stored_checkpoints, drive.turn))
    # The newest may have been on its way into the object store when its machine was lost. One that is damaged takes those with it that
    # stand on it, and no other. An object store that is away is waited for once.
    patience, why = drive.limits.import_retry_seconds, ""
    until = time.monotonic() + patience
    for kept in stored if newest.stored else [newest, *stored]:
        refusal = await _brought(drive, kept.commit, lost, until=until)
        if not refusal:
            told = f"{lost.message}; its work is kept up to {_named(kept)}; what it did after that is lost{unless}"
            return Imported(kept.commit, ""), told
        if not kept.stored:
            until = time.monotonic() + patience
        why = why or refusal
    again = f"to go on from it later: treadle restore {drive.session.id} --at {newest.number}"
    return Imported(None, ""), f"{lost.message}; there is {_named(newest)} of its work, which cannot be had now: {why}; {again}"


def _named(checkpoint: Snapshot) -> str:
    return f"the checkpoint of {checkpoint.created_at:%H:%M:%S} UTC (snapshot {checkpoint.number})"


async def _brought(drive: Drive, commit: str, lost: WorkerLost, *, until: float) -> str:
    """Have a checkpoint's commit in the mirror, from the object store; why not, if that takes too long. It is tried once at least."""
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            await drive.ports.retrieval.ensure(drive.session, commit)
        except (SnapshotUnavailable, SnapshotDamaged) as error:
            if isinstance(error, SnapshotDamaged) or time.monotonic() + pause > until:
                log.warning("checkpoint.not_brought", commit=commit, error=error.message, lost=lost.message)
                return error.message
        except StoreUnavailable as error:
            log.warning("checkpoint.retried", error=error.message, pause_s=pause)
        else:
            return ""
        await asyncio.sleep(pause)
        pause *= 2


async def _keep_prepared(drive: Drive, digest: str) -> None:
    """For later turns. Without it, they prepare anew."""
    try:
        await drive.ports.repositories.keep_prepared(
            drive.repository,
            commit=drive.turn.base_commit,
            base_branch=drive.session.base_branch,
            workspace=await drive.ports.launcher.left(drive.worker_id),
            digest=digest,
        )
    except (WorkspaceFailed, WorkerLost) as error:
        log.warning("prepared.not_kept", error=error.message)


async def _patiently_ended(drive: Drive) -> WorkerExit:
    """Who ends workers may be away for a while, as a container engine that is started anew. Errors: _NotEnded."""
    deadline = time.monotonic() + drive.limits.import_retry_seconds
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            return await drive.ports.launcher.collect(drive.worker_id)
        except WorkerLost as error:
            if time.monotonic() + pause > deadline:
                raise _NotEnded(error.message) from error
            log.warning("worker.not_ended", worker_id=str(drive.worker_id), error=error.message, pause_s=pause)
        await asyncio.sleep(pause)
        pause *= 2


async def _keep_slot(drive: Drive, error: _NotEnded) -> None:
    """The worker may still write, so nobody reads what it wrote; a sweep ends it as soon as that can be done, and publishes its work."""
    ports = drive.ports
    try:
        kept = await ports.launcher.left(drive.worker_id)
    except WorkerLost as lost:
        await end(drive, _worse(drive.turn.outcome, TurnCode.WORKER_LOST, lost.message))
        return
    log.error("worker.given_up", worker_id=str(drive.worker_id), error=error.message, workspace=str(kept))
    message = (
        f"the worker could not be ended, so its work was not published: {error.message}; see that the spawner and the container engine "
        f"answer; the work is not lost: the server keeps it in {'/'.join(kept.parts[-2:])} below TREADLE_WORKER_ROOT, and publishes it "
        "when the worker has been ended"
    )
    told = ports.codec.error("WORKSPACE", message, retryable=False, fatal=False)
    await end(drive, _worse(drive.turn.outcome, TurnCode.WORKER_LOST, message), told)


async def _patiently_read_back(drive: Drive) -> Imported:
    """What is in the way may pass: a full disk, a mirror in use, a machine too busy to be in time. Errors: WorkspaceFailed."""
    deadline = time.monotonic() + drive.limits.import_retry_seconds
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            with drive.passing("import"):
                return await read_back(drive, await drive.ports.launcher.left(drive.worker_id))
        except WorkspaceFailed as error:
            if time.monotonic() + pause > deadline:
                raise
            log.warning("import.retried", error=error.message, pause_s=pause)
        await _fetch_again(drive)
        await asyncio.sleep(pause)
        pause *= 2


async def _fetch_again(drive: Drive) -> None:
    """What the turn stands on may not be in this replica's mirror, where another one had begun the turn. It is on the turn's branch."""
    try:
        await patiently(
            partial(
                drive.ports.repositories.fetch,
                drive.repository,
                branch=drive.session.base_branch,
                session_branch=drive.turn.branch,
                head_commit=drive.turn.base_commit,
            )
        )
    except KernelError as error:
        log.warning("import.not_fetched", error=error.message)


async def _keep_workspace(drive: Drive, error: WorkspaceFailed) -> None:
    """The turn ends without being imported, so nobody deletes what its worker left. Where that is, its log and the server's say."""
    ports, outcome = drive.ports, drive.turn.outcome
    kept = await ports.launcher.left(drive.worker_id)
    log.error("import.failed", error=error.message, workspace=str(kept))
    message = (
        f"{error.message}; the work is not lost: the server keeps it in {'/'.join(kept.parts[-2:])} below TREADLE_WORKER_ROOT, and tries "
        "again to publish it"
    )
    told = ports.codec.error("WORKSPACE", message, retryable=False, fatal=False)
    ended = await ports.launcher.collect(drive.worker_id)
    await end(drive, _worse(outcome, TurnCode.WORKSPACE, message), _exited(drive, ended), told)


async def sum_up(drive: Drive, base: str, head: str, *, max_patch_bytes: int = MAX_PATCH_BYTES) -> Diff:
    """For people to read. Whether it succeeds decides nothing: the work is committed."""
    try:
        return await drive.ports.repositories.diff(
            drive.repository, base=base, head=head, max_patch_bytes=max_patch_bytes, max_files=MAX_LISTED_FILES
        )
    except WorkspaceFailed as error:
        log.warning("diff.failed", error=error.message)
        return Diff(truncated=True)


def _exited(drive: Drive, ended: WorkerExit) -> Fact:
    ports = drive.ports
    return ports.codec.worker_updated(str(drive.worker_id), "EXITED", launcher=ports.launcher.capability, worker_exit=ended)


async def _reworded(drive: Drive, imported: Imported, commit: str, diff: Diff) -> tuple[Imported, str]:
    """With a message by a model, if there is one; it is not worth a failure."""
    better = await commit_message_of(drive, diff)
    if better is None:
        return imported, message_by_rule(drive)
    try:
        made = await drive.ports.repositories.reword(drive.repository, session_id=drive.turn.session_id, commit=commit, message=better)
    except WorkspaceFailed as error:
        log.warning("commit.not_reworded", error=error.message)
        return imported, message_by_rule(drive)
    return replace(imported, commit=made), better


async def read_back(drive: Drive, workspace: Path) -> Imported:
    """What a workspace of the turn holds, as a commit. Errors: WorkspaceFailed."""
    turn = drive.turn
    return await drive.ports.repositories.import_workspace(
        drive.repository,
        session_id=turn.session_id,
        workspace=workspace,
        parent=turn.base_commit,
        message=message_by_rule(drive),
        author=author_of(drive.owner),
        at=turn.started_at or turn.created_at or now(),
        until=turn.concluded_at or now(),
        listed=True,
        trailers=drive.limits.trailers.below("", session_id=turn.session_id, provider=turn.provider),
    )


def author_of(owner: Principal) -> Author:
    """The user. Of a name Git drops blanks and some punctuation at its ends, and it refuses one of which nothing is left."""
    return Author(owner.name if any(map(str.isalnum, owner.name)) else owner.user_id, owner.email)


def message_by_rule(drive: Drive) -> str:
    """Of a commit with all of the turn's work."""
    return commit_message(drive, drive.shown_prompt)


async def _git_facts(drive: Drive, imported: Imported, diff: Diff, message: str) -> list[Fact]:
    """What was left out, and each commit, the agent's own before Treadle's."""
    codec, session, turn = drive.ports.codec, drive.session, drive.turn
    told = partial(codec.git_updated, repository=session.repository_url, branch=turn.branch)
    facts: list[Fact] = []
    if imported.skipped_count:
        facts.append(told("SKIPPED", skipped=imported.skipped, skipped_count=imported.skipped_count))
    commits = [KeptCommit(kept.sha, drive.redactor.text(kept.message)) for kept in imported.kept]
    if imported.commit and not imported.agent_made_the_last:
        commits.append(KeptCommit(imported.commit, message))
    diffs = [diff] if len(commits) == 1 else await _sum_up_each(drive, turn.base_commit, [commit.sha for commit in commits])
    for commit, of_it in zip(commits, diffs, strict=True):
        facts.append(told("COMMITTED", base_branch=session.base_branch, sha=commit.sha, message=commit.message, diff=of_it))
    return facts


async def _sum_up_each(drive: Drive, base: str, commits: list[str]) -> list[Diff]:
    """As `sum_up`, of one commit after the other, without patches."""
    try:
        return await drive.ports.repositories.diff_each(drive.repository, base=base, commits=commits, max_files=MAX_LISTED_FILES)
    except WorkspaceFailed as error:
        log.warning("diff.failed", error=error.message)
        return [Diff(truncated=True) for _ in commits]


async def _have_commit(drive: Drive) -> None:
    """A replica that is gone may have made the commit, and only its own mirror has it. What it was made of is here until the turn has
    ended, and makes the same commit again, unless a model worded it: then the push fails and says so."""
    ports, turn = drive.ports, drive.turn
    if await ports.repositories.holds(drive.repository, turn.commit):
        return
    await _fetch_again(drive)
    try:
        made = await read_back(drive, await ports.launcher.left(drive.worker_id))
    except WorkerLost as error:  # then it was a checkpoint
        await _brought(drive, turn.commit, error, until=time.monotonic() + drive.limits.import_retry_seconds)
    except WorkspaceFailed as error:
        log.warning("commit.not_made_again", commit=turn.commit, error=error.message)
    else:
        log.info("commit.made_again", commit=turn.commit, made=made.commit)


def _unpublished(drive: Drive) -> str:
    """What is to be pushed: the turn's commit, else one that is left from before, where the turn went on from there."""
    turn, session = drive.turn, drive.session
    return turn.commit or (session.unpushed_commit if turn.imported and turn.base_commit == session.head_commit else "")


async def _push(drive: Drive) -> None:
    """A refusal is told and keeps the commit; PushSession, or the next turn of the session, tries again."""
    ports, session, turn = drive.ports, drive.session, drive.turn
    commit = _unpublished(drive)
    told = partial(ports.codec.git_updated, repository=session.repository_url, branch=turn.branch, sha=commit)
    try:
        with drive.passing("push"):
            await patiently(partial(ports.repositories.push, drive.repository, branch=turn.branch, commit=commit, create=False))
    except PushRefused as error:
        outcome = PushOutcome("", error.kind, error.reason)
    except RepositoryNotAllowed as error:
        outcome = PushOutcome("", PushRefusal.OTHER, error.metadata["reason"])
    else:
        await drive.step("push", told("PUSHED"), push_attempted=True, pushed=True, push=PushOutcome(commit))
        return
    refused = told("PUSH_FAILED", message=outcome.message, refusal=outcome.refusal)
    await drive.step("push", refused, push_attempted=True, pushed=False, push=outcome)


async def _keep(drive: Drive) -> None:
    """A snapshot in the object store. When the store is away the turn still completes: the sweeper tries again."""
    ports = drive.ports
    try:
        with drive.passing("snapshot"):
            stored = await store_bundle(
                ports.repositories,
                ports.objects,
                drive.repository,
                session_id=drive.turn.session_id,
                name=drive.turn.id,
                base=drive.turn.base_commit,
                head=drive.turn.commit,
                scratch=drive.limits.scratch,
            )
    except (ObjectStoreUnavailable, WorkspaceFailed) as error:
        log.warning("snapshot.pending", error=error.message)
        told = ports.codec.error("SNAPSHOT_PENDING", f"the snapshot will be stored later: {error.message}", retryable=True, fatal=False)
        await drive.step("snapshot", told, snapshot_state="PENDING")
        return
    turn = replace(drive.turn, snapshot_key=stored.key, snapshot_sha256=stored.sha256, snapshot_size=stored.size)
    await drive.step(
        "snapshot",
        ports.codec.snapshot_added(turn),
        snapshot_state="STORED",
        snapshot_key=stored.key,
        snapshot_sha256=stored.sha256,
        snapshot_size=stored.size,
    )


async def end(drive: Drive, outcome: Outcome, *facts: Fact, imported: bool | None = None) -> None:
    """One terminal event, the last that carries this turn's id, after `facts`. `imported`: whether what its worker left is nobody's."""
    ended = replace(drive.turn, state=outcome.status, outcome=outcome, ended_at=now())
    await drive.step(
        "end",
        *facts,
        drive.ports.codec.session_updated(SESSION_STATE[outcome.status]),
        drive.ports.codec.turn_completed(ended),
        state=outcome.status,
        outcome=outcome,
        ended_at=ended.ended_at,
        imported=drive.turn.imported if imported is None else imported,
    )


def _worse(outcome: Outcome | None, code: TurnCode, message: str) -> Outcome:
    """A turn whose work could not be read back has failed, whatever its agent says."""
    if outcome is not None and outcome.status is TurnState.FAILED:
        return outcome
    return Outcome(TurnState.FAILED, code, message)
