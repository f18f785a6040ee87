"""Nothing that is committed depends on where it was written."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Written so that this file does not hold what it forbids.
REGISTRIES = re.compile(r"py[p]i\.org|python[h]osted\.org|registry\.npm[j]s\.org|deb\.deb[i]an\.org")
MACHINE_PATHS = re.compile(r"(?<![A-Za-z0-9_.-])/(?:work|farm)/[a-z.]|/tmp/[w]/")


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """The committed files that are text, by name."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30).stdout.split("\0")
    contents = {name: (ROOT / name).read_bytes() for name in names if name and (ROOT / name).is_file()}
    return {name: content.decode() for name, content in contents.items() if b"\0" not in content and _is_text(content)}


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


@pytest.mark.parametrize("forbidden", [REGISTRIES, MACHINE_PATHS], ids=["package registries", "paths of one machine"])
def test_names_nothing_of_the_machine_it_was_written_on(texts: dict[str, str], forbidden: re.Pattern[str]) -> None:
    found = [f"{name}: {match.group()}" for name, text in texts.items() for match in forbidden.finditer(text)]
    assert found == []


def test_every_installed_package_is_pinned(texts: dict[str, str]) -> None:
    pinned = {line for line in texts["constraints.txt"].splitlines() if not line.startswith("#")}
    ours = {"treadle", "treadle-protos", "treadle-client", "pip", "wheel"}
    installed = {f"{each.name}=={each.version}" for each in importlib.metadata.distributions() if each.name not in ours}
    assert {line.lower().replace("_", "-") for line in installed} <= {line.lower().replace("_", "-") for line in pinned}


def test_no_large_file_is_committed(texts: dict[str, str]) -> None:
    assert [name for name, text in texts.items() if len(text) > 1024 * 1024] == []
