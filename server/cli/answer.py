"""`treadle answer`: answer what a session's agent asks."""

from __future__ import annotations

import argparse
import asyncio
import sys

from server.cli.answering import ask
from server.cli.connection import Connection, connected
from server.cli.failure import CommandFailed, ExitCode
from server.cli.program import typed
from server.cli.questions import NoAnswer, Reply, command, parse, prompts, request_id
from server.cli.render import Renderer
from server.cli.screen import Screen
from treadle.session.v1 import event_pb2 as pb


def run(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    if options.decline and options.answer:
        raise CommandFailed("either answer or --decline", ExitCode.REFUSED)
    return asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> ExitCode:
    async with connected(options) as connection:
        event = await _chosen(connection, options.session, options.request)
        reply = Reply(request_id(event)) if options.decline else await _reply(connection, event, options)
        resolved = await connection.treadle.resolve_request(
            options.session,
            reply.request_id,
            option_id=reply.option_id,
            answers=reply.answers,
            decline=options.decline,
            note=options.note,
        )
    Screen().prose(f"{pb.RequestOutcome.Name(resolved.outcome).removeprefix('REQUEST_OUTCOME_').lower()}; the agent goes on")
    return ExitCode.DONE


async def _reply(connection: Connection, event: pb.Event, options: argparse.Namespace) -> Reply:
    screen = Screen()
    if options.answer:
        try:
            return parse(event, options.answer)
        except NoAnswer as error:
            _show(screen, event)
            raise CommandFailed(str(error), ExitCode.REFUSED) from None
    if not sys.stdin.isatty():
        _show(screen, event)
        raise CommandFailed(f"say what to answer: `{typed(command(event), connection.target.data_dir)}`", ExitCode.REFUSED)
    if len(list(prompts(event))) == 1:
        Renderer(screen, asking=True).show(event)
    try:
        return await ask(event, screen, shown=True)
    except EOFError:
        raise CommandFailed("nothing was answered", ExitCode.REFUSED) from None


async def _chosen(connection: Connection, session_id: str, wanted: str) -> pb.Event:
    """The event of the open request that is meant. Errors: CommandFailed, TreadleError."""
    session = await connection.treadle.get_session(session_id)
    found = [each for each in session.open_request_ids if each == wanted or not wanted]
    if len(found) == 1:
        return await _event(connection, session_id, found[0])
    if wanted and session.open_request_ids:
        raise CommandFailed(f"{wanted!r} is not open; these are: {', '.join(session.open_request_ids)}", ExitCode.REFUSED)
    if found:
        raise CommandFailed(f"several requests are open; choose with --request: {', '.join(found)}", ExitCode.REFUSED)
    raise CommandFailed("the session's agent waits for no answer", ExitCode.REFUSED)


async def _event(connection: Connection, session_id: str, wanted: str) -> pb.Event:
    async for event in connection.treadle.resume(session_id, follow=False):
        if request_id(event.proto) == wanted:
            return event.proto
    raise CommandFailed(f"the log does not tell of request {wanted!r}", ExitCode.REFUSED)


def _show(screen: Screen, event: pb.Event) -> None:
    asked = list(prompts(event))
    if len(asked) == 1:
        Renderer(screen, asking=True).show(event)
    for headline, choices in asked:
        if len(asked) > 1:
            screen.prose(headline, "bold")
        for number, choice in enumerate(choices, 1):
            screen.parts((f"  {number} {choice}", ""), hang=4)
