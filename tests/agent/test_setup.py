"""`.treadle/setup` runs before the agent, and whatever becomes of it, the agent runs."""

from __future__ import annotations

import asyncio
import hashlib
import io
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.provider_contract import Recorder

from carrier.tree import Limits, unpack
from treadle.session.v1 import event_pb2 as session
from treadle.worker.v1 import worker_service_pb2 as wire
from treadle.worker.v1.worker_event_pb2 import WorkerEvent
from worker import engine, setup
from worker.notices import Notices
from worker.setup import ARCHIVE, PLACED, set_up
from worker.spool import Spool


def script(workspace: Path, text: str, mode: int = 0o755) -> None:
    path = workspace / ".treadle" / "setup"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


async def told(workspace: Path, seconds: float = 30) -> list[WorkerEvent]:
    recorder = Recorder()
    await set_up(workspace, recorder, Notices(Spool()), seconds=seconds)
    return recorder.events


async def prepared(workspace: Path) -> str:
    """What the server is told of the archive."""
    (workspace / ".git").mkdir()
    notices = Notices(Spool())
    await set_up(workspace, Recorder(), notices)
    notice = notices.reader().next()
    assert notice is not None
    told = wire.WorkerNotice.FromString(notice)
    assert told.HasField("prepared")
    return told.prepared


def outcome(events: list[WorkerEvent]) -> session.ToolOutcome:
    (result,) = [event.tool_result for event in events if event.HasField("tool_result")]
    assert result.call_id == "setup"
    return result.status


def failures(events: list[WorkerEvent]) -> list[str]:
    return [event.error.message for event in events if event.error.code == "SETUP_FAILED"]


async def test_its_output_is_told_as_that_of_a_tool(tmp_path: Path) -> None:
    script(tmp_path, "#!/bin/sh\necho installing; pwd > made.txt\n")
    events = await told(tmp_path)
    assert (tmp_path / "made.txt").read_text().strip() == str(tmp_path)
    assert [event.WhichOneof("body") for event in events] == ["tool_call", "content_delta", "tool_result"]
    assert (events[0].tool_call.command, events[1].content_delta.data) == (".treadle/setup", "installing\n")
    assert outcome(events) == session.TOOL_OUTCOME_COMPLETED


@pytest.mark.parametrize(
    "text, mode", [("#!/bin/sh\nexit 3\n", 0o755), ("#!/no/shell\n", 0o755), ("echo x\n", 0o755), ("#!/bin/sh\n", 0o644)]
)
async def test_a_failure_is_told(tmp_path: Path, text: str, mode: int) -> None:
    script(tmp_path, text, mode)
    events = await told(tmp_path)
    assert outcome(events) == session.TOOL_OUTCOME_FAILED
    (message,) = failures(events)
    assert "failed with code" in message


async def test_what_takes_too_long_is_ended(tmp_path: Path) -> None:
    script(tmp_path, "#!/bin/sh\necho $$ > pid; exec sleep 1000\n")
    events = await told(tmp_path, seconds=1)
    assert outcome(events) == session.TOOL_OUTCOME_TIMED_OUT
    assert failures(events) == [".treadle/setup took more than 1 s and was ended; the agent starts without what it should have made"]
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


def link(workspace: Path) -> None:
    (workspace / ".treadle").mkdir()
    (workspace / ".treadle/setup").symlink_to("/bin/true")


def folder(workspace: Path) -> None:
    (workspace / ".treadle/setup").mkdir(parents=True)


def nothing(workspace: Path) -> None:
    (workspace / ".treadle").write_text("")


@pytest.mark.parametrize("make", [link, folder, nothing])
async def test_what_is_no_file_is_no_script(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path)
    assert await told(tmp_path) == []


