"""First part of a turn: the repository, the branch, the workspace."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import structlog

from server.kernel import naming
from server.kernel.errors import (
    BranchDiverged,
    BranchUnknown,
    LaunchFailed,
    MirrorBusy,
    PushRefused,
    RepositoryNotAllowed,
    RepositoryUnreachable,
    SnapshotDamaged,
    SnapshotUnavailable,
    StateGone,
    WorkspaceFailed,
)
from server.kernel.event import Fact
from server.kernel.history import NewSnapshot, SnapshotKind
from server.kernel.ports.event_codec import EventCodec
from server.kernel.ports.launcher import WorkerId, WorkerSpec
from server.kernel.ports.turn_store import Changes, Reset
from server.kernel.push_refusal import PushOutcome
from server.kernel.session import SessionState
from server.kernel.supervisor.drive import Drive, now, patiently
from server.kernel.supervisor.names import Wanted, asking_for_names, branch_of, title_of
from server.kernel.supervisor.publish import author_of, sum_up
from server.kernel.turn import Outcome, Turn, TurnCode, TurnState

log = structlog.get_logger()


async def prepare(drive: Drive) -> None:
    """From QUEUED or PREPARING to RUNNING, or to FINALIZING when that is not possible."""
    if drive.turn.state is TurnState.QUEUED:
        # One that shall stop before it got a place has nothing to prepare; but each turn begins in the log before it ends there.
        if not drive.begun or not drive.stop_requested.is_set():
            await _admit(drive)
        drive.ports.rush.leave(drive.turn.id)
    if not drive.turn.base_commit and await _stopped(drive):
        return
    await drive.ports.rush.over()
    try:
        async with asking_for_names(drive) as names:
            if not drive.turn.base_commit:
                await _fetch(drive)
            if not drive.turn.branch:
                await _make_branch(drive, names)
        if await _stopped(drive):
            return
        await _build_workspace(drive)
    except (
        RepositoryUnreachable,
        RepositoryNotAllowed,
        BranchUnknown,
        SnapshotUnavailable,
        SnapshotDamaged,
    ) as error:
        await drive.conclude(Outcome(TurnState.FAILED, TurnCode.REPOSITORY, error.message))
    except BranchDiverged as error:
        # What the session remembers of it says so until it is solved: nothing else could be pushed now.
        kept = drive.ports.codec.git_updated(
            "PUSH_FAILED",
            repository=drive.session.repository_url,
            branch=drive.session.branch,
            sha=error.ours,
            message=error.message,
            refusal=error.kind,
        )
        outcome = Outcome(TurnState.FAILED, TurnCode.REPOSITORY, error.message)
        await drive.conclude(outcome, kept, push=PushOutcome("", error.kind, error.message))
    except PushRefused as error:
        # The branch could not be made. That names no commit: the turn has none, and what the session has stays as it is.
        refused = drive.ports.codec.git_updated(
            "PUSH_FAILED", repository=drive.session.repository_url, message=error.reason, refusal=error.kind
        )
        outcome = Outcome(TurnState.FAILED, TurnCode.REPOSITORY, error.message)
        await drive.conclude(outcome, refused, push=PushOutcome("", error.kind, error.reason))
    except WorkspaceFailed as error:
        await drive.conclude(Outcome(TurnState.FAILED, TurnCode.WORKSPACE, error.message))
    except LaunchFailed as error:
        await drive.conclude(Outcome(TurnState.FAILED, TurnCode.LAUNCH, error.message))


def first_facts(codec: EventCodec, turn: Turn) -> list[Fact]:
    """What the log of a turn begins with."""
    input_id = turn.input_id or f"{turn.id}/input"
    return [codec.turn_started(turn, input_id=input_id), codec.user_input(input_id, turn.prompt)]


async def _admit(drive: Drive) -> None:
    codec, turn = drive.ports.codec, drive.turn
    title = None if drive.session.title else naming.title_from(drive.shown_prompt)
    await drive.step(
        "admit",
        *([] if drive.begun else first_facts(codec, turn)),
        codec.session_updated(SessionState.PROVISIONING, title=title),
        state=TurnState.PREPARING,
        title=title,
    )
    # What was said while nobody drove the session can be told now.
    drive.call()


async def _fetch(drive: Drive) -> None:
    session = drive.session
    fetch = partial(
        drive.ports.repositories.fetch,
        drive.repository,
        branch=session.base_branch,
        session_branch=session.branch,
        head_commit=session.head_commit,
    )
    restored = partial(drive.ports.retrieval.ensure, session, session.head_commit)
    with drive.passing("fetch"):
        commit = await patiently(fetch)
        # What is neither on the remote nor on this server's disk is in the object store.
        if session.head_commit and commit != session.head_commit:
            await patiently(restored)
            commit = await patiently(fetch)  # also where there was nothing to restore: a reader may have brought it since
        merged = await _merged(drive, commit)
    told = partial(drive.ports.codec.git_updated, repository=session.repository_url, branch=session.branch, base_branch=session.base_branch)
    cloned = told("CLONED", sha=commit)
    if merged is None:
        await drive.step("fetch", cloned, base_commit=commit)
        return
    brought = await sum_up(drive, session.head_commit, merged.commit, max_patch_bytes=0)
    committed = told("COMMITTED", sha=merged.commit, message=merged.message, diff=brought)
    # With what was not pushed before, it is pushed at the end of the turn.
    await drive.step("fetch", cloned, committed, base_commit=merged.commit, head_commit=merged.commit, changes=Changes(snapshot=merged))
    try:  # The database has it: this only keeps the mirror from letting go of it some weeks later.
        await drive.ports.trees.keep(drive.repository, session.id, merged.commit)
    except (StateGone, MirrorBusy) as error:
        log.warning("merge.not_kept", session_id=session.id, error=error.message)


async def _merged(drive: Drive, commit: str) -> NewSnapshot | None:
    """Somebody else may have moved the session's branch while the session had commits of its own: edits of its user, or what a push was
    refused for. Neither side is left behind. Errors: BranchDiverged, RepositoryUnreachable."""
    session, repositories = drive.session, drive.ports.repositories
    ours = session.unpushed_commit
    if not ours or await repositories.follows(drive.repository, commit, of=ours):
        return None
    # What was pushed and taken back there, as a secret by mistake, is not brought back by a merge.
    if session.pushed_commit and not await repositories.follows(drive.repository, commit, of=session.pushed_commit):
        raise BranchDiverged(session.branch, theirs=commit, ours=ours)
    trailers = replace(drive.limits.trailers, coauthor="", coauthors={})  # no agent had a part in it
    message = trailers.below(f"Merge {session.branch} as it is on the remote", session_id=session.id, provider="")
    made = await repositories.merge(
        drive.repository,
        ours=ours,
        theirs=commit,
        branch=session.branch,
        message=message,
        author=author_of(drive.owner),
        at=drive.turn.started_at or drive.turn.created_at or now(),
    )
    return NewSnapshot(SnapshotKind.CHECKPOINT, made, ours, message)


async def _make_branch(drive: Drive, wanted: Wanted) -> None:
    """The session's branch, made on the remote before the agent starts: a repository that cannot be pushed to fails now, not later."""
    session, turn = drive.session, drive.turn
    names = await wanted()
    branch, title = branch_of(drive, names), title_of(drive, names)
    facts, pushed = [], None
    if not session.branch:
        with drive.passing("branch"):
            await patiently(partial(drive.ports.repositories.push, drive.repository, branch=branch, commit=turn.base_commit, create=True))
        facts = [
            drive.ports.codec.git_updated(
                "BRANCHED", repository=session.repository_url, branch=branch, base_branch=session.base_branch, sha=turn.base_commit
            )
        ]
        pushed = PushOutcome(turn.base_commit)
    facts.append(drive.ports.codec.session_updated(SessionState.PROVISIONING, title=title, branch=branch))
    await drive.step("branch", *facts, title=title, session_branch=branch, branch=branch, push=pushed)


async def _build_workspace(drive: Drive) -> None:
    ports, turn = drive.ports, drive.turn
    worker = WorkerId(turn.id, turn.attempt + 1)
    spec = WorkerSpec(worker, session_id=turn.session_id, tenant_id=turn.tenant_id, provider=turn.provider)
    into = await ports.launcher.workspace(spec)
    with drive.passing("workspace"):
        await ports.repositories.build_workspace(
            drive.repository, commit=turn.base_commit, branch=turn.branch, base_branch=drive.session.base_branch, into=into
        )
        await ports.launcher.furnished(worker)
    await drive.step(
        "assign",
        ports.codec.worker_updated(str(worker), "STARTING", launcher=ports.launcher.capability),
        ports.codec.session_updated(SessionState.RUNNING),
        state=TurnState.RUNNING,
        reset=Reset(turn.id, worker.attempt),
        attempt=worker.attempt,
    )


async def _stopped(drive: Drive) -> bool:
    if drive.stop_requested.is_set():
        await drive.conclude(drive.stopped_as)
        return True
    return False
