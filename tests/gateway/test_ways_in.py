"""One session, read through every way in: the same messages, and no end that a client cannot see."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import struct
from typing import Any

import aiohttp
import grpc
import pytest
from support.gateway import ORIGIN, Http
from support.git_server import GitServer
from support.treadle import Client, recording
from support.ways_in import READERS, RESUME, Door, Reader, digest, parse, whole

from treadle.session.v1 import session_service_pb2 as pb


@pytest.fixture
async def session_id(http: Http, repository: dict[str, str]) -> str:
    """A session that ended, made over HTTP."""
    async with http.session.post(http.base + "/execute", json=repository) as answer:
        assert answer.status == 200, await answer.text()
        blocks = http.blocks(await answer.text())
    assert (blocks[0]["event"], next(block["event"] for block in blocks if "id" in block)) == ("started", "turn_started")
    assert (blocks[-2]["event"], blocks[-1]["event"]) == ("turn_completed", "closed")
    return str(json.loads(blocks[0]["data"])["sessionId"])


@pytest.mark.parametrize("read", READERS.values(), ids=READERS.keys())
async def test_every_way_in_shows_the_same_session(http: Http, treadle: tuple[Any, Client], session_id: str, read: Reader) -> None:
    """By SHA-256 over seq, kind and body. Through Chromium: test_browser.py."""
    log = await treadle[1].log(session_id)
    assert len(log) > 15
    assert digest(await whole(read, Door(http.address, treadle[1].key), session_id)) == digest(log)


@pytest.mark.parametrize("read", [READERS["gRPC"], READERS["grpcurl"]], ids=["gRPC", "grpcurl"])
async def test_the_server_itself_shows_the_same_session(treadle: tuple[Any, Client], session_id: str, read: Reader) -> None:
    """Without the gateway."""
    _, client = treadle
    assert digest(await whole(read, Door(client.address, client.key), session_id)) == digest(await client.log(session_id))


async def test_pages_of_the_log_hold_the_same_session(http: Http, treadle: tuple[Any, Client], session_id: str) -> None:
    async with http.session.get(f"{http.base}/v1/sessions/{session_id}/events?pageSize=1000") as answer:
        found = [parse(event) for event in (await answer.json())["events"]]
    assert digest(found) == digest(await treadle[1].log(session_id))


async def test_server_sent_events_resume_at_every_event(http: Http, session_id: str) -> None:
    whole = await http.events(f"/resume?sessionId={session_id}")
    assert [int(block["id"]) for block in whole] == list(range(1, len(whole) + 1))
    for after in range(len(whole) + 1):
        query = await http.events(f"/v1/sessions/{session_id}/events:stream?afterSeq={after}")
        header = await http.events(f"/resume?sessionId={session_id}&after_seq=1", **{"Last-Event-ID": str(after)})
        assert query == header == whole[after:]


async def test_a_post_with_the_id_of_an_event_starts_nothing(http: Http, treadle: tuple[Any, Client], repository: dict[str, str]) -> None:
    """Libraries that read server-sent events by fetch send the header when they repeat a call that was cut."""
    for asked in (repository, repository | {"requestId": "never-heard-of"}):
        async with http.session.post(http.base + "/execute", json=asked, headers={"last-event-id": "2"}) as answer:
            assert (answer.status, (await answer.json())["details"][0]["reason"]) == (400, "SEQUENCE_AHEAD")
    assert not (await treadle[1].call("ListSessions", pb.ListSessionsRequest())).sessions
    known = repository | {"requestId": "known"}
    async with http.session.post(http.base + "/execute", json=known) as answer:
        whole = [block for block in http.blocks(await answer.text()) if "id" in block]
    async with http.session.post(http.base + "/execute", json=known, headers={"last-event-id": "2"}) as answer:
        assert [block for block in http.blocks(await answer.text()) if "id" in block] == whole[2:]
    async with http.session.post(http.base + "/execute", json=known, headers={"last-event-id": "9999"}) as answer:
        assert (answer.status, (await answer.json())["details"][0]["reason"]) == (400, "SEQUENCE_AHEAD")
    assert len((await treadle[1].call("ListSessions", pb.ListSessionsRequest())).sessions) == 1


async def test_events_come_one_by_one_and_silence_is_filled(http: Http, repository: dict[str, str]) -> None:
    """The turn waits for a minute: what it said before must be here long before that, and heartbeats after it."""
    async with asyncio.timeout(30), http.session.post(http.base + "/execute", json=repository | {"model": "slow.jsonl"}) as answer:
        seen = b""
        while not (b"waiting" in seen and seen.endswith(b": heartbeat\n\n")):
            seen += await answer.content.readany()
    session_id = json.loads(http.blocks(seen.decode())[0]["data"])["sessionId"]
    # Who left changed nothing: the turn goes on, and is stopped by a call of its own.
    async with http.session.post(f"{http.base}/v1/sessions/{session_id}:interrupt", json={}) as answer:
        assert (await answer.json())["turnId"]
    blocks = await http.events(f"/resume?sessionId={session_id}")
    assert json.loads(blocks[-1]["data"])["turnCompleted"]["status"] == "TURN_STATUS_INTERRUPTED"


async def test_a_stream_that_the_server_ends_says_so(http: Http, treadle: tuple[Any, Client], repository: dict[str, str]) -> None:
    """Over HTTP/1.1 an aborted call looks like a complete one: the error must stand in the stream."""
    async with asyncio.timeout(30), http.session.post(http.base + "/execute", json=repository | {"model": "slow.jsonl"}) as answer:
        seen = b""
        while b"waiting" not in seen:
            seen += await answer.content.readany()
        await treadle[0].api.drain()
        seen += await answer.read()
    last = http.blocks(seen.decode())[-1]
    assert last["event"] == "error"
    assert json.loads(last["data"])["details"][0]["reason"] == "SHUTTING_DOWN"


async def test_a_gateway_that_goes_in_mid_stream_costs_no_event(
    http: Http, treadle: tuple[Any, Client], git_server: GitServer, repository: dict[str, str]
) -> None:
    """Envoy goes and another comes, twice, while a session runs; what a client kept, and what it then asks for, is the log."""
    from gateway.config import Gateway
    from server.embedded.gateway import embedded_gateway

    burst = recording({"burst": 300, "text": "x" * 40, "per_second": 150})
    git_server.create("acme/long", {"r.jsonl": burst})
    request = repository | {"repositoryUrl": f"{git_server.url}/acme/long.git", "requestId": "long"}
    kept: list[int] = []
    session_id = ""
    for cut_after in (60, 180, 10_000):
        wanted = Gateway(listen="127.0.0.1:0", upstream=http.upstream, admin="")
        async with embedded_gateway(http.program, wanted, http.home) as address:
            base = f"http://{address}"
            headers = {"Last-Event-ID": str(kept[-1])} if kept else {}
            call = (
                http.session.get(f"{base}/resume?sessionId={session_id}", headers=headers)
                if session_id
                else http.session.post(f"{base}/execute", json=request)
            )
            async with asyncio.timeout(60), call as answer:
                text = b""
                while len(kept) < cut_after:
                    chunk = await answer.content.readany()
                    if not chunk:
                        break
                    whole, found, text = (text + chunk).rpartition(b"\n\n")
                    for block in http.blocks((whole + found).decode()):
                        kept += [int(block["id"])] if "id" in block else []
                        session_id = session_id or json.loads(block["data"])["sessionId"]
    log = await treadle[1].log(session_id)
    assert kept == [event.seq for event in log]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "reason"),
    [
        ("GET", "/v1/sessions/0190aaaa-0000-7000-8000-000000000000", None, 404, "SESSION_NOT_FOUND"),
        ("GET", "/resume?sessionId=0190aaaa-0000-7000-8000-000000000000", None, 404, "SESSION_NOT_FOUND"),
        ("POST", "/execute", {"prompt": ""}, 400, "INVALID_FIELD"),
        ("GET", "/resume", None, 400, "INVALID_FIELD"),
        ("POST", "/v1/sessions:execute", {"prompt": "x", "repositoryUrl": "ssh://a/b"}, 400, "REPOSITORY_NOT_ALLOWED"),
        ("POST", "/v1/sessions", "{", 400, "REQUEST_MALFORMED"),
        ("GET", "/nothing/here", None, 404, "ROUTE_UNKNOWN"),
        ("POST", "/v1/sessions", "x" * (17 << 20), 413, "REQUEST_TOO_LARGE"),
    ],
)
async def test_failures_are_json_with_a_reason(http: Http, method: str, path: str, body: Any, status: int, reason: str) -> None:
    data = io.BytesIO(body.encode()) if isinstance(body, str) else None if body is None else json.dumps(body)
    async with http.session.request(method, http.base + path, data=data) as answer:
        assert answer.content_type == "application/json"
        told = await answer.json()
        assert (answer.status, told["details"][0]["reason"], told["details"][0]["domain"]) == (status, reason, "treadle")
        assert told["message"]


@pytest.mark.parametrize("query", ["sessionID=x", "sessionId=x&afterseq=3", "sessionId=x&follow=false&live=1"])
async def test_a_query_that_nobody_knows_is_refused_by_name(http: Http, query: str) -> None:
    async with http.session.get(f"{http.base}/resume?{query}") as answer:
        told = await answer.json()
    assert (answer.status, told["details"][0]["reason"]) == (400, "REQUEST_MALFORMED")
    assert query.rpartition("&")[2].partition("=")[0] in told["message"]


@pytest.mark.parametrize(
    ("path", "body", "unknown"),
    [
        ("/v1/sessions:execute", '{"prompt": "x", "approval": "APPROVALS_ASK"}', "approval"),
        ("/execute", '{"prompt": "a \\"quoted\\" {[,", "labels": 1}', "labels"),
        ("/v1/sessions/x:stream", '{"requestID": "x"}', "requestID"),
        ("/v1/sessions", '{"labels": {"any": "name"}, "Title": ""}', "Title"),
        (
            "/v1/sessions/x/requests/y:resolve",
            '{"answers": [{"questionId": "q"}, {"question_id": "r", "option": [{"x": []}]}]}',
            "answers.option",
        ),
        ("/v1/sessions/x/inputs", '{"text": "x", "\\u0064elivery": null}', "?u0064elivery"),
    ],
)
async def test_a_field_that_nobody_knows_is_refused_by_name(http: Http, path: str, body: str, unknown: str) -> None:
    """Who misspells `approvals` shall not be run without being asked."""
    async with http.session.post(http.base + path, data=body, headers={"content-type": "application/json"}) as answer:
        told = await answer.json()
    assert (answer.status, told["details"][0]["reason"]) == (400, "REQUEST_MALFORMED")
    assert told["message"] == f"{unknown}: there is no such field"


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{}",
        ' {"title" : "a\\\\" , "labels":{"a":"{\\"b", "c":"]"},\n"repository_url":"ssh://x"}\t',
        '{"repositoryUrl": null, "baseBranch": "m", "requestId": "r"}',
        '{"title": "", "labels": {}}',
        '{"allowedHosts": [], "labels": null}',
        '{"allowedHosts": ["a.example.org", "b.example.org"]}',
        '{"allowedHosts": null}',
        "[]",
        '{"title',
        '{"title": "x"',
    ],
)
async def test_fields_that_are_known_are_judged_by_others(http: Http, body: str) -> None:
    async with http.session.post(http.base + "/v1/sessions", data=body, headers={"content-type": "application/json"}) as answer:
        told = await answer.json()
    assert answer.status == 400
    assert "no such field" not in told["message"]


@pytest.mark.parametrize(
    ("path", "body", "byte"),
    [
        ("/execute", "{'prompt': 'x', 'approval': 'APPROVALS_ASK'}", 2),
        ("/execute", '{"prompt": "x", approval: "APPROVALS_ASK"}', 17),
        ("/execute", """{"prompt": 'x": 1, "y', "approval": ""}""", 12),
        ("/execute", '\ufeff{"prompt": "x", "approval": "APPROVALS_ASK"}', 1),
        ("/execute", '{"prompt": "x"} {"approval": "APPROVALS_ASK"}', 17),
        ("/execute", '{"prompt": "x",, "approval": "APPROVALS_ASK"}', 16),
        ("/v1/sessions/x/requests/y:resolve", '{"answers": [[{"approval": 1}]]}', 14),
        ("/v1/sessions/x/requests/y:resolve", '{"answers": [{"questionId": "q"}, 1]}', 35),
        ("/v1/sessions/x/requests/y:resolve", '{"answers": [null]}', 14),
        ("/v1/sessions/x/requests/y:resolve", '{"answers": [{"optionIds": "a"}]}', 28),
        ("/execute", '{"allowedHosts": "a.example.org"}', 18),
        ("/execute", '{"allowedHosts": ["a.example.org", ["b.example.org"]]}', 36),
        ("/execute", '{"allowedHosts": [null]}', 19),
    ],
)
async def test_a_spelling_that_hides_fields_is_refused(http: Http, path: str, body: str, byte: int) -> None:
    """The transcoder takes some of them, and drops what it does not know."""
    async with http.session.post(http.base + path, data=body.encode(), headers={"content-type": "application/json"}) as answer:
        told = await answer.json()
    assert (answer.status, told["details"][0]["reason"]) == (400, "REQUEST_MALFORMED")
    assert told["message"] == f"byte {byte} of the body is not what belongs there"


async def test_without_a_key_nothing_is_shown(http: Http) -> None:
    async with http.session.get(http.base + "/v1/sessions", headers={"authorization": "Bearer trd_wrong_key"}) as answer:
        assert (answer.status, (await answer.json())["details"][0]["reason"]) == (401, "API_KEY_INVALID")


async def test_the_worker_s_service_is_not_reachable(http: Http, through: Client) -> None:
    """On none of the ways by which the services of the server are."""
    path = "/treadle.worker.v1.WorkerService/Handshake"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await through.channel.unary_unary(path)(b"", metadata=through.metadata, timeout=20)
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(grpc.aio.AioRpcError) as known:
        await through.channel.unary_unary("/treadle.session.v1.SessionService/GetSession")(b"", metadata=through.metadata, timeout=20)
    assert known.value.code() != grpc.StatusCode.UNIMPLEMENTED
    web = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"}
    async with http.session.post(http.base + path, data=b"\0\0\0\0\0", headers=web) as answer:
        assert answer.headers["grpc-status"] == str(grpc.StatusCode.UNIMPLEMENTED.value[0])


async def test_a_ticket_opens_the_stream_of_its_session_and_nothing_else(
    http: Http, treadle: tuple[Any, Client], session_id: str, repository: dict[str, str]
) -> None:
    async with http.session.post(f"{http.base}/v1/sessions/{session_id}:streamTicket", json={}) as answer:
        ticket = (await answer.json())["ticket"]
    async with http.session.post(f"{http.base}/v1/sessions", json={"repositoryUrl": repository["repositoryUrl"]}) as answer:
        other = (await answer.json())["session"]["sessionId"]
    async with http.session.post(f"{http.base}/v1/sessions/{other[:-1]}x:streamTicket", json={}) as answer:
        assert answer.status == 404
    stream = f"/v1/sessions/{{}}/events:stream?ticket={ticket}"
    async with aiohttp.ClientSession(http.base) as stranger:
        async with stranger.get(stream.format(session_id)) as answer:
            whole = http.blocks(await answer.text())
        assert [block for block in whole if "id" in block] == await http.events(f"/resume?sessionId={session_id}")
        for path, status, reason in (
            (stream.format(other), 401, "TICKET_INVALID"),
            (stream.format(session_id)[:-1], 401, "TICKET_INVALID"),
            (f"/v1/sessions/{session_id}:resume?ticket={ticket}", 401, "API_KEY_MISSING"),
            # These have no such field.
            (f"/v1/sessions/{session_id}/events?ticket={ticket}", 400, "REQUEST_MALFORMED"),
            (f"/v1/sessions/{session_id}?ticket={ticket}", 400, "REQUEST_MALFORMED"),
        ):
            async with stranger.get(path) as answer:
                told = await answer.json()
            assert (answer.status, told["details"][0]["reason"]) == (status, reason), path
        # It is no key, and makes no other tickets.
        headers = {"authorization": f"Bearer {ticket}"}
        async with stranger.post(f"/v1/sessions/{session_id}:streamTicket", json={}, headers=headers) as answer:
            assert (await answer.json())["details"][0]["reason"] == "API_KEY_INVALID"


async def test_only_named_origins_may_call_from_a_page(http: Http) -> None:
    for origin, allowed in ((ORIGIN, True), ("https://evil.example.org", False), ("null", False)):
        headers = {"origin": origin, "access-control-request-method": "POST", "access-control-request-headers": "authorization"}
        async with http.session.options(http.base + RESUME, headers=headers) as answer:
            assert ("access-control-allow-origin" in answer.headers) == allowed, origin
            # A page that is traced says so, or its browser keeps back the whole call.
            assert ("traceparent" in answer.headers.get("access-control-allow-headers", "")) == allowed
            assert ("retry-after" in answer.headers.get("access-control-expose-headers", "")) == allowed, origin


async def test_answers_over_http_say_what_proxies_and_pages_need(http: Http, repository: dict[str, str]) -> None:
    async with http.session.post(http.base + "/execute", json=repository) as answer:
        assert (answer.headers["cache-control"], answer.headers["x-accel-buffering"]) == ("no-cache", "no")
        await answer.read()
    async with http.session.get(http.base + "/v1/sessions") as answer:
        assert not [name for name in answer.headers if name.lower().startswith("grpc-")]


async def test_the_json_api_does_all_that_the_service_does(http: Http, repository: dict[str, str]) -> None:
    """Every unary RPC by its path."""
    made = {"repositoryUrl": repository["repositoryUrl"], "title": "Made"}
    async with http.session.post(http.base + "/v1/sessions", json=made) as answer:
        session = (await answer.json())["session"]
    one = f"{http.base}/v1/sessions/{session['sessionId']}"
    async with http.session.get(one) as answer:
        assert (await answer.json())["session"] == session
    async with http.session.patch(one, json={"title": "Changed", "updateMask": "title"}) as answer:
        assert (await answer.json())["session"]["title"] == "Changed"
    async with http.session.get(http.base + "/v1/sessions?pageSize=5") as answer:
        assert [each["title"] for each in (await answer.json())["sessions"]] == ["Changed"]
    async with http.session.get(one + "/events") as answer:
        assert answer.status == 200
    async with http.session.post(one + ":interrupt", json={}) as answer:
        assert await answer.json() == {}
    async with http.session.delete(one) as answer:
        assert answer.status == 200
    async with http.session.get(one) as answer:
        assert answer.status == 404


async def test_base64_is_grpc_web_too(http: Http, session_id: str) -> None:
    """`application/grpc-web-text`, for clients that cannot read binary streams."""
    request = pb.GetSessionRequest(session_id=session_id).SerializeToString()
    body = base64.b64encode(b"\0" + struct.pack(">I", len(request)) + request)
    headers = {"content-type": "application/grpc-web-text", "accept": "application/grpc-web-text"}
    async with http.session.post(http.base + "/treadle.session.v1.SessionService/GetSession", data=body, headers=headers) as answer:
        assert answer.content_type.startswith("application/grpc-web-text")
        text = await answer.read()
    # Pieces that are each encoded, and padded, by themselves.
    data = b"".join(base64.b64decode(piece) for piece in re.findall(rb"[^=]+={0,2}", text))
    end = 5 + struct.unpack(">I", data[1:5])[0]
    assert (data[0], pb.GetSessionResponse.FromString(data[5:end]).session.session_id) == (0, session_id)
    trailers = data[end:]
    assert trailers[0] == 0x80
    assert b"grpc-status:0" in trailers.replace(b" ", b"")


async def test_what_the_user_says_and_answers_meanwhile_over_json(http: Http, git_server: GitServer) -> None:
    asking = recording({"ask": "Which colour?", "choices": ["red", "blue"]}, {"say": "it is {answer}"})
    git_server.create("acme/asking", {"r.jsonl": asking})
    wanted = {"repositoryUrl": f"{git_server.url}/acme/asking.git", "prompt": "go", "provider": "replay", "model": "r.jsonl"}
    async with http.session.post(http.base + "/execute", json=wanted) as answer:
        text = ""
        while "question_requested" not in text or not text.endswith("\n\n"):
            text += (await answer.content.readany()).decode()
        (asked,) = [block for block in http.blocks(text) if block["event"] == "question_requested"]
        event = json.loads(asked["data"])
        base = f"{http.base}/v1/sessions/{event['sessionId']}"
        # The server writes this one as server-sent events; Envoy's transcoder is stricter with what it reads.
        async with http.session.get(f"{base}/events?afterSeq={int(event['seq']) - 1}&pageSize=1") as page:
            assert (await page.json())["events"] == [event]
        async with http.session.post(f"{base}/inputs", json={"text": "two", "delivery": "INPUT_DELIVERY_QUEUE"}) as sent:
            queued = (await sent.json())["input"]
        async with http.session.patch(f"{base}/inputs/{queued['inputId']}", json={"text": "two, better", "version": "1"}) as edited:
            assert (await edited.json())["input"]["version"] == "2"
        async with http.session.get(f"{base}/inputs") as listed:
            assert [each["text"] for each in (await listed.json())["inputs"]] == ["two, better"]
        async with http.session.delete(f"{base}/inputs/{queued['inputId']}") as cancelled:
            assert (await cancelled.json())["input"]["status"] == "INPUT_STATUS_CANCELLED"
        resolve = f"{base}/requests/{event['questionRequested']['requestId']}:resolve"
        async with http.session.post(resolve, json={"answers": [{"questionId": "question", "optionIds": ["blue"]}]}) as resolved:
            assert (await resolved.json())["resolved"]["outcome"] == "REQUEST_OUTCOME_ANSWERED"
        async with http.session.post(resolve, json={"decline": True}) as late:
            failure = await late.json()
            assert (late.status, failure["details"][0]["reason"]) == (400, "REQUEST_RESOLVED")
        text += (await answer.read()).decode()
    assert [block["event"] for block in http.blocks(text)][-1] == "closed"
    assert "it is blue" in text


async def test_a_page_of_the_log_may_be_large(http: Http, git_server: GitServer) -> None:
    """The transcoder gives up a response that is larger than it may keep, with 502."""
    git_server.create("acme/large", {"r.jsonl": recording(*[{"say": f"{n} " + "x" * 60_000} for n in range(60)])})
    request = {"repositoryUrl": f"{git_server.url}/acme/large.git", "prompt": "go", "provider": "replay", "model": "r.jsonl"}
    async with http.session.post(http.base + "/execute", json=request) as answer:
        blocks = http.blocks(await answer.text())
    session_id = json.loads(blocks[0]["data"])["sessionId"]
    seqs: list[int] = []
    largest = 0
    while True:
        async with http.session.get(f"{http.base}/v1/sessions/{session_id}/events?pageSize=1000&afterSeq={len(seqs)}") as answer:
            text = await answer.text()
        assert answer.status == 200, text[:500]
        largest = max(largest, len(text))
        found = [int(event["seq"]) for event in json.loads(text).get("events", [])]
        if not found:
            break
        seqs += found
    assert seqs == [int(block["id"]) for block in blocks if "id" in block]
    assert largest > 2_000_000
