"""From rows to the kernel's values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg

from server.kernel.agent_request import AgentRequest, Answer, Question, RequestKind, RequestOutcome, Resolution
from server.kernel.code_host import PullRequest, PullRequestState
from server.kernel.history import Snapshot, SnapshotKind
from server.kernel.identity import Principal
from server.kernel.ports.trees import Change, Entry, Kind
from server.kernel.ports.turn_store import Claimed
from server.kernel.push_refusal import PushRefusal
from server.kernel.session import Session, SessionState
from server.kernel.turn import Awaiting, Outcome, Turn, TurnCode, TurnState
from server.kernel.user_input import Delivery, InputState, UserInput


def parse_uuid(text: str) -> UUID | None:
    """None for anything that is no UUID: such an id cannot exist."""
    try:
        return UUID(text)
    except ValueError:
        return None


def session_from(row: asyncpg.Record) -> Session:
    """A row of `sessions` with `next_seq`, `epoch` and `active_turn_id`."""
    return Session(
        id=str(row["id"]),
        tenant_id=row["tenant_id"],
        owner_id=row["owner_id"],
        title=row["title"],
        repository_url=row["repository_url"],
        base_branch=row["base_branch"],
        branch=row["branch"],
        branch_requested=row["branch_requested"],
        state=SessionState(row["state"]),
        provider=row["provider"],
        model=row["model"],
        head_commit=row["head_commit"],
        pushed_commit=row["pushed_commit"],
        push_refusal=PushRefusal(row["push_refusal"]) if row["push_refusal"] else None,
        push_message=row["push_message"],
        pull_request=pull_request_from(row["pull_request"]),
        labels=json.loads(row["labels"]),
        allowed_hosts=tuple(row["allowed_hosts"]),
        version=row["version"],
        last_seq=row["next_seq"] - 1,
        epoch=row["epoch"],
        active_turn_id=str(row["active_turn_id"] or ""),
        open_requests=tuple(row.get("open_requests") or ()),
        waiting_inputs=row.get("waiting_inputs") or 0,
        stored_bytes=row.get("stored_bytes") or 0,
        told_place=None if row.get("ahead") is None else (row["ahead"], row["told_reason"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def pull_request_of(pull_request: PullRequest) -> str:
    """The column `pull_request`: the summary of one."""
    return json.dumps(
        {
            "number": pull_request.number,
            "title": pull_request.title,
            "state": pull_request.state,
            "url": pull_request.url,
            "head": pull_request.head,
            "base": pull_request.base,
            "head_commit": pull_request.head_commit,
            "draft": pull_request.draft,
            "updated_at": pull_request.updated_at and pull_request.updated_at.astimezone(UTC).isoformat(),
        }
    )


def pull_request_from(column: str | None) -> PullRequest | None:
    """What `pull_request_of` wrote."""
    if column is None:
        return None
    found = json.loads(column)
    moment = found.pop("updated_at")
    return PullRequest(
        **{**found, "state": PullRequestState(found["state"])}, body="", updated_at=datetime.fromisoformat(moment) if moment else None
    )


def turn_from(row: asyncpg.Record) -> Turn:
    """A row of `turns`."""
    return Turn(
        id=str(row["id"]),
        tenant_id=row["tenant_id"],
        session_id=str(row["session_id"]),
        owner_id=row["owner_id"],
        number=row["number"],
        request_id=row["request_id"],
        request_digest=row["request_digest"],
        provider=row["provider"],
        model=row["model"],
        prompt=row["prompt"],
        trace_parent=row["trace_parent"],
        approvals=row["approvals"],
        input_id=str(row["input_id"] or ""),
        state=TurnState(row["state"]),
        version=row["version"],
        base_commit=row["base_commit"],
        branch=row["branch"],
        attempt=row["attempt"],
        interrupt_reason=row["interrupt_reason"],
        awaiting=Awaiting(row["awaiting"]),
        waiting_since=row["waiting_since"],
        waited_seconds=row["waited_seconds"],
        network_bytes=row["network_bytes"],
        outcome=_outcome_from(row),
        imported=row["imported"],
        commit=row["commit"],
        commit_message=row["commit_message"],
        push_attempted=row["push_attempted"],
        pushed=row["pushed"],
        snapshot_state=row["snapshot_state"],
        snapshot_key=row["snapshot_key"],
        snapshot_sha256=row["snapshot_sha256"],
        snapshot_size=row["snapshot_size"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        concluded_at=row["concluded_at"],
        ended_at=row["ended_at"],
        start_seq=row["start_seq"],
        end_seq=row["end_seq"],
    )


def snapshot_from(row: asyncpg.Record) -> Snapshot:
    """A row of `snapshots`."""
    return Snapshot(
        tenant_id=row["tenant_id"],
        session_id=str(row["session_id"]),
        number=row["number"],
        owner_id=row["owner_id"],
        kind=SnapshotKind(row["kind"]),
        commit=row["commit"],
        parent=row["parent"],
        message=row["message"],
        actor=row["actor"],
        turn_id=str(row["turn_id"] or ""),
        conversation=row["conversation"],
        stored=row["state"] == "STORED",
        key=row["object_key"],
        sha256=row["sha256"],
        size=row["size"],
        created_at=row["created_at"],
        expired=row["state"] == "EXPIRED",
        lost=row["state"] == "LOST",
        current=row.get("current") or False,
        pushed=row.get("pushed") or False,
    )


def claimed_from(turn: asyncpg.Record, session: asyncpg.Record) -> Claimed:
    """A row of `claimed_turns`, and the one of `claimed_sessions` that belongs to it."""
    owner = Principal(turn["tenant_id"], turn["owner_id"], turn["owner_name"], turn["owner_email"])
    return Claimed(turn_from(turn), session_from(session), owner, turn["epoch"])


def _outcome_from(row: asyncpg.Record) -> Outcome | None:
    if row["outcome_status"] is None:
        return None
    return Outcome(
        status=TurnState(row["outcome_status"]),
        code=TurnCode(row["outcome_code"]),
        message=row["outcome_message"],
        native_stop_reason=row["outcome_native_stop_reason"],
    )


def input_from(row: asyncpg.Record) -> UserInput:
    """A row of `inputs`."""
    return UserInput(
        id=str(row["id"]),
        session_id=str(row["session_id"]),
        position=row["position"],
        text=row["text"],
        delivery=Delivery(row["delivery"]),
        state=InputState(row["state"]),
        version=row["version"],
        told_version=row["told_version"],
        turn_id=str(row["turn_id"] or ""),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def choices_of(request: AgentRequest) -> str:
    """The column `choices`: what may be answered."""
    questions = [[each.id, list(each.option_ids), each.multi, each.free_text] for each in request.questions]
    return json.dumps({"options": list(request.option_ids), "questions": questions})


def request_from(row: asyncpg.Record) -> AgentRequest:
    """A row of `requests`: what may be answered."""
    choices = json.loads(row["choices"])
    questions = tuple(Question(id_, tuple(options), multi, free_text) for id_, options, multi, free_text in choices["questions"])
    return AgentRequest(row["id"], RequestKind(row["kind"]), tuple(choices["options"]), questions)


def answers_of(resolution: Resolution) -> str:
    """The column `answers`."""
    return json.dumps([[each.question_id, list(each.option_ids), each.text] for each in resolution.answers])


def resolution_from(row: asyncpg.Record) -> Resolution:
    """A row of `requests` that is not open: what became of it."""
    answers = tuple(Answer(question_id, tuple(options), text) for question_id, options, text in json.loads(row["answers"]))
    return Resolution(row["id"], RequestOutcome(row["outcome"]), row["option_id"], answers, row["resolved_by"], row["note"])


def changes_to(changes: Sequence[Change | None]) -> str:
    """As `edit_requests.changes` holds them."""
    return json.dumps([change and asdict(change) for change in changes], separators=(",", ":"))


def changes_from(told: str) -> tuple[Change | None, ...]:
    """What `changes_to` has written."""
    return tuple(each and Change(**{**each, "entry": _entry_from(each["entry"])}) for each in json.loads(told))


def _entry_from(told: dict[str, Any] | None) -> Entry | None:
    return None if told is None else Entry(**{**told, "kind": Kind(told["kind"])})
