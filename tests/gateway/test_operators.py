"""What operators see of the gateway: a line for each call that failed, figures for Prometheus, and whether it serves."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import ssl
import subprocess
import sys
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
import yaml
from support.gateway import Http, control, own_certificate
from support.tcp_gate import tcp_gate
from support.treadle import Client
from support.ways_in import STREAMS, Cut, Door

from gateway.config import Gateway
from gateway.draining import open_requests
from server.embedded.gateway import embedded_gateway
from treadle.session.v1 import session_service_pb2 as pb

DOCS = Path(__file__).parents[2] / "docs"
SHOWN = (DOCS / "grafana" / "treadle.json", DOCS / "prometheus" / "alerts.yml")
LABELS = {"envoy_cluster_name", "envoy_http_conn_manager_prefix", "envoy_response_code_class"}


def lines(home: Path) -> list[dict[str, Any]]:
    """The calls in the log; Envoy's own words have another form."""
    return [json.loads(line) for line in (home / "envoy.log").read_text().splitlines() if line.startswith("{")]


def metrics_of(home: Path) -> str:
    """The URL of the page of Envoy's figures."""
    listeners = yaml.safe_load((home / "envoy.yaml").read_text())["static_resources"]["listeners"]
    (address,) = [each["address"]["socket_address"] for each in listeners if each["name"] == "metrics"]
    return f"http://{address['address']}:{address['port_value']}/metrics"


async def test_each_call_that_failed_has_a_line_and_no_other(http: Http, through: Client, treadle: tuple[Any, Client]) -> None:
    async with http.session.get(http.base + "/v1/sessions") as answer:
        assert answer.status == 200
    async with http.session.get(http.base + "/v1/sessions/gone?pageToken=sec-ret") as answer:
        assert answer.status == 400
    await through.call("ListSessions", pb.ListSessionsRequest())
    with pytest.raises(grpc.aio.AioRpcError):
        await through.call("GetSession", pb.GetSessionRequest(session_id="x"))
    async with http.session.get(http.base + "/resume?sessionId=hid-den") as answer:
        assert answer.status == 404
    async with asyncio.timeout(20):
        while len(found := lines(http.home)) < 3:
            await asyncio.sleep(0.05)
    assert [(line["method"], line["path"], line["status"]) for line in found] == [
        ("GET", "/v1/sessions/gone", 400),
        ("POST", "/treadle.session.v1.SessionService/GetSession", 200),
        ("GET", "/resume", 404),
    ]
    assert found[1]["grpc_status"] == "NotFound"
    assert found[0]["details"].startswith("early_grpc_json_transcode_failure")
    assert {line["client"] for line in found} == {"127.0.0.1"}
    text = (http.home / "envoy.log").read_text()
    assert not [secret for secret in ("sec-ret", "hid-den", treadle[1].key) if secret in text]


async def test_prometheus_has_what_the_board_shows_and_the_alerts_ask_for(
    program: Path, http: Http, passable: Path, tmp_path: Path
) -> None:
    certificate, key = await own_certificate(tmp_path)
    wanted = Gateway(
        listen="127.0.0.1:0",
        upstream=http.upstream,
        admin="",
        metrics="127.0.0.1:0",
        client_requests_per_second=1,
        tls_certificate=certificate,
        tls_key=key,
    )
    trust = ssl.create_default_context(cafile=certificate)
    async with embedded_gateway(program, wanted, passable / "own") as address, aiohttp.ClientSession() as session:
        for _ in range(4):
            async with session.get(f"https://{address}/nothing", ssl=trust) as answer:
                await answer.read()
        page = metrics_of(passable / "own")
        async with session.get(page) as answer:
            assert answer.status == 200
            text = await answer.text()
        names = {line.partition("{")[0].partition(" ")[0] for line in text.splitlines()}
        shown = {name for path in SHOWN for name in re.findall(r"envoy_\w+", path.read_text())} - LABELS
        assert {"envoy_server_live", "envoy_http_downstream_rq_xx"} < shown
        assert shown <= names, shown - names
        assert 'envoy_cluster_membership_healthy{envoy_cluster_name="server"} 1' in text
        # It has two days at first.
        assert re.search(r"^envoy_server_days_until_first_cert_expiring\{\} [12]$", text, re.MULTILINE)
        # Nothing else of Envoy's control is there.
        for method, path in (("POST", "/metrics"), ("GET", "/config_dump"), ("POST", "/quitquitquit"), ("GET", "/metrics/../config_dump")):
            async with session.request(method, page.removesuffix("/metrics") + path) as answer:
                assert answer.status == 404, path


async def test_all_that_it_says_can_be_json(passable: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(DOCS.parent),
            "TREADLE_LOG_FORMAT": "json",
            "TREADLE_GATEWAY_LISTEN": listen,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "server.gateway", cwd=passable, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        out, _ = await asyncio.wait_for(process.communicate(), 60)
    # Envoy repeats its last words, outside of its log.
    said = [json.loads(line) for line in out.splitlines() if not line.startswith(b"cannot bind")]
    assert process.returncode == 1, said
    assert {line["event"] for line in said} == {"gateway.says", "envoy.says"}
    assert [line for line in said if listen in line["message"] and line["event"] == "envoy.says"]
    assert all(datetime.fromisoformat(line["timestamp"]) and line["level"] for line in said)


async def test_load_balancers_hear_whether_it_serves(http: Http, treadle: tuple[Any, Client]) -> None:
    async with http.session.get(http.base + "/healthz") as answer:
        assert answer.status == 200
    await treadle[0].api.drain()
    async with asyncio.timeout(20):
        while answer.status == 200:
            await asyncio.sleep(0.05)
            async with http.session.get(http.base + "/healthz") as answer:
                told = await answer.text()
    assert (answer.status, json.loads(told)["details"][0]["reason"]) == (503, "SERVER_UNREACHABLE")


@pytest.mark.parametrize("way", ["SSE", "gRPC", "gRPC-web"])
async def test_a_stream_that_was_cut_has_a_line_and_one_that_was_left_has_none(
    program: Path, treadle: tuple[Any, Client], repository: dict[str, str], passable: Path, way: str
) -> None:
    """Both have begun with 200, and their ends have no status."""
    _, client = treadle
    slow = {"repository_url": repository["repositoryUrl"], "prompt": "go", "provider": "replay", "model": "slow.jsonl"}
    execution = client.execute(**slow)
    session_id = (await execution.read()).started.session_id
    async with tcp_gate(int(client.address.rpartition(":")[2])) as tcp:
        wanted = Gateway(listen="127.0.0.1:0", upstream=f"127.0.0.1:{tcp.port}", admin="")
        home = passable / "own"
        async with embedded_gateway(program, wanted, home) as address, asyncio.timeout(30):
            door = Door(address, client.key)
            async with aclosing(STREAMS[way](door, session_id, 0)) as left:
                await anext(left)
            while await open_requests(control(home)):
                await asyncio.sleep(0.05)
            async with aclosing(STREAMS[way](door, session_id, 0)) as cut:
                await anext(cut)
                await tcp.hang_up()
                with pytest.raises(Cut):
                    async for _ in cut:
                        pass
            while not lines(home):
                await asyncio.sleep(0.05)
            (line,) = lines(home)
            assert (line["status"], line["details"].partition("{")[0]) == (200, "upstream_reset_after_response_started")
    execution.cancel()
    await client.call("Interrupt", pb.InterruptRequest(session_id=session_id))
