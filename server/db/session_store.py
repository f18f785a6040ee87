"""Sessions, as their owners see them: every statement runs as `treadle_app`, in a transaction that sees one tenant."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

import asyncpg

from server.db.pool import Database
from server.db.queries import SQL
from server.db.rows import parse_uuid, session_from
from server.kernel.errors import InvalidField, RequestIdReused, SessionNotFound, TurnActive, VersionConflict
from server.kernel.identity import Principal
from server.kernel.session import NewSession, Session, SessionPage


class PostgresSessionStore:
    """Implements the port `SessionStore`."""

    def __init__(self, app: Database) -> None:
        self._app = app

    async def create(self, principal: Principal, session: NewSession, *, request_id: str, request_digest: str) -> Session:
        """See SessionStore."""
        async with self._app.tenant(principal.tenant_id) as connection:
            if not await insert_session(connection, principal, session, request_id=request_id, request_digest=request_digest):
                return await _of_request(connection, principal, request_id, request_digest)
            return await load_session(connection, principal, session.id)

    async def find_request(self, principal: Principal, request_id: str, request_digest: str) -> Session | None:
        """See SessionStore."""
        async with self._app.tenant(principal.tenant_id) as connection:
            try:
                return await _of_request(connection, principal, request_id, request_digest)
            except SessionNotFound:
                return None

    async def get(self, principal: Principal, session_id: str, *, sized: bool = False) -> Session:
        """See SessionStore."""
        async with self._app.tenant(principal.tenant_id) as connection:
            return await load_session(connection, principal, session_id, sized=sized)

    async def list(self, principal: Principal, *, page_size: int, page_token: str) -> SessionPage:
        """See SessionStore."""
        created_at, last_id = _decode_token(page_token) if page_token else (None, None)
        async with self._app.tenant(principal.tenant_id) as connection:
            rows = await connection.fetch(SQL["list_sessions"], principal.tenant_id, principal.user_id, created_at, last_id, page_size + 1)
        sessions = tuple(session_from(row) for row in rows[:page_size])
        return SessionPage(sessions, _encode_token(sessions[-1]) if len(rows) > page_size else "")

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
        """See SessionStore."""
        async with self._app.tenant(principal.tenant_id) as connection:
            current = await lock_session(connection, principal, session_id)
            if version not in (0, current):
                raise VersionConflict(version, current)
            encoded = None if labels is None else json.dumps(dict(labels))
            hosts = None if allowed_hosts is None else list(allowed_hosts)
            await connection.execute(SQL["update_session"], principal.tenant_id, principal.user_id, session_id, title, encoded, hosts)
            return await load_session(connection, principal, session_id)

    async def delete(self, principal: Principal, session_id: str) -> None:
        """See SessionStore."""
        async with self._app.tenant(principal.tenant_id) as connection:
            await lock_session(connection, principal, session_id)
            if not await connection.fetch(SQL["lock_waiting_turn"], principal.tenant_id, session_id):
                await refuse_in_the_way(connection, principal, session_id)
            await connection.execute(SQL["delete_session"], principal.tenant_id, principal.user_id, session_id)


async def insert_session(
    connection: asyncpg.Connection, principal: Principal, session: NewSession, *, request_id: str = "", request_digest: str = ""
) -> bool:
    """A session with an empty log; False, and nothing, when the request_id has made one already."""
    made = await connection.fetchval(
        SQL["insert_session"],
        principal.tenant_id,
        session.id,
        principal.user_id,
        session.title,
        session.repository_url,
        session.base_branch,
        session.branch_requested,
        json.dumps(dict(session.labels)),
        request_id,
        request_digest,
        list(session.allowed_hosts),
    )
    return made is not None


async def load_session(connection: asyncpg.Connection, principal: Principal, session_id: str, *, sized: bool = False) -> Session:
    """Errors: SessionNotFound, also for what belongs to somebody else."""
    uuid = parse_uuid(session_id)
    row = uuid and await connection.fetchrow(SQL["get_session"], principal.tenant_id, principal.user_id, uuid, sized)
    if not row:
        raise SessionNotFound(session_id)
    return session_from(row)


async def lock_session(connection: asyncpg.Connection, principal: Principal, session_id: str) -> int:
    """Until the transaction ends nobody else starts a turn, changes or deletes it. Its version. Errors: SessionNotFound."""
    uuid = parse_uuid(session_id)
    version = uuid and await connection.fetchval(SQL["lock_session"], principal.tenant_id, principal.user_id, uuid)
    if not version:
        raise SessionNotFound(session_id)
    return int(version)


async def refuse_in_the_way(connection: asyncpg.Connection, principal: Principal, session_id: str, request_id: str = "") -> None:
    """Errors: RequestIdReused, TurnActive. The session is locked. The request comes first: a repeated one shall find its own turn,
    not be refused because of it."""
    rows = await connection.fetch(SQL["turns_in_the_way"], principal.tenant_id, session_id, principal.user_id, request_id)
    for row in rows:
        if row["request_id"] == request_id != "":
            raise RequestIdReused(request_id)
    for row in rows:
        raise TurnActive(session_id, str(row["id"]))


async def _of_request(connection: asyncpg.Connection, principal: Principal, request_id: str, request_digest: str) -> Session:
    row = await connection.fetchrow(SQL["session_of_request"], principal.tenant_id, principal.user_id, request_id) if request_id else None
    if row is None:
        raise SessionNotFound("")
    if row["request_digest"] != request_digest:
        raise RequestIdReused(request_id)
    return await load_session(connection, principal, str(row["id"]))


def _encode_token(last: Session) -> str:
    return base64.urlsafe_b64encode(f"{last.created_at and last.created_at.isoformat()} {last.id}".encode()).decode()


def _decode_token(token: str) -> tuple[datetime, UUID]:
    """It only says where to go on within the caller's own sessions, so a forged one shows nothing more."""
    try:
        created_at, session_id = base64.b64decode(token, altchars=b"-_", validate=True).decode().split(" ")
        moment = datetime.fromisoformat(created_at)
        if moment.tzinfo is None:
            raise ValueError("no time zone")
        return moment, UUID(session_id)
    except (binascii.Error, ValueError) as error:
        raise InvalidField("page_token", "is not one that ListSessions returned") from error
