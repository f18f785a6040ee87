"""First part of a turn: the repository, the branch, the workspace."""

from __future__ import annotations

from functools import partial

from server.kernel import naming
from server.kernel.errors import (
    BranchUnknown,
    LaunchFailed,
    PushRefused,
    RepositoryNotAllowed,
    RepositoryUnreachable,
    SnapshotDamaged,
    SnapshotUnavailable,
    WorkspaceFailed,
)
from server.kernel.event import Fact
from server.kernel.ports.event_codec import EventCodec
from server.kernel.ports.launcher import WorkerId, WorkerSpec
from server.kernel.ports.turn_store import Reset
from server.kernel.push_refusal import PushOutcome
from server.kernel.session import SessionState
from server.kernel.supervisor.drive import Drive, patiently
from server.kernel.supervisor.names import Wanted, asking_for_names, branch_of, title_of
from server.kernel.turn import Outcome, Turn, TurnCode, TurnState


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
    except (RepositoryUnreachable, RepositoryNotAllowed, BranchUnknown, PushRefused, SnapshotUnavailable, SnapshotDamaged) as error:
        await drive.conclude(Outcome(TurnState.FAILED, TurnCode.REPOSITORY, error.message))
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
        if commit != session.head_commit and await patiently(restored):
            commit = await patiently(fetch)
    cloned = drive.ports.codec.git_updated(
        "CLONED", repository=session.repository_url, branch=session.branch, base_branch=session.base_branch, sha=commit
    )
    await drive.step("fetch", cloned, base_commit=commit)


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
