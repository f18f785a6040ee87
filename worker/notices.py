"""What a worker tells that is no event: each notice at its place among the events, and again on every stream."""

from __future__ import annotations

from treadle.worker.v1 import worker_service_pb2 as wire
from worker.spool import Spool


class Notices:
    """All notices of the turn, in order. They are few: one for each input that was taken and each request that was withdrawn."""

    def __init__(self, spool: Spool) -> None:
        self.wanted = False
        """Whether the agent would take an input now; only the latest counts."""
        self._spool = spool
        self._told: list[tuple[int, bytes]] = []

    def tell(self, notice: wire.WorkerNotice) -> None:
        """Tell it behind the events that there are so far."""
        self._told.append((self._spool.last, notice.SerializeToString()))
        self._spool.wake()

    def want(self, *, wanted: bool) -> None:
        """Tell whether the agent would take an input now."""
        if wanted != self.wanted:
            self.wanted = wanted
            self._spool.wake()

    def reader(self) -> NoticeReader:
        """For a new stream."""
        return NoticeReader(self, self._told)


class NoticeReader:
    """Where one stream stands among the notices."""

    def __init__(self, notices: Notices, told: list[tuple[int, bytes]]) -> None:
        self._notices = notices
        self._told = told
        self._sent = 0
        self._wanted = False

    @property
    def limit(self) -> int | None:
        """The worker_seq of the last event that may be sent before the next notice; None when no notice waits."""
        return self._told[self._sent][0] if self._sent < len(self._told) else None

    def next(self) -> bytes | None:
        """The next notice, serialised, once everything up to `limit` was sent; None when there is no news."""
        if self._sent < len(self._told):
            self._sent += 1
            return self._told[self._sent - 1][1]
        if self._wanted != self._notices.wanted:
            self._wanted = self._notices.wanted
            return wire.WorkerNotice(input_wanted=self._wanted).SerializeToString()
        return None
