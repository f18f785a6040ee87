"""docs/grafana/treadle.json shows what the server measures: every metric, and none that does not exist; docs/prometheus/alerts.yml
asks for none that does not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml
from prometheus_client import REGISTRY

import server.telemetry  # noqa: F401 registers them

ROOT = Path(__file__).parents[2]
SUFFIX = re.compile(r"_(bucket|sum|count)$")


def shown() -> list[str]:
    board = json.loads((ROOT / "docs/grafana/treadle.json").read_text())
    return [target["expr"] for panel in board["panels"] for target in panel["targets"]]


def alerts() -> list[str]:
    (group,) = yaml.safe_load((ROOT / "docs/prometheus/alerts.yml").read_text())["groups"]
    return [rule["expr"] for rule in group["rules"]]


def named(expressions: list[str]) -> set[str]:
    return {SUFFIX.sub("", name) for expression in expressions for name in re.findall(r"\btreadle_\w+", expression)}


def test_the_dashboard_and_the_metrics_know_each_other() -> None:
    families = [family for family in REGISTRY.collect() if family.name.startswith("treadle_")]
    assert named(shown()) == {f"{family.name}_total" if family.type == "counter" else family.name for family in families}
    assert named(alerts()) < named(shown())


def test_the_steps_that_the_dashboard_and_the_alerts_name_are_passed_by_the_code() -> None:
    steps = {step for expression in (*shown(), *alerts()) for step in re.findall(r'step="([^"]+)"', expression)}
    code = "".join(path.read_text() for path in (ROOT / "server/kernel").rglob("*.py"))
    for step in steps:
        # A step's commit is marked as f"{step}.commit.after"; everything else stands in the code as it is.
        name = step.removesuffix(".commit.after").removesuffix(".commit.before")
        assert f'"{name}"' in code or f'"{name}.before"' in code, step
