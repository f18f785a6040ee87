"""`treadle resume`: a session's events from any place."""

from __future__ import annotations

import argparse
import asyncio

from server.cli.connection import connect, find_target
from server.cli.failure import CommandFailed, ExitCode
from server.cli.watch import watch

_LAST_SEQ = 2**63 - 1
"""The highest that the database can hold."""


def run(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    if not 0 <= options.after <= _LAST_SEQ:
        raise CommandFailed("--after is the number of an event: 0 or more", ExitCode.REFUSED)
    return asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> ExitCode:
    async with connect(find_target(options)) as connection:
        stream = connection.treadle.resume(options.session, after_seq=options.after, follow=not options.no_follow)
        return await watch(connection, stream, as_json=options.json)
