"""What the metrics say of connections."""

from __future__ import annotations

from typing import Any

from prometheus_client import REGISTRY
from support.egress import Internet


def measured() -> dict[str, float]:
    """By decision and reason, and by direction."""
    return {
        "/".join(sample.labels.values()): sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name in ("treadle_egress_connections_total", "treadle_egress_bytes_total")
    }


async def test_connections_and_their_bytes_are_counted(net: Internet, doors: Any) -> None:
    host = await net.host("measured.test")
    before = measured()
    async with doors.open(f"measured.test:{host.port}") as agent:
        reader, writer = await agent.tls("measured.test", host.port)
        writer.write(b"hello")
        assert await reader.readexactly(11) == b"heard hello"
        writer.close()
        assert " 403 " in await agent.ask("GET http://other.test/ HTTP/1.1\r\n\r\n")
        end, denied = sorted([await agent.ledger.end(1), await agent.ledger.end(2)], key=lambda access: access.denied)
    grown = {name: value - before.get(name, 0) for name, value in measured().items()}
    assert grown["allowed/"] == 1
    assert grown[f"denied/{denied.reason}"] == 1
    assert (grown["in"], grown["out"]) == (end.bytes_in, end.bytes_out)
