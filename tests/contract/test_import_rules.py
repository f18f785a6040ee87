"""The import rules of pyproject.toml hold, and each of them catches a violation."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PLANTS = [
    ("server.kernel", "import grpc", "the kernel is pure"),
    ("server.kernel", "import google.protobuf.message", "the kernel is pure"),
    ("server.kernel", "import treadle.session.v1.event_pb2", "the kernel is pure"),
    ("server.kernel.ports", "import asyncpg", "the kernel is pure"),
    ("server.kernel", "import server.api", "server is layered"),
    ("server.api", "import server.db", "server is layered"),
    ("server.api", "import asyncpg", "the api touches no vendor"),
    ("server.git", "import server.storage", "adapters do not know each other"),
    ("server.kernel", "import aiohttp", "the kernel is pure"),
    ("server.models", "import server.db", "adapters do not know each other"),
    ("server.workers", "import docker", "only the spawner speaks to the container engine"),
    ("worker", "import docker", "only the spawner speaks to the container engine"),
    ("server.spawner", "import server.db", "the spawner knows slots and nothing else of the server"),
    ("server.workers", "import server.spawner", "server is layered"),
    ("worker", "import server.kernel", "server and worker meet only through protos"),
    ("server.workers", "import worker", "server and worker meet only through protos"),
    ("carrier", "import worker", "a carrier knows nobody"),
    ("treadle_client", "import server.config", "clients know only protos"),
    ("treadle_client", "import worker", "clients know only protos"),
    ("server.kernel", "import treadle_client", "of the server only the command line is a client"),
    ("worker", "import treadle_client", "of the server only the command line is a client"),
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source tree, with the generated package and the client beside the others."""
    tree = tmp_path_factory.mktemp("tree")
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for package in ["server", "worker", "carrier", "generated/python/src/treadle", "clients/python/src/treadle_client"]:
        shutil.copytree(ROOT / package, tree / Path(package).name, ignore=unwanted)
    shutil.copy(ROOT / "pyproject.toml", tree)
    return tree


def lint(tree: Path) -> subprocess.CompletedProcess[str]:
    # By path and not by name: the copy is to be read, not the installed tree.
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]
    return subprocess.run(command, cwd=tree, env={**os.environ, "PYTHONPATH": str(tree)}, capture_output=True, text=True, timeout=60)


def test_the_tree_keeps_the_rules(tree: Path) -> None:
    result = lint(tree)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(("package", "statement", "rule"), PLANTS, ids=[f"{package}: {statement}" for package, statement, _ in PLANTS])
def test_a_forbidden_import_is_caught(tree: Path, package: str, statement: str, rule: str) -> None:
    planted = tree / package.replace(".", "/") / "planted.py"
    planted.write_text(statement + "\n")
    try:
        result = lint(tree)
    finally:
        planted.unlink()
    assert result.returncode == 1
    assert f"{rule} BROKEN" in result.stdout
