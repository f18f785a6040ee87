"""Opening a worker's socket: its path, and whoever listens there, is not trusted until both sides proved the turn's secret."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Any

import grpc

from server.kernel.errors import WorkerLost
from server.workers.frames import MAX_FRAME_BYTES
from treadle.worker.v1 import worker_service_pb2 as wire

_SERVICE = "/treadle.worker.v1.WorkerService/"
_HANDSHAKE_SECONDS = 5.0
_OPTIONS: list[tuple[str, Any]] = [
    # The address is only a descriptor's number, which another session's socket may get later: channels must not be shared by it.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", MAX_FRAME_BYTES + 1024),
    ("grpc.max_send_message_length", 17 * 1024 * 1024),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 50),
    # For how long an attempt to connect may take at least: in a Swarm TLS and another machine are part of it.
    ("grpc.min_reconnect_backoff_ms", 2000),
    ("grpc.max_reconnect_backoff_ms", 500),
]


class Connection:
    """One open, proven connection to a worker."""

    def __init__(self, descriptor: int, channel: grpc.aio.Channel) -> None:
        self.has_turn = False
        self.metadata: tuple[tuple[str, str], ...] = ()
        """The server's proof, for every call but Handshake."""
        self._descriptor = descriptor
        self._channel = channel
        unary, stream = channel.unary_unary, channel.unary_stream
        self._handshake = unary(_SERVICE + "Handshake", wire.HandshakeRequest.SerializeToString, wire.HandshakeResponse.FromString)
        self.load_transcript = channel.stream_unary(
            _SERVICE + "LoadTranscript", wire.LoadTranscriptRequest.SerializeToString, wire.LoadTranscriptResponse.FromString
        )
        self.read_transcript = stream(
            _SERVICE + "ReadTranscript", wire.ReadTranscriptRequest.SerializeToString, wire.ReadTranscriptResponse.FromString
        )
        self.execute = stream(_SERVICE + "ExecuteSession", wire.ExecuteSessionRequest.SerializeToString, None)
        self.resume = stream(_SERVICE + "Resume", wire.ResumeRequest.SerializeToString, None)
        self.control = unary(_SERVICE + "Control", wire.ControlRequest.SerializeToString, wire.ControlResponse.FromString)
        self.acknowledge = unary(_SERVICE + "Acknowledge", wire.AcknowledgeRequest.SerializeToString, wire.AcknowledgeResponse.FromString)

    async def prove(self, secret: bytes) -> None:
        """Check the worker's proof and make the server's. Errors: WorkerLost, grpc.aio.AioRpcError."""
        nonce = secrets.token_bytes(32)
        answer = await self._handshake(wire.HandshakeRequest(nonce=nonce), timeout=_HANDSHAKE_SECONDS)
        if not hmac.compare_digest(hmac.new(secret, b"worker" + nonce, hashlib.sha256).digest(), answer.proof):
            raise WorkerLost("whoever listens on the worker's socket does not know the turn's secret")
        proof = hmac.new(secret, b"server" + answer.nonce, hashlib.sha256).hexdigest()
        self.metadata = (("x-treadle-proof", proof),)
        self.has_turn = answer.has_turn

    async def close(self) -> None:
        """Drop the connection."""
        try:
            await self._channel.close(None)
        finally:
            # Also where whoever closes it is cancelled.
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1


async def dial(path: Path, secret: bytes, owners: Collection[int]) -> Connection:
    """Connect to the socket at `path` and prove both sides.

    Errors: FileNotFoundError when it is not there yet, WorkerLost when it is no socket of one of `owners` or its listener cannot
    prove itself, grpc.aio.AioRpcError when it does not answer.
    """
    descriptor = open_socket(path, owners)
    # The descriptor and not the path: what was checked is what is dialled, whatever the path becomes.
    connection = Connection(descriptor, grpc.aio.insecure_channel(f"unix:/proc/self/fd/{descriptor}", options=_OPTIONS))
    try:
        await connection.prove(secret)
    except BaseException:
        await connection.close()
        raise
    return connection


def open_socket(path: Path, owners: Collection[int]) -> int:
    """A descriptor of the socket itself, not of what a link there points to. Errors: FileNotFoundError, WorkerLost."""
    # The socket's directory belongs to the server, or did so until the worker started: nobody can swap it for a link.
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    status = os.fstat(descriptor)
    if stat.S_ISSOCK(status.st_mode) and status.st_uid in owners:
        return descriptor
    os.close(descriptor)
    raise WorkerLost("there is something else in the place of the worker's socket")
