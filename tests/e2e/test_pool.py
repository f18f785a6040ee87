"""Workers that wait ready for a turn, in containers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.containers import containers_of, no_containers_left, socket_for, spawner_process, spawner_settings
from support.git_server import GitServer
from support.treadle import Client, Killable, branch_of, in_process, pushed_files, recording, settings_for
from support.workers import eventually

from server.config import Settings
from server.embedded.postgres_home import DatabaseUrls
from server.workers.local import LocalLauncher
from server.workers.pool import PREFIX
from server.workers.slot import Slot, slot_of, slots
from treadle.session.v1 import event_pb2

pytestmark = pytest.mark.timeout(300)

JOB = recording({"run": "id -u > who; pwd > where"}, {"write": "made.txt", "content": "made\n"}, {"say": "{prompt}"})


@pytest.fixture
async def settings(
    database: DatabaseUrls, server_data_dir: Path, git_server: GitServer, changes: dict[str, Any], tmp_path: Path
) -> AsyncIterator[Settings]:
    """For a server beside a spawner that runs."""
    server_data_dir.mkdir(mode=0o700)
    spawner = spawner_settings(server_data_dir, "replay", worker_memory_mib=256)
    given = {"launcher": "docker", "spawner_socket": socket_for(server_data_dir), "worker_memory_mib": 256, "worker_pool": "replay=1"}
    with no_containers_left(spawner.slots_dir):
        async with spawner_process(spawner, tmp_path / "spawner.log"):
            yield settings_for(database, server_data_dir, git_server, **(given | changes))


@pytest.fixture
async def treadle(settings: Settings) -> AsyncIterator[tuple[Any, Client]]:
    async with in_process(settings) as both:
        yield both


@pytest.fixture
def url(git_server: GitServer) -> str:
    git_server.create("acme/app", {"README.md": "# App\n", "job.jsonl": JOB})
    return f"{git_server.url}/acme/app.git"


def waiting(root: Path) -> list[Slot]:
    """The slots of the pool whose workers are ready."""
    return [slot for slot in slots(root) if slot.path.name.startswith(PREFIX) and slot.is_ready]


async def ready(root: Path, count: int = 1) -> list[Slot]:
    await eventually(lambda: len(waiting(root)) == count, limit=60)
    return waiting(root)


async def turn(client: Client, url: str, prompt: str = "go", **fields: Any) -> list[event_pb2.Event]:
    events = await client.run(**({"repository_url": url, "prompt": prompt, "provider": "replay", "model": "job.jsonl"} | fields))
    assert events[-1].turn_completed.status == event_pb2.TURN_STATUS_COMPLETED, events[-1]
    return events


async def test_a_turn_takes_the_worker_that_waits_and_another_one_takes_its_place(
    client: Client, url: str, git_server: GitServer, settings: Settings
) -> None:
    root = settings.slots_dir
    (first,) = await ready(root)
    container, user = first.container(), first.user()
    events = await turn(client, url, "one")
    files = pushed_files(git_server.root / "acme/app.git", branch_of(events))
    assert (files["who"], files["where"], files["made.txt"]) == (str(user and user[0]), "/workspace", "made")
    (second,) = await ready(root)
    assert second.container() != container
    # One worker, one turn: nothing of the first is left.
    await eventually(lambda: container not in [each.name for each in containers_of(root)], limit=30)
    await turn(client, url, "two", session_id=events[0].session_id, repository_url="")


async def test_the_container_of_the_turn_is_the_one_that_waited(client: Client, url: str, settings: Settings) -> None:
    root = settings.slots_dir
    (first,) = await ready(root)
    container, secret = first.container(), first.secret()
    stream = client.execute(repository_url=url, prompt="go", provider="replay", model="job.jsonl")
    during: set[tuple[str, bytes]] = set()
    async for frame in stream:
        if any(event.worker_updated.phase == event_pb2.WORKER_PHASE_READY for event in frame.events.events):
            (slot,) = [slot for slot in slots(root) if slot.worker() is not None]
            during.add((slot.container(), slot.secret()))
    assert during == {(container, secret)}


@pytest.mark.parametrize("changes", [{"worker_pool": "replay=2"}])
async def test_more_turns_than_wait_start_their_own(client: Client, url: str, settings: Settings) -> None:
    await ready(settings.slots_dir, 2)
    results = await asyncio.gather(*(turn(client, url, f"turn {number}") for number in range(4)))
    assert len({events[0].session_id for events in results}) == 4
    await ready(settings.slots_dir, 2)


async def test_a_worker_that_died_while_it_waited_is_replaced(client: Client, url: str, settings: Settings) -> None:
    root = settings.slots_dir
    (first,) = await ready(root)
    (container,) = [each for each in containers_of(root) if each.name == first.container()]
    container.kill()
    await eventually(lambda: first.exit() is not None, limit=30)
    # It is not taken: a turn starts its own instead.
    await turn(client, url)
    (second,) = await ready(root)
    assert second.container() != container.name


async def test_what_a_killed_server_left_is_not_used(settings: Settings, url: str, tmp_path: Path) -> None:
    root = settings.slots_dir
    killable = Killable(settings, tmp_path / "server.log")
    await killable.start()
    (first,) = await ready(root)
    left = first.container()
    await killable.stop(kill=True)
    async with in_process(settings) as (_, client):
        # Its container goes before its slot.
        await eventually(lambda: not first.path.exists(), limit=60)
        assert left not in [each.name for each in containers_of(root)]
        (second,) = await ready(root)
        assert second.container() != left
        await turn(client, url)


async def test_a_server_that_stops_leaves_none(settings: Settings) -> None:
    async with in_process(settings):
        await ready(settings.slots_dir)
    assert not containers_of(settings.slots_dir)
    assert not list(slots(settings.slots_dir))


@pytest.mark.parametrize("changes", [{"worker_orphan_seconds": 6.0}])
async def test_one_that_waits_longer_than_a_worker_waits_for_its_server_lives(client: Client, url: str, settings: Settings) -> None:
    (first,) = await ready(settings.slots_dir)
    container = first.container()
    # Longer than the limit; nothing can be waited for, since nothing must happen.
    await asyncio.sleep(8)
    assert [slot.container() for slot in waiting(settings.slots_dir)] == [container]
    await turn(client, url)


@pytest.mark.parametrize("moment", ["taken", "furnished"])
async def test_a_worker_that_ends_before_its_turn_is_replaced(
    settings: Settings, url: str, git_server: GitServer, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Killed as soon as it was taken, and when its workspace is complete."""
    root = settings.slots_dir
    killed: list[str] = []
    real = LocalLauncher.workspace if moment == "taken" else LocalLauncher.furnished

    async def killing(self: LocalLauncher, what: Any) -> Any:
        answer = await real(self, what)  # type: ignore[arg-type]
        slot = slot_of(root, getattr(what, "worker", what))
        if slot.is_ready:
            (container,) = [each for each in containers_of(root) if each.name == slot.container()]
            killed.append(container.name)
            container.kill()
        return answer

    monkeypatch.setattr(LocalLauncher, real.__name__, killing)
    async with in_process(settings) as (_, client):
        await ready(root)
        events = await turn(client, url)
    assert len(killed) == 1
    assert pushed_files(git_server.root / "acme/app.git", branch_of(events))["made.txt"] == "made"


LOOK = "ls -A /run/models; ls -A /workspace 2>/dev/null; echo; cat /proc/self/mountinfo; find / -name made.txt 2>/dev/null"


@pytest.mark.parametrize("changes", [{"worker_pool": "replay=2"}])
async def test_a_worker_that_waits_sees_nobody(client: Client, url: str, settings: Settings) -> None:
    """Neither other workers that wait, nor a turn that runs or has ended."""
    root = settings.slots_dir
    await ready(root, 2)
    await turn(client, url)
    mine, other = await ready(root, 2)
    names = {slot.path.name for slot in slots(root)} - {mine.path.name}
    assert other.path.name in names
    (container,) = [each for each in containers_of(root) if each.name == mine.container()]
    _, output = container.exec_run(["sh", "-c", LOOK])
    seen = output.decode()
    assert seen.startswith("\n"), "no door, and no file"
    assert mine.path.name in seen, "its own directories are there"
    assert not [name for name in names if name in seen]
    assert "made.txt" not in seen
