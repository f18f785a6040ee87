"""A durable step of a turn, as the values of the one statement that writes it."""

from __future__ import annotations

import asyncpg

from server.db.queries import SQL
from server.db.transcripts import Packed
from server.kernel.errors import Fenced
from server.kernel.event import Chunk
from server.kernel.ports.turn_store import Reset
from server.kernel.turn import SESSION_STATE, Turn


async def commit_step(
    connection: asyncpg.Connection,
    turn: Turn,
    *,
    expected_version: int,
    epoch: int,
    chunk: Chunk | None,
    title: str | None,
    branch: str | None,
    head_commit: str | None,
    reset: Reset | None,
    transcript: Packed | None,
) -> None:
    """Write the turn's mutable fields, what follows from them for its session, the step's events, and a transcript. Errors: Fenced when
    epoch, version or the head's position are not what the caller knows; nothing was written then."""
    outcome = turn.outcome
    written = await connection.fetchval(
        SQL["commit_step"],
        turn.tenant_id,
        turn.id,
        expected_version,
        turn.state,
        turn.base_commit,
        turn.branch,
        turn.attempt,
        turn.interrupt_reason,
        outcome and outcome.status,
        outcome and outcome.code,
        outcome and outcome.message,
        outcome and outcome.native_stop_reason,
        turn.imported,
        turn.commit,
        turn.push_attempted,
        turn.pushed,
        turn.snapshot_state,
        turn.snapshot_key,
        turn.snapshot_sha256,
        turn.snapshot_size,
        turn.started_at,
        turn.ended_at,
        turn.state.terminal,
        chunk and chunk.data,
        chunk and chunk.first_seq,
        chunk and chunk.last_seq,
        epoch,
        turn.session_id,
        SESSION_STATE[turn.state],
        title,
        reset and reset.turn_id,
        reset and reset.attempt,
        branch,
        head_commit,
        transcript and transcript.data,
        transcript and transcript.size,
    )
    if written is None:
        raise Fenced(turn.session_id, epoch)
