"""`treadle push`: a session's work to its remote, where no turn has brought it yet."""

from __future__ import annotations

import argparse
import asyncio

from google.protobuf.json_format import MessageToJson

from server.cli.connection import connected, find_target
from server.cli.failure import CommandFailed, ExitCode
from server.cli.program import typed
from server.cli.screen import Screen
from server.cli.summary import SHORT
from treadle_client import Session


def run(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    session = asyncio.run(_push(options))
    if not session.head_commit and not options.branch:
        again = typed(f"run --session {session.session_id} REQUEST", find_target(options).data_dir)
        raise CommandFailed(f"the session has no commit that could be pushed; its next turn makes one: {again}", ExitCode.REFUSED)
    if options.json:
        print(MessageToJson(session, indent=None))
    elif not session.head_commit:
        Screen().prose(f"{session.branch} is made; the session's next turn begins on it")
    else:
        Screen().prose(f"{session.branch} holds {session.head_commit[:SHORT]}")
        if options.branch:
            Screen().prose(f"the session goes on on {session.branch}: its turns begin and push there, and no longer where they did")
    return ExitCode.DONE


async def _push(options: argparse.Namespace) -> Session:
    async with connected(options) as connection:
        return await connection.treadle.push_session(options.session, onto_new_branch=options.branch)
