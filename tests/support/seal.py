"""What docs/seal.md shows: every attack of the tests, and how it ended in a run of them. `python -m support.seal`, in tests/, runs them
(some minutes) and writes docs/seal.json, the record of the run, and the page. With `--page` it writes the page from
the record that is there.

The tests fail when an attack ends in a way that it must not, and tests/contract/test_seal.py when the record lacks one, or the page says
something else than the record.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.attacks import ATTACKS
from support.containers import require_engine
from support.door_attacks import ATTACKS as DOOR_ATTACKS

ROOT = Path(__file__).parents[2]
PAGE, RECORD = ROOT / "docs" / "seal.md", ROOT / "docs" / "seal.json"
CORPUS = ("tests/workers/test_escape.py", "tests/egress/test_attacks.py")
_FOLDER = "SEAL_RUN_FOLDER"
POOLED = "pooled"
KINDS = ("process", "docker", POOLED, "swarm")
DOOR_KINDS = ("door of process", "door of docker", "door of swarm")

HEAD = """\
# The seal

What a hostile agent can do from inside its worker: nothing of what follows. Each attack is run by the tests, as the agent would, in a
real worker of each launcher, and the table shows how it ended there in a run: the error that the system gave, `refused`
where a program or a look at the result said no, a signal that ended the attacker. `pooled` is a container that had waited for its turn
(`TREADLE_WORKER_POOL`), `swarm` a service of a Swarm of one machine. `DONE` is there twice: in a Swarm /tmp and home are on the machine's
disk, so what is written there takes no memory, and is counted and limited together with the workspace. Beside each kind of attack the same
tests do the harmless deed of that kind, which
succeeds; and those that aim at something planted on the host succeed from outside a worker. On any other machine the same tests ask for
the same, but for errors that depend on the kernel; they fail when an attack succeeds. Written by `python -m support.seal` (in `tests/`).

The run: {day}, {where}.

| attack | `process` | `docker` | pooled | `swarm` |
|---|---|---|---|---|
"""

DOOR_HEAD = """
## At the door to the network

The same for an agent whose session allows some hosts, at the proxy that leads there. A number is the proxy's answer, `cut` a connection
that ended before a byte had left, `not reached` a request that only a host that is allowed got.

| attack | `process` | `docker` | `swarm` |
|---|---|---|---|
"""

FURTHER = """
## What is not one call of an agent

Attacks on the protocol between worker and server, on tokens, and over time. Each is refused by the server, or outlived by the worker.

| attack | what comes of it | test |
|---|---|---|
"""

OPEN = """
## What is not held

- **The disk, to the byte.** A workspace larger than `TREADLE_WORKER_DISK_MIB`, or of more files than `TREADLE_WORKER_FILES`, ends its turn.
  But it is looked at every 2 s, and where a look takes long, for a twentieth of the time, at least every 30 s; one that takes longer than
  45 s ends the turn, too. What a disk takes between two looks may be written besides; and files that are open and have no name, or
  that this server may not read (a server that is not root), are not seen. For a wall that holds there, put `TREADLE_WORKER_ROOT`
  on a file system of its own, or one with quotas.
- **Memory with launcher `process`** is bounded for each process, not for all of them together: a thousand processes may take a thousand
  times as much. When the machine runs out of it, the kernel takes it from workers first.
- **The kernel itself.** All launchers share the host's, and allow the same system calls (`server/sandbox/calls.py`), most of those
  that there are; `TREADLE_WORKER_RUNTIME` puts another kernel in between.
- **Names of the host.** `/proc/self/mountinfo` shows where the server's data directory is, and the name of the slot; in a container
  also the container's. Nothing can be reached by them.
- **A worker that its own agent starves.** When memory runs out, the kernel takes what the agent runs before its worker. An agent that fills
  memory with what is no process of its own (files in /tmp) may still lose its worker, and with it its own turn (`OUT_OF_MEMORY` or
  `WORKER_LOST`); what it did until then is kept.
- **Users with launcher `process`.** All its workers are one user, so what the kernel counts per user (inotify, pending signals) they share.
  With `docker` and a spawner that is root each has a user of its own.
- **In a Swarm** a worker's /tmp and home are on the disk of its machine: they are counted with the workspace, and go with the container.
  Swap is not limited there, a service cannot be
  given a runtime of its own, and all workers are one user. The wall is made inside the container, by its first process, which has powers
  of root for that (SYS_ADMIN among them) until the worker starts, and four of them afterwards. An agent that uses up the container's
  processes can keep its files from being counted for as long as five looks take; then its turn ends.
- **A turn from its own agent.** It may kill its worker (`WORKER_LOST`, at once), or stop it by a signal: then the turn is silent until
  its time limit. It is the turn that asked for it, and no other's.
