"""What is said in a session's log between turns, when nobody drives it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from server.kernel.errors import StoreUnavailable
from server.kernel.event import Chunk, Envelope, Fact
from server.kernel.history import LogEnd, NewSnapshot, Snapshot
from server.kernel.identity import Principal
from server.kernel.journal.journal import Journal
from server.kernel.ports.event_codec import EventCodec
from server.kernel.ports.history_store import HistoryStore, Seal
from server.kernel.push_refusal import PushOutcome
from server.kernel.redaction import Redactor


class Notes:
    """Facts that belong to no turn, in the name of the user who caused them. Refused while a turn is active: then its driver alone
    writes."""

    def __init__(
        self,
        history: HistoryStore,
        journal: Journal,
        codec: EventCodec,
        *,
        secrets: Callable[[], Sequence[str]],
        recorded: Callable[[Snapshot], None],
    ) -> None:
        """`recorded` is told of each new snapshot, which has to get into the object store."""
        self._history = history
        self._journal = journal
        self._codec = codec
        self._secrets = secrets
        self._recorded = recorded

    async def record(
        self,
        principal: Principal,
        session_id: str,
        *,
        head: str,
        snapshot: NewSnapshot,
        facts: Sequence[Fact],
        end: LogEnd | None = None,
    ) -> Snapshot:
        """Move the session's head from `head` to the snapshot's commit, and tell `facts` (at least one); `end` as for HistoryStore. After
        a lost answer it may be called again with the same. Errors: SessionNotFound, TurnActive, HeadMoved, StoreUnavailable."""
        seal = self.sealing(principal, session_id, f"{snapshot.kind.lower()}/{snapshot.commit}", facts)
        try:
            made = await self._history.record(principal, session_id, head=head, snapshot=snapshot, seal=seal, end=end)
        except StoreUnavailable:  # perhaps with the answer only: the store knows its own
            made = await self._history.record(principal, session_id, head=head, snapshot=snapshot, seal=seal)
        self._recorded(made)
        self._journal.look_again(made.session_id)
        return made

    async def note(
        self,
        principal: Principal,
        session_id: str,
        *,
        key: str,
        facts: Sequence[Fact],
        branch: str | None = None,
        push: PushOutcome | None = None,
    ) -> None:
        """Tell `facts` (at least one), of a `push` with what it makes of the session. Their ids are made of `key`, which no other note of
        the session has. Errors: SessionNotFound, TurnActive; StoreUnavailable, and nothing was told, or it is unknown."""
        sealed: list[Chunk] = []
        make = self.sealing(principal, session_id, f"note/{key}", facts)

        def seal(first_seq: int, epoch: int) -> Chunk:
            sealed.append(make(first_seq, epoch))
            return sealed[-1]

        try:
            await self._history.note(principal, session_id, seal, branch=branch, push=push)
        except StoreUnavailable:
            if not sealed or not await self._journal.has(session_id, sealed[-1]):
                raise
        self._journal.look_again(session_id)

    def sealing(self, principal: Principal, session_id: str, key: str, facts: Sequence[Fact], *, server: str = "") -> Seal:
        """What makes a chunk of facts, in the name of the user, or of this `server`. `key` makes their ids unique in the session."""
        redactor, now = Redactor(self._secrets()), datetime.now(UTC)
        bodies = [redactor.fact(fact).body for fact in facts]

        def seal(first_seq: int, epoch: int) -> Chunk:
            envelope = Envelope(session_id, "", 0, epoch, "SERVER" if server else "USER", server or principal.user_id)
            return self._codec.seal(
                envelope, bodies, first_seq=first_seq, event_id_prefix=f"{session_id}/{key}/", first_number=1, recorded_at=now
            )

        return seal
