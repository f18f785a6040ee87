import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ActorKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTOR_KIND_UNSPECIFIED: _ClassVar[ActorKind]
    ACTOR_KIND_USER: _ClassVar[ActorKind]
    ACTOR_KIND_AGENT: _ClassVar[ActorKind]
    ACTOR_KIND_WORKER: _ClassVar[ActorKind]
    ACTOR_KIND_SERVER: _ClassVar[ActorKind]
    ACTOR_KIND_POLICY: _ClassVar[ActorKind]

class Origin(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ORIGIN_UNSPECIFIED: _ClassVar[Origin]
    ORIGIN_NATIVE: _ClassVar[Origin]
    ORIGIN_SYNTHETIC: _ClassVar[Origin]
    ORIGIN_IMPORTED: _ClassVar[Origin]

class SessionState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SESSION_STATE_UNSPECIFIED: _ClassVar[SessionState]
    SESSION_STATE_QUEUED: _ClassVar[SessionState]
    SESSION_STATE_PROVISIONING: _ClassVar[SessionState]
    SESSION_STATE_RUNNING: _ClassVar[SessionState]
    SESSION_STATE_AWAITING_USER: _ClassVar[SessionState]
    SESSION_STATE_AWAITING_APPROVAL: _ClassVar[SessionState]
    SESSION_STATE_IDLE: _ClassVar[SessionState]
    SESSION_STATE_FAILED: _ClassVar[SessionState]

class WaitReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WAIT_REASON_UNSPECIFIED: _ClassVar[WaitReason]
    WAIT_REASON_PLACE: _ClassVar[WaitReason]
    WAIT_REASON_USER_LIMIT: _ClassVar[WaitReason]
    WAIT_REASON_TENANT_LIMIT: _ClassVar[WaitReason]

class WorkerPhase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WORKER_PHASE_UNSPECIFIED: _ClassVar[WorkerPhase]
    WORKER_PHASE_STARTING: _ClassVar[WorkerPhase]
    WORKER_PHASE_WAITING: _ClassVar[WorkerPhase]
    WORKER_PHASE_READY: _ClassVar[WorkerPhase]
    WORKER_PHASE_ADOPTED: _ClassVar[WorkerPhase]
    WORKER_PHASE_EXITED: _ClassVar[WorkerPhase]
    WORKER_PHASE_LOST: _ClassVar[WorkerPhase]

class TurnTrigger(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TURN_TRIGGER_UNSPECIFIED: _ClassVar[TurnTrigger]
    TURN_TRIGGER_USER: _ClassVar[TurnTrigger]

class TurnStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TURN_STATUS_UNSPECIFIED: _ClassVar[TurnStatus]
    TURN_STATUS_COMPLETED: _ClassVar[TurnStatus]
    TURN_STATUS_INTERRUPTED: _ClassVar[TurnStatus]
    TURN_STATUS_FAILED: _ClassVar[TurnStatus]

class TurnCode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TURN_CODE_UNSPECIFIED: _ClassVar[TurnCode]
    TURN_CODE_WORKER_LOST: _ClassVar[TurnCode]
    TURN_CODE_OUT_OF_MEMORY: _ClassVar[TurnCode]
    TURN_CODE_TIMEOUT: _ClassVar[TurnCode]
    TURN_CODE_PROVIDER: _ClassVar[TurnCode]
    TURN_CODE_REPOSITORY: _ClassVar[TurnCode]
    TURN_CODE_WORKSPACE: _ClassVar[TurnCode]
    TURN_CODE_PROTOCOL: _ClassVar[TurnCode]
    TURN_CODE_LAUNCH: _ClassVar[TurnCode]
    TURN_CODE_INTERNAL: _ClassVar[TurnCode]
    TURN_CODE_BUDGET: _ClassVar[TurnCode]
    TURN_CODE_OUT_OF_DISK: _ClassVar[TurnCode]

class InputDelivery(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    INPUT_DELIVERY_UNSPECIFIED: _ClassVar[InputDelivery]
    INPUT_DELIVERY_STEER: _ClassVar[InputDelivery]
    INPUT_DELIVERY_QUEUE: _ClassVar[InputDelivery]
    INPUT_DELIVERY_INTERRUPT: _ClassVar[InputDelivery]

class InputStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    INPUT_STATUS_UNSPECIFIED: _ClassVar[InputStatus]
    INPUT_STATUS_QUEUED: _ClassVar[InputStatus]
    INPUT_STATUS_DELIVERED: _ClassVar[InputStatus]
    INPUT_STATUS_EDITED: _ClassVar[InputStatus]
    INPUT_STATUS_CANCELLED: _ClassVar[InputStatus]

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    ROLE_USER: _ClassVar[Role]
    ROLE_ASSISTANT: _ClassVar[Role]
    ROLE_SYSTEM: _ClassVar[Role]

class Channel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CHANNEL_UNSPECIFIED: _ClassVar[Channel]
    CHANNEL_TEXT: _ClassVar[Channel]
    CHANNEL_REASONING: _ClassVar[Channel]
    CHANNEL_TOOL_INPUT: _ClassVar[Channel]
    CHANNEL_STDOUT: _ClassVar[Channel]
    CHANNEL_STDERR: _ClassVar[Channel]

class ToolKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TOOL_KIND_UNSPECIFIED: _ClassVar[ToolKind]
    TOOL_KIND_READ: _ClassVar[ToolKind]
    TOOL_KIND_EDIT: _ClassVar[ToolKind]
    TOOL_KIND_DELETE: _ClassVar[ToolKind]
    TOOL_KIND_MOVE: _ClassVar[ToolKind]
    TOOL_KIND_SEARCH: _ClassVar[ToolKind]
    TOOL_KIND_EXECUTE: _ClassVar[ToolKind]
    TOOL_KIND_FETCH: _ClassVar[ToolKind]
    TOOL_KIND_THINK: _ClassVar[ToolKind]
    TOOL_KIND_OTHER: _ClassVar[ToolKind]
    TOOL_KIND_ASK: _ClassVar[ToolKind]

class ToolStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TOOL_STATUS_UNSPECIFIED: _ClassVar[ToolStatus]
    TOOL_STATUS_PENDING: _ClassVar[ToolStatus]
    TOOL_STATUS_RUNNING: _ClassVar[ToolStatus]

class ToolOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TOOL_OUTCOME_UNSPECIFIED: _ClassVar[ToolOutcome]
    TOOL_OUTCOME_COMPLETED: _ClassVar[ToolOutcome]
    TOOL_OUTCOME_FAILED: _ClassVar[ToolOutcome]
    TOOL_OUTCOME_DECLINED: _ClassVar[ToolOutcome]
    TOOL_OUTCOME_CANCELLED: _ClassVar[ToolOutcome]
    TOOL_OUTCOME_TIMED_OUT: _ClassVar[ToolOutcome]

class FileOperation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FILE_OPERATION_UNSPECIFIED: _ClassVar[FileOperation]
    FILE_OPERATION_ADDED: _ClassVar[FileOperation]
    FILE_OPERATION_MODIFIED: _ClassVar[FileOperation]
    FILE_OPERATION_DELETED: _ClassVar[FileOperation]
    FILE_OPERATION_RENAMED: _ClassVar[FileOperation]

class Approvals(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    APPROVALS_UNSPECIFIED: _ClassVar[Approvals]
    APPROVALS_ASK: _ClassVar[Approvals]

class ApprovalOptionKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    APPROVAL_OPTION_KIND_UNSPECIFIED: _ClassVar[ApprovalOptionKind]
    APPROVAL_OPTION_KIND_ALLOW_ONCE: _ClassVar[ApprovalOptionKind]
    APPROVAL_OPTION_KIND_ALLOW_SESSION: _ClassVar[ApprovalOptionKind]
    APPROVAL_OPTION_KIND_REJECT_ONCE: _ClassVar[ApprovalOptionKind]

class RequestOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REQUEST_OUTCOME_UNSPECIFIED: _ClassVar[RequestOutcome]
    REQUEST_OUTCOME_CHOSEN: _ClassVar[RequestOutcome]
    REQUEST_OUTCOME_ANSWERED: _ClassVar[RequestOutcome]
    REQUEST_OUTCOME_DECLINED: _ClassVar[RequestOutcome]
    REQUEST_OUTCOME_EXPIRED: _ClassVar[RequestOutcome]
    REQUEST_OUTCOME_CANCELLED: _ClassVar[RequestOutcome]

class CostSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COST_SOURCE_UNSPECIFIED: _ClassVar[CostSource]
    COST_SOURCE_PROVIDER: _ClassVar[CostSource]
    COST_SOURCE_ESTIMATE: _ClassVar[CostSource]

class UsagePurpose(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    USAGE_PURPOSE_UNSPECIFIED: _ClassVar[UsagePurpose]
    USAGE_PURPOSE_NAMING: _ClassVar[UsagePurpose]

class CompactionTrigger(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COMPACTION_TRIGGER_UNSPECIFIED: _ClassVar[CompactionTrigger]
    COMPACTION_TRIGGER_AUTO: _ClassVar[CompactionTrigger]
    COMPACTION_TRIGGER_MANUAL: _ClassVar[CompactionTrigger]
    COMPACTION_TRIGGER_RESET: _ClassVar[CompactionTrigger]

class SubagentState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SUBAGENT_STATE_UNSPECIFIED: _ClassVar[SubagentState]
    SUBAGENT_STATE_RUNNING: _ClassVar[SubagentState]
    SUBAGENT_STATE_COMPLETED: _ClassVar[SubagentState]
    SUBAGENT_STATE_FAILED: _ClassVar[SubagentState]
    SUBAGENT_STATE_CANCELLED: _ClassVar[SubagentState]

class RawReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RAW_REASON_UNSPECIFIED: _ClassVar[RawReason]
    RAW_REASON_UNKNOWN_TYPE: _ClassVar[RawReason]
    RAW_REASON_PARSE_ERROR: _ClassVar[RawReason]

class GitAction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GIT_ACTION_UNSPECIFIED: _ClassVar[GitAction]
    GIT_ACTION_CLONED: _ClassVar[GitAction]
    GIT_ACTION_BRANCHED: _ClassVar[GitAction]
    GIT_ACTION_CHECKPOINTED: _ClassVar[GitAction]
    GIT_ACTION_COMMITTED: _ClassVar[GitAction]
    GIT_ACTION_PUSHED: _ClassVar[GitAction]
    GIT_ACTION_PUSH_FAILED: _ClassVar[GitAction]
    GIT_ACTION_SKIPPED: _ClassVar[GitAction]

class PushRefusal(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PUSH_REFUSAL_UNSPECIFIED: _ClassVar[PushRefusal]
    PUSH_REFUSAL_NON_FAST_FORWARD: _ClassVar[PushRefusal]
    PUSH_REFUSAL_BRANCH_EXISTS: _ClassVar[PushRefusal]
    PUSH_REFUSAL_DEFAULT_BRANCH: _ClassVar[PushRefusal]
    PUSH_REFUSAL_PROTECTED_BRANCH: _ClassVar[PushRefusal]
    PUSH_REFUSAL_HOOK_DECLINED: _ClassVar[PushRefusal]
    PUSH_REFUSAL_TOO_LARGE: _ClassVar[PushRefusal]
    PUSH_REFUSAL_AUTHENTICATION: _ClassVar[PushRefusal]
    PUSH_REFUSAL_PERMISSION: _ClassVar[PushRefusal]
    PUSH_REFUSAL_REPOSITORY_GONE: _ClassVar[PushRefusal]
    PUSH_REFUSAL_NETWORK: _ClassVar[PushRefusal]
    PUSH_REFUSAL_OTHER: _ClassVar[PushRefusal]
    PUSH_REFUSAL_CONFLICT: _ClassVar[PushRefusal]
    PUSH_REFUSAL_REWRITTEN: _ClassVar[PushRefusal]

class PullRequestState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PULL_REQUEST_STATE_UNSPECIFIED: _ClassVar[PullRequestState]
    PULL_REQUEST_STATE_OPEN: _ClassVar[PullRequestState]
    PULL_REQUEST_STATE_CLOSED: _ClassVar[PullRequestState]
    PULL_REQUEST_STATE_MERGED: _ClassVar[PullRequestState]

class ArtifactKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ARTIFACT_KIND_UNSPECIFIED: _ClassVar[ArtifactKind]
    ARTIFACT_KIND_SNAPSHOT: _ClassVar[ArtifactKind]

class NetworkDecision(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NETWORK_DECISION_UNSPECIFIED: _ClassVar[NetworkDecision]
    NETWORK_DECISION_ALLOWED: _ClassVar[NetworkDecision]
    NETWORK_DECISION_DENIED: _ClassVar[NetworkDecision]
ACTOR_KIND_UNSPECIFIED: ActorKind
ACTOR_KIND_USER: ActorKind
ACTOR_KIND_AGENT: ActorKind
ACTOR_KIND_WORKER: ActorKind
ACTOR_KIND_SERVER: ActorKind
ACTOR_KIND_POLICY: ActorKind
ORIGIN_UNSPECIFIED: Origin
ORIGIN_NATIVE: Origin
ORIGIN_SYNTHETIC: Origin
ORIGIN_IMPORTED: Origin
SESSION_STATE_UNSPECIFIED: SessionState
SESSION_STATE_QUEUED: SessionState
SESSION_STATE_PROVISIONING: SessionState
SESSION_STATE_RUNNING: SessionState
SESSION_STATE_AWAITING_USER: SessionState
SESSION_STATE_AWAITING_APPROVAL: SessionState
SESSION_STATE_IDLE: SessionState
SESSION_STATE_FAILED: SessionState
WAIT_REASON_UNSPECIFIED: WaitReason
WAIT_REASON_PLACE: WaitReason
WAIT_REASON_USER_LIMIT: WaitReason
WAIT_REASON_TENANT_LIMIT: WaitReason
WORKER_PHASE_UNSPECIFIED: WorkerPhase
WORKER_PHASE_STARTING: WorkerPhase
WORKER_PHASE_WAITING: WorkerPhase
WORKER_PHASE_READY: WorkerPhase
WORKER_PHASE_ADOPTED: WorkerPhase
WORKER_PHASE_EXITED: WorkerPhase
WORKER_PHASE_LOST: WorkerPhase
TURN_TRIGGER_UNSPECIFIED: TurnTrigger
TURN_TRIGGER_USER: TurnTrigger
TURN_STATUS_UNSPECIFIED: TurnStatus
TURN_STATUS_COMPLETED: TurnStatus
TURN_STATUS_INTERRUPTED: TurnStatus
TURN_STATUS_FAILED: TurnStatus
TURN_CODE_UNSPECIFIED: TurnCode
TURN_CODE_WORKER_LOST: TurnCode
TURN_CODE_OUT_OF_MEMORY: TurnCode
TURN_CODE_TIMEOUT: TurnCode
TURN_CODE_PROVIDER: TurnCode
TURN_CODE_REPOSITORY: TurnCode
TURN_CODE_WORKSPACE: TurnCode
TURN_CODE_PROTOCOL: TurnCode
TURN_CODE_LAUNCH: TurnCode
TURN_CODE_INTERNAL: TurnCode
TURN_CODE_BUDGET: TurnCode
TURN_CODE_OUT_OF_DISK: TurnCode
INPUT_DELIVERY_UNSPECIFIED: InputDelivery
INPUT_DELIVERY_STEER: InputDelivery
INPUT_DELIVERY_QUEUE: InputDelivery
INPUT_DELIVERY_INTERRUPT: InputDelivery
INPUT_STATUS_UNSPECIFIED: InputStatus
INPUT_STATUS_QUEUED: InputStatus
INPUT_STATUS_DELIVERED: InputStatus
INPUT_STATUS_EDITED: InputStatus
INPUT_STATUS_CANCELLED: InputStatus
ROLE_UNSPECIFIED: Role
ROLE_USER: Role
ROLE_ASSISTANT: Role
ROLE_SYSTEM: Role
CHANNEL_UNSPECIFIED: Channel
CHANNEL_TEXT: Channel
CHANNEL_REASONING: Channel
CHANNEL_TOOL_INPUT: Channel
CHANNEL_STDOUT: Channel
CHANNEL_STDERR: Channel
TOOL_KIND_UNSPECIFIED: ToolKind
TOOL_KIND_READ: ToolKind
TOOL_KIND_EDIT: ToolKind
TOOL_KIND_DELETE: ToolKind
TOOL_KIND_MOVE: ToolKind
TOOL_KIND_SEARCH: ToolKind
TOOL_KIND_EXECUTE: ToolKind
TOOL_KIND_FETCH: ToolKind
TOOL_KIND_THINK: ToolKind
TOOL_KIND_OTHER: ToolKind
TOOL_KIND_ASK: ToolKind
TOOL_STATUS_UNSPECIFIED: ToolStatus
TOOL_STATUS_PENDING: ToolStatus
TOOL_STATUS_RUNNING: ToolStatus
TOOL_OUTCOME_UNSPECIFIED: ToolOutcome
TOOL_OUTCOME_COMPLETED: ToolOutcome
TOOL_OUTCOME_FAILED: ToolOutcome
TOOL_OUTCOME_DECLINED: ToolOutcome
TOOL_OUTCOME_CANCELLED: ToolOutcome
TOOL_OUTCOME_TIMED_OUT: ToolOutcome
FILE_OPERATION_UNSPECIFIED: FileOperation
FILE_OPERATION_ADDED: FileOperation
FILE_OPERATION_MODIFIED: FileOperation
FILE_OPERATION_DELETED: FileOperation
FILE_OPERATION_RENAMED: FileOperation
APPROVALS_UNSPECIFIED: Approvals
APPROVALS_ASK: Approvals
APPROVAL_OPTION_KIND_UNSPECIFIED: ApprovalOptionKind
APPROVAL_OPTION_KIND_ALLOW_ONCE: ApprovalOptionKind
APPROVAL_OPTION_KIND_ALLOW_SESSION: ApprovalOptionKind
APPROVAL_OPTION_KIND_REJECT_ONCE: ApprovalOptionKind
REQUEST_OUTCOME_UNSPECIFIED: RequestOutcome
REQUEST_OUTCOME_CHOSEN: RequestOutcome
REQUEST_OUTCOME_ANSWERED: RequestOutcome
REQUEST_OUTCOME_DECLINED: RequestOutcome
REQUEST_OUTCOME_EXPIRED: RequestOutcome
REQUEST_OUTCOME_CANCELLED: RequestOutcome
COST_SOURCE_UNSPECIFIED: CostSource
COST_SOURCE_PROVIDER: CostSource
COST_SOURCE_ESTIMATE: CostSource
USAGE_PURPOSE_UNSPECIFIED: UsagePurpose
USAGE_PURPOSE_NAMING: UsagePurpose
COMPACTION_TRIGGER_UNSPECIFIED: CompactionTrigger
COMPACTION_TRIGGER_AUTO: CompactionTrigger
COMPACTION_TRIGGER_MANUAL: CompactionTrigger
COMPACTION_TRIGGER_RESET: CompactionTrigger
SUBAGENT_STATE_UNSPECIFIED: SubagentState
SUBAGENT_STATE_RUNNING: SubagentState
SUBAGENT_STATE_COMPLETED: SubagentState
SUBAGENT_STATE_FAILED: SubagentState
SUBAGENT_STATE_CANCELLED: SubagentState
RAW_REASON_UNSPECIFIED: RawReason
RAW_REASON_UNKNOWN_TYPE: RawReason
RAW_REASON_PARSE_ERROR: RawReason
GIT_ACTION_UNSPECIFIED: GitAction
GIT_ACTION_CLONED: GitAction
GIT_ACTION_BRANCHED: GitAction
GIT_ACTION_CHECKPOINTED: GitAction
GIT_ACTION_COMMITTED: GitAction
GIT_ACTION_PUSHED: GitAction
GIT_ACTION_PUSH_FAILED: GitAction
GIT_ACTION_SKIPPED: GitAction
PUSH_REFUSAL_UNSPECIFIED: PushRefusal
PUSH_REFUSAL_NON_FAST_FORWARD: PushRefusal
PUSH_REFUSAL_BRANCH_EXISTS: PushRefusal
PUSH_REFUSAL_DEFAULT_BRANCH: PushRefusal
PUSH_REFUSAL_PROTECTED_BRANCH: PushRefusal
PUSH_REFUSAL_HOOK_DECLINED: PushRefusal
PUSH_REFUSAL_TOO_LARGE: PushRefusal
PUSH_REFUSAL_AUTHENTICATION: PushRefusal
PUSH_REFUSAL_PERMISSION: PushRefusal
PUSH_REFUSAL_REPOSITORY_GONE: PushRefusal
PUSH_REFUSAL_NETWORK: PushRefusal
PUSH_REFUSAL_OTHER: PushRefusal
PUSH_REFUSAL_CONFLICT: PushRefusal
PUSH_REFUSAL_REWRITTEN: PushRefusal
PULL_REQUEST_STATE_UNSPECIFIED: PullRequestState
PULL_REQUEST_STATE_OPEN: PullRequestState
PULL_REQUEST_STATE_CLOSED: PullRequestState
PULL_REQUEST_STATE_MERGED: PullRequestState
ARTIFACT_KIND_UNSPECIFIED: ArtifactKind
ARTIFACT_KIND_SNAPSHOT: ArtifactKind
NETWORK_DECISION_UNSPECIFIED: NetworkDecision
NETWORK_DECISION_ALLOWED: NetworkDecision
NETWORK_DECISION_DENIED: NetworkDecision

class Event(_message.Message):
    __slots__ = ("seq", "session_id", "turn_id", "attempt", "event_id", "recorded_at", "occurred_at", "epoch", "item_id", "parent_item_id", "actor", "origin", "schema_version", "trace_parent", "session_updated", "worker_updated", "turn_started", "turn_completed", "user_input", "message", "reasoning", "content_delta", "tool_call", "tool_result", "file_changed", "plan_updated", "approval_requested", "question_requested", "request_resolved", "usage_updated", "context_compacted", "subagent_updated", "git_updated", "artifact_added", "network_access", "error", "provider_raw", "session_forked", "pull_request_updated")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    RECORDED_AT_FIELD_NUMBER: _ClassVar[int]
    OCCURRED_AT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    PARENT_ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    TRACE_PARENT_FIELD_NUMBER: _ClassVar[int]
    SESSION_UPDATED_FIELD_NUMBER: _ClassVar[int]
    WORKER_UPDATED_FIELD_NUMBER: _ClassVar[int]
    TURN_STARTED_FIELD_NUMBER: _ClassVar[int]
    TURN_COMPLETED_FIELD_NUMBER: _ClassVar[int]
    USER_INPUT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REASONING_FIELD_NUMBER: _ClassVar[int]
    CONTENT_DELTA_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALL_FIELD_NUMBER: _ClassVar[int]
    TOOL_RESULT_FIELD_NUMBER: _ClassVar[int]
    FILE_CHANGED_FIELD_NUMBER: _ClassVar[int]
    PLAN_UPDATED_FIELD_NUMBER: _ClassVar[int]
    APPROVAL_REQUESTED_FIELD_NUMBER: _ClassVar[int]
    QUESTION_REQUESTED_FIELD_NUMBER: _ClassVar[int]
    REQUEST_RESOLVED_FIELD_NUMBER: _ClassVar[int]
    USAGE_UPDATED_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_COMPACTED_FIELD_NUMBER: _ClassVar[int]
    SUBAGENT_UPDATED_FIELD_NUMBER: _ClassVar[int]
    GIT_UPDATED_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_ADDED_FIELD_NUMBER: _ClassVar[int]
    NETWORK_ACCESS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_RAW_FIELD_NUMBER: _ClassVar[int]
    SESSION_FORKED_FIELD_NUMBER: _ClassVar[int]
    PULL_REQUEST_UPDATED_FIELD_NUMBER: _ClassVar[int]
    seq: int
    session_id: str
    turn_id: str
    attempt: int
    event_id: str
    recorded_at: _timestamp_pb2.Timestamp
    occurred_at: _timestamp_pb2.Timestamp
    epoch: int
    item_id: str
    parent_item_id: str
    actor: Actor
    origin: Origin
    schema_version: int
    trace_parent: str
    session_updated: SessionUpdated
    worker_updated: WorkerUpdated
    turn_started: TurnStarted
    turn_completed: TurnCompleted
    user_input: UserInput
    message: Message
    reasoning: Reasoning
    content_delta: ContentDelta
    tool_call: ToolCall
    tool_result: ToolResult
    file_changed: FileChanged
    plan_updated: PlanUpdated
    approval_requested: ApprovalRequested
    question_requested: QuestionRequested
    request_resolved: RequestResolved
    usage_updated: UsageUpdated
    context_compacted: ContextCompacted
    subagent_updated: SubagentUpdated
    git_updated: GitUpdated
    artifact_added: ArtifactAdded
    network_access: NetworkAccess
    error: Error
    provider_raw: ProviderRaw
    session_forked: SessionForked
    pull_request_updated: PullRequestUpdated
    def __init__(self, seq: _Optional[int] = ..., session_id: _Optional[str] = ..., turn_id: _Optional[str] = ..., attempt: _Optional[int] = ..., event_id: _Optional[str] = ..., recorded_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., occurred_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., epoch: _Optional[int] = ..., item_id: _Optional[str] = ..., parent_item_id: _Optional[str] = ..., actor: _Optional[_Union[Actor, _Mapping]] = ..., origin: _Optional[_Union[Origin, str]] = ..., schema_version: _Optional[int] = ..., trace_parent: _Optional[str] = ..., session_updated: _Optional[_Union[SessionUpdated, _Mapping]] = ..., worker_updated: _Optional[_Union[WorkerUpdated, _Mapping]] = ..., turn_started: _Optional[_Union[TurnStarted, _Mapping]] = ..., turn_completed: _Optional[_Union[TurnCompleted, _Mapping]] = ..., user_input: _Optional[_Union[UserInput, _Mapping]] = ..., message: _Optional[_Union[Message, _Mapping]] = ..., reasoning: _Optional[_Union[Reasoning, _Mapping]] = ..., content_delta: _Optional[_Union[ContentDelta, _Mapping]] = ..., tool_call: _Optional[_Union[ToolCall, _Mapping]] = ..., tool_result: _Optional[_Union[ToolResult, _Mapping]] = ..., file_changed: _Optional[_Union[FileChanged, _Mapping]] = ..., plan_updated: _Optional[_Union[PlanUpdated, _Mapping]] = ..., approval_requested: _Optional[_Union[ApprovalRequested, _Mapping]] = ..., question_requested: _Optional[_Union[QuestionRequested, _Mapping]] = ..., request_resolved: _Optional[_Union[RequestResolved, _Mapping]] = ..., usage_updated: _Optional[_Union[UsageUpdated, _Mapping]] = ..., context_compacted: _Optional[_Union[ContextCompacted, _Mapping]] = ..., subagent_updated: _Optional[_Union[SubagentUpdated, _Mapping]] = ..., git_updated: _Optional[_Union[GitUpdated, _Mapping]] = ..., artifact_added: _Optional[_Union[ArtifactAdded, _Mapping]] = ..., network_access: _Optional[_Union[NetworkAccess, _Mapping]] = ..., error: _Optional[_Union[Error, _Mapping]] = ..., provider_raw: _Optional[_Union[ProviderRaw, _Mapping]] = ..., session_forked: _Optional[_Union[SessionForked, _Mapping]] = ..., pull_request_updated: _Optional[_Union[PullRequestUpdated, _Mapping]] = ...) -> None: ...

class Actor(_message.Message):
    __slots__ = ("kind", "id", "on_behalf_of")
    KIND_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    ON_BEHALF_OF_FIELD_NUMBER: _ClassVar[int]
    kind: ActorKind
    id: str
    on_behalf_of: str
    def __init__(self, kind: _Optional[_Union[ActorKind, str]] = ..., id: _Optional[str] = ..., on_behalf_of: _Optional[str] = ...) -> None: ...

class SessionUpdated(_message.Message):
    __slots__ = ("state", "title", "branch", "changed", "labels", "waiting")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    STATE_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    BRANCH_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    state: SessionState
    title: str
    branch: str
    changed: _containers.RepeatedScalarFieldContainer[str]
    labels: _containers.ScalarMap[str, str]
    waiting: Waiting
    def __init__(self, state: _Optional[_Union[SessionState, str]] = ..., title: _Optional[str] = ..., branch: _Optional[str] = ..., changed: _Optional[_Iterable[str]] = ..., labels: _Optional[_Mapping[str, str]] = ..., waiting: _Optional[_Union[Waiting, _Mapping]] = ...) -> None: ...

class Waiting(_message.Message):
    __slots__ = ("ahead", "reason")
    AHEAD_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ahead: int
    reason: WaitReason
    def __init__(self, ahead: _Optional[int] = ..., reason: _Optional[_Union[WaitReason, str]] = ...) -> None: ...

class WorkerUpdated(_message.Message):
    __slots__ = ("worker_id", "phase", "launcher", "sandboxed", "exit_code", "oom_killed", "log_tail", "stopped")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    LAUNCHER_FIELD_NUMBER: _ClassVar[int]
    SANDBOXED_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    OOM_KILLED_FIELD_NUMBER: _ClassVar[int]
    LOG_TAIL_FIELD_NUMBER: _ClassVar[int]
    STOPPED_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    phase: WorkerPhase
    launcher: str
    sandboxed: bool
    exit_code: int
    oom_killed: bool
    log_tail: str
    stopped: bool
    def __init__(self, worker_id: _Optional[str] = ..., phase: _Optional[_Union[WorkerPhase, str]] = ..., launcher: _Optional[str] = ..., sandboxed: bool = ..., exit_code: _Optional[int] = ..., oom_killed: bool = ..., log_tail: _Optional[str] = ..., stopped: bool = ...) -> None: ...

class TurnStarted(_message.Message):
    __slots__ = ("trigger", "provider", "model", "input_ids", "number")
    TRIGGER_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INPUT_IDS_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    trigger: TurnTrigger
    provider: str
    model: str
    input_ids: _containers.RepeatedScalarFieldContainer[str]
    number: int
    def __init__(self, trigger: _Optional[_Union[TurnTrigger, str]] = ..., provider: _Optional[str] = ..., model: _Optional[str] = ..., input_ids: _Optional[_Iterable[str]] = ..., number: _Optional[int] = ...) -> None: ...

class TurnCompleted(_message.Message):
    __slots__ = ("status", "code", "message", "native_stop_reason", "duration", "commit", "pushed")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    NATIVE_STOP_REASON_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    PUSHED_FIELD_NUMBER: _ClassVar[int]
    status: TurnStatus
    code: TurnCode
    message: str
    native_stop_reason: str
    duration: _duration_pb2.Duration
    commit: str
    pushed: bool
    def __init__(self, status: _Optional[_Union[TurnStatus, str]] = ..., code: _Optional[_Union[TurnCode, str]] = ..., message: _Optional[str] = ..., native_stop_reason: _Optional[str] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., commit: _Optional[str] = ..., pushed: bool = ...) -> None: ...

class UserInput(_message.Message):
    __slots__ = ("input_id", "parts", "delivery", "status", "position")
    INPUT_ID_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    input_id: str
    parts: _containers.RepeatedCompositeFieldContainer[Part]
    delivery: InputDelivery
    status: InputStatus
    position: int
    def __init__(self, input_id: _Optional[str] = ..., parts: _Optional[_Iterable[_Union[Part, _Mapping]]] = ..., delivery: _Optional[_Union[InputDelivery, str]] = ..., status: _Optional[_Union[InputStatus, str]] = ..., position: _Optional[int] = ...) -> None: ...

class Part(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class Message(_message.Message):
    __slots__ = ("role", "parts", "final")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    role: Role
    parts: _containers.RepeatedCompositeFieldContainer[Part]
    final: bool
    def __init__(self, role: _Optional[_Union[Role, str]] = ..., parts: _Optional[_Iterable[_Union[Part, _Mapping]]] = ..., final: bool = ...) -> None: ...

class Reasoning(_message.Message):
    __slots__ = ("summary", "text")
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    summary: str
    text: str
    def __init__(self, summary: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class ContentDelta(_message.Message):
    __slots__ = ("channel", "offset", "data")
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    channel: Channel
    offset: int
    data: str
    def __init__(self, channel: _Optional[_Union[Channel, str]] = ..., offset: _Optional[int] = ..., data: _Optional[str] = ...) -> None: ...

class ToolCall(_message.Message):
    __slots__ = ("call_id", "name", "tool_kind", "title", "input_json", "locations", "status", "command")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TOOL_KIND_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    INPUT_JSON_FIELD_NUMBER: _ClassVar[int]
    LOCATIONS_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    call_id: str
    name: str
    tool_kind: ToolKind
    title: str
    input_json: str
    locations: _containers.RepeatedScalarFieldContainer[str]
    status: ToolStatus
    command: str
    def __init__(self, call_id: _Optional[str] = ..., name: _Optional[str] = ..., tool_kind: _Optional[_Union[ToolKind, str]] = ..., title: _Optional[str] = ..., input_json: _Optional[str] = ..., locations: _Optional[_Iterable[str]] = ..., status: _Optional[_Union[ToolStatus, str]] = ..., command: _Optional[str] = ...) -> None: ...

class ToolResult(_message.Message):
    __slots__ = ("call_id", "status", "parts", "exit_code", "duration", "truncated")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    call_id: str
    status: ToolOutcome
    parts: _containers.RepeatedCompositeFieldContainer[Part]
    exit_code: int
    duration: _duration_pb2.Duration
    truncated: bool
    def __init__(self, call_id: _Optional[str] = ..., status: _Optional[_Union[ToolOutcome, str]] = ..., parts: _Optional[_Iterable[_Union[Part, _Mapping]]] = ..., exit_code: _Optional[int] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., truncated: bool = ...) -> None: ...

class FileChange(_message.Message):
    __slots__ = ("path", "old_path", "operation", "binary", "additions", "deletions", "patch", "patch_truncated")
    PATH_FIELD_NUMBER: _ClassVar[int]
    OLD_PATH_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    BINARY_FIELD_NUMBER: _ClassVar[int]
    ADDITIONS_FIELD_NUMBER: _ClassVar[int]
    DELETIONS_FIELD_NUMBER: _ClassVar[int]
    PATCH_FIELD_NUMBER: _ClassVar[int]
    PATCH_TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    path: str
    old_path: str
    operation: FileOperation
    binary: bool
    additions: int
    deletions: int
    patch: str
    patch_truncated: bool
    def __init__(self, path: _Optional[str] = ..., old_path: _Optional[str] = ..., operation: _Optional[_Union[FileOperation, str]] = ..., binary: bool = ..., additions: _Optional[int] = ..., deletions: _Optional[int] = ..., patch: _Optional[str] = ..., patch_truncated: bool = ...) -> None: ...

class FileChanged(_message.Message):
    __slots__ = ("call_id", "changes", "turn_total", "truncated")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    TURN_TOTAL_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    call_id: str
    changes: _containers.RepeatedCompositeFieldContainer[FileChange]
    turn_total: bool
    truncated: bool
    def __init__(self, call_id: _Optional[str] = ..., changes: _Optional[_Iterable[_Union[FileChange, _Mapping]]] = ..., turn_total: bool = ..., truncated: bool = ...) -> None: ...

class PlanEntry(_message.Message):
    __slots__ = ("id", "text", "status")
    ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    id: str
    text: str
    status: str
    def __init__(self, id: _Optional[str] = ..., text: _Optional[str] = ..., status: _Optional[str] = ...) -> None: ...

class PlanUpdated(_message.Message):
    __slots__ = ("plan_id", "entries")
    PLAN_ID_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    plan_id: str
    entries: _containers.RepeatedCompositeFieldContainer[PlanEntry]
    def __init__(self, plan_id: _Optional[str] = ..., entries: _Optional[_Iterable[_Union[PlanEntry, _Mapping]]] = ...) -> None: ...

class ApprovalOption(_message.Message):
    __slots__ = ("id", "kind", "label")
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    id: str
    kind: ApprovalOptionKind
    label: str
    def __init__(self, id: _Optional[str] = ..., kind: _Optional[_Union[ApprovalOptionKind, str]] = ..., label: _Optional[str] = ...) -> None: ...

class ApprovalRequested(_message.Message):
    __slots__ = ("request_id", "tool", "title", "description", "options", "expires_at", "changes")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TOOL_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    tool: ToolCall
    title: str
    description: str
    options: _containers.RepeatedCompositeFieldContainer[ApprovalOption]
    expires_at: _timestamp_pb2.Timestamp
    changes: _containers.RepeatedCompositeFieldContainer[FileChange]
    def __init__(self, request_id: _Optional[str] = ..., tool: _Optional[_Union[ToolCall, _Mapping]] = ..., title: _Optional[str] = ..., description: _Optional[str] = ..., options: _Optional[_Iterable[_Union[ApprovalOption, _Mapping]]] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., changes: _Optional[_Iterable[_Union[FileChange, _Mapping]]] = ...) -> None: ...

class QuestionOption(_message.Message):
    __slots__ = ("id", "label", "description")
    ID_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    id: str
    label: str
    description: str
    def __init__(self, id: _Optional[str] = ..., label: _Optional[str] = ..., description: _Optional[str] = ...) -> None: ...

class Question(_message.Message):
    __slots__ = ("id", "header", "text", "options", "multi", "free_text")
    ID_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    MULTI_FIELD_NUMBER: _ClassVar[int]
    FREE_TEXT_FIELD_NUMBER: _ClassVar[int]
    id: str
    header: str
    text: str
    options: _containers.RepeatedCompositeFieldContainer[QuestionOption]
    multi: bool
    free_text: bool
    def __init__(self, id: _Optional[str] = ..., header: _Optional[str] = ..., text: _Optional[str] = ..., options: _Optional[_Iterable[_Union[QuestionOption, _Mapping]]] = ..., multi: bool = ..., free_text: bool = ...) -> None: ...

class QuestionRequested(_message.Message):
    __slots__ = ("request_id", "questions", "expires_at")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    QUESTIONS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    questions: _containers.RepeatedCompositeFieldContainer[Question]
    expires_at: _timestamp_pb2.Timestamp
    def __init__(self, request_id: _Optional[str] = ..., questions: _Optional[_Iterable[_Union[Question, _Mapping]]] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("question_id", "option_ids", "text")
    QUESTION_ID_FIELD_NUMBER: _ClassVar[int]
    OPTION_IDS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    question_id: str
    option_ids: _containers.RepeatedScalarFieldContainer[str]
    text: str
    def __init__(self, question_id: _Optional[str] = ..., option_ids: _Optional[_Iterable[str]] = ..., text: _Optional[str] = ...) -> None: ...

class RequestResolved(_message.Message):
    __slots__ = ("request_id", "outcome", "option_id", "answers", "resolved_by", "note")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    OPTION_ID_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    RESOLVED_BY_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    outcome: RequestOutcome
    option_id: str
    answers: _containers.RepeatedCompositeFieldContainer[Answer]
    resolved_by: str
    note: str
    def __init__(self, request_id: _Optional[str] = ..., outcome: _Optional[_Union[RequestOutcome, str]] = ..., option_id: _Optional[str] = ..., answers: _Optional[_Iterable[_Union[Answer, _Mapping]]] = ..., resolved_by: _Optional[str] = ..., note: _Optional[str] = ...) -> None: ...

class UsageUpdated(_message.Message):
    __slots__ = ("model", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "cost_micros", "cost_source", "budget_left_micros", "budget_left_tokens", "purpose", "partial")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHE_READ_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHE_WRITE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    REASONING_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COST_MICROS_FIELD_NUMBER: _ClassVar[int]
    COST_SOURCE_FIELD_NUMBER: _ClassVar[int]
    BUDGET_LEFT_MICROS_FIELD_NUMBER: _ClassVar[int]
    BUDGET_LEFT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    model: str
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    cost_micros: int
    cost_source: CostSource
    budget_left_micros: int
    budget_left_tokens: int
    purpose: UsagePurpose
    partial: bool
    def __init__(self, model: _Optional[str] = ..., input_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ..., cache_read_tokens: _Optional[int] = ..., cache_write_tokens: _Optional[int] = ..., reasoning_tokens: _Optional[int] = ..., cost_micros: _Optional[int] = ..., cost_source: _Optional[_Union[CostSource, str]] = ..., budget_left_micros: _Optional[int] = ..., budget_left_tokens: _Optional[int] = ..., purpose: _Optional[_Union[UsagePurpose, str]] = ..., partial: bool = ...) -> None: ...

class ContextCompacted(_message.Message):
    __slots__ = ("trigger", "tokens_before", "tokens_after")
    TRIGGER_FIELD_NUMBER: _ClassVar[int]
    TOKENS_BEFORE_FIELD_NUMBER: _ClassVar[int]
    TOKENS_AFTER_FIELD_NUMBER: _ClassVar[int]
    trigger: CompactionTrigger
    tokens_before: int
    tokens_after: int
    def __init__(self, trigger: _Optional[_Union[CompactionTrigger, str]] = ..., tokens_before: _Optional[int] = ..., tokens_after: _Optional[int] = ...) -> None: ...

class SubagentUpdated(_message.Message):
    __slots__ = ("agent_id", "name", "parent_call_id", "state", "summary")
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PARENT_CALL_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    name: str
    parent_call_id: str
    state: SubagentState
    summary: str
    def __init__(self, agent_id: _Optional[str] = ..., name: _Optional[str] = ..., parent_call_id: _Optional[str] = ..., state: _Optional[_Union[SubagentState, str]] = ..., summary: _Optional[str] = ...) -> None: ...

class ProviderRaw(_message.Message):
    __slots__ = ("provider", "native_type", "reason", "payload", "truncated")
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    NATIVE_TYPE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    provider: str
    native_type: str
    reason: RawReason
    payload: str
    truncated: bool
    def __init__(self, provider: _Optional[str] = ..., native_type: _Optional[str] = ..., reason: _Optional[_Union[RawReason, str]] = ..., payload: _Optional[str] = ..., truncated: bool = ...) -> None: ...

class SkippedPath(_message.Message):
    __slots__ = ("path", "reason")
    PATH_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    path: str
    reason: str
    def __init__(self, path: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class GitUpdated(_message.Message):
    __slots__ = ("action", "repository", "branch", "base_branch", "sha", "message", "files_changed", "additions", "deletions", "skipped", "skipped_count", "refusal")
    ACTION_FIELD_NUMBER: _ClassVar[int]
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    BRANCH_FIELD_NUMBER: _ClassVar[int]
    BASE_BRANCH_FIELD_NUMBER: _ClassVar[int]
    SHA_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FILES_CHANGED_FIELD_NUMBER: _ClassVar[int]
    ADDITIONS_FIELD_NUMBER: _ClassVar[int]
    DELETIONS_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_COUNT_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    action: GitAction
    repository: str
    branch: str
    base_branch: str
    sha: str
    message: str
    files_changed: int
    additions: int
    deletions: int
    skipped: _containers.RepeatedCompositeFieldContainer[SkippedPath]
    skipped_count: int
    refusal: PushRefusal
    def __init__(self, action: _Optional[_Union[GitAction, str]] = ..., repository: _Optional[str] = ..., branch: _Optional[str] = ..., base_branch: _Optional[str] = ..., sha: _Optional[str] = ..., message: _Optional[str] = ..., files_changed: _Optional[int] = ..., additions: _Optional[int] = ..., deletions: _Optional[int] = ..., skipped: _Optional[_Iterable[_Union[SkippedPath, _Mapping]]] = ..., skipped_count: _Optional[int] = ..., refusal: _Optional[_Union[PushRefusal, str]] = ...) -> None: ...

class PullRequestUpdated(_message.Message):
    __slots__ = ("number", "url", "title", "state", "head", "base", "head_commit", "draft")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    HEAD_COMMIT_FIELD_NUMBER: _ClassVar[int]
    DRAFT_FIELD_NUMBER: _ClassVar[int]
    number: int
    url: str
    title: str
    state: PullRequestState
    head: str
    base: str
    head_commit: str
    draft: bool
    def __init__(self, number: _Optional[int] = ..., url: _Optional[str] = ..., title: _Optional[str] = ..., state: _Optional[_Union[PullRequestState, str]] = ..., head: _Optional[str] = ..., base: _Optional[str] = ..., head_commit: _Optional[str] = ..., draft: bool = ...) -> None: ...

class ArtifactAdded(_message.Message):
    __slots__ = ("artifact_id", "kind", "name", "mime", "size", "sha256")
    ARTIFACT_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MIME_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    artifact_id: str
    kind: ArtifactKind
    name: str
    mime: str
    size: int
    sha256: str
    def __init__(self, artifact_id: _Optional[str] = ..., kind: _Optional[_Union[ArtifactKind, str]] = ..., name: _Optional[str] = ..., mime: _Optional[str] = ..., size: _Optional[int] = ..., sha256: _Optional[str] = ...) -> None: ...

class SessionForked(_message.Message):
    __slots__ = ("parent_session_id", "parent_turn_id", "parent_snapshot", "commit", "remembered")
    PARENT_SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    PARENT_TURN_ID_FIELD_NUMBER: _ClassVar[int]
    PARENT_SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    REMEMBERED_FIELD_NUMBER: _ClassVar[int]
    parent_session_id: str
    parent_turn_id: str
    parent_snapshot: int
    commit: str
    remembered: bool
    def __init__(self, parent_session_id: _Optional[str] = ..., parent_turn_id: _Optional[str] = ..., parent_snapshot: _Optional[int] = ..., commit: _Optional[str] = ..., remembered: bool = ...) -> None: ...

class NetworkAccess(_message.Message):
    __slots__ = ("host", "port", "method", "decision", "rule", "bytes_in", "bytes_out", "reason", "message", "duration", "ended", "count")
    HOST_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    BYTES_IN_FIELD_NUMBER: _ClassVar[int]
    BYTES_OUT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    host: str
    port: int
    method: str
    decision: NetworkDecision
    rule: str
    bytes_in: int
    bytes_out: int
    reason: str
    message: str
    duration: _duration_pb2.Duration
    ended: bool
    count: int
    def __init__(self, host: _Optional[str] = ..., port: _Optional[int] = ..., method: _Optional[str] = ..., decision: _Optional[_Union[NetworkDecision, str]] = ..., rule: _Optional[str] = ..., bytes_in: _Optional[int] = ..., bytes_out: _Optional[int] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., ended: bool = ..., count: _Optional[int] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("code", "message", "retryable", "attempt", "provider_status", "fatal")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_STATUS_FIELD_NUMBER: _ClassVar[int]
    FATAL_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    retryable: bool
    attempt: int
    provider_status: int
    fatal: bool
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., retryable: bool = ..., attempt: _Optional[int] = ..., provider_status: _Optional[int] = ..., fatal: bool = ...) -> None: ...
