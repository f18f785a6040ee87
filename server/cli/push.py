"""`treadle push`: a session's work to its remote, where no turn has brought it yet."""

from __future__ import annotations

import argparse
import asyncio

from google.protobuf.json_format import MessageToJson

from server.cli.connection import connected
from server.cli.failure import ExitCode
from server.cli.screen import Screen
from server.cli.summary import SHORT
from treadle_client import Session


def run(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    session = asyncio.run(_push(options))
    if options.json:
        print(MessageToJson(session, indent=None))
    else:
        told = f"{session.branch} holds {session.head_commit[:SHORT]}" if session.head_commit else "the session has no commit yet"
        Screen().prose(told)
    return ExitCode.DONE


async def _push(options: argparse.Namespace) -> Session:
    async with connected(options) as connection:
        return await connection.treadle.push_session(options.session, onto_new_branch=options.branch)
