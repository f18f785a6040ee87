"""Sessions of the old system, and where they and Treadle's agree; system role only."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from server.db.pool import Database
from server.db.queries import SQL
from server.db.transcripts import pack
from server.kernel.history import Remembered
from server.kernel.identity import Principal


@dataclass(frozen=True)
class Agreed:
    """The archive that was imported or written last, and the commit that it stands for."""

    version: str
    sha256: str
    commit: str


@dataclass(frozen=True)
class Intended:
    """An archive that a server is about to write, and the commit that it stands for: when it is in the bucket, and nothing was agreed about
    it, that server died before it could say so. `replaces`: the version that is there until then, empty for none."""

    sha256: str
    commit: str
    replaces: str


@dataclass(frozen=True)
class Standing:
    """What there is of a session: the session itself, unless `owner_id` is empty, and what was agreed, unless that is None."""

    tenant_id: str = ""
    owner_id: str = ""
    branch: str = ""
    head_commit: str = ""
    imported: bool = False
    """Whether it was made for an archive."""
    has_turns: bool = False
    active: bool = False
    head_is_import: bool = False
    """Nothing was done here since the last import, even if that did not come to agree."""
    agreed: Agreed | None = None
    intended: Mapping[str, str] = field(default_factory=dict)
    """Of archives that servers were about to write: by digest, the commit."""


@dataclass(frozen=True)
class Unwritten:
    """A session whose work is in no archive; `version` is that of the last one that was agreed about, empty for none."""

    tenant_id: str
    owner_id: str
    session_id: str
    session_key: str
    version: str
    title: str
    repository_url: str
    base_branch: str
    branch: str
    commit: str
    created_at: datetime
    updated_at: datetime


class PostgresLegacyStore:
    """For whoever imports and writes archives, with rights that no caller has. Errors: StoreUnavailable."""

    def __init__(self, system: Database) -> None:
        self._system = system

    async def user(self, tenant_id: str, user_id: str) -> Principal | None:
        """A user, if there is one of that name."""
        async with self._system.connection() as connection:
            row = await connection.fetchrow(SQL["legacy_user"], tenant_id, user_id)
        return Principal(**row) if row else None

    async def standing(self, session_id: str) -> Standing:
        """What there is of a session, whosever it is."""
        async with self._system.connection() as connection:
            row = await connection.fetchrow(SQL["legacy_standing"], session_id)
        agreed = Agreed(row["version"], row["sha256"], row["commit"]) if row["commit"] else None
        intended = await self.intents(session_id)
        if row["owner_id"] is None:
            return Standing(agreed=agreed, intended=intended)
        return Standing(
            row["tenant_id"],
            row["owner_id"],
            row["branch"],
            row["head_commit"],
            imported=row["imported"],
            has_turns=row["has_turns"],
            active=row["active"],
            head_is_import=bool(row["head_is_import"]),
            agreed=agreed,
            intended=intended,
        )

    async def adopt(self, owner: Principal, session_id: str, *, branch: str, provider: str, created_at: datetime | None) -> None:
        """Where it has none, give a session the branch that the remote has (empty for none) and its agent; a new one its age."""
        async with self._system.connection() as connection:
            await connection.execute(SQL["legacy_adopt"], owner.tenant_id, owner.user_id, session_id, branch, provider, created_at)

    async def pushed(self, owner: Principal, session_id: str, commit: str, *, head: str) -> None:
        """The session's branch on the remote is at this commit, unless the session's head is not at `head` any more."""
        async with self._system.connection() as connection:
            await connection.execute(SQL["legacy_pushed"], owner.tenant_id, owner.user_id, session_id, commit, head)

    async def remember(self, owner: Principal, session_id: str, remembered: Remembered, *, head: str) -> None:
        """What the agent's next turn begins with, unless a turn is active or the session's head is not at `head` any more."""
        packed = await asyncio.to_thread(pack, remembered.transcript)
        told = (remembered.provider, packed.data, packed.size, head)
        async with self._system.connection() as connection:
            await connection.execute(SQL["remember"], owner.tenant_id, owner.user_id, session_id, *told)

    async def agree(self, owner: Principal, session_id: str, key: str, agreed: Agreed, *, over: str | None = None) -> bool:
        """This archive and this commit are the same work. With `over`, only where the version that was agreed about before is this (empty
        for none); else False, and nothing: another server was faster."""
        said = (agreed.version, agreed.sha256, agreed.commit)
        async with self._system.connection() as connection:
            return await connection.fetchval(SQL["legacy_agreed"], owner.tenant_id, session_id, key, *said, over) is not None

    async def intend(self, owner: Principal, session_id: str, intended: Intended) -> None:
        """This archive is about to be written. Other servers may be about to write others."""
        said = (intended.sha256, intended.commit, intended.replaces)
        async with self._system.connection() as connection:
            await connection.execute(SQL["legacy_intend"], owner.tenant_id, session_id, *said)

    async def intents(self, session_id: str) -> Mapping[str, str]:
        """See Standing.intended."""
        async with self._system.connection() as connection:
            return {row["sha256"]: row["commit"] for row in await connection.fetch(SQL["legacy_intents"], session_id)}

    async def unwritten(self, *, since: datetime | None) -> tuple[Sequence[Unwritten], datetime]:
        """Sessions without an active turn whose newest commit was not agreed about, of those that changed since then; and the time."""
        async with self._system.connection() as connection:
            now: datetime = await connection.fetchval("SELECT clock_timestamp()")
            rows = await connection.fetch(SQL["legacy_unwritten"], since)
        return [Unwritten(**row | {"session_id": str(row["session_id"])}) for row in map(dict, rows)], now
