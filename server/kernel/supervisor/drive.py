"""What one turn's story needs: the ports, the turn as it stands, and the one way to take a durable step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from server.kernel.event import Envelope, Fact
from server.kernel.identity import Principal
from server.kernel.journal import Journal, SessionLog
from server.kernel.ports.event_codec import EventCodec
from server.kernel.ports.launcher import Launcher, WorkerId
from server.kernel.ports.model_gateway import ModelGateway
from server.kernel.ports.namer import Namer
from server.kernel.ports.object_store import ObjectStore
from server.kernel.ports.repositories import Repositories, Repository
from server.kernel.ports.tracer import Tracer
from server.kernel.ports.turn_store import Claimed, Reset, TurnStore
from server.kernel.ports.usage_store import UseRecord
from server.kernel.redaction import Redactor
from server.kernel.rush import Rush
from server.kernel.session import Session
from server.kernel.supervisor.bill import TurnBill
from server.kernel.supervisor.treasury import Treasury
from server.kernel.turn import SESSION_STATE, Outcome, Turn, TurnState, can_advance


@dataclass(frozen=True)
class Ports:
    """Everything that the supervisor reaches out to."""

    turns: TurnStore
    journal: Journal
    codec: EventCodec
    repositories: Repositories
    launcher: Launcher
    objects: ObjectStore
    models: ModelGateway
    namer: Namer | None
    """None where names are made by rule only."""
    treasury: Treasury
    secrets: Callable[[], Sequence[str]]
    """The secrets that this server knows now; they never get into an event."""
    mark: Callable[[str], None]
    """Told at each named point of a turn's life: metrics in production, kill -9 in the fault tests."""
    rush: Rush
    """The callers who wait for their turn's first event."""
    tracer: Tracer


@dataclass(frozen=True)
class Limits:
    """Times in seconds."""

    replica: str
    scratch: Path
    """A directory for files that may vanish at any time."""
    branch_prefix: str
    turn_seconds: float
    agent_steps: int = 0
    """How often an agent may ask its model in one turn; 0 for no limit."""
    interrupt_grace_seconds: float = 5.0
    """How long an interrupted worker may take to send its result before it is killed."""
    lease_seconds: float = 15.0
    snapshot_retry_seconds: float = 30.0
    import_retry_seconds: float = 60.0
    """How long a workspace that cannot be read back is tried again before it is kept as it is."""
    max_turns: int = 64


