"""treadle.session.v1.SessionService: gRPC to use cases, nothing else."""

from __future__ import annotations

from server.api import convert
from server.api.edge import Context
from server.api.event_codec import resolved, varint
from server.api.streams import Streams, started
from server.kernel.errors import InvalidField
from server.kernel.execute import Execute
from server.kernel.identity import Principal
from server.kernel.inputs import Inputs
from server.kernel.pushes import Pushes
from server.kernel.sessions import Sessions
from server.kernel.time_travel import ForkRequest, TimeTravel
from treadle.session.v1 import session_service_pb2 as pb

SERVICE = pb.DESCRIPTOR.services_by_name["SessionService"]

_LAST_SEQ_TAG = b"\x10"  # ListEventsResponse.last_seq: field 2, varint
MUTABLE = ("title", "labels", "allowed_hosts")


class SessionService:
    """See the comments of the proto for what each RPC promises."""

    def __init__(
        self, sessions: Sessions, execute: Execute, inputs: Inputs, *, pushes: Pushes, time_travel: TimeTravel, streams: Streams
    ) -> None:
        self._sessions = sessions
        self._execute = execute
        self._inputs = inputs
        self._pushes = pushes
        self._time_travel = time_travel
        self._streams = streams

    async def execute_session(self, principal: Principal, request: pb.ExecuteSessionRequest, context: Context) -> None:
        """Start a turn, or find it, and follow it."""
        begun = await self._execute(principal, convert.execute_request(request))
        turn = begun.turn
        # What came before this turn is the business of Resume; a turn that is already under way is replayed from its start.
        frames = await self._sessions.follow_turn(turn)
        first = started(turn.session_id, turn_id=turn.id, existing=begun.existing)
        await self._streams.send(context, frames, after_seq=turn.start_seq, first=first)

    async def resume(self, principal: Principal, request: pb.ResumeRequest, context: Context) -> None:
        """Replay and follow."""
        live = request.follow if request.HasField("follow") else True
        frames = await self._sessions.follow(principal, request.session_id, after_seq=request.after_seq, live=live)
        await self._streams.send(context, frames, after_seq=request.after_seq, first=started(request.session_id))

    async def create_session(self, principal: Principal, request: pb.CreateSessionRequest, _: Context) -> pb.CreateSessionResponse:
        """Make a session without a turn."""
        created = await self._sessions.create(principal, convert.create_request(request))
        return pb.CreateSessionResponse(session=convert.session(created))

    async def get_session(self, principal: Principal, request: pb.GetSessionRequest, _: Context) -> pb.GetSessionResponse:
        """Read one session."""
        return pb.GetSessionResponse(session=convert.session(await self._sessions.get(principal, request.session_id, sized=True)))

    async def list_sessions(self, principal: Principal, request: pb.ListSessionsRequest, _: Context) -> pb.ListSessionsResponse:
        """Read a page of sessions."""
        page = await self._sessions.list(principal, page_size=request.page_size, page_token=request.page_token)
        return pb.ListSessionsResponse(sessions=map(convert.session, page.sessions), next_page_token=page.next_token)

    async def update_session(self, principal: Principal, request: pb.UpdateSessionRequest, _: Context) -> pb.UpdateSessionResponse:
        """Change what the mask names."""
        paths = set(request.update_mask.paths)
        if not paths or not paths <= set(MUTABLE):
            over_http = f'over HTTP ?updateMask={MUTABLE[0]}, or in the body "updateMask": "{MUTABLE[0]}"'
            raise InvalidField("update_mask", f"name the fields to change: {', '.join(MUTABLE)} ({over_http})")
        updated = await self._sessions.update(
            principal,
            request.session_id,
            title=request.title if "title" in paths else None,
            labels=dict(request.labels) if "labels" in paths else None,
            allowed_hosts=tuple(request.allowed_hosts) if "allowed_hosts" in paths else None,
            version=request.version,
        )
        return pb.UpdateSessionResponse(session=convert.session(updated))

    async def delete_session(self, principal: Principal, request: pb.DeleteSessionRequest, _: Context) -> pb.DeleteSessionResponse:
        """Remove a session."""
        await self._sessions.delete(principal, request.session_id)
        return pb.DeleteSessionResponse()

    async def interrupt(self, principal: Principal, request: pb.InterruptRequest, _: Context) -> pb.InterruptResponse:
        """Stop the active turn."""
        return pb.InterruptResponse(turn_id=await self._sessions.interrupt(principal, request.session_id, request.turn_id))

    async def push_session(self, principal: Principal, request: pb.PushSessionRequest, _: Context) -> pb.PushSessionResponse:
        """Bring the session's work to its remote."""
        pushed = await self._pushes(principal, request.session_id, onto=request.onto_new_branch)
        return pb.PushSessionResponse(session=convert.session(pushed))

    async def send_input(self, principal: Principal, request: pb.SendInputRequest, _: Context) -> pb.SendInputResponse:
        """Say something."""
        sent = await self._inputs.send(
            principal,
            request.session_id,
            text=request.text,
            delivery=convert.delivery(request.delivery),
            request_id=request.request_id,
        )
        return pb.SendInputResponse(input=convert.user_input(sent))

    async def list_inputs(self, principal: Principal, request: pb.ListInputsRequest, _: Context) -> pb.ListInputsResponse:
        """Read a page of inputs."""
        page = await self._inputs.list(
            principal, request.session_id, page_size=request.page_size, page_token=request.page_token, everything=request.all
        )
        return pb.ListInputsResponse(inputs=map(convert.user_input, page.inputs), next_page_token=page.next_token)

    async def update_input(self, principal: Principal, request: pb.UpdateInputRequest, _: Context) -> pb.UpdateInputResponse:
        """Change what waits."""
        updated = await self._inputs.update(principal, request.session_id, request.input_id, text=request.text, version=request.version)
        return pb.UpdateInputResponse(input=convert.user_input(updated))

    async def cancel_input(self, principal: Principal, request: pb.CancelInputRequest, _: Context) -> pb.CancelInputResponse:
        """Take back what waits."""
        cancelled = await self._inputs.cancel(principal, request.session_id, request.input_id)
        return pb.CancelInputResponse(input=convert.user_input(cancelled))

    async def resolve_request(self, principal: Principal, request: pb.ResolveRequestRequest, _: Context) -> pb.ResolveRequestResponse:
        """Answer the agent."""
        resolution = await self._inputs.resolve(
            principal,
            request.session_id,
            request.request_id,
            option_id=request.option_id,
            answers=[convert.answer(each) for each in request.answers],
            decline=request.decline,
            note=request.note,
        )
        return pb.ResolveRequestResponse(resolved=resolved(resolution))

    async def list_events(self, principal: Principal, request: pb.ListEventsRequest, _: Context) -> bytes:
        """Read a page of the log; stored bytes are sent as they are."""
        page, last_seq = await self._sessions.events(
            principal, request.session_id, after_seq=request.after_seq, page_size=request.page_size
        )
        return page + _LAST_SEQ_TAG + varint(last_seq)

    async def list_snapshots(self, principal: Principal, request: pb.ListSnapshotsRequest, _: Context) -> pb.ListSnapshotsResponse:
        """Read a page of the history."""
        page = await self._time_travel.snapshots(principal, request.session_id, page_size=request.page_size, page_token=request.page_token)
        return pb.ListSnapshotsResponse(snapshots=map(convert.snapshot, page.snapshots), next_page_token=page.next_token)

    async def fork_session(self, principal: Principal, request: pb.ForkSessionRequest, _: Context) -> pb.ForkSessionResponse:
        """Go on from a point of another session."""
        wanted = ForkRequest(request.request_id, request.session_id, request.at, request.title, request.branch)
        return pb.ForkSessionResponse(session=convert.session(await self._time_travel.fork(principal, wanted)))

    async def restore_session(self, principal: Principal, request: pb.RestoreSessionRequest, _: Context) -> pb.RestoreSessionResponse:
        """Go back to a point of the session's past."""
        restored, made = await self._time_travel.restore(principal, request.session_id, at=request.at, if_head=request.if_head)
        return pb.RestoreSessionResponse(session=convert.session(restored), snapshot=convert.snapshot(made))
