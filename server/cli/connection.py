"""From the options to a server: its address, the key, the channel, and what its errors mean for a command."""

from __future__ import annotations

import argparse
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import grpc
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status

from server.cli.failure import CommandFailed, ExitCode
from server.cli.program import typed
from server.data_dir import chosen_data_dir
from treadle.session.v1.session_service_pb2_grpc import SessionServiceStub

if TYPE_CHECKING:
    from treadle.session.v1.session_service_pb2_grpc import SessionServiceAsyncStub

UNARY_SECONDS = 30.0
"""Limit for a call that is not a stream."""

_OPTIONS = (
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    # The server is one's own, mostly on this machine: a proxy for the internet only stands in the way.
    ("grpc.enable_http_proxy", 0),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # A server that was restarted is found again at once.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)
_UNREACHABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_DEFECTS = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)


@dataclass(frozen=True)
class Target:
    """Where the server is and who calls."""

    address: str
    api_key: str
    data_dir: Path | None = None
    """Where the two came from; part of the hints that say what to type next."""


@dataclass(frozen=True)
class Connection:
    """A channel to the server; give `metadata` with each call."""

    stub: SessionServiceAsyncStub
    target: Target

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Says who calls."""
        return (("authorization", f"Bearer {self.target.api_key}"),)


def find_target(options: argparse.Namespace) -> Target:
    """The option first, then the environment, then what `treadle up` wrote. Errors: CommandFailed(UNREACHABLE, REFUSED)."""
    data_dir = chosen_data_dir(options.data_dir)
    address = options.server or os.environ.get("TREADLE_SERVER") or _read(data_dir / "address")
    if not address:
        raise CommandFailed(
            f"no server is known: {data_dir / 'address'} is not there\n"
            f"  start one with `{typed('up', data_dir)}`, or name one with --server",
            ExitCode.UNREACHABLE,
        )
    api_key = os.environ.get("TREADLE_API_KEY") or _read(data_dir / "api-key")
    if not api_key:
        raise CommandFailed(f"no API key: set TREADLE_API_KEY ({data_dir / 'api-key'} cannot be read)", ExitCode.REFUSED)
    return Target(address.removeprefix("http://").rstrip("/"), api_key, data_dir)


@asynccontextmanager
async def connect(target: Target) -> AsyncIterator[Connection]:
    """A channel, closed at the end. Nothing is sent before the first call."""
    async with grpc.aio.insecure_channel(target.address, options=_OPTIONS) as channel:
        yield Connection(SessionServiceStub(channel), target)


def explain(error: grpc.aio.AioRpcError, target: Target) -> CommandFailed:
    """What the server's error means for the command. The server's own words, its reason and the field at fault are kept."""
    info, violations = _details(error)
    if error.code() in _UNREACHABLE:
        said = error.details() or error.code().name
        return CommandFailed(
            f"the server at {target.address} cannot be reached: {said}\n"
            f"  start it with `{typed('up', target.data_dir)}`, or name another with --server",
            ExitCode.UNREACHABLE,
        )
    facts = [f"reason {info.reason}"] if info.reason else [error.code().name]
    facts += [f"field {violation.field}" for violation in violations]
    exit_code = ExitCode.TURN_FAILED if error.code() in _DEFECTS else ExitCode.REFUSED
    return CommandFailed(f"{error.details()}\n  {', '.join(facts)}", exit_code)


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The server's typed reason; empty when the error does not come from a Treadle server."""
    return str(_details(error)[0].reason)


def _details(error: grpc.aio.AioRpcError) -> tuple[ErrorInfo, list[BadRequest.FieldViolation]]:
    info, violations = ErrorInfo(), []
    trailing = cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ())
    for key, value in trailing:
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            for detail in Status.FromString(value).details:
                bad_request = BadRequest()
                detail.Unpack(info)
                if detail.Unpack(bad_request):
                    violations += bad_request.field_violations
    return info, violations


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
