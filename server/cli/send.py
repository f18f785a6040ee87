"""`treadle send`: say something to a session, also while its agent works."""

from __future__ import annotations

import argparse
import asyncio

from google.protobuf.json_format import MessageToJson

from server.cli.connection import connected
from server.cli.failure import ExitCode
from server.cli.program import typed
from server.cli.screen import Screen
from server.data_dir import chosen_data_dir
from treadle.session.v1 import event_pb2
from treadle_client import Input

_UNLESS = "after one that failed or was stopped it waits for the next `send`, or until another turn has completed"


def run(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    sent, before = asyncio.run(_send(options))
    if options.json:
        print(MessageToJson(sent, indent=None))
        return ExitCode.DONE
    screen = Screen()
    if sent.turn_id:
        screen.prose("a turn is started with it")
    elif sent.delivery == event_pb2.INPUT_DELIVERY_STEER:
        screen.prose(f"the agent gets it at its next safe step; if it takes nothing before it ends, this becomes a turn\n  {_UNLESS}")
    elif sent.delivery == event_pb2.INPUT_DELIVERY_INTERRUPT:
        screen.prose("the turn is being stopped; this is the next one")
    else:
        screen.prose(f"queued; it becomes a turn when those before it have completed\n  {_UNLESS}")
    screen.prose(f"  follow: {typed(f'resume {options.session} --after {before}', chosen_data_dir(options.data_dir))}")
    return ExitCode.DONE


async def _send(options: argparse.Namespace) -> tuple[Input, int]:
    """The input, and the last event before it."""
    delivery = event_pb2.INPUT_DELIVERY_QUEUE
    if options.steer:
        delivery = event_pb2.INPUT_DELIVERY_STEER
    elif options.interrupt:
        delivery = event_pb2.INPUT_DELIVERY_INTERRUPT
    async with connected(options) as connection:
        before = (await connection.treadle.get_session(options.session)).last_seq
        sent = await connection.treadle.send_input(options.session, options.text, delivery=delivery, request_id=options.request_id)
        return sent, before
