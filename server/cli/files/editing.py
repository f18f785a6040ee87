"""`treadle files put`, `mv`, `rm` and `mkdir`."""

from __future__ import annotations

import argparse
import asyncio
import os
import select
import shutil
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import IO

from server.cli.aside import aside
from server.cli.connection import Target, connected, explain
from server.cli.failure import CommandFailed, ExitCode
from server.cli.files.entries import tell
from server.cli.program import typed
from server.cli.summary import SHORT
from treadle.file.v1 import file_service_pb2 as pb
from treadle_client import FileConflict, NotAFile
from treadle_client import files as edits
from treadle_client.files import AsyncFiles

_AT_ONCE = 8 * 2**20
"""What is larger is uploaded piece by piece."""

_Change = Callable[[AsyncFiles], Awaitable[pb.EditFilesResponse]]


def put(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    # Read here and in no thread, so that Ctrl-C ends the command at once.
    content = _typed() if sys.stdin.isatty() else sys.stdin.buffer.read(_AT_ONCE + 1)
    if len(content) <= _AT_ONCE:
        return _edit(options, edits.write(options.path, content, expected_etag=options.etag))
    with ExitStack() as stack:
        file = _whole(content, stack)

        async def upload(files: AsyncFiles) -> pb.EditFilesResponse:
            done = await files.upload(options.path, file, expected_etag=options.etag)
            return pb.EditFilesResponse(files=[done.file], commit=done.commit, snapshot=done.snapshot)

        asyncio.run(_run(options, upload))
    return ExitCode.DONE


def mv(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    return _edit(options, edits.move(options.path, options.to, expected_etag=options.etag))


def rm(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    return _edit(options, edits.delete(options.path, expected_etag=options.etag, recursive=options.recursive))


def mkdir(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    return _edit(options, edits.make_directory(options.path))


def _typed() -> bytes:
    """At a terminal, to the Ctrl-D. A Ctrl-C just before a `read` would not end it: it wakes a `select`, whenever it comes."""
    aside("type the content, and end it with Ctrl-D on a line of its own; for a file of yours: `< FILE`")
    content = b""
    woken, waking = os.pipe()
    os.set_blocking(waking, False)
    before = signal.set_wakeup_fd(waking)
    try:
        while len(content) <= _AT_ONCE:
            ready, _, _ = select.select([sys.stdin, woken], [], [])
            if sys.stdin in ready:
                line = os.read(sys.stdin.fileno(), 65536)
                if not line:
                    break
                content += line
    finally:
        signal.set_wakeup_fd(before)
        os.close(woken)
        os.close(waking)
    return content


def _whole(begun: bytes, stack: ExitStack) -> IO[bytes]:
    """Standard input, from its beginning: itself, or a copy when it cannot go back. How large it is has to be known before."""
    given = sys.stdin.buffer
    if given.seekable():
        given.seek(-len(begun), 1)
        return given
    copy = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack is its context
    copy.write(begun)
    shutil.copyfileobj(given, copy)
    copy.seek(0)
    return copy


def _edit(options: argparse.Namespace, edit: pb.FileEdit) -> ExitCode:
    asyncio.run(_run(options, lambda files: files.edit(edit)))
    return ExitCode.DONE


async def _run(options: argparse.Namespace, change: _Change) -> None:
    async with connected(options) as connection:
        try:
            done = await change(connection.treadle.files(options.session))
        except FileConflict as error:
            raise _conflict(error, connection.target, wanted=options.etag) from None
        except NotAFile as error:
            if getattr(options, "recursive", True) or error.metadata.get("kind") != "DIRECTORY":
                raise
            told = f"{error.message}; -r removes it with all that it holds\n  reason {error.reason}"
            raise CommandFailed(told, ExitCode.REFUSED) from None
        tell(done, f"{done.commit[:SHORT] or 'in the running turn'}  {done.files[0].file.path}", as_json=options.json)
        if not options.json:
            aside(_what_now(done, typed(f"push {options.session}", connection.target.data_dir)))


def _what_now(done: pb.EditFilesResponse, push: str) -> str:
    if not done.files[0].changed:
        return "it was so already; nothing is committed" if done.commit else "it was so already"
    if not done.commit:
        return "the agent sees it at once; the turn commits it"
    return f"committed; it is pushed with the next turn, or now by\n  {push}"


def _conflict(error: FileConflict, target: Target, *, wanted: str) -> CommandFailed:
    now = error.metadata.get("etag", "")
    if now and not wanted:
        return CommandFailed(
            f"{error.metadata.get('path')!r} is there already, with the etag {now}\n  reason {error.reason}", ExitCode.REFUSED
        )
    failure = explain(error, target)
    return CommandFailed(f"{failure}\n  its etag is {now}" if now else str(failure), failure.exit_code)
