"""`treadle run`: ask for a change and watch it being made."""

from __future__ import annotations

import argparse
import asyncio
import uuid

from server.cli.connection import Connection, connect, find_target
from server.cli.failure import CommandFailed, ExitCode
from server.cli.watch import watch
from treadle.session.v1 import session_service_pb2 as pb


def run(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    if not options.repo and not options.session:
        raise CommandFailed("name the repository with --repo URL, or go on with a session: --session ID", ExitCode.REFUSED)
    return asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> ExitCode:
    async with connect(find_target(options)) as connection:
        return await execute(connection, request_from(options), as_json=options.json)


async def execute(connection: Connection, request: pb.ExecuteSessionRequest, *, as_json: bool = False) -> ExitCode:
    """Start the turn and show it to its end. Errors: CommandFailed."""
    return await watch(connection, lambda follower: follower.execute(request), as_json=as_json)


def request_from(options: argparse.Namespace) -> pb.ExecuteSessionRequest:
    """The command line as a request. Its request_id makes it safe to send again when the answer was lost."""
    return pb.ExecuteSessionRequest(
        request_id=options.request_id or str(uuid.uuid4()),
        session_id=options.session,
        repository_url=options.repo,
        base_branch=options.base,
        branch=options.branch,
        prompt=options.request,
        provider=options.provider,
        model=options.model,
    )
