"""A real Chromium on a page of another origin: connect-web with the generated TypeScript, and server-sent events by fetch."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.browser import Browser, Page, chromium, page_server
from support.cutting_proxy import cutting_proxy
from support.gateway import Http, own_certificate
from support.git_server import GitServer
from support.treadle import Client, recording
from support.ways_in import digest

from gateway.config import Gateway
from server.embedded.gateway import embedded_gateway
from treadle.session.v1 import event_pb2
from treadle.session.v1 import session_service_pb2 as pb

PARALLEL = 8
"""More than the six connections that a browser has for one host over HTTP/1.1."""


@pytest.fixture(scope="module")
async def page_port(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[int]:
    async with page_server(tmp_path_factory.mktemp("page")) as port:
        yield port


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as running:
        yield running


@pytest.fixture
def origins(page_port: int) -> tuple[str, ...]:
    return (f"http://127.0.0.1:{page_port}",)


@pytest.fixture
async def page(browser: Browser, page_port: int) -> Page:
    return await browser.open(f"http://127.0.0.1:{page_port}/")


@pytest.fixture
def door(http: Http, treadle: tuple[Any, Client]) -> dict[str, str]:
    return {"gateway": http.base, "key": treadle[1].key}


@pytest.fixture
async def log(treadle: tuple[Any, Client], git_server: GitServer) -> list[event_pb2.Event]:
    """Of a session that ended."""
    steps = [{"say": "ä\n\u2028"}, {"run": "echo one; echo two >&2"}, {"write": "a.txt", "content": "ä\n"}]
    steps += [{"say": f"{n}"} for n in range(30)]
    git_server.create("acme/done", {"r.jsonl": recording(*steps)})
    events = await treadle[1].run(repository_url=f"{git_server.url}/acme/done.git", prompt="go", provider="replay", model="r.jsonl")
    return await treadle[1].log(events[0].session_id)


def unpacked(events: list[str]) -> list[event_pb2.Event]:
    return [event_pb2.Event.FromString(base64.b64decode(event)) for event in events]


async def test_unary_calls(page: Page, door: dict[str, str], log: list[event_pb2.Event]) -> None:
    assert await page.call("list", **door) == {"sessions": [log[0].session_id]}
    assert await page.call("roundTrip")


async def test_connect_web_reads_the_session_that_everybody_reads(page: Page, door: dict[str, str], log: list[event_pb2.Event]) -> None:
    answer = await page.call("resume", door=door, sessionId=log[0].session_id)
    assert answer["ending"]["code"] == "complete"
    assert digest(unpacked(answer["events"])) == digest(log)


async def test_fetch_reads_the_session_that_everybody_reads(page: Page, door: dict[str, str], log: list[event_pb2.Event]) -> None:
    answer = await page.call("sse", door=door, path=f"/resume?sessionId={log[0].session_id}")
    assert (answer["status"], answer["last"]) == (200, "closed")
    assert digest(unpacked(answer["events"])) == digest(log)


async def test_failures_arrive_with_their_details(page: Page, door: dict[str, str], log: list[event_pb2.Event]) -> None:
    nobody = await page.call("resume", door=door, sessionId="0190aaaa-0000-7000-8000-000000000000")
    assert (nobody["ending"]["code"], nobody["ending"]["reason"]) == ("NotFound", "SESSION_NOT_FOUND")
    ahead = await page.call("resume", door=door, sessionId=log[0].session_id, afterSeq=10_000)
    assert (ahead["ending"]["code"], ahead["ending"]["reason"]) == ("OutOfRange", "SEQUENCE_AHEAD")
    empty = await page.call("execute", door=door, request={"requestId": "x"})
    assert (empty["code"], empty["reason"]) == ("InvalidArgument", "INVALID_FIELD")
    assert empty["fields"]
    stranger = await page.call("list", gateway=door["gateway"], key="trd_wrong_key")
    assert (stranger["code"], stranger["reason"]) == ("Unauthenticated", "API_KEY_INVALID")


async def test_the_gateway_s_own_failures_arrive_with_their_details(
    page: Page, program: Path, passable: Path, origins: tuple[str, ...]
) -> None:
    wanted = Gateway(listen="127.0.0.1:0", upstream="127.0.0.1:9", admin="", origins=origins, requests_per_second=1)
    async with embedded_gateway(program, wanted, passable / "own") as address:
        told = [await page.call("list", gateway=f"http://{address}", key="trd_x") for _ in range(4)]
    assert {(each["code"], each["reason"]) for each in told} == {
        ("Unavailable", "SERVER_UNREACHABLE"),
        ("ResourceExhausted", "RATE_LIMITED"),
    }


async def test_events_arrive_one_by_one_and_a_client_may_leave(
    page: Page, door: dict[str, str], treadle: tuple[Any, Client], repository: dict[str, str]
) -> None:
    """The turn waits for a minute: what it said before must be here long before that."""
    call = page.start("execute", door=door, request={**repository, "model": "slow.jsonl"})
    session_id = (await call.next())["started"]
    while (await call.next()).get("text") != "waiting":
        pass
    assert not call.answer.done()
    watching = page.start("resume", door=door, sessionId=session_id, leaveAfter=4)
    left = await watching.result()
    assert (left["ending"]["code"], len(left["events"])) == ("Canceled", 4)
    slow = await page.call("resume", door=door, sessionId=session_id, timeoutMs=700)
    assert slow["ending"]["code"] == "DeadlineExceeded"
    _, client = treadle
    await client.call("Interrupt", pb.InterruptRequest(session_id=session_id))
    assert (await call.result())["code"] == "complete"
    # What the one that left had, and what it gets when it comes back, is the log.
    rest = await page.call("resume", door=door, sessionId=session_id, afterSeq=4)
    assert digest(unpacked(left["events"] + rest["events"])) == digest(await client.log(session_id))


async def test_server_sent_events_arrive_one_by_one(
    page: Page, door: dict[str, str], treadle: tuple[Any, Client], repository: dict[str, str]
) -> None:
    _, client = treadle
    stream = client.execute(
        repository_url=repository["repositoryUrl"], prompt="go", provider="replay", model="slow.jsonl", request_id="slow"
    )
    session_id = (await anext(aiter(stream))).started.session_id
    stream.cancel()
    call = page.start("sse", door=door, path=f"/resume?sessionId={session_id}")
    seen = [await call.next()]
    while seen[-1]["kind"] != "message":
        seen.append(await call.next())
    assert [each["seq"] for each in seen] == list(range(1, len(seen) + 1))
    assert not call.answer.done()
    await client.call("Interrupt", pb.InterruptRequest(session_id=session_id))
    whole = await call.result()
    assert whole["last"] == "closed"
    left = await page.call("sse", door=door, path=f"/resume?sessionId={session_id}", leaveAfter=5)
    rest = await page.call("sse", door=door, path=f"/resume?sessionId={session_id}", lastEventId="5")
    assert left["events"] + rest["events"] == whole["events"]


@pytest.mark.parametrize("how", ["resume", "sse"])
async def test_cut_by_the_network_it_comes_back_where_it_was(
    page: Page, door: dict[str, str], http: Http, log: list[event_pb2.Event], how: str
) -> None:
    """Connections that break at some byte, also in the middle of frames: what the page kept and what it then gets is the log."""
    limits = iter(range(600, 1_000_000, 450))
    kept: list[str] = []
    async with cutting_proxy(http.address, lambda: next(limits)) as proxy:
        cut = door | {"gateway": f"http://{proxy.address}"}
        for _ in range(100):
            seq = len(kept)
            session_id = log[0].session_id
            call = (
                page.start("resume", door=cut, sessionId=session_id, afterSeq=seq)
                if how == "resume"
                else page.start("sse", door=cut, path=f"/resume?sessionId={session_id}&afterSeq={seq}")
            )
            try:
                answer = await call.result()
            except AssertionError:
                # fetch threw before a whole event was here, or in mid-stream: what was emitted is what a page has shown.
                got = [call.emitted.get_nowait() for _ in range(call.emitted.qsize())]
                kept += [base64.b64encode(log[each["seq"] - 1].SerializeToString()).decode() for each in got]
                continue
            kept += answer["events"]
            if answer.get("last") == "closed" or answer.get("ending", {}).get("code") == "complete":
                break
        assert proxy.cuts >= 5
    assert digest(unpacked(kept)) == digest(log)


async def test_more_streams_than_a_browser_has_connections(
    browser: Browser,
    page_port: int,
    program: Path,
    http: Http,
    treadle: tuple[Any, Client],
    repository: dict[str, str],
    tmp_path: Path,
    passable: Path,
) -> None:
    """Over TLS, and so HTTP/2, all are live at once. Over plain HTTP/1.1 the seventh waits until one of six is gone."""
    _, client = treadle
    stream = client.execute(repository_url=repository["repositoryUrl"], prompt="go", provider="replay", model="slow.jsonl")
    session_id = (await anext(aiter(stream))).started.session_id
    stream.cancel()
    certificate, key = await own_certificate(tmp_path)
    wanted = Gateway(
        listen="127.0.0.1:0",
        upstream=http.upstream,
        admin="",
        origins=(f"http://127.0.0.1:{page_port}",),
        tls_certificate=certificate,
        tls_key=key,
    )
    page = await browser.open(f"http://127.0.0.1:{page_port}/")
    async with embedded_gateway(program, wanted, passable / "tls") as address:
        tls = {"gateway": f"https://{address}", "key": client.key}
        live = [page.start("resume", door=tls, sessionId=session_id) for _ in range(PARALLEL)]
        assert [(await call.next())["seq"] for call in live] == [1] * PARALLEL
        assert not any(call.answer.done() for call in live)
        plain = {"gateway": http.base, "key": client.key}
        six = [page.start("resume", door=plain, sessionId=session_id) for _ in range(6)]
        assert [(await call.next())["seq"] for call in six] == [1] * 6
        seventh = page.start("resume", door=plain, sessionId=session_id)
        await client.call("Interrupt", pb.InterruptRequest(session_id=session_id))
        for call in (*live, *six, seventh):
            assert (await call.result())["ending"]["code"] == "complete"


async def test_pages_of_foreign_origins_are_refused(
    browser: Browser, page_port: int, door: dict[str, str], log: list[event_pb2.Event]
) -> None:
    """The same page under another name is another origin."""
    foreign = await browser.open(f"http://localhost:{page_port}/")
    url = f"{door['gateway']}/v1/sessions"
    assert (await foreign.call("list", **door))["code"] == "Unknown"
    assert await foreign.call("plain", url=url, headers={"authorization": f"Bearer {door['key']}"}) == "TypeError"
    assert await foreign.call("plain", url=url) == "TypeError"


async def test_event_source_reads_the_session_that_everybody_reads(page: Page, door: dict[str, str], log: list[event_pb2.Event]) -> None:
    session_id = log[0].session_id
    answer = await page.call("eventSource", door=door, path=f"/resume?sessionId={session_id}", sessionId=session_id)
    assert (answer["opened"], answer["ending"]) == (1, "closed")
    assert digest(unpacked(answer["events"])) == digest(log)


async def test_event_source_comes_back_by_itself(page: Page, door: dict[str, str], http: Http, log: list[event_pb2.Event]) -> None:
    session_id = log[0].session_id
    ticket = (await page.call("ticketFor", door=door, sessionId=session_id))["ticket"]
    limits = iter([2500, 5000])
    async with cutting_proxy(http.address, lambda: next(limits, 1_000_000)) as proxy:
        cut = door | {"gateway": f"http://{proxy.address}"}
        answer = await page.call("eventSource", door=cut, path=f"/resume?sessionId={session_id}&ticket={ticket}")
        assert proxy.cuts == 2
    assert (answer["opened"], answer["ending"]) == (3, "closed")
    assert digest(unpacked(answer["events"])) == digest(log)


async def test_event_source_without_a_ticket_is_refused(page: Page, door: dict[str, str], log: list[event_pb2.Event]) -> None:
    """Also with a key: in a URL it would end up in logs, and open everything."""
    resume = f"/resume?sessionId={log[0].session_id}"
    for key in ("", f"&key={door['key']}", f"&api_key={door['key']}", f"&authorization=Bearer%20{door['key']}", f"&ticket={door['key']}"):
        assert (await page.call("eventSource", door=door, path=resume + key))["ending"] == "refused"
    assert await page.call("plain", url=door["gateway"] + resume) == "401"
