"""API keys to principals, with a short memory so that a call costs no query."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import structlog

from server.identity.keys import ApiKey
from server.identity.tickets import StreamTicket
from server.kernel.errors import ApiKeyExpired, ApiKeyInvalid, KernelError, TicketInvalid
from server.kernel.identity import Principal
from server.kernel.ports.key_store import KeyRecord, KeyStore

REMEMBER_SECONDS = 30.0
"""How long a key that was revoked on another server may still work here."""
REMEMBER_MISSING_SECONDS = 5.0
"""How long a key that has just been made may be refused, if somebody tried its prefix before."""
REMEMBER_KEYS = 1024
TICKET_SECONDS = 3600.0
"""How long EventSource comes back by itself; then its page asks for another ticket."""
USED_SECONDS = 600.0
"""How often it is noted that a key is in use."""
LOOKUPS = 2
"""Queries at a time: who guesses keys waits in line with other guesses, and the database does its work for the others."""

log = structlog.get_logger()


class ApiKeyAuthenticator:
    """Implements the port `Authenticator`. Keys that are not there are remembered apart: guesses cannot push out the keys in use."""

    def __init__(self, keys: KeyStore, *, remember_seconds: float = REMEMBER_SECONDS, ticket_seconds: float = TICKET_SECONDS) -> None:
        self._keys = keys
        self._ticket_seconds = ticket_seconds
        self._found = _Memory(remember_seconds)
        self._missing = _Memory(min(remember_seconds, REMEMBER_MISSING_SECONDS))
        self._lookups = asyncio.Semaphore(LOOKUPS)
        self._notes: dict[str, asyncio.Task[None]] = {}

    async def authenticate(self, api_key: str) -> Principal:
        """See Authenticator."""
        key = ApiKey.parse(api_key)
        if key is None:
            raise ApiKeyInvalid
        record = await self._record(key.prefix)
        if record is None or not key.matches(record.secret_sha256):
            raise ApiKeyInvalid
        if record.expires_at and _is_past(record.expires_at):
            raise ApiKeyExpired(record.expires_at)
        self._found.used(key.prefix)
        self._note(key.prefix, record)
        return record.owner

    def issue_ticket(self, api_key: str, session_id: str) -> tuple[str, datetime]:
        """See Authenticator."""
        key = ApiKey.parse(api_key)
        if key is None:
            raise ApiKeyInvalid
        ticket = StreamTicket.issue(key, session_id, int(time.time() + self._ticket_seconds))
        return str(ticket), datetime.fromtimestamp(ticket.expires_at, UTC)

    async def admit(self, ticket: str, session_id: str, *, before: bool = False) -> Principal:
        """See Authenticator."""
        shown = StreamTicket.parse(ticket)
        if shown is None or (shown.expires_at <= time.time() and not before):
            raise TicketInvalid
        record = await self._record(shown.prefix)
        if record is None or not shown.matches(record.secret_sha256, session_id) or (record.expires_at and _is_past(record.expires_at)):
            raise TicketInvalid
        self._note(shown.prefix, record)
        return record.owner

    def _note(self, prefix: str, record: KeyRecord) -> None:
        """That it is in use, beside the call: as long as the store's word is remembered, once."""
        if record.last_used_at and not _is_past(record.last_used_at, seconds=USED_SECONDS):
            return
        self._found.amend(prefix, replace(record, last_used_at=datetime.now(UTC)))
        if prefix not in self._notes:
            self._notes[prefix] = note = asyncio.create_task(self._noted(prefix))
            note.add_done_callback(lambda _: self._notes.pop(prefix))

    async def _noted(self, prefix: str) -> None:
        try:
            await self._keys.used(prefix, seconds=USED_SECONDS)
        except KernelError as error:
            # It is looked up again soon, and noted then.
            log.warning("key.use_not_noted", prefix=prefix, error=error.message)

    async def _record(self, prefix: str) -> KeyRecord | None:
        if (known := self._recall(prefix)) is not None:
            return known.record
        async with self._lookups:
            # Whoever stood before us in the line may have asked for the same.
            if (known := self._recall(prefix)) is not None:
                return known.record
            record = await self._keys.find(prefix)
            (self._missing if record is None else self._found).remember(prefix, record)
            return record

    def _recall(self, prefix: str) -> _Remembered | None:
        return self._found.recall(prefix) or self._missing.recall(prefix)


@dataclass(frozen=True)
class _Remembered:
    record: KeyRecord | None
    until: float


class _Memory:
    """What the store said, for some seconds from when it said it, or a busy key could never be revoked."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._entries: OrderedDict[str, _Remembered] = OrderedDict()

    def recall(self, prefix: str) -> _Remembered | None:
        entry = self._entries.get(prefix)
        return None if entry is None or entry.until < time.monotonic() else entry

    def remember(self, prefix: str, record: KeyRecord | None) -> None:
        """The one that was not used for the longest time makes room."""
        self._entries[prefix] = _Remembered(record, time.monotonic() + self._seconds)
        self.used(prefix)
        while len(self._entries) > REMEMBER_KEYS:
            self._entries.popitem(last=False)

    def amend(self, prefix: str, record: KeyRecord) -> None:
        """For as long as it would have been remembered."""
        if entry := self._entries.get(prefix):
            self._entries[prefix] = replace(entry, record=record)

    def used(self, prefix: str) -> None:
        if prefix in self._entries:
            self._entries.move_to_end(prefix)


def _is_past(moment: datetime, *, seconds: float = 0) -> bool:
    return (datetime.now(UTC) - moment).total_seconds() >= seconds
