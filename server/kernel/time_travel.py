"""Use cases: a session's history, a fork from any point of it, and the way back to one. None of them needs a worker."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from server.kernel import naming
from server.kernel.errors import (
    HeadMoved,
    InvalidField,
    MirrorBusy,
    RepositoryNotAllowed,
    RepositoryUnreachable,
    SnapshotUnavailable,
    StateGone,
    TurnActive,
    WorkspaceFailed,
)
from server.kernel.event import Fact
from server.kernel.history import NewFork, NewSnapshot, Snapshot, SnapshotKind, SnapshotPage
from server.kernel.identity import Principal
from server.kernel.ids import new_id
from server.kernel.inspection import Inspections
from server.kernel.journal import Notes
from server.kernel.ports.egress import Egress
from server.kernel.ports.event_codec import EventCodec
from server.kernel.ports.history_store import HistoryStore
from server.kernel.ports.repositories import Author, Diff, Repositories
from server.kernel.ports.session_store import SessionStore
from server.kernel.ports.trees import Trees
from server.kernel.quota import Quota
from server.kernel.retrieval import Retrieval
from server.kernel.session import NewSession, Session
from server.kernel.validation import check_page_size, check_request_id, check_title

DEFAULT_PAGE = 50
MAX_PAGE = 200
MAX_PATCH_BYTES = 128 * 1024
MAX_LISTED_FILES = 500

log = structlog.get_logger()


@dataclass(frozen=True)
class ForkRequest:
    """Fields as in treadle.session.v1.ForkSessionRequest."""

    request_id: str
    session_id: str
    at: str
    title: str
    branch: str

    @property
    def digest(self) -> str:
        """Tells a repeated request from a reused request_id."""
        return hashlib.sha256(json.dumps(["fork", self.session_id, self.at, self.title, self.branch]).encode()).hexdigest()


class TimeTravel:
    """`at` is as at HistoryStore.moment."""

    def __init__(
        self,
        sessions: SessionStore,
        history: HistoryStore,
        notes: Notes,
        retrieval: Retrieval,
        *,
        repositories: Repositories,
        trees: Trees,
        inspections: Inspections,
        egress: Egress,
        quota: Quota,
        codec: EventCodec,
        recorded: Callable[[Snapshot], None],
    ) -> None:
        """`recorded` is told of each fork's snapshot, which has to get into the object store."""
        self._sessions = sessions
        self._history = history
        self._notes = notes
        self._retrieval = retrieval
        self._repositories = repositories
        self._trees = trees
        self._inspections = inspections
        self._egress = egress
        self._quota = quota
        self._codec = codec
        self._recorded = recorded

    async def snapshots(self, principal: Principal, session_id: str, *, page_size: int, page_token: str) -> SnapshotPage:
        """Newest first. Errors: SessionNotFound, InvalidField."""
        size = check_page_size(page_size, default=DEFAULT_PAGE, limit=MAX_PAGE)
        return await self._history.list(principal, session_id, page_size=size, page_token=page_token)

    # -- fork ---------------------------------------------------------------------------------------------------------------

    async def fork(self, principal: Principal, request: ForkRequest) -> Session:
        """A session that goes on from there. Errors: as listed at SessionService.ForkSession."""
        check_request_id(request.request_id)
        if request.request_id:
            known = await self._sessions.find_request(principal, request.request_id, request.digest)
            if known is not None:
                return known
        parent = await self._sessions.get(principal, request.session_id)
        await self._quota.check(principal)
        session = self._child(parent, request)
        if request.branch:
            with suppress(RepositoryUnreachable, RepositoryNotAllowed):  # a fork asks the remote for nothing else
                await self._inspections.check_free(principal, parent.repository_url, request.branch)
        fork = await self._origin(principal, parent, request.at)
        fact = self._codec.session_forked(fork)
        seal = self._notes.sealing(principal, session.id, "fork", [fact])
        made = await self._history.fork(principal, session, fork, request_id=request.request_id, request_digest=request.digest, seal=seal)
        if not made:  # the same request, at the same time
            known = await self._sessions.find_request(principal, request.request_id, request.digest)
            if known is not None:
                return known
        if fork.moment.commit:
            await self._keep(parent, session.id, fork.moment.commit)
            first = await self._history.get(principal, session.id, number=1)
            if not first.stored:
                self._recorded(first)
        return await self._sessions.get(principal, session.id)

    def _child(self, parent: Session, request: ForkRequest) -> NewSession:
        check_title(request.title)
        if request.branch:
            naming.check_branch_name(request.branch)
            if request.branch == parent.base_branch:
                raise InvalidField("branch", f"{request.branch!r} is the base branch; Treadle never works on it directly")
        hosts = self._egress.check(parent.allowed_hosts)
        title = request.title or parent.title
        return NewSession(new_id(), parent.repository_url, parent.base_branch, request.branch, title, parent.labels, hosts)

    async def _origin(self, principal: Principal, parent: Session, at: str) -> NewFork:
        moment = await self._history.moment(principal, parent.id, at)
        await self._retrieval.ensure(parent, moment.commit)
        chain = await self._history.chain(parent.tenant_id, parent.id, moment.commit)
        # One bundle holds all that the remote may not have: the fork outlives its parent.
        return NewFork(parent.id, moment, chain[0].parent if chain else moment.commit)

    # -- restore ------------------------------------------------------------------------------------------------------------

    async def restore(self, principal: Principal, session_id: str, *, at: str, if_head: str) -> tuple[Session, Snapshot]:
        """The past tree as a new commit on top of the newest. Errors: as listed at SessionService.RestoreSession."""
        if not at:
            raise InvalidField("at", "name a turn or a snapshot")
        session = await self._sessions.get(principal, session_id)
        if session.active_turn_id:
            raise TurnActive(session.id, session.active_turn_id)
        head = session.head_commit
        if if_head not in {"", head}:
            raise HeadMoved(if_head, head)
        await self._quota.check(principal)
        moment = await self._history.moment(principal, session.id, at)
        for commit in (head, moment.commit):
            await self._retrieval.ensure(session, commit)
        newest = await self._history.newest(session.tenant_id, session.id)
        if (
            newest
            and newest.commit == head
            and newest.conversation == moment.conversation
            and await self._same_files(session, moment.commit)
        ):
            return session, newest
        message = f"Restore {_named(at)}"
        made = await self._recommit(principal, session, moment.commit, message)
        snapshot = await self._notes.record(
            principal,
            session.id,
            head=head,
            snapshot=NewSnapshot(SnapshotKind.RESTORE, made, head or moment.commit, message, restored=moment),
            facts=await self._facts(session, made, message),
        )
        await self._keep(session, session.id, made)
        return await self._sessions.get(principal, session.id), snapshot

    async def _same_files(self, session: Session, commit: str) -> bool:
        """Errors: SnapshotUnavailable."""
        try:
            diff = await self._repositories.diff(session.repository, base=session.head_commit, head=commit, max_patch_bytes=0, max_files=1)
        except WorkspaceFailed as error:
            raise SnapshotUnavailable(commit, error.message) from error
        return not diff.files_changed and not diff.truncated

    async def _recommit(self, principal: Principal, session: Session, tree_of: str, message: str) -> str:
        try:
            return await self._repositories.recommit(
                session.repository,
                tree_of=tree_of,
                parent=session.head_commit or tree_of,
                message=message,
                author=Author(principal.name, principal.email),
                at=datetime.now(UTC),
            )
        except WorkspaceFailed as error:
            raise SnapshotUnavailable(tree_of, error.message) from error

    async def _facts(self, session: Session, made: str, message: str) -> list[Fact]:
        """For people to read; whether the difference can be had decides nothing."""
        repository, codec = session.repository, self._codec
        try:
            diff = await self._repositories.diff(
                repository, base=session.head_commit or made, head=made, max_patch_bytes=MAX_PATCH_BYTES, max_files=MAX_LISTED_FILES
            )
        except WorkspaceFailed as error:
            log.warning("diff.failed", session_id=session.id, error=error.message)
            diff = Diff(truncated=True)
        committed = codec.git_updated(
            "COMMITTED",
            repository=session.repository_url,
            branch=session.branch,
            base_branch=session.base_branch,
            sha=made,
            message=message,
            diff=diff,
        )
        return [codec.file_changed(diff, turn_total=False), committed]

    async def _keep(self, of: Session, session_id: str, commit: str) -> None:
        """The database has it: this only keeps the mirror from letting go of it some weeks later."""
        try:
            await self._trees.keep(of.repository, session_id, commit)
        except (StateGone, MirrorBusy) as error:
            log.warning("snapshot.not_kept", session_id=session_id, error=error.message)


def _named(at: str) -> str:
    if at == "0":
        return "the beginning"
    return f"snapshot {at}" if at.isdecimal() else f"turn {at}" if "-" in at else at
