"""swarm.yml on a Swarm of one machine: a whole session through the gateway over TLS, and a rolling upgrade under a running turn."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.containers import ROOT, images
from support.deployment import support_images
from support.git_server import GitServer, git_server
from support.requirements import require
from support.swarm import HOME, HOST, client, load, swarm
from support.treadle import pushed_files, recording

from treadle.session.v1 import event_pb2
from treadle_client import Event, Treadle

pytestmark = pytest.mark.timeout(900)

# A port that neither the kernel nor support/deployment.py hands out.
STACK, PORT = "tstack", 32_000 + os.getpid() % 700
JOB = recording({"say": "hello"}, {"run": "id -u > who"}, {"edit": "README.md", "old": "App", "new": "Application"})
LONG = recording(
    {"say": "working"}, {"run": "while [ ! -e go ]; do sleep 0.1; done; rm go"}, {"write": "made.txt", "content": "made\n"}, {"say": "done"}
)


def eventually(condition: Any, limit: float = 120) -> Any:
    deadline = time.monotonic() + limit
    while not (found := condition()):
        assert time.monotonic() < deadline, states()
        time.sleep(0.2)
    return found


def states() -> str:
    """For whoever reads why it failed."""
    shown = [docker("stack", "ps", "--no-trunc", "--format", "{{.Name}} {{.CurrentState}} {{.Error}}", STACK, check=False)]
    services = ("server", "database", "gateway", "spawner")
    shown += [docker("service", "logs", "--raw", "--tail", "8", f"{STACK}_{service}", check=False) for service in services]
    return "\n".join(shown)


def docker(*words: str, check: bool = True, **environment: str) -> str:
    command = ["docker", *words]
    given = os.environ | {"DOCKER_HOST": HOST} | environment
    done = subprocess.run(command, env=given, capture_output=True, text=True, timeout=120, check=False)
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout + (done.stderr if not check else "")


def containers(service: str) -> list[Any]:
    """Healthy ones."""
    found = client().containers.list(ignore_removed=True, filters={"label": f"com.docker.swarm.service.name={STACK}_{service}"})
    return [each for each in found if each.attrs["State"].get("Health", {}).get("Status") == "healthy"]


def workers() -> list[Any]:
    """This stack's: other tests have theirs on the same Swarm."""
    return client().containers.list(ignore_removed=True, filters={"label": "treadle.slot", "network": f"{STACK}-workers"})


def the_worker() -> Any:
    """When that of the turn before has gone."""
    return eventually(lambda: workers()[0] if len(workers()) == 1 else None)


def worker_services() -> list[Any]:
    ours = {network.id for network in client().networks.list(names=[f"{STACK}-workers"])}
    found = client().services.list(filters={"label": "treadle.slot"})
    return [each for each in found if ours & {network["Target"] for network in each.attrs["Spec"]["TaskTemplate"].get("Networks", [])}]


@pytest.fixture
def git(tmp_path: Path) -> Iterator[GitServer]:
    require(shutil.which("docker"), "the docker command", "apt-get install docker.io")
    swarm()
    # This machine, as containers on a network with a way out see it.
    host = client().networks.get("docker_gwbridge").attrs["IPAM"]["Config"][0]["Gateway"]
    with git_server(tmp_path / "host", host=host) as server:
        server.create("acme/app", {"README.md": "# App\n", "job.jsonl": JOB, "long.jsonl": LONG})
        yield server


