"""`treadle repos`: what the user can see on a code host."""

from __future__ import annotations

import argparse
import asyncio

from google.protobuf.json_format import MessageToJson

from server.cli.connection import connected
from server.cli.failure import ExitCode
from server.cli.screen import Screen
from treadle_client import Repository


def run(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    found = asyncio.run(_repositories(options))
    screen = Screen()
    for each in found:
        if options.json:
            print(MessageToJson(each, indent=None))
        else:
            screen.parts((each.name, "bold"), (f"  {each.url}", ""), ("  private" if each.private else "", "dim"), hang=2)
    return ExitCode.DONE


async def _repositories(options: argparse.Namespace) -> list[Repository]:
    found: list[Repository] = []
    async with connected(options) as connection:
        async for each in connection.treadle.git.repositories(options.host, page_size=min(100, options.limit)):
            found.append(each)
            if len(found) == options.limit:
                break
    return found
