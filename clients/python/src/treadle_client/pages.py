"""How lists go on from page to page; the two clients turn them the same way."""

from __future__ import annotations

from treadle.session.v1 import session_service_pb2 as pb
from treadle.session.v1.input_pb2 import Input
from treadle.session.v1.session_pb2 import Session
from treadle.session.v1.snapshot_pb2 import Snapshot
from treadle_client.errors import SequenceBroken
from treadle_client.event import Event


class SessionPages:
    """Pages of sessions: ask with `request`, give the answer to `take`, until `done`."""

    def __init__(self, page_size: int) -> None:
        self.done = False
        self.request = pb.ListSessionsRequest(page_size=page_size)

    def take(self, page: pb.ListSessionsResponse) -> list[Session]:
        """The sessions of a page."""
        self.request.page_token = page.next_page_token
        self.done = not page.next_page_token
        return list(page.sessions)


class InputPages:
    """Pages of inputs: ask with `request`, give the answer to `take`, until `done`."""

    def __init__(self, session_id: str, *, everything: bool, page_size: int) -> None:
        self.done = False
        self.request = pb.ListInputsRequest(session_id=session_id, all=everything, page_size=page_size)

    def take(self, page: pb.ListInputsResponse) -> list[Input]:
        """The inputs of a page."""
        self.request.page_token = page.next_page_token
        self.done = not page.next_page_token
        return list(page.inputs)


class SnapshotPages:
    """Pages of a session's history: ask with `request`, give the answer to `take`, until `done`."""

    def __init__(self, session_id: str, *, page_size: int) -> None:
        self.done = False
        self.request = pb.ListSnapshotsRequest(session_id=session_id, page_size=page_size)

    def take(self, page: pb.ListSnapshotsResponse) -> list[Snapshot]:
        """The snapshots of a page."""
        self.request.page_token = page.next_page_token
        self.done = not page.next_page_token
        return list(page.snapshots)


class EventPages:
    """Pages of a log: ask with `request`, give the answer to `take`, until `done`."""

    def __init__(self, session_id: str, *, after_seq: int, page_size: int) -> None:
        self.done = False
        self.request = pb.ListEventsRequest(session_id=session_id, after_seq=after_seq, page_size=page_size)

    def take(self, page: pb.ListEventsResponse) -> list[Event]:
        """The events of a page. Errors: SequenceBroken."""
        for event in page.events:
            self._expect(event.seq)
            self.request.after_seq = event.seq
        self.done = self.request.after_seq >= page.last_seq
        if not self.done and not page.events:
            self._expect(page.last_seq + 1)
        return [Event(event) for event in page.events]

    def _expect(self, got: int) -> None:
        expected = self.request.after_seq + 1
        if got != expected:
            raise SequenceBroken(self.request.session_id, expected=expected, got=got)
