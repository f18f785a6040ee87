"""TREADLE_REQUIRE=all turns every kind of skip into a failure; without it a skip stays one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SKIPS = {
    "missing_part": "from support.requirements import require\ndef test_it():\n    require(False, 'a part', 'install it')\n",
    "skip_in_a_test": "import pytest\ndef test_it():\n    pytest.skip('not today')\n",
    "skip_mark": "import pytest\n@pytest.mark.skip(reason='not today')\ndef test_it():\n    pass\n",
    "skipped_file": "import pytest\npytest.skip('not today', allow_module_level=True)\n",
    "skip_in_a_fixture": "import pytest\n@pytest.fixture\ndef part():\n    pytest.skip('no')\ndef test_it(part):\n    pass\n",
}


def run(folder: Path, required: str, *names: str) -> list[str]:
    """The summary: a line for each file, and their sum."""
    for name in names:
        (folder / f"test_{name}.py").write_text(SKIPS[name])
    (folder / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text())
    options = ["-p", "no:randomly", "-p", "no:cacheprovider", "--continue-on-collection-errors", "-rA", "--tb=no", "--rootdir", str(folder)]
    environment = {**os.environ, "TREADLE_REQUIRE": required, "PYTHONPATH": str(ROOT / "tests")}
    command = [sys.executable, "-m", "pytest", *options, str(folder)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60).stdout.splitlines()


@pytest.fixture(scope="module")
def required(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """All in one run: most of it is the start."""
    return run(tmp_path_factory.mktemp("required"), "all", *SKIPS)


@pytest.mark.parametrize("name", SKIPS)
def test_a_skip_fails_where_all_is_required(required: list[str], name: str) -> None:
    (told,) = [line for line in required if line.startswith(("FAILED ", "ERROR ", "SKIPPED ", "PASSED ")) and f"test_{name}.py" in line]
    assert told.startswith(("FAILED ", "ERROR "))
    assert "skipped" not in required[-1]
    assert "passed" not in required[-1]


def test_a_skip_stays_a_skip_elsewhere(tmp_path: Path) -> None:
    assert "1 skipped" in run(tmp_path, "", "missing_part")[-1]
