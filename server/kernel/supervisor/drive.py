"""What one turn's story needs: the ports, the turn as it stands, and the one way to take a durable step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from server.kernel.agent_request import RequestKind
from server.kernel.errors import StoreUnavailable, TurnActive, WorkerProtocolBroken
from server.kernel.event import Envelope, Fact, WorkerBatch
from server.kernel.history import Snapshot
from server.kernel.identity import Principal
from server.kernel.journal import Journal, Notes, SessionLog
from server.kernel.places import Line
from server.kernel.ports.desk_store import DeskStore, News
from server.kernel.ports.egress import Egress
from server.kernel.ports.event_codec import EventCodec
from server.kernel.ports.history_store import HistoryStore
from server.kernel.ports.launcher import Launcher, Worker, WorkerId
from server.kernel.ports.model_gateway import ModelGateway
from server.kernel.ports.namer import Namer
from server.kernel.ports.object_store import ObjectStore
from server.kernel.ports.repositories import Repositories, Repository
from server.kernel.ports.tracer import Tracer
from server.kernel.ports.trees import Trees
from server.kernel.ports.turn_queue import TurnQueue
from server.kernel.ports.turn_store import Changes, Claimed, Opened, Reset, TurnStore
from server.kernel.ports.usage_store import UseRecord
from server.kernel.push_refusal import PushOutcome
from server.kernel.quota import Quota
from server.kernel.redaction import Redactor
from server.kernel.retrieval import Retrieval
from server.kernel.rush import Rush
from server.kernel.session import Session
from server.kernel.supervisor.bill import TurnBill
from server.kernel.supervisor.treasury import Treasury
from server.kernel.trailers import NO_TRAILERS, Trailers
from server.kernel.turn import SESSION_STATE, Awaiting, Outcome, Turn, TurnState, can_advance
from server.kernel.user_input import InputState
from server.kernel.wakeup import Wakeup

RETRY_SECONDS = 0.5
"""Between two tries while the store is away."""

MAX_REQUESTS = 1000
"""What an agent may ask in one turn."""

T = TypeVar("T")


@dataclass(frozen=True)
class Ports:
    """Everything that the supervisor reaches out to."""

    turns: TurnStore
    queue: TurnQueue
    desk: DeskStore
    journal: Journal
    codec: EventCodec
    repositories: Repositories
    trees: Trees
    retrieval: Retrieval
    notes: Notes
    history: HistoryStore
    recorded: Callable[[Snapshot], None]
    """Told of each checkpoint, which has to get into the object store."""
    checkpointing: Line
    """Where workspaces wait to be read while their agents work."""
    quota: Quota
    launcher: Launcher
    objects: ObjectStore
    models: ModelGateway
    egress: Egress
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
    waited: Callable[[float], None]
    """Told for how many seconds a turn had to wait for its place."""


@dataclass(frozen=True)
class Limits:
    """Times in seconds."""

    replica: str
    scratch: Path
    """A directory for files that may vanish at any time."""
    branch_prefix: str
    turn_seconds: float
    trailers: Trailers = NO_TRAILERS
    """Of every commit's message."""
    agent_steps: int = 0
    """How often an agent may ask its model in one turn; 0 for no limit."""
    interrupt_grace_seconds: float = 5.0
    """How long an interrupted worker may take to send its result before it is killed."""
    workspace_bytes: int = 0
    workspace_files: int = 0
    """What a workspace may take of the disk; 0 for no limit."""
    lease_seconds: float = 15.0
    import_retry_seconds: float = 60.0
    """How long a workspace that cannot be read back is tried again before it is kept as it is."""
    checkpoint_seconds: float = 0.0
    """How often the work of a running turn is kept; 0 for never."""
    max_turns: int = 64
    default_provider: str = "replay"
    """The agent of a session that has had none yet, for a queued input."""
    request_seconds: float = 0.0
    """How long a request of an agent waits for its answer; 0 for as long as it takes."""


