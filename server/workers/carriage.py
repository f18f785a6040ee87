"""The carrier of a worker in a Swarm, as its launcher talks to it (carrier/words.py)."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from carrier import tls, words
from carrier.joined import Streams, cut, joined
from carrier.tree import BrokenOff, Limits, pack, unpack
from server.pace import Pace
from server.workers.credentials import Credentials

PORT = 7441
_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 30.0
_STILL_SECONDS = 60.0
"""A tree on its way may stand still for this long."""
_TREE_SECONDS = 1800.0
"""And take this long in all."""
_PAUSE_SECONDS = 0.2
_PIECE_BYTES = 64 * 1024
_AT_A_DOOR = 32
"""So many connections of an agent's at once; npm opens some fifteen."""
MAX_DESCRIPTORS = 2 * 2 * _AT_A_DOOR + 8
"""What one turn may have open here: at two doors both ends of each connection, and what is asked besides."""
_BURST, _PER_SECOND = 100, 10.0
"""So many connections for the doors of a turn are made at once, then so many a second. Each is a handshake of TLS on the one loop that
serves everybody, and it is the agent who uses them up. What connects meanwhile waits on its own machine."""

T = TypeVar("T")


class CarrierAway(Exception):
    """Nobody answers there who has the right certificate, or not to the end."""


class Carrier:
    """Where one listens. A connection for each thing that is asked. Making one blocks briefly."""

    def __init__(self, address: str, credentials: Credentials) -> None:
        self._address = address
        self._expected = ssl.PEM_cert_to_DER_cert(credentials.carrier)
        self._context = tls.context(
            ssl.PROTOCOL_TLS_CLIENT, certificate=credentials.server, key=credentials.server_key, other=credentials.carrier
        )
        self._pace = Pace(_BURST, _PER_SECOND, time.monotonic)

    async def ask(self, what: str, *, seconds: float | None = _ANSWER_SECONDS, **more: Any) -> dict[str, Any]:
        """One question, one answer. Errors: CarrierAway, words.Unclear."""
        try:
            async with asyncio.timeout(seconds), self.opened(what, longest=words.LINE_BYTES, **more) as (reader, _):
                return await _answer(reader)
        except TimeoutError:
            raise CarrierAway(f"the carrier at {self._address} does not answer in time") from None

    @asynccontextmanager
    async def opened(self, what: str, *, longest: int = _PIECE_BYTES, **more: Any) -> AsyncIterator[Streams]:
        """A connection on which that was said, and about so many bytes are held here at a time. Errors, also of what is done with it:
        CarrierAway."""
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                reader, writer = await asyncio.open_connection(self._address, PORT, ssl=self._context, server_hostname="", limit=longest)
            try:
                self._check(writer.get_extra_info("ssl_object"))
                tls.keep_alive(writer)
                writer.write(words.line({"do": what, **more}))
                await writer.drain()
                yield reader, writer
            finally:
                cut(writer)
        except (OSError, TimeoutError) as error:
            raise CarrierAway(f"the carrier at {self._address} does not answer: {error or 'not in time'}") from error

    async def fill(self, root: Path) -> None:
        """Hand over a workspace. Errors: CarrierAway, words.Unclear, OSError for what is here."""

        def send(stream: BinaryIO) -> None:
            pack(root, stream)
            words.read(stream.readline(words.LINE_BYTES))

        await self._streamed("fill", send)

    async def take(self, root: Path, limits: Limits, owner: tuple[int, int] | None) -> None:
        """Fetch what the worker left into `root`, an empty directory, and give it to `owner`. Errors: CarrierAway, also where it breaks
        off, words.Unclear, BadTree, OSError for what is here."""
        await self._streamed("take", lambda stream: unpack(stream, root, limits, owner))

    async def _streamed(self, what: str, work: Callable[[BinaryIO], T]) -> T:
        """In a thread, since trees are read and written there, which the network and the other side may keep for long."""
        connections: list[socket.socket] = []
        left = threading.Event()

        def run() -> T:
            begun = False
            try:
                raw = socket.create_connection((self._address, PORT), _CONNECT_SECONDS)
                with self._context.wrap_socket(raw, do_handshake_on_connect=False) as connection:
                    connections.append(connection)
                    if left.is_set():
                        raise ConnectionAbortedError("nobody waits for it any more")
                    connection.do_handshake()
                    self._check(connection)
                    connection.settimeout(_STILL_SECONDS)
                    connection.sendall(words.line({"do": what}))
                    with connection.makefile("rwb", buffering=1024 * 1024) as stream:
                        both = cast(BinaryIO, _Wire(stream))
                        words.read(both.readline(words.LINE_BYTES))
                        begun = True
                        return work(both)
            except (_WireCut, BrokenOff) as error:
                raise CarrierAway(f"the carrier at {self._address} broke off: {error}") from error
            except OSError as error:
                # Of the tree that is here; before, and in closing, of the connection.
                if begun and not isinstance(error, (ConnectionError, TimeoutError, ssl.SSLError)):
                    raise
                raise CarrierAway(f"the carrier at {self._address} broke off: {error}") from error

        def stop() -> None:
            # The thread ends by what it stumbles over.
            left.set()
            for connection in connections:
                with suppress(OSError):
                    # Not its own method, by which a connection of TLS first forgets that it is one.
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)

        try:
            async with asyncio.timeout(_TREE_SECONDS):
                return await in_own_thread(run, stop)
        except TimeoutError as error:
            raise CarrierAway(f"what goes to or from the carrier at {self._address} takes too long") from error

    def _check(self, connection: Any) -> None:
        if connection.getpeercert(binary_form=True) != self._expected:
            raise CarrierAway(f"who listens at {self._address} is not this worker's carrier")

    # -- in the slot's place

    async def pass_on(self, agent: Streams) -> None:
        """A connection to the worker's socket. Breaks off when that is not possible."""
        with suppress(CarrierAway):
            async with self.opened("worker") as there:
                await joined(agent, there)

    async def hold_door(self, name: str, socket_: Path) -> None:
        """For the agent, there is a connection waiting that leads to the server's socket, unless it has enough of them. Runs until it is
        cancelled."""
        room = asyncio.Semaphore(_AT_A_DOOR)
        async with asyncio.TaskGroup() as group:
            while True:
                await room.acquire()
                taken = asyncio.Event()
                group.create_task(self._hold_one(name, socket_, taken)).add_done_callback(lambda _: room.release())
                await taken.wait()

    async def _hold_one(self, name: str, socket_: Path, taken: asyncio.Event) -> None:
        try:
            while True:
                await self._paced()
                with suppress(CarrierAway):
                    async with self.opened("door", name=name) as there:
                        if await there[0].read(1) == words.TAKEN:
                            taken.set()
                            # A door that is closed closes the agent's connection, too.
                            await joined(await _connected(socket_), there)
                            return
                if taken.is_set():
                    return
                await asyncio.sleep(_PAUSE_SECONDS)
        finally:
            taken.set()

    async def _paced(self) -> None:
        wait = self._pace.seconds()
        self._pace.take()
        await asyncio.sleep(wait)


