"""A Swarm of one machine, on an engine of its own: no test makes somebody's engine part of one. It is there for all test processes; who
leaves last takes it along.

Its workers' network has no way out and none in; a pair of interfaces lets this machine in, as if it were one more container there.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import docker
from support.containers import BASE, socket_for, worker_image
from support.requirements import require

from server.spawner.serve import serving
from server.spawner.settings import SpawnerSettings

HOME = Path("/tmp/treadle-test-swarm")
HOST = f"unix://{HOME}/docker.sock"
NETWORK = "treadle-workers"
_BRIDGE, _INSIDE, _OUTSIDE = "treadle-swarm", "treadle-in", "treadle-out"
_SUBNET, _OWN, _KEEPER = "172.29.224.0/20", "172.29.239.250/20", "172.29.239.251"
_USERS = Path(f"{HOME}.users").open("w")  # noqa: SIM115 held for the life of the process


@cache
def swarm() -> docker.DockerClient:
    """Its engine; skips the test where there can be none."""
    needed = [name for name in ("dockerd", "ip", "iptables") if shutil.which(name) is None]
    require(os.geteuid() == 0 and not needed, "root with dockerd and iproute2", "run as root; apt-get install docker.io iproute2 iptables")
    with _starting():
        fcntl.flock(_USERS, fcntl.LOCK_SH)
        if not _answers():
            _end()
            _begin()
    return client()


@cache
def client() -> docker.DockerClient:
    """Of the Swarm's engine, which is there."""
    return docker.DockerClient(HOST, timeout=60)


@cache
def swarm_image(provider: str) -> str:
    """The setting TREADLE_WORKER_IMAGE, for an image that the Swarm's engine has."""
    setting = worker_image(provider)
    swarm()
    with _starting():
        load(setting.replace("{provider}", provider))
    return setting


def load(*images: str) -> None:
    """From this machine's engine; in one go, since what images share is moved once."""
    if missing := [image for image in images if not client().images.list(image)]:
        with subprocess.Popen(["docker", "save", *missing], stdout=subprocess.PIPE) as saving:
            subprocess.run(["docker", "--host", HOST, "load", "--quiet"], stdin=saving.stdout, check=True, capture_output=True)
        assert saving.returncode == 0


def leave() -> None:
    """At the end of a test process."""
    if not swarm.cache_info().currsize:
        return
    with _starting():
        fcntl.flock(_USERS, fcntl.LOCK_UN)
        with suppress(BlockingIOError):
            fcntl.flock(_USERS, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _end()
            fcntl.flock(_USERS, fcntl.LOCK_UN)


def swarm_settings(folder: Path, provider: str = "replay", **changes: Any) -> SpawnerSettings:
    """For a server whose data directory is `folder`."""
    known = {name: value for name, value in changes.items() if name in SpawnerSettings.model_fields}
    given = {"data_dir": folder, "spawner_kind": "swarm", "docker_host": HOST, "worker_memory_mib": 512} | known
    if "worker_image" not in known:
        given["worker_image"] = swarm_image(provider)
    return SpawnerSettings(**given | {"spawner_socket": socket_for(folder)})


@asynccontextmanager
async def swarm_spawning(folder: Path, provider: str = "replay", **changes: Any) -> AsyncIterator[SpawnerSettings]:
    """A spawner for a server whose data directory is `folder`; afterwards none of its services is left."""
    swarm()
    settings = swarm_settings(folder, provider, **changes)
    with no_services_left(settings.slots_dir):
        async with serving(settings):
            yield settings


@contextmanager
def no_services_left(root: Path) -> Iterator[None]:
    try:
        yield
    finally:
        for service in services_of(root):
            service.remove()


def services_of(root: Path) -> list[Any]:
    """Those whose slots are in `root`."""
    here = {path.name for path in root.iterdir()} if root.is_dir() else set()
    return [each for each in client().services.list() if each.attrs["Spec"]["Labels"].get("treadle.slot") in here]


def container_of_slot(slot: str) -> Any:
    (container,) = containers_of_slot(slot)
    return container


def containers_of_slot(slot: str) -> list[Any]:
    return client().containers.list(all=True, ignore_removed=True, filters={"label": f"treadle.slot={slot}"})


@contextmanager
def _starting() -> Iterator[None]:
    """One process at a time."""
    with Path(f"{HOME}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _answers() -> bool:
    if not (HOME / "ready").exists():
        return False
    return subprocess.run(["docker", "--host", HOST, "version"], capture_output=True, check=False).returncode == 0


def _begin() -> None:
    HOME.mkdir()
    _ip("link", "add", _BRIDGE, "type", "bridge")
    _ip("addr", "add", "172.29.223.1/24", "dev", _BRIDGE)
    _ip("link", "set", _BRIDGE, "up")
    with (HOME / "dockerd.log").open("wb") as log:
        # Nobody's child: it lives as long as any test process needs it.
        command = [
            "setsid",
            "--fork",
            "dockerd",
            "--data-root",
            HOME / "data",
            "--exec-root",
            HOME / "exec",
            "--host",
            HOST,
            "--pidfile",
            HOME / "pid",
        ]
        subprocess.run([*command, "--bridge", _BRIDGE, "--iptables=false"], stdout=log, stderr=log, check=True)
    deadline = time.monotonic() + 60
    while subprocess.run(["docker", "--host", HOST, "version"], capture_output=True, check=False).returncode:
        require(time.monotonic() < deadline, "a second engine", f"see {HOME / 'dockerd.log'}")
        time.sleep(0.1)
    _docker("swarm", "init", "--advertise-addr", "127.0.0.1", "--listen-addr", "127.0.0.1:2377")
    _docker("network", "create", "--driver", "overlay", "--internal", "--attachable", "--subnet", _SUBNET, NETWORK)
    load(BASE)
    # As long as anything of this machine is in it, the network is there.
    _docker("run", "--detach", "--network", NETWORK, "--ip", _KEEPER, BASE, "sleep", "infinity")
    inside = HOME / "exec" / "netns" / f"1-{client().networks.get(NETWORK).id[:10]}"
    enter = ["nsenter", f"--net={inside}", "ip"]
    # Both ends are made in there, where their names are free, and one is handed out.
    subprocess.run([*enter, "link", "add", _INSIDE, "type", "veth", "peer", "name", _OUTSIDE, "netns", str(os.getpid())], check=True)
    subprocess.run([*enter, "link", "set", _INSIDE, "master", "br0", "up"], check=True)
    _ip("addr", "add", _OWN, "dev", _OUTSIDE)
    _ip("link", "set", _OUTSIDE, "up")
    (HOME / "ready").touch()


def _end() -> None:
    with suppress(FileNotFoundError, ValueError, ProcessLookupError):
        pid = int((HOME / "pid").read_text())
        subprocess.run(["docker", "--host", HOST, "swarm", "leave", "--force"], capture_output=True, check=False, timeout=30)
        for container in subprocess.run(
            ["docker", "--host", HOST, "ps", "-aq"], capture_output=True, text=True, check=False
        ).stdout.split():
            subprocess.run(["docker", "--host", HOST, "rm", "-f", container], capture_output=True, check=False)
        os.kill(pid, 15)
        while (HOME / "pid").exists() and Path(f"/proc/{pid}").exists():
            time.sleep(0.05)
    for name in (_OUTSIDE, _BRIDGE, "docker_gwbridge"):
        subprocess.run(["ip", "link", "delete", name], capture_output=True, check=False)
    shutil.rmtree(HOME, ignore_errors=True)


def _docker(*words: str) -> None:
    subprocess.run(["docker", "--host", HOST, *words], check=True, stdout=sys.stderr)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
