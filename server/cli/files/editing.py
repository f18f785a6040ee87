"""`treadle files put`, `mv`, `rm` and `mkdir`."""

from __future__ import annotations

import argparse
import asyncio
import sys

from server.cli.aside import aside
from server.cli.connection import Target, connected, explain
from server.cli.failure import CommandFailed, ExitCode
from server.cli.files.entries import tell
from server.cli.program import typed
from server.cli.summary import SHORT
from treadle.file.v1 import file_service_pb2 as pb
from treadle_client import FileConflict
from treadle_client import files as edits

_MOST = 16 * 2**20 - 2**16
"""A request of the API has at most 16 MiB."""


def put(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    return _edit(options, edits.write(options.path, _standard_input(), expected_etag=options.etag))


def mv(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    return _edit(options, edits.move(options.path, options.to, expected_etag=options.etag))


def rm(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    return _edit(options, edits.delete(options.path, expected_etag=options.etag, recursive=options.recursive))


def mkdir(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    return _edit(options, edits.make_directory(options.path))


def _standard_input() -> bytes:
    """All of it; read here, where Ctrl-C ends the command at once."""
    if sys.stdin.isatty():
        aside("type the content, and end it with Ctrl-D on a line of its own; for a file of yours: `< FILE`")
    content = sys.stdin.buffer.read(_MOST + 1)
    if len(content) > _MOST:
        raise CommandFailed("a file has at most 16 MiB here; larger ones come in by a push to the session's branch", ExitCode.REFUSED)
    return content


def _edit(options: argparse.Namespace, edit: pb.FileEdit) -> ExitCode:
    asyncio.run(_run(options, edit))
    return ExitCode.DONE


async def _run(options: argparse.Namespace, edit: pb.FileEdit) -> None:
    async with connected(options) as connection:
        try:
            done = await connection.treadle.files(options.session).edit(edit)
        except FileConflict as error:
            raise _conflict(error, connection.target, wanted=options.etag) from None
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
