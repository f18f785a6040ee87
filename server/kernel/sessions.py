"""Use cases around sessions that start no turn: create, read, change, delete, interrupt, read the log."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from server.kernel import naming
from server.kernel.errors import RepositoryUnreachable
from server.kernel.identity import Principal
from server.kernel.ids import new_id
from server.kernel.inspection import Inspections
from server.kernel.journal import Frame, Journal
from server.kernel.ports.egress import Egress
from server.kernel.ports.repositories import Repositories
from server.kernel.ports.session_store import SessionStore
from server.kernel.ports.turn_store import TurnStore
from server.kernel.session import NewSession, Session, SessionPage
from server.kernel.supervisor import Supervisor
from server.kernel.turn import Turn
from server.kernel.validation import check_base_branch, check_labels, check_page_size, check_request_id, check_title

DEFAULT_PAGE = 50
MAX_PAGE = 200
DEFAULT_EVENTS = 100
MAX_EVENTS = 1000
MAX_EVENTS_BYTES = 2 * 1024 * 1024

log = structlog.get_logger()


@dataclass(frozen=True)
class CreateRequest:
    """Fields as in treadle.session.v1.CreateSessionRequest."""

    request_id: str
    repository_url: str
    base_branch: str
    branch: str
    title: str
    labels: Mapping[str, str]
    allowed_hosts: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Tells a repeated request from a reused request_id."""
        fields: list[object] = [self.repository_url, self.base_branch, self.branch, self.title, sorted(self.labels.items())]
        # As before there was such a field, for requests that are repeated after an upgrade.
        if self.allowed_hosts:
            fields.append(self.allowed_hosts)
        return hashlib.sha256(json.dumps(fields).encode()).hexdigest()


class Sessions:
    """What a caller can do with sessions besides asking for changes."""

    def __init__(
        self,
        store: SessionStore,
        turns: TurnStore,
        journal: Journal,
        inspections: Inspections,
        supervisor: Supervisor,
        *,
        repositories: Repositories,
        egress: Egress,
        deleted: Callable[[], None],
    ) -> None:
        """`deleted` is told that a session's objects have to go."""
        self._deleted = deleted
        self._repositories = repositories
        self._egress = egress
        self._store = store
        self._turns = turns
        self._journal = journal
        self._inspections = inspections
        self._supervisor = supervisor

    async def create(self, principal: Principal, request: CreateRequest) -> Session:
        """Make a session without a turn. Errors: as listed at SessionService.CreateSession."""
        check_request_id(request.request_id)
        if request.request_id:
            known = await self._store.find_request(principal, request.request_id, request.digest)
            if known is not None:
                return known
        check_title(request.title)
        check_labels(request.labels)
        check_base_branch(request.base_branch)
        if request.branch:
            naming.check_branch_name(request.branch)
        hosts = self._egress.check(request.allowed_hosts)
        url, base = await self._inspections.repository(principal, request.repository_url, request.base_branch, request.branch)
        session = NewSession(new_id(), url, base, request.branch, request.title, request.labels, hosts)
        return await self._store.create(principal, session, request_id=request.request_id, request_digest=request.digest)

    async def get(self, principal: Principal, session_id: str, *, sized: bool = False) -> Session:
        """See SessionStore. Errors: SessionNotFound."""
        return await self._store.get(principal, session_id, sized=sized)

    async def list(self, principal: Principal, *, page_size: int, page_token: str) -> SessionPage:
        """Errors: InvalidField."""
        size = check_page_size(page_size, default=DEFAULT_PAGE, limit=MAX_PAGE)
        return await self._store.list(principal, page_size=size, page_token=page_token)

    async def update(
        self,
        principal: Principal,
        session_id: str,
        *,
        title: str | None,
        labels: Mapping[str, str] | None,
        allowed_hosts: Sequence[str] | None,
        version: int,
    ) -> Session:
        """Errors: SessionNotFound, VersionConflict, InvalidField, RequestTooLarge, HostNotAllowed, EgressNotConfigured."""
        if title is not None:
            check_title(title)
        if labels is not None:
            check_labels(labels)
        hosts = None if allowed_hosts is None else self._egress.check(allowed_hosts)
        return await self._store.update(principal, session_id, title=title, labels=labels, allowed_hosts=hosts, version=version)

    async def delete(self, principal: Principal, session_id: str) -> None:
        """Errors: SessionNotFound, TurnActive."""
        session = await self._store.get(principal, session_id)
        await self._store.delete(principal, session_id)
        # A turn that waited for its place is gone with it.
        self._journal.look_again(session.id)
        self._deleted()
        try:
            await self._repositories.forget(session.repository, session_id=session.id)
        except RepositoryUnreachable as error:  # the session is gone all the same
            log.warning("session.commits_stay", session_id=session.id, error=error.message)

    async def interrupt(self, principal: Principal, session_id: str, turn_id: str) -> str:
        """Ask for the active turn to be stopped; durable, so that it holds over a restart. Returns the turn's id, or "".
        Errors: SessionNotFound."""
        reason = f"interrupted by {principal.name}"
        turn = await self._turns.request_interrupt(principal, session_id, turn_id, reason=reason)
        if turn is None:
            return ""
        self._supervisor.request_stop(turn.id, reason)
        return turn.id

    async def events(self, principal: Principal, session_id: str, *, after_seq: int, page_size: int) -> tuple[bytes, int]:
        """A page of the log: a serialised EventBatch, and the last seq there is. Errors: SessionNotFound, SequenceAhead."""
        limit = check_page_size(page_size, default=DEFAULT_EVENTS, limit=MAX_EVENTS)
        await self._store.get(principal, session_id)
        return await self._journal.page(session_id, after_seq=after_seq, limit=limit, max_bytes=MAX_EVENTS_BYTES)

    async def follow(self, principal: Principal, session_id: str, *, after_seq: int, live: bool) -> AsyncGenerator[Frame, None]:
        """Replay and follow until no turn is active or about to start. Errors: SessionNotFound, SequenceAhead."""
        await self._store.get(principal, session_id)
        return await self._journal.follow(session_id, after_seq=after_seq, live=live)

    async def follow_turn(self, turn: Turn, *, after_seq: int = 0) -> AsyncGenerator[Frame, None]:
        """Replay and follow one turn, from its first event, or from behind `after_seq`, to its last. The turn was given out by a use
        case of its owner. Errors: SequenceAhead."""
        return await self._journal.follow(turn.session_id, after_seq=max(turn.start_seq, after_seq), live=True, turn_id=turn.id)
