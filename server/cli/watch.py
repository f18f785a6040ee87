"""Show a followed session until it ends or the person who watches leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from google.protobuf.json_format import MessageToJson

from server.cli.connection import Connection
from server.cli.failure import ExitCode
from server.cli.program import typed
from server.cli.render import Renderer
from server.cli.screen import Screen
from treadle.session.v1 import event_pb2 as pb
from treadle_client import AsyncEventStream, TurnCompleted

_EXIT_CODES = {pb.TURN_STATUS_FAILED: ExitCode.TURN_FAILED, pb.TURN_STATUS_INTERRUPTED: ExitCode.TURN_FAILED}


async def watch(connection: Connection, stream: AsyncEventStream, *, as_json: bool, past: Iterable[pb.Event] = ()) -> ExitCode:
    """Follow and show; `past` was shown by an earlier command. A cancel (Ctrl-C) only detaches, and says how to come back.
    Errors: TreadleError."""
    screen = Screen()
    renderer = Renderer(screen)
    for had in past:
        renderer.recall(had)
    show = _print_json if as_json else renderer.show
    # A notice in the middle of a sentence begins a line of its own.
    connection.notice.before = screen.end_piece
    status = pb.TURN_STATUS_UNSPECIFIED
    try:
        async for event in stream:
            show(event.proto)
            if isinstance(event.body, TurnCompleted):
                status = event.body.status
    except asyncio.CancelledError:
        screen.end_piece()
        _say_how_to_resume(stream, connection)
        raise
    return _EXIT_CODES.get(status, ExitCode.DONE)


def _say_how_to_resume(stream: AsyncEventStream, connection: Connection) -> None:
    notice, target = connection.notice, connection.target
    if not stream.session_id:
        notice(f"detached before the server answered; `{typed('sessions', target.data_dir)}` tells whether the turn was started")
        return
    back = typed(f"resume {stream.session_id} --after {stream.last_seq}", target.data_dir)
    notice(f"detached; the turn goes on. Come back with\n  {back}")


def _print_json(event: pb.Event) -> None:
    print(MessageToJson(event, indent=None), flush=True)
