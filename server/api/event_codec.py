"""The kernel's EventCodec in protobuf: treadle.session.v1.Event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from server.kernel.agent_request import Resolution
from server.kernel.code_host import PullRequest
from server.kernel.event import Chunk, Envelope, Fact
from server.kernel.history import NewFork
from server.kernel.model_use import ModelUse, Purpose
from server.kernel.ports.egress import Access
from server.kernel.ports.launcher import Capability, WorkerExit
from server.kernel.ports.repositories import Diff, Skipped
from server.kernel.ports.turn_queue import Waiting
from server.kernel.push_refusal import PushRefusal
from server.kernel.session import SessionState
from server.kernel.turn import Turn
from server.kernel.user_input import UserInput
from treadle.session.v1 import event_pb2 as pb

SCHEMA_VERSION = 1
MAX_LISTED_SKIPPED = 50
LOG_TAIL_CHARACTERS = 4000

_SEQ_TAG = b"\x08"  # field 1, varint
_EVENT_ID_TAG = b"\x2a"  # field 5, length-delimited
_RECORDED_AT_TAG = b"\x32"  # field 6, length-delimited
_EVENT_TAG = b"\x0a"  # field 1 of EventBatch, and field 1 (`events`) of the stream frames


def varint(value: int) -> bytes:
    """A protobuf varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_LENGTHS = [varint(length) for length in range(16384)]


def _length(value: int) -> bytes:
    return _LENGTHS[value] if value < len(_LENGTHS) else varint(value)


