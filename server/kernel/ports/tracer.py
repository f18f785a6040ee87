"""Port: spans of what the server does, for people who look for where the time went."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import Protocol

Attribute = str | int | bool


class Span(Protocol):
    """What is known of a block only at its end."""

    def conclude(self, *, failed: str, **attributes: Attribute) -> None:
        """What came of it, whatever exception leaves the block then; `failed` names the failure, and is empty where there was none."""
        ...


class Tracer(Protocol):
    """Makes spans. The current span belongs to the current task: what begins inside it is its child, also over awaits.

    Trace contexts are W3C `traceparent` values (https://www.w3.org/TR/trace-context/); empty where nothing is traced, and a
    malformed one counts as none. Nothing here waits, fails, or holds a secret: attributes are ids, names and numbers only.
    """

    def span(self, name: str, *, parent: str = "", incoming: bool = False, **attributes: Attribute) -> AbstractContextManager[Span]:
        """The block as a span: child of `parent` when given, else of the current span, else the first of a trace. An exception that
        leaves the block marks it as failed, by its type only; a cancelled block is no failure. `incoming`: the block answers a call."""
        ...

    def record(self, name: str, began: datetime, ended: datetime) -> None:
        """A span that is over, of somebody who cannot make one: child of the current span."""
        ...

    def current(self) -> str:
        """The trace context of the current span."""
        ...


def trace_fields(tracer: Tracer) -> Mapping[str, str]:
    """For log lines: under which id the current trace is found."""
    current = tracer.current()
    return {"trace_id": current.split("-")[1]} if current else {}


class NoTracer:
    """Traces nothing."""

    def span(self, name: str, *, parent: str = "", incoming: bool = False, **attributes: Attribute) -> AbstractContextManager[Span]:
        """See Tracer."""
        return nullcontext(_NoSpan())

    def record(self, name: str, began: datetime, ended: datetime) -> None:
        """See Tracer."""

    def current(self) -> str:
        """See Tracer."""
        return ""


class _NoSpan:
    def conclude(self, *, failed: str, **attributes: Attribute) -> None:
        pass
