"""`treadle sessions`: what there is, newest first."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from google.protobuf.json_format import MessageToJson

from server.cli.clock import local_time
from server.cli.connection import connect, find_target
from server.cli.failure import CommandFailed, ExitCode
from server.cli.program import typed
from server.cli.refusals import what_to_do
from server.cli.screen import Screen
from server.cli.summary import SHORT
from server.cli.waiting import in_words, place_in_line
from server.data_dir import chosen_data_dir
from treadle.session.v1.event_pb2 import SESSION_STATE_FAILED, SESSION_STATE_IDLE, SessionState
from treadle.session.v1.session_pb2 import Session

_PAGE = 200
_RESTING = (SESSION_STATE_IDLE, SESSION_STATE_FAILED)
_STATE_STYLES = {"idle": "green", "failed": "red"}


def run(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    if options.limit < 1:
        raise CommandFailed("--limit is how many to list: 1 or more", ExitCode.REFUSED)
    found = asyncio.run(_sessions(options))
    if options.json:
        for session in found:
            print(MessageToJson(session, indent=None))
    else:
        _show(found, chosen_data_dir(options.data_dir))
    return ExitCode.DONE


async def _sessions(options: argparse.Namespace) -> list[Session]:
    found: list[Session] = []
    async with connect(find_target(options)) as connection:
        async for session in connection.treadle.list_sessions(page_size=min(_PAGE, options.limit)):
            found.append(session)
            if len(found) == options.limit:
                break
    return found


def _show(found: list[Session], data_dir: Path) -> None:
    screen = Screen()
    if not found:
        begin = typed('run --repo URL "request"', data_dir)
        screen.prose(f"no sessions yet; begin one with `{begin}`")
    for session in found:
        state = SessionState.Name(session.state).removeprefix("SESSION_STATE_").lower()
        created = local_time(session.created_at)
        screen.parts(
            (session.session_id, "bold"),
            (f"  {created}  ", "dim"),
            (state, _STATE_STYLES.get(state, "yellow")),
            (f", {session.last_seq} events", "dim"),
            (f", {place_in_line(session.waiting)}" if session.HasField("waiting") else "", "yellow"),
            # A turn that runs will take them up.
            (f", {in_words(session.waiting_inputs)}" if session.waiting_inputs and session.state in _RESTING else "", "yellow"),
            hang=2,
        )
        screen.prose(session.title, indent=2)
        screen.prose(f"{session.repository_url}  {session.branch}".rstrip(), "dim", indent=2)
        if session.unpushed_commit and session.state in _RESTING:
            why = f": {session.push_message}" if session.push_message else ""
            screen.prose(f"{session.unpushed_commit[:SHORT]} is not pushed{why}", "yellow", indent=2)
            for line in what_to_do(session.push_refusal, session.session_id, data_dir):
                screen.prose(line, "dim", indent=2)
