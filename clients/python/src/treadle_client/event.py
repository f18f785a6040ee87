"""An event as programs like it: its body by type, its moment as a datetime, the message itself within reach."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from treadle.session.v1 import event_pb2 as pb
from treadle.session.v1.event_pb2 import (
    ApprovalRequested,
    ArtifactAdded,
    ContentDelta,
    ContextCompacted,
    Error,
    FileChanged,
    GitUpdated,
    Message,
    NetworkAccess,
    PlanUpdated,
    ProviderRaw,
    PullRequestUpdated,
    QuestionRequested,
    Reasoning,
    RequestResolved,
    SessionForked,
    SessionUpdated,
    SubagentUpdated,
    ToolCall,
    ToolResult,
    TurnCompleted,
    TurnStarted,
    UsageUpdated,
    UserInput,
    WorkerUpdated,
)


@dataclass(frozen=True)
class Unknown:
    """The body of an event whose kind is newer than this client; its bytes are in `Event.proto`."""


Body = (
    SessionUpdated
    | WorkerUpdated
    | TurnStarted
    | TurnCompleted
    | UserInput
    | Message
    | Reasoning
    | ContentDelta
    | ToolCall
    | ToolResult
    | FileChanged
    | PlanUpdated
    | ApprovalRequested
    | QuestionRequested
    | RequestResolved
    | UsageUpdated
    | ContextCompacted
    | SubagentUpdated
    | GitUpdated
    | ArtifactAdded
    | NetworkAccess
    | Error
    | ProviderRaw
    | SessionForked
    | PullRequestUpdated
    | Unknown
)
"""What can have happened."""


@dataclass(frozen=True, slots=True)
class Event:
    """One fact about a session. `match event.body: case ContentDelta(data=text): ...`, or `match event: case Event(Message()): ...`."""

    proto: pb.Event
    """The message as the server sent it."""

    __match_args__ = ("body",)

    def __hash__(self) -> int:
        """By its place; protobuf messages have no hash."""
        return hash((self.proto.session_id, self.proto.seq))

    @property
    def seq(self) -> int:
        """Its place in the session's log: 1, 2, 3, without gaps. What `resume` takes."""
        return self.proto.seq

    @property
    def session_id(self) -> str:
        """The session."""
        return self.proto.session_id

    @property
    def turn_id(self) -> str:
        """The turn; empty for what happens between turns."""
        return self.proto.turn_id

    @property
    def item_id(self) -> str:
        """What it is about: events of one item belong together (a message and its deltas, a tool call and its result)."""
        return self.proto.item_id

    @property
    def recorded_at(self) -> datetime:
        """When the server recorded it; never use it for order."""
        return self.proto.recorded_at.ToDatetime(tzinfo=UTC)

    @property
    def kind(self) -> str:
        """The body's name, for example `content_delta`; empty when it is unknown."""
        return self.proto.WhichOneof("body") or ""

    @property
    def body(self) -> Body:
        """What happened: one of the message classes of this package."""
        kind = self.proto.WhichOneof("body")
        if kind is None:
            return Unknown()
        body: Body = getattr(self.proto, kind)
        return body
