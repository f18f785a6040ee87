"""Beside a turn: how long nobody needs to look."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from server.kernel.agent_request import OpenRequest, RequestKind
from server.kernel.ports.desk_store import News
from server.kernel.supervisor.attend import RETRY_SECONDS, _until_expiry


def asked(seconds: float | None) -> OpenRequest:
    expires_at = None if seconds is None else datetime.now(UTC) + timedelta(seconds=seconds)
    return OpenRequest("r", RequestKind.QUESTION, expires_at)


def test_the_next_look_is_when_the_first_request_expires() -> None:
    assert _until_expiry(News()) is None
    assert _until_expiry(News(open=[asked(None)])) is None
    assert _until_expiry(News(open=[asked(None), asked(60), asked(3600)])) == pytest.approx(60, abs=1)


def test_a_database_whose_clock_is_behind_is_not_asked_all_the_time() -> None:
    assert _until_expiry(News(open=[asked(-60)])) == RETRY_SECONDS