"""

DISK, SLOTS = "tests/e2e/test_disk.py", "tests/spawner/test_slots.py"
MODELS, HOSTILE, LIFE = "tests/models/test_gateway.py", "tests/workers/test_hostile_worker.py", "tests/workers/test_life_of_a_worker.py"
DOOR, SPAWNER, CONTROL = "tests/workers/test_model_door.py", "tests/spawner/test_containers.py", "tests/faults/test_hostile_control.py"
ELSEWHERE = {
    "use the gateway's token after the turn": ("token and socket are dead", MODELS, "test_after_the_turns_end_token_and_socket_are_dead"),
    "use another turn's token": ("401", MODELS, "test_another_turns_token_is_no_good_here"),
    "use no token, or a wrong one": ("401", MODELS, "test_without_the_doors_token_nothing_passes"),
    "replace the gateway's socket, or reach another's": (
        "the directory is the server's, and read-only",
        DOOR,
        "test_the_agent_can_neither_replace_the_socket_nor_see_anothers",
    ),
    "swap the worker's socket for another worker's": ("`WORKER_LOST`", HOSTILE, "test_another_sessions_socket_does_not_prove_itself"),
    "put a link or a file in the socket's place": ("`WORKER_LOST`", HOSTILE, "test_a_link_in_the_place_of_the_socket_is_refused"),
    "listen there without the turn's secret": ("`WORKER_LOST`", HOSTILE, "test_a_listener_without_the_secret_is_refused"),
    "call the worker in the server's place": ("`UNAUTHENTICATED`", HOSTILE, "test_calls_without_the_proof_are_refused"),
    "forge an event, or send them out of order": ("`PROTOCOL`: the turn ends", HOSTILE, "test_a_forged_frame_is_refused"),
    "skip numbers of events": ("`PROTOCOL`: the turn ends", HOSTILE, "test_a_worker_that_breaks_the_protocol_is_told_as_such"),
    "write to its own past, or to another session's": ("the fields are stripped", HOSTILE, "test_what_a_worker_may_not_say_is_stripped"),
    "write an event under another's name": (
        "what the server vouches for wins",
        "tests/api/test_event_codec.py",
        "test_what_the_server_vouches_for_wins_over_a_forged_body",
    ),
    "say how its turn ended": ("another code", HOSTILE, "test_how_the_turn_ends_is_not_the_workers_to_say"),
    "send a transcript without end": ("refused", HOSTILE, "test_a_transcript_of_a_hostile_size_is_refused"),
    "find the secret in a command line or an environment of the host": (
        "it is in none",
        LIFE,
        "test_the_secret_is_in_no_command_line_and_no_environment",
    ),
    "learn the secret from the engine": ("it never knew", SPAWNER, "test_the_engine_never_learns_a_secret"),
    "outlive the turn": ("killed", LIFE, "test_what_got_away_by_forking_twice_is_gone_after_the_turn"),
    "fork without end": ("stopped, and other workers go on", LIFE, "test_a_fork_bomb_is_stopped_and_its_neighbour_is_not"),
    "outlast an interrupt or the time limit": ("killed", CONTROL, "test_an_interrupt_and_the_time_limit_hold"),
    "keep a connection to the network after the turn": (
        "cut",
        "tests/egress/test_door.py",
        "test_a_connection_ends_with_its_turn",
    ),
    "have a network where the session allows none": (
        "no door, no proxy, no variable",
        "tests/egress/test_turns.py",
        "test_a_session_that_allows_nothing_has_no_proxy_at_all",
    ),
    "use an address other than the one that was looked at": (
        "the one that was looked at is dialled",
        "tests/egress/test_door.py",
        "test_the_address_that_was_looked_at_is_the_one_that_is_dialled",
    ),
    "share a pooled worker with another turn": (
        "each serves one",
        "tests/e2e/test_pool.py",
        "test_a_turn_takes_the_worker_that_waits_and_another_one_takes_its_place",
    ),
    "see others from a pooled worker, before or after it is taken": (
        "it has its own slot alone",
        "tests/e2e/test_pool.py",
        "test_a_worker_that_waits_sees_nobody",
    ),
    "talk without end": ("stopped", CONTROL, "test_an_agent_that_never_stops_talking_is_stopped"),
    "take all memory with many processes": (
        "they end before the worker does",
        SLOTS,
        "test_an_agent_goes_before_its_worker_when_memory_runs_out",
    ),
    "use up what the kernel gives each user": (
        "others have their own (`docker`)",
        SLOTS,
        "test_what_the_kernel_counts_by_user_is_each_workers_own",
    ),
    "connect to a door as another user": ("hung up on", SLOTS, "test_at_a_door_only_its_owner_is_served"),
    "as a server that was taken over, have root mount or give away something else": (
        "nothing but its slot",
        SLOTS,
        "test_what_a_hostile_server_puts_into_its_places_gets_nothing_mounted_or_given",
    ),
    "take all memory": ("`OUT_OF_MEMORY`", SPAWNER, "test_out_of_memory_is_told_apart_though_the_worker_lives"),
    "fill the disk": ("`OUT_OF_DISK`", DISK, "test_a_turn_that_fills_the_disk_is_stopped_and_published"),
    "fill the kernel's memory with empty files": (
        "`OUT_OF_MEMORY`",
        "tests/workers/test_scratch.py",
        "test_a_worker_with_too_many_files_in_memory_is_ended",
    ),
    "fill the disk with empty files": ("`OUT_OF_DISK`", DISK, "test_a_turn_that_fills_the_disk_is_stopped_and_published"),
    "have more made than a sealed container": ("nothing else can be asked for", SPAWNER, "test_only_slots_can_be_named"),
}
"""Attack, what comes of it, and the file and the test that show it."""


IN_A_SWARM = {
    # A network of the kernel's own making, and not of the engine's, which turns IPv6 off.
    "connect to the internet by IPv6": {"ENETUNREACH", "EADDRNOTAVAIL"},
    # A Swarm limits no tmpfs by which programs can be started, so both are on the disk, and counted with the workspace.
    "find another disk that can be written": {"DONE"},
    "fill the memory with files in /tmp": {"DONE"},
    # Its first process is root's, and is asked first.
    "read what the worker is told": {"EACCES"},
    "signal pid 1 to death": {"EPERM"},
    "enter a namespace of pid 1": {"EACCES"},
}
"""Where it differs from a container of the launcher `docker`."""


def expected(attack: str, kind: str) -> set[str]:
    """How an attack may end in a worker of that launcher."""
    _, *walls = ATTACKS[attack]
    if kind == "swarm" and attack in IN_A_SWARM:
        return IN_A_SWARM[attack]
    return walls[0] if kind == "process" else walls[-1]


def record(kind: str, outcomes: Mapping[str, str]) -> None:
    """Keep what a test saw, where this is the run that writes the page."""
    if folder := os.environ.get(_FOLDER):
        (Path(folder) / f"{kind}.json").write_text(json.dumps(outcomes))


def recorded() -> dict[str, Any]:
    """The run that the page tells of."""
    return dict(json.loads(RECORD.read_text()))


def page(run: Mapping[str, Any]) -> str:
    """The whole of it."""
    where = ", ".join(f"{name} {version}" for name, version in run["machine"].items())
    parts = [
        HEAD.format(day=run["day"], where=where),
        _table(ATTACKS, KINDS, run),
        DOOR_HEAD,
        _table(DOOR_ATTACKS, DOOR_KINDS, run),
        FURTHER,
    ]
    parts += [f"| {attack} | {result} | `{Path(file).name}`: {_words(test)} |\n" for attack, (result, file, test) in ELSEWHERE.items()]
    return "".join([*parts, OPEN])


def missing() -> list[str]:
    """Tests that the page names and that are not there."""
    return [test for _, file, test in ELSEWHERE.values() if not re.search(rf"^(async )?def {test}\(", (ROOT / file).read_text(), re.M)]


def _table(attacks: Iterable[str], kinds: Iterable[str], run: Mapping[str, Any]) -> str:
    seen = [run["workers"][kind] for kind in kinds]
    return "".join(f"| {attack} | {' | '.join(f'`{each[attack]}`' for each in seen)} |\n" for attack in attacks)


def _words(test: str) -> str:
    return test.removeprefix("test_").replace("_", " ")


class _Passed:
    """What became of the tests."""

    def __init__(self) -> None:
        self.tests: dict[str, bool] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.partition("[")[0]
        if report.when == "call" or not report.passed:
            self.tests[name] = self.tests.get(name, True) and report.passed


def run_and_write() -> int:
    """Run every test that the page tells of, and write what was seen. Nothing is written where one of them fails."""
    passed = _Passed()
    named = [f"{file}::{test}" for _, file, test in ELSEWHERE.values()]
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {_FOLDER: folder, "TREADLE_REQUIRE": "all"}
        code = pytest.main(["-q", "-n", "2", "--dist", "loadfile", *CORPUS, *named], plugins=[passed])
        if code:
            return int(code)
        workers = {kind: json.loads((Path(folder) / f"{kind}.json").read_text()) for kind in (*KINDS, *DOOR_KINDS)}
    run = {
        "day": f"{datetime.now(tz=UTC):%Y-%m-%d}",
        "machine": _machine(),
        "workers": workers,
        "passed": sorted(set(named) & {*passed.tests}),
    }
    RECORD.write_text(json.dumps(run, indent=1) + "\n")
    PAGE.write_text(page(run))
    return 0


def _machine() -> dict[str, str]:
    from server.sandbox.probe import Unavailable, probe

    wall = probe()
    engine = require_engine().version()["Version"]
    bubblewrap = "" if isinstance(wall, Unavailable) else subprocess.run([wall.bwrap, "--version"], capture_output=True, text=True).stdout
    return {
        "Linux": platform.release(),
        "Docker engine": engine,
        "bubblewrap": bubblewrap.split()[-1],
        "Debian": Path("/etc/debian_version").read_text().strip(),
    }


if __name__ == "__main__":
    if sys.argv[1:] == ["--page"]:
        PAGE.write_text(page(recorded()))
    else:
        sys.exit(run_and_write())
