"""The reader's process: the archive on standard input, the answer on standard output. See protocol.py.

What is in a `.git`, and the agents' credentials, are passed over: nothing of them is kept, looked at or written.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import BinaryIO

from server.legacy.layout import METADATA, clone_of, conversation_in, layout_of
from server.legacy.metadata import Metadata
from server.legacy.protocol import Found, Limits, Request
from server.legacy.tar import DIRECTORY, FILE, Archive, Member, Refused, shown
from server.legacy.tree import Tree

_MEMORY_BYTES = 1024 * 1024 * 1024
_DESCRIPTORS = 64
_CONVERSATIONS = (b".claude", b"projects")


def main(argument: str) -> None:
    """Read the archive, and answer."""
    request = Request.load(argument)
    _restrain(request.limits)
    try:
        with open(0, "rb") as source:
            if request.into:
                unpack(source, request)
                answer = "{}"
            else:
                answer = look(source, request.limits).dump()
    except Refused as refused:
        answer = json.dumps({"refused": refused.reason, "detail": refused.detail})
    sys.stdout.write(answer)


def look(source: BinaryIO, limits: Limits) -> Found:
    """Read all of an archive, and keep what tells what it is. Errors: Refused."""
    archive, names = Archive(source, limits), _Names(limits)
    said: dict[bytes, bytes] = {}
    conversations: dict[bytes, float] = {}
    clones: set[bytes] = set()
    for member in archive:
        if b".git" in member.path or not member.path:
            # Of several it is known that they are, and no more.
            if len(clones) < 2 and (clone := clone_of(member.path)):
                clones.add(clone)
            continue
        path = names.add(member)
        if member.kind == FILE and path in METADATA and member.size <= limits.metadata_bytes:
            said[path] = b"".join(archive.content(member))
        elif member.kind == FILE and member.path[:2] == _CONVERSATIONS and member.size <= limits.transcript_bytes:
            conversations[path] = member.mtime
    text = next((said[path].decode("utf-8", "replace") for path in METADATA if path in said), "")
    metadata = _metadata(text)
    layout = layout_of(names.kinds, metadata, clones)
    return Found(
        layout=layout.name,
        repository=os.fsdecode(layout.repository),
        partial=layout.partial,
        metadata=text if metadata else "",
        transcript=os.fsdecode(conversation_in(conversations, metadata)),
        members=archive.members,
        unpacked_bytes=archive.unpacked_bytes,
    )


def _metadata(text: str) -> Metadata | None:
    try:
        return Metadata.parse(text)
    except ValueError:
        return None


class _Names:
    """Every path once, and nothing below a file or a link."""

    def __init__(self, limits: Limits) -> None:
        self.kinds: dict[bytes, str] = {}
        self._limits = limits
        self._bytes = 0

    def add(self, member: Member) -> bytes:
        """The whole path. Errors: Refused."""
        path = b"/".join(member.path)
        self._parents(path)
        held = self.kinds.get(path)
        if held is not None and not held == member.kind == DIRECTORY:
            raise Refused("DUPLICATE", f"the path {shown(path)} is there twice")
        self._keep(path, member.kind, len(member.target))
        return path

    def _parents(self, path: bytes) -> None:
        parent = path.rpartition(b"/")[0]
        if not parent or self.kinds.get(parent) == DIRECTORY:
            return
        if parent in self.kinds:
            raise Refused("DUPLICATE", f"the path {shown(path)} leads through a file or a link")
        self._parents(parent)
        self._keep(parent, DIRECTORY, 0)

    def _keep(self, path: bytes, kind: str, more: int) -> None:
        self._bytes += len(path) + more
        if self._bytes > self._limits.names_bytes or len(self.kinds) >= self._limits.members:
            raise Refused("TOO_MANY", f"its names take more than {self._limits.names_bytes:,} bytes")
        self.kinds[path] = kind


def unpack(source: BinaryIO, request: Request) -> None:
    """Of an archive that was looked at. What it lied about then stumbles over the file system. Errors: Refused."""
    root = os.open(request.into, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    tree = Tree(root)
    wanted = tuple(os.fsencode(request.repository).split(b"/")) if request.repository else None
    transcript = os.fsencode(request.transcript)
    archive = Archive(source, request.limits)
    try:
        tree.directory((b"tree",))
        for member in archive:
            if b".git" in member.path or not member.path:
                continue
            if wanted and len(member.path) > len(wanted) and member.path[: len(wanted)] == wanted:
                _make(tree, archive, member, (b"tree", *member.path[len(wanted) :]))
            elif transcript and member.kind == FILE and b"/".join(member.path) == transcript:
                tree.file((b"transcript",), archive.content(member))
        tree.finish()
    except (FileExistsError, NotADirectoryError) as error:
        raise Refused("DUPLICATE", str(error)) from None
    finally:
        tree.close()
        os.close(root)


def _make(tree: Tree, archive: Archive, member: Member, path: tuple[bytes, ...]) -> None:
    if member.kind == DIRECTORY:
        tree.directory(path)
    elif member.kind == FILE:
        tree.file(path, archive.content(member), executable=member.executable)
    else:
        tree.link(path, member.target)


def _restrain(limits: Limits) -> None:
    """Before the first hostile byte: what a mistake in this process can cost."""
    for what, most in (
        (resource.RLIMIT_CPU, limits.cpu_seconds),
        (resource.RLIMIT_AS, _MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, limits.unpacked_bytes),
        (resource.RLIMIT_NOFILE, _DESCRIPTORS),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(what, (most, most))
