"""The container engine, by its own SDK: blocking calls, in a few threads of their own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import docker
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from requests.exceptions import ConnectionError as RequestsConnectionError
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

_CALL_SECONDS = 30
_END_SECONDS = 10
_THREADS = 8
_RUNNING = frozenset({"running", "paused", "restarting"})

T = TypeVar("T")


class EngineError(Exception):
    """Root of what the engine can answer besides yes; the message says what, for an operator."""


class EngineAway(EngineError):
    """Nobody answers, or not in time: the same may work later."""


class EngineRefused(EngineError):
    """The engine will not do it, however often it is asked."""


class RegistryDenies(EngineRefused):
    """The image's registry does not show it to who comes like this. Some say so, too, of what they do not have."""


class NameTaken(EngineRefused):
    """There is a container of that name."""


@dataclass(frozen=True)
class Facts:
    """What the engine tells of itself."""

    version: str
    processors: int
    memory: int
    """Bytes."""
    runtimes: frozenset[str]
    cannot_limit: tuple[str, ...]
    """What the kernel does not let it limit."""
    seccomp: bool


@dataclass(frozen=True)
class State:
    """What the engine tells of a container."""

    name: str
    created_at: int
    """Seconds since 1970."""
    labels: Mapping[str, str]
    status: str
    """`created`, `running`, `exited` …"""
    id: str = ""
    pid: int = 0
    code: int | None = None
    oom_killed: bool = False
    """Whether anything in it was killed for the lack of memory, the main process or another."""

    @property
    def running(self) -> bool:
        """Whether there are processes in it."""
        return self.status in _RUNNING


