"""treadle.file.v1.FileService: gRPC to use cases, nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from server.api.downloads import Downloads
from server.api.edge import Context, Parts
from server.kernel.edits import Edits, Upload
from server.kernel.errors import InvalidField, UploadStalled
from server.kernel.files import Files
from server.kernel.identity import Principal
from server.kernel.ports.repositories import FileDiff
from server.kernel.ports.trees import ArchiveFormat, Change, Delete, Edit, Entry, MakeDirectory, Move, SetMode, Write
from treadle.file.v1 import file_service_pb2 as pb

SERVICE = pb.DESCRIPTOR.services_by_name["FileService"]

UPLOAD_SECONDS = 1800.0
"""An upload that takes longer is given up: its client sends just enough not to be cut off."""

_SUFFIX = {ArchiveFormat.TAR_GZ: "tar.gz", ArchiveFormat.ZIP: "zip"}


class FileService:
    """See the comments of the proto for what each RPC promises."""

    def __init__(self, files: Files, edits: Edits, downloads: Downloads, *, read_seconds: float) -> None:
        """`read_seconds`: how long the next piece of an upload is waited for."""
        self._files = files
        self._edits = edits
        self._downloads = downloads
        self._read_seconds = read_seconds

    async def list_files(self, principal: Principal, request: pb.ListFilesRequest, _: Context) -> pb.ListFilesResponse:
        """Read a page of a directory."""
        listing, commit = await self._files.list(
            principal,
            request.session_id,
            path=request.path,
            at=request.at,
            recursive=request.recursive,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return pb.ListFilesResponse(files=map(_file, listing.entries), next_page_token=listing.next_path, commit=commit)

    async def read_file(self, principal: Principal, request: pb.ReadFileRequest, context: Context) -> None:
        """Stream a file."""
        content = await self._files.read(
            principal, request.session_id, path=request.path, at=request.at, offset=request.offset, length=_length(request)
        )
        first = pb.ReadFileResponse(file=_file(content.entry)).SerializeToString()
        await self._downloads.send(context, content.chunks, _data, first=first)

    async def download_file(self, principal: Principal, request: pb.DownloadFileRequest, context: Context) -> None:
        """Send a file as an attachment."""
        length = _length(request)
        content = await self._files.read(
            principal, request.session_id, path=request.path, at=request.at, offset=request.offset, length=length
        )
        left = max(0, content.entry.size - request.offset)
        size = left if length is None else min(left, length)
        await self._downloads.attach(context, content.chunks, name=request.path.rpartition("/")[2], size=size)

    async def download_archive(self, principal: Principal, request: pb.DownloadArchiveRequest, context: Context) -> None:
        """Send a directory, packed."""
        archive = ArchiveFormat.ZIP if request.format == pb.ARCHIVE_FORMAT_ZIP else ArchiveFormat.TAR_GZ
        chunks, state = await self._files.archive(
            principal, request.session_id, path=request.path, at=request.at, archive=archive
        )  # fmt: skip
        name = request.path.rpartition("/")[2] or state.repository.url.rpartition("/")[2].removesuffix(".git")
        await self._downloads.attach(context, chunks, name=f"{name}-{state.commit[:12]}.{_SUFFIX[archive]}", of=state)

    async def find_files(self, principal: Principal, request: pb.FindFilesRequest, _: Context) -> pb.FindFilesResponse:
        """Find files by name."""
        found = await self._files.find(
            principal, request.session_id, pattern=request.pattern, path=request.path, at=request.at, limit=request.limit
        )
        return pb.FindFilesResponse(
            files=map(_file, found.found), commit=found.commit, truncated=found.truncated, behind_workspace=found.behind_workspace
        )

    async def search_files(self, principal: Principal, request: pb.SearchFilesRequest, _: Context) -> pb.SearchFilesResponse:
        """Find lines."""
        found = await self._files.search(
            principal,
            request.session_id,
            pattern=request.pattern,
            regex=request.regex,
            ignore_case=request.ignore_case,
            path=request.path,
            at=request.at,
            limit=request.limit,
        )
        matches = [pb.Match(path=match.path, line=match.line, text=match.text) for match in found.found]
        return pb.SearchFilesResponse(
            matches=matches, commit=found.commit, truncated=found.truncated, behind_workspace=found.behind_workspace
        )

    async def diff_files(self, principal: Principal, request: pb.DiffFilesRequest, _: Context) -> pb.DiffFilesResponse:
        """Compare two states."""
        compared = await self._files.diff(principal, request.session_id, base=getattr(request, "from"), head=request.to, path=request.path)
        diff = compared.diff
        return pb.DiffFilesResponse(
            files=map(_file_diff, diff.files),
            files_changed=diff.files_changed,
            additions=diff.additions,
            deletions=diff.deletions,
            truncated=diff.truncated,
            from_commit=compared.base,
            to_commit=compared.head,
            behind_workspace=compared.behind_workspace,
        )

    async def download_patch(self, principal: Principal, request: pb.DownloadPatchRequest, context: Context) -> None:
        """Send the difference of two states as one patch."""
        chunks, state = await self._files.patch(
            principal, request.session_id, base=getattr(request, "from"), head=request.to, path=request.path
        )
        await self._downloads.attach(context, chunks, name=f"{state.commit[:12]}.patch", of=state)

    async def edit_files(self, principal: Principal, request: pb.EditFilesRequest, _: Context) -> pb.EditFilesResponse:
        """Change files."""
        edits = [_edit(edit) for edit in request.edits]
        done = await self._edits.edit(
            principal,
            request.session_id,
            edits,
            if_head=request.if_head,
            message=request.message,
            request_id=request.request_id,
        )
        files = [_edited(edit, change) for edit, change in zip(edits, done.changes, strict=True)]
        return pb.EditFilesResponse(files=files, commit=done.commit, snapshot=done.number)

    async def upload_file(self, principal: Principal, request: Parts, context: Context) -> pb.UploadFileResponse:
        """Write a file that comes piece by piece."""
        if request.first.WhichOneof("part") != "start":
            raise InvalidField("start", "is the first message of an upload")
        start = request.first.start
        upload = Upload(
            start.path,
            start.size,
            start.expected_etag if start.HasField("expected_etag") else None,
            start.executable if start.HasField("executable") else None,
            start.if_head,
            start.message,
            start.request_id,
        )
        done = await self._edits.upload(principal, start.session_id, upload, self._pieces(request, context))
        entry = done.changes[0].entry if done.changes[0] else None
        file = pb.EditedFile(file=_file(entry) if entry else pb.File(path=upload.path), changed=entry is not None)
        return pb.UploadFileResponse(file=file, commit=done.commit, snapshot=done.number)

    async def _pieces(self, request: Parts, context: Context) -> AsyncIterator[bytes]:
        # The gateway gives a request half a minute to be whole, unless its answer has begun.
        await context.send_initial_metadata(())
        until = time.monotonic() + UPLOAD_SECONDS
        while True:
            try:
                async with asyncio.timeout(self._read_seconds):
                    part = await request.next()
            except TimeoutError:
                raise UploadStalled from None
            if part is None:
                return
            if part.WhichOneof("part") != "data":
                raise InvalidField("data", "is all that follows the first message of an upload")
            if time.monotonic() > until:
                raise UploadStalled
            yield part.data


def _length(request: pb.ReadFileRequest | pb.DownloadFileRequest) -> int | None:
    return request.length if request.HasField("length") else None


def _data(chunk: bytes) -> bytes:
    return pb.ReadFileResponse(data=chunk).SerializeToString()


def _file(entry: Entry) -> pb.File:
    return pb.File(path=entry.path, kind=f"FILE_KIND_{entry.kind}", size=entry.size, etag=entry.etag)


def _file_diff(file: FileDiff) -> pb.FileDiff:
    return pb.FileDiff(
        path=file.path,
        old_path=file.old_path,
        operation=file.operation,
        binary=file.binary,
        additions=file.additions,
        deletions=file.deletions,
        patch=file.patch,
        patch_truncated=file.patch_truncated,
    )


def _edit(edit: pb.FileEdit) -> Edit:
    """Errors: InvalidField for one that says nothing."""
    kind = edit.WhichOneof("edit")
    if kind == "write":
        return _write(edit.write)
    if kind == "move":
        return Move(edit.move.path, edit.move.to, _etag(edit.move))
    if kind == "delete":
        return Delete(edit.delete.path, _etag(edit.delete), edit.delete.recursive)
    if kind == "make_directory":
        return MakeDirectory(edit.make_directory.path)
    raise InvalidField("edits", "say what to do: write, move, delete or make_directory")


def _write(write: pb.WriteEdit) -> Edit:
    executable = write.executable if write.HasField("executable") else None
    if (kind := write.WhichOneof("content")) is not None:
        return Write(write.path, write.text.encode() if kind == "text" else write.data, _etag(write), executable)
    if executable is None:
        raise InvalidField("edits", f"write {write.path!r}: say its content, data or text, also that of an empty file")
    return SetMode(write.path, executable, _etag(write))


def _etag(edit: pb.WriteEdit | pb.MoveEdit | pb.DeleteEdit) -> str | None:
    return edit.expected_etag if edit.HasField("expected_etag") else None


def _edited(edit: Edit, change: Change | None) -> pb.EditedFile:
    path = edit.to if isinstance(edit, Move) else edit.path
    entry = change.entry if change else None
    return pb.EditedFile(file=_file(entry) if entry else pb.File(path=path), changed=change is not None)
