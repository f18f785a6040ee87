"""`treadle interrupt`: stop a turn early; its work so far is kept."""

from __future__ import annotations

import argparse
import asyncio

from server.cli.connection import connected
from server.cli.failure import ExitCode
from server.cli.program import typed
from server.cli.screen import Screen
from server.cli.waiting import in_words
from server.data_dir import chosen_data_dir


def run(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    turn_id, waiting = asyncio.run(_interrupt(options))
    screen = Screen()
    screen.prose("the turn is being stopped; what it has changed, if anything, is committed and pushed" if turn_id else "no turn is active")
    if waiting:
        see = typed(f"inputs {options.session}", chosen_data_dir(options.data_dir))
        screen.prose(f"{in_words(waiting)} until the next `send`, or until a turn completes\n  list or cancel: {see}")
    return ExitCode.DONE


async def _interrupt(options: argparse.Namespace) -> tuple[str, int]:
    async with connected(options) as connection:
        turn_id = await connection.treadle.interrupt(options.session)
        return turn_id, (await connection.treadle.get_session(options.session)).waiting_inputs
