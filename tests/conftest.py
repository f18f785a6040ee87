"""Hooks for the whole suite; fixtures live in tests/support."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import TypeVar

# As in our programs, before gRPC is loaded: its handlers of fork() let children die that its other threads happen to meet.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

import pytest
from support.requirements import all_required

pytest_plugins = ["support.nursery", "support.postgres", "support.seaweedfs"]

# A key of whoever runs the tests is none of the tests' business.
for _name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN"):
    os.environ.pop(_name, None)


def pytest_sessionfinish() -> None:
    """What is shared by all test processes goes with the last."""
    if (shared := sys.modules.get("support.swarm")) is not None:
        shared.leave()


# What takes longest, the longest first: half a minute and more, mostly of waiting for containers and processes.
_LONGEST = (
    "deploy/test_compose.py",
    "faults/test_restarts_in_mid_stream.py",
    "faults/test_containers_adopted.py",
    "deploy/test_stack.py",
    "egress/test_containers.py",
    "gateway/test_openapi.py",
    "faults/test_spawner_killed.py",
    "faults/test_engine_restarts.py",
    "e2e/test_swarm.py",
    "clients/test_cuts.py",
    "clients/test_restarts.py",
    "faults/test_server_killed.py",
    "gateway/test_resume.py",
    "e2e/test_queue.py",
    "faults/test_queue_restarts.py",
    "e2e/test_claude_people.py",
    "e2e/test_docker.py",
    "e2e/test_claude.py",
    "faults/test_takeover.py",
    "faults/test_conversation_killed.py",
    "e2e/test_server_of_a_lesser_user.py",
    "legacy/test_conversation.py",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What takes longest begins first, so that no process is still at it when the others have nothing left to do. Each process begins
    with an even share of the list (`--dist worksteal`), so each share gets its part of the longest files at its head."""
    if (shares := getattr(config, "workerinput", {}).get("workercount", 1)) > len(items):
        return
    rest, heads = list(items), [list[pytest.Item]() for _ in range(shares)]
    for number, name in enumerate(_LONGEST):
        file = Path(__file__).parent / name
        heads[number % shares] += [item for item in rest if item.path == file]
        rest = [item for item in rest if item.path != file]
    ordered: list[pytest.Item] = []
    for number, head in enumerate(heads):
        room = (len(items) - len(ordered)) // (shares - number) - len(head)
        ordered += [*head, *rest[: max(room, 0)]]
        del rest[: max(room, 0)]
    items[:] = ordered + rest


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
