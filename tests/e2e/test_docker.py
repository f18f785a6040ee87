"""Turns whose workers are containers: the server here, the spawner a program of its own, the engine this machine's."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from e2e.test_files import Calls
from e2e.test_setup_script import serve
from support.containers import containers_of, no_containers_left, socket_for, spawner_process, spawner_settings
from support.fake_anthropic import FakeAnthropic, fake_anthropic, say, use
from support.git_server import GitServer, git
from support.treadle import (
    Client,
    Killable,
    branch_of,
    connected,
    events_of,
    in_process,
    kinds,
    pushed_files,
    recording,
    settings_for,
    workers,
)
from support.workers import eventually

from server.config import Settings
from server.embedded.postgres_home import DatabaseUrls
from treadle.file.v1 import file_service_pb2 as pb
from treadle.session.v1 import event_pb2

pytestmark = pytest.mark.timeout(300)

KEY = "sk-ant-canary-7f3a9Q9vL2xYw8end"
JOB = recording(
    {"say": "hello"},
    {"run": "id -u > who; ls /sys/class/net > net"},
    {"write": "made.txt", "content": "made\n"},
    {"edit": "README.md", "old": "App", "new": "Application"},
)
STARVED = [{"write": "partial.txt", "content": "so far\n"}, {"run": ["python3", "-c", "bytearray(400 << 20)"]}]
SETUP = """#!/bin/sh
# keep: deps
echo installing; mkdir deps; { id -u; ls /sys/class/net; touch /etc/it 2>/dev/null && echo writable || echo read-only; } > deps/version
"""
FILL = {"run": "head -c 400M /dev/zero > /tmp/full; head -c 400M /dev/zero > /tmp/full; true"}


@pytest.fixture
def provider() -> str:
    return "replay"


@pytest.fixture
async def settings(
    database: DatabaseUrls, server_data_dir: Path, git_server: GitServer, changes: dict[str, Any], provider: str, tmp_path: Path
) -> AsyncIterator[Settings]:
    """For a server beside a spawner that runs."""
    server_data_dir.mkdir(mode=0o700)
    memory = {"worker_memory_mib": {"replay": 256, "claude": 1024}[provider]}
    spawner = spawner_settings(server_data_dir, provider, **memory)
    with no_containers_left(spawner.slots_dir):
        async with spawner_process(spawner, tmp_path / "spawner.log"):
            given = {"launcher": "docker", "spawner_socket": socket_for(server_data_dir)} | memory
            yield settings_for(database, server_data_dir, git_server, **given, **changes)


@pytest.fixture
async def treadle(settings: Settings) -> AsyncIterator[tuple[Any, Client]]:
    async with in_process(settings) as both:
        yield both


@pytest.fixture
def bare(git_server: GitServer) -> Path:
    starved = recording(*STARVED, {"fail": "the compiler was killed"})
    lost = recording(*STARVED[:1], FILL, *([{"burst": 1000, "text": "x" * 10_000}] * 50))
    files = {"README.md": "# App\n", "job.jsonl": JOB, "starved.jsonl": starved, "lost.jsonl": lost}
    files["lived.jsonl"] = recording(*STARVED, {"say": "never mind"})
    return git_server.create("acme/app", files)


def ask(git_server: GitServer, model: str = "job.jsonl") -> dict[str, str]:
    return {"repository_url": f"{git_server.url}/acme/app.git", "prompt": "go", "provider": "replay", "model": model}


async def test_a_spawner_that_is_away_is_why_a_turn_cannot_begin(
    database: DatabaseUrls, server_data_dir: Path, bare: Path, git_server: GitServer, tmp_path: Path
) -> None:
    server_data_dir.mkdir(mode=0o700)
    spawner = spawner_settings(server_data_dir, "replay", worker_memory_mib=256)
    given = {"launcher": "docker", "spawner_socket": socket_for(server_data_dir), "worker_memory_mib": 256, "worker_start_seconds": 1}
    async with (
        spawner_process(spawner, tmp_path / "spawner.log") as process,
        in_process(settings_for(database, server_data_dir, git_server, **given)) as (_, client),
    ):
        process.terminate()
        await process.wait()
        events = await client.run(**ask(git_server))
    end = events[-1].turn_completed
    assert (end.status, end.code) == (event_pb2.TURN_STATUS_FAILED, event_pb2.TURN_CODE_LAUNCH), end
    assert "the spawner" in end.message


async def test_a_whole_turn_in_a_container(client: Client, bare: Path, git_server: GitServer, server_data_dir: Path) -> None:
    events = await client.run(**ask(git_server))
    end = events[-1].turn_completed
    assert (end.status, end.pushed) == (event_pb2.TURN_STATUS_COMPLETED, True), end
    told = workers(events)
    assert {(each.launcher, each.sandboxed) for each in told} == {("docker", True)}
    assert [each.phase for each in told][-1] == event_pb2.WORKER_PHASE_EXITED
    assert (told[-1].stopped, told[-1].HasField("exit_code")) == (True, False), "it was ended by the server, when nothing was wanted of it"
    files = pushed_files(bare, branch_of(events))
    assert (files["README.md"], files["made.txt"], files["net"]) == ("# Application", "made", "lo")
    assert files["who"] != "0"
    assert await client.log(events[0].session_id) == events
    begun = time.monotonic()
    await eventually(lambda: not containers_of(server_data_dir / "workers"), limit=30)
    await eventually(lambda: not list((server_data_dir / "workers").glob("[0-9a-f]*")), limit=30)
    print(f"nothing was left {time.monotonic() - begun:.1f} s after the turn")


async def test_files_of_a_workspace_are_read_and_edited_while_its_container_works(client: Client, git_server: GitServer) -> None:
    waits = "echo agent > own; echo up; until test -e go; do sleep 0.02; done"
    goes_on = "echo 'and the agent' >> new/a.txt; mkdir new/deeper; mv lib/b.txt new/deeper/; cat go > seen; test -x go; echo $? >> seen"
    files = {"old.txt": "", "src/b.txt": "b\n", "r.jsonl": recording({"run": f"{waits}; {goes_on}"})}
    bare = git_server.create("acme/files", files)
    stream = client.execute(repository_url=f"{git_server.url}/acme/files.git", prompt="go", provider="replay", model="r.jsonl")
    seen: list[event_pb2.Event] = []
    async for frame in stream:
        seen += frame.events.events
        if any(event.HasField("content_delta") for event in seen):
            break
    live = Calls(client, seen[0].session_id)
    assert [file.path for file in (await live("ListFiles")).files] == ["old.txt", "own", "r.jsonl", "src"]
    assert await live.read("own") == b"agent\n"
    await live.edit({"make_directory": pb.MakeDirectoryEdit(path="new")}, {"write": pb.WriteEdit(path="new/a.txt", text="user\n")})
    await live.edit({"move": pb.MoveEdit(path="src", to="lib")}, {"delete": pb.DeleteEdit(path="old.txt")})
    await live.edit({"write": pb.WriteEdit(path="go", text="seen by the agent\n", executable=True)})
    seen += await events_of(stream)
    assert seen[-1].turn_completed.status == event_pb2.TURN_STATUS_COMPLETED
    pushed = pushed_files(bare, branch_of(seen))
    assert pushed == {
        "own": "agent",
        "new/.gitkeep": "",  # of the user's empty directory
        "new/a.txt": "user\nand the agent",
        "new/deeper/b.txt": "b",
        "go": "seen by the agent",
        "seen": "seen by the agent\n0",
        "r.jsonl": files["r.jsonl"].strip(),
    }


async def test_a_setup_script_runs_in_the_container_as_its_user_without_a_network_and_once(client: Client, git_server: GitServer) -> None:
    url = serve(git_server, SETUP)
    for said in ("installing\n", "kept from an earlier turn\n"):
        events = await client.run(repository_url=url, prompt="go", provider="replay", model="r.jsonl")
        assert events[-1].turn_completed.status == event_pb2.TURN_STATUS_COMPLETED
        told = {event.tool_result.call_id: event.tool_result for event in events if event.HasField("tool_result")}
        assert told["setup"].parts[0].text == said
        user, network, writable = told["call-1"].parts[0].text.splitlines()
        assert (user != "0", network, writable) == (True, "lo", "read-only")


@pytest.mark.parametrize("model", ["starved.jsonl", "lost.jsonl"], ids=["its agent failed", "it died"])
async def test_a_turn_that_ran_out_of_memory_says_so_and_is_published(
    client: Client, bare: Path, git_server: GitServer, model: str
) -> None:
    events = await client.run(**ask(git_server, model))
    end = events[-1].turn_completed
    assert (end.status, end.code, end.pushed) == (event_pb2.TURN_STATUS_FAILED, event_pb2.TURN_CODE_OUT_OF_MEMORY, True), end
    assert "memory" in end.message
    assert workers(events)[-1].oom_killed
    assert pushed_files(bare, branch_of(events))["partial.txt"] == "so far"
    await client.log(events[0].session_id)


async def test_an_agent_that_copes_with_too_little_memory_has_not_failed(client: Client, bare: Path, git_server: GitServer) -> None:
    events = await client.run(**ask(git_server, "lived.jsonl"))
    assert events[-1].turn_completed.status == event_pb2.TURN_STATUS_COMPLETED


async def test_the_next_server_goes_on_with_the_same_container(
    settings: Settings, bare: Path, git_server: GitServer, tmp_path: Path
) -> None:
    steps = [step for number in range(40) for step in ({"say": f"step {number}"}, {"wait_ms": 50})]
    git_server.create("acme/long", {"r.jsonl": recording(*steps, {"write": "x", "content": "x\n"})})
    killable = Killable(settings, tmp_path / "server.log")
    await killable.start(kill_at="journal.append.after", nth=3)
    asked = ask(git_server, "r.jsonl") | {"repository_url": f"{git_server.url}/acme/long.git", "request_id": "1"}
    async with connected(killable.address, killable.key) as client:
        stream = client.execute(**asked)
        with pytest.raises(grpc.aio.AioRpcError):
            await events_of(stream)
    assert await killable.wait_killed() == -9
    before = [container.id for container in containers_of(settings.slots_dir)]
    await killable.start()
    try:
        async with connected(killable.address, killable.key) as client:
            events = await events_of(client.execute(**asked))
            during = [container.id for container in containers_of(settings.slots_dir)]
            events = await client.log(events[0].session_id)
    finally:
        await killable.stop()
    assert events[-1].turn_completed.status == event_pb2.TURN_STATUS_COMPLETED, events[-1]
    phases = [each.phase for each in workers(events)]
    assert phases == [
        event_pb2.WORKER_PHASE_STARTING,
        event_pb2.WORKER_PHASE_READY,
        event_pb2.WORKER_PHASE_ADOPTED,
        event_pb2.WORKER_PHASE_EXITED,
    ]
    assert len(before) == 1
    assert set(during) <= set(before)


class TestClaude:
    """The real program, in its image."""

    @pytest.fixture
    def provider(self) -> str:
        return "claude"

    @pytest.fixture
    async def fake(self) -> AsyncIterator[FakeAnthropic]:
        async with fake_anthropic() as opened:
            yield opened

    @pytest.fixture
    def changes(self, fake: FakeAnthropic) -> dict[str, Any]:
        return {"anthropic_url": fake.url, "anthropic_api_key": KEY, "naming": False}

    async def test_the_whole_job_and_its_memory(self, client: Client, fake: FakeAnthropic, bare: Path, git_server: GitServer) -> None:
        job = fake.plays(
            "job",
            [say("I will."), use("Write", file_path="/workspace/docs/notes.md", content="notes\n")],
            [use("Edit", file_path="/workspace/README.md", old_string="App", new_string="Application")],
            [use("Bash", command="env > environment.txt; id -u > who.txt")],
            [say("All done.")],
        )
        asked = {"repository_url": f"{git_server.url}/acme/app.git", "prompt": job}
        events = await client.run(**asked)
        end = events[-1].turn_completed
        assert (end.status, end.pushed) == (event_pb2.TURN_STATUS_COMPLETED, True), end
        assert (events[0].turn_started.provider, workers(events)[0].launcher) == ("claude", "docker")
        files = pushed_files(bare, branch_of(events))
        assert (files["docs/notes.md"], files["README.md"]) == ("notes", "# Application")
        assert git(bare, "rev-parse", branch_of(events)) == end.commit
        assert KEY not in str(files)
        assert {"usage_updated", "file_changed"} <= {*kinds(events)}
        again = await client.run(session_id=events[0].session_id, prompt="[[script:echo]]")
        told = [event.message.parts[0].text for event in again if event.HasField("message") and event.message.parts]
        assert told == ["history: job,echo"]
