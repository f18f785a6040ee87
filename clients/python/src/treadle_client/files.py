"""A session's files: `treadle.files(session_id)`, of both clients. `at` says when, as in treadle/file/v1/file_service.proto."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterable, Iterator
from contextlib import aclosing, closing
from typing import IO, TYPE_CHECKING, Any
from uuid import uuid4

import grpc

from treadle.file.v1 import file_service_pb2 as pb
from treadle.file.v1.file_service_pb2_grpc import FileServiceStub
from treadle_client.errors import failure_of

if TYPE_CHECKING:
    from treadle_client.aio_link import AsyncLink
    from treadle_client.link import Link


_PIECE = 1024 * 1024
_UPLOAD_SECONDS = 1800.0


def write(path: str, content: bytes | str, *, expected_etag: str | None = None, executable: bool | None = None) -> pb.FileEdit:
    """Make a file, or replace its content: of the file with this etag, "" for none, None for whatever is there."""
    data = content.encode() if isinstance(content, str) else content
    edit = pb.WriteEdit(path=path, data=data, expected_etag=expected_etag)
    if executable is not None:
        edit.executable = executable
    return pb.FileEdit(write=edit)


def move(path: str, to: str, *, expected_etag: str | None = None) -> pb.FileEdit:
    """Move a file, a link or a directory to where nothing is."""
    return pb.FileEdit(move=pb.MoveEdit(path=path, to=to, expected_etag=expected_etag))


def delete(path: str, *, expected_etag: str | None = None, recursive: bool = False) -> pb.FileEdit:
    """Remove a file or a link, with `recursive` also a directory."""
    return pb.FileEdit(delete=pb.DeleteEdit(path=path, expected_etag=expected_etag, recursive=recursive))


def make_directory(path: str) -> pb.FileEdit:
    """Make a directory."""
    return pb.FileEdit(make_directory=pb.MakeDirectoryEdit(path=path))


class Files:
    """Errors of all: SessionNotFound, SnapshotNotFound, PathInvalid, FileNotFound, NotAFile, NotADirectory."""

    def __init__(self, link: Link, session_id: str) -> None:
        self._link = link
        self._session_id = session_id

    def list(self, path: str = "", *, at: str = "", recursive: bool = False) -> Iterator[pb.File]:
        """A directory's entries; with `recursive` all files below it. Asked for in pages as they are needed."""
        request = pb.ListFilesRequest(session_id=self._session_id, path=path, at=at, recursive=recursive)
        while True:
            page = self._link.ask(self._link.service(FileServiceStub).ListFiles, request, again=True)
            yield from page.files
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def stat(self, path: str, *, at: str = "") -> pb.File:
        """What a file or a link is: its kind, size and etag."""
        request = pb.ReadFileRequest(session_id=self._session_id, path=path, at=at, length=0)
        with closing(self._parts("ReadFile", request)) as parts:
            file: pb.File = next(parts).file
            return file

    def read(self, path: str, *, at: str = "", offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """A file's bytes, in pieces."""
        request = pb.ReadFileRequest(session_id=self._session_id, path=path, at=at, offset=offset, length=length)
        return self._stream("ReadFile", request)

    def archive(self, path: str = "", *, at: str = "", format: pb.ArchiveFormat = pb.ARCHIVE_FORMAT_TAR_GZ) -> Iterator[bytes]:  # noqa: A002
        """A directory, packed, in pieces."""
        return self._stream("DownloadArchive", pb.DownloadArchiveRequest(session_id=self._session_id, path=path, at=at, format=format))

    def patch(self, base: str = "", head: str = "", *, path: str = "") -> Iterator[bytes]:
        """The difference of two states as one patch, in pieces; below `path` alone if there is one."""
        return self._stream("DownloadPatch", _patch_request(self._session_id, base, head, path))

    def find(self, pattern: str, *, path: str = "", at: str = "", limit: int = 0) -> pb.FindFilesResponse:
        """Files by their names."""
        request = pb.FindFilesRequest(session_id=self._session_id, pattern=pattern, path=path, at=at, limit=limit)
        return self._link.ask(self._link.service(FileServiceStub).FindFiles, request, again=True)

    def search(
        self, pattern: str, *, regex: bool = False, ignore_case: bool = False, path: str = "", at: str = "", limit: int = 0
    ) -> pb.SearchFilesResponse:
        """Lines of text files. Errors: SearchTooSlow, InvalidField."""
        request = _search_request(self._session_id, pattern, regex=regex, ignore_case=ignore_case, path=path, at=at, limit=limit)
        return self._link.ask(self._link.service(FileServiceStub).SearchFiles, request, again=True)

    def diff(self, base: str = "", head: str = "", *, path: str = "") -> pb.DiffFilesResponse:
        """The difference of two states, file by file; below `path` alone if there is one."""
        request = _diff_request(self._session_id, base, head, path)
        return self._link.ask(self._link.service(FileServiceStub).DiffFiles, request, again=True)

    def edit(self, *edits: pb.FileEdit, if_head: str = "", message: str = "") -> pb.EditFilesResponse:
        """All edits together, or none; `write`, `move`, `delete` and `make_directory` make them. When the answer gets lost they are asked
        for again, and done once. Errors: FileConflict, FileExists."""
        request = _edit_request(self._session_id, edits, if_head, message)
        return self._link.ask(self._link.service(FileServiceStub).EditFiles, request, again=True)

    def upload(
        self,
        path: str,
        file: IO[bytes],
        *,
        expected_etag: str | None = None,
        executable: bool | None = None,
        if_head: str = "",
        message: str = "",
    ) -> pb.UploadFileResponse:
        """Make a file, or replace its content, of any size: with what is left of `file`, which is opened as binary and can seek. It is not
        tried again by itself. Errors: FileConflict, FileTooLarge, UploadBroken, TooManyStreams."""
        fields = {"expected_etag": expected_etag, "executable": executable, "if_head": if_head, "message": message}
        start = _start(self._session_id, path, file, **fields)

        def parts() -> Iterator[pb.UploadFileRequest]:
            yield pb.UploadFileRequest(start=start)
            while data := file.read(_PIECE):
                yield pb.UploadFileRequest(data=data)

        method: Any = self._link.service(FileServiceStub).UploadFile
        done: pb.UploadFileResponse = self._link.ask(method, parts(), again=False, seconds=_UPLOAD_SECONDS)
        return done

    def _stream(self, method: str, request: Any) -> Iterator[bytes]:
        return (part.data for part in self._parts(method, request))

    def _parts(self, method: str, request: Any) -> Generator[Any, None, None]:
        call: Any = getattr(self._link.service(FileServiceStub), method)(request, metadata=self._link.target.metadata)
        try:
            yield from call
        except grpc.RpcError as error:
            raise failure_of(error) from error
        finally:
            call.cancel()


class AsyncFiles:
    """Errors of all: SessionNotFound, SnapshotNotFound, PathInvalid, FileNotFound, NotAFile, NotADirectory."""

    def __init__(self, link: AsyncLink, session_id: str) -> None:
        self._link = link
        self._session_id = session_id

    async def list(self, path: str = "", *, at: str = "", recursive: bool = False) -> AsyncIterator[pb.File]:
        """A directory's entries; with `recursive` all files below it. Asked for in pages as they are needed."""
        request = pb.ListFilesRequest(session_id=self._session_id, path=path, at=at, recursive=recursive)
        while True:
            page = await self._link.ask(self._link.service(FileServiceStub).ListFiles, request, again=True)
            for each in page.files:
                yield each
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def stat(self, path: str, *, at: str = "") -> pb.File:
        """What a file or a link is: its kind, size and etag."""
        request = pb.ReadFileRequest(session_id=self._session_id, path=path, at=at, length=0)
        async with aclosing(self._parts("ReadFile", request)) as parts:
            file: pb.File = (await anext(parts)).file
            return file

    def read(self, path: str, *, at: str = "", offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """A file's bytes, in pieces."""
        request = pb.ReadFileRequest(session_id=self._session_id, path=path, at=at, offset=offset, length=length)
        return self._stream("ReadFile", request)

    def archive(self, path: str = "", *, at: str = "", format: pb.ArchiveFormat = pb.ARCHIVE_FORMAT_TAR_GZ) -> AsyncIterator[bytes]:  # noqa: A002
        """A directory, packed, in pieces."""
        return self._stream("DownloadArchive", pb.DownloadArchiveRequest(session_id=self._session_id, path=path, at=at, format=format))

    def patch(self, base: str = "", head: str = "", *, path: str = "") -> AsyncIterator[bytes]:
        """The difference of two states as one patch, in pieces; below `path` alone if there is one."""
        return self._stream("DownloadPatch", _patch_request(self._session_id, base, head, path))

    async def find(self, pattern: str, *, path: str = "", at: str = "", limit: int = 0) -> pb.FindFilesResponse:
        """Files by their names."""
        request = pb.FindFilesRequest(session_id=self._session_id, pattern=pattern, path=path, at=at, limit=limit)
        return await self._link.ask(self._link.service(FileServiceStub).FindFiles, request, again=True)

    async def search(
        self, pattern: str, *, regex: bool = False, ignore_case: bool = False, path: str = "", at: str = "", limit: int = 0
    ) -> pb.SearchFilesResponse:
        """Lines of text files. Errors: SearchTooSlow, InvalidField."""
        request = _search_request(self._session_id, pattern, regex=regex, ignore_case=ignore_case, path=path, at=at, limit=limit)
        return await self._link.ask(self._link.service(FileServiceStub).SearchFiles, request, again=True)

    async def diff(self, base: str = "", head: str = "", *, path: str = "") -> pb.DiffFilesResponse:
        """The difference of two states, file by file; below `path` alone if there is one."""
        request = _diff_request(self._session_id, base, head, path)
        return await self._link.ask(self._link.service(FileServiceStub).DiffFiles, request, again=True)

    async def edit(self, *edits: pb.FileEdit, if_head: str = "", message: str = "") -> pb.EditFilesResponse:
        """All edits together, or none; `write`, `move`, `delete` and `make_directory` make them. When the answer gets lost they are asked
        for again, and done once. Errors: FileConflict, FileExists."""
        request = _edit_request(self._session_id, edits, if_head, message)
        return await self._link.ask(self._link.service(FileServiceStub).EditFiles, request, again=True)

    async def upload(
        self,
        path: str,
        file: IO[bytes],
        *,
        expected_etag: str | None = None,
        executable: bool | None = None,
        if_head: str = "",
        message: str = "",
    ) -> pb.UploadFileResponse:
        """Make a file, or replace its content, of any size: with what is left of `file`, which is opened as binary and can seek. It is not
        tried again by itself. Errors: FileConflict, FileTooLarge, UploadBroken, TooManyStreams."""
        fields = {"expected_etag": expected_etag, "executable": executable, "if_head": if_head, "message": message}
        start = await asyncio.to_thread(_start, self._session_id, path, file, **fields)

        async def parts() -> AsyncIterator[pb.UploadFileRequest]:
            yield pb.UploadFileRequest(start=start)
            while data := await asyncio.to_thread(file.read, _PIECE):
                yield pb.UploadFileRequest(data=data)

        method: Any = self._link.service(FileServiceStub).UploadFile
        done: pb.UploadFileResponse = await self._link.ask(method, parts(), again=False, seconds=_UPLOAD_SECONDS)
        return done

    async def _stream(self, method: str, request: Any) -> AsyncIterator[bytes]:
        async with aclosing(self._parts(method, request)) as parts:
            async for part in parts:
                yield part.data

    async def _parts(self, method: str, request: Any) -> AsyncGenerator[Any, None]:
        call: Any = getattr(self._link.service(FileServiceStub), method)(request, metadata=self._link.target.metadata)
        try:
            async for part in call:
                yield part
        except grpc.aio.AioRpcError as error:
            raise failure_of(error) from error
        finally:
            call.cancel()


def _edit_request(session_id: str, edits: Iterable[pb.FileEdit], if_head: str, message: str) -> pb.EditFilesRequest:
    return pb.EditFilesRequest(session_id=session_id, edits=edits, if_head=if_head, message=message, request_id=str(uuid4()))


def _start(session_id: str, path: str, file: IO[bytes], **fields: Any) -> pb.UploadStart:
    here = file.tell()
    size = file.seek(0, os.SEEK_END) - here
    file.seek(here)
    return pb.UploadStart(session_id=session_id, path=path, size=size, request_id=str(uuid4()), **fields)


def _patch_request(session_id: str, base: str, head: str, path: str) -> pb.DownloadPatchRequest:
    request = pb.DownloadPatchRequest(session_id=session_id, to=head, path=path)
    setattr(request, "from", base)
    return request


def _diff_request(session_id: str, base: str, head: str, path: str) -> pb.DiffFilesRequest:
    request = pb.DiffFilesRequest(session_id=session_id, to=head, path=path)
    setattr(request, "from", base)
    return request


def _search_request(
    session_id: str, pattern: str, *, regex: bool, ignore_case: bool, path: str, at: str, limit: int
) -> pb.SearchFilesRequest:
    return pb.SearchFilesRequest(
        session_id=session_id, pattern=pattern, regex=regex, ignore_case=ignore_case, path=path, at=at, limit=limit
    )
