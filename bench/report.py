"""Figures as a table, on the screen and in bench/results."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Median [least..most]."""
    return f"{statistics.median(values):,.{digits}f} [{min(values):,.{digits}f}..{max(values):,.{digits}f}]"


def percentile(values: Sequence[float], part: float) -> float:
    """The value that `part` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def write(name: str, title: str, rows: Sequence[tuple[str, str, str]], remarks: str) -> None:
    """One result: rows of (what, figure, aim or limit), and what holds it back."""
    lines = [f"# {title}", "", _machine(), "", "| what | figure | aim / limit |", "|---|---|---|"]
    lines += [f"| {what} | {figure} | {aim} |" for what, figure, aim in rows]
    text = "\n".join([*lines, "", remarks, ""])
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text)
    print(text)


def _machine() -> str:
    model = next(line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    versions = ", ".join(f"{package} {version(package)}" for package in ("grpcio", "protobuf", "asyncpg"))
    load = " ".join(Path("/proc/loadavg").read_text().split()[:2])
    day = datetime.now(UTC).date()
    return (
        f"{day}, {os.cpu_count()} cores ({model}) that run everything, Linux {platform.release()}, "
        f"Python {platform.python_version()}, {versions}, Postgres 18, load before {load}. Median [least..most]."
    )
