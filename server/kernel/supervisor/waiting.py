"""Turns that wait for a place: each gets one when it is its turn, and its log tells meanwhile where it stands."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import structlog

from server.kernel import naming
from server.kernel.errors import KernelError
from server.kernel.event import Envelope
from server.kernel.ports.turn_queue import Look, Telling, Waiting
from server.kernel.redaction import Redactor
from server.kernel.session import SessionState
from server.kernel.supervisor.drive import Limits, Ports, now
from server.kernel.supervisor.prepare import first_facts
from server.kernel.wakeup import Wakeup

LOOK_SECONDS = 1.0
"""How often is looked for what other replicas have done to the queue."""

TOLD_AT_ONCE = 64
"""Their prompts, of up to 400 kB each, are in memory for it."""

log = structlog.get_logger()


class WaitingRoom:
    """This replica's view of the one queue that all replicas share. Nothing is remembered here that the store does not know."""

    def __init__(self, ports: Ports, limits: Limits, *, room: Callable[[], int], take: Callable[[int], Awaitable[int]]) -> None:
        """`room` says how many places are free here; `take` gives so many to those who are next, lets some of those go that shall stop,
        and returns how many turns that were."""
        self._ports = ports
        self._limits = limits
        self._room = room
        self._take = take
        self._calls = Wakeup()
        self.waiting = 0
        """How many waited at the last look."""
        self.startable = 0
        """Those of them that waited for nothing but a place: whoever comes now goes behind them."""

    def joined(self) -> None:
        """One more turn waits."""
        self.waiting += 1
        self.startable += 1
        self.call()

    def call(self) -> None:
        """Something has changed: a turn shall stop, or has left its place."""
        self._calls.notify()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            seen = self._calls.count
            if not await self.attend():
                await self._calls.after(seen, LOOK_SECONDS)

    async def attend(self) -> bool:
        """Give what places there are, and tell some of those that are due to be told: who has waited for a place that is free now does
        not wait until ten thousand others know where they stand. Whether there is more to do at once; what cannot be done now is found
        again."""
        try:
            return await self._attend()
        except KernelError as error:
            log.warning("queue.not_attended", error=error.message)
        except Exception:  # whatever one turn has wrong, the server goes on, and so do the turns that run
            log.exception("queue.crashed")
        return False

    async def _attend(self) -> bool:
        look, taken = await self._look(), 0
        if look.stopped or (look.startable and self._room() > 0):
            taken = await self._take(max(0, self._room()))
            look = await self._look()
        told = await self._tell(look.due)
        return (taken > 0 and look.stopped > 0) or (told and len(look.due) == TOLD_AT_ONCE)

    async def _look(self) -> Look:
        look = await self._ports.queue.look(limit=TOLD_AT_ONCE)
        self.waiting, self.startable = look.waiting, look.startable
        return look

    async def _tell(self, due: Sequence[Waiting]) -> bool:
        """Whether any could be told."""
        if not due:
            return False
        redactor = Redactor(self._ports.secrets())
        self._ports.mark("queue.tell.before")
        told = await self._ports.queue.tell([self._telling(each, redactor) for each in due])
        self._ports.mark("queue.tell.after")
        for session_id in told:
            self._ports.journal.look_again(session_id)
        return bool(told)

    def _telling(self, waiting: Waiting, redactor: Redactor) -> Telling:
        stands, codec, title = waiting.stands, self._ports.codec, None
        turn, next_seq, facts = stands.turn, stands.session.last_seq + 1, []
        if not stands.begun:
            facts = first_facts(codec, turn)
            title = None if stands.session.title else naming.title_from(redactor.text(turn.prompt))
        facts.append(codec.session_updated(SessionState.QUEUED, title=title, waiting=waiting))
        chunk = codec.seal(
            Envelope(
                turn.session_id,
                turn.id,
                0,
                stands.epoch,
                "SERVER",
                self._limits.replica,
                on_behalf_of=turn.owner_id,
                trace_parent=turn.trace_parent,
            ),
            [redactor.fact(fact).body for fact in facts],
            first_seq=next_seq,
            event_id_prefix=f"{turn.id}/wait.{next_seq}/",
            first_number=1,
            recorded_at=now(),
        )
        return Telling(waiting, chunk, title)
