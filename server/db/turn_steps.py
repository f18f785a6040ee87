"""The parts of one durable step of a turn. Each raises Fenced when it finds anything but what its caller knows; the transaction that
they share is then rolled back, so that a step is written whole or not at all."""

from __future__ import annotations

import asyncpg

from server.db.queries import SQL
from server.kernel.errors import Fenced
from server.kernel.event import Chunk
from server.kernel.turn import SESSION_STATE, Turn


async def lock_epoch(connection: asyncpg.Connection, session_id: str, epoch: int) -> None:
    """Nobody takes the session over before the step has ended. Errors: Fenced."""
    if await connection.fetchval(SQL["lock_head"], session_id, epoch) is None:
        raise Fenced(session_id, epoch)


async def append_server_chunk(
    connection: asyncpg.Connection, session_id: str, epoch: int, chunk: Chunk, *, turn_id: str | None, attempt: int
) -> None:
    """Append the server's own events at the head. Errors: Fenced."""
    tenant_id = await connection.fetchval(SQL["advance_head"], session_id, epoch, chunk.first_seq, chunk.last_seq + 1)
    if tenant_id is None:
        raise Fenced(session_id, epoch)
    await connection.execute(
        SQL["insert_server_chunk"], tenant_id, session_id, chunk.first_seq, chunk.last_seq, turn_id, attempt, epoch, chunk.data
    )


async def commit_step(
    connection: asyncpg.Connection,
    turn: Turn,
    *,
    expected_version: int,
    epoch: int,
    end_seq: int,
    title: str | None,
    branch: str | None,
    head_commit: str | None,
) -> None:
    """Write the turn's mutable fields and what follows from them for its session; `end_seq` counts when the turn ends now.
    Errors: Fenced."""
    outcome = turn.outcome
    changed = await connection.fetchval(
        SQL["update_turn"],
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
        end_seq,
    )
    if changed is None:
        raise Fenced(turn.session_id, epoch)
    await connection.execute(
        SQL["update_session_progress"], turn.tenant_id, turn.session_id, SESSION_STATE[turn.state], title, branch, head_commit
    )
