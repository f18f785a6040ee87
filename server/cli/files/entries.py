"""Files as lines, or as JSON."""

from __future__ import annotations

from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message

from treadle.file.v1 import file_service_pb2 as pb

_MARKS = {pb.FILE_KIND_DIRECTORY: "/", pb.FILE_KIND_LINK: "@", pb.FILE_KIND_EXECUTABLE: "*", pb.FILE_KIND_SUBMODULE: "/"}
_WITHOUT_SIZE = (pb.FILE_KIND_DIRECTORY, pb.FILE_KIND_SUBMODULE)
_ETAG_COLUMNS = 40


def entry(file: pb.File, *, etag: bool) -> str:
    """A line of a listing."""
    size = "-" if file.kind in _WITHOUT_SIZE else f"{file.size:,}"
    before = f"{file.etag or '-':<{_ETAG_COLUMNS}}  " if etag else ""
    return f"{before}{size:>12}  {file.path}{_MARKS.get(file.kind, '')}"


def tell(message: Message, line: str, *, as_json: bool) -> None:
    """Print one of the two."""
    # Names and lines are the agent's: no control characters of theirs reach a terminal.
    shown = "".join(each if each.isprintable() or each == "\t" else "?" for each in line)
    print(MessageToJson(message, indent=None) if as_json else shown)
