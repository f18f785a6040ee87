"""The kernel's Tracer with OpenTelemetry, exported by OTLP over gRPC. Nothing of it is imported when no endpoint is set."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from server.kernel.ports.tracer import Attribute, NoTracer, Span, Tracer

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span as OpenSpan

_FLUSH_MILLISECONDS = 2000
_EXPORT_SECONDS = 2
_HEADER = "traceparent"


@asynccontextmanager
async def open_tracer(endpoint: str, *, replica: str) -> AsyncIterator[Tracer]:
    """A tracer that sends to `endpoint` (`http://host:port` in the clear, `https://` with TLS); one that does nothing when it is empty.
    A collector that is away costs spans, and nothing else. At the end what waits is sent, for a few seconds at most."""
    if not endpoint:
        yield NoTracer()
        return
    provider = await asyncio.to_thread(_provider, endpoint, replica)
    try:
        yield OpenTelemetryTracer(provider)
    finally:
        await asyncio.to_thread(_close, provider)


class OpenTelemetryTracer:
    """Implements the port `Tracer`."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._tracer = provider.get_tracer("treadle")
        self._propagator = TraceContextTextMapPropagator()

    def span(self, name: str, *, parent: str = "", incoming: bool = False, **attributes: Attribute) -> AbstractContextManager[Span]:
        """See Tracer."""
        return self._span(name, parent, attributes, incoming=incoming)

    @contextmanager
    def _span(self, name: str, parent: str, attributes: dict[str, Attribute], *, incoming: bool) -> Iterator[Span]:
        from opentelemetry.trace import SpanKind

        context = self._propagator.extract({_HEADER: parent}) if parent else None
        kind = SpanKind.SERVER if incoming else SpanKind.INTERNAL
        with self._tracer.start_as_current_span(
            name, context, kind=kind, attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as opened:
            span = OpenTelemetrySpan(opened)
            try:
                yield span
            except (asyncio.CancelledError, GeneratorExit):
                # Normal life: a caller left, or the next process goes on with the turn.
                opened.set_attribute("cancelled", True)
                raise
            except BaseException as error:
                if not span.concluded:
                    # Never its text: it may hold what a user or a remote said.
                    span.conclude(failed=type(error).__name__)
                raise

    def record(self, name: str, began: datetime, ended: datetime) -> None:
        """See Tracer."""
        self._tracer.start_span(name, start_time=_nanoseconds(began)).end(end_time=_nanoseconds(ended))

    def current(self) -> str:
        """See Tracer."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return carrier.get(_HEADER, "")


class OpenTelemetrySpan:
    """Implements `Span`."""

    def __init__(self, span: OpenSpan) -> None:
        self.concluded = False
        self._span = span

    def conclude(self, *, failed: str, **attributes: Attribute) -> None:
        """See Span."""
        from opentelemetry.trace import Status, StatusCode

        self.concluded = True
        self._span.set_attributes(attributes)
        if failed:
            self._span.set_status(Status(StatusCode.ERROR, failed))


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000) * 1000


def _provider(endpoint: str, replica: str) -> TracerProvider:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource({"service.name": "treadle", "service.instance.id": replica}))
    exporter = OTLPSpanExporter(endpoint=endpoint, insecure=endpoint.startswith("http://"), timeout=_EXPORT_SECONDS)
    # It calls from a thread of its own; the queue is bounded, and full it drops spans.
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _close(provider: TracerProvider) -> None:
    provider.force_flush(_FLUSH_MILLISECONDS)
    provider.shutdown()
