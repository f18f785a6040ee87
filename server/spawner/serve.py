"""Runs a spawner: the worker root, the engine, the service on its socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import grpc
import structlog

from server.refusal import StartRefused
from server.setting_forms import SOCKET_BYTES
from server.spawner.containers import Containers
from server.spawner.engine import Engine, EngineError
from server.spawner.readiness import EngineUnfit, NoSpace, Ready, check_wall, look
from server.spawner.root import RootUnusable, check_trust, held_root
from server.spawner.service import SpawnerService
from server.spawner.settings import SpawnerSettings
from server.spawner.slots import Slots
from server.spawner.swarm import Services, Swarm
from server.spawner.swarm_readiness import look_at_swarm
from server.spawner.swarm_service import SwarmSpawnerService
from server.spawner.template import Template
from server.workers import spawner_key
from server.workers.presence import is_anybody_present, make_sign
from treadle.spawner.v1.spawner_service_pb2_grpc import SpawnerServiceServicer, add_SpawnerServiceServicer_to_server

_GRACE_SECONDS = 2.0
STALE = "`make images` builds those of this checkout; where this runs in an image, take SERVER_IMAGE and TREADLE_WORKER_IMAGE of one build"
_OPTIONS = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 64 * 1024)]

log = structlog.get_logger()


class SocketUnfit(StartRefused):
    """The spawner cannot listen where it should."""


@asynccontextmanager
async def serving(settings: SpawnerSettings, *, end_workers: bool = False) -> AsyncIterator[asyncio.Future[None]]:
    """Serve for the time of the context; what it yields is done, with its error, when the spawner cannot go on. At the end containers are
    left alone, but with `end_workers` where no server is there any more. Errors: StartRefused."""
    async with AsyncExitStack() as stack:
        if settings.spawner_kind == "swarm":
            yield await _serving_swarm(stack, settings)
            return
        apart = settings.server_ids[0] != os.geteuid()
        installation = stack.enter_context(held_root(settings.slots_dir, group=settings.server_ids[1] if apart else None))
        engine, template, slots = Engine(settings.docker_host), Template(settings), Slots(settings)
        stack.callback(engine.close)
        ready = await look(engine, template)
        _tell_of(ready)
        wall: Callable[[], Awaitable[None]] | None = partial(check_wall, engine, template, ready.providers[0])
        try:
            await check_wall(engine, template, ready.providers[0])
            wall = None
        except NoSpace as error:
            # Workers must be ended and deleted even so, or the disk stays full. None is made before the wall was tried.
            log.warning("wall.untried", error=str(error))
        containers = Containers(engine, template, slots, installation=installation, providers=ready.providers, wall=wall)
        await _begun(containers)
        upkeep = asyncio.create_task(containers.look_after(), name="containers")
        stack.push_async_callback(_ended, upkeep)
        await _listen(stack, SpawnerService(containers, ready, template.settings), settings)
        log.info("spawner.ready", socket=str(settings.spawner_address), installation=installation, providers=ready.providers)
        yield upkeep
        if end_workers and not upkeep.done() and not await asyncio.to_thread(is_anybody_present, settings.spawner_address):
            await containers.end_all()


def _tell_of(ready: Ready) -> None:
    if ready.stale:
        log.warning("images.of_another_version", agents=ready.stale, remedy=STALE)


async def _begun(containers: Containers) -> None:
    try:
        await containers.begin()
    except EngineError as error:
        raise EngineUnfit(str(error)) from None
    except OSError as error:
        raise RootUnusable(f"TREADLE_WORKER_ROOT: {error.filename} cannot be used: {error.strerror}") from None


async def _serving_swarm(stack: AsyncExitStack, settings: SpawnerSettings) -> asyncio.Future[None]:
    engine = Engine(settings.docker_host)
    stack.callback(engine.close)
    template, ready = await look_at_swarm(engine, settings)
    _tell_of(ready)
    services = Services(Swarm(engine), template, providers=ready.providers)
    upkeep = asyncio.create_task(services.look_after(), name="services")
    stack.push_async_callback(_ended, upkeep)
    await _listen(stack, SwarmSpawnerService(services, ready, settings), settings)
    log.info("spawner.ready", socket=str(settings.spawner_address), network=settings.swarm_network, providers=ready.providers)
    return upkeep


async def checked(settings: SpawnerSettings) -> Ready:
    """What `serving` would find, without serving; a spawner that serves the root need not stop. Errors: StartRefused."""
    with ExitStack() as stack:
        if settings.spawner_kind == "swarm":
            engine = Engine(settings.docker_host)
            stack.callback(engine.close)
            return (await look_at_swarm(engine, settings))[1]
        for missing in reversed([path for path in (settings.slots_dir, *settings.slots_dir.parents) if not path.exists()]):
            missing.mkdir(mode=0o700)
            stack.callback(missing.rmdir)
        check_trust(settings.slots_dir)
        engine = Engine(settings.docker_host)
        stack.callback(engine.close)
        template = Template(settings)
        ready = await look(engine, template)
        await check_wall(engine, template, ready.providers[0])
        return ready


async def _listen(stack: AsyncExitStack, service: SpawnerServiceServicer, settings: SpawnerSettings) -> None:
    if settings.spawner_tcp:
        await listen_by_tcp(stack, service, settings)
        return
    address = settings.spawner_address.absolute()
    if len(os.fsencode(address)) > SOCKET_BYTES:
        raise SocketUnfit(f"TREADLE_SPAWNER_SOCKET: {address} is longer than the {SOCKET_BYTES} bytes that a socket's path may have")
    server = grpc.aio.server(options=_OPTIONS)
    add_SpawnerServiceServicer_to_server(service, server)
    uid, gid = settings.server_ids
    if apart := uid != os.geteuid():
        # It is given away by its name.
        check_trust(address.parent, "TREADLE_SPAWNER_SOCKET")
    # Bound under another name first: whoever sees the final name can connect at once, and nobody before it is the right user's.
    unready = address.with_suffix(".new")
    unready.unlink(missing_ok=True)
    try:
        server.add_insecure_port(f"unix:{unready}")
    except RuntimeError as error:
        raise SocketUnfit(f"TREADLE_SPAWNER_SOCKET: {address} cannot be listened on: {error}") from None
    await server.start()
    stack.push_async_callback(server.stop, _GRACE_SECONDS)
    unready.chmod(0o600)
    if apart:
        os.chown(unready, uid, gid)
    unready.rename(address)
    make_sign(address)
    stack.callback(_withdraw, address, address.stat().st_ino)


async def listen_by_tcp(
    stack: AsyncExitStack,
    service: SpawnerServiceServicer,
    settings: SpawnerSettings,
    *,
    silence_seconds: float = spawner_key.SILENCE_SECONDS,
) -> None:
    """For servers on other machines; those that say nothing for so long are hung up on. Errors: StartRefused."""
    server = grpc.aio.server(options=[*_OPTIONS, *spawner_key.keepalive(silence_seconds).items()])
    add_SpawnerServiceServicer_to_server(service, server)
    try:
        server.add_secure_port(settings.spawner_tcp, spawner_key.of_spawner(settings.spawner_key))
    except RuntimeError as error:
        raise SocketUnfit(f"TREADLE_SPAWNER_TCP: {settings.spawner_tcp} cannot be listened on: {error}") from None
    await server.start()
    stack.push_async_callback(server.stop, _GRACE_SECONDS)


def _withdraw(address: Path, inode: int) -> None:
    """Unless another spawner listens there already."""
    with contextlib.suppress(FileNotFoundError):
        if address.stat().st_ino == inode:
            address.unlink()


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})
