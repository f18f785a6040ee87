"""What tools/backup says and saves, with a docker-compose that plays its part; tests/deploy/test_compose.py has a real one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from support.containers import ROOT

COMPOSE = """#!/bin/bash
echo "$*" >>called
[[ "$*" != *"${FAILS:-nothing}"* ]] || exit 1
case "$*" in
  *pg_dumpall*) printf 'CREATE ROLE postgres;\\nCREATE ROLE treadle_app;\\n' ;;
  *pg_dump*|*-czf*) echo content ;;
esac
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in ("docker-compose.yml", ".env", "server.env"):
        (tmp_path / name).write_text("")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker-compose").write_text(COMPOSE)
    (tmp_path / "bin" / "docker-compose").chmod(0o755)
    return tmp_path


def backup(home: Path, fails: str = "nothing") -> subprocess.CompletedProcess[str]:
    environment = {"PATH": f"{home / 'bin'}:{os.environ['PATH']}", "FAILS": fails}
    command = ["/bin/bash", str(ROOT / "tools" / "backup"), "saved"]
    return subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_the_certificate_that_is_served_is_saved(home: Path) -> None:
    (home / "tls").mkdir()
    (home / "tls" / "key.pem").write_text("an old one")
    (home / "archive").mkdir()
    (home / "archive" / "key1.pem").write_text("the one in use")
    (home / "live").mkdir()
    (home / "live" / "key.pem").symlink_to("../archive/key1.pem")
    (home / ".env").write_text(f"TLS_DIRECTORY='{home}/live'\n")
    done = backup(home)
    assert (done.returncode, done.stdout) == (0, "made saved\n"), done.stderr
    saved = sorted(str(path.relative_to(home / "saved")) for path in (home / "saved").rglob("*"))
    assert saved == [".env", "data.tar.gz", "objects.tar.gz", "roles.sql", "server.env", "tls", "tls/key.pem", "treadle.dump"]
    assert not (home / "saved" / "tls" / "key.pem").is_symlink()
    assert (home / "saved" / "tls" / "key.pem").read_text() == "the one in use"
    assert (home / "saved" / "roles.sql").read_text() == "CREATE ROLE treadle_app;\n"


def test_a_deployment_without_tls_has_none_to_save(home: Path) -> None:
    assert backup(home).returncode == 0
    assert not (home / "saved" / "tls").exists()


@pytest.mark.parametrize(
    ("settings", "fails", "said"),
    [
        ("TLS_DIRECTORY=/not/there\n", "nothing", "TLS_DIRECTORY names /not/there, which is no directory"),
        ("", "pg_isready", "Postgres does not answer (docker-compose up -d postgres)"),
    ],
)
def test_what_cannot_be_saved_is_told_before_anything_stops(home: Path, settings: str, fails: str, said: str) -> None:
    (home / ".env").write_text(settings)
    done = backup(home, fails)
    assert (done.returncode, done.stderr) == (1, f"backup: {said}; nothing was saved\n")
    assert not (home / "saved.incomplete").exists()
    called = home / "called"
    assert not called.exists() or "stop" not in called.read_text()


def test_half_a_backup_is_none_and_the_server_is_there_again(home: Path) -> None:
    done = backup(home, "pg_dump ")
    assert (done.returncode, done.stderr) == (1, "backup: it ended early; nothing was saved\n")
    assert not list(home.glob("saved*"))
    assert (home / "called").read_text().splitlines()[-1] == "start objects server"
