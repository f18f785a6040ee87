"""The spool: numbered once, bounded, kept until acknowledged."""

from __future__ import annotations

import asyncio

import pytest

from treadle.worker.v1 import worker_service_pb2 as wire
from treadle.worker.v1.worker_event_pb2 import WorkerEvent
from worker.spool import FRAME_BYTES, Spool, SpoolGone


def event(number: int, size: int = 0) -> bytes:
    return WorkerEvent(item_id=f"{number}" + "x" * size).SerializeToString()


def read(spool: Spool, after: int) -> tuple[int, list[str], int]:
    data, last = spool.frame(after)
    batch = wire.WorkerEventBatch.FromString(data)
    return batch.first_worker_seq, [entry.item_id for entry in batch.events], last


async def test_a_frame_holds_all_that_waits_numbered_from_one() -> None:
    spool = Spool()
    for number in range(1, 6):
        await spool.append(event(number))
    assert read(spool, 0) == (1, ["1", "2", "3", "4", "5"], 5)
    assert read(spool, 3) == (4, ["4", "5"], 5)
    assert spool.frame(5) == (b"", 5)


async def test_a_frame_ends_at_256_kib() -> None:
    spool = Spool()
    for number in range(10):
        await spool.append(event(number, 100_000))
    data, last = spool.frame(0)
    assert last == 2
    assert len(data) <= FRAME_BYTES + 16


async def test_one_event_above_the_frame_limit_travels_alone() -> None:
    spool = Spool()
    await spool.append(event(1, FRAME_BYTES))
    await spool.append(event(2))
    assert spool.frame(0)[1] == 1


@pytest.mark.parametrize("limits", [{"events": 3}, {"size": 300}])
async def test_a_full_spool_blocks_its_producers_in_order(limits: dict[str, int]) -> None:
    spool = Spool(**limits)
    while spool.has_room:
        spool.push(event(spool.last, 100))
    full = spool.last
    assert full == 3
    waiting = [asyncio.create_task(spool.append(event(number))) for number in (7, 8)]
    await asyncio.sleep(0)
    assert spool.last == full
    spool.acknowledge(full)
    await asyncio.gather(*waiting)
    assert read(spool, full)[1] == ["7", "8"]


async def test_a_producer_that_is_cancelled_leaves_the_line() -> None:
    spool = Spool(events=1)
    spool.push(event(1))
    waiting = asyncio.create_task(spool.append(event(2)))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    spool.acknowledge(1)
    assert spool.has_room


async def test_acknowledgements_are_cumulative_and_may_repeat() -> None:
    spool = Spool()
    for number in range(1, 5):
        spool.push(event(number))
    spool.acknowledge(3)
    spool.acknowledge(3)
    spool.acknowledge(1)
    spool.check(3)
    assert read(spool, 3) == (4, ["4"], 4)
    for gone in (2, 5):
        with pytest.raises(SpoolGone):
            spool.check(gone)
    with pytest.raises(SpoolGone):
        spool.acknowledge(5)


async def test_news_wakes_whoever_waits() -> None:
    spool = Spool()
    waiting = asyncio.create_task(spool.news(0))
    await asyncio.sleep(0)
    assert not waiting.done()
    spool.push(event(1))
    await asyncio.wait_for(waiting, 1)
    await spool.news(0)
