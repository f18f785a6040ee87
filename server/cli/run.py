"""`treadle run`: ask for a change and watch it being made."""

from __future__ import annotations

import argparse
import asyncio

from server.cli.connection import connected
from server.cli.failure import CommandFailed, ExitCode
from server.cli.watch import Watcher
from treadle_client import Approvals


def run(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    if not options.repo and not options.session:
        raise CommandFailed("name the repository with `--repo URL`, or go on with a session: `--session ID`", ExitCode.REFUSED)
    return asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> ExitCode:
    async with connected(options) as connection:
        watcher = Watcher(connection, as_json=options.json)
        stream = connection.treadle.execute(
            options.repo,
            options.request,
            session_id=options.session,
            base_branch=options.base,
            branch=options.branch,
            provider=options.provider,
            model=options.model,
            approvals=Approvals.APPROVALS_ASK if options.ask else Approvals.APPROVALS_UNSPECIFIED,
            allowed_hosts=options.allow_host,
            request_id=options.request_id,
            on_synced=watcher.past_is_over,
        )
        return await watcher.watch(stream)
