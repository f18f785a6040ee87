import datetime

from google.api import annotations_pb2 as _annotations_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EntryKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENTRY_KIND_UNSPECIFIED: _ClassVar[EntryKind]
    ENTRY_KIND_FILE: _ClassVar[EntryKind]
    ENTRY_KIND_DIRECTORY: _ClassVar[EntryKind]
    ENTRY_KIND_SYMLINK: _ClassVar[EntryKind]
    ENTRY_KIND_SUBMODULE: _ClassVar[EntryKind]

class PullRequestState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PULL_REQUEST_STATE_UNSPECIFIED: _ClassVar[PullRequestState]
    PULL_REQUEST_STATE_OPEN: _ClassVar[PullRequestState]
    PULL_REQUEST_STATE_CLOSED: _ClassVar[PullRequestState]
    PULL_REQUEST_STATE_MERGED: _ClassVar[PullRequestState]

class MergeMethod(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MERGE_METHOD_UNSPECIFIED: _ClassVar[MergeMethod]
    MERGE_METHOD_MERGE: _ClassVar[MergeMethod]
    MERGE_METHOD_SQUASH: _ClassVar[MergeMethod]
    MERGE_METHOD_REBASE: _ClassVar[MergeMethod]
ENTRY_KIND_UNSPECIFIED: EntryKind
ENTRY_KIND_FILE: EntryKind
ENTRY_KIND_DIRECTORY: EntryKind
ENTRY_KIND_SYMLINK: EntryKind
ENTRY_KIND_SUBMODULE: EntryKind
PULL_REQUEST_STATE_UNSPECIFIED: PullRequestState
PULL_REQUEST_STATE_OPEN: PullRequestState
PULL_REQUEST_STATE_CLOSED: PullRequestState
PULL_REQUEST_STATE_MERGED: PullRequestState
MERGE_METHOD_UNSPECIFIED: MergeMethod
MERGE_METHOD_MERGE: MergeMethod
MERGE_METHOD_SQUASH: MergeMethod
MERGE_METHOD_REBASE: MergeMethod

class Repository(_message.Message):
    __slots__ = ("name", "url", "web_url", "description", "default_branch", "private", "may_push", "updated_at")
    NAME_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    WEB_URL_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_BRANCH_FIELD_NUMBER: _ClassVar[int]
    PRIVATE_FIELD_NUMBER: _ClassVar[int]
    MAY_PUSH_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_FIELD_NUMBER: _ClassVar[int]
    name: str
    url: str
    web_url: str
    description: str
    default_branch: str
    private: bool
    may_push: bool
    updated_at: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., url: _Optional[str] = ..., web_url: _Optional[str] = ..., description: _Optional[str] = ..., default_branch: _Optional[str] = ..., private: bool = ..., may_push: bool = ..., updated_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Branch(_message.Message):
    __slots__ = ("name", "commit", "protected")
    NAME_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    PROTECTED_FIELD_NUMBER: _ClassVar[int]
    name: str
    commit: str
    protected: bool
    def __init__(self, name: _Optional[str] = ..., commit: _Optional[str] = ..., protected: bool = ...) -> None: ...

class Entry(_message.Message):
    __slots__ = ("path", "kind", "sha", "size")
    PATH_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SHA_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    path: str
    kind: EntryKind
    sha: str
    size: int
    def __init__(self, path: _Optional[str] = ..., kind: _Optional[_Union[EntryKind, str]] = ..., sha: _Optional[str] = ..., size: _Optional[int] = ...) -> None: ...

class PullRequest(_message.Message):
    __slots__ = ("number", "title", "body", "state", "url", "head", "base", "head_commit", "draft", "mergeable", "created_at", "updated_at")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    HEAD_COMMIT_FIELD_NUMBER: _ClassVar[int]
    DRAFT_FIELD_NUMBER: _ClassVar[int]
    MERGEABLE_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_FIELD_NUMBER: _ClassVar[int]
    number: int
    title: str
    body: str
    state: PullRequestState
    url: str
    head: str
    base: str
    head_commit: str
    draft: bool
    mergeable: bool
    created_at: _timestamp_pb2.Timestamp
    updated_at: _timestamp_pb2.Timestamp
    def __init__(self, number: _Optional[int] = ..., title: _Optional[str] = ..., body: _Optional[str] = ..., state: _Optional[_Union[PullRequestState, str]] = ..., url: _Optional[str] = ..., head: _Optional[str] = ..., base: _Optional[str] = ..., head_commit: _Optional[str] = ..., draft: bool = ..., mergeable: bool = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., updated_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ListRepositoriesRequest(_message.Message):
    __slots__ = ("host", "page_size", "page_token")
    HOST_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    host: str
    page_size: int
    page_token: str
    def __init__(self, host: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListRepositoriesResponse(_message.Message):
    __slots__ = ("repositories", "next_page_token")
    REPOSITORIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    repositories: _containers.RepeatedCompositeFieldContainer[Repository]
    next_page_token: str
    def __init__(self, repositories: _Optional[_Iterable[_Union[Repository, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ListBranchesRequest(_message.Message):
    __slots__ = ("repository_url", "session_id", "page_size", "page_token")
    REPOSITORY_URL_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    repository_url: str
    session_id: str
    page_size: int
    page_token: str
    def __init__(self, repository_url: _Optional[str] = ..., session_id: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListBranchesResponse(_message.Message):
    __slots__ = ("branches", "next_page_token")
    BRANCHES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    branches: _containers.RepeatedCompositeFieldContainer[Branch]
    next_page_token: str
    def __init__(self, branches: _Optional[_Iterable[_Union[Branch, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class CreateBranchRequest(_message.Message):
    __slots__ = ("repository_url", "session_id", "branch", "base")
    REPOSITORY_URL_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    BRANCH_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    repository_url: str
    session_id: str
    branch: str
    base: str
    def __init__(self, repository_url: _Optional[str] = ..., session_id: _Optional[str] = ..., branch: _Optional[str] = ..., base: _Optional[str] = ...) -> None: ...

class CreateBranchResponse(_message.Message):
    __slots__ = ("branch",)
    BRANCH_FIELD_NUMBER: _ClassVar[int]
    branch: Branch
    def __init__(self, branch: _Optional[_Union[Branch, _Mapping]] = ...) -> None: ...

class DeleteBranchRequest(_message.Message):
    __slots__ = ("repository_url", "session_id", "branch")
    REPOSITORY_URL_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    BRANCH_FIELD_NUMBER: _ClassVar[int]
    repository_url: str
    session_id: str
    branch: str
    def __init__(self, repository_url: _Optional[str] = ..., session_id: _Optional[str] = ..., branch: _Optional[str] = ...) -> None: ...

class DeleteBranchResponse(_message.Message):
    __slots__ = ("deleted",)
    DELETED_FIELD_NUMBER: _ClassVar[int]
    deleted: bool
    def __init__(self, deleted: bool = ...) -> None: ...

class GetContentsRequest(_message.Message):
    __slots__ = ("repository_url", "session_id", "path", "ref")
    REPOSITORY_URL_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    REF_FIELD_NUMBER: _ClassVar[int]
    repository_url: str
    session_id: str
    path: str
    ref: str
    def __init__(self, repository_url: _Optional[str] = ..., session_id: _Optional[str] = ..., path: _Optional[str] = ..., ref: _Optional[str] = ...) -> None: ...

class GetContentsResponse(_message.Message):
    __slots__ = ("entry", "data", "entries")
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entry: Entry
    data: bytes
    entries: _containers.RepeatedCompositeFieldContainer[Entry]
    def __init__(self, entry: _Optional[_Union[Entry, _Mapping]] = ..., data: _Optional[bytes] = ..., entries: _Optional[_Iterable[_Union[Entry, _Mapping]]] = ...) -> None: ...

class GetTreeRequest(_message.Message):
    __slots__ = ("repository_url", "session_id", "ref")
    REPOSITORY_URL_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    REF_FIELD_NUMBER: _ClassVar[int]
    repository_url: str
    session_id: str
    ref: str
    def __init__(self, repository_url: _Optional[str] = ..., session_id: _Optional[str] = ..., ref: _Optional[str] = ...) -> None: ...

class GetTreeResponse(_message.Message):
    __slots__ = ("sha", "entries", "truncated")
    SHA_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    sha: str
    entries: _containers.RepeatedCompositeFieldContainer[Entry]
    truncated: bool
    def __init__(self, sha: _Optional[str] = ..., entries: _Optional[_Iterable[_Union[Entry, _Mapping]]] = ..., truncated: bool = ...) -> None: ...

class PutContentsRequest(_message.Message):
    __slots__ = ("repository_url", "session_id", "path", "branch", "message", "sha", "data")
    REPOSITORY_URL_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    BRANCH_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SHA_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    repository_url: str
    session_id: str
    path: str
    branch: str
    message: str
    sha: str
    data: bytes
    def __init__(self, repository_url: _Optional[str] = ..., session_id: _Optional[str] = ..., path: _Optional[str] = ..., branch: _Optional[str] = ..., message: _Optional[str] = ..., sha: _Optional[str] = ..., data: _Optional[bytes] = ...) -> None: ...

class PutContentsResponse(_message.Message):
    __slots__ = ("commit", "sha")
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    SHA_FIELD_NUMBER: _ClassVar[int]
    commit: str
    sha: str
    def __init__(self, commit: _Optional[str] = ..., sha: _Optional[str] = ...) -> None: ...

class DeleteContentsRequest(_message.Message):
    __slots__ = ("repository_url", "session_id", "path", "branch", "message", "sha")
    REPOSITORY_URL_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    BRANCH_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SHA_FIELD_NUMBER: _ClassVar[int]
    repository_url: str
    session_id: str
    path: str
    branch: str
    message: str
    sha: str
    def __init__(self, repository_url: _Optional[str] = ..., session_id: _Optional[str] = ..., path: _Optional[str] = ..., branch: _Optional[str] = ..., message: _Optional[str] = ..., sha: _Optional[str] = ...) -> None: ...

class DeleteContentsResponse(_message.Message):
    __slots__ = ("commit",)
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    commit: str
    def __init__(self, commit: _Optional[str] = ...) -> None: ...

class ListPullRequestsRequest(_message.Message):
    __slots__ = ("repository_url", "session_id", "head", "base", "state", "page_size", "page_token")
    REPOSITORY_URL_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    repository_url: str
    session_id: str
    head: str
    base: str
    state: PullRequestState
    page_size: int
    page_token: str
    def __init__(self, repository_url: _Optional[str] = ..., session_id: _Optional[str] = ..., head: _Optional[str] = ..., base: _Optional[str] = ..., state: _Optional[_Union[PullRequestState, str]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListPullRequestsResponse(_message.Message):
    __slots__ = ("pull_requests", "next_page_token")
    PULL_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    pull_requests: _containers.RepeatedCompositeFieldContainer[PullRequest]
    next_page_token: str
    def __init__(self, pull_requests: _Optional[_Iterable[_Union[PullRequest, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetPullRequestRequest(_message.Message):
    __slots__ = ("repository_url", "session_id", "number")
    REPOSITORY_URL_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    repository_url: str
    session_id: str
    number: int
    def __init__(self, repository_url: _Optional[str] = ..., session_id: _Optional[str] = ..., number: _Optional[int] = ...) -> None: ...

class GetPullRequestResponse(_message.Message):
    __slots__ = ("pull_request",)
    PULL_REQUEST_FIELD_NUMBER: _ClassVar[int]
    pull_request: PullRequest
    def __init__(self, pull_request: _Optional[_Union[PullRequest, _Mapping]] = ...) -> None: ...

class CreatePullRequestRequest(_message.Message):
    __slots__ = ("repository_url", "session_id", "title", "body", "head", "base", "draft")
    REPOSITORY_URL_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    DRAFT_FIELD_NUMBER: _ClassVar[int]
    repository_url: str
    session_id: str
    title: str
    body: str
    head: str
    base: str
    draft: bool
    def __init__(self, repository_url: _Optional[str] = ..., session_id: _Optional[str] = ..., title: _Optional[str] = ..., body: _Optional[str] = ..., head: _Optional[str] = ..., base: _Optional[str] = ..., draft: bool = ...) -> None: ...

class CreatePullRequestResponse(_message.Message):
    __slots__ = ("pull_request",)
    PULL_REQUEST_FIELD_NUMBER: _ClassVar[int]
    pull_request: PullRequest
    def __init__(self, pull_request: _Optional[_Union[PullRequest, _Mapping]] = ...) -> None: ...

class UpdatePullRequestRequest(_message.Message):
    __slots__ = ("repository_url", "session_id", "number", "title", "body", "base", "state")
    REPOSITORY_URL_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    repository_url: str
    session_id: str
    number: int
    title: str
    body: str
    base: str
    state: PullRequestState
    def __init__(self, repository_url: _Optional[str] = ..., session_id: _Optional[str] = ..., number: _Optional[int] = ..., title: _Optional[str] = ..., body: _Optional[str] = ..., base: _Optional[str] = ..., state: _Optional[_Union[PullRequestState, str]] = ...) -> None: ...

class UpdatePullRequestResponse(_message.Message):
    __slots__ = ("pull_request",)
    PULL_REQUEST_FIELD_NUMBER: _ClassVar[int]
    pull_request: PullRequest
    def __init__(self, pull_request: _Optional[_Union[PullRequest, _Mapping]] = ...) -> None: ...

class MergePullRequestRequest(_message.Message):
    __slots__ = ("repository_url", "session_id", "number", "method", "commit_title", "commit_message", "head_commit")
    REPOSITORY_URL_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    COMMIT_TITLE_FIELD_NUMBER: _ClassVar[int]
    COMMIT_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    HEAD_COMMIT_FIELD_NUMBER: _ClassVar[int]
    repository_url: str
    session_id: str
    number: int
    method: MergeMethod
    commit_title: str
    commit_message: str
    head_commit: str
    def __init__(self, repository_url: _Optional[str] = ..., session_id: _Optional[str] = ..., number: _Optional[int] = ..., method: _Optional[_Union[MergeMethod, str]] = ..., commit_title: _Optional[str] = ..., commit_message: _Optional[str] = ..., head_commit: _Optional[str] = ...) -> None: ...

class MergePullRequestResponse(_message.Message):
    __slots__ = ("commit",)
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    commit: str
    def __init__(self, commit: _Optional[str] = ...) -> None: ...

class MergeBaseRequest(_message.Message):
    __slots__ = ("repository_url", "session_id", "head", "base")
    REPOSITORY_URL_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    repository_url: str
    session_id: str
    head: str
    base: str
    def __init__(self, repository_url: _Optional[str] = ..., session_id: _Optional[str] = ..., head: _Optional[str] = ..., base: _Optional[str] = ...) -> None: ...

class MergeBaseResponse(_message.Message):
    __slots__ = ("commit",)
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    commit: str
    def __init__(self, commit: _Optional[str] = ...) -> None: ...

class GeneratePullRequestContentRequest(_message.Message):
    __slots__ = ("repository_url", "session_id", "head", "base", "request")
    REPOSITORY_URL_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    repository_url: str
    session_id: str
    head: str
    base: str
    request: str
    def __init__(self, repository_url: _Optional[str] = ..., session_id: _Optional[str] = ..., head: _Optional[str] = ..., base: _Optional[str] = ..., request: _Optional[str] = ...) -> None: ...

class GeneratePullRequestContentResponse(_message.Message):
    __slots__ = ("title", "body", "commits", "files_changed", "additions", "deletions")
    TITLE_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    COMMITS_FIELD_NUMBER: _ClassVar[int]
    FILES_CHANGED_FIELD_NUMBER: _ClassVar[int]
    ADDITIONS_FIELD_NUMBER: _ClassVar[int]
    DELETIONS_FIELD_NUMBER: _ClassVar[int]
    title: str
    body: str
    commits: int
    files_changed: int
    additions: int
    deletions: int
    def __init__(self, title: _Optional[str] = ..., body: _Optional[str] = ..., commits: _Optional[int] = ..., files_changed: _Optional[int] = ..., additions: _Optional[int] = ..., deletions: _Optional[int] = ...) -> None: ...

class AutoPullRequestRequest(_message.Message):
    __slots__ = ("repository_url", "session_id", "head", "base", "title", "body", "keep_branch")
    REPOSITORY_URL_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    KEEP_BRANCH_FIELD_NUMBER: _ClassVar[int]
    repository_url: str
    session_id: str
    head: str
    base: str
    title: str
    body: str
    keep_branch: bool
    def __init__(self, repository_url: _Optional[str] = ..., session_id: _Optional[str] = ..., head: _Optional[str] = ..., base: _Optional[str] = ..., title: _Optional[str] = ..., body: _Optional[str] = ..., keep_branch: bool = ...) -> None: ...

class AutoPullRequestResponse(_message.Message):
    __slots__ = ("ready", "base_merged", "checking", "merged", "branch_removed")
    READY_FIELD_NUMBER: _ClassVar[int]
    BASE_MERGED_FIELD_NUMBER: _ClassVar[int]
    CHECKING_FIELD_NUMBER: _ClassVar[int]
    MERGED_FIELD_NUMBER: _ClassVar[int]
    BRANCH_REMOVED_FIELD_NUMBER: _ClassVar[int]
    ready: PullRequestReady
    base_merged: BaseMerged
    checking: Checking
    merged: PullRequestMerged
    branch_removed: BranchRemoved
    def __init__(self, ready: _Optional[_Union[PullRequestReady, _Mapping]] = ..., base_merged: _Optional[_Union[BaseMerged, _Mapping]] = ..., checking: _Optional[_Union[Checking, _Mapping]] = ..., merged: _Optional[_Union[PullRequestMerged, _Mapping]] = ..., branch_removed: _Optional[_Union[BranchRemoved, _Mapping]] = ...) -> None: ...

class PullRequestReady(_message.Message):
    __slots__ = ("pull_request", "created")
    PULL_REQUEST_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    pull_request: PullRequest
    created: bool
    def __init__(self, pull_request: _Optional[_Union[PullRequest, _Mapping]] = ..., created: bool = ...) -> None: ...

class BaseMerged(_message.Message):
    __slots__ = ("commit",)
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    commit: str
    def __init__(self, commit: _Optional[str] = ...) -> None: ...

class Checking(_message.Message):
    __slots__ = ("seconds",)
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    seconds: int
    def __init__(self, seconds: _Optional[int] = ...) -> None: ...

class PullRequestMerged(_message.Message):
    __slots__ = ("commit",)
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    commit: str
    def __init__(self, commit: _Optional[str] = ...) -> None: ...

class BranchRemoved(_message.Message):
    __slots__ = ("deleted", "reason")
    DELETED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    deleted: bool
    reason: str
    def __init__(self, deleted: bool = ..., reason: _Optional[str] = ...) -> None: ...
