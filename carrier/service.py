"""The carrier: lets in one server, by its certificate, and does for it in the container what a server of the same machine does itself."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import platform
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from carrier import tls, words
from carrier.joined import Streams, cut, is_gone, joined
from carrier.wall import confined

_PYTHON = (sys.executable, "-I", "-B", "-m")
_WORKSPACE = "/workspace"
_ON_DISK = (_WORKSPACE, "/tmp", "/home/agent")  # noqa: S108 the container's own
_SOCKET = Path("/run/treadle/worker.sock")
_DOORS = Path("/run/models")
_DOOR_NAMES = ("model.sock", "egress.sock")
_LEFT_OUT = ".git"
"""Made for the agent; nobody reads it afterwards."""
# Children go first when memory runs out: whoever is left can hand out what they did.
_AS_WORKER = ("/bin/sh", "-c", 'echo 1000 >/proc/self/oom_score_adj; exec "$@"', "sh")
_PIECE_BYTES = 256 * 1024
_TAIL_BYTES = words.LINE_BYTES // 8
"""Of what the worker prints. In JSON a byte takes six at most."""
_PAUSE_SECONDS = 0.005
_LOOK_SECONDS = 0.02
_GONE_SECONDS = 1.0
_HELLO_SECONDS = 10.0
_HANDSHAKE_SECONDS = 10.0
_MAX_CONNECTIONS = 256
"""Of servers: two may be there while one follows another, each with 32 at each door (server/workers/carriage.py)."""
_MAX_AGENT_CONNECTIONS = 128
"""At each door; what they say is held here until a server takes them."""
_OOM_EVENTS = (Path("/sys/fs/cgroup/memory.events"), Path("/sys/fs/cgroup/memory/memory.oom_control"))

T = TypeVar("T")

log = logging.getLogger("carrier")


@dataclass(frozen=True)
class Configuration:
    """See __main__."""

    uid: int
    port: int
    certificate: str
    key: str
    server: str
    orphan_seconds: float


class Carrier:
    """One worker's."""

    def __init__(self, configuration: Configuration, listener: socket.socket) -> None:
        self._configuration = configuration
        self._listener = listener
        self._server = ssl.PEM_cert_to_DER_cert(configuration.server)
        self._phase = words.EMPTY
        self._stopped = self._was_stopped = False
        self._ended = asyncio.Event()
        self._over = asyncio.Event()
        self._code: int | None = None
        self._worker: asyncio.subprocess.Process | None = None
        self._calls = b""
        self._worker_socket: int | None = None
        self._tail = bytearray()
        self._changing = asyncio.Lock()
        self._taking: asyncio.Task[Any] | None = None
        self._waiting: dict[str, asyncio.Queue[Streams]] = {name: asyncio.Queue() for name in _DOOR_NAMES}
        self._agents = dict.fromkeys(_DOOR_NAMES, 0)
        self._connections: set[asyncio.Task[None]] = set()
        self._looking: asyncio.Task[None] | None = None

    async def serve(self) -> None:
        """Until it is told to leave, or nobody was connected for the orphan limit."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._over.set)
        for name in _DOOR_NAMES:
            await asyncio.start_unix_server(partial(self._agent_connected, name), _DOORS / name)
            (_DOORS / name).chmod(0o666)
        mine = self._configuration
        context = tls.context(ssl.PROTOCOL_TLS_SERVER, certificate=mine.certificate, key=mine.key, other=mine.server)
        await asyncio.start_server(
            self._connected, sock=self._listener, limit=words.LINE_BYTES, ssl=context, ssl_handshake_timeout=_HANDSHAKE_SECONDS
        )
        orphaned = asyncio.create_task(self._orphaned())
        stopping = asyncio.create_task(self._over.wait())
        await asyncio.wait({orphaned, stopping}, return_when=asyncio.FIRST_COMPLETED)
        # The container ends with this process, and all that is in it.

    async def _orphaned(self) -> None:
        alone = 0.0
        while alone < self._configuration.orphan_seconds:
            await asyncio.sleep(1)
            alone = 0.0 if self._connections else alone + 1
        log.warning("no server was connected for %s s; what is here is given up", self._configuration.orphan_seconds)

    # -- the server

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        known = writer.get_extra_info("ssl_object").getpeercert(binary_form=True) == self._server
        if not known or len(self._connections) >= _MAX_CONNECTIONS:
            cut(writer)
            return
        task = asyncio.create_task(self._serve((reader, writer)))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        task.add_done_callback(lambda _: cut(writer))

    async def _serve(self, server: Streams) -> None:
        reader, writer = server
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            try:
                tls.keep_alive(writer)
                async with asyncio.timeout(_HELLO_SECONDS):
                    asked = words.read(await reader.readline())
                await getattr(self, f"_do_{asked['do']}")(server, asked)
            except (words.Unclear, ValueError, KeyError, AttributeError, _Failed) as error:
                writer.write(words.line({"error": str(error)}))
            await writer.drain()
            writer.close()
            await writer.wait_closed()

    async def _do_state(self, server: Streams, asked: dict[str, Any]) -> None:
        server[1].write(words.line({"phase": self._phase, "machine": platform.machine()}))

    async def _do_fill(self, server: Streams, asked: dict[str, Any]) -> None:
        async with self._changing:
            if self._phase != words.EMPTY or self._stopped:
                raise _Failed(f"it is {self._phase}")
            server[1].write(words.line({}))
            # A server that died may have begun.
            async with self._child("find", _WORKSPACE, "-mindepth", "1", "-delete") as child:
                await child.wait()
            async with self._child(*_PYTHON, "carrier.tree", "unpack", _WORKSPACE, stdin=asyncio.subprocess.PIPE) as child:
                pumping = asyncio.create_task(_pump(server[0], _there(child.stdin)))
                ending = asyncio.create_task(child.wait())
                await asyncio.wait({pumping, ending}, return_when=asyncio.FIRST_COMPLETED)
                if not ending.done():
                    # What comes has ended before the tree did.
                    _there(child.stdin).close()
                pumping.cancel()
                if await ending:
                    raise _Failed("the workspace could not be unpacked")
            self._phase = words.FULL
        server[1].write(words.line({"phase": self._phase}))

    async def _do_start(self, server: Streams, asked: dict[str, Any]) -> None:
        async with self._changing:
            if self._stopped or self._phase == words.EMPTY:
                raise _Failed(f"no worker is started in what is {'stopped' if self._stopped else 'empty'}")
            if self._phase == words.FULL:
                self._calls, line = base64.b64decode(asked["calls"]), json.dumps(asked["line"]).encode() + b"\n"
                if not self._calls:
                    raise _Failed("no worker is started without a filter of system calls")
                self._worker = await asyncio.create_subprocess_exec(
                    *_AS_WORKER,
                    *_PYTHON,
                    "worker",
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT,
                    cwd=_WORKSPACE,
                    **self._as_worker,
                )
                self._phase = words.RUNNING
                self._looking = asyncio.create_task(self._look_after(self._worker, line))
                self._looking.add_done_callback(self._looked)
        server[1].write(words.line({"phase": self._phase}))

    async def _look_after(self, worker: asyncio.subprocess.Process, line: bytes) -> None:
        listening = asyncio.create_task(self._listen(_there(worker.stdout)))
        stdin = _there(worker.stdin)
        with suppress(OSError):
            stdin.write(line)
            await stdin.drain()
        stdin.close()
        # Not `wait()`: in some versions it also waits for the end of the output, which what the worker started may keep open.
        while (code := worker.returncode) is None:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_SECONDS)
        self._code = code if code >= 0 else 128 - code
        await self._end_all()
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await listening
        self._phase = words.ENDED
        self._ended.set()

    def _looked(self, looking: asyncio.Task[None]) -> None:
        if not looking.cancelled() and (error := looking.exception()):
            # Nobody would ever hear of an end: then the container's is better.
            log.error("the worker cannot be looked after", exc_info=error)
            self._over.set()

    async def _listen(self, output: asyncio.StreamReader) -> None:
        while piece := await output.read(_PIECE_BYTES):
            self._tail += piece
            del self._tail[:-_TAIL_BYTES]

    async def _do_worker(self, server: Streams, asked: dict[str, Any]) -> None:
        while self._worker_socket is None and not _SOCKET.exists():  # noqa: ASYNC240 a file in memory, which tells nobody that it is there
            if self._ended.is_set() or self._worker is None:
                raise _Failed("there is no worker")
            if _is_gone(server):
                return
            await asyncio.sleep(_PAUSE_SECONDS)
        if self._worker_socket is None:
            # The first one, which was there before an agent was: that can put another in its place, but not here.
            self._worker_socket = os.open(_SOCKET, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        await joined(await asyncio.open_unix_connection(f"/proc/self/fd/{self._worker_socket}"), server)

    async def _do_door(self, server: Streams, asked: dict[str, Any]) -> None:
        name = asked["name"]
        while agent := await _until(self._waiting[name].get(), server):
            if _is_gone(server):
                self._waiting[name].put_nowait(agent)
                return
            try:
                if is_gone(agent[1]):
                    # This one costs no connection.
                    continue
                server[1].write(words.TAKEN)
                await joined(agent, server)
                return
            finally:
                cut(agent[1])
                self._agents[name] -= 1

    async def _do_wait(self, server: Streams, asked: dict[str, Any]) -> None:
        if await _until(self._ended.wait(), server):
            server[1].write(words.line(self._end()))

    def _hand_out_no_more(self) -> None:
        """Who asks anew has lost the connection by which it was handed out before, of which nobody may have told this side."""
        if self._taking is not None:
            self._taking.cancel()

    async def _do_stop(self, server: Streams, asked: dict[str, Any]) -> None:
        self._hand_out_no_more()
        async with self._changing:
            self._stopped = True
            # It had not ended by itself.
            self._was_stopped = self._was_stopped or self._phase == words.RUNNING
            await self._end_all()
        if self._worker is not None:
            await self._ended.wait()
        server[1].write(words.line(self._end()))

    async def _do_take(self, server: Streams, asked: dict[str, Any]) -> None:
        self._hand_out_no_more()
        self._taking = asyncio.current_task()
        async with self._changing:
            if not self._stopped:
                raise _Failed("it is not stopped")
            server[1].write(words.line({}))
            command = (*_PYTHON, "carrier.tree", "pack", _WORKSPACE, _LEFT_OUT)
            async with self._child(*command, stdout=asyncio.subprocess.PIPE) as child:
                # Where nobody reads any more, it is not waited for either.
                if await _pump(_there(child.stdout), server[1]) and await child.wait():
                    # It breaks off before its end, by which that is seen.
                    log.error("what the worker left cannot be read")

    async def _do_leave(self, server: Streams, asked: dict[str, Any]) -> None:
        server[1].write(words.line({}))
        await server[1].drain()
        self._over.set()

    async def _do_occupied(self, server: Streams, asked: dict[str, Any]) -> None:
        counted = await _until(asyncio.gather(self._summed("--block-size=1"), self._summed("--inodes")), server)
        if counted:
            server[1].write(words.line(dict(zip(("bytes", "files"), counted, strict=True))))

    def _end(self) -> dict[str, Any]:
        return {
            "code": self._code,
            "stopped": self._was_stopped,
            "oom_killed": _oom_kills() > 0,
            "log_tail": bytes(self._tail).decode(errors="replace"),
        }

    # -- the agent

    def _agent_connected(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """At a door of the server's. It waits for one of the server's connections, or until all of this ends."""
        if self._agents[name] >= _MAX_AGENT_CONNECTIONS:
            cut(writer)
            return
        self._agents[name] += 1
        self._waiting[name].put_nowait((reader, writer))

    # -- what runs

    @property
    def _as_worker(self) -> dict[str, Any]:
        uid = self._configuration.uid
        # What is unpacked before there is an agent needs no filter, and nobody has said which.
        return {"user": uid, "group": uid, "extra_groups": (), "start_new_session": True, "preexec_fn": confined(self._calls)}

    @asynccontextmanager
    async def _child(
        self, *command: str, stdin: int = asyncio.subprocess.DEVNULL, stdout: int = asyncio.subprocess.DEVNULL
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        child = await asyncio.create_subprocess_exec(*_AS_WORKER, *command, cwd="/", stdin=stdin, stdout=stdout, **self._as_worker)
        try:
            yield child
        finally:
            if child.returncode is None:
                with suppress(ProcessLookupError):
                    child.kill()

    async def _summed(self, what: str) -> int:
        """As root, whom the agent can neither lock out, nor stop, nor trace."""
        child = await asyncio.create_subprocess_exec(
            *("du", "--summarize", "--total", what, "--", *_ON_DISK),
            cwd="/",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            output, _ = await child.communicate()
        finally:
            if child.returncode is None:
                with suppress(ProcessLookupError):
                    child.kill()
        # Not how it ended: it complains of what goes while it looks.
        if not output.endswith(b"\ttotal\n"):
            raise _Failed("the files could not be counted")
        return int(output.splitlines()[-1].split(b"\t")[0])

    async def _end_all(self) -> None:
        """All processes but this one and the first, which is init, until there is none of the worker's user: the kernel signals all at
        once, also what is being forked."""
        while _processes_of(self._configuration.uid):
            # They may have ended by themselves meanwhile.
            with suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
            await asyncio.sleep(_PAUSE_SECONDS)


def _there(pipe: T | None) -> T:
    if pipe is None:
        raise RuntimeError("a pipe that was asked for is there")
    return pipe


class _Failed(Exception):
    """What was asked is not done; the message says why."""


def _is_gone(server: Streams) -> bool:
    return server[0].at_eof() or server[0].exception() is not None or server[1].is_closing()


async def _until(work: Awaitable[T], server: Streams) -> T | None:
    """What `work` comes to; None where the server leaves before."""
    working = asyncio.ensure_future(work)
    try:
        while not working.done() and not _is_gone(server):
            # Not by reading: what comes is for who takes the connection.
            await asyncio.wait({working}, timeout=_GONE_SECONDS)
        return working.result() if working.done() else None
    finally:
        working.cancel()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> bool:
    """Whether all of it got there."""
    with suppress(OSError):
        while piece := await source.read(_PIECE_BYTES):
            sink.write(piece)
            await sink.drain()
        return True
    return False


def _processes_of(uid: int) -> Sequence[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                status = dict(line.split(":\t", 1) for line in (entry / "status").read_text().splitlines() if ":\t" in line)
                if int(status["Uid"].split()[0]) == uid and not status["State"].startswith(("Z", "X")):
                    found.append(int(entry.name))
    return found


def _oom_kills() -> int:
    for events in _OOM_EVENTS:
        with suppress(OSError):
            counted = dict(line.split() for line in events.read_text().splitlines())
            return int(counted.get("oom_kill", 0))
    return 0