class Engine:
    """One engine. Every call is bounded. Errors of all: EngineError."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._threads = ThreadPoolExecutor(_THREADS, "engine")
        self._api: docker.APIClient | None = None

    async def facts(self) -> Facts:
        """Whether it is there, and what it can do."""
        return await self.call(_facts)

    async def has_image(self, image: str) -> bool:
        """Whether an image is there; none is ever pulled."""

        def look(api: docker.APIClient) -> bool:
            try:
                api.inspect_image(image)
            except ImageNotFound:
                return False
            return True

        return await self.call(look)

    async def digest_in_registry(self, image: str) -> str:
        """By which its registry has it, with whatever `docker login` left in DOCKER_CONFIG; empty where it says that it has not. Errors:
        RegistryDenies, EngineAway, EngineRefused; the message says whose."""

        def ask(api: docker.APIClient) -> str:
            try:
                return str(api.inspect_distribution(image)["Descriptor"]["digest"])
            except NotFound:
                return ""
            except APIError as error:
                if error.status_code in {401, 403}:
                    raise RegistryDenies(str(error.explanation)) from error
                raise

        return await self.call(ask)

    async def label(self, image: str, label: str) -> str:
        """A label of an image; empty where it has none. Errors: EngineRefused when there is no such image."""
        return await self.call(lambda api: str((api.inspect_image(image)["Config"].get("Labels") or {}).get(label, "")))

    async def create(self, name: str, image: str, configuration: Mapping[str, Any], host: Mapping[str, Any]) -> None:
        """Make a container, which does not run yet. Errors: NameTaken."""
        await self.call(lambda api: api.create_container(image, name=name, host_config=api.create_host_config(**host), **configuration))

    async def start(self, name: str, line: bytes) -> None:
        """Start it with `line` on its standard input, which then ends."""

        def start(api: docker.APIClient) -> None:
            # Attached before it runs: what is said before is kept for it, and is nowhere but in this pipe.
            stream = api.attach_socket(name, params={"stdin": 1, "stream": 1})
            with stream, stream._sock as connection:
                api.start(name)
                connection.sendall(line)
                connection.shutdown(socket.SHUT_WR)

        await self.call(start)

    async def inspect(self, name: str) -> State | None:
        """None when there is none."""

        def look(api: docker.APIClient) -> State | None:
            try:
                return _state(api.inspect_container(name))
            except NotFound:
                return None

        return await self.call(look)

    async def kill(self, name: str) -> None:
        """End all its processes, and wait until they are gone. One that ended by itself, or is gone, will do."""

        def end(api: docker.APIClient) -> None:
            with contextlib.suppress(NotFound):
                try:
                    api.kill(name)
                except APIError as error:
                    if error.status_code != 409:  # it does not run
                        raise
                api.wait(name, timeout=_END_SECONDS)

        await self.call(end)

    async def ended(self, name: str, *, seconds: float) -> None:
        """Wait until a container that was started has ended; takes one of the few threads. Errors: EngineAway when it takes longer."""
        await self.call(lambda api: api.wait(name, timeout=seconds))

    async def output(self, name: str) -> str:
        """What it printed, as far as the engine keeps it."""

        def read(api: docker.APIClient) -> str:
            try:
                return bytes(api.logs(name)).decode(errors="replace")
            except NotFound:
                return ""

        return await self.call(read)

    async def remove(self, name: str) -> None:
        """Delete it, running or not, if it is there."""

        def remove(api: docker.APIClient) -> None:
            with contextlib.suppress(NotFound):
                try:
                    api.remove_container(name, force=True, v=True)
                except APIError as error:
                    if error.status_code != 409:  # somebody else removes it just now
                        raise

        await self.call(remove)

    async def list(self, label: str) -> list[State]:
        """All containers that have the label, `name=value`."""
        return await self.call(lambda api: [_listed(each) for each in api.containers(all=True, filters={"label": label})])

    @asynccontextmanager
    async def happenings(self, label: str) -> AsyncIterator[asyncio.Queue[tuple[str, str] | None]]:
        """What happens to containers that have the label, as (what, name) from now on; None when the engine has hung up."""
        loop = asyncio.get_running_loop()
        heard: asyncio.Queue[tuple[str, str] | None] = asyncio.Queue()
        stream = await self.call(lambda api: api.events(decode=True, filters={"label": label, "type": "container"}))
        # Not one of the few threads: it is there as long as this is.
        thread = threading.Thread(target=_tell, args=(stream, lambda each: loop.call_soon_threadsafe(heard.put_nowait, each)), daemon=True)
        thread.start()
        try:
            yield heard
        finally:
            with contextlib.suppress(DockerException, OSError):
                stream.close()
            await loop.run_in_executor(self._threads, thread.join, _END_SECONDS)

    def close(self) -> None:
        """Let go. What runs goes on."""
        if self._api is not None:
            self._api.close()
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def call(self, work: Callable[[docker.APIClient], T]) -> T:
        """What `work` returns, in a thread."""

        def call() -> T:
            with _told(self._host):
                if self._api is None:
                    self._api = docker.APIClient(self._host, version="auto", timeout=_CALL_SECONDS, num_pools=_THREADS)
                return work(self._api)

        return await to_its_end(asyncio.get_running_loop().run_in_executor(self._threads, call))


async def to_its_end(work: Awaitable[T]) -> T:
    """What it returns; whoever is cancelled meanwhile waits for its end all the same. A thread cannot be stopped, so a slot that is held
    must be held until nothing more happens to its container."""
    done = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        await asyncio.wait({done})
        if not done.cancelled():
            done.exception()
        raise


@contextmanager
def _told(host: str) -> Iterator[None]:
    """What the SDK raises, as ours. It lets through what the libraries below it raise."""
    try:
        yield
    except APIError as error:
        said = str(error.explanation or error)
        if error.status_code == 409 and "is already in use" in said:
            raise NameTaken(said) from error
        if error.is_server_error():
            # Not about what was asked: what it says then (no memory for a process, a timeout of its own, a disk) may be over in a moment.
            raise EngineAway(said) from error
        raise EngineRefused(said) from error
    except (DockerException, RequestException, HTTPError, OSError) as error:
        raise EngineAway(_why_away(host, error)) from error


def _why_away(host: str, error: BaseException) -> str:
    """By the first error that the operating system gave, which the libraries have wrapped several times."""
    seen: BaseException | None = error
    while seen is not None:
        inner = seen.args[0] if isinstance(seen, RequestsConnectionError | DockerException) and seen.args else None
        for each in (seen, *getattr(inner, "args", ())):
            if isinstance(each, PermissionError):
                return (
                    f"the container engine at {host} may not be used by this user; run the spawner as root, or as a member of the group "
                    "that its socket has (usually docker), which is as much as root"
                )
            if isinstance(each, FileNotFoundError | ConnectionRefusedError):
                return f"no container engine answers at {host}; start it (systemctl start docker), or name another with DOCKER_HOST"
        seen = seen.__cause__ or seen.__context__
    return f"the container engine at {host} does not answer: {error}"


def _facts(api: docker.APIClient) -> Facts:
    info = api.info()
    limits = {"MemoryLimit": "memory", "SwapLimit": "swap", "PidsLimit": "processes", "CpuCfsQuota": "processors"}
    return Facts(
        version=info["ServerVersion"],
        processors=info["NCPU"],
        memory=info["MemTotal"],
        runtimes=frozenset(info["Runtimes"]),
        cannot_limit=tuple(words for name, words in limits.items() if not info.get(name)),
        seccomp=any("seccomp" in option for option in info.get("SecurityOptions") or ()),
    )


def _state(told: Mapping[str, Any]) -> State:
    state = told["State"]
    ended = state["Status"] in {"exited", "dead"}
    return State(
        name=told["Name"].removeprefix("/"),
        created_at=0,
        labels=told["Config"]["Labels"] or {},
        status=state["Status"],
        id=told["Id"],
        pid=state["Pid"],
        code=state["ExitCode"] if ended else None,
        oom_killed=state["OOMKilled"],
    )


def _listed(told: Mapping[str, Any]) -> State:
    return State(told["Names"][0].removeprefix("/"), told["Created"], told["Labels"] or {}, told["State"], told["Id"])


def _tell(stream: Iterator[Mapping[str, Any]], tell: Callable[[tuple[str, str] | None], object]) -> None:
    with contextlib.suppress(DockerException, RequestException, HTTPError, OSError, ValueError, AttributeError):
        for each in stream:
            tell((str(each.get("Action")), str(each.get("Actor", {}).get("Attributes", {}).get("name", ""))))
    with contextlib.suppress(RuntimeError):  # the loop has ended
        tell(None)
