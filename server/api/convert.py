"""Kernel values to messages and back."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from server.kernel.execute import Request
from server.kernel.session import Session
from server.kernel.sessions import CreateRequest
from treadle.session.v1 import session_pb2
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
        created_at=timestamp(value.created_at),
        updated_at=timestamp(value.updated_at),
        provider=value.provider,
    )


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
    )
