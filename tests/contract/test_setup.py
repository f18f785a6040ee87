"""tools/setup, in a checkout of its own and with no package index to be reached."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.git_server import git

ROOT = Path(__file__).parents[2]
NOWHERE = "http://127.0.0.1:9/simple"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What tools/setup looks at."""
    for name in git(ROOT, "ls-files", "tools/setup", "constraints*.txt", "pyproject.toml", "*/pyproject.toml").splitlines():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def setup(checkout: Path, *what: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_", "VIRTUAL_ENV"))}
    offline = {"PIP_INDEX_URL": NOWHERE, "PIP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull, "PYTHON": sys.executable}
    return subprocess.run(
        [checkout / "tools" / "setup", *what], env=environment | offline, capture_output=True, text=True, timeout=100, check=False
    )


def test_on_a_terminal_a_step_shows_that_it_lives(checkout: Path) -> None:
    """The first start's packages take a minute or more."""
    controller, terminal = pty.openpty()
    environment = os.environ | {"PIP_INDEX_URL": NOWHERE, "PIP_RETRIES": "0", "PYTHON": sys.executable}
    setting_up = subprocess.Popen([checkout / "tools" / "setup", "run"], env=environment, stdout=terminal, stderr=terminal)
    os.close(terminal)
    shown = b""
    with setting_up, os.fdopen(controller, "rb", buffering=0) as screen, contextlib.suppress(OSError):
        while chunk := screen.read(65536):
            shown += chunk
    venv = next(step for step in shown.decode().split("\n") if "virtual environment" in step)
    assert re.search(r"virtual environment \(.*\) \.\.\. +1 s\r", venv), venv
    assert re.search(r"virtual environment \(.*\) \.\.\. +\d+\.\d s\r?$", venv), venv
    assert "set-up stopped at: packages that Treadle needs" in shown.decode()


def test_an_installation_that_fails_is_told_and_counts_as_not_done(checkout: Path) -> None:
    for what, words, stamp in (
        ("run", "packages that Treadle needs", ".venv/.run"),
        ("proto", "packages for code generation", ".venv-proto/.proto"),
    ):
        done = setup(checkout, what)
        assert done.returncode == 1, done
        assert f"{words} ... " in done.stdout
        assert done.stdout.endswith(" failed\n")
        assert "setuptools" in done.stderr, "the installer's own words are missing"
        assert f"set-up stopped at: {words}" in done.stderr
        assert "call make again to go on" in done.stderr
        assert not (checkout / stamp).exists()
