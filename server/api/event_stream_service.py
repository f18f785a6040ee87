"""treadle.session.v1.EventStreamService: the streams of SessionService as server-sent events."""

from __future__ import annotations

from server.api import convert, server_sent
from server.api.edge import Context, api_key
from server.api.streams import Streams, started
from server.kernel.errors import InvalidField, NothingToResume
from server.kernel.execute import Execute
from server.kernel.identity import Principal
from server.kernel.ports.authenticator import Authenticator
from server.kernel.sessions import Sessions
from treadle.session.v1 import event_stream_service_pb2 as pb_stream
from treadle.session.v1 import session_service_pb2 as pb

SERVICE = pb_stream.DESCRIPTOR.services_by_name["EventStreamService"]

LAST_EVENT_ID = "last-event-id"


class EventStreamService:
    """See the comments of the proto."""

    def __init__(self, sessions: Sessions, execute: Execute, streams: Streams, authenticator: Authenticator) -> None:
        self._sessions = sessions
        self._execute = execute
        self._streams = streams
        self._authenticator = authenticator

    async def stream_execute(self, principal: Principal, request: pb.ExecuteSessionRequest, context: Context) -> None:
        """Start a turn, or find it, and follow it."""
        after_seq, wanted = _last_event_id(context) or 0, convert.execute_request(request)
        if after_seq and await self._execute.find(principal, wanted) is None:
            # Libraries send the header when they repeat a POST. Without a request_id each of those would be another turn that nobody sees.
            raise NothingToResume
        begun = await self._execute(principal, wanted)
        turn = begun.turn
        frames = await self._sessions.follow_turn(turn, after_seq=after_seq)
        first = server_sent.opening(started(turn.session_id, turn_id=turn.id, existing=begun.existing))
        await self._streams.send(
            context, frames, after_seq=max(after_seq, turn.start_seq), first=first, dress=server_sent.dress, farewell=server_sent.failure
        )

    async def stream_resume(self, principal: Principal, request: pb.ResumeRequest, context: Context) -> None:
        """Replay and follow."""
        if not request.session_id:
            raise InvalidField("session_id", "say which session")
        last = _last_event_id(context)
        after_seq = request.after_seq if last is None else last
        live = request.follow if request.HasField("follow") else True
        frames = await self._sessions.follow(principal, request.session_id, after_seq=after_seq, live=live)
        first = server_sent.opening(started(request.session_id))
        await self._streams.send(context, frames, after_seq=after_seq, first=first, dress=server_sent.dress, farewell=server_sent.failure)

    async def create_stream_ticket(
        self, principal: Principal, request: pb_stream.CreateStreamTicketRequest, context: Context
    ) -> pb_stream.CreateStreamTicketResponse:
        """For a session of the caller's own."""
        session = await self._sessions.get(principal, request.session_id)
        ticket, expires_at = self._authenticator.issue_ticket(api_key(context), session.id)
        return pb_stream.CreateStreamTicketResponse(ticket=ticket, expires_at=convert.timestamp(expires_at))


def _last_event_id(context: Context) -> int | None:
    """None without the header. Errors: InvalidField."""
    for key, value in context.invocation_metadata() or ():
        if key == LAST_EVENT_ID and value:
            text = value if isinstance(value, str) else value.decode(errors="replace")
            if not text.isascii() or not text.isdigit() or len(text) > 18:
                raise InvalidField(LAST_EVENT_ID, "is not the id of an event")
            return int(text)
    return None
