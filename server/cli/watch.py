"""Show a followed session until it ends or the person who watches leaves."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

from google.protobuf.json_format import MessageToJson

from server.cli.connection import Connection, Target
from server.cli.failure import ExitCode
from server.cli.follow import Follower
from server.cli.program import typed
from server.cli.render import Renderer
from server.cli.screen import Screen
from treadle.session.v1 import event_pb2 as pb

_EXIT_CODES = {pb.TURN_STATUS_FAILED: ExitCode.TURN_FAILED, pb.TURN_STATUS_INTERRUPTED: ExitCode.TURN_FAILED}


async def watch(connection: Connection, follow: Callable[[Follower], Awaitable[None]], *, as_json: bool) -> ExitCode:
    """Follow and show. A cancel (Ctrl-C) only detaches, and says how to come back. Errors: CommandFailed."""
    screen = Screen()
    show = _print_json if as_json else Renderer(screen).show
    follower = Follower(connection, show, _notice)
    try:
        await follow(follower)
    except asyncio.CancelledError:
        screen.end_piece()
        _say_how_to_resume(follower, connection.target)
        raise
    return _EXIT_CODES.get(follower.status, ExitCode.DONE)


def _say_how_to_resume(follower: Follower, target: Target) -> None:
    if not follower.session_id:
        _notice(f"detached before the server answered; `{typed('sessions', target.data_dir)}` tells whether the turn was started")
        return
    back = typed(f"resume {follower.session_id} --after {follower.last_seq}", target.data_dir)
    _notice(f"detached; the turn goes on. Come back with\n  {back}")


def _print_json(event: pb.Event) -> None:
    print(MessageToJson(event, indent=None), flush=True)


def _notice(text: str) -> None:
    print(f"treadle: {text}", file=sys.stderr, flush=True)
