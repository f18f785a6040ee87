"""The journal's event store: one row per chunk, and one statement per append."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from server.db.pool import Database, DedicatedConnection
from server.db.queries import SQL
from server.db.rows import parse_uuid
from server.kernel.errors import StoreRejected
from server.kernel.event import Chunk, Head, Run, Tail

_PAGE_CHUNKS = 256
"""A page has no more chunks, however small they are."""


class PostgresEventStore:
    """Implements the port `EventStore` with the system role.

    `journal` has one connection, so that appends never wait for a reader, nor run side by side; `readers` serves all else.
    """

    def __init__(self, journal: DedicatedConnection, readers: Database) -> None:
        self._journal = journal
        self._readers = readers

    async def append(self, runs: Sequence[Run]) -> frozenset[str]:
        """See EventStore. Also StoreRejected for a run that breaks a constraint; then none was applied."""
        if not runs:
            return frozenset()
        rows = await self._journal.fetch(
            SQL["append_runs"],
            [run.session_id for run in runs],
            [run.turn_id for run in runs],
            [run.attempt for run in runs],
            [run.epoch for run in runs],
            [run.chunk.first_seq for run in runs],
            [run.chunk.last_seq for run in runs],
            [run.first_worker_seq for run in runs],
            [run.recorded_at for run in runs],
            [run.chunk.data for run in runs],
        )
        return frozenset(str(row["session_id"]) for row in rows)

    async def head(self, session_id: str) -> Head | None:
        """See EventStore."""
        if parse_uuid(session_id) is None:
            return None
        async with self._readers.connection() as connection:
            row = await connection.fetchrow(SQL["read_head"], session_id)
        if row is None:
            return None
        return Head(
            session_id=str(row["session_id"]),
            epoch=row["epoch"],
            next_seq=row["next_seq"],
            turn_id=str(row["turn_id"] or ""),
            attempt=row["attempt"],
            worker_seq=row["worker_seq"],
            active_turn_id=str(row["active_turn_id"] or ""),
            session_state=row["state"],
            input_due=row["input_due"],
            open_requests=tuple(row["open_requests"]),
        )

    async def tails(self, session_ids: Sequence[str]) -> Mapping[str, Tail]:
        """See EventStore."""
        async with self._readers.connection() as connection:
            rows = await connection.fetch(SQL["read_tails"], session_ids)
        return {
            str(row["session_id"]): Tail(row["epoch"], row["next_seq"], str(row["active_turn_id"] or ""), row["input_due"]) for row in rows
        }

    async def turn_end(self, turn_id: str) -> int:
        """See EventStore."""
        async with self._readers.connection() as connection:
            return await connection.fetchval(SQL["turn_end"], parse_uuid(turn_id)) or 0

    async def read(self, session_id: str, after_seq: int, *, max_bytes: int) -> list[Chunk]:
        """See EventStore. Also StoreRejected for a chunk that cannot be cut."""
        async with self._readers.connection() as connection:
            rows = await connection.fetch(SQL["read_chunks"], session_id, after_seq, max(max_bytes, 1), _PAGE_CHUNKS)
        chunks = [Chunk(row["first_seq"], row["last_seq"], row["data"]) for row in rows]
        if chunks:
            chunks[0] = _cut(session_id, chunks[0], after_seq)
        return chunks


def _cut(session_id: str, chunk: Chunk, after_seq: int) -> Chunk:
    """A page may begin inside a chunk. The rest must end where the chunk ends, or what was stored is not what was written."""
    if after_seq < chunk.first_seq:
        return chunk
    try:
        rest = chunk.after(after_seq)
        if replace(rest, data=rest.data + b"\0").after(rest.last_seq).data != b"\0":
            raise ValueError("it does not end where its last event ends")
    except (ValueError, IndexError) as error:
        raise StoreRejected(f"chunk {chunk.first_seq} of session {session_id}: {error}") from error
    return rest
