"""Object store on S3, through the minio SDK."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import structlog
import urllib3
from minio import Minio
from minio.error import MinioException, S3Error

from server.config import Settings
from server.kernel.errors import ObjectNotFound, ObjectStoreUnavailable
from server.kernel.ports.object_store import ObjectStore, StoredObject
from server.refusal import SettingsUnfit
from server.storage.keys import checked_key, checked_prefix
from server.storage.reading import PIECE_BYTES, Source, Stopped, verified
from server.storage.threads import Threads

_THREADS = 8

log = structlog.get_logger()

PART_BYTES = 8 * 1024 * 1024
"""The SDK holds one part in memory at a time; S3 allows 10,000 parts, which makes 80 GB."""


@dataclass(frozen=True)
class Limits:
    """How long a server may keep us waiting: `connect` and `read` in seconds, for each of `tries`."""

    connect: float = 5
    read: float = 20
    tries: int = 3


@asynccontextmanager
async def open_s3(settings: Settings, limits: Limits = Limits()) -> AsyncIterator[ObjectStore]:
    """The bucket `s3_bucket`. A store that is down must not keep Treadle from starting: that is only logged. Errors: SettingsUnfit."""
    async with connected(settings, limits) as (client, _, threads):
        store = S3Store(client, settings.s3_bucket, threads)
        looking = asyncio.create_task(_look(store, settings.s3_endpoint), name="first look at the object store")
        try:
            yield store
        finally:
            looking.cancel()
            await asyncio.wait({looking})


@asynccontextmanager
async def connected(settings: Settings, limits: Limits = Limits()) -> AsyncIterator[tuple[Minio, urllib3.PoolManager, Threads]]:
    """A client of the server that the settings name, its connections, and threads for it. Errors: SettingsUnfit."""
    if not settings.s3_endpoint:
        raise SettingsUnfit("TREADLE_S3_ENDPOINT is needed with a bucket of S3: host:port of the server")
    threads = Threads("s3", size=_THREADS)
    http = _http(limits)
    try:
        yield (
            Minio(
                settings.s3_endpoint,
                access_key=settings.s3_access_key,
                secret_key=settings.s3_secret_key.get_secret_value(),
                secure=settings.s3_secure,
                http_client=http,
            ),
            http,
            threads,
        )
    finally:
        await threads.close()
        http.clear()


async def _look(store: ObjectStore, endpoint: str) -> None:
    """Else it would be known only at the end of the first turn."""
    try:
        async for _ in store.list("first-look/"):
            break
    except ObjectStoreUnavailable as error:
        log.warning("object_store.unusable", endpoint=endpoint, error=error.message, remedy="TREADLE_S3_* name it; snapshots wait for it")


class S3Store:
    """One S3 object per object. A put becomes visible with its last request, so a reader never sees half of one; parts of a put that
    died stay on the server, unseen, until its own rule for incomplete uploads removes them."""

    def __init__(self, client: Minio, bucket: str, threads: Threads) -> None:
        self._client = client
        self._bucket = bucket
        self._threads = threads

    async def put(self, key: str, source: Path) -> StoredObject:
        """See the port."""
        checked_key(key)
        return await self._threads.run(lambda stop: self._put(key, source, stop))

    def get(self, key: str, *, sha256: str) -> AsyncIterator[bytes]:
        """See the port."""
        return self._threads.stream(verified(key, sha256, self._pieces(checked_key(key))))

    async def delete(self, key: str) -> None:
        """See the port."""
        checked_key(key)
        await self._threads.run(lambda _: self._delete(key))

    async def list(self, prefix: str) -> AsyncIterator[str]:
        """See the port. Holds all the keys, because not every server lists in the order of whole keys (SeaweedFS goes by folder)."""
        checked_prefix(prefix)
        for key in await self._threads.run(lambda stop: self._keys(prefix, stop)):
            yield key

    def _put(self, key: str, source: Path, stop: threading.Event) -> StoredObject:
        try:
            return self._upload(key, source, stop)
        except _BucketMissing:
            self._make_bucket()
            return self._upload(key, source, stop)

    def _make_bucket(self) -> None:
        with s3_failures(self._bucket):
            try:
                self._client.make_bucket(self._bucket)
            except S3Error as error:
                if error.code != "BucketAlreadyOwnedByYou":  # another put was faster
                    raise

    def _upload(self, key: str, source: Path, stop: threading.Event) -> StoredObject:
        with source.open("rb") as file, s3_failures(key):
            reader = Source(file, stop)
            size = os.fstat(file.fileno()).st_size
            data = cast("BinaryIO", reader)  # of which the SDK calls `read` only
            self._client.put_object(self._bucket, key, data, size, part_size=PART_BYTES, num_parallel_uploads=1)
            return reader.stored_as(key)

    def _pieces(self, key: str) -> Iterator[bytes]:
        with s3_failures(key):
            try:
                response = self._client.get_object(self._bucket, key)
            except S3Error as error:
                if error.code in {"NoSuchKey", "NoSuchBucket"}:
                    raise ObjectNotFound(key) from error
                raise
            try:
                yield from response.stream(PIECE_BYTES)
            finally:
                response.close()
                response.release_conn()

    def _delete(self, key: str) -> None:
        with _nothing_without_bucket(), s3_failures(key):
            self._client.remove_object(self._bucket, key)

    def _keys(self, prefix: str, stop: threading.Event) -> Sequence[str]:
        keys: list[str] = []
        with _nothing_without_bucket(), s3_failures(prefix):
            for entry in self._client.list_objects(self._bucket, prefix=prefix, recursive=True):
                if stop.is_set():
                    raise Stopped
                keys.append(str(entry.object_name))
        return sorted(keys)


class _BucketMissing(ObjectStoreUnavailable):
    """It is made by the first put; until then nothing is stored."""


@contextmanager
def _nothing_without_bucket() -> Iterator[None]:
    try:
        yield
    except _BucketMissing:
        return


@contextmanager
def s3_failures(key: str) -> Iterator[None]:
    """Every way in which the SDK says that the server did not do it, as one error; `OSError` is the SDK's for a source cut short."""
    try:
        yield
    except S3Error as error:
        kind = _BucketMissing if error.code == "NoSuchBucket" else ObjectStoreUnavailable
        raise kind(f"the object store refused {key!r}: {error.code}", key=key, code=error.code or "") from error
    except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
        raise ObjectStoreUnavailable(f"the object store does not answer: {type(error).__name__}", key=key) from error


def _http(limits: Limits) -> urllib3.PoolManager:
    return urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=limits.connect, read=limits.read),
        maxsize=_THREADS,
        retries=urllib3.Retry(total=limits.tries - 1, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504]),
    )
