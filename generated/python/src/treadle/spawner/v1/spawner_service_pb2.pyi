from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StartOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    START_OUTCOME_UNSPECIFIED: _ClassVar[StartOutcome]
    START_OUTCOME_STARTED: _ClassVar[StartOutcome]
    START_OUTCOME_RUNNING: _ClassVar[StartOutcome]
    START_OUTCOME_ENDED: _ClassVar[StartOutcome]
    START_OUTCOME_NO_ROOM: _ClassVar[StartOutcome]
START_OUTCOME_UNSPECIFIED: StartOutcome
START_OUTCOME_STARTED: StartOutcome
START_OUTCOME_RUNNING: StartOutcome
START_OUTCOME_ENDED: StartOutcome
START_OUTCOME_NO_ROOM: StartOutcome

class DescribeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DescribeResponse(_message.Message):
    __slots__ = ("providers", "uid", "gid", "detail", "worker_seconds", "carried")
    PROVIDERS_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    GID_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    WORKER_SECONDS_FIELD_NUMBER: _ClassVar[int]
    CARRIED_FIELD_NUMBER: _ClassVar[int]
    providers: _containers.RepeatedScalarFieldContainer[str]
    uid: int
    gid: int
    detail: str
    worker_seconds: float
    carried: bool
    def __init__(self, providers: _Optional[_Iterable[str]] = ..., uid: _Optional[int] = ..., gid: _Optional[int] = ..., detail: _Optional[str] = ..., worker_seconds: _Optional[float] = ..., carried: bool = ...) -> None: ...

class WorkerLabels(_message.Message):
    __slots__ = ("session_id", "turn_id", "attempt", "tenant_id")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    turn_id: str
    attempt: int
    tenant_id: str
    def __init__(self, session_id: _Optional[str] = ..., turn_id: _Optional[str] = ..., attempt: _Optional[int] = ..., tenant_id: _Optional[str] = ...) -> None: ...

class PrepareRequest(_message.Message):
    __slots__ = ("slot", "waiting")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    slot: str
    waiting: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, slot: _Optional[str] = ..., waiting: _Optional[_Iterable[str]] = ...) -> None: ...

class PrepareResponse(_message.Message):
    __slots__ = ("taken",)
    TAKEN_FIELD_NUMBER: _ClassVar[int]
    taken: str
    def __init__(self, taken: _Optional[str] = ...) -> None: ...

class StartRequest(_message.Message):
    __slots__ = ("slot", "provider", "labels", "furnished", "unused", "carrier")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    FURNISHED_FIELD_NUMBER: _ClassVar[int]
    UNUSED_FIELD_NUMBER: _ClassVar[int]
    CARRIER_FIELD_NUMBER: _ClassVar[int]
    slot: str
    provider: str
    labels: WorkerLabels
    furnished: bool
    unused: bool
    carrier: bytes
    def __init__(self, slot: _Optional[str] = ..., provider: _Optional[str] = ..., labels: _Optional[_Union[WorkerLabels, _Mapping]] = ..., furnished: bool = ..., unused: bool = ..., carrier: _Optional[bytes] = ...) -> None: ...

class StartResponse(_message.Message):
    __slots__ = ("outcome", "address", "reason")
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    outcome: StartOutcome
    address: str
    reason: str
    def __init__(self, outcome: _Optional[_Union[StartOutcome, str]] = ..., address: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class WorkerEnd(_message.Message):
    __slots__ = ("code", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class SealRequest(_message.Message):
    __slots__ = ("slot",)
    SLOT_FIELD_NUMBER: _ClassVar[int]
    slot: str
    def __init__(self, slot: _Optional[str] = ...) -> None: ...

class SealResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class OccupiedRequest(_message.Message):
    __slots__ = ("slot",)
    SLOT_FIELD_NUMBER: _ClassVar[int]
    slot: str
    def __init__(self, slot: _Optional[str] = ...) -> None: ...

class OccupiedResponse(_message.Message):
    __slots__ = ("bytes", "files", "uncounted")
    BYTES_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    UNCOUNTED_FIELD_NUMBER: _ClassVar[int]
    bytes: int
    files: int
    uncounted: bool
    def __init__(self, bytes: _Optional[int] = ..., files: _Optional[int] = ..., uncounted: bool = ...) -> None: ...

class WaitRequest(_message.Message):
    __slots__ = ("slot",)
    SLOT_FIELD_NUMBER: _ClassVar[int]
    slot: str
    def __init__(self, slot: _Optional[str] = ...) -> None: ...

class WaitResponse(_message.Message):
    __slots__ = ("end",)
    END_FIELD_NUMBER: _ClassVar[int]
    end: WorkerEnd
    def __init__(self, end: _Optional[_Union[WorkerEnd, _Mapping]] = ...) -> None: ...

class KillRequest(_message.Message):
    __slots__ = ("slot",)
    SLOT_FIELD_NUMBER: _ClassVar[int]
    slot: str
    def __init__(self, slot: _Optional[str] = ...) -> None: ...

class KillResponse(_message.Message):
    __slots__ = ("end",)
    END_FIELD_NUMBER: _ClassVar[int]
    end: WorkerEnd
    def __init__(self, end: _Optional[_Union[WorkerEnd, _Mapping]] = ...) -> None: ...

class RemoveRequest(_message.Message):
    __slots__ = ("slot",)
    SLOT_FIELD_NUMBER: _ClassVar[int]
    slot: str
    def __init__(self, slot: _Optional[str] = ...) -> None: ...

class RemoveResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListResponse(_message.Message):
    __slots__ = ("containers",)
    CONTAINERS_FIELD_NUMBER: _ClassVar[int]
    containers: _containers.RepeatedCompositeFieldContainer[SpawnedContainer]
    def __init__(self, containers: _Optional[_Iterable[_Union[SpawnedContainer, _Mapping]]] = ...) -> None: ...

class SpawnedContainer(_message.Message):
    __slots__ = ("slot", "provider", "labels", "running")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    slot: str
    provider: str
    labels: WorkerLabels
    running: bool
    def __init__(self, slot: _Optional[str] = ..., provider: _Optional[str] = ..., labels: _Optional[_Union[WorkerLabels, _Mapping]] = ..., running: bool = ...) -> None: ...
