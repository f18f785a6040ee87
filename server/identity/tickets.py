"""Tickets: what a caller who can send no header shows in place of its API key, in a URL.

`trt_<prefix of the API key>_<end, seconds since 1970>_<43 characters, HMAC-SHA256>`. The code is made with what is stored of the key, over
the one session that the ticket is for: so every server can check it, nothing else is stored, and it ends with its key. It opens only
this session's event stream: in a log or a browser's history it is worth little, and only for a while.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Self

from server.identity.keys import ApiKey

_FORM = re.compile(r"trt_([a-z0-9]{8})_([1-9][0-9]{0,11})_([A-Za-z0-9_-]{43})")
_PURPOSE = b"treadle event stream ticket v1"


@dataclass(frozen=True)
class StreamTicket:
    """A ticket in its parts."""

    prefix: str
    """Names the API key that it stands for."""
    expires_at: int
    code: str

    @classmethod
    def issue(cls, key: ApiKey, session_id: str, expires_at: int) -> Self:
        """For a key that has been checked."""
        return cls(key.prefix, expires_at, _code(key.secret_sha256, session_id, expires_at))

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """None for what is no ticket."""
        form = _FORM.fullmatch(text)
        return None if form is None else cls(form[1], int(form[2]), form[3])

    def matches(self, secret_sha256: bytes, session_id: str) -> bool:
        """Whether this key issued it for this session; in constant time."""
        return hmac.compare_digest(self.code, _code(secret_sha256, session_id, self.expires_at))

    def __str__(self) -> str:
        return f"trt_{self.prefix}_{self.expires_at}_{self.code}"


def _code(secret_sha256: bytes, session_id: str, expires_at: int) -> str:
    code = hmac.digest(secret_sha256, b"\0".join((_PURPOSE, session_id.encode(), str(expires_at).encode())), hashlib.sha256)
    return base64.urlsafe_b64encode(code).rstrip(b"=").decode()
