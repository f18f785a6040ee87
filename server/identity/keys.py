"""The form of API keys: `trd_<8 characters, public>_<43 characters, secret>`. Only the SHA-256 of the secret is kept anywhere.

The secret has 256 random bits, so a plain hash cannot be searched; a slow one would only make each call slow.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from server.kernel.identity import Principal
from server.kernel.ports.key_store import KeyStore

_FORM = re.compile(r"trd_([a-z0-9]{8})_([A-Za-z0-9_-]{43})")
_PREFIX_CHARACTERS = string.ascii_lowercase + string.digits


@dataclass(frozen=True)
class ApiKey:
    """A key in its parts."""

    prefix: str
    """Public: names the key in the database, and to its owner."""
    secret_sha256: bytes

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """None for what is no key."""
        form = _FORM.fullmatch(text)
        return None if form is None else cls(form[1], hashlib.sha256(form[2].encode()).digest())

    def matches(self, secret_sha256: bytes) -> bool:
        """In constant time."""
        return hmac.compare_digest(self.secret_sha256, secret_sha256)


async def create_key(keys: KeyStore, owner: Principal, *, expires_at: datetime | None = None) -> str:
    """A new key for `owner`. It is returned this once and cannot be read again. Errors: StoreUnavailable, StoreRejected."""
    prefix = "".join(secrets.choice(_PREFIX_CHARACTERS) for _ in range(8))
    secret = secrets.token_urlsafe(32)
    await keys.add(owner, prefix=prefix, secret_sha256=hashlib.sha256(secret.encode()).digest(), expires_at=expires_at)
    return f"trd_{prefix}_{secret}"


async def revoke_key(keys: KeyStore, owner: Principal, prefix: str) -> bool:
    """End a key within a minute, on every server; False when the owner has no such key. Errors: StoreUnavailable."""
    return await keys.revoke(owner, prefix)
