import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SnapshotKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SNAPSHOT_KIND_UNSPECIFIED: _ClassVar[SnapshotKind]
    SNAPSHOT_KIND_TURN: _ClassVar[SnapshotKind]
    SNAPSHOT_KIND_EDIT: _ClassVar[SnapshotKind]
    SNAPSHOT_KIND_RESTORE: _ClassVar[SnapshotKind]
    SNAPSHOT_KIND_IMPORT: _ClassVar[SnapshotKind]
    SNAPSHOT_KIND_CHECKPOINT: _ClassVar[SnapshotKind]
    SNAPSHOT_KIND_FORK: _ClassVar[SnapshotKind]
SNAPSHOT_KIND_UNSPECIFIED: SnapshotKind
SNAPSHOT_KIND_TURN: SnapshotKind
SNAPSHOT_KIND_EDIT: SnapshotKind
SNAPSHOT_KIND_RESTORE: SnapshotKind
SNAPSHOT_KIND_IMPORT: SnapshotKind
SNAPSHOT_KIND_CHECKPOINT: SnapshotKind
SNAPSHOT_KIND_FORK: SnapshotKind

class Snapshot(_message.Message):
    __slots__ = ("number", "kind", "commit", "parent", "message", "turn_id", "actor", "created_at", "stored", "size", "actor_name", "current", "pushed", "expired", "lost")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    STORED_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    ACTOR_NAME_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    PUSHED_FIELD_NUMBER: _ClassVar[int]
    EXPIRED_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    number: int
    kind: SnapshotKind
    commit: str
    parent: str
    message: str
    turn_id: str
    actor: str
    created_at: _timestamp_pb2.Timestamp
    stored: bool
    size: int
    actor_name: str
    current: bool
    pushed: bool
    expired: bool
    lost: bool
    def __init__(self, number: _Optional[int] = ..., kind: _Optional[_Union[SnapshotKind, str]] = ..., commit: _Optional[str] = ..., parent: _Optional[str] = ..., message: _Optional[str] = ..., turn_id: _Optional[str] = ..., actor: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., stored: bool = ..., size: _Optional[int] = ..., actor_name: _Optional[str] = ..., current: bool = ..., pushed: bool = ..., expired: bool = ..., lost: bool = ...) -> None: ...