async def in_own_thread(call: Callable[[], T], stop: Callable[[], None] = lambda: None) -> T:
    """What may take long; a turn has one at a time. The few threads that all of the server shares are for what is quickly done.
    A cancelled caller calls `stop`, and leaves only when the call has ended: what it works on may be removed after that."""
    thread = ThreadPoolExecutor(1, "tree")
    running = asyncio.get_running_loop().run_in_executor(thread, call)
    thread.shutdown(wait=False)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        stop()
        await asyncio.wait({running})
        if not running.cancelled():
            running.exception()
        raise


class _WireCut(Exception):
    """A connection has an error, which is none of the files here, whatever its number."""


class _Wire:
    """What `pack` and `unpack` use of a stream."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        return bytes(self._cut(self._stream.read, size))

    def readline(self, size: int) -> bytes:
        return bytes(self._cut(self._stream.readline, size))

    def write(self, data: bytes) -> int:
        return int(self._cut(self._stream.write, data))

    def flush(self) -> None:
        self._cut(self._stream.flush)

    def _cut(self, do: Callable[..., Any], *given: Any) -> Any:
        try:
            return do(*given)
        except OSError as error:
            raise _WireCut(str(error)) from error


async def _connected(path: Path) -> Streams:
    """To a socket whose path may be longer than its address can be. Errors: OSError."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return await asyncio.open_unix_connection(f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.close(directory)


async def _answer(reader: asyncio.StreamReader) -> dict[str, Any]:
    try:
        said = await reader.readline()
    except ValueError as error:
        raise words.Unclear("the answer is too long") from error
    if not said:
        raise CarrierAway("it hung up")
    return words.read(said)
