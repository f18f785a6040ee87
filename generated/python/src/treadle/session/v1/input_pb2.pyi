import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from treadle.session.v1 import event_pb2 as _event_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Input(_message.Message):
    __slots__ = ("input_id", "session_id", "text", "delivery", "status", "position", "version", "turn_id", "created_at", "updated_at")
    INPUT_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_FIELD_NUMBER: _ClassVar[int]
    input_id: str
    session_id: str
    text: str
    delivery: _event_pb2.InputDelivery
    status: _event_pb2.InputStatus
    position: int
    version: int
    turn_id: str
    created_at: _timestamp_pb2.Timestamp
    updated_at: _timestamp_pb2.Timestamp
    def __init__(self, input_id: _Optional[str] = ..., session_id: _Optional[str] = ..., text: _Optional[str] = ..., delivery: _Optional[_Union[_event_pb2.InputDelivery, str]] = ..., status: _Optional[_Union[_event_pb2.InputStatus, str]] = ..., position: _Optional[int] = ..., version: _Optional[int] = ..., turn_id: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., updated_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
