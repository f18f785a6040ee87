"""`treadle up`: the whole stack in the foreground."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from server.cli.failure import CommandFailed, ExitCode
from server.cli.main import STARTED
from server.cli.program import typed
from server.cli.undeterred import undeterred
from server.cli.up_screen import UpScreen
from server.data_dir import chosen_data_dir
from server.embedded.sample import came_up
from server.embedded.stack import Stack, running_stack
from server.embedded.stopping import Stopped, StopSignals, end_turns, unless
from server.refusal import StartRefused
from server.replica import DataDirectoryTaken

_LAST_WORDS_SECONDS = 5.0


def run(options: argparse.Namespace) -> ExitCode:
    """Serve until a signal. Errors: CommandFailed."""
    # Read when grpc is imported. We fork only to run other programs; gRPC's own preparations for a fork print warnings then.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    sys.stdout, sys.stderr = undeterred(sys.stdout), undeterred(sys.stderr)

    data_dir = chosen_data_dir(options.data_dir)
    try:
        return asyncio.run(_up(data_dir, options))
    except DataDirectoryTaken as error:
        hint = f"\n  to play the demo session there: {typed('demo', data_dir)}" if options.demo else ""
        raise CommandFailed(f"{error}{hint}", ExitCode.REFUSED) from None
    except StartRefused as error:
        raise CommandFailed(str(error), ExitCode.REFUSED) from None
    except PermissionError as error:
        raise CommandFailed(f"{error.filename}: {error.strerror}; choose another directory with --data-dir", ExitCode.REFUSED) from None


async def _up(data_dir: Path, options: argparse.Namespace) -> ExitCode:
    screen = UpScreen(data_dir)
    signals = StopSignals(screen.ctrl_c)
    screen.starting()
    async with AsyncExitStack() as opened:
        try:
            # One Ctrl-C does not cut a start short: turns of an earlier life may be running again already, and must be ended well.
            stack = await unless(
                signals.at_once, opened.enter_async_context(running_stack(data_dir, listen=options.listen, say=screen.part))
            )
        except Stopped:
            return ExitCode.DONE
        from server.serve import keep_what_stays

        keep_what_stays()
        screen.ready(stack, seconds=time.monotonic() - STARTED)
        came_up(data_dir)
        exit_code = await _serve(stack, screen, signals, demo=options.demo or stack.sample.new)
    screen.stopped()
    return exit_code


async def _serve(stack: Stack, screen: UpScreen, signals: StopSignals, *, demo: bool) -> ExitCode:
    playing = asyncio.create_task(_demo(stack, screen)) if demo and not signals.asked.is_set() else None
    try:
        if playing is not None:
            await _until(signals, stack, playing)
        if not signals.asked.is_set():
            screen.serving(stack)
            await _until(signals, stack)
        if stack.failed.done():
            screen.failed(stack, str(stack.failed.exception()))
            return ExitCode.TURN_FAILED
        await _wind_down(stack, screen, signals, playing)
    finally:
        if playing is not None:
            playing.cancel()
            await asyncio.wait({playing})
    return ExitCode.DONE


async def _until(signals: StopSignals, stack: Stack, work: asyncio.Task[None] | None = None) -> None:
    """Until a signal comes, a necessary part fails for good, or the work is done."""
    asked = asyncio.create_task(signals.asked.wait())
    watched: list[asyncio.Future[Any]] = [asked, stack.failed]
    if work is not None:
        watched.append(work)
    try:
        await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
    finally:
        asked.cancel()


async def _demo(stack: Stack, screen: UpScreen) -> None:
    """The demo session, asked for as any client asks. That it fails is told, and does not stop the server."""
    from server.cli.connection import Target, connect
    from server.cli.demo import play

    key = await asyncio.to_thread(stack.key_file.read_text, encoding="utf-8")
    try:
        async with connect(Target(stack.server.api.address, key.strip())) as connection:
            await play(connection, stack.sample.url, stack.server.agent.name)
    except CommandFailed as failure:
        screen.demo_failed(failure)


async def _wind_down(stack: Stack, screen: UpScreen, signals: StopSignals, playing: asyncio.Task[None] | None) -> None:
    """What becomes of running turns: after Ctrl-C none is left, after SIGTERM their workers go on for the next start."""
    turns = stack.server.supervisor.active
    if signals.keep_workers:
        screen.leaving(turns)
        return
    screen.ending(turns)
    published = await end_turns(stack.server, signals.at_once)
    if playing is not None:
        # Its last events are on their way to the screen.
        await asyncio.wait({playing}, timeout=_LAST_WORDS_SECONDS)
    if published:
        # And those of other clients to theirs: a stream that is cut before its turn's end would ask a server that is gone for the rest.
        await stack.server.api.finish(seconds=_LAST_WORDS_SECONDS)
    if not published:
        screen.not_published()
