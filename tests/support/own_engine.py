"""A container engine of the test's own, which it may restart and kill; the machine's is everybody's."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import docker
from support.containers import require_engine, worker_image
from support.requirements import require

_ADD_BRIDGE, _DELETE_BRIDGE = 0x89A0, 0x89A1
_SET_ADDRESS, _SET_MASK, _SET_FLAGS = 0x8916, 0x891C, 0x8914


class OwnEngine:
    """As root. Containers outlive it, or do not, as `live_restore` says."""

    def __init__(self, home: Path, bridge: str, *, live_restore: bool) -> None:
        self.host = f"unix://{home}/docker.sock"
        self._home = home
        self._bridge = bridge
        self.live_restore = live_restore
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Until it answers."""
        home = self._home
        arguments = ["--data-root", home / "data", "--exec-root", home / "exec", "--pidfile", home / "pid", "--host", self.host]
        arguments += ["--bridge", self._bridge, "--iptables=false", "--ip-masq=false", f"--live-restore={str(self.live_restore).lower()}"]
        (home / "pid").unlink(missing_ok=True)
        with (home / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                "dockerd", *map(str, arguments), stdout=log, stderr=log, start_new_session=True
            )
        async with asyncio.timeout(60):
            while not await asyncio.to_thread(self._answers):
                assert self.process.returncode is None, (home / "log").read_text()[-3000:]
                await asyncio.sleep(0.1)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)
            async with asyncio.timeout(60):
                await self.process.wait()

    def client(self) -> docker.DockerClient:
        return docker.DockerClient(self.host, timeout=30)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as trial:
            if trial.connect_ex(self.host.removeprefix("unix://")):
                return False
        client = self.client()
        try:
            return bool(client.ping())
        except docker.errors.DockerException:
            return False
        finally:
            client.close()


@asynccontextmanager
async def own_engine(*, live_restore: bool = False, provider: str = "replay") -> AsyncIterator[OwnEngine]:
    """With the image of the agent's worker. Afterwards nothing of it is left."""
    require(
        os.geteuid() == 0 and shutil.which("dockerd"), "a container engine of its own", "run the tests as root, with docker.io installed"
    )
    name = worker_image(provider).replace("{provider}", provider)
    # Short, since containers' sockets have their paths in there.
    home = Path(tempfile.mkdtemp(prefix="trd-", dir="/tmp"))
    with _bridge(f"trd{os.getpid() % 100_000}", os.getpid() % 250 + 1) as bridge:
        engine = OwnEngine(home, bridge, live_restore=live_restore)
        try:
            await engine.start()
            await asyncio.to_thread(_bring, name, engine)
            yield engine
        finally:
            await _leave_nothing(engine, home)


def _bring(image: str, engine: OwnEngine) -> None:
    client = engine.client()
    try:
        client.images.load(require_engine().images.get(image).save(named=True))
    finally:
        client.close()


async def _leave_nothing(engine: OwnEngine, home: Path) -> None:
    with suppress(ProcessLookupError):
        if engine.process is None or engine.process.returncode is not None:
            await engine.start()
        client = engine.client()
        for container in client.containers.list(all=True, ignore_removed=True):
            container.remove(force=True)
        client.close()
    await engine.end()
    for pid in _members(home):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for mount in reversed([line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]):
        if mount.startswith(f"{home}/"):
            subprocess.run(["umount", "--lazy", mount], check=False)
    shutil.rmtree(home, ignore_errors=True)


def _members(home: Path) -> list[int]:
    """Processes that name its directory: its containerd, which outlives it when it is killed, and shims."""
    found = []
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if f"{home}/".encode() in cmdline.read_bytes():
                found.append(int(cmdline.parent.name))
    return found


@contextmanager
def _bridge(name: str, number: int) -> Iterator[str]:
    """A network bridge of its own: with `--bridge none` an engine deletes the one of the machine's. Nothing is connected to it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _ADD_BRIDGE, name.encode() + b"\0")
        try:
            for request, address in ((_SET_ADDRESS, f"172.28.{number}.1"), (_SET_MASK, "255.255.255.0")):
                wanted = struct.pack("16sH2x4s8x", name.encode(), socket.AF_INET, socket.inet_aton(address))
                fcntl.ioctl(control, request, wanted)
            yield name
        finally:
            down = struct.pack("16sH14x", name.encode(), 0)
            fcntl.ioctl(control, _SET_FLAGS, down)
            fcntl.ioctl(control, _DELETE_BRIDGE, name.encode() + b"\0")
