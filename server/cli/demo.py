"""The demo session: one real turn on the sample repository, with the agent `replay`."""

from __future__ import annotations

import argparse
import asyncio

from server.cli.connection import Connection, connected
from server.cli.failure import CommandFailed, ExitCode
from server.cli.program import typed
from server.cli.screen import Screen
from server.cli.watch import Watcher
from server.data_dir import chosen_data_dir

REPLAY = "replay"
REQUEST = "Write down what was asked for, with a small check that proves it"


def run(options: argparse.Namespace) -> ExitCode:
    """`treadle demo`. Errors: CommandFailed."""
    return asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> ExitCode:
    data_dir = chosen_data_dir(options.data_dir)
    url_file = data_dir / "sample" / "url"
    try:
        url = url_file.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise CommandFailed(
            f"there is no sample repository: {url_file} is missing; `{typed('up', data_dir)}` makes it", ExitCode.REFUSED
        ) from None
    async with connected(options) as connection:
        return await play(connection, url)


async def play(connection: Connection, sample_url: str, agent: str = REPLAY) -> ExitCode:
    """Say what it is, and show it. Errors: TreadleError."""
    screen = Screen()
    screen.line()
    screen.line("A session on the sample repository", "bold")
    if agent == REPLAY:
        screen.prose(
            "The agent is `replay`: it plays a recorded session through the real worker. Its files and commands really happen, and so do "
            "the branch, the commit and the push. No model is called."
        )
    else:
        screen.prose(f"The agent is `{agent}`: it calls a model, on your account. The branch, the commit and the push are real.")
    screen.line()
    return await Watcher(connection, as_json=False).watch(connection.treadle.execute(sample_url, REQUEST, provider=agent))
