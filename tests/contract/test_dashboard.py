"""docs/grafana/treadle.json shows what the server measures: every metric, and none that does not exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

from prometheus_client import REGISTRY

import server.telemetry  # noqa: F401 registers them

ROOT = Path(__file__).parents[2]
SUFFIX = re.compile(r"_(bucket|sum|count)$")


def shown() -> list[str]:
    board = json.loads((ROOT / "docs/grafana/treadle.json").read_text())
    return [target["expr"] for panel in board["panels"] for target in panel["targets"]]


def test_the_dashboard_and_the_metrics_know_each_other() -> None:
    named = {SUFFIX.sub("", name) for expression in shown() for name in re.findall(r"\btreadle_\w+", expression)}
    families = [family for family in REGISTRY.collect() if family.name.startswith("treadle_")]
    assert named == {f"{family.name}_total" if family.type == "counter" else family.name for family in families}


def test_the_steps_that_the_dashboard_names_are_passed_by_the_code() -> None:
    steps = {step for expression in shown() for step in re.findall(r'step="([^"]+)"', expression)}
    code = "".join(path.read_text() for path in (ROOT / "server/kernel").rglob("*.py"))
    for step in steps:
        # A step's commit is marked as f"{step}.commit.after"; everything else stands in the code as it is.
        name = step.removesuffix(".commit.after").removesuffix(".commit.before")
        assert f'"{name}"' in code or f'"{name}.before"' in code, step
