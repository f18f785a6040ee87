"""Arguments as messages; the two clients make the same ones."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence

from google.protobuf.field_mask_pb2 import FieldMask

from treadle.session.v1 import session_service_pb2 as pb
from treadle.session.v1.event_pb2 import Answer, Approvals, InputDelivery


def execute(
    repository: str,
    prompt: str,
    *,
    session_id: str,
    base_branch: str,
    branch: str,
    provider: str,
    model: str,
    title: str,
    approvals: Approvals,
    allowed_hosts: Sequence[str],
    request_id: str,
) -> pb.ExecuteSessionRequest:
    """With a request_id in any case: only so can it be repeated after a cut."""
    return pb.ExecuteSessionRequest(
        request_id=request_id or str(uuid.uuid4()),
        session_id=session_id,
        repository_url=repository,
        base_branch=base_branch,
        branch=branch,
        prompt=prompt,
        provider=provider,
        model=model,
        title=title,
        approvals=approvals,
        allowed_hosts=allowed_hosts,
    )


def resume(session_id: str, *, after_seq: int, follow: bool) -> pb.ResumeRequest:
    """Errors: ValueError for a negative `after_seq`."""
    return pb.ResumeRequest(session_id=session_id, after_seq=after_seq, follow=follow)


def create(
    repository: str,
    *,
    base_branch: str,
    branch: str,
    title: str,
    labels: Mapping[str, str] | None,
    allowed_hosts: Sequence[str],
    request_id: str,
) -> pb.CreateSessionRequest:
    """With a request_id in any case, as `execute`."""
    return pb.CreateSessionRequest(
        request_id=request_id or str(uuid.uuid4()),
        repository_url=repository,
        base_branch=base_branch,
        branch=branch,
        title=title,
        labels=labels or {},
        allowed_hosts=allowed_hosts,
    )


def update(
    session_id: str, *, title: str | None, labels: Mapping[str, str] | None, allowed_hosts: Sequence[str] | None, version: int
) -> pb.UpdateSessionRequest:
    """What is None stays as it is."""
    given = (("title", title), ("labels", labels), ("allowed_hosts", allowed_hosts))
    return pb.UpdateSessionRequest(
        session_id=session_id,
        title=title or "",
        labels=labels or {},
        allowed_hosts=allowed_hosts or (),
        update_mask=FieldMask(paths=[name for name, value in given if value is not None]),
        version=version,
    )


def send(session_id: str, text: str, *, delivery: InputDelivery, request_id: str) -> pb.SendInputRequest:
    """With a request_id in any case, as `execute`."""
    return pb.SendInputRequest(session_id=session_id, text=text, delivery=delivery, request_id=request_id or str(uuid.uuid4()))


def resolve(
    session_id: str, request_id: str, *, option_id: str, answers: Sequence[Answer], decline: bool, note: str
) -> pb.ResolveRequestRequest:
    """An answer. It may be repeated: the same one again changes nothing."""
    return pb.ResolveRequestRequest(
        session_id=session_id, request_id=request_id, option_id=option_id, answers=answers, decline=decline, note=note
    )


def fork(session_id: str, *, at: str, title: str, branch: str, request_id: str) -> pb.ForkSessionRequest:
    """With a request_id in any case, as `execute`."""
    return pb.ForkSessionRequest(request_id=request_id or str(uuid.uuid4()), session_id=session_id, at=at, title=title, branch=branch)
