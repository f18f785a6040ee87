"""The server has as many descriptors as its turns may need, or does not start."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import resource, sys
soft, hard, turns, hosts, launcher = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:]
from server.config import Settings
from server.descriptors import TooFewDescriptors, allow_enough
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
try:
    allow_enough(Settings(max_turns=turns, egress_hosts=hosts, launcher=launcher))
except TooFewDescriptors as error:
    print(error)
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def allowed(soft: int, hard: int, turns: int, hosts: str = "", launcher: str = "process") -> list[str]:
    command = [sys.executable, "-c", PROGRAM, str(soft), str(hard), str(turns), hosts, launcher]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.splitlines()


def test_the_limit_is_raised_as_far_as_it_goes() -> None:
    assert allowed(256, 1000, 64) == ["1000 1000"]
    assert allowed(1000, 1000, 1, "a.test") == ["1000 1000"]


def test_more_turns_than_there_are_descriptors_for_stop_the_start() -> None:
    told, limits = allowed(256, 1000, 64, "a.test")
    assert limits == "1000 1000"
    assert "this process may open 1,000 files and connections, and 64 turns at a time may need 10,048" in told
    assert told.endswith("or set TREADLE_MAX_TURNS to 4")
    assert "64 turns at a time may need 9,472" in allowed(256, 1000, 64, launcher="swarm")[0]
    assert "TREADLE_MAX_TURNS" not in allowed(256, 300, 2, "a.test")[0], "not even one would fit"
