"""While a session is watched: what its agent asks can be answered in the terminal, or the command that answers is shown."""

from __future__ import annotations

import asyncio
import os
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from server.cli.connection import Connection
from server.cli.program import typed
from server.cli.questions import NoAnswer, Reply, command, parse, prompts, request_id, resolves
from server.cli.render import show_approval
from server.cli.screen import Screen
from treadle.session.v1 import event_pb2 as pb
from treadle_client import AlreadyResolved, CallFailed

_MAX_LINE = 64 * 1024
_PROMPT = "answer> "


class Answering:
    """Knows which requests are open. Those that nobody has answered by the time the past was shown are offered to the user, one after
    the other; one that is resolved meanwhile, by whomever, is not asked any more."""

    def __init__(self, connection: Connection, screen: Screen) -> None:
        self._connection = connection
        self._screen = screen
        self._interactive = sys.stdin is not None and sys.stdin.isatty()
        self._above = ""
        """The request that was shown last, and not asked since; its headline need not be said again."""
        self._open: dict[str, pb.Event] = {}
        self._live = False
        self._anew = False
        self._changed = asyncio.Event()

    def note(self, event: pb.Event, *, shown: bool) -> None:
        """An event is there. `shown`: as lines for people, by this command."""
        if asked := request_id(event):
            self._open[asked], self._above = event, asked if shown else ""
            if self._live and not self._interactive:
                self._show_command(event)
        elif resolved := resolves(event):
            self._open.pop(resolved, None)
        self._changed.set()

    @property
    def interactive(self) -> bool:
        """Whether somebody is there to be asked."""
        return self._interactive

    def past_is_over(self) -> None:
        """What is open now waits for somebody."""
        if not self._live:
            self._live = True
            for event in [] if self._interactive else self._open.values():
                self._show_command(event)
            self._changed.set()

    def again(self) -> None:
        """Something was said below the prompt: what is asked now is asked anew."""
        self._anew = True
        self._changed.set()

    @asynccontextmanager
    async def beside(self) -> AsyncIterator[None]:
        """Ask as long as the block runs."""
        asking = asyncio.create_task(self._ask_all()) if self._interactive else None
        try:
            yield
        finally:
            if asking is not None:
                asking.cancel()
                await asyncio.wait([asking])

    async def _ask_all(self) -> None:
        while True:
            self._changed.clear()
            if self._live and self._open:
                event = next(iter(self._open.values()))
                if not await self._ask(event):
                    return
            else:
                await self._changed.wait()

    async def _ask(self, event: pb.Event) -> bool:
        """Until it is answered by somebody. False when the terminal has nobody any more: then the command is shown."""
        above, self._above, self._anew = self._above, "", False
        asking = asyncio.create_task(ask(event, self._screen, shown=request_id(event) == above))
        try:
            while not asking.done() and request_id(event) in self._open and not self._anew:
                changed = asyncio.create_task(self._changed.wait())
                await asyncio.wait({asking, changed}, return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
                self._changed.clear()
                if not asking.done() and not self._screen.growing:
                    # Events were shown below the prompt, which nobody finds there any more.
                    self._screen.prompt(_PROMPT)
            if not asking.done():
                return True
            reply = asking.result()
        except EOFError:
            self._interactive = False
            self._show_command(event)
            return False
        finally:
            asking.cancel()
            await asyncio.wait([asking])
        await self._resolve(event.session_id, reply)
        return True

    async def _resolve(self, session_id: str, reply: Reply) -> None:
        try:
            await self._connection.treadle.resolve_request(session_id, reply.request_id, option_id=reply.option_id, answers=reply.answers)
        except AlreadyResolved as error:
            self._connection.notice(error.message)
        except CallFailed as error:
            # It is still open, and is asked again.
            self._connection.notice(error.message)
            return
        self._open.pop(reply.request_id, None)

    def _show_command(self, event: pb.Event) -> None:
        self._connection.notice(
            f"the agent waits for an answer; give one with\n  {typed(command(event), self._connection.target.data_dir)}"
        )


async def ask(event: pb.Event, screen: Screen, *, shown: bool) -> Reply:
    """Ask on the terminal. `shown`: the event stands right above. Errors: EOFError when nobody is there."""
    several = len(list(prompts(event))) > 1
    while True:
        answers = []
        for headline, choices in prompts(event):
            if not shown and event.HasField("approval_requested"):
                # Nobody gives leave by the title alone.
                show_approval(screen, event.approval_requested, "▸ ")
            elif several or not shown:
                screen.parts(("▸ ", "bold yellow"), (headline, "bold"), hang=2)
            for number, choice in enumerate(choices, 1):
                screen.parts((f"  {number} ", "cyan"), (choice, ""), hang=4)
            forget_typed()
            screen.prompt(_PROMPT)
            answers.append(await read_line())
            screen.typed()
        try:
            return parse(event, answers)
        except NoAnswer as error:
            screen.prose(str(error), "yellow")
            shown = False


def forget_typed() -> None:
    """Drop what was typed so far, also a line without its end: who typed it had not seen what is asked next."""
    descriptor = sys.stdin.fileno()
    with suppress(OSError):
        # In the background it would stop the process. A terminal that is not the process's own has no foreground.
        if os.tcgetpgrp(descriptor) != os.getpgrp():
            return
    with suppress(termios.error):
        termios.tcflush(descriptor, termios.TCIFLUSH)


async def read_line() -> str:
    """A line of standard input, without blocking and without a thread that would outlive a Ctrl-C. Errors: EOFError."""
    loop, descriptor = asyncio.get_running_loop(), sys.stdin.fileno()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    except asyncio.CancelledError:
        # Somebody else was quicker, or the session is left: the shell shall not get the rest.
        forget_typed()
        raise
    finally:
        loop.remove_reader(descriptor)
    # A terminal gives whole lines.
    data = os.read(descriptor, _MAX_LINE)
    if not data:
        raise EOFError
    return data.decode(errors="replace").rstrip("\r\n")
