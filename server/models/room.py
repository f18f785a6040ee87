"""Memory that requests take up, from their first byte until they are sent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from server.kernel.wakeup import Wakeup

_OWN_BYTES = 4 * 1024 * 1024


class Room:
    """What the requests of all turns take up together. It is taken as bytes come: what was only announced takes nothing."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.places: dict[Place, None] = {}
        """In the order in which they came."""
        self.changes = Wakeup()

    @property
    def used(self) -> int:
        """Bytes."""
        return sum(place.used for place in self.places)


class Share:
    """One turn's part of the room."""

    def __init__(self, room: Room, size: int) -> None:
        self.room = room
        self.size = size
        self.places: dict[Place, None] = {}

    @contextmanager
    def place(self) -> Iterator[Place]:
        """For one request."""
        place = Place(self)
        try:
            yield place
        finally:
            place.leave()


class Place:
    """One request's part of its turn's share."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self.used = 0
        for places in (share.places, share.room.places):
            places[self] = None

    async def grow(self, size: int) -> None:
        """Wait until so many bytes more fit, and have them. Wait with a limit."""
        changes = self._share.room.changes
        while not self._fits(size):
            await changes.after(changes.count)
        self.used += size

    def leave(self) -> None:
        """It takes up nothing more. Repeatable."""
        for places in (self._share.places, self._share.room.places):
            places.pop(self, None)
        self.used = 0
        self._share.room.changes.notify()

    def _fits(self, size: int) -> bool:
        share, room = self._share, self._share.room
        used = sum(place.used for place in share.places) + size
        # A turn has a little for itself, whatever others do.
        if used <= _OWN_BYTES:
            return True
        # The first may always go on: else all could be waiting for each other, each with half of its bytes.
        return (used <= share.size or self._first(share.places)) and (room.used + size <= room.size or self._first(room.places))

    def _first(self, places: dict[Place, None]) -> bool:
        return next(iter(places), None) is self
