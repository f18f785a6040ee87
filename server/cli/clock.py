"""Times as whoever reads them has them on the wall."""

from __future__ import annotations

from datetime import UTC

from google.protobuf.timestamp_pb2 import Timestamp


def local_time(moment: Timestamp) -> str:
    """To the minute. (Without UTC a timestamp becomes a time that says of itself that it is local already.)"""
    return moment.ToDatetime(UTC).astimezone().strftime("%Y-%m-%d %H:%M")
