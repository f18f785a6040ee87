"""TREADLE_REQUIRE=all turns every kind of skip into a failure; without it a skip stays one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SKIPS = {
    "a missing part": "from support.requirements import require\ndef test_it():\n    require(False, 'a part', 'install it')\n",
    "a skip in a test": "import pytest\ndef test_it():\n    pytest.skip('not today')\n",
    "a skip mark": "import pytest\n@pytest.mark.skip(reason='not today')\ndef test_it():\n    pass\n",
    "a skipped file": "import pytest\npytest.skip('not today', allow_module_level=True)\n",
    "a skip in a fixture": "import pytest\n@pytest.fixture\ndef part():\n    pytest.skip('no')\ndef test_it(part):\n    pass\n",
}


def run(folder: Path, source: str, required: str) -> str:
    (folder / "test_it.py").write_text(source)
    (folder / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text())
    command = [sys.executable, "-m", "pytest", "-p", "no:randomly", "-p", "no:cacheprovider", "--rootdir", str(folder), str(folder)]
    environment = {**os.environ, "TREADLE_REQUIRE": required, "PYTHONPATH": str(ROOT / "tests")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60).stdout.splitlines()[-1]


@pytest.mark.parametrize("source", SKIPS.values(), ids=SKIPS.keys())
def test_a_skip_fails_where_all_is_required(tmp_path: Path, source: str) -> None:
    summary = run(tmp_path, source, "all")
    assert "skipped" not in summary
    assert "1 failed" in summary or "1 error" in summary


def test_a_skip_stays_a_skip_elsewhere(tmp_path: Path) -> None:
    assert "1 skipped" in run(tmp_path, SKIPS["a missing part"], "")
