"""The S3 store on a real server: the contract, and a server that fails."""

from __future__ import annotations

import asyncio
import io
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from storage.contract import MIB, ObjectStoreContract, content, file_of, keys, large_file
from structlog.testing import capture_logs
from support.seaweedfs import S3Server
from support.tcp_gate import tcp_gate

from server.config import Settings
from server.kernel.errors import ObjectStoreUnavailable
from server.kernel.ports.object_store import ObjectStore
from server.refusal import SettingsUnfit
from server.storage.s3 import Limits, open_s3

PUT = """
import asyncio, os, sys
from pathlib import Path
from server.config import Settings
from server.storage.s3 import open_s3

async def main() -> None:
    async with open_s3(Settings()) as store:
        await store.put("tenant/a", Path(sys.argv[1]))

asyncio.run(main())
"""

IMPATIENT = Limits(connect=0.5, read=0.5, tries=2)


@pytest.fixture
def settings(s3: S3Server) -> Settings:
    """A bucket of its own for each test; nobody made it."""
    return settings_for(s3, s3.port, f"test-{uuid.uuid4()}")


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[ObjectStore]:
    async with open_s3(settings) as store:
        yield store


def settings_for(s3: S3Server, port: int, bucket: str, secret_key: str | None = None) -> Settings:
    return Settings(
        object_store="s3",
        s3_endpoint=f"127.0.0.1:{port}",
        s3_bucket=bucket,
        s3_access_key=s3.access_key,
        s3_secret_key=secret_key or s3.secret_key,
        s3_secure=False,
    )


class TestS3(ObjectStoreContract):
    async def damage(self, store: ObjectStore, key: str, data: bytes) -> None:
        await asyncio.to_thread(store._client.put_object, store._bucket, key, io.BytesIO(data), len(data))


async def test_lists_more_than_one_page(store: ObjectStore, settings: Settings, s3: S3Server) -> None:
    names = [f"t/{number:04}" for number in range(1100)]
    client = s3.client()

    def fill() -> None:
        client.make_bucket(settings.s3_bucket)
        for name in names:
            client.put_object(settings.s3_bucket, name, io.BytesIO(b""), 0)

    await asyncio.to_thread(fill)
    assert await keys(store, "t/") == names


async def test_a_writer_killed_half_way_leaves_the_old_object(store: ObjectStore, settings: Settings, s3: S3Server, tmp_path: Path) -> None:
    old = await store.put("tenant/a", file_of(tmp_path, b"old"))
    async with tcp_gate(s3.port, limit=20 * MIB) as gate:
        environment = {
            "TREADLE_S3_ENDPOINT": f"127.0.0.1:{gate.port}",
            "TREADLE_S3_BUCKET": settings.s3_bucket,
            "TREADLE_S3_ACCESS_KEY": s3.access_key,
            "TREADLE_S3_SECRET_KEY": s3.secret_key,
            "TREADLE_S3_SECURE": "false",
        }
        writer = await asyncio.create_subprocess_exec(sys.executable, "-c", PUT, str(large_file(tmp_path)), env=environment)
        async with asyncio.timeout(30):
            await gate.shut.wait()  # in its third part
        writer.send_signal(signal.SIGKILL)
        assert await writer.wait() == -signal.SIGKILL
    assert await content(store, "tenant/a", old.sha256) == b"old"
    assert await keys(store) == ["tenant/a"]


async def every_call(store: ObjectStore, folder: Path) -> None:
    source = file_of(folder, b"x")
    for call in [store.put("t/a", source), content(store, "t/a", "0" * 64), store.delete("t/a"), keys(store)]:
        with pytest.raises(ObjectStoreUnavailable):
            await call


async def test_a_server_that_is_down_is_unavailable(s3: S3Server, tmp_path: Path) -> None:
    async with asyncio.timeout(10), open_s3(settings_for(s3, 1, "bucket")) as store:
        await every_call(store, tmp_path)


async def test_a_server_that_never_answers_is_unavailable_in_bounded_time(s3: S3Server, tmp_path: Path) -> None:
    async with tcp_gate(s3.port, limit=0) as gate, open_s3(settings_for(s3, gate.port, "bucket"), IMPATIENT) as store:
        started = time.monotonic()
        await every_call(store, tmp_path)
        assert time.monotonic() - started < 4 * (IMPATIENT.tries * IMPATIENT.read + 2)


async def test_a_server_that_falls_silent_in_the_middle_of_a_put(s3: S3Server, settings: Settings, tmp_path: Path) -> None:
    async with tcp_gate(s3.port, limit=20 * MIB) as gate:
        async with asyncio.timeout(20), open_s3(settings_for(s3, gate.port, settings.s3_bucket), IMPATIENT) as store:
            with pytest.raises(ObjectStoreUnavailable):
                await store.put("tenant/a", large_file(tmp_path))
        assert gate.shut.is_set()
    async with open_s3(settings) as store:
        assert await keys(store) == []


async def test_a_wrong_secret_is_unavailable_and_not_told(s3: S3Server, settings: Settings, tmp_path: Path) -> None:
    async with open_s3(settings_for(s3, s3.port, settings.s3_bucket, secret_key="hunter2-hunter2")) as store:
        await every_call(store, tmp_path)
        with pytest.raises(ObjectStoreUnavailable) as caught:
            await store.delete("t/a")
    assert "SignatureDoesNotMatch" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(("change", "says"), [("s3_endpoint", "does not answer"), ("s3_secret_key", "refused")])
async def test_a_store_that_cannot_be_used_is_told_at_the_start(settings: Settings, change: str, says: str) -> None:
    wrong = settings.model_copy(update={change: {"s3_endpoint": "127.0.0.1:1", "s3_secret_key": SecretStr("wrong")}[change]})
    with capture_logs() as logs:
        async with open_s3(wrong, IMPATIENT), asyncio.timeout(10):
            while not logs:
                await asyncio.sleep(0.01)
    assert [each["event"] for each in logs] == ["object_store.unusable"]
    assert says in logs[0]["error"]


async def test_no_address_of_a_store_is_refused(settings: Settings) -> None:
    with pytest.raises(SettingsUnfit, match="TREADLE_S3_ENDPOINT is needed"):
        async with open_s3(settings.model_copy(update={"s3_endpoint": ""})):
            pass