class ProtobufEventCodec:
    """Implements `server.kernel.ports.event_codec.EventCodec`."""

    def seal(
        self, envelope: Envelope, bodies: Sequence[bytes], *, first_seq: int, event_id_prefix: str, first_number: int, recorded_at: datetime
    ) -> Chunk:
        """One chunk of consecutive events."""
        # A protobuf message may be concatenated from parts, and the last value of a field wins: what the server vouches for is
        # appended behind what the worker said, which is never parsed or written again.
        stamp = Timestamp()
        stamp.FromDatetime(recorded_at)
        time = stamp.SerializeToString()
        constant = _constant(envelope) + _RECORDED_AT_TAG + _length(len(time)) + time
        prefix = event_id_prefix.encode()
        parts: list[bytes] = []
        seq, number = first_seq, first_number
        for body in bodies:
            event_id = b"%b%d" % (prefix, number)
            own = _SEQ_TAG + varint(seq) + _EVENT_ID_TAG + _length(len(event_id)) + event_id
            parts += (_EVENT_TAG, _length(len(body) + len(constant) + len(own)), body, constant, own)
            seq += 1
            number += 1
        return Chunk(first_seq, seq - 1, b"".join(parts))

    def frame(self, events: bytes) -> bytes:
        """ExecuteSessionResponse.events and ResumeResponse.events have the same number: one frame for both."""
        return _EVENT_TAG + varint(len(events)) + events

    def session_updated(
        self,
        state: SessionState,
        *,
        title: str | None = None,
        branch: str | None = None,
        labels: Mapping[str, str] | None = None,
        waiting: Waiting | None = None,
    ) -> Fact:
        """The session's state, title, branch or labels changed, or where its `waiting` turn stands."""
        named = {"title": title, "branch": branch, "labels": labels}
        changed = ["state", *(name for name, value in named.items() if value is not None)]
        return _fact(
            session_updated=pb.SessionUpdated(
                state=f"SESSION_STATE_{state}",
                title=title,
                branch=branch,
                labels=labels or {},
                changed=changed,
                waiting=pb.Waiting(ahead=waiting.ahead, reason=f"WAIT_REASON_{waiting.reason}") if waiting else None,
            )
        )

    def user_input(self, input_id: str, text: str) -> Fact:
        """The user's words."""
        return _fact(
            item_id=input_id,
            user_input=pb.UserInput(input_id=input_id, parts=[pb.Part(text=text)], status=pb.INPUT_STATUS_DELIVERED),
        )

    def input_updated(self, told: UserInput) -> Fact:
        """What became of something that the user said."""
        return _fact(
            item_id=told.id,
            user_input=pb.UserInput(
                input_id=told.id,
                parts=[pb.Part(text=told.text)],
                delivery=f"INPUT_DELIVERY_{told.delivery}",
                status=f"INPUT_STATUS_{told.status}",
                position=told.position,
            ),
        )

    def expiring(self, body: bytes, expires_at: datetime) -> bytes:
        """Written anew: what appended parts say is merged by the readers of protobuf, but refused by the one in Envoy that makes JSON."""
        event = pb.Event.FromString(body)
        asked = event.approval_requested if event.HasField("approval_requested") else event.question_requested
        asked.expires_at.FromDatetime(expires_at)
        return event.SerializeToString()

    def request_resolved(self, resolution: Resolution) -> Fact:
        """What became of an agent's request."""
        return _fact(item_id=resolution.request_id, request_resolved=resolved(resolution))

    def turn_started(self, turn: Turn, *, input_id: str) -> Fact:
        """A turn began."""
        return _fact(
            turn_started=pb.TurnStarted(
                trigger=pb.TURN_TRIGGER_USER, provider=turn.provider, model=turn.model, input_ids=[input_id], number=turn.number
            )
        )

    def worker_updated(self, worker_id: str, phase: str, *, launcher: Capability, worker_exit: WorkerExit | None = None) -> Fact:
        """The life of a worker."""
        return _fact(
            item_id=worker_id,
            worker_updated=pb.WorkerUpdated(
                worker_id=worker_id,
                phase=f"WORKER_PHASE_{phase}",
                launcher=launcher.name,
                sandboxed=launcher.sandboxed,
                exit_code=worker_exit.code if worker_exit and not worker_exit.stopped else None,
                stopped=worker_exit.stopped if worker_exit else False,
                oom_killed=worker_exit.oom_killed if worker_exit else False,
                log_tail=worker_exit.log_tail[-LOG_TAIL_CHARACTERS:] if worker_exit and phase == "LOST" else "",
            ),
        )

    def file_changed(self, diff: Diff, *, turn_total: bool = True) -> Fact:
        """What the turn changed in all, or what somebody else has changed."""
        changes = [
            pb.FileChange(
                path=file.path,
                old_path=file.old_path,
                operation=f"FILE_OPERATION_{file.operation}",
                binary=file.binary,
                additions=file.additions,
                deletions=file.deletions,
                patch=file.patch,
                patch_truncated=file.patch_truncated,
            )
            for file in diff.files
        ]
        return _fact(file_changed=pb.FileChanged(changes=changes, turn_total=turn_total, truncated=diff.truncated))

    def git_updated(
        self,
        action: str,
        *,
        repository: str,
        branch: str = "",
        base_branch: str = "",
        sha: str = "",
        message: str = "",
        diff: Diff | None = None,
        skipped: Sequence[Skipped] = (),
        skipped_count: int = 0,
        refusal: PushRefusal | None = None,
    ) -> Fact:
        """Something happened in the repository."""
        return _fact(
            git_updated=pb.GitUpdated(
                action=f"GIT_ACTION_{action}",
                repository=repository,
                branch=branch,
                base_branch=base_branch,
                sha=sha,
                message=message,
                files_changed=diff.files_changed if diff else 0,
                additions=diff.additions if diff else 0,
                deletions=diff.deletions if diff else 0,
                skipped=[pb.SkippedPath(path=path.path, reason=path.reason) for path in skipped[:MAX_LISTED_SKIPPED]],
                skipped_count=skipped_count,
                refusal=f"PUSH_REFUSAL_{refusal or 'UNSPECIFIED'}",
            )
        )

    def pull_request_updated(self, pull_request: PullRequest) -> Fact:
        """The pull request of the session's branch."""
        return _fact(item_id=pull_request.url, pull_request_updated=pull_request_told(pull_request))

    def snapshot_added(self, turn: Turn) -> Fact:
        """The turn's snapshot is in the object store."""
        return _fact(
            item_id=turn.snapshot_key,
            artifact_added=pb.ArtifactAdded(
                artifact_id=turn.snapshot_key,
                kind=pb.ARTIFACT_KIND_SNAPSHOT,
                name=f"turn-{turn.number}.bundle",
                mime="application/x-git-bundle",
                size=turn.snapshot_size,
                sha256=turn.snapshot_sha256,
            ),
        )

    def session_forked(self, fork: NewFork) -> Fact:
        """Where a session comes from."""
        return _fact(
            session_forked=pb.SessionForked(
                parent_session_id=fork.parent_session_id,
                parent_turn_id=fork.moment.turn_id,
                parent_snapshot=fork.moment.snapshot,
                commit=fork.moment.commit,
                remembered=fork.moment.conversation is not None,
            )
        )

    def error(self, code: str, message: str, *, retryable: bool, fatal: bool, attempt: int = 0, provider_status: int = 0) -> Fact:
        """Something went wrong."""
        error = pb.Error(code=code, message=message, retryable=retryable, fatal=fatal, attempt=attempt, provider_status=provider_status)
        return _fact(error=error)

    def usage_updated(self, use: ModelUse, *, tokens_left: int | None, micros_left: int | None) -> Fact:
        """What a request to a model used."""
        return _fact(
            usage_updated=pb.UsageUpdated(
                model=use.model,
                input_tokens=use.tokens.input,
                output_tokens=use.tokens.output,
                cache_read_tokens=use.tokens.cache_read,
                cache_write_tokens=use.tokens.cache_write,
                reasoning_tokens=use.tokens.reasoning,
                cost_micros=use.cost_micros or 0,
                cost_source=pb.COST_SOURCE_UNSPECIFIED if use.cost_micros is None else pb.COST_SOURCE_ESTIMATE,
                budget_left_tokens=tokens_left,
                budget_left_micros=micros_left,
                purpose=pb.USAGE_PURPOSE_NAMING if use.purpose is Purpose.NAMING else pb.USAGE_PURPOSE_UNSPECIFIED,
                partial=use.partial,
            )
        )

    def network_access(self, item_id: str, access: Access, *, count: int = 0) -> Fact:
        """A connection of the agent's."""
        duration = Duration()
        duration.FromMilliseconds(round(access.seconds * 1000))
        return _fact(
            item_id=item_id,
            network_access=pb.NetworkAccess(
                host=access.host,
                port=access.port,
                method=access.method,
                decision=pb.NETWORK_DECISION_DENIED if access.denied else pb.NETWORK_DECISION_ALLOWED,
                rule=access.rule,
                bytes_in=access.bytes_in,
                bytes_out=access.bytes_out,
                reason=access.reason or "",
                message=access.message,
                duration=duration if access.ended else None,
                ended=access.ended,
                count=count,
            ),
        )

    def turn_completed(self, turn: Turn) -> Fact:
        """The turn's last event."""
        if turn.outcome is None:
            raise ValueError("a turn that ends has an outcome")
        duration = Duration()
        if turn.created_at and turn.ended_at:
            duration.FromTimedelta(max(turn.ended_at - turn.created_at, turn.ended_at - turn.ended_at))
        return _fact(
            turn_completed=pb.TurnCompleted(
                status=f"TURN_STATUS_{turn.state}",
                code=f"TURN_CODE_{turn.outcome.code or 'UNSPECIFIED'}",
                message=turn.outcome.message,
                native_stop_reason=turn.outcome.native_stop_reason,
                duration=duration,
                commit=turn.commit,
                pushed=turn.pushed,
            )
        )


