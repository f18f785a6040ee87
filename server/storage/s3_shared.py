"""A bucket that another system reads and writes as well: its objects change, and nobody knows their digests before."""

from __future__ import annotations

import hashlib
import io
import threading
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

import structlog
import urllib3
from minio import Minio
from minio.error import S3Error

from server.config import Settings
from server.kernel.errors import ObjectNotFound, ObjectStoreUnavailable
from server.storage.reading import PIECE_BYTES, Stopped
from server.storage.s3 import connected, s3_failures
from server.storage.threads import Threads

log = structlog.get_logger()

_ABSENT = frozenset({"NoSuchKey", "NoSuchBucket"})
_SIGNED_FOR = timedelta(hours=1)
_PROBE = "treadle-probe-"


@dataclass(frozen=True)
class SeenObject:
    """An object as it is now; `version` is another one after each write (its ETag)."""

    key: str
    version: str
    size: int


@asynccontextmanager
async def open_shared(settings: Settings, bucket: str) -> AsyncIterator[SharedBucket]:
    """A bucket of the server that the TREADLE_S3_ settings name. Errors: SettingsUnfit."""
    async with connected(settings) as (client, http, threads):
        yield SharedBucket(client, http, bucket, threads)


class SharedBucket:
    """Its keys are the other system's. Errors of all: ObjectStoreUnavailable."""

    def __init__(self, client: Minio, http: urllib3.PoolManager, bucket: str, threads: Threads) -> None:
        self._client = client
        self._http = http
        self._bucket = bucket
        self._threads = threads
        self._probe = f"{_PROBE}{uuid.uuid4()}"

    async def list(self) -> Sequence[SeenObject]:
        """All of them, by key."""
        return await self._threads.run(self._list)

    async def find(self, key: str) -> SeenObject | None:
        """What is there now."""
        return await self._threads.run(lambda _: self._find(key))

    async def download(self, key: str, into: BinaryIO, *, max_bytes: int) -> tuple[str, str]:
        """Write an object to a file; the SHA-256 of what came, and its version. It ends behind the first piece with which it is too large.
        Errors: ObjectNotFound."""
        return await self._threads.run(lambda stop: self._download(key, into, max_bytes, stop))

    async def replace(self, key: str, source: Path, *, over: SeenObject | None) -> SeenObject | None:
        """Write an object of at most 5 GiB, which readers see whole or not at all, in the place of `over`. None, and nothing is written,
        when something else is there by now."""
        return await self._threads.run(lambda _: self._replace(key, source, over))

    async def ignored_condition(self) -> str:
        """The condition that the server does not heed, by trying: so `replace` would replace what it must not. Empty when it heeds all.
        What it is tried with is one object of this process, which is gone afterwards where it may be removed."""
        return await self._threads.run(lambda _: self._ignored_condition(self._probe))

    def _list(self, stop: threading.Event) -> Sequence[SeenObject]:
        found = []
        with s3_failures(self._bucket):
            for entry in self._client.list_objects(self._bucket, recursive=True):
                if stop.is_set():
                    raise Stopped
                found.append(SeenObject(str(entry.object_name), (entry.etag or "").strip('"'), entry.size or 0))
        return sorted(found, key=lambda seen: seen.key)

    def _find(self, key: str) -> SeenObject | None:
        with s3_failures(key):
            try:
                entry = self._client.stat_object(self._bucket, key)
            except S3Error as error:
                if error.code in _ABSENT:
                    return None
                raise
        return SeenObject(key, (entry.etag or "").strip('"'), entry.size or 0)

    def _download(self, key: str, into: BinaryIO, max_bytes: int, stop: threading.Event) -> tuple[str, str]:
        digest, taken = hashlib.sha256(), 0
        with s3_failures(key):
            try:
                response = self._client.get_object(self._bucket, key)
            except S3Error as error:
                if error.code in _ABSENT:
                    raise ObjectNotFound(key) from error
                raise
            try:
                for piece in response.stream(PIECE_BYTES):
                    if stop.is_set():
                        raise Stopped
                    into.write(piece)
                    digest.update(piece)
                    taken += len(piece)
                    if taken > max_bytes:
                        break
            finally:
                response.close()
                response.release_conn()
        return digest.hexdigest(), response.headers.get("etag", "").strip('"')

    def _replace(self, key: str, source: Path, over: SeenObject | None) -> SeenObject | None:
        with source.open("rb") as file:
            return self._put(key, file, source.stat().st_size, over)

    def _put(self, key: str, body: BinaryIO, size: int, over: SeenObject | None) -> SeenObject | None:
        """By a signed URL, since the SDK's own `put_object` takes no condition."""
        condition = {"If-Match": f'"{over.version}"'} if over else {"If-None-Match": "*"}
        headers = {"Content-Length": str(size), "Content-Type": "application/gzip", **condition}
        with s3_failures(key):
            url = self._client.presigned_put_object(self._bucket, key, expires=_SIGNED_FOR)
            response = self._http.request("PUT", url, body=body, headers=headers)
        # Absent is not what `over` was, either.
        if response.status in (HTTPStatus.PRECONDITION_FAILED, HTTPStatus.CONFLICT) or (over and response.status == HTTPStatus.NOT_FOUND):
            return None
        version = response.headers.get("etag", "").strip('"')
        if response.status != HTTPStatus.OK or not version:
            raise ObjectStoreUnavailable(f"the object store refused {key!r}: HTTP {response.status}", key=key)
        return SeenObject(key, version, size)

    def _ignored_condition(self, key: str) -> str:
        def put(data: bytes, over: SeenObject | None) -> SeenObject | None:
            return self._put(key, io.BytesIO(data), len(data), over)

        # Of one that an earlier try has left, too.
        if (first := put(b"1", self._find(key))) is None:
            raise ObjectStoreUnavailable(f"the object store takes no {key!r}", key=key)
        try:
            if put(b"2", None) is not None:
                return "If-None-Match"
            if put(b"3", first) is None:
                raise ObjectStoreUnavailable(f"the object store takes no other {key!r}", key=key)
            return "If-Match" if put(b"4", first) is not None else ""
        finally:
            try:
                with s3_failures(key):
                    self._client.remove_object(self._bucket, key)
            except ObjectStoreUnavailable as error:
                log.warning("legacy.probe_not_removed", key=key, error=error.message)
