"""API keys to principals, with a short memory so that a call costs no query."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass

from server.identity.keys import ApiKey
from server.kernel.errors import ApiKeyInvalid
from server.kernel.identity import Principal
from server.kernel.ports.key_store import KeyRecord, KeyStore

REMEMBER_SECONDS = 30.0
"""How long a key that was revoked on another server may still work here."""
REMEMBER_KEYS = 1024


@dataclass(frozen=True)
class _Remembered:
    record: KeyRecord
    until: float


class ApiKeyAuthenticator:
    """Implements the port `Authenticator`. Unknown keys are not remembered: guesses cannot push out the keys in use."""

    def __init__(self, keys: KeyStore, *, remember_seconds: float = REMEMBER_SECONDS) -> None:
        self._keys = keys
        self._remember_seconds = remember_seconds
        self._remembered: OrderedDict[str, _Remembered] = OrderedDict()

    async def authenticate(self, api_key: str) -> Principal:
        """See Authenticator."""
        key = ApiKey.parse(api_key)
        if key is None:
            raise ApiKeyInvalid
        record = self._recall(key.prefix) or await self._keys.find(key.prefix)
        if record is None or not key.matches(record.secret_sha256):
            raise ApiKeyInvalid
        self._remember(key.prefix, record)
        return record.owner

    def _recall(self, prefix: str) -> KeyRecord | None:
        remembered = self._remembered.get(prefix)
        if remembered is None or remembered.until < time.monotonic():
            return None
        return remembered.record

    def _remember(self, prefix: str, record: KeyRecord) -> None:
        """From when it was read, not from when it was used last, or a busy key could never be revoked."""
        if self._recall(prefix) is None:
            self._remembered[prefix] = _Remembered(record, time.monotonic() + self._remember_seconds)
        self._remembered.move_to_end(prefix)
        while len(self._remembered) > REMEMBER_KEYS:
            self._remembered.popitem(last=False)
