import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from treadle.session.v1 import event_pb2 as _event_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WorkerEvent(_message.Message):
    __slots__ = ("occurred_at", "item_id", "parent_item_id", "message", "reasoning", "content_delta", "tool_call", "tool_result", "file_changed", "plan_updated", "approval_requested", "question_requested", "usage_updated", "context_compacted", "subagent_updated", "error", "provider_raw")
    OCCURRED_AT_FIELD_NUMBER: _ClassVar[int]
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    PARENT_ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REASONING_FIELD_NUMBER: _ClassVar[int]
    CONTENT_DELTA_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALL_FIELD_NUMBER: _ClassVar[int]
    TOOL_RESULT_FIELD_NUMBER: _ClassVar[int]
    FILE_CHANGED_FIELD_NUMBER: _ClassVar[int]
    PLAN_UPDATED_FIELD_NUMBER: _ClassVar[int]
    APPROVAL_REQUESTED_FIELD_NUMBER: _ClassVar[int]
    QUESTION_REQUESTED_FIELD_NUMBER: _ClassVar[int]
    USAGE_UPDATED_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_COMPACTED_FIELD_NUMBER: _ClassVar[int]
    SUBAGENT_UPDATED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_RAW_FIELD_NUMBER: _ClassVar[int]
    occurred_at: _timestamp_pb2.Timestamp
    item_id: str
    parent_item_id: str
    message: _event_pb2.Message
    reasoning: _event_pb2.Reasoning
    content_delta: _event_pb2.ContentDelta
    tool_call: _event_pb2.ToolCall
    tool_result: _event_pb2.ToolResult
    file_changed: _event_pb2.FileChanged
    plan_updated: _event_pb2.PlanUpdated
    approval_requested: _event_pb2.ApprovalRequested
    question_requested: _event_pb2.QuestionRequested
    usage_updated: _event_pb2.UsageUpdated
    context_compacted: _event_pb2.ContextCompacted
    subagent_updated: _event_pb2.SubagentUpdated
    error: _event_pb2.Error
    provider_raw: _event_pb2.ProviderRaw
    def __init__(self, occurred_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., item_id: _Optional[str] = ..., parent_item_id: _Optional[str] = ..., message: _Optional[_Union[_event_pb2.Message, _Mapping]] = ..., reasoning: _Optional[_Union[_event_pb2.Reasoning, _Mapping]] = ..., content_delta: _Optional[_Union[_event_pb2.ContentDelta, _Mapping]] = ..., tool_call: _Optional[_Union[_event_pb2.ToolCall, _Mapping]] = ..., tool_result: _Optional[_Union[_event_pb2.ToolResult, _Mapping]] = ..., file_changed: _Optional[_Union[_event_pb2.FileChanged, _Mapping]] = ..., plan_updated: _Optional[_Union[_event_pb2.PlanUpdated, _Mapping]] = ..., approval_requested: _Optional[_Union[_event_pb2.ApprovalRequested, _Mapping]] = ..., question_requested: _Optional[_Union[_event_pb2.QuestionRequested, _Mapping]] = ..., usage_updated: _Optional[_Union[_event_pb2.UsageUpdated, _Mapping]] = ..., context_compacted: _Optional[_Union[_event_pb2.ContextCompacted, _Mapping]] = ..., subagent_updated: _Optional[_Union[_event_pb2.SubagentUpdated, _Mapping]] = ..., error: _Optional[_Union[_event_pb2.Error, _Mapping]] = ..., provider_raw: _Optional[_Union[_event_pb2.ProviderRaw, _Mapping]] = ...) -> None: ...
