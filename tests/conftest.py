"""Hooks for the whole suite; fixtures live in tests/support."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from typing import TypeVar

import pytest
from support.requirements import all_required

pytest_plugins = ["support.postgres"]

# A key of whoever runs the tests is none of the tests' business.
for _name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN"):
    os.environ.pop(_name, None)


def pytest_sessionfinish() -> None:
    """What is shared by all test processes goes with the last."""
    if (shared := sys.modules.get("support.swarm")) is not None:
        shared.leave()


Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where everything is required, a skipped test is a failed one."""
    return _no_skip((yield))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a skipped file."""
    return _no_skip((yield))


def _no_skip(report: Report) -> Report:
    if report.skipped and all_required() and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which TREADLE_REQUIRE=all forbids: {report.longrepr}"
    return report