class Drive:
    """One turn under this replica's lease. `turn` and `session` are always as the database has them."""

    def __init__(self, ports: Ports, limits: Limits, claimed: Claimed, log: SessionLog) -> None:
        self.ports = ports
        self.limits = limits
        self.turn: Turn = claimed.turn
        self.session: Session = claimed.session
        self.owner: Principal = claimed.owner
        self.log = log
        self.begun = claimed.begun
        """Whether the log had the turn's first events when it was claimed."""
        self.redactor = Redactor(ports.secrets())
        self.bill: TurnBill | None = None
        """Who pays for the turn's requests to models; None until somebody asks for one."""
        self.verdict: Outcome | None = None
        """How the turn ends whatever its agent says; None as long as nothing has decided that."""
        self.calls = Wakeup()
        """Somebody has said something, or there is something to say to the worker: `attend` looks."""
        self.changes = Wakeup()
        """The turn has changed, or shall stop."""
        self.worker: Worker | None = None
        """The worker, while its agent works."""
        self.agent_trace = ""
        """The trace context of the agent's part, once it has begun."""
        self.input_wanted = False
        self.prepared: str | None = None
        """The SHA-256 of what `.treadle/setup` made, or "", from the worker's first word of it."""
        """Whether the agent would take an input now."""
        self.answered: set[str] = set()
        """Requests whose answer the worker has from this process."""
        self.given: set[str] = set()
        """Inputs that the worker has from this process."""
        self._stepping = asyncio.Lock()
        self._tellings = 0
        self._edits = 0
        self.stop_requested = asyncio.Event()
        self.stop_reason = claimed.turn.interrupt_reason
        if self.stop_reason:
            self.stop_requested.set()

    @property
    def repository(self) -> Repository:
        """The session's repository, as its owner sees it."""
        return self.session.repository

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
        self.changes.notify()

    def call(self) -> None:
        """There is something for `attend` to do."""
        self.calls.notify()

    def seconds_left(self) -> float | None:
        """Of the turn's time limit; None while the agent waits for people: that time does not count."""
        return None if self.turn.awaiting else self.limits.turn_seconds - self.turn.worked_seconds(now())

    # -- steps --------------------------------------------------------------------------------------------------------------

    def fail(self, outcome: Outcome) -> None:
        """The turn shall end early, and not as its user wished. The first word stands."""
        self.verdict = self.verdict or outcome
        self.stop_requested.set()
        self.changes.notify()

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
        push: PushOutcome | None = None,
        uses: Sequence[UseRecord] = (),
        transcript: bytes = b"",
        changes: Changes | None = None,
        passed: int = 0,
        **progress: Any,
    ) -> None:
        """Take a durable step: the turn's new state and progress, the session's fields, the events and what models were used, in one
        transaction. `passed`: bytes of the network, besides those before. One at a time: what happens beside the turn's own story (an
        answer of a model, a word of the user) takes steps too."""
        async with self._stepping:
            await self._take(
                name,
                *facts,
                key=key,
                state=state,
                reset=reset,
                title=title,
                session_branch=session_branch,
                head_commit=head_commit,
                push=push,
                uses=uses,
                transcript=transcript,
                changes=changes,
                passed=passed,
                **progress,
            )

    async def _take(
        self,
        name: str,
        *facts: Fact,
        key: str = "",
        state: TurnState | None = None,
        awaiting: Awaiting | None = None,
        reset: Reset | None = None,
        title: str | None = None,
        session_branch: str | None = None,
        head_commit: str | None = None,
        push: PushOutcome | None = None,
        uses: Sequence[UseRecord] = (),
        transcript: bytes = b"",
        heard: WorkerBatch | None = None,
        changes: Changes | None = None,
        passed: int = 0,
        user_id: str = "",
        **progress: Any,
    ) -> None:
        """A step, by whoever has `_stepping`: each stands on the turn as the one before has left it."""
        new_state = state or self.turn.state
        if not can_advance(self.turn.state, new_state):
            raise ValueError(f"a turn cannot go from {self.turn.state} to {new_state}")
        turn = replace(self.turn, state=new_state, network_bytes=self.turn.network_bytes + passed, **progress)
        if awaiting is not None:
            turn = turn.waiting_for(awaiting, now())
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
            session_push=push,
            uses=uses,
            transcript=transcript,
            heard=heard,
            changes=changes,
            user_id=user_id,
        )
        self.changes.notify()
        self.session = replace(
            self.session,
            state=self.turn.session_state,
            title=title if title is not None else self.session.title,
            branch=session_branch if session_branch is not None else self.session.branch,
            head_commit=head_commit if head_commit is not None else self.session.head_commit,
            pushed_commit=push.commit if push and push.commit else self.session.pushed_commit,
        )

    async def conclude(self, outcome: Outcome, *facts: Fact, transcript: bytes = b"", push: PushOutcome | None = None) -> None:
        """The agent's part is over, one way or another: remember how, and what the agent wants to remember, and go on to publish what
        there is; with `push`, why that cannot be pushed."""
        mask = self.redactor.text
        outcome = replace(outcome, message=mask(outcome.message), native_stop_reason=mask(outcome.native_stop_reason))
        async with self._stepping:
            # From here on nobody can answer or take anything any more, so what is told now is all.
            await patiently(partial(self.ports.desk.close, self.turn, epoch=self.log.epoch))
            news = await self.news()
            told = [*self._facts_of(news), *facts]
            if outcome.status is TurnState.FAILED:
                told.append(self.ports.codec.error(str(outcome.code), outcome.message, retryable=False, fatal=True))
            if not told or self.turn.awaiting:
                told.append(self.ports.codec.session_updated(SESSION_STATE[TurnState.FINALIZING]))
            await self._take(
                "conclude",
                *told,
                state=TurnState.FINALIZING,
                outcome=outcome,
                concluded_at=now(),
                awaiting=Awaiting.NOBODY,
                transcript=transcript,
                push=push,
                changes=_told(news),
            )

    async def edit(self, change: Callable[[], Awaitable[Sequence[Fact]]], *, user_id: str) -> None:
        """A user changes something in the workspace: not when the agent's part is over, for then it is read back. Errors: TurnActive."""
        async with self._stepping:
            if self.worker is None or self.turn.state is not TurnState.RUNNING:
                raise TurnActive(self.session.id, self.turn.id, edit=True)
            if facts := await change():
                self._edits += 1
                await self._take("edit", *facts, key=f"edit.{self.log.epoch}.{self._edits}", user_id=user_id)

    # -- what people say and are asked --------------------------------------------------------------------------------------

    async def news(self) -> News:
        """What people have said, as far as it concerns this turn."""
        return await patiently(partial(self.ports.desk.news, self.turn))

    async def tell(self) -> News:
        """Tell what people have said since the last time, if there is anything. A turn that is not in the log yet, or ended, tells
        nothing."""
        async with self._stepping:
            news = await self.news()
            changes = _told(news)
            if changes is None or self.turn.state is TurnState.QUEUED or self.turn.state.terminal:
                return news
            self._tellings += 1
            await self._take(
                "tell",
                *self._facts_of(news),
                *self._state_with(_awaited(news)),
                key=f"tell.{self.log.epoch}.{self._tellings}",
                awaiting=_awaited(news),
                changes=changes,
            )
            return news

    async def ask(self, asked: WorkerBatch, opened: Opened) -> None:
        """The agent asks: its event, the request that can be answered, and the session's state. Errors: WorkerProtocolBroken."""
        async with self._stepping:
            news = await self.news()
            if len(news.open) + len(news.resolved) >= MAX_REQUESTS:
                raise WorkerProtocolBroken(f"the agent asked more than {MAX_REQUESTS} times in one turn")
            awaiting = _awaited(news, opened.request.kind)
            await self._take(
                "ask",
                *self._state_with(awaiting),
                key=f"ask.{self.turn.attempt}.{asked.last_worker_seq}",
                awaiting=awaiting,
                heard=asked,
                changes=Changes(opened=opened),
            )

    async def take(self, input_id: str) -> None:
        """The agent has an input that was offered to it; of any other, nothing is believed."""
        async with self._stepping:
            news = await self.news()
            offered = (each for each in news.steering if each.id == input_id and each.state is InputState.OFFERED)
            if (taken := next(offered, None)) is not None:
                await self._take(
                    "taken",
                    self.ports.codec.input_updated(replace(taken, state=InputState.DELIVERED)),
                    key=f"taken.{input_id}",
                    changes=Changes(taken_inputs=(input_id,)),
                )

    def _facts_of(self, news: News) -> list[Fact]:
        codec = self.ports.codec
        facts = [codec.request_resolved(each) for each in news.resolved if each.request_id in news.untold_requests]
        if news.untold_pull_request is not None:
            facts.append(codec.pull_request_updated(news.untold_pull_request))
        return facts + [codec.input_updated(each) for each in news.untold_inputs]

    def _state_with(self, awaiting: Awaiting) -> list[Fact]:
        """The session's state, if it changes with whom the agent waits for."""
        changed = replace(self.turn, awaiting=awaiting)
        same = changed.session_state is self.turn.session_state
        return [] if same else [self.ports.codec.session_updated(changed.session_state)]

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


def _told(news: News) -> Changes | None:
    """What is told when all news are; None when there are none."""
    if not news.untold_inputs and not news.untold_requests and news.untold_pull_request is None:
        return None
    return Changes(
        told_inputs=[(each.id, each.version) for each in news.untold_inputs],
        told_requests=[*news.untold_requests],
        told_pull_request=news.untold_pull_request,
    )


def _awaited(news: News, *more: RequestKind) -> Awaiting:
    """Whom the agent waits for."""
    kinds = {*more, *(each.kind for each in news.open)}
    if RequestKind.APPROVAL in kinds:
        return Awaiting.APPROVAL
    return Awaiting.USER if kinds else Awaiting.NOBODY


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Something that may be repeated, until the store has done it."""
    while True:
        try:
            return await call()
        except StoreUnavailable:
            await asyncio.sleep(RETRY_SECONDS)


def now() -> datetime:
    """The server's clock, for people; order is `seq`."""
    return datetime.now(UTC)
