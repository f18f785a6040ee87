"""Kernel values to messages and back."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from server.api.event_codec import pull_request_told
from server.kernel.agent_request import Answer
from server.kernel.errors import InvalidField
from server.kernel.execute import Request
from server.kernel.history import Snapshot
from server.kernel.session import Session
from server.kernel.sessions import CreateRequest
from server.kernel.user_input import Delivery, InputState, UserInput
from treadle.session.v1 import event_pb2, input_pb2, session_pb2, snapshot_pb2
from treadle.session.v1 import session_service_pb2 as pb


def timestamp(moment: datetime | None) -> Timestamp | None:
    """A moment; None stays unset."""
    if moment is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def session(value: Session) -> session_pb2.Session:
    """A session."""
    return session_pb2.Session(
        session_id=value.id,
        title=value.title,
        repository_url=value.repository_url,
        base_branch=value.base_branch,
        branch=value.branch,
        state=f"SESSION_STATE_{value.state}",
        labels=dict(value.labels),
        version=value.version,
        last_seq=value.last_seq,
        active_turn_id=value.active_turn_id,
        head_commit=value.head_commit,
        unpushed_commit=value.unpushed_commit,
        push_refusal=f"PUSH_REFUSAL_{value.push_refusal or 'UNSPECIFIED'}",
        push_message=value.push_message,
        created_at=timestamp(value.created_at),
        updated_at=timestamp(value.updated_at),
        provider=value.provider,
        open_request_ids=value.open_requests,
        waiting_inputs=value.waiting_inputs,
        stored_bytes=value.stored_bytes,
        allowed_hosts=value.allowed_hosts,
        waiting=_waiting(*value.told_place) if value.told_place else None,
        pull_request=pull_request_told(value.pull_request) if value.pull_request else None,
    )


def snapshot(value: Snapshot) -> snapshot_pb2.Snapshot:
    """One commit of a session's history."""
    return snapshot_pb2.Snapshot(
        number=value.number,
        kind=f"SNAPSHOT_KIND_{value.kind}",
        commit=value.commit,
        parent=value.parent,
        message=value.message,
        turn_id=value.turn_id,
        actor=value.actor,
        created_at=timestamp(value.created_at),
        stored=value.stored,
        size=value.size,
        actor_name=value.actor_name,
        current=value.current,
        pushed=value.pushed,
        expired=value.expired,
        lost=value.lost,
    )


def _waiting(ahead: int, reason: str) -> event_pb2.Waiting:
    return event_pb2.Waiting(ahead=ahead, reason=f"WAIT_REASON_{reason}")


def user_input(value: UserInput) -> input_pb2.Input:
    """An input. What is offered to an agent is still queued for its user."""
    status = InputState.QUEUED if value.state is InputState.OFFERED else value.state
    return input_pb2.Input(
        input_id=value.id,
        session_id=value.session_id,
        text=value.text,
        delivery=f"INPUT_DELIVERY_{value.delivery}",
        status=f"INPUT_STATUS_{status}",
        position=value.position,
        version=value.version,
        turn_id=value.turn_id if value.state is InputState.DELIVERED else "",
        created_at=timestamp(value.created_at),
        updated_at=timestamp(value.updated_at),
    )


def delivery(value: int) -> Delivery:
    """When an input shall be delivered. Errors: InvalidField."""
    return Delivery(enum_name(event_pb2.InputDelivery, value, "delivery", "INPUT_DELIVERY_") or Delivery.QUEUE)


def answer(message: event_pb2.Answer) -> Answer:
    """An answer to a question."""
    return Answer(message.question_id, tuple(message.option_ids), message.text)


def execute_request(message: pb.ExecuteSessionRequest) -> Request:
    """A request for a change."""
    return Request(
        request_id=message.request_id,
        session_id=message.session_id,
        repository_url=message.repository_url,
        base_branch=message.base_branch,
        branch=message.branch,
        prompt=message.prompt,
        provider=message.provider,
        model=message.model,
        title=message.title,
        approvals=enum_name(event_pb2.Approvals, message.approvals, "approvals", "APPROVALS_"),
        allowed_hosts=tuple(message.allowed_hosts),
    )


def create_request(message: pb.CreateSessionRequest) -> CreateRequest:
    """A request for a session."""
    return CreateRequest(
        request_id=message.request_id,
        repository_url=message.repository_url,
        base_branch=message.base_branch,
        branch=message.branch,
        title=message.title,
        labels=dict(message.labels),
        allowed_hosts=tuple(message.allowed_hosts),
    )


def enum_name(kind: Any, value: int, field: str, prefix: str) -> str:
    """The name of an enum's value without its prefix; empty for unspecified. Errors: InvalidField for a value of a newer version."""
    if value not in kind.values():
        raise InvalidField(field, f"{value} is none that this server knows")
    return kind.Name(value).removeprefix(prefix) if value else ""
