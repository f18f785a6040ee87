"""API keys to principals, with a short memory so that a call costs no query."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime

from server.identity.keys import ApiKey
from server.identity.tickets import StreamTicket
from server.kernel.errors import ApiKeyInvalid, TicketInvalid
from server.kernel.identity import Principal
from server.kernel.ports.key_store import KeyRecord, KeyStore

REMEMBER_SECONDS = 30.0
"""How long a key that was revoked on another server may still work here."""
REMEMBER_MISSING_SECONDS = 5.0
"""How long a key that has just been made may be refused, if somebody tried its prefix before."""
REMEMBER_KEYS = 1024
TICKET_SECONDS = 3600.0
"""How long EventSource comes back by itself; then its page asks for another ticket."""
LOOKUPS = 2
"""Queries at a time: who guesses keys waits in line with other guesses, and the database does its work for the others."""


class ApiKeyAuthenticator:
    """Implements the port `Authenticator`. Keys that are not there are remembered apart: guesses cannot push out the keys in use."""

    def __init__(self, keys: KeyStore, *, remember_seconds: float = REMEMBER_SECONDS, ticket_seconds: float = TICKET_SECONDS) -> None:
        self._keys = keys
        self._ticket_seconds = ticket_seconds
        self._found = _Memory(remember_seconds)
        self._missing = _Memory(min(remember_seconds, REMEMBER_MISSING_SECONDS))
        self._lookups = asyncio.Semaphore(LOOKUPS)

    async def authenticate(self, api_key: str) -> Principal:
        """See Authenticator."""
        key = ApiKey.parse(api_key)
        if key is None:
            raise ApiKeyInvalid
        record = await self._record(key.prefix)
        if record is None or not key.matches(record.secret_sha256):
            raise ApiKeyInvalid
        self._found.used(key.prefix)
        return record.owner

    def issue_ticket(self, api_key: str, session_id: str) -> tuple[str, datetime]:
        """See Authenticator."""
        key = ApiKey.parse(api_key)
        if key is None:
            raise ApiKeyInvalid
        ticket = StreamTicket.issue(key, session_id, int(time.time() + self._ticket_seconds))
        return str(ticket), datetime.fromtimestamp(ticket.expires_at, UTC)

    async def admit(self, ticket: str, session_id: str) -> Principal:
        """See Authenticator."""
        shown = StreamTicket.parse(ticket)
        if shown is None or shown.expires_at <= time.time():
            raise TicketInvalid
        record = await self._record(shown.prefix)
        if record is None or not shown.matches(record.secret_sha256, session_id):
            raise TicketInvalid
        return record.owner

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

    def used(self, prefix: str) -> None:
        if prefix in self._entries:
            self._entries.move_to_end(prefix)
