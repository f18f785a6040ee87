"""`treadle run`: ask for a change and watch it being made."""

from __future__ import annotations

import argparse
import asyncio

from server.cli.connection import connect, find_target
from server.cli.failure import CommandFailed, ExitCode
from server.cli.watch import watch


def run(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    if not options.repo and not options.session:
        raise CommandFailed("name the repository with --repo URL, or go on with a session: --session ID", ExitCode.REFUSED)
    return asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> ExitCode:
    async with connect(find_target(options)) as connection:
        stream = connection.treadle.execute(
            options.repo,
            options.request,
            session_id=options.session,
            base_branch=options.base,
            branch=options.branch,
            provider=options.provider,
            model=options.model,
            request_id=options.request_id,
        )
        return await watch(connection, stream, as_json=options.json)
