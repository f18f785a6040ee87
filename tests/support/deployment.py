"""What docker-compose.yml makes, on this machine's engine: a directory as an operator has it, under a project's name of its own. Postgres
and the object store are Debian's and a wheel's, since no image can be pulled where the tests run."""

from __future__ import annotations

import fcntl
import hashlib
import http
import os
import random
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from support.containers import BASE, ROOT, containers_of, images, require_engine
from support.requirements import require

from treadle_client import Treadle

HERE = Path(__file__).parent
_SECONDS = 400


class Deployment:
    """One project."""

    def __init__(self, home: Path, name: str, worker_root: Path) -> None:
        self.home = home
        self.name = name
        self.worker_root = worker_root
        self.port = _free_port()

    def compose(self, *arguments: str, check: bool = True, stdin: str = "") -> str:
        """`docker-compose`; its output."""
        return self.shell("docker-compose", *arguments, check=check, stdin=stdin)

    def shell(self, *command: str, check: bool = True, stdin: str = "") -> str:
        """Any command in the directory, for this project."""
        begun = time.monotonic()
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.home), "COMPOSE_PROJECT_NAME": self.name}
        done = subprocess.run(
            command, cwd=self.home, env=environment, input=stdin, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
        print(f"{time.monotonic() - begun:6.1f} s  {' '.join(command)[:100]}")
        assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done.stdout

    def set(self, file: str = ".env", **values: str) -> None:
        """Give settings other values."""
        path = self.home / file
        kept = [line for line in path.read_text().splitlines() if line.partition("=")[0] not in values]
        path.write_text("\n".join([*kept, *(f"{name}={value}" for name, value in values.items())]) + "\n")

    def container(self, service: str) -> Any:
        """As the engine knows it now."""
        (found,) = require_engine().containers.list(
            all=True, filters={"label": [f"com.docker.compose.project={self.name}", f"com.docker.compose.service={service}"]}
        )
        return found

    def healthy(self, *services: str) -> None:
        """Wait until these say that they are; a gateway, until it has a server, too."""
        waiting, deadline = set(services), time.monotonic() + _SECONDS
        while waiting:
            assert time.monotonic() < deadline, f"{waiting}: {self.compose('logs', '--no-color', '--tail', '20', *waiting)}"
            waiting = {each for each in waiting if self.container(each).attrs["State"].get("Health", {}).get("Status") != "healthy"}
            time.sleep(0.1)
        while "gateway" in services and not self._serves():
            assert time.monotonic() < deadline, self.compose("logs", "--no-color", "--tail", "20", "gateway")
            time.sleep(0.1)

    def _serves(self) -> bool:
        context = ssl.create_default_context(cafile=self.home / "tls" / "certificate.pem")
        try:
            with urlopen(f"https://localhost:{self.port}/healthz", context=context, timeout=10) as answer:
                return bool(answer.status == http.HTTPStatus.OK)
        except OSError:
            return False

    def this_machine(self) -> str:
        """This machine, as the server sees it, whatever becomes of the project's networks."""
        (configured,) = require_engine().networks.get("bridge").attrs["IPAM"]["Config"]
        # An engine that has just made it does not tell what it took: the first address.
        return str(configured.get("Gateway") or next(ip_network(configured["Subnet"]).hosts()))

    def new_key(self, user: str) -> str:
        """Of a user, made as an operator does it."""
        return self.compose("exec", "-T", "server", "treadle", "key", user, "--email", f"{user}@example.org").strip()

    def client(self, key: str) -> Treadle:
        """Through the gateway, over TLS."""
        return Treadle(f"https://localhost:{self.port}", key, ca_file=self.home / "tls" / "certificate.pem")

    def workers(self) -> list[Any]:
        """The containers of its workers."""
        return containers_of(self.worker_root)


@contextmanager
def deployed(home: Path, **values: str) -> Iterator[Deployment]:
    """Made ready, not up. Afterwards nothing of it is left."""
    require(shutil.which("docker-compose"), "docker-compose", "apt-get install docker-compose")
    name = f"tdt{os.getpid()}{os.urandom(2).hex()}"
    # Short, since sockets are in there; the engine mounts what is in it.
    worker_root = Path(tempfile.mkdtemp(prefix="tw-"))
    deployment = Deployment(home, name, worker_root)
    home.mkdir(exist_ok=True)
    shutil.copy(ROOT / "docker-compose.yml", home)
    (home / "tools").symlink_to(ROOT / "tools")
    deployment.shell("tools/compose-env")
    deployment.set(
        **images("server", "gateway", "replay"),
        **support_images(),
        TREADLE_WORKER_ROOT=str(worker_root),
        TREADLE_WORKER_MEMORY_MIB="512",
        GATEWAY_ADDRESS="127.0.0.1",
        GATEWAY_PORT=str(deployment.port),
        **values,
    )
    try:
        yield deployment
    finally:
        deployment.compose("down", "--volumes", "--timeout", "5", check=False)
        for worker in deployment.workers():
            worker.remove(force=True)
        shutil.rmtree(worker_root)


@cache
def support_images() -> Mapping[str, str]:
    """Postgres and the object store. They are built beside those of the tree, which other tests wait for."""
    client = require_engine()
    base = client.images.get(BASE).id if client.images.list(BASE) else "debian:bookworm-slim"
    found = {}
    with (
        tempfile.TemporaryDirectory() as scratch,
        (Path(tempfile.gettempdir()) / f"treadle-support-images-{os.geteuid()}").open("w") as lock,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        for setting, name in (("POSTGRES_IMAGE", "postgres"), ("OBJECTS_IMAGE", "objects")):
            context = Path(scratch, name)
            shutil.copytree(HERE / "images" / name, context)
            shutil.copy(ROOT / "constraints.txt", context)
            content = b"".join(path.read_bytes() for path in sorted(context.iterdir())) + base.encode()
            image = f"treadle-test-{name}:{hashlib.sha256(content).hexdigest()[:12]}"
            certificates = os.environ.get("PIP_CERT", os.devnull)
            (context / "ca-certificates.crt").write_bytes(Path(certificates).read_bytes())
            if not client.images.list(image):
                given = [f"BASE={base}", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "http_proxy", "https_proxy"]
                arguments = [word for each in given for word in ("--build-arg", each)]
                done = subprocess.run(
                    ["docker", "build", "--quiet", "--tag", image, *arguments, str(context)], capture_output=True, text=True, check=False
                )
                require(done.returncode == 0, f"an image for {name}", done.stderr[-2000:])
            found[setting] = image
    return found


def _free_port() -> int:
    """Below those that the kernel hands out, since it is free again for a while in the middle of a test."""
    while True:
        port = random.randrange(20_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
