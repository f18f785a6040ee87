"""`treadle history`, `treadle fork` and `treadle restore`: a session's past, and the ways back into it."""

from __future__ import annotations

import argparse
import asyncio

from google.protobuf.json_format import MessageToJson

from server.cli.clock import local_time
from server.cli.connection import connect, find_target
from server.cli.failure import CommandFailed, ExitCode
from server.cli.program import typed
from server.cli.screen import Screen
from server.data_dir import chosen_data_dir
from treadle.session.v1.session_pb2 import Session
from treadle.session.v1.snapshot_pb2 import Snapshot, SnapshotKind

_PAGE = 200


def run(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    if options.limit < 1:
        raise CommandFailed("--limit is how many to list: 1 or more", ExitCode.REFUSED)
    found = asyncio.run(_snapshots(options))
    if options.json:
        for snapshot in found:
            print(MessageToJson(snapshot, indent=None))
    else:
        _show(found)
    return ExitCode.DONE


def fork(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    made = asyncio.run(_fork(options))
    screen = Screen()
    screen.parts((made.session_id, "bold"), (f"  begins at {made.head_commit[:12]}" if made.head_commit else "  begins anew", "dim"))
    screen.prose("go on with it: " + typed(f'run --session {made.session_id} "request"', chosen_data_dir(options.data_dir)))
    return ExitCode.DONE


def restore(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    restored = asyncio.run(_restore(options))
    screen = Screen()
    screen.prose(f"the session is as it was then, by commit {restored.head_commit[:12]}; what came after is still in its history")
    screen.prose("go on with it: " + typed(f'run --session {restored.session_id} "request"', chosen_data_dir(options.data_dir)))
    return ExitCode.DONE


async def _snapshots(options: argparse.Namespace) -> list[Snapshot]:
    found: list[Snapshot] = []
    async with connect(find_target(options)) as connection:
        async for snapshot in connection.treadle.list_snapshots(options.session, page_size=min(_PAGE, options.limit)):
            found.append(snapshot)
            if len(found) == options.limit:
                break
    return found


async def _fork(options: argparse.Namespace) -> Session:
    async with connect(find_target(options)) as connection:
        return await connection.treadle.fork_session(options.session, at=options.at, title=options.title, branch=options.branch)


async def _restore(options: argparse.Namespace) -> Session:
    async with connect(find_target(options)) as connection:
        return await connection.treadle.restore_session(options.session, options.at)


def _show(found: list[Snapshot]) -> None:
    screen = Screen()
    if not found:
        screen.prose("nothing yet: the session has changed no file")
    for snapshot in found:
        kind = SnapshotKind.Name(snapshot.kind).removeprefix("SNAPSHOT_KIND_").lower()
        made = local_time(snapshot.created_at)
        screen.parts(
            (f"{snapshot.number:>4}", "bold"),
            (f"  {made}  ", "dim"),
            (kind, "green"),
            (f"  {snapshot.commit[:12]}", ""),
            ("" if snapshot.stored else "  not in the object store yet", "yellow"),
            hang=6,
        )
        if message := snapshot.message.partition("\n")[0]:
            screen.prose(message, indent=6)
        if snapshot.turn_id:
            screen.prose(f"turn {snapshot.turn_id}", "dim", indent=6)
