from google.api import annotations_pb2 as _annotations_pb2
from google.api import httpbody_pb2 as _httpbody_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FileKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FILE_KIND_UNSPECIFIED: _ClassVar[FileKind]
    FILE_KIND_FILE: _ClassVar[FileKind]
    FILE_KIND_EXECUTABLE: _ClassVar[FileKind]
    FILE_KIND_LINK: _ClassVar[FileKind]
    FILE_KIND_DIRECTORY: _ClassVar[FileKind]
    FILE_KIND_SUBMODULE: _ClassVar[FileKind]

class ArchiveFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ARCHIVE_FORMAT_UNSPECIFIED: _ClassVar[ArchiveFormat]
    ARCHIVE_FORMAT_TAR_GZ: _ClassVar[ArchiveFormat]
    ARCHIVE_FORMAT_ZIP: _ClassVar[ArchiveFormat]
FILE_KIND_UNSPECIFIED: FileKind
FILE_KIND_FILE: FileKind
FILE_KIND_EXECUTABLE: FileKind
FILE_KIND_LINK: FileKind
FILE_KIND_DIRECTORY: FileKind
FILE_KIND_SUBMODULE: FileKind
ARCHIVE_FORMAT_UNSPECIFIED: ArchiveFormat
ARCHIVE_FORMAT_TAR_GZ: ArchiveFormat
ARCHIVE_FORMAT_ZIP: ArchiveFormat

class File(_message.Message):
    __slots__ = ("path", "kind", "size", "etag")
    PATH_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    path: str
    kind: FileKind
    size: int
    etag: str
    def __init__(self, path: _Optional[str] = ..., kind: _Optional[_Union[FileKind, str]] = ..., size: _Optional[int] = ..., etag: _Optional[str] = ...) -> None: ...

