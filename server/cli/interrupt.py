"""`treadle interrupt`: stop a turn early; its work so far is kept."""

from __future__ import annotations

import argparse
import asyncio

import grpc

from server.cli.connection import UNARY_SECONDS, connect, explain, find_target
from server.cli.failure import ExitCode
from treadle.session.v1 import session_service_pb2 as pb


def run(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    turn_id = asyncio.run(_interrupt(options))
    print(f"turn {turn_id} is being stopped; its work is committed and pushed" if turn_id else "no turn is active")
    return ExitCode.DONE


async def _interrupt(options: argparse.Namespace) -> str:
    async with connect(find_target(options)) as connection:
        request = pb.InterruptRequest(session_id=options.session)
        try:
            response = await connection.stub.Interrupt(request, metadata=connection.metadata, timeout=UNARY_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise explain(error, connection.target) from None
        return str(response.turn_id)