async def test_the_directories_that_it_names_are_packed_for_later(tmp_path: Path) -> None:
    script(tmp_path, "#!/bin/sh\n# keep: deps none a/deps\nmkdir -p deps/x a/deps; echo 1 > deps/x/lib; ln -s /usr deps/usr\n")
    digest = await prepared(tmp_path)
    content = (tmp_path / ARCHIVE).read_bytes()
    assert digest == hashlib.sha256(content).hexdigest()
    archive, names = io.BytesIO(content), []
    while length := archive.read(2):
        names.append(archive.read(*struct.unpack(">H", length)).decode())
        copy = tmp_path / f"copy-{len(names)}"
        copy.mkdir()
        unpack(archive, copy, Limits(bytes=1_000_000, entries=100))
    assert names == ["deps", "a/deps"]
    assert (tmp_path / "copy-1/x/lib").read_text() == "1\n"
    assert (tmp_path / "copy-1/usr").readlink() == Path("/usr")


@pytest.mark.parametrize(
    "text", ["# keep: deps\nmkdir deps; exit 1", "mkdir deps", "# keep: deps", "# keep: ..", "# keep: deps\nln -s /usr deps"]
)
async def test_where_there_is_nothing_to_keep_that_is_told(tmp_path: Path, text: str) -> None:
    """Before the agent runs: what is told later, by whoever, is not believed."""
    script(tmp_path, f"#!/bin/sh\n{text}\n")
    assert await prepared(tmp_path) == ""
    assert not (tmp_path / ARCHIVE).exists()


async def test_more_than_may_be_kept_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "_ARCHIVE_BYTES", 1000)
    script(tmp_path, "#!/bin/sh\n# keep: deps\nmkdir deps; head -c 2000 /dev/zero > deps/large\n")
    assert await prepared(tmp_path) == ""
    assert not (tmp_path / ARCHIVE).exists()


async def test_what_was_placed_is_not_made_again(tmp_path: Path) -> None:
    script(tmp_path, "#!/bin/sh\n# keep: deps\ntouch ran\n")
    (tmp_path / ".git").mkdir()
    (tmp_path / PLACED).touch()
    events = await told(tmp_path)
    assert outcome(events) == session.TOOL_OUTCOME_COMPLETED
    assert not (tmp_path / "ran").exists()


def turn(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[engine.Engine, Spool]:
    # It would kill the children of the tests, too.
    monkeypatch.setattr(engine, "kill_descendants", lambda: None)
    (workspace / "r.jsonl").write_text('{"run": "cat made.txt"}\n')
    spool = Spool()
    started = engine.Engine(spool, workspace)
    started.start(wire.ExecuteSessionRequest(provider="replay", model="r.jsonl", prompt="go"))
    return started, spool


async def ended(running: engine.Engine, spool: Spool) -> tuple[wire.TurnResult, list[WorkerEvent]]:
    async with asyncio.timeout(30):
        while running.result is None:
            await spool.news(spool.last)
    return running.result, list(wire.WorkerEventBatch.FromString(spool.frame(0)[0]).events)


@pytest.mark.parametrize("code", [0, 1])
async def test_the_agent_finds_what_it_made_also_when_it_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    script(tmp_path, f"#!/bin/sh\necho dependency > made.txt; exit {code}\n")
    result, events = await ended(*turn(tmp_path, monkeypatch))
    assert result.status == session.TURN_STATUS_COMPLETED
    results = [event.tool_result for event in events if event.HasField("tool_result")]
    assert [each.call_id for each in results] == ["setup", "call-1"]
    assert results[1].parts[0].text == "dependency\n"
    assert len(failures(events)) == code


async def test_a_turn_can_be_stopped_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path, "#!/bin/sh\necho here; exec sleep 1000\n")
    running, spool = turn(tmp_path, monkeypatch)
    async with asyncio.timeout(30):
        await spool.news(0)
    begun = time.monotonic()
    running.interrupt("enough")
    result, events = await ended(running, spool)
    assert (result.status, result.message) == (session.TURN_STATUS_INTERRUPTED, "enough")
    assert outcome(events) == session.TOOL_OUTCOME_CANCELLED
    assert time.monotonic() - begun < 10
