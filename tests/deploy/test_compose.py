"""docker-compose.yml on a real engine: a whole session through the gateway over TLS, and turns that live through what operators do."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from support.containers import ROOT
from support.deployment import Deployment, deployed
from support.git_server import GitServer, git_server
from support.requirements import require
from support.treadle import pushed_files, recording

from treadle.session.v1 import event_pb2
from treadle_client import Event, Treadle, TreadleError

pytestmark = pytest.mark.timeout(900)

JOB = recording(
    {"say": "hello"}, {"run": "id -u > who; ls /sys/class/net > net"}, {"edit": "README.md", "old": "App", "new": "Application"}
)
LONG = recording(
    {"say": "working"},
    {"run": "while [ ! -e go ]; do sleep 0.1; done; rm go"},
    {"write": "made.txt", "content": "made\n"},
    {"say": "done"},
)
MORE = recording({"write": "more.txt", "content": "more\n"})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    require(os.geteuid() == 0, "root", "the tests of deployments end containers' processes")
    with deployed(tmp_path_factory.mktemp("deployment") / "home") as deployment:
        yield deployment


@pytest.fixture(scope="module")
def git(made: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitServer]:
    """A Git host that the server's container reaches, as far as the settings allow it."""
    with git_server(tmp_path_factory.mktemp("host"), host=made.this_machine()) as server:
        server.create("acme/app", {"README.md": "# App\n", "job.jsonl": JOB, "long.jsonl": LONG, "more.jsonl": MORE})
        made.set("server.env", TREADLE_GIT_ALLOWED_PREFIXES=server.url)
        yield server


@pytest.fixture(scope="module")
def deployment(made: Deployment, git: GitServer) -> Deployment:
    """Up, and so it is left by each test: to come up takes as long as many a test."""
    made.compose("up", "--detach")
    made.healthy("server", "gateway")
    return made


@pytest.fixture(scope="module")
def key(deployment: Deployment) -> str:
    return deployment.new_key("ada")


class Turn:
    """One that somebody follows, in a thread of its own."""

    def __init__(self, treadle: Treadle, url: str, model: str, session_id: str = "") -> None:
        self.events: list[Event] = []
        self._news = threading.Condition()
        where = {"session_id": session_id} if session_id else {}
        self._stream = treadle.execute(None if session_id else url, "go", provider="replay", model=model, **where)
        self._thread = threading.Thread(target=self._follow)
        self._failure: TreadleError | None = None
        self._thread.start()

    def _follow(self) -> None:
        try:
            for event in self._stream:
                with self._news:
                    self.events.append(event)
                    self._news.notify_all()
        except TreadleError as error:
            self._failure = error

    def until(self, seen: Callable[[Event], bool], limit: float = 60) -> Event:
        with self._news:
            assert self._news.wait_for(lambda: any(map(seen, self.events)), limit), self.events
            return next(filter(seen, self.events))

    def leave(self) -> None:
        self._stream.close()
        self._thread.join()

    def ended(self, limit: float = 120) -> event_pb2.TurnCompleted:
        self._thread.join(limit)
        assert not self._thread.is_alive(), self.events[-3:]
        assert self._failure is None, self._failure
        assert [event.seq for event in self.events] == list(range(self.events[0].seq, self.events[0].seq + len(self.events)))
        return self.events[-1].body


def commands(event: Event) -> bool:
    return isinstance(event.body, event_pb2.ToolCall)


def let_go(deployment: Deployment) -> None:
    """The command of the one worker there is ends."""
    (workspace,) = (path / "workspace" for path in deployment.worker_root.iterdir() if (path / "workspace" / "long.jsonl").exists())
    (workspace / "go").touch()


