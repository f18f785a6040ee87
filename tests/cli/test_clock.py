"""Times that people read."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from server.cli.clock import local_time


@pytest.fixture
def in_new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "EST5EDT,M3.2.0,M11.1.0")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("in_new_york")
def test_times_are_those_of_the_reader() -> None:
    moment = Timestamp()
    moment.FromJsonString("2026-11-26T03:04:05Z")
    assert local_time(moment) == "2026-11-25 22:04"
