"""Show a followed session until it ends or the person who watches leaves."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Iterable, Sequence

from google.protobuf.json_format import MessageToJson

from server.cli.answering import Answering
from server.cli.connection import Connection
from server.cli.failure import ExitCode
from server.cli.program import typed
from server.cli.render import Renderer
from server.cli.screen import Screen
from treadle.session.v1 import event_pb2 as pb
from treadle_client import AsyncEventStream, GitUpdated, TurnCompleted

_EXIT_CODES = {pb.TURN_STATUS_FAILED: ExitCode.TURN_FAILED, pb.TURN_STATUS_INTERRUPTED: ExitCode.TURN_FAILED}
_PUSHES = (pb.GIT_ACTION_PUSHED, pb.GIT_ACTION_PUSH_FAILED)


class Watcher:
    """Shows one stream of events, and asks the user what its agent asks. `past` was shown by an earlier command."""

    def __init__(self, connection: Connection, *, as_json: bool, past: Iterable[pb.Event] = ()) -> None:
        self._connection = connection
        self._as_json = as_json
        self._screen = Screen()
        self._answering = Answering(connection, self._screen)
        renderer = Renderer(self._screen, asking=self._answering.interactive, data_dir=connection.target.data_dir)
        self._show = _print_json if as_json else renderer.show
        for had in past:
            renderer.recall(had)
            self._answering.note(had, shown=False)
        # A notice in the middle of a sentence begins a line of its own.
        connection.notice.before = self._screen.end_piece
        connection.notice.connected = self._answering.again

    def past_is_over(self, _open: Sequence[str]) -> None:
        """For the stream to call (`on_synced`)."""
        self._answering.past_is_over()

    async def watch(self, stream: AsyncEventStream) -> ExitCode:
        """Follow and show. A cancel (Ctrl-C) only detaches, and says how to come back. Errors: TreadleError."""
        status, refused, unread = pb.TURN_STATUS_UNSPECIFIED, False, False
        try:
            async with self._answering.beside():
                async for event in stream:
                    self._show(event.proto)
                    self._answering.note(event.proto, shown=not self._as_json)
                    if isinstance(event.body, TurnCompleted):
                        status, unread = event.body.status, event.body.code == pb.TURN_CODE_REPOSITORY
                    elif isinstance(event.body, GitUpdated) and event.body.action in _PUSHES:
                        refused = event.body.action == pb.GIT_ACTION_PUSH_FAILED
        except asyncio.CancelledError:
            self._screen.end_piece()
            _say_how_to_resume(stream, self._connection)
            raise
        if unread and not refused and not self._as_json:
            await self._advise_a_token(stream.session_id)
        return _EXIT_CODES.get(status, ExitCode.NOT_PUSHED if refused else ExitCode.DONE)

    async def _advise_a_token(self, session_id: str) -> None:
        """The end of a turn does not say whether it was for want of one."""
        session = await self._connection.treadle.get_session(session_id)
        add = typed(f"credential add {shlex.quote(session.repository_url)}", self._connection.target.data_dir)
        self._screen.label("", f"where it wants a token, or another one: {add}", "yellow")


def _say_how_to_resume(stream: AsyncEventStream, connection: Connection) -> None:
    notice, target = connection.notice, connection.target
    if not stream.session_id:
        notice(f"detached before the server answered; `{typed('sessions', target.data_dir)}` tells whether the turn was started")
        return
    back = typed(f"resume {stream.session_id} --after {stream.last_seq}", target.data_dir)
    notice(f"detached; the turn goes on. Come back with\n  {back}")


def _print_json(event: pb.Event) -> None:
    print(MessageToJson(event, indent=None), flush=True)
