"""`treadle sessions`, `show`, `rename` and `delete`: what there is, newest first, and one of them."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from google.protobuf.json_format import MessageToDict, MessageToJson

from server.cli.answering import read_line
from server.cli.clock import local_time
from server.cli.connection import connected
from server.cli.failure import CommandFailed, ExitCode
from server.cli.newest import newest, say_if_more
from server.cli.origin import forked_from, origin
from server.cli.program import typed
from server.cli.pull_request_words import how_far
from server.cli.refusals import what_to_do
from server.cli.screen import Screen
from server.cli.session_names import is_short
from server.cli.summary import SHORT
from server.cli.waiting import in_words, place_in_line
from server.data_dir import chosen_data_dir
from treadle.session.v1.event_pb2 import SESSION_STATE_FAILED, SESSION_STATE_IDLE, SessionForked, SessionState
from treadle.session.v1.session_pb2 import Session

_PAGE = 200
_LAST_EVENTS = 50
"""The end of a failed turn is among the newest ones."""
_RESTING = (SESSION_STATE_IDLE, SESSION_STATE_FAILED)
_STATE_STYLES = {"idle": "green", "failed": "red"}


def run(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    found, more = asyncio.run(_sessions(options))
    if options.json:
        for session in found:
            print(MessageToJson(session, indent=None))
    else:
        show_sessions(found, chosen_data_dir(options.data_dir))
    say_if_more(options.limit, more=more)
    return ExitCode.DONE


def show(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    session, why, fork = asyncio.run(_session(options))
    if options.json:
        told = MessageToDict(session)
        if fork:
            told["forkedFrom"] = MessageToDict(fork)
        print(json.dumps(told))
        return ExitCode.DONE
    data_dir = chosen_data_dir(options.data_dir)
    show_sessions([session], data_dir)
    screen = Screen()
    facts = {
        "fork": f"of {origin(fork)}" if fork else "",
        "commit": session.head_commit,
        "stored": f"{session.stored_bytes:,} bytes" if session.stored_bytes else "",
        "agent": session.provider,
        "turn": session.active_turn_id,
        "hosts": ", ".join(session.allowed_hosts),
    }
    for name, value in facts.items():
        if value:
            screen.label(name, value)
    if why and why != session.push_message:
        screen.label("failed", why, "red")
    for name, value in sorted(session.labels.items()):
        screen.label("label", f"{name}={value}")
    if session.open_request_ids:
        screen.label("asks", typed(f"answer {session.session_id}", data_dir), "yellow")
    return ExitCode.DONE


def rename(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    if not options.title.strip():
        raise CommandFailed("a title has at least one letter", ExitCode.REFUSED)
    renamed = asyncio.run(_rename(options))
    Screen().parts((renamed.session_id, "bold"), (f"  {renamed.title}", ""), hang=2)
    return ExitCode.DONE


def delete(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    if options.yes and is_short(options.session):
        raise CommandFailed("--yes asks nobody, so it takes a session's whole id; `treadle sessions` lists them", ExitCode.REFUSED)
    asyncio.run(_delete(options))
    return ExitCode.DONE


async def _session(options: argparse.Namespace) -> tuple[Session, str, SessionForked | None]:
    """The session, why its last turn failed, and where it comes from."""
    async with connected(options) as connection:
        session, why = await connection.treadle.get_session(options.session), ""
        if session.state == SESSION_STATE_FAILED:
            async for event in connection.treadle.list_events(session.session_id, after_seq=max(0, session.last_seq - _LAST_EVENTS)):
                why = event.proto.turn_completed.message or why
        return session, why, await forked_from(connection.treadle, session.session_id)


async def _rename(options: argparse.Namespace) -> Session:
    async with connected(options) as connection:
        return await connection.treadle.update_session(options.session, title=options.title)


async def _delete(options: argparse.Namespace) -> None:
    async with connected(options) as connection:
        session = await connection.treadle.get_session(options.session)
        screen = Screen()
        if not options.yes:
            if not sys.stdin.isatty():
                raise CommandFailed("nobody can be asked here: --yes deletes it", ExitCode.REFUSED)
            show_sessions([session], connection.target.data_dir)
            screen.prompt("Delete it, with its events and snapshots? Its branch on the remote stays. [y/N] ")
            answer = await read_line()
            screen.typed()
            if answer.strip().lower() not in ("y", "yes"):
                raise CommandFailed("nothing is deleted", ExitCode.REFUSED)
        await connection.treadle.delete_session(session.session_id)
        screen.prose(f"deleted {session.session_id}")


async def _sessions(options: argparse.Namespace) -> tuple[list[Session], bool]:
    async with connected(options) as connection:
        return await newest(connection.treadle.list_sessions(page_size=min(_PAGE, options.limit + 1)), options.limit)


def show_sessions(found: list[Session], data_dir: Path | None) -> None:
    """Each in a few lines."""
    screen = Screen()
    if not found:
        begin = typed('run --repo URL "request"', data_dir)
        screen.prose(f"no sessions yet; begin one with `{begin}`")
    for session in found:
        state = SessionState.Name(session.state).removeprefix("SESSION_STATE_").lower()
        created = local_time(session.created_at)
        screen.parts(
            (session.session_id, "bold"),
            (f"  {created}  ", "dim"),
            (state, _STATE_STYLES.get(state, "yellow")),
            (f", {session.last_seq} {'event' if session.last_seq == 1 else 'events'}", "dim"),
            (f", {place_in_line(session.waiting)}" if session.HasField("waiting") else "", "yellow"),
            # A turn that runs will take them up.
            (f", {in_words(session.waiting_inputs)}" if session.waiting_inputs and session.state in _RESTING else "", "yellow"),
            hang=2,
        )
        screen.prose(session.title, indent=2)
        screen.prose(f"{session.repository_url}  {session.branch}".rstrip(), "dim", indent=2)
        if session.HasField("pull_request"):
            screen.prose(f"pull request {how_far(session.pull_request)}: {session.pull_request.url}", "dim", indent=2)
        begun = bool(session.head_commit)
        if (session.unpushed_commit if begun else session.push_refusal) and session.state in _RESTING:
            what = f"{session.unpushed_commit[:SHORT]} is not pushed" if begun else "its branch could not be made"
            why = f": {session.push_message}" if session.push_message else ""
            screen.prose(f"{what}{why}", "yellow", indent=2)
            for line in _how_to_push(session, data_dir):
                screen.prose(line, "dim", indent=2)


def _how_to_push(session: Session, data_dir: Path | None) -> list[str]:
    if not session.push_refusal and not session.push_message:
        return [f"its next turn pushes it, or now: {typed(f'push {session.session_id}', data_dir)}"]
    begun = bool(session.head_commit)
    return what_to_do(session.push_refusal, session.session_id, data_dir, repository=session.repository_url, begun=begun)
