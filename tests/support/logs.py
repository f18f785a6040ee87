"""Sessions, turns and chunks for tests of the stores."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

from server.db.stores import Stores
from server.kernel.agent_request import AgentRequest, RequestKind
from server.kernel.event import Chunk, Run
from server.kernel.identity import Principal
from server.kernel.model_use import ModelUse, Tokens
from server.kernel.ports.input_store import Sent, Starter
from server.kernel.ports.turn_store import Changes, Claimed, NewTurn, Opened, Reset
from server.kernel.ports.usage_store import UseRecord
from server.kernel.session import NewSession
from server.kernel.turn import Awaiting, TurnState
from server.kernel.user_input import Delivery, NewInput

NO_PLACE = Starter("", 60, "replay")
"""Whoever starts a turn so lets it wait."""


def event(seq: int, size: int = 20) -> bytes:
    """Something that is told from every other event, in the form in which chunks hold it."""
    body = f"event {seq} ".encode().ljust(size, b".")
    length = len(body)
    prefix = bytearray(b"\x0a")
    while length > 0x7F:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes(prefix) + bytes([length]) + body


def chunk(first_seq: int, last_seq: int, *, size: int = 20) -> Chunk:
    """The events `first_seq` to `last_seq`."""
    return Chunk(first_seq, last_seq, b"".join(event(seq, size) for seq in range(first_seq, last_seq + 1)))


def new_session() -> NewSession:
    return NewSession(id=str(uuid4()), repository_url="https://github.com/acme/app", base_branch="main", title="A title", labels={"a": "b"})


def new_turn(*, request_id: str = "") -> NewTurn:
    return NewTurn(str(uuid4()), request_id, "digest", "replay", "demo", "do it")


async def start_turn(
    stores: Stores,
    owner: Principal,
    session: NewSession | str | None = None,
    *,
    request_id: str = "",
    replica: str = "r1",
    seconds: float = 60,
    approvals: str = "",
) -> Claimed:
    """A queued turn, in a new session if none is given."""
    turn = replace(new_turn(request_id=request_id), approvals=approvals)
    begun = await stores.turns.start(owner, session or new_session(), turn, replica=replica, lease_seconds=seconds)
    assert isinstance(begun, Claimed), "there is no place"
    return begun


async def start_worker(stores: Stores, owner: Principal) -> Claimed:
    """A turn whose first worker may append; nothing is in the log yet."""
    claimed = await start_turn(stores, owner)
    turn = replace(claimed.turn, state=TurnState.PREPARING, attempt=1)
    await stores.turns.commit(turn, expected_version=1, epoch=claimed.epoch, chunk=None, reset=Reset(turn.id, 1))
    return replace(claimed, turn=replace(turn, version=2))


async def end_turn(stores: Stores, claimed: Claimed, *, version: int = 1, transcript: bytes = b"", commit: str = "") -> None:
    """Its last step, with one event."""
    head = await stores.events.head(claimed.session.id)
    assert head is not None
    turn = replace(claimed.turn, commit=commit, commit_message="work" if commit else "")
    if transcript and commit:  # an agent's memory is kept before its work is read back
        await stores.turns.commit(claimed.turn, expected_version=version, epoch=claimed.epoch, chunk=None, transcript=transcript)
        version += 1
    await stores.turns.commit(
        replace(turn, state=TurnState.COMPLETED),
        expected_version=version,
        epoch=claimed.epoch,
        chunk=chunk(head.next_seq, head.next_seq),
        transcript=b"" if commit else transcript,
        session_head_commit=commit or None,
    )


async def use_model(
    stores: Stores, claimed: Claimed, *, version: int, number: int = 1, tokens: tuple[int, ...] = (1, 2), micros: int | None = 3
) -> None:
    """A step that tells nothing but what a model was used."""
    record = UseRecord(number, ModelUse("claude-x", Tokens(*tokens), micros))
    await stores.turns.commit(claimed.turn, expected_version=version, epoch=claimed.epoch, chunk=None, uses=[record])


async def send(
    stores: Stores,
    owner: Principal,
    session_id: str,
    text: str = "more",
    *,
    delivery: Delivery = Delivery.QUEUE,
    request_id: str = "",
    starter: Starter = NO_PLACE,
) -> Sent:
    """Say something to a session."""
    return await stores.inputs.send(owner, session_id, NewInput(str(uuid4()), request_id, text, delivery), starter=starter, limit=100)


async def open_request(
    stores: Stores,
    claimed: Claimed,
    request: AgentRequest | None = None,
    *,
    first_seq: int,
    version: int = 2,
    worker_seq: int | None = None,
    expires_at: datetime | None = None,
) -> AgentRequest:
    """The worker of `claimed` asks; its event is at `first_seq`, which is also its worker_seq unless said."""
    request = request or AgentRequest("r", RequestKind.APPROVAL, option_ids=("yes", "no"))
    await stores.turns.commit(
        replace(claimed.turn, state=TurnState.RUNNING, awaiting=Awaiting.APPROVAL),
        expected_version=version,
        epoch=claimed.epoch,
        chunk=chunk(first_seq, first_seq),
        worker_seq=worker_seq or first_seq,
        changes=Changes(opened=Opened(request, expires_at)),
    )
    return request


def run_of(claimed: Claimed, first_seq: int, last_seq: int, *, first_worker_seq: int | None = None, size: int = 20) -> Run:
    """What the worker of `claimed` appends; its worker_seq is the seq unless said."""
    return Run(
        session_id=claimed.session.id,
        turn_id=claimed.turn.id,
        attempt=claimed.turn.attempt,
        epoch=claimed.epoch,
        first_worker_seq=first_worker_seq or first_seq,
        chunk=chunk(first_seq, last_seq, size=size),
        recorded_at=datetime.now(UTC),
    )