class ListFilesRequest(_message.Message):
    __slots__ = ("session_id", "path", "at", "recursive", "page_size", "page_token")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    RECURSIVE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    path: str
    at: str
    recursive: bool
    page_size: int
    page_token: str
    def __init__(self, session_id: _Optional[str] = ..., path: _Optional[str] = ..., at: _Optional[str] = ..., recursive: bool = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListFilesResponse(_message.Message):
    __slots__ = ("files", "next_page_token", "commit")
    FILES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    files: _containers.RepeatedCompositeFieldContainer[File]
    next_page_token: str
    commit: str
    def __init__(self, files: _Optional[_Iterable[_Union[File, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., commit: _Optional[str] = ...) -> None: ...

class ReadFileRequest(_message.Message):
    __slots__ = ("session_id", "path", "at", "offset", "length")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    path: str
    at: str
    offset: int
    length: int
    def __init__(self, session_id: _Optional[str] = ..., path: _Optional[str] = ..., at: _Optional[str] = ..., offset: _Optional[int] = ..., length: _Optional[int] = ...) -> None: ...

class ReadFileResponse(_message.Message):
    __slots__ = ("file", "data")
    FILE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    file: File
    data: bytes
    def __init__(self, file: _Optional[_Union[File, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class DownloadFileRequest(_message.Message):
    __slots__ = ("session_id", "path", "at", "offset", "length")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    path: str
    at: str
    offset: int
    length: int
    def __init__(self, session_id: _Optional[str] = ..., path: _Optional[str] = ..., at: _Optional[str] = ..., offset: _Optional[int] = ..., length: _Optional[int] = ...) -> None: ...

class DownloadArchiveRequest(_message.Message):
    __slots__ = ("session_id", "path", "at", "format")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    path: str
    at: str
    format: ArchiveFormat
    def __init__(self, session_id: _Optional[str] = ..., path: _Optional[str] = ..., at: _Optional[str] = ..., format: _Optional[_Union[ArchiveFormat, str]] = ...) -> None: ...

class FindFilesRequest(_message.Message):
    __slots__ = ("session_id", "pattern", "path", "at", "limit")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    PATTERN_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    pattern: str
    path: str
    at: str
    limit: int
    def __init__(self, session_id: _Optional[str] = ..., pattern: _Optional[str] = ..., path: _Optional[str] = ..., at: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class FindFilesResponse(_message.Message):
    __slots__ = ("files", "commit", "truncated", "behind_workspace")
    FILES_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    BEHIND_WORKSPACE_FIELD_NUMBER: _ClassVar[int]
    files: _containers.RepeatedCompositeFieldContainer[File]
    commit: str
    truncated: bool
    behind_workspace: bool
    def __init__(self, files: _Optional[_Iterable[_Union[File, _Mapping]]] = ..., commit: _Optional[str] = ..., truncated: bool = ..., behind_workspace: bool = ...) -> None: ...

class SearchFilesRequest(_message.Message):
    __slots__ = ("session_id", "pattern", "regex", "ignore_case", "path", "at", "limit")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    PATTERN_FIELD_NUMBER: _ClassVar[int]
    REGEX_FIELD_NUMBER: _ClassVar[int]
    IGNORE_CASE_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    pattern: str
    regex: bool
    ignore_case: bool
    path: str
    at: str
    limit: int
    def __init__(self, session_id: _Optional[str] = ..., pattern: _Optional[str] = ..., regex: bool = ..., ignore_case: bool = ..., path: _Optional[str] = ..., at: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class Match(_message.Message):
    __slots__ = ("path", "line", "text")
    PATH_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    path: str
    line: int
    text: str
    def __init__(self, path: _Optional[str] = ..., line: _Optional[int] = ..., text: _Optional[str] = ...) -> None: ...

class SearchFilesResponse(_message.Message):
    __slots__ = ("matches", "commit", "truncated", "behind_workspace")
    MATCHES_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    BEHIND_WORKSPACE_FIELD_NUMBER: _ClassVar[int]
    matches: _containers.RepeatedCompositeFieldContainer[Match]
    commit: str
    truncated: bool
    behind_workspace: bool
    def __init__(self, matches: _Optional[_Iterable[_Union[Match, _Mapping]]] = ..., commit: _Optional[str] = ..., truncated: bool = ..., behind_workspace: bool = ...) -> None: ...

class DiffFilesRequest(_message.Message):
    __slots__ = ("session_id", "to", "path")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    FROM_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    to: str
    path: str
    def __init__(self, session_id: _Optional[str] = ..., to: _Optional[str] = ..., path: _Optional[str] = ..., **kwargs) -> None: ...

class FileDiff(_message.Message):
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
    operation: str
    binary: bool
    additions: int
    deletions: int
    patch: str
    patch_truncated: bool
    def __init__(self, path: _Optional[str] = ..., old_path: _Optional[str] = ..., operation: _Optional[str] = ..., binary: bool = ..., additions: _Optional[int] = ..., deletions: _Optional[int] = ..., patch: _Optional[str] = ..., patch_truncated: bool = ...) -> None: ...

class DiffFilesResponse(_message.Message):
    __slots__ = ("files", "files_changed", "additions", "deletions", "truncated", "from_commit", "to_commit", "behind_workspace")
    FILES_FIELD_NUMBER: _ClassVar[int]
    FILES_CHANGED_FIELD_NUMBER: _ClassVar[int]
    ADDITIONS_FIELD_NUMBER: _ClassVar[int]
    DELETIONS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    FROM_COMMIT_FIELD_NUMBER: _ClassVar[int]
    TO_COMMIT_FIELD_NUMBER: _ClassVar[int]
    BEHIND_WORKSPACE_FIELD_NUMBER: _ClassVar[int]
    files: _containers.RepeatedCompositeFieldContainer[FileDiff]
    files_changed: int
    additions: int
    deletions: int
    truncated: bool
    from_commit: str
    to_commit: str
    behind_workspace: bool
    def __init__(self, files: _Optional[_Iterable[_Union[FileDiff, _Mapping]]] = ..., files_changed: _Optional[int] = ..., additions: _Optional[int] = ..., deletions: _Optional[int] = ..., truncated: bool = ..., from_commit: _Optional[str] = ..., to_commit: _Optional[str] = ..., behind_workspace: bool = ...) -> None: ...

class DownloadPatchRequest(_message.Message):
    __slots__ = ("session_id", "to", "path")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    FROM_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    to: str
    path: str
    def __init__(self, session_id: _Optional[str] = ..., to: _Optional[str] = ..., path: _Optional[str] = ..., **kwargs) -> None: ...

class WriteEdit(_message.Message):
    __slots__ = ("path", "data", "text", "expected_etag", "executable")
    PATH_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_ETAG_FIELD_NUMBER: _ClassVar[int]
    EXECUTABLE_FIELD_NUMBER: _ClassVar[int]
    path: str
    data: bytes
    text: str
    expected_etag: str
    executable: bool
    def __init__(self, path: _Optional[str] = ..., data: _Optional[bytes] = ..., text: _Optional[str] = ..., expected_etag: _Optional[str] = ..., executable: bool = ...) -> None: ...

class MoveEdit(_message.Message):
    __slots__ = ("path", "to", "expected_etag")
    PATH_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_ETAG_FIELD_NUMBER: _ClassVar[int]
    path: str
    to: str
    expected_etag: str
    def __init__(self, path: _Optional[str] = ..., to: _Optional[str] = ..., expected_etag: _Optional[str] = ...) -> None: ...

class DeleteEdit(_message.Message):
    __slots__ = ("path", "expected_etag", "recursive")
    PATH_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_ETAG_FIELD_NUMBER: _ClassVar[int]
    RECURSIVE_FIELD_NUMBER: _ClassVar[int]
    path: str
    expected_etag: str
    recursive: bool
    def __init__(self, path: _Optional[str] = ..., expected_etag: _Optional[str] = ..., recursive: bool = ...) -> None: ...

class MakeDirectoryEdit(_message.Message):
    __slots__ = ("path",)
    PATH_FIELD_NUMBER: _ClassVar[int]
    path: str
    def __init__(self, path: _Optional[str] = ...) -> None: ...

class FileEdit(_message.Message):
    __slots__ = ("write", "move", "delete", "make_directory")
    WRITE_FIELD_NUMBER: _ClassVar[int]
    MOVE_FIELD_NUMBER: _ClassVar[int]
    DELETE_FIELD_NUMBER: _ClassVar[int]
    MAKE_DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    write: WriteEdit
    move: MoveEdit
    delete: DeleteEdit
    make_directory: MakeDirectoryEdit
    def __init__(self, write: _Optional[_Union[WriteEdit, _Mapping]] = ..., move: _Optional[_Union[MoveEdit, _Mapping]] = ..., delete: _Optional[_Union[DeleteEdit, _Mapping]] = ..., make_directory: _Optional[_Union[MakeDirectoryEdit, _Mapping]] = ...) -> None: ...

class EditFilesRequest(_message.Message):
    __slots__ = ("session_id", "edits", "if_head", "message", "request_id")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    EDITS_FIELD_NUMBER: _ClassVar[int]
    IF_HEAD_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    edits: _containers.RepeatedCompositeFieldContainer[FileEdit]
    if_head: str
    message: str
    request_id: str
    def __init__(self, session_id: _Optional[str] = ..., edits: _Optional[_Iterable[_Union[FileEdit, _Mapping]]] = ..., if_head: _Optional[str] = ..., message: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class UploadStart(_message.Message):
    __slots__ = ("session_id", "path", "size", "expected_etag", "executable", "if_head", "message", "request_id")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_ETAG_FIELD_NUMBER: _ClassVar[int]
    EXECUTABLE_FIELD_NUMBER: _ClassVar[int]
    IF_HEAD_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    path: str
    size: int
    expected_etag: str
    executable: bool
    if_head: str
    message: str
    request_id: str
    def __init__(self, session_id: _Optional[str] = ..., path: _Optional[str] = ..., size: _Optional[int] = ..., expected_etag: _Optional[str] = ..., executable: bool = ..., if_head: _Optional[str] = ..., message: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class UploadFileRequest(_message.Message):
    __slots__ = ("start", "data")
    START_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    start: UploadStart
    data: bytes
    def __init__(self, start: _Optional[_Union[UploadStart, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class UploadFileResponse(_message.Message):
    __slots__ = ("file", "commit", "snapshot")
    FILE_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    file: EditedFile
    commit: str
    snapshot: int
    def __init__(self, file: _Optional[_Union[EditedFile, _Mapping]] = ..., commit: _Optional[str] = ..., snapshot: _Optional[int] = ...) -> None: ...

class EditedFile(_message.Message):
    __slots__ = ("file", "changed")
    FILE_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    file: File
    changed: bool
    def __init__(self, file: _Optional[_Union[File, _Mapping]] = ..., changed: bool = ...) -> None: ...

class EditFilesResponse(_message.Message):
    __slots__ = ("files", "commit", "snapshot")
    FILES_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    files: _containers.RepeatedCompositeFieldContainer[EditedFile]
    commit: str
    snapshot: int
    def __init__(self, files: _Optional[_Iterable[_Union[EditedFile, _Mapping]]] = ..., commit: _Optional[str] = ..., snapshot: _Optional[int] = ...) -> None: ...