@pytest.fixture
def stack(git: GitServer, tmp_path: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """Deployed; its directory, and how to deploy it again, with the secrets that it has by then."""
    # Secrets have fixed names, so another process that has this test waits.
    with Path(f"{HOME}.stack.lock").open("w") as alone:
        fcntl.flock(alone, fcntl.LOCK_EX)
        with _deployed(git, tmp_path) as deployed:
            yield deployed


@contextmanager
def _deployed(git: GitServer, tmp_path: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    found = images("server", "gateway", "replay") | support_images()
    load(*(image.replace("{provider}", "replay") for image in found.values()))
    shutil.copy(ROOT / "swarm.yml", tmp_path)
    made_secrets(tmp_path)
    values = {
        **found,
        "GATEWAY_PORT": str(PORT),
        "DOCKER_SOCKET": HOST.removeprefix("unix://"),
        "TREADLE_SWARM_NETWORK": f"{STACK}-workers",
        "DATA_VOLUME": f"{STACK}-data",
        "WORKERS_SUBNET": "172.29.208.0/22",
        "TREADLE_WORKER_MEMORY_MIB": "512",
    }
    with (tmp_path / "server.env").open("a") as settings:
        settings.write(f"TREADLE_GIT_ALLOWED_PREFIXES={git.url.rstrip('/')}/\n")
    label = [word for part in ("postgres", "objects", "gateway") for word in ("--label-add", f"treadle.{part}=true")]
    docker("node", "update", *label, docker("node", "ls", "--quiet").strip())

    def deploy() -> None:
        command = ("stack", "deploy", "--compose-file", str(tmp_path / "swarm.yml"), "--resolve-image", "never", STACK)
        docker(*command, **values, **secrets_of(tmp_path))

    deploy()
    try:
        eventually(lambda: len(containers("server")) == 2 and containers("gateway"), limit=180)
        yield tmp_path, deploy
    finally:
        print(states())
        left = worker_services()
        docker("service", "rm", f"{STACK}_rotation", check=False)
        docker("stack", "rm", STACK, check=False)
        for worker in left:
            docker("service", "rm", worker.id, check=False)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and client().containers.list(
            filters={"label": f"com.docker.stack.namespace={STACK}"}, ignore_removed=True
        ):
            time.sleep(0.2)
        # With the passwords of this deployment in them.
        for volume in docker("volume", "ls", "--quiet", "--filter", f"name={STACK}", check=False).split():
            docker("volume", "rm", "--force", volume, check=False)
        for secret in client().secrets.list(filters={"label": "treadle"}):
            print(docker("secret", "rm", secret.id, check=False))


def secrets_by_name() -> set[str]:
    """Of the deployment. Those of workers come and go with them."""
    return {secret.name for secret in client().secrets.list(filters={"label": "treadle"})}


def made_secrets(home: Path, *words: str, refused: str = "", **values: str) -> None:
    command, given = [ROOT / "tools" / "swarm-secrets", *words], os.environ | {"DOCKER_HOST": HOST, "STACK": STACK} | values
    done = subprocess.run(command, cwd=home, env=given, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, refused in done.stderr) == (1 if refused else 0, True), done.stdout + done.stderr


def a_rotation_that_is_refused_changes_nothing(home: Path) -> None:
    """Afterwards it is as if nobody had seen the end of one: Postgres has the owner's password of a version that does not count."""
    there, told = secrets_by_name(), secrets_of(home)
    (postgres,) = containers("postgres")
    command = ["psql", "--username", "postgres", "--command", "ALTER ROLE postgres PASSWORD 'another'", "treadle"]
    assert postgres.exec_run(command).exit_code == 0
    made_secrets(home, "--rotate", "database", refused="Postgres was not given its new passwords")
    assert (secrets_by_name(), secrets_of(home)) == (there, told)
    # What the next one makes of it.
    (home / "url").write_text("postgresql://postgres:another@postgres/treadle")
    docker("secret", "create", "--label", "treadle", "treadle_database_owner_url_2", str(home / "url"))


def secrets_of(home: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in (home / "secrets.env").read_text().splitlines())


class Turn:
    """One that somebody follows, in a thread of its own."""

    def __init__(self, treadle: Treadle, url: str, model: str) -> None:
        self.events: list[Event] = []
        self._news = threading.Condition()
        self._stream = treadle.execute(url, "go", provider="replay", model=model)
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        for event in self._stream:
            with self._news:
                self.events.append(event)
                self._news.notify_all()

    def until_it_runs(self) -> None:
        with self._news:
            assert self._news.wait_for(lambda: any(isinstance(each.body, event_pb2.ToolCall) for each in self.events), 90), states()

    def end(self) -> event_pb2.TurnCompleted:
        self._thread.join(180)
        assert not self._thread.is_alive(), states()
        assert [event.seq for event in self.events] == list(range(1, len(self.events) + 1))
        return self.events[-1].body

    def branch(self) -> str:
        return next(each.body.branch for each in self.events if isinstance(each.body, event_pb2.GitUpdated) and each.body.branch)


def test_a_session_and_a_rolling_upgrade_with_other_secrets(stack: tuple[Path, Callable[[], None]], git: GitServer) -> None:
    home, deploy = stack
    # One that is short of a processor for a moment is not healthy meanwhile.
    server = eventually(lambda: containers("server"))[0]
    key = server.exec_run(["treadle", "key", "ada", "--email", "ada@example.org"]).output.decode().split()[-1]
    url = f"{git.url.rstrip('/')}/acme/app.git"
    with Treadle(f"https://localhost:{PORT}", key, ca_file=home / "gateway.crt") as treadle:
        turn = Turn(treadle, url, "job.jsonl")
        end = turn.end()
        assert (end.status, end.pushed) == (event_pb2.TURN_STATUS_COMPLETED, True), (end, states())
        files = pushed_files(git.root / "acme/app.git", turn.branch())
        assert (files["README.md"], files["who"]) == ("# Application", "10001")

        # Both replicas are replaced, one after the other, while a turn runs; with them change all passwords and certificates but the
        # gateway's, by which this client knows it.
        turn = Turn(treadle, url, "long.jsonl")
        turn.until_it_runs()
        worker, before = the_worker(), {each.id for each in containers("server")}
        a_rotation_that_is_refused_changes_nothing(home)
        for part in ("database", "spawner", "egress", "objects"):
            made_secrets(home, "--rotate", part)
        made_secrets(home, "--rotate", "github", refused="both are made anew")
        made_secrets(home, "--rotate", "github", GITHUB_WEBHOOK_SECRET="new,old", GITHUB_CLIENT_SECRET="")
        deploy()
        eventually(lambda: len(now := {each.id for each in containers("server")}) == 2 and not now & before, limit=240)
        found = containers("server")[0].exec_run(["cat", "/run/secrets/treadle_github_webhook_secret"])
        assert found.output == b"new,old\n"
        assert worker.exec_run(["touch", "/workspace/go"], user="10001").exit_code == 0
        end = turn.end()
        assert (end.status, end.pushed) == (event_pb2.TURN_STATUS_COMPLETED, True), (end, states())
        assert pushed_files(git.root / "acme/app.git", turn.branch())["made.txt"] == "made"
        phases = [each.body.phase for each in turn.events if isinstance(each.body, event_pb2.WorkerUpdated)]
        assert phases.count(event_pb2.WORKER_PHASE_STARTING) == 1
        assert phases.count(event_pb2.WORKER_PHASE_ADOPTED) == 1
        eventually(lambda: not workers(), limit=30)
