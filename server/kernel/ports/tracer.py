"""Port: spans of what the server does, for people who look for where the time went."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Span(Protocol):
    """What is known of a span only while it lasts."""

    def note(self, **attributes: str | int | bool) -> None:
        """Add attributes: ids, names and numbers only."""
        ...


class Tracer(Protocol):
    """Makes spans. The current span belongs to the current task: what begins inside it is its child, also over awaits.

    Trace contexts are W3C `traceparent` values (https://www.w3.org/TR/trace-context/); empty where nothing is traced, and a
    malformed one counts as none. Nothing here waits, fails, or holds a secret: attributes are ids, names and numbers only.
    """

    def span(self, name: str, *, parent: str = "", **attributes: str | int | bool) -> AbstractContextManager[Span]:
        """The block as a span: child of `parent` when given, else of the current span, else the first of a trace. An exception that
        leaves the block marks it as failed, by its type only; a cancelled block is no failure."""
        ...

    def current(self) -> str:
        """The trace context of the current span."""
        ...


class NoTracer:
    """Traces nothing."""

    def span(self, name: str, *, parent: str = "", **attributes: str | int | bool) -> AbstractContextManager[Span]:
        """See Tracer."""
        return nullcontext(self)

    def note(self, **attributes: str | int | bool) -> None:
        """See Span."""

    def current(self) -> str:
        """See Tracer."""
        return ""
