"""Work of a turn that had to end while its worker could not be ended, or its workspace not be read here: published behind the turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog

from server.kernel import naming
from server.kernel.errors import HeadMoved, PushRefused, TurnActive
from server.kernel.event import Fact
from server.kernel.history import NewSnapshot, SnapshotKind
from server.kernel.ids import new_id
from server.kernel.ports.launcher import WorkerId
from server.kernel.ports.repositories import Repository
from server.kernel.ports.turn_store import Ended
from server.kernel.push_refusal import PushOutcome
from server.kernel.redaction import Redactor
from server.kernel.supervisor.drive import Limits, Ports, now, patiently
from server.kernel.supervisor.names import message_of
from server.kernel.supervisor.publish import MAX_LISTED_FILES, MAX_PATCH_BYTES, author_of

_BRANCH_CHARS = 180

log = structlog.get_logger()


async def rescue(ports: Ports, limits: Limits, worker: WorkerId) -> bool:
    """Import, commit, push, and tell it in the session's log. The worker was collected: nobody writes there any more. Returns False where
    that has to wait for a turn of the session that is active. May be repeated after a crash at any point.

    Of a machine that was lost, the turn has published the last checkpoint: then what came after it is one commit on top of that.

    Errors: WorkspaceFailed, WorkerLost, SnapshotUnavailable, SnapshotDamaged, PushRefused, RepositoryNotAllowed, StoreUnavailable:
    nothing is lost, the files stay.
    """
    ended = await ports.turns.ended(worker.turn_id)
    if ended is None or ended.turn.attempt != worker.attempt or ended.session.active_turn_id:
        return False
    turn, session = ended.turn, ended.session
    repository = session.repository
    base = turn.commit or turn.base_commit
    await ports.retrieval.ensure(session, base)
    message = message_of(limits, turn, Redactor(ports.secrets()).text(turn.prompt))
    # Under a name of its own: the session's may stand for other work by now.
    imported = await ports.repositories.import_workspace(
        repository,
        session_id=turn.id,
        workspace=await ports.launcher.left(worker),
        parent=base,
        message=message,
        author=author_of(ended.owner),
        at=turn.started_at or turn.created_at or now(),
        until=turn.concluded_at or now(),
        listed=base == turn.base_commit,
    )
    if imported.commit:
        if imported.agent_made_the_last:
            message = Redactor(ports.secrets()).text(imported.kept[-1].message)
        try:
            await _publish(ports, ended, _Work(repository, base, imported.commit, message))
        except (TurnActive, HeadMoved):
            return False
    await ports.turns.rescued(turn.id)
    await ports.repositories.forget(repository, session_id=turn.id)
    log.info("work.rescued", session_id=session.id, turn_id=turn.id, commit=imported.commit)
    return True


@dataclass(frozen=True)
class _Work:
    repository: Repository
    base: str
    commit: str
    message: str


async def _publish(ports: Ports, ended: Ended, work: _Work) -> None:
    diff = await ports.repositories.diff(
        work.repository, base=work.base, head=work.commit, max_patch_bytes=MAX_PATCH_BYTES, max_files=MAX_LISTED_FILES
    )
    told = partial(ports.codec.git_updated, repository=ended.session.repository_url, sha=work.commit)
    committed = partial(told, "COMMITTED", message=work.message, diff=diff)
    if ended.session.head_commit in ("", work.base):
        await _go_on(ports, ended, work, committed)
    else:
        await _beside(ports, ended, work, committed)


async def _go_on(ports: Ports, ended: Ended, work: _Work, committed: Callable[..., Fact]) -> None:
    """The session stands where the work begins: it goes on from there, as if the turn had published it."""
    session, branch = ended.session, ended.session.branch
    snapshot = NewSnapshot(SnapshotKind.TURN, work.commit, work.base, work.message)
    await ports.notes.record(ended.owner, session.id, head=session.head_commit, snapshot=snapshot, facts=[committed(branch=branch)])
    await ports.trees.keep(work.repository, session.id, work.commit)
    told = partial(ports.codec.git_updated, repository=session.repository_url, branch=branch, sha=work.commit)
    try:
        await patiently(partial(ports.repositories.push, work.repository, branch=branch, commit=work.commit, create=False))
    except PushRefused as error:
        fact, outcome = told("PUSH_FAILED", message=error.reason, refusal=error.kind), PushOutcome("", error.kind, error.reason)
    else:
        fact, outcome = told("PUSHED"), PushOutcome(work.commit)
    await ports.notes.note(ended.owner, session.id, key=f"push/{work.commit}/{new_id()}", facts=[fact], push=outcome)


async def _beside(ports: Ports, ended: Ended, work: _Work, committed: Callable[..., Fact]) -> None:
    """The session has gone on without the work, which gets a branch of its own for its user to merge."""
    session = ended.session
    branch = f"{session.branch[:_BRANCH_CHARS].rstrip('./-')}-turn-{ended.turn.number}"
    naming.check_branch_name(branch)
    await ports.repositories.push(work.repository, branch=branch, commit=work.commit, create=True)
    pushed = ports.codec.git_updated("PUSHED", repository=session.repository_url, branch=branch, sha=work.commit)
    await ports.notes.note(ended.owner, session.id, key=f"rescue/{work.commit}/{new_id()}", facts=[committed(branch=branch), pushed])
