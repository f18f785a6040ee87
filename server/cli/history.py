"""`treadle history`, `treadle fork` and `treadle restore`: a session's past, and the ways back into it."""

from __future__ import annotations

import argparse
import asyncio

from google.protobuf.json_format import MessageToJson

from server.cli.clock import local_time
from server.cli.connection import connected
from server.cli.failure import ExitCode
from server.cli.newest import newest, say_if_more
from server.cli.origin import forked_from, origin
from server.cli.program import typed
from server.cli.screen import Screen
from server.cli.summary import SHORT
from server.data_dir import chosen_data_dir
from treadle.session.v1.event_pb2 import SessionForked
from treadle.session.v1.session_pb2 import Session
from treadle.session.v1.snapshot_pb2 import SNAPSHOT_KIND_CHECKPOINT, SNAPSHOT_KIND_FORK, Snapshot, SnapshotKind

_PAGE = 200
_TITLE = 200
"""The most characters that one may have."""


def run(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    found, more, fork = asyncio.run(_snapshots(options))
    if options.json:
        for snapshot in found:
            print(MessageToJson(snapshot, indent=None))
    else:
        _show(found, fork)
    say_if_more(options.limit, more=more)
    return ExitCode.DONE


def fork(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    made = asyncio.run(_fork(options))
    screen = Screen()
    screen.parts((made.session_id, "bold"), (f"  begins at {made.head_commit[:SHORT]}" if made.head_commit else "  begins anew", "dim"))
    screen.prose(made.title, indent=2)
    _say_how_to_go_on(screen, made, options)
    return ExitCode.DONE


def restore(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    was_at, restored = asyncio.run(_restore(options))
    screen = Screen()
    if restored.head_commit == was_at:
        screen.prose("the session is as it was then already; nothing was committed")
    else:
        screen.prose(f"the session is as it was then, by commit {restored.head_commit[:SHORT]}; what came after is still in its history")
    _say_how_to_go_on(screen, restored, options)
    return ExitCode.DONE


def _say_how_to_go_on(screen: Screen, session: Session, options: argparse.Namespace) -> None:
    data_dir = chosen_data_dir(options.data_dir)
    screen.prose("go on with it: " + typed(f'run --session {session.session_id} "request"', data_dir))
    if session.unpushed_commit:
        screen.prose("it is pushed with the next turn, or now by: " + typed(f"push {session.session_id}", data_dir))


async def _snapshots(options: argparse.Namespace) -> tuple[list[Snapshot], bool, SessionForked | None]:
    """The newest, whether there are more, and where a fork among them comes from."""
    async with connected(options) as connection:
        treadle = connection.treadle
        found, more = await newest(treadle.list_snapshots(options.session, page_size=min(_PAGE, options.limit + 1)), options.limit)
        forked = not options.json and any(snapshot.kind == SNAPSHOT_KIND_FORK for snapshot in found)
        return found, more, await forked_from(treadle, options.session) if forked else None


async def _fork(options: argparse.Namespace) -> Session:
    async with connected(options) as connection:
        title = options.title
        if not title and (whose := (await connection.treadle.get_session(options.session)).title):
            # Else nobody could tell the two apart in a list.
            title = f"Fork of {whose.removeprefix('Fork of ')}"[:_TITLE]
        return await connection.treadle.fork_session(options.session, at=options.at, title=title, branch=options.branch)


async def _restore(options: argparse.Namespace) -> tuple[str, Session]:
    """The newest commit before, and the session after."""
    async with connected(options) as connection:
        was_at = (await connection.treadle.get_session(options.session)).head_commit
        return was_at, await connection.treadle.restore_session(options.session, options.at)


def _show(found: list[Snapshot], fork: SessionForked | None) -> None:
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
            (f" of {origin(fork)}" if fork and snapshot.kind == SNAPSHOT_KIND_FORK else "", ""),
            (f"  {snapshot.commit[:SHORT]}", ""),
            (f"  by {snapshot.actor_name or snapshot.actor}" if snapshot.actor else "", "dim"),
            ("  current" if snapshot.current else "", "bold"),
            ("" if snapshot.pushed or _off_branch(snapshot) else "  not pushed", "yellow"),
            (_not_stored(snapshot), "yellow"),
            hang=6,
        )
        if message := snapshot.message.partition("\n")[0]:
            screen.prose(message, indent=6)
        if snapshot.turn_id:
            screen.prose(f"turn {snapshot.turn_id}", "dim", indent=6)


def _off_branch(snapshot: Snapshot) -> bool:
    """Whether it is on no branch: what a turn had done so far."""
    return snapshot.kind == SNAPSHOT_KIND_CHECKPOINT and bool(snapshot.turn_id)


def _not_stored(snapshot: Snapshot) -> str:
    if snapshot.stored:
        return ""
    return "  expired" if snapshot.expired else "  lost with its server" if snapshot.lost else "  not in the object store yet"
