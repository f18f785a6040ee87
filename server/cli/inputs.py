"""`treadle inputs`: what waits in a session's queue, changing it, and taking it back."""

from __future__ import annotations

import argparse
import asyncio

from google.protobuf.json_format import MessageToJson

from server.cli.connection import connected
from server.cli.failure import ExitCode
from server.cli.screen import Screen
from treadle.session.v1 import event_pb2
from treadle_client import Input

_STYLES = {"queued": "yellow", "delivered": "green"}


def run(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    found = asyncio.run(_run(options))
    if options.json:
        for each in found:
            print(MessageToJson(each, indent=None))
    else:
        _show(found)
    return ExitCode.DONE


async def _run(options: argparse.Namespace) -> list[Input]:
    async with connected(options) as connection:
        if options.change:
            return [await connection.treadle.update_input(options.session, *options.change)]
        if options.cancel:
            return [await connection.treadle.cancel_input(options.session, options.cancel)]
        return [each async for each in connection.treadle.list_inputs(options.session, everything=options.all)]


def _show(found: list[Input]) -> None:
    screen = Screen()
    if not found:
        screen.prose("nothing is queued")
    for each in found:
        status = event_pb2.InputStatus.Name(each.status).removeprefix("INPUT_STATUS_").lower()
        delivery = event_pb2.InputDelivery.Name(each.delivery).removeprefix("INPUT_DELIVERY_").lower()
        screen.parts(
            (each.input_id, "bold"),
            (f"  {status:<10}", _STYLES.get(status, "dim")),
            (f"{delivery:<10}", "dim"),
            (_line(each), ""),
            hang=2,
        )


def _line(each: Input) -> str:
    first, _, more = each.text.partition("\n")
    return f"{first} …" if more else first
