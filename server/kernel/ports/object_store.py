"""Port: large immutable objects."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class StoredObject:
    """What was stored: `size` in bytes, `sha256` in hexadecimal digits."""

    key: str
    size: int
    sha256: str


class ObjectStore(Protocol):
    """Immutable objects under keys that only the server makes (`tenant/session/...`, no `..`, no leading slash, at most 512 bytes).

    - `put` is atomic: a reader sees the whole object or none, also after a crash; putting a key again replaces it.
    - `get` streams, and raises ObjectCorrupt at the end (never silently) when the bytes are not those of `sha256`. A consumer must
      not act on bytes before the iterator has ended.
    - `delete` of a missing key does nothing. `list` yields keys in order.
    - Nothing blocks the event loop; memory does not grow with the size of an object.

    Errors: ObjectNotFound, ObjectCorrupt, ObjectStoreUnavailable; ValueError for a key that is not well-formed.
    """

    async def put(self, key: str, source: Path) -> StoredObject:
        """Store the file's bytes."""
        ...

    def get(self, key: str, *, sha256: str) -> AsyncIterator[bytes]:
        """Stream an object's bytes, verified against `sha256`."""
        ...

    async def delete(self, key: str) -> None:
        """Remove an object."""
        ...

    def list(self, prefix: str) -> AsyncIterator[str]:
        """Keys that begin with `prefix`."""
        ...