class Drive:
    """One turn under this replica's lease. `turn` and `session` are always as the database has them."""

    def __init__(self, ports: Ports, limits: Limits, claimed: Claimed, log: SessionLog) -> None:
        self.ports = ports
        self.limits = limits
        self.turn: Turn = claimed.turn
        self.session: Session = claimed.session
        self.owner: Principal = claimed.owner
        self.log = log
        self.redactor = Redactor(ports.secrets())
        self.bill: TurnBill | None = None
        """Who pays for the turn's requests to models; None until somebody asks for one."""
        self.verdict: Outcome | None = None
        """How the turn ends whatever its agent says; None as long as nothing has decided that."""
        self._one_step = asyncio.Lock()
        self.stop_requested = asyncio.Event()
        self.stop_reason = claimed.turn.interrupt_reason
        if self.stop_reason:
            self.stop_requested.set()

    @property
    def repository(self) -> Repository:
        """The session's repository, as its owner sees it."""
        return Repository(self.session.tenant_id, self.session.owner_id, self.session.repository_url)

    @property
    def shown_prompt(self) -> str:
        """What the user asked, without secrets: for titles, branch names and commit messages, which everybody sees."""
        return self.redactor.text(self.turn.prompt)

    @property
    def worker_id(self) -> WorkerId:
        """The current attempt's worker."""
        return WorkerId(self.turn.id, self.turn.attempt)

    @contextmanager
    def passing(self, point: str) -> Iterator[None]:
        """What happens between the named points `<point>.before` and `<point>.after`; the second is passed only on success."""
        with self.ports.tracer.span(point):
            self.ports.mark(f"{point}.before")
            yield
            self.ports.mark(f"{point}.after")

    def request_stop(self, reason: str) -> None:
        """The turn shall end early; its work so far is published."""
        self.stop_reason = self.stop_reason or reason
        self.stop_requested.set()

    def fail(self, outcome: Outcome) -> None:
        """The turn shall end early, and not as its user wished. The first word stands."""
        self.verdict = self.verdict or outcome
        self.stop_requested.set()

    @property
    def stopped_as(self) -> Outcome:
        """How a turn that was stopped early ends."""
        return self.verdict or Outcome(TurnState.INTERRUPTED, message=self.stop_reason)

    async def opened_bill(self) -> TurnBill:
        """The turn's bill, opened when first asked for. Errors: StoreUnavailable."""
        if self.bill is None:
            purse = await self.ports.treasury.of_turn(self.turn)
            # Whoever asked meanwhile has it already.
            self.bill = self.bill or TurnBill(self, self.ports.treasury, purse)
        return self.bill

    async def step(
        self,
        name: str,
        *facts: Fact,
        key: str = "",
        state: TurnState | None = None,
        reset: Reset | None = None,
        title: str | None = None,
        session_branch: str | None = None,
        head_commit: str | None = None,
        uses: Sequence[UseRecord] = (),
        transcript: bytes = b"",
        **progress: Any,
    ) -> None:
        """Take a durable step: the turn's new state and progress, the session's fields, the events and what models were used, in one
        transaction. One at a time: what happens beside the turn's own story (an answer of a model) takes steps too."""
        async with self._one_step:
            await self._step(
                name,
                facts,
                key=key,
                state=state,
                reset=reset,
                title=title,
                session_branch=session_branch,
                head_commit=head_commit,
                uses=uses,
                transcript=transcript,
                progress=progress,
            )

    async def _step(
        self,
        name: str,
        facts: Sequence[Fact],
        *,
        key: str,
        state: TurnState | None,
        reset: Reset | None,
        title: str | None,
        session_branch: str | None,
        head_commit: str | None,
        uses: Sequence[UseRecord],
        transcript: bytes,
        progress: dict[str, Any],
    ) -> None:
        new_state = state or self.turn.state
        if not can_advance(self.turn.state, new_state):
            raise ValueError(f"a turn cannot go from {self.turn.state} to {new_state}")
        turn = replace(self.turn, state=new_state, **progress)
        shown = [self.redactor.fact(fact) for fact in facts]
        self.turn = await self.ports.journal.commit(
            self.log,
            turn,
            shown,
            step=name,
            key=key,
            reset=reset,
            session_title=title,
            session_branch=session_branch,
            session_head_commit=head_commit,
            uses=uses,
            transcript=transcript,
        )
        self.session = replace(
            self.session,
            state=SESSION_STATE[self.turn.state],
            title=title if title is not None else self.session.title,
            branch=session_branch if session_branch is not None else self.session.branch,
            head_commit=head_commit if head_commit is not None else self.session.head_commit,
        )

    async def conclude(self, outcome: Outcome, *facts: Fact, transcript: bytes = b"") -> None:
        """The agent's part is over, one way or another: remember how, and what the agent wants to remember, and go on to publish what
        there is."""
        mask = self.redactor.text
        outcome = replace(outcome, message=mask(outcome.message), native_stop_reason=mask(outcome.native_stop_reason))
        told = [*facts]
        if outcome.status is TurnState.FAILED:
            told.append(self.ports.codec.error(str(outcome.code), outcome.message, retryable=False, fatal=True))
        if not told:
            told.append(self.ports.codec.session_updated(SESSION_STATE[TurnState.FINALIZING]))
        await self.step("conclude", *told, state=TurnState.FINALIZING, outcome=outcome, transcript=transcript)

    def worker_envelope(self) -> Envelope:
        """Who the agent's events are by."""
        return replace(
            self.log.server_envelope,
            turn_id=self.turn.id,
            attempt=self.turn.attempt,
            actor_kind="AGENT",
            actor_id=self.turn.provider,
            on_behalf_of=self.owner.user_id,
        )


def now() -> datetime:
    """The server's clock, for people; order is `seq`."""
    return datetime.now(UTC)
