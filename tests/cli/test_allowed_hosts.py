"""`treadle up` lets workers out through its own gateway, and `treadle run --allow-host` asks for it."""

from __future__ import annotations

import asyncio
import json

from support.egress import NETWORKS, PUBLIC, name_server
from support.sandbox import require_sandbox

FETCH = "import urllib.request, sys; print(urllib.request.urlopen(sys.argv[1], timeout=20).read().decode())"


async def test_a_host_that_is_allowed_is_reached_and_another_is_refused(home) -> None:
    require_sandbox()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 15\r\nconnection: close\r\n\r\nit came through")
        await writer.drain()
        writer.close()

    host = await asyncio.start_server(answer, PUBLIC, 0)
    port = host.sockets[0].getsockname()[1]
    async with name_server() as names, host:
        names.say("plain.example.test", [PUBLIC])
        home.ports = home.ports | {
            "TREADLE_EGRESS_HOSTS": f"*.example.test:{port}",
            "TREADLE_EGRESS_NETWORKS": NETWORKS,
            "TREADLE_EGRESS_DNS": names.address,
        }
        async with home.up():
            steps = [{"run": ["python3", "-c", FETCH, f"http://{name}.example.test:{port}/"]} for name in ("plain", "other")]
            recording = home.add_recording("fetching", "".join(json.dumps(step) + "\n" for step in steps))
            ran = await home.run("run", *recording, "--allow-host", f"plain.example.test:{port}", "Fetch")
            refused = await home.run("run", *recording, "--allow-host", "plain.example.org", "Fetch")
    assert "it came through" in ran.out, ran.out + ran.err
    assert f"plain.example.test:{port}, " in ran.out
    assert f"other.example.test:{port}: other.example.test is not in the allowed_hosts of this session" in ran.out
    assert refused.code == 2
    assert f"plain.example.org is not allowed by this server (TREADLE_EGRESS_HOSTS): allowed are *.example.test:{port}" in refused.err
