"""Logs and metrics: how they are set up, and what is measured."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO
from weakref import WeakKeyDictionary

import structlog
from prometheus_client import Counter, Gauge, Histogram

from server.kernel.redaction import Redactor

CALLS = Counter("treadle_calls_total", "RPCs that ended, by method and status.", ["method", "code"])
CALL_SECONDS = Histogram("treadle_call_seconds", "Duration of unary RPCs in seconds.", ["method"])
STREAMS = Gauge("treadle_streams", "Streams that are open now.")
STREAM_BYTES = Counter("treadle_stream_bytes_total", "Bytes of frames that were sent to followers.")
TURNS_ACTIVE = Gauge("treadle_turns_active", "Turns that this replica drives now.")
TURNS_WAITING = Gauge("treadle_turns_waiting", "Turns that wait for a place, over all replicas.")
TURN_WAIT_SECONDS = Histogram(
    "treadle_turn_wait_seconds",
    "For how long turns waited that found no place, until this replica gave them one.",
    buckets=(0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600, 24 * 3600),
)
RETENTION_WAITING = Gauge(
    "treadle_retention_waiting_sessions",
    "Sessions with snapshots older than they are kept, over all replicas, that none has looked after yet.",
)
QUOTA_REFUSALS = Counter(
    "treadle_quota_refusals_total",
    "What was refused because a tenant's snapshots take as much as they may: calls, and checkpoints of turns.",
)
SPAWNER_UP = Gauge("treadle_spawner_up", "Whether the spawner answers, with a launcher that needs one.", ["launcher"])
WORKERS_READY = Gauge("treadle_workers_ready", "Workers that wait in the pool for a turn.", ["provider"])
POOL_CLAIMS = Counter(
    "treadle_pool_claims_total", "Workers that turns took from the pool (warm), or had to start (cold).", ["provider", "start"]
)
STEPS = Counter("treadle_steps_total", "Named points that turns and the journal passed.", ["step"])
STEP_SECONDS = Histogram("treadle_step_seconds", "Time between `<step>.before` and `<step>.after`.", ["step"])
MODEL_REQUESTS = Counter(
    "treadle_model_requests_total",
    "Agents' requests to models: passed, refused, failed, cut or, by a defect here, broken.",
    ["format", "outcome"],
)
MODEL_FIRST_BYTE_SECONDS = Histogram(
    "treadle_model_first_byte_seconds", "From an agent's request to the first byte of the model's answer.", ["format"]
)
EGRESS_CONNECTIONS = Counter(
    "treadle_egress_connections_total",
    "Connections of agents that ended: allowed or denied, and why.",
    ["decision", "reason"],
)
EGRESS_BYTES = Counter("treadle_egress_bytes_total", "Bytes of these connections, in from hosts and out to them.", ["direction"])
MODEL_TOKENS = Counter("treadle_model_tokens_total", "Tokens that models used.", ["model", "kind"])


class StepMetrics:
    """Counts named points, and times the pairs `<step>.before` and `<step>.after` of one task."""

    def __init__(self) -> None:
        self._begun: WeakKeyDictionary[object, dict[str, float]] = WeakKeyDictionary()

    def __call__(self, point: str) -> None:
        """A named point was passed."""
        STEPS.labels(point).inc()
        step, _, side = point.rpartition(".")
        # Many turns pass the same points at the same time, each in a task of its own.
        begun_here = self._begun.setdefault(asyncio.current_task(), {})
        if side == "before":
            begun_here[step] = time.monotonic()
        elif (begun := begun_here.pop(step, None)) is not None:
            STEP_SECONDS.labels(step).observe(time.monotonic() - begun)


def configure_logging(*, log_format: str, level: str, secrets: Callable[[], Sequence[str]], output: TextIO = sys.stderr) -> None:
    """Structured logs on `output`: one JSON object per line, or a readable form. Known secrets are masked."""
    renderer: Any = structlog.processors.JSONRenderer() if log_format == "json" else _console(output)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            _Masking(secrets),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(output),
        cache_logger_on_first_use=False,
    )


@contextmanager
def standard_logs() -> Iterator[None]:
    """What libraries say through `logging` (asyncpg, asyncio) goes where our own logs go, and nowhere else."""
    root, handler = logging.getLogger(), _Forward()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


class _Forward(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(record.levelno, "library.log", logger=record.name, message=record.getMessage(), exc_info=record.exc_info)


def _console(output: TextIO) -> Any:
    return structlog.dev.ConsoleRenderer(colors=output.isatty(), exception_formatter=structlog.dev.plain_traceback)


class _Masking:
    """A structlog processor that masks secrets in every text of an entry."""

    def __init__(self, secrets: Callable[[], Sequence[str]]) -> None:
        self._secrets = secrets
        self._known: tuple[str, ...] = ()
        self._redactor = Redactor(())

    def __call__(self, _logger: object, _name: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        known = tuple(self._secrets())
        if known != self._known:
            self._known, self._redactor = known, Redactor(known)
        for key, value in entry.items():
            if isinstance(value, str):
                entry[key] = self._redactor.text(value)
        return entry