def pull_request_told(pull_request: PullRequest) -> pb.PullRequestUpdated:
    """A pull request, as logs and sessions tell of it."""
    return pb.PullRequestUpdated(
        number=pull_request.number,
        url=pull_request.url,
        title=pull_request.title,
        state=f"PULL_REQUEST_STATE_{pull_request.state}",
        head=pull_request.head,
        base=pull_request.base,
        head_commit=pull_request.head_commit,
        draft=pull_request.draft,
    )


def resolved(resolution: Resolution) -> pb.RequestResolved:
    """What became of an agent's request."""
    return pb.RequestResolved(
        request_id=resolution.request_id,
        outcome=f"REQUEST_OUTCOME_{resolution.outcome}",
        option_id=resolution.option_id,
        answers=[pb.Answer(question_id=each.question_id, option_ids=each.option_ids, text=each.text) for each in resolution.answers],
        resolved_by=resolution.resolved_by,
        note=resolution.note,
    )


def _fact(*, item_id: str = "", **body: object) -> Fact:
    (kind,) = body
    return Fact(kind, pb.Event(item_id=item_id, **body).SerializeToString())  # type: ignore[arg-type]


@lru_cache(maxsize=1024)
def _constant(envelope: Envelope) -> bytes:
    return pb.Event(
        session_id=envelope.session_id,
        turn_id=envelope.turn_id,
        attempt=envelope.attempt,
        epoch=envelope.epoch,
        actor=pb.Actor(kind=f"ACTOR_KIND_{envelope.actor_kind}", id=envelope.actor_id, on_behalf_of=envelope.on_behalf_of),
        origin=f"ORIGIN_{envelope.origin}",
        schema_version=SCHEMA_VERSION,
        trace_parent=envelope.trace_parent,
    ).SerializeToString()
