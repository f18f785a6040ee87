"""A durable step of a turn, as the values of the one statement that writes it."""

from __future__ import annotations

import asyncpg

from server.db.queries import SQL
from server.db.rows import choices_of, pull_request_of
from server.db.transcripts import Packed
from server.kernel.errors import Fenced
from server.kernel.event import Chunk
from server.kernel.ports.turn_store import Changes, Reset
from server.kernel.push_refusal import PushOutcome
from server.kernel.turn import Turn


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
    push: PushOutcome | None,
    reset: Reset | None,
    transcript: Packed | None,
    worker_seq: int,
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
        turn.session_state,
        title,
        reset and reset.turn_id,
        reset and reset.attempt,
        branch,
        head_commit,
        transcript and transcript.data,
        transcript and transcript.size,
        worker_seq or None,
        turn.awaiting,
        turn.waiting_since,
        turn.waited_seconds,
        turn.network_bytes,
        turn.commit_message,
        push and push.commit,
        push and (push.refusal or ""),
        push and push.message,
        turn.concluded_at,
    )
    if written is None:
        raise Fenced(turn.session_id, epoch)


async def commit_changes(connection: asyncpg.Connection, turn: Turn, chunk: Chunk | None, changes: Changes) -> None:
    """What a step changes besides, in the step's transaction and behind it."""
    own = (turn.tenant_id, turn.session_id)
    if changes.opened is not None and chunk is not None:
        request, expires_at = changes.opened.request, changes.opened.expires_at
        asked = (request.id, turn.id, turn.attempt, chunk.first_seq, request.kind, choices_of(request), expires_at)
        await connection.execute(SQL["open_request"], *own, *asked)
    if changes.told_inputs:
        ids, versions = zip(*changes.told_inputs, strict=True)
        await connection.execute(SQL["told_inputs"], *own, ids, versions)
    if changes.taken_inputs:
        await connection.execute(SQL["taken_inputs"], *own, turn.id, changes.taken_inputs)
    if changes.told_requests:
        await connection.execute(SQL["told_requests"], *own, changes.told_requests)
    if changes.told_pull_request is not None:
        await connection.execute(SQL["told_pull_request"], *own, pull_request_of(changes.told_pull_request))
    if (snapshot := changes.snapshot) is not None:
        about = (snapshot.kind, snapshot.commit, snapshot.parent, snapshot.message)
        await connection.execute(SQL["insert_snapshot"], turn.tenant_id, turn.owner_id, turn.session_id, *about)
    if (snapshot := changes.checkpoint) is not None:
        work = (snapshot.commit, snapshot.parent, snapshot.message)
        await connection.execute(SQL["insert_checkpoint"], turn.tenant_id, turn.owner_id, turn.session_id, turn.id, turn.provider, *work)
        await connection.execute(SQL["expire_checkpoints"], *own, turn.id)
