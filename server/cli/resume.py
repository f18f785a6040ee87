"""`treadle resume`: a session's events from any place."""

from __future__ import annotations

import argparse
import asyncio

from server.cli.connection import Connection, connected
from server.cli.failure import CommandFailed, ExitCode
from server.cli.watch import Watcher
from treadle.session.v1.event_pb2 import Event
from treadle_client import SequenceAhead

_LAST_SEQ = 2**63 - 1
"""The highest that the database can hold."""
_PAST_EVENTS, _PAGE = 20_000, 1_000


def run(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    if not 0 <= options.after <= _LAST_SEQ:
        raise CommandFailed("--after is the number of an event: 0 or more", ExitCode.REFUSED)
    return asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> ExitCode:
    async with connected(options) as connection:
        past = [] if options.json else await _past(connection, options.session, options.after)
        watcher = Watcher(connection, as_json=options.json, past=past)
        stream = connection.treadle.resume(
            options.session, after_seq=options.after, follow=not options.no_follow, on_synced=watcher.past_is_over
        )
        return await watcher.watch(stream)


async def _past(connection: Connection, session: str, after: int) -> list[Event]:
    """The events up to `after`, no more than the last `_PAST_EVENTS` of them. Errors: TreadleError."""
    found: list[Event] = []
    if after > 0:
        try:
            async for event in connection.treadle.list_events(session, after_seq=max(0, after - _PAST_EVENTS), page_size=_PAGE):
                if event.seq > after:
                    break
                found.append(event.proto)
        except SequenceAhead:
            # It is told of what was asked for, and not of where we have looked.
            return []
    return found
