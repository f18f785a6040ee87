"""`treadle doctor`: what this machine can and cannot do, and what to install."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

from server.cli import checks
from server.cli.checks import Finding, Level
from server.cli.failure import ExitCode
from server.cli.screen import Screen
from server.data_dir import chosen_data_dir

_MARKS = {Level.FINE: ("ok  ", "green"), Level.LIMITED: ("!   ", "yellow"), Level.MISSING: ("no  ", "bold red")}

_CHECKS: tuple[Callable[[Path], Finding], ...] = (
    checks.python,
    checks.git,
    checks.postgres,
    checks.gateway,
    checks.sandbox,
    checks.launcher,
    checks.models,
    checks.egress,
    checks.data_directory,
    checks.disk,
    checks.sockets,
)


def run(options: argparse.Namespace) -> ExitCode:
    """Exit code 1 when something necessary is missing."""
    screen = Screen()
    missing = 0
    data_dir = chosen_data_dir(options.data_dir)
    for finding in _findings(data_dir):
        _show(screen, finding)
        missing += finding.level is Level.MISSING
    screen.line()
    if missing:
        screen.prose(
            f"{missing} thing{'s' if missing > 1 else ''} that Treadle needs {'are' if missing > 1 else 'is'} missing.", "bold red"
        )
        return ExitCode.TURN_FAILED
    screen.prose(checks.can_run(data_dir), "bold")
    return ExitCode.DONE


def _findings(data_dir: Path) -> Iterator[Finding]:
    for check in _CHECKS:
        yield check(data_dir)
    for several in (checks.settings, checks.agents, checks.arranged, checks.ports):
        yield from several(data_dir)


def _show(screen: Screen, finding: Finding) -> None:
    screen.parts(_MARKS[finding.level], (f"{finding.name:<11}", "bold"), (finding.detail, ""), hang=15)
    if finding.remedy:
        screen.parts((f"{'':15}→ ", "dim"), (finding.remedy, "yellow"), hang=17)