def eventually(condition: Callable[[], bool], limit: float = 60) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_session_an_upgrade_and_a_crash(deployment: Deployment, git: GitServer, key: str) -> None:
    with deployment.client(key) as treadle:
        url = f"{git.url}acme/app.git"
        turn = Turn(treadle, url, "job.jsonl")
        end = turn.ended()
        assert (end.status, end.pushed) == (event_pb2.TURN_STATUS_COMPLETED, True), end
        branch = next(event.body.branch for event in turn.events if isinstance(event.body, event_pb2.GitUpdated) and event.body.branch)
        files = pushed_files(git.root / "acme/app.git", branch)
        assert int(files.pop("who")) in range(20_000, 30_000), "not the server's user"
        assert {name: files[name] for name in sorted(name for name in files if not name.endswith(".jsonl"))} == {
            "README.md": "# Application",
            "net": "lo",
        }
        # Everything is replaced while a turn runs: server, and spawner.
        turn = Turn(treadle, url, "long.jsonl")
        turn.until(commands)
        before = deployment.container("server").id, [worker.id for worker in deployment.workers()]
        deployment.compose("up", "--detach", "--force-recreate", "server", "spawner")
        deployment.healthy("server", "gateway")
        assert deployment.container("server").id != before[0]
        assert [worker.id for worker in deployment.workers()] == before[1]
        let_go(deployment)
        end = turn.ended()
        assert (end.status, end.pushed) == (event_pb2.TURN_STATUS_COMPLETED, True), end
        session = turn.events[0].session_id
        assert [event.seq for event in treadle.resume(session, follow=False)] == list(range(1, turn.events[-1].seq + 1))
        phases = [event.body.phase for event in turn.events if isinstance(event.body, event_pb2.WorkerUpdated)]
        assert phases.count(event_pb2.WORKER_PHASE_ADOPTED) == 1
        assert phases.count(event_pb2.WORKER_PHASE_STARTING) == 1

        # It is killed, and started again by its restart policy.
        turn = Turn(treadle, url, "long.jsonl")
        turn.until(commands)
        killed = deployment.container("server")
        os.kill(killed.attrs["State"]["Pid"], signal.SIGKILL)
        eventually(lambda: deployment.container("server").attrs["RestartCount"] == 1)
        deployment.healthy("server", "gateway")
        let_go(deployment)
        end = turn.ended()
        assert (end.status, end.pushed) == (event_pb2.TURN_STATUS_COMPLETED, True), end
    eventually(lambda: not deployment.workers())


def commands_under(heading: str) -> str:
    """What docs/operations.md tells to type."""
    section = (ROOT / "docs" / "operations.md").read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    (block,) = re.findall(r"^```\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    return str(block)


def test_after_the_end_what_was_backed_up_is_restored_by_the_commands_of_the_manual(
    deployment: Deployment, git: GitServer, key: str
) -> None:
    url = f"{git.url}acme/app.git"
    bare = git.root / "acme" / "app.git"
    with deployment.client(key) as treadle:
        turn = Turn(treadle, url, "job.jsonl")
        assert turn.ended().pushed
        session = turn.events[0].session_id
        # What could not be pushed is nowhere but in the server's mirror.
        git.refuse_pushes("acme/app", "not today")
        assert not Turn(treadle, url, "more.jsonl", session).ended().pushed
        before = list(treadle.resume(session, follow=False))
    deployment.shell("bash", "-euo", "pipefail", "-c", commands_under("Backup"))

    # Nothing is left of a turn either that was not at its end.
    deployment.healthy("server", "gateway")
    with deployment.client(key) as treadle:
        # In a repository whose host takes its branch.
        git.create("acme/other", {"other.jsonl": LONG})
        turn = Turn(treadle, f"{git.url}acme/other.git", "other.jsonl")
        turn.until(commands)
        turn.leave()
        assert len(deployment.workers()) == 1
        deployment.compose("stop", "server")
        assert len(deployment.workers()) == 1
        deployment.compose("down", "--volumes")
        assert deployment.workers() == []

    deployment.shell("bash", "-euo", "pipefail", "-c", commands_under("Restore"))
    deployment.healthy("server", "gateway")
    with deployment.client(key) as treadle:
        assert list(treadle.resume(session, follow=False)) == before
        (bare / "hooks" / "pre-receive").unlink()
        turn = Turn(treadle, url, "job.jsonl", session)
        assert turn.ended().pushed
    branch = next(event.body.branch for event in before if isinstance(event.body, event_pb2.GitUpdated) and event.body.branch)
    assert {"who", "more.txt"} <= {*pushed_files(bare, branch)}
