"""Inputs and requests as their callers see them: every statement runs as `treadle_app`, in a transaction that sees one tenant.

Whoever changes an input locks its session first, as whoever starts a turn does: so an input is changed or delivered, never both.
"""

from __future__ import annotations

from uuid import UUID

import asyncpg

from server.db.pool import Database
from server.db.queries import SQL
from server.db.rows import answers_of, input_from, parse_uuid, request_from, resolution_from
from server.db.session_store import load_session, lock_session
from server.db.turn_store import Place, insert_turn
from server.kernel.agent_request import AgentRequest, Resolution
from server.kernel.errors import (
    InputNotFound,
    InputNotQueued,
    InvalidField,
    RequestIdReused,
    RequestNotFound,
    RequestResolved,
    TooManyInputs,
    VersionConflict,
)
from server.kernel.identity import Principal
from server.kernel.ids import new_id
from server.kernel.ports.input_store import Sent, Starter
from server.kernel.ports.turn_queue import QueueLimits
from server.kernel.ports.turn_store import Claimed, NewTurn
from server.kernel.turn import Turn
from server.kernel.user_input import Delivery, InputPage, InputState, NewInput, UserInput

MAX_PAGE_BYTES = 1_000_000
"""Of a message that becomes JSON the gateway takes 1.3 MB (gateway/config.py); a gRPC client takes 4 MiB unless told otherwise."""


class PostgresInputStore:
    """Implements the port `InputStore`."""

    def __init__(self, app: Database, limits: QueueLimits) -> None:
        self._app = app
        self._limits = limits

    async def send(self, principal: Principal, session_id: str, new: NewInput, *, starter: Starter, limit: int) -> Sent:
        """See InputStore."""
        async with self._app.tenant(principal.tenant_id) as connection:
            await lock_session(connection, principal, session_id)
            known = await _of_request(connection, principal, session_id, new)
            if known is not None:
                return Sent(known)
            active = await connection.fetchval(SQL["active_turn"], principal.tenant_id, session_id)
            interrupts = active if new.delivery is Delivery.INTERRUPT else None
            queued = await _insert(connection, principal, session_id, new, limit=limit, interrupts=interrupts)
            if active:
                return Sent(queued)
            await connection.execute(SQL["release_queue"], principal.tenant_id, session_id)
            session = await load_session(connection, principal, session_id)
            place = Place(starter.replica, starter.lease_seconds, self._limits)
            started = await start_with_first(connection, principal, session.id, (session.provider, session.model), starter, place=place)
            row = await connection.fetchrow(SQL["lock_input"], principal.tenant_id, session_id, queued.id)
            return Sent(input_from(row), started=started)

    async def list(self, principal: Principal, session_id: str, *, page_size: int, page_token: str, everything: bool) -> InputPage:
        """See InputStore."""
        after = _position(page_token) if page_token else 0
        async with self._app.tenant(principal.tenant_id) as connection:
            await load_session(connection, principal, session_id)
            rows = await connection.fetch(SQL["list_inputs"], principal.tenant_id, session_id, after, everything, page_size, MAX_PAGE_BYTES)
        inputs = tuple(map(input_from, rows))
        return InputPage(inputs, str(inputs[-1].position) if rows and rows[0]["found"] > len(rows) else "")

    async def update(self, principal: Principal, session_id: str, input_id: str, *, text: str, version: int) -> UserInput:
        """See InputStore."""
        async with self._app.tenant(principal.tenant_id) as connection:
            current = await _locked(connection, principal, session_id, input_id)
            if current.state is not InputState.QUEUED:
                raise InputNotQueued(current.id, state=current.state, turn_id=current.turn_id)
            if version not in (0, current.version):
                raise VersionConflict(version, current.version)
            row = await connection.fetchrow(SQL["update_input"], principal.tenant_id, session_id, current.id, text, InputState.QUEUED)
        return input_from(row)

    async def cancel(self, principal: Principal, session_id: str, input_id: str) -> UserInput:
        """See InputStore."""
        async with self._app.tenant(principal.tenant_id) as connection:
            current = await _locked(connection, principal, session_id, input_id)
            if current.state is InputState.CANCELLED:
                return current
            if current.state is not InputState.QUEUED:
                raise InputNotQueued(current.id, state=current.state, turn_id=current.turn_id)
            row = await connection.fetchrow(SQL["update_input"], principal.tenant_id, session_id, current.id, None, InputState.CANCELLED)
        return input_from(row)

    async def request(self, principal: Principal, session_id: str, request_id: str) -> AgentRequest:
        """See InputStore."""
        async with self._app.tenant(principal.tenant_id) as connection:
            await load_session(connection, principal, session_id)
            return request_from(await _request(connection, principal, session_id, request_id))

    async def resolve(self, principal: Principal, session_id: str, resolution: Resolution) -> Resolution:
        """See InputStore."""
        key = (principal.tenant_id, session_id, resolution.request_id)
        answer = (resolution.outcome, resolution.option_id, answers_of(resolution), resolution.resolved_by, resolution.note)
        async with self._app.tenant(principal.tenant_id) as connection:
            await load_session(connection, principal, session_id)
            if await connection.fetchval(SQL["resolve_request"], *key, *answer):
                return resolution
            first = resolution_from(await _request(connection, principal, session_id, resolution.request_id))
        if first != resolution:
            raise RequestResolved(first.request_id, outcome=first.outcome, resolved_by=first.resolved_by)
        return first


