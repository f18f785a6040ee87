import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from treadle.session.v1 import event_pb2 as _event_pb2
from treadle.worker.v1 import worker_event_pb2 as _worker_event_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class HandshakeRequest(_message.Message):
    __slots__ = ("nonce",)
    NONCE_FIELD_NUMBER: _ClassVar[int]
    nonce: bytes
    def __init__(self, nonce: _Optional[bytes] = ...) -> None: ...

class HandshakeResponse(_message.Message):
    __slots__ = ("proof", "nonce", "has_turn")
    PROOF_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    HAS_TURN_FIELD_NUMBER: _ClassVar[int]
    proof: bytes
    nonce: bytes
    has_turn: bool
    def __init__(self, proof: _Optional[bytes] = ..., nonce: _Optional[bytes] = ..., has_turn: bool = ...) -> None: ...

class LoadTranscriptRequest(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class LoadTranscriptResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReadTranscriptRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReadTranscriptResponse(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class ExecuteSessionRequest(_message.Message):
    __slots__ = ("session_id", "turn_id", "attempt", "provider", "model", "prompt", "turn_number", "trace_parent", "approvals", "max_steps", "allowed_hosts")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    TURN_NUMBER_FIELD_NUMBER: _ClassVar[int]
    TRACE_PARENT_FIELD_NUMBER: _ClassVar[int]
    APPROVALS_FIELD_NUMBER: _ClassVar[int]
    MAX_STEPS_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_HOSTS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    turn_id: str
    attempt: int
    provider: str
    model: str
    prompt: str
    turn_number: int
    trace_parent: str
    approvals: _event_pb2.Approvals
    max_steps: int
    allowed_hosts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, session_id: _Optional[str] = ..., turn_id: _Optional[str] = ..., attempt: _Optional[int] = ..., provider: _Optional[str] = ..., model: _Optional[str] = ..., prompt: _Optional[str] = ..., turn_number: _Optional[int] = ..., trace_parent: _Optional[str] = ..., approvals: _Optional[_Union[_event_pb2.Approvals, str]] = ..., max_steps: _Optional[int] = ..., allowed_hosts: _Optional[_Iterable[str]] = ...) -> None: ...

class ExecuteSessionResponse(_message.Message):
    __slots__ = ("events", "result", "heartbeat", "notice")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    events: WorkerEventBatch
    result: TurnResult
    heartbeat: WorkerHeartbeat
    notice: WorkerNotice
    def __init__(self, events: _Optional[_Union[WorkerEventBatch, _Mapping]] = ..., result: _Optional[_Union[TurnResult, _Mapping]] = ..., heartbeat: _Optional[_Union[WorkerHeartbeat, _Mapping]] = ..., notice: _Optional[_Union[WorkerNotice, _Mapping]] = ...) -> None: ...

class ResumeRequest(_message.Message):
    __slots__ = ("after_worker_seq",)
    AFTER_WORKER_SEQ_FIELD_NUMBER: _ClassVar[int]
    after_worker_seq: int
    def __init__(self, after_worker_seq: _Optional[int] = ...) -> None: ...

class ResumeResponse(_message.Message):
    __slots__ = ("events", "result", "heartbeat", "notice")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    events: WorkerEventBatch
    result: TurnResult
    heartbeat: WorkerHeartbeat
    notice: WorkerNotice
    def __init__(self, events: _Optional[_Union[WorkerEventBatch, _Mapping]] = ..., result: _Optional[_Union[TurnResult, _Mapping]] = ..., heartbeat: _Optional[_Union[WorkerHeartbeat, _Mapping]] = ..., notice: _Optional[_Union[WorkerNotice, _Mapping]] = ...) -> None: ...

class WorkerEventBatch(_message.Message):
    __slots__ = ("first_worker_seq", "events")
    FIRST_WORKER_SEQ_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    first_worker_seq: int
    events: _containers.RepeatedCompositeFieldContainer[_worker_event_pb2.WorkerEvent]
    def __init__(self, first_worker_seq: _Optional[int] = ..., events: _Optional[_Iterable[_Union[_worker_event_pb2.WorkerEvent, _Mapping]]] = ...) -> None: ...

class TurnResult(_message.Message):
    __slots__ = ("status", "code", "message", "native_stop_reason", "last_worker_seq", "began_at", "ended_at")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    NATIVE_STOP_REASON_FIELD_NUMBER: _ClassVar[int]
    LAST_WORKER_SEQ_FIELD_NUMBER: _ClassVar[int]
    BEGAN_AT_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_FIELD_NUMBER: _ClassVar[int]
    status: _event_pb2.TurnStatus
    code: _event_pb2.TurnCode
    message: str
    native_stop_reason: str
    last_worker_seq: int
    began_at: _timestamp_pb2.Timestamp
    ended_at: _timestamp_pb2.Timestamp
    def __init__(self, status: _Optional[_Union[_event_pb2.TurnStatus, str]] = ..., code: _Optional[_Union[_event_pb2.TurnCode, str]] = ..., message: _Optional[str] = ..., native_stop_reason: _Optional[str] = ..., last_worker_seq: _Optional[int] = ..., began_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ended_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class WorkerHeartbeat(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WorkerNotice(_message.Message):
    __slots__ = ("input_wanted", "input_taken", "request_withdrawn", "prepared")
    INPUT_WANTED_FIELD_NUMBER: _ClassVar[int]
    INPUT_TAKEN_FIELD_NUMBER: _ClassVar[int]
    REQUEST_WITHDRAWN_FIELD_NUMBER: _ClassVar[int]
    PREPARED_FIELD_NUMBER: _ClassVar[int]
    input_wanted: bool
    input_taken: str
    request_withdrawn: str
    prepared: str
    def __init__(self, input_wanted: bool = ..., input_taken: _Optional[str] = ..., request_withdrawn: _Optional[str] = ..., prepared: _Optional[str] = ...) -> None: ...

class ControlRequest(_message.Message):
    __slots__ = ("interrupt", "input", "resolve")
    INTERRUPT_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    RESOLVE_FIELD_NUMBER: _ClassVar[int]
    interrupt: InterruptTurn
    input: GiveInput
    resolve: _event_pb2.RequestResolved
    def __init__(self, interrupt: _Optional[_Union[InterruptTurn, _Mapping]] = ..., input: _Optional[_Union[GiveInput, _Mapping]] = ..., resolve: _Optional[_Union[_event_pb2.RequestResolved, _Mapping]] = ...) -> None: ...

class InterruptTurn(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class GiveInput(_message.Message):
    __slots__ = ("input_id", "text")
    INPUT_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    input_id: str
    text: str
    def __init__(self, input_id: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class ControlResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AcknowledgeRequest(_message.Message):
    __slots__ = ("worker_seq",)
    WORKER_SEQ_FIELD_NUMBER: _ClassVar[int]
    worker_seq: int
    def __init__(self, worker_seq: _Optional[int] = ...) -> None: ...

class AcknowledgeResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
