import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from treadle.session.v1 import event_pb2 as _event_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Session(_message.Message):
    __slots__ = ("session_id", "title", "repository_url", "base_branch", "branch", "state", "labels", "version", "last_seq", "active_turn_id", "head_commit", "created_at", "updated_at", "provider", "open_request_ids", "waiting_inputs", "allowed_hosts", "waiting", "unpushed_commit", "push_refusal", "push_message", "pull_request", "stored_bytes")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    REPOSITORY_URL_FIELD_NUMBER: _ClassVar[int]
    BASE_BRANCH_FIELD_NUMBER: _ClassVar[int]
    BRANCH_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQ_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_TURN_ID_FIELD_NUMBER: _ClassVar[int]
    HEAD_COMMIT_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    OPEN_REQUEST_IDS_FIELD_NUMBER: _ClassVar[int]
    WAITING_INPUTS_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_HOSTS_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    UNPUSHED_COMMIT_FIELD_NUMBER: _ClassVar[int]
    PUSH_REFUSAL_FIELD_NUMBER: _ClassVar[int]
    PUSH_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    PULL_REQUEST_FIELD_NUMBER: _ClassVar[int]
    STORED_BYTES_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    title: str
    repository_url: str
    base_branch: str
    branch: str
    state: _event_pb2.SessionState
    labels: _containers.ScalarMap[str, str]
    version: int
    last_seq: int
    active_turn_id: str
    head_commit: str
    created_at: _timestamp_pb2.Timestamp
    updated_at: _timestamp_pb2.Timestamp
    provider: str
    open_request_ids: _containers.RepeatedScalarFieldContainer[str]
    waiting_inputs: int
    allowed_hosts: _containers.RepeatedScalarFieldContainer[str]
    waiting: _event_pb2.Waiting
    unpushed_commit: str
    push_refusal: _event_pb2.PushRefusal
    push_message: str
    pull_request: _event_pb2.PullRequestUpdated
    stored_bytes: int
    def __init__(self, session_id: _Optional[str] = ..., title: _Optional[str] = ..., repository_url: _Optional[str] = ..., base_branch: _Optional[str] = ..., branch: _Optional[str] = ..., state: _Optional[_Union[_event_pb2.SessionState, str]] = ..., labels: _Optional[_Mapping[str, str]] = ..., version: _Optional[int] = ..., last_seq: _Optional[int] = ..., active_turn_id: _Optional[str] = ..., head_commit: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., updated_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., provider: _Optional[str] = ..., open_request_ids: _Optional[_Iterable[str]] = ..., waiting_inputs: _Optional[int] = ..., allowed_hosts: _Optional[_Iterable[str]] = ..., waiting: _Optional[_Union[_event_pb2.Waiting, _Mapping]] = ..., unpushed_commit: _Optional[str] = ..., push_refusal: _Optional[_Union[_event_pb2.PushRefusal, str]] = ..., push_message: _Optional[str] = ..., pull_request: _Optional[_Union[_event_pb2.PullRequestUpdated, _Mapping]] = ..., stored_bytes: _Optional[int] = ...) -> None: ...