async def start_with_first(
    connection: asyncpg.Connection, owner: Principal, session_id: str, last: tuple[str, str], starter: Starter, *, place: Place
) -> Claimed | Turn | None:
    """Start a turn with the input that is first in the queue, or let it wait; None for an empty queue. The session is locked and has no
    active turn; `last` are the provider (empty when it had none yet) and the model of its last one. Errors: TooManyTurns."""
    provider, model = last
    row = await connection.fetchrow(SQL["first_input"], owner.tenant_id, session_id)
    if row is None:
        return None
    turn = NewTurn(
        new_id(),
        request_id="",
        request_digest="",
        provider=provider or starter.default_provider,
        model=model,
        prompt=row["text"],
        trace_parent=starter.trace_parent,
        approvals=row["approvals"],
        input_id=str(row["id"]),
    )
    begun = await insert_turn(connection, owner, session_id, turn, place)
    await connection.execute(SQL["deliver_input"], owner.tenant_id, turn.input_id, turn.id)
    return begun


async def _of_request(connection: asyncpg.Connection, principal: Principal, session_id: str, new: NewInput) -> UserInput | None:
    if not new.request_id:
        return None
    row = await connection.fetchrow(SQL["input_of_request"], principal.tenant_id, principal.user_id, new.request_id)
    if row is None:
        return None
    if row["request_digest"] != new.digest or row["session_id"] != parse_uuid(session_id):
        raise RequestIdReused(new.request_id)
    return input_from(row)


async def _insert(
    connection: asyncpg.Connection, principal: Principal, session_id: str, new: NewInput, *, limit: int, interrupts: UUID | None
) -> UserInput:
    length = await connection.fetchrow(SQL["queue_length"], principal.tenant_id, session_id)
    if length["queued"] >= limit:
        raise TooManyInputs(limit)
    try:
        row = await connection.fetchrow(
            SQL["insert_input"],
            principal.tenant_id,
            new.id,
            session_id,
            principal.user_id,
            length["last_position"] + 1,
            new.text,
            new.delivery,
            new.request_id,
            new.digest,
            interrupts,
        )
    except asyncpg.UniqueViolationError as error:
        # At the same moment in another session.
        raise RequestIdReused(new.request_id) from error
    return input_from(row)


async def _locked(connection: asyncpg.Connection, principal: Principal, session_id: str, input_id: str) -> UserInput:
    await lock_session(connection, principal, session_id)
    uuid = parse_uuid(input_id)
    row = uuid and await connection.fetchrow(SQL["lock_input"], principal.tenant_id, session_id, uuid)
    if not row:
        raise InputNotFound(input_id)
    return input_from(row)


async def _request(connection: asyncpg.Connection, principal: Principal, session_id: str, request_id: str) -> asyncpg.Record:
    row = await connection.fetchrow(SQL["get_request"], principal.tenant_id, session_id, request_id)
    if row is None:
        raise RequestNotFound(request_id)
    return row


def _position(token: str) -> int:
    if not token.isascii() or not token.isdigit() or len(token) > 18:
        raise InvalidField("page_token", "is not one that ListInputs returned")
    return int(token)
