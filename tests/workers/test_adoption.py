"""A server that was killed leaves its workers running; the next one goes on with them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from support.workers import alive, assignment, eventually, launcher_in, listen, new_worker, python_of, spec

from server.kernel.turn import TurnState
from server.workers.local import LocalLauncher

FIRST_SERVER = """
import asyncio, sys
from pathlib import Path
from support.workers import assignment, launcher_in, python_of
from server.kernel.ports.launcher import WorkerId

async def main():
    worker = WorkerId(turn_id=sys.argv[2], attempt=1)
    async with launcher_in(Path(sys.argv[1]), sys.argv[3]) as launcher:
        link = await launcher.launch(worker)
        items = link.execute(assignment(worker))
        for _ in range(3):
            batch = await anext(items)
            await link.acknowledge(batch.last_worker_seq)
        print(python_of(launcher, worker), batch.last_worker_seq, flush=True)
        # What it has said is what it acknowledged last, however long it lives on.
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_the_next_server_goes_on_with_the_same_worker(launcher: LocalLauncher, tmp_path: Path) -> None:
    worker = new_worker()
    workspace = await launcher.workspace(spec(worker))
    (workspace / ".recording.jsonl").write_text('{"burst": 400, "text": "x", "per_second": 200}\n')
    await launcher.furnished(worker)
    tests = Path(__file__).parents[1]
    first = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        FIRST_SERVER,
        str(tmp_path),
        worker.turn_id,
        launcher.capability.name,
        stdout=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": str(tests)},
    )  # fmt: skip
    assert first.stdout is not None
    pid, durable = map(int, (await first.stdout.readline()).split())
    first.send_signal(signal.SIGKILL)
    await first.wait()

    async with launcher_in(tmp_path, launcher.capability.name) as second:
        assert await second.leftovers() == [worker]
        link = await second.launch(worker)
        assert link.has_turn
        assert python_of(second, worker) == pid
        heard = await listen(link.resume(durable), link)
        assert heard.result is not None
        assert heard.result.outcome.status is TurnState.COMPLETED
        offsets = [event.content_delta.offset for event in heard.events]
        assert offsets == list(range(durable, 400)), "nothing is lost and nothing comes twice"
        await link.close()
        await second.remove(worker)
        await eventually(lambda: not alive(pid))


async def test_a_worker_that_died_with_its_server_is_found_as_lost(launcher: LocalLauncher, tmp_path: Path) -> None:
    worker = new_worker()
    await launcher.workspace(spec(worker))
    await launcher.furnished(worker)
    link = await launcher.launch(worker)
    assert not link.has_turn
    os.kill(python_of(launcher, worker), signal.SIGKILL)
    assert (await link.exited()).code == 137
    await link.close()
    async with launcher_in(tmp_path, launcher.capability.name) as second:
        assert await second.leftovers() == [worker]
        assert (await second.collect(worker)).code == 137
        await second.remove(worker)


async def test_a_turn_that_ended_while_nobody_was_there_is_told_later(launcher: LocalLauncher) -> None:
    worker = new_worker()
    await launcher.workspace(spec(worker))
    await launcher.furnished(worker)
    link = await launcher.launch(worker)
    whole = await listen(link.execute(assignment(worker, model="")))
    await link.close()
    link = await launcher.launch(worker)
    assert await listen(link.resume(0)) == whole
    await link.close()
    await launcher.remove(worker)
