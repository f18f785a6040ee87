"""`treadle files`: a session's files, without a worker. Content goes through standard input and output, as with cat."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator

from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message

from server.cli.connection import connect, find_target
from server.cli.failure import CommandFailed, ExitCode
from treadle.file.v1 import file_service_pb2 as pb
from treadle_client import AsyncFiles
from treadle_client import files as edits

_NEEDED = {"cat": 1, "put": 1, "rm": 1, "mkdir": 1, "mv": 2, "find": 1, "grep": 1}
_MOST = {"mv": 2, "find": 2, "grep": 2, "diff": 2}
_MARKS = {pb.FILE_KIND_DIRECTORY: "/", pb.FILE_KIND_LINK: "@", pb.FILE_KIND_EXECUTABLE: "*", pb.FILE_KIND_SUBMODULE: "/"}


def run(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    needed, most = _NEEDED.get(options.action, 0), _MOST.get(options.action, 1)
    if not needed <= len(options.path) <= most:
        names = f"{needed} to {most} names" if needed != most else "one name" if most == 1 else f"{most} names"
        hint = "; the content comes from standard input: < FILE" if options.action == "put" else ""
        raise CommandFailed(f"`treadle files {options.action}` takes {names} after the session{hint}", ExitCode.REFUSED)
    asyncio.run(_run(options))
    return ExitCode.DONE


async def _run(options: argparse.Namespace) -> None:
    async with connect(find_target(options)) as connection:
        files = connection.treadle.files(options.session)
        first, second = (*options.path, "", "")[:2]
        match options.action:
            case "ls":
                async for file in files.list(first, at=options.at, recursive=options.recursive):
                    _tell(options, file, f"{file.size:>12,}  {file.path}{_MARKS.get(file.kind, '')}")
            case "cat":
                await _out(files.read(first, at=options.at))
            case "get":
                zipped = pb.ARCHIVE_FORMAT_ZIP if options.zip else pb.ARCHIVE_FORMAT_TAR_GZ
                await _out(files.archive(first, at=options.at, format=zipped))
            case "find":
                for file in (await files.find(first, path=second, at=options.at, limit=options.limit)).files:
                    _tell(options, file, file.path)
            case "grep":
                found = await files.search(
                    first, regex=options.regex, ignore_case=options.ignore_case, path=second, at=options.at, limit=options.limit
                )
                for match in found.matches:
                    _tell(options, match, f"{match.path}:{match.line}:{match.text}")
            case "diff":
                await _out(files.patch(first, second))
            case _:
                await _edit(options, files, first, second)


async def _edit(options: argparse.Namespace, files: AsyncFiles, first: str, second: str) -> None:
    match options.action:
        case "put":
            edit = edits.write(first, await asyncio.to_thread(sys.stdin.buffer.read), expected_etag=options.etag)
        case "mv":
            edit = edits.move(first, second, expected_etag=options.etag)
        case "rm":
            edit = edits.delete(first, expected_etag=options.etag, recursive=options.recursive)
        case _:
            edit = edits.make_directory(first)
    done = await files.edit(edit)
    _tell(options, done, f"{done.commit[:12] or 'in the running turn'}  {done.files[0].file.path}")


async def _out(chunks: AsyncIterator[bytes]) -> None:
    async for chunk in chunks:
        sys.stdout.buffer.write(chunk)
    sys.stdout.flush()


def _tell(options: argparse.Namespace, message: Message, line: str) -> None:
    # Names and lines are the agent's: no control characters of theirs reach a terminal.
    shown = "".join(each if each.isprintable() or each == "\t" else "?" for each in line)
    print(MessageToJson(message, indent=None) if options.json else shown)
