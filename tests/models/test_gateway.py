"""The gateway with a real agent's HTTP on one side and a fake provider's on the other."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import ssl
import subprocess
import tempfile
import tracemalloc
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
from aiohttp import web
from prometheus_client import REGISTRY
from pydantic import SecretStr
from support.fake_upstream import CACHE_READ, CACHE_WRITE, INPUT, OUTPUT, FakeUpstream, hang_up, message, silence, status
from support.model_door import RESPONSES, Agent, RecordingBill, ask, ask_openai

from server.config import Settings
from server.kernel.errors import ModelNotAllowed, ProviderNotConfigured
from server.kernel.model_use import Budget, ModelUse, Tokens
from server.kernel.ports.launcher import ModelDoor
from server.kernel.ports.model_gateway import ModelTrouble
from server.models.errors import ModelsUnfit
from server.models.gateway import open_models

USED = Tokens(INPUT, OUTPUT, CACHE_READ, CACHE_WRITE)
COST = round(INPUT * 3 + OUTPUT * 15 + CACHE_READ * 0.3 + CACHE_WRITE * 3.75)


# -- what passes -----------------------------------------------------------------------------------------------------------


async def test_a_request_passes_with_the_servers_key_and_comes_back_counted(agent: Agent, upstream: FakeUpstream) -> None:
    upstream.plays(message("one ", "two"))
    said = await agent.say()
    assert (said.status, said.headers["content-type"]) == (200, "text/event-stream")
    assert said.body.count(b"event: ") == 7
    (seen,) = upstream.seen
    assert (seen.method, seen.path, seen.body) == ("POST", "/v1/messages?beta=true", ask())
    assert seen.headers["x-api-key"] == "sk-ant-the-real-key"
    assert agent.door.token not in str(seen.headers)
    assert agent.bill.uses == [ModelUse("claude-sonnet-4-5", USED, COST)]
    assert agent.bill.troubles == []


async def test_an_answer_that_is_no_stream_is_counted_too(agent: Agent, upstream: FakeUpstream) -> None:
    said = await agent.say(body=ask(stream=False))
    assert said.json["content"][0]["text"] == "hello"
    assert [use.tokens for use in agent.bill.uses] == [USED]


async def test_openais_format_passes_and_nothing_is_stored(openai_agent: Agent, upstream: FakeUpstream) -> None:
    for body in (ask_openai(), ask_openai(store=True, background=False, client_metadata={"installation": "x"})):
        said = await openai_agent.say(RESPONSES, body, headers={"authorization": f"Bearer {openai_agent.door.token}"})
        assert said.status == 200
    for seen in upstream.seen:
        assert seen.body == {**ask_openai(), "store": False}
        assert seen.headers["authorization"] == "Bearer sk-openai-the-real-key"
        assert "x-api-key" not in seen.headers
    tokens = Tokens(INPUT, OUTPUT, CACHE_READ, reasoning=5)
    assert openai_agent.bill.uses == [ModelUse("gpt-5-codex", tokens, round(INPUT * 1.25 + CACHE_READ * 0.125 + OUTPUT * 10))] * 2


async def test_counting_tokens_is_free(agent: Agent, upstream: FakeUpstream) -> None:
    said = await agent.say("/v1/messages/count_tokens?beta=true", ask(stream=False))
    assert (said.status, said.json) == (200, {"input_tokens": 7})
    assert agent.bill.admitted == 0


async def test_the_token_may_come_as_a_bearer(agent: Agent) -> None:
    agent.key = {"authorization": f"Bearer {agent.door.token}"}
    assert (await agent.say()).status == 200


async def test_the_answer_comes_piece_by_piece(agent: Agent, upstream: FakeUpstream) -> None:
    last = asyncio.Event()
    upstream.plays(message("first", "last", wait=last))
    async with asyncio.timeout(10), agent.post() as answer:
        seen = b""
        while b"first" not in seen:
            seen += await answer.content.readany()
        assert b"last" not in seen
        last.set()
        assert b"last" in await answer.content.read()


async def test_only_known_headers_pass_in_either_direction(agent: Agent, upstream: FakeUpstream) -> None:
    upstream.plays(message(headers={"set-cookie": "a=b", "anthropic-organization-id": "org", "x-secret": "y", "keep-alive": "x"}))
    sent = {
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "context-management-2025-06-27,files-api-2025-04-14, oauth-2025-04-20,code-execution-2025-08-25,Bad Name",
        "user-agent": "claude-cli/2",
        "cookie": "session=1",
        "x-forwarded-for": "1.2.3.4",
        "x-stainless-os": "Linux",
        "proxy-authorization": "x",
    }
    said = await agent.say(headers=sent)
    headers = upstream.seen[0].headers
    assert headers.pop("host") == upstream.url.removeprefix("http://")
    assert headers.pop("content-length") == str(len(upstream.seen[0].raw))
    assert headers == {
        "accept": "text/event-stream",
        "accept-encoding": "identity",
        "anthropic-beta": "context-management-2025-06-27",
        "anthropic-version": "2023-06-01",
        "content-type": "application/json",
        "user-agent": "claude-cli/2",
        "x-api-key": "sk-ant-the-real-key",
    }
    assert said.headers.keys() - {"date", "server", "transfer-encoding"} == {"content-type", "request-id"}


async def test_a_subscription_is_paid_with_its_token(doors: Any, settings: dict[str, Any], upstream: FakeUpstream) -> None:
    settings |= {"anthropic_api_key": SecretStr(""), "claude_oauth_token": SecretStr("sk-ant-oat-subscription")}
    async with doors.open() as agent:
        assert (await agent.say(headers={"anthropic-beta": "effort-2025-11-24"})).status == 200
    headers = upstream.seen[0].headers
    assert headers["authorization"] == "Bearer sk-ant-oat-subscription"
    assert headers["anthropic-beta"] == "effort-2025-11-24,oauth-2025-04-20"
    assert "x-api-key" not in headers


# -- what does not pass ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [{}, {"x-api-key": "x" * 64}, {"authorization": "Basic eA=="}, {"x-api-key": "sk-ant-the-real-key"}])
async def test_without_the_doors_token_nothing_passes(agent: Agent, upstream: FakeUpstream, key: dict[str, str]) -> None:
    agent.key = key
    said = await agent.say()
    assert (said.status, said.json["error"]["type"]) == (401, "authentication_error")
    assert upstream.seen == []
    assert agent.bill.codes == ["MODEL_REQUEST_REFUSED"]


async def test_another_turns_token_is_no_good_here(doors: Any, upstream: FakeUpstream) -> None:
    async with doors.open(token="a" * 64, name="a.sock") as first, doors.open(token="b" * 64, name="b.sock") as second:
        second.key = first.key
        assert (await second.say()).status == 401
        assert (await first.say()).status == 200
    assert len(upstream.seen) == 1


async def test_after_the_turns_end_token_and_socket_are_dead(doors: Any, upstream: FakeUpstream) -> None:
    async with doors.open() as agent:
        assert (await agent.say()).status == 200
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(agent.door.socket))
    assert not agent.door.socket.exists()
    with connection:
        connection.settimeout(5)
        assert await asyncio.to_thread(connection.recv, 1) == b"", "an open connection is closed"
    with socket.socket(socket.AF_UNIX) as late, pytest.raises(FileNotFoundError):
        late.connect(str(agent.door.socket))
    assert len(upstream.seen) == 1


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/v1/messages", 405),
        ("DELETE", "/v1/messages", 405),
        ("POST", "/v1/messages?beta=true&x=1", 404),
        ("POST", "/v1/messages?beta=false", 404),
        ("POST", "/v1/messages/", 404),
        ("POST", "//v1/messages", 404),
        ("POST", "/v1/x/../messages", 404),
        ("POST", "/v1/%6dessages", 404),
        ("POST", "/V1/messages", 404),
        ("POST", "http://169.254.169.254/v1/messages", 404),
        ("POST", "/v1/messages/batches", 404),
        ("POST", "/v1/files", 404),
        ("GET", "/v1/models", 404),
        ("POST", "/v1/responses", 404),
        ("CONNECT", "169.254.169.254:80", 404),
        ("OPTIONS", "*", 404),
    ],
)
async def test_other_paths_and_methods_are_refused(agent: Agent, upstream: FakeUpstream, method: str, path: str, code: int) -> None:
    """As bytes: a client library would tidy the path up. /v1/responses exists, but not for an agent that speaks the other format."""
    head = f"{method} {path} HTTP/1.1\r\nhost: x\r\nx-api-key: {agent.door.token}\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}"
    answer = await raw(agent, head.encode())
    assert answer.startswith(f"HTTP/1.1 {code} ".encode()), answer
    assert upstream.seen == []


async def raw(agent: Agent, data: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(agent.door.socket))
    writer.write(data)
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize(
    "lines",
    [
        "transfer-encoding: chunked",
        "content-length: 2\r\ntransfer-encoding: chunked",
        "content-length: 2\r\ncontent-length: 30",
        "content-length: -1",
        "content-length: 2\r\ncontent-encoding: gzip",
        "content-length: 99999999999",
    ],
)
async def test_lengths_that_can_be_read_in_two_ways_are_refused(agent: Agent, upstream: FakeUpstream, lines: str) -> None:
    smuggled = f"POST /v1/files HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-api-key: {agent.door.token}\r\n\r\n"
    head = f"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {agent.door.token}\r\n{lines}\r\n\r\n0\r\n\r\n{smuggled}"
    answer = await raw(agent, head.encode())
    assert answer[8:13] in (b" 400 ", b" 411 ", b" 413 ", b" 415 "), answer
    assert b" 200 " not in answer
    assert upstream.seen == []


async def test_what_is_sent_is_what_was_checked(agent: Agent, upstream: FakeUpstream) -> None:
    """Of a name that stands there twice, one reader takes the first and another the last."""
    double = b'{"tools": [{"type": "web_search_20250305", "name": "s"}], "messages": [], "model": "claude-sonnet-4-5", "tools": []}'
    assert (await agent.say(body=double)).status == 200
    assert b"web_search" not in upstream.seen[0].raw
    assert (await agent.say(body=double[:-1] + b', "tools": [{"type": "web_search_20250305"}]}')).status == 402
    assert (await agent.say(body=json.dumps(ask()).encode() + b'{"x": 1}')).status == 402
    assert (await agent.say(body=json.dumps(ask()).replace('"stream": true', '"stream": NaN').encode())).status == 402
    assert (await agent.say(body=json.dumps(ask("lone \ud800 surrogate")).encode())).status == 200
    assert upstream.seen[-1].body["messages"][0]["content"] == "lone \ud800 surrogate"
    assert len(upstream.seen) == 2


async def test_a_defect_is_logged_counted_and_said_in_the_providers_form(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr("server.models.anthropic_rules.check", broken)
    before = outcomes("broken")
    with structlog.testing.capture_logs() as logs:
        said = await agent.say()
    assert (said.status, said.headers["x-should-retry"]) == (402, "false")
    assert "a defect of the server" in said.json["error"]["message"]
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("model.request_crashed", "error")]
    assert outcomes("broken") == before + 1


def outcomes(outcome: str) -> float:
    return REGISTRY.get_sample_value("treadle_model_requests_total", {"format": "anthropic", "outcome": outcome}) or 0


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b"\xff\xfe", b"{" * 2_000_000, b"[" * 100_000, json.dumps({"a": [[]] * 600_000}).encode()],
    ids=["empty", "list", "null", "no text", "two million brackets", "deep", "broad"],
)
async def test_hostile_json_is_refused(agent: Agent, body: bytes) -> None:
    said = await agent.say(body=body)
    assert (said.status, said.json["error"]["type"]) == (402, "invalid_request_error")
    assert agent.bill.codes == ["MODEL_REQUEST_REFUSED"]


async def test_a_huge_request_is_refused_before_it_is_read(doors: Any, settings: dict[str, Any], upstream: FakeUpstream) -> None:
    settings |= {"model_request_bytes": 1000}
    async with doors.open() as agent:
        assert (await agent.say(body=ask("x" * 500))).status == 200
        said = await agent.say(body=ask("x" * 2000))
        assert (said.status, said.json["error"]["type"]) == (413, "request_too_large")
    assert len(upstream.seen) == 1


async def test_a_large_request_passes(agent: Agent, upstream: FakeUpstream) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 5_000_000}}
    body = {**ask(), "messages": [{"role": "user", "content": [image]}]}
    assert (await agent.say(body=body)).status == 200
    assert upstream.seen[0].body == body


async def test_a_request_that_was_sent_takes_up_no_memory(agent: Agent, upstream: FakeUpstream) -> None:
    upstream.plays(message("first", "last", wait=asyncio.Event()))
    body = json.dumps(ask("y" * 8 * 1024 * 1024)).encode()
    ours = [tracemalloc.Filter(True, f"*/server/models/{name}.py") for name in ("exchange", "rules", "upstream")]
    tracemalloc.start()
    try:
        async with agent.post(body=body) as answer:
            assert await answer.content.readany()
            held = sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces(ours).traces)
    finally:
        tracemalloc.stop()
    assert held < 1024 * 1024


async def test_a_slow_request_is_given_up(agent: Agent, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    from server.models import exchange

    monkeypatch.setattr(exchange, "_PATIENCE_SECONDS", 0.2)
    assert (await raw(agent, beginning(agent, 100))).startswith(b"HTTP/1.1 408 ")
    assert upstream.seen == []


async def test_requests_that_only_begin_are_in_nobodys_way(settings: dict[str, Any], upstream: FakeUpstream) -> None:
    """Each announces the largest request that there may be: four such turns took all the room there was."""
    async with AsyncExitStack() as stack:
        models = await stack.enter_async_context(open_models(Settings(**settings)))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="treadle-")))

        async def turn(name: str) -> Agent:
            door, bill = ModelDoor(folder / name, "t" * 64, None), RecordingBill()
            await stack.enter_async_context(models.gateway.open(door, provider="claude", bill=bill))
            return await stack.enter_async_context(Agent.at(door, bill))

        for number in range(10):
            agent = await turn(f"silent{number}")
            for _ in range(2):
                _, writer = await asyncio.open_unix_connection(str(agent.door.socket))
                stack.callback(writer.close)
                writer.write(beginning(agent, 32 * 1024 * 1024))
                await writer.drain()
        async with asyncio.timeout(5):
            assert (await (await turn("good")).say()).status == 200


def beginning(agent: Agent, size: int) -> bytes:
    """Of a request, whose first byte is all that comes of it."""
    head = (
        f"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {agent.door.token}\r\ncontent-length: {size}\r\nconnection: close\r\n\r\n{{"
    )
    return head.encode()


async def test_a_door_has_a_limit_of_connections(agent: Agent) -> None:
    opened = [await asyncio.open_unix_connection(str(agent.door.socket)) for _ in range(100)]
    try:
        endings = [asyncio.create_task(reader.read()) for reader, _ in opened]
        async with asyncio.timeout(10):
            while sum(ending.done() for ending in endings) < 100 - 64:
                await asyncio.sleep(0.01)
        _, open_ones = await asyncio.wait(endings, timeout=0.1)
        assert len(open_ones) == 64
    finally:
        for _, writer in opened:
            writer.close()
        await asyncio.wait(endings)


async def test_a_model_that_is_not_allowed_is_refused(agent: Agent, upstream: FakeUpstream) -> None:
    for model in ("gemini-pro", "", None, "claude-x y", ["claude-x"]):
        assert (await agent.say(body={**ask(), "model": model})).status == 402
    assert upstream.seen == []


def host_of(upstream: FakeUpstream) -> str:
    return upstream.url.removeprefix("http://")


# -- failures of the provider ----------------------------------------------------------------------------------------------


async def test_overload_is_tried_again_and_told(agent: Agent, upstream: FakeUpstream) -> None:
    upstream.plays(status(529, "busy", headers={"retry-after": "0.01"}), status(503, "later"), message())
    assert (await agent.say()).status == 200
    assert [replace(trouble, message="") for trouble in agent.bill.troubles] == [
        ModelTrouble("MODEL_OVERLOADED", "", retryable=True, attempt=1, provider_status=529),
        ModelTrouble("MODEL_OVERLOADED", "", retryable=True, attempt=2, provider_status=503),
    ]
    # Who says it, what, and what happens next.
    first, second = (trouble.message for trouble in agent.bill.troubles)
    assert re.fullmatch(rf"529 from {host_of(upstream)}: busy; try 2 of 3 in 0\.\d s", first)
    assert re.fullmatch(rf"503 from {host_of(upstream)}: later; try 3 of 3 in (0\.\d|1|1\.\d) s", second)
    assert len(upstream.seen) == 3
    assert len(agent.bill.uses) == 1


async def test_retry_after_is_honoured(agent: Agent, upstream: FakeUpstream) -> None:
    upstream.plays(status(429, "slow down", headers={"retry-after": "1"}), message())
    begun = asyncio.get_running_loop().time()
    assert (await agent.say()).status == 200
    assert 1 <= asyncio.get_running_loop().time() - begun < 3
    assert agent.bill.codes == ["MODEL_RATE_LIMITED"]
    assert agent.bill.troubles[0].message.endswith("slow down; try 2 of 3 in 1 s")


@pytest.mark.parametrize("code", [429, 500, 529])
async def test_what_is_final_is_said_in_the_providers_words_with_a_status_that_nobody_tries_again(
    agent: Agent, upstream: FakeUpstream, code: int
) -> None:
    upstream.default = status(code, "really no", kind="its_own_word", headers={"retry-after": "0.01"})
    said = await agent.say()
    assert (said.status, said.headers["x-should-retry"]) == (402, "false")
    message = f"{code} from {host_of(upstream)}: really no; given up after 3 tries"
    assert said.json == {"type": "error", "error": {"type": "its_own_word", "message": f"Treadle: {message}"}}
    assert agent.bill.troubles[-1].message == message
    assert len(upstream.seen) == 3
    assert [(trouble.retryable, trouble.attempt, trouble.provider_status) for trouble in agent.bill.troubles] == [
        (True, 1, code), (True, 2, code), (False, 0, code)
    ]  # fmt: skip
    assert agent.bill.uses == []


async def test_a_provider_that_wants_to_rest_for_long_is_not_waited_for(agent: Agent, upstream: FakeUpstream) -> None:
    upstream.plays(status(429, "tomorrow", headers={"retry-after": "86400"}))
    assert (await agent.say()).status == 402
    assert len(upstream.seen) == 1
    (trouble,) = agent.bill.troubles
    assert trouble.message.endswith("tomorrow; it asks to wait for 86,400 s, and TREADLE_MODEL_RETRY_SECONDS allows 60 s")


@pytest.mark.parametrize("code", [403, 404, 413])
async def test_the_providers_refusal_is_told(agent: Agent, upstream: FakeUpstream, code: int) -> None:
    upstream.plays(status(code, "not you, sk-ant-the-real-key"))
    assert (await agent.say()).status == code
    (trouble,) = agent.bill.troubles
    assert (trouble.code, trouble.provider_status, trouble.retryable) == ("MODEL_REQUEST_REFUSED", code, False)
    assert trouble.message.startswith(f"{code} from {host_of(upstream)}: not you, ***")
    assert agent.bill.uses == []


async def test_the_providers_word_about_the_request_passes_as_it_is(agent: Agent, upstream: FakeUpstream) -> None:
    upstream.plays(status(400, "prompt is too long", kind="invalid_request_error"), status(404, "no such model"))
    said = await agent.say()
    assert (said.status, said.json["error"]["message"]) == (400, "prompt is too long")
    assert (await agent.say()).status == 404
    assert agent.bill.uses == []
    assert agent.bill.unsettled == 0


@pytest.mark.parametrize("code", [400, 401])
async def test_a_provider_that_repeats_the_key_does_not_give_it_away(agent: Agent, upstream: FakeUpstream, code: int) -> None:
    upstream.plays(status(code, "the key sk-ant-the-real-key is wrong"))
    said = await agent.say()
    assert b"is wrong" in said.body
    assert b"the-real-key" not in said.body
    assert "the-real-key" not in str(agent.bill.troubles)


async def test_a_certificate_that_nobody_vouches_for_is_not_trusted(doors: Any, settings: dict[str, Any], tmp_path: Path) -> None:
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "certificate")]
    subprocess.run([*make, *files], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    heard: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(1))

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server:
        settings |= {"anthropic_url": f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", "model_retries": 0}
        async with doors.open() as agent:
            assert (await agent.say()).status == 402
            (trouble,) = agent.bill.troubles
            assert (trouble.code, trouble.message.split(": ", 1)[1]) == ("MODEL_UNAVAILABLE", "its certificate is not trusted")
    assert heard == []


async def test_a_redirect_is_not_followed(agent: Agent, upstream: FakeUpstream) -> None:
    upstream.plays(status(307, headers={"location": upstream.url + "/elsewhere"}))
    assert (await agent.say()).status == 402
    assert [seen.path for seen in upstream.seen] == ["/v1/messages?beta=true"]


async def test_a_connection_that_fails_is_tried_again(agent: Agent, upstream: FakeUpstream) -> None:
    upstream.plays(hang_up(), message())
    assert (await agent.say()).status == 200
    (trouble,) = agent.bill.troubles
    assert (trouble.code, trouble.provider_status) == ("MODEL_UNAVAILABLE", 0)
    assert trouble.message.startswith(f"{host_of(upstream)} hung up before it answered; try 2 of 3 in ")


async def test_nobody_there_is_told_in_the_end(doors: Any, settings: dict[str, Any]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{unused.getsockname()[1]}"
        settings |= {"anthropic_url": f"http://{host}", "model_retries": 0}
        async with doors.open() as agent:
            said = await agent.say()
    assert (said.status, said.json["error"]["type"]) == (402, "invalid_request_error")
    assert [(trouble.code, trouble.message) for trouble in agent.bill.troubles] == [
        ("MODEL_UNAVAILABLE", f"{host} cannot be reached: connection refused")
    ]


async def test_a_host_that_nobody_knows_is_named(doors: Any, settings: dict[str, Any]) -> None:
    settings |= {"anthropic_url": "https://models.invalid", "model_retries": 0}
    async with doors.open() as agent:
        said = await agent.say()
    assert said.json["error"]["message"] == "Treadle: models.invalid cannot be reached: its name cannot be resolved (DNS)"


@pytest.mark.parametrize(
    ("credential", "setting"),
    [
        ({}, "ANTHROPIC_API_KEY or TREADLE_ANTHROPIC_API_KEY"),
        (
            {"anthropic_api_key": SecretStr(""), "claude_oauth_token": SecretStr("sk-ant-oat-x")},
            "CLAUDE_CODE_OAUTH_TOKEN or TREADLE_CLAUDE_OAUTH_TOKEN",
        ),
    ],
)
async def test_a_refused_credential_is_told_with_its_setting_and_not_tried_again(
    doors: Any, settings: dict[str, Any], upstream: FakeUpstream, credential: dict[str, Any], setting: str
) -> None:
    settings |= credential
    upstream.default = status(401, "invalid x-api-key", kind="authentication_error")
    async with doors.open() as agent:
        said = await agent.say()
    assert (said.status, said.json["error"]["type"]) == (402, "authentication_error")
    assert [(trouble.code, trouble.message) for trouble in agent.bill.troubles] == [
        ("MODEL_CREDENTIAL_REFUSED", f"401 from {host_of(upstream)}: invalid x-api-key; check {setting}")
    ]
    assert len(upstream.seen) == 1


# -- silence of the provider -----------------------------------------------------------------------------------------------


async def test_a_model_that_does_not_answer_is_told_once_and_asked_again_in_time(
    doors: Any, settings: dict[str, Any], upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.models.patience.SLOW_SECONDS", 0.1)
    settings |= {"model_first_byte_seconds": 0.3}
    upstream.plays(silence(asyncio.Event()), silence(asyncio.Event()), message())
    async with doors.open() as agent:
        async with asyncio.timeout(10):
            assert (await agent.say()).status == 200
        slow, first, second = agent.bill.troubles
    assert slow == ModelTrouble("MODEL_SLOW", f"no answer from {host_of(upstream)} for 0.1 s; waiting up to 0.3 s", retryable=True)
    assert (first.code, second.code, first.attempt, second.attempt) == ("MODEL_UNAVAILABLE", "MODEL_UNAVAILABLE", 1, 2)
    assert first.message.startswith(f"no answer from {host_of(upstream)} within 0.3 s; try 2 of 3 in ")
    assert len(agent.bill.uses) == 1


async def test_a_model_that_never_answers_is_given_up(doors: Any, settings: dict[str, Any], upstream: FakeUpstream) -> None:
    settings |= {"model_first_byte_seconds": 0.1, "model_retries": 1}
    upstream.default = silence(asyncio.Event())
    async with doors.open() as agent:
        async with asyncio.timeout(10):
            said = await agent.say()
    assert said.status == 402
    assert said.json["error"]["message"] == f"Treadle: no answer from {host_of(upstream)} within 0.1 s; given up after 2 tries"
    assert agent.bill.codes == ["MODEL_UNAVAILABLE"] * 2


async def test_an_answer_that_is_no_stream_may_take_longer(doors: Any, settings: dict[str, Any], upstream: FakeUpstream) -> None:
    settings |= {"model_first_byte_seconds": 0.05}

    async def slow(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.3)
        return await message()(request)

    upstream.plays(slow)
    async with doors.open() as agent:
        assert (await agent.say(body=ask(stream=False))).status == 200
    assert agent.bill.troubles == []


async def test_an_answer_that_stands_still_is_told_and_cut_off(
    doors: Any, settings: dict[str, Any], upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.models.patience.SLOW_SECONDS", 0.1)
    settings |= {"model_silence_seconds": 0.3}
    upstream.plays(message("first", "last", wait=asyncio.Event()))
    async with doors.open() as agent:
        with pytest.raises(aiohttp.ClientPayloadError):
            async with asyncio.timeout(10):
                await agent.say()
        await asyncio.wait_for(agent.bill.settled.wait(), 10)
    assert [(trouble.code, trouble.message, trouble.retryable) for trouble in agent.bill.troubles] == [
        ("MODEL_SLOW", f"nothing more from {host_of(upstream)} for 0.1 s; waiting up to 0.3 s", True),
        ("MODEL_ANSWER_CUT", f"the answer from {host_of(upstream)} stood still for 0.3 s; the agent may ask again", True),
    ]
    assert [use.partial for use in agent.bill.uses] == [True]
    assert upstream.hung_up.is_set()


async def test_a_cut_answer_is_passed_on_as_a_cut(agent: Agent, upstream: FakeUpstream) -> None:
    upstream.plays(message("a" * 400, "never", cut=True))
    with pytest.raises(aiohttp.ClientPayloadError):
        await agent.say()
    assert agent.bill.codes == ["MODEL_ANSWER_CUT"]
    (use,) = agent.bill.uses
    assert use.partial
    assert use.tokens == Tokens(INPUT, 100, CACHE_READ, CACHE_WRITE), "the text that came is counted"


async def test_an_agent_that_hangs_up_ends_the_providers_work_and_pays(agent: Agent, upstream: FakeUpstream) -> None:
    begun = asyncio.Event()
    upstream.plays(message("first", "last", wait=asyncio.Event(), begun=begun), silence(begun))
    for uses in (1, 2):
        upstream.hung_up.clear()
        begun.clear()
        task = asyncio.create_task(agent.say())
        await asyncio.wait_for(begun.wait(), 10)
        task.cancel()
        await asyncio.wait_for(upstream.hung_up.wait(), 10)
        async with asyncio.timeout(5):
            while len(agent.bill.uses) < uses:
                await asyncio.sleep(0.01)
    assert [use.partial for use in agent.bill.uses] == [True, True]
    assert agent.bill.uses[0].tokens.input == INPUT
    assert agent.bill.uses[1].tokens.input == len(json.dumps(ask(), separators=(",", ":"))) // 4, "before the first byte: a guess"
    assert agent.bill.troubles == []


async def test_hanging_up_on_an_answer_that_is_no_stream_is_not_free(agent: Agent, upstream: FakeUpstream) -> None:
    begun = asyncio.Event()
    upstream.plays(silence(begun))
    task = asyncio.create_task(agent.say(body=ask(stream=False, max_tokens=32_000)))
    await asyncio.wait_for(begun.wait(), 10)
    task.cancel()
    await asyncio.wait_for(agent.bill.settled.wait(), 10)
    assert [(use.tokens.output, use.partial) for use in agent.bill.uses] == [(32_000, True)]


async def test_hanging_up_while_the_provider_only_refuses_is_free(agent: Agent, upstream: FakeUpstream) -> None:
    upstream.plays(status(529, headers={"retry-after": "30"}))
    task = asyncio.create_task(agent.say(body=ask(stream=False, max_tokens=32_000)))
    await asyncio.wait_for(agent.bill.troubled.wait(), 10)
    task.cancel()
    await asyncio.wait_for(agent.bill.settled.wait(), 10)
    assert agent.bill.uses == []


async def test_hanging_up_on_a_try_after_a_refusal_is_not_free(agent: Agent, upstream: FakeUpstream) -> None:
    begun = asyncio.Event()
    upstream.plays(status(529, headers={"retry-after": "0.01"}), silence(begun))
    task = asyncio.create_task(agent.say(body=ask(stream=False, max_tokens=32_000)))
    await asyncio.wait_for(begun.wait(), 10)
    task.cancel()
    await asyncio.wait_for(agent.bill.settled.wait(), 10)
    assert [(use.tokens.output, use.partial) for use in agent.bill.uses] == [(32_000, True)]


async def test_a_summary_of_the_conversation_does_not_make_a_request_a_long_one(agent: Agent, upstream: FakeUpstream) -> None:
    async def summarises(_: web.Request) -> web.StreamResponse:
        rounds = [
            {"type": kind, "input_tokens": size, "output_tokens": 1000} for kind, size in (("compaction", 90_000), ("message", 60_000))
        ]
        return web.json_response({"usage": {**rounds[1], "iterations": rounds}})

    upstream.plays(summarises)
    summarised = {"context_management": {"edits": [{"type": "compact_20260112"}]}, "model": "claude-haiku-5-5"}
    await agent.say(body=ask("x" * 240_000, stream=False, **summarised))
    (expected,), (use,) = agent.bill.expected, agent.bill.uses
    assert expected.tokens.input > 100_000
    assert expected.cost_micros == round(expected.tokens.input * 0.1 + expected.tokens.output * 0.5)
    assert (use.tokens, use.cost_micros) == (Tokens(150_000, 2000), 16_000)


async def test_an_error_in_mid_stream_passes_and_is_told(agent: Agent, upstream: FakeUpstream) -> None:

    from support.fake_upstream import anthropic_events, encoded

    async def breaks(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for event in [*anthropic_events(["x"])[:3], {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}]:
            await response.write(encoded(event))
        return response

    upstream.plays(breaks)
    assert b"overloaded_error" in (await agent.say()).body
    assert agent.bill.codes == ["MODEL_ANSWER_CUT"]
    assert agent.bill.uses[0].partial


# -- budgets and ends ------------------------------------------------------------------------------------------------------


async def test_when_the_budget_is_crossed_everything_under_way_is_cut(doors: Any, upstream: FakeUpstream) -> None:
    begun, go = asyncio.Event(), asyncio.Event()
    waiting = message("first", "last", wait=asyncio.Event(), begun=begun)
    upstream.plays(waiting, message("x" * 4000, "last", wait=go))
    bill = RecordingBill(Budget(tokens=1000))
    async with doors.open(bill=bill) as agent:
        first = asyncio.create_task(agent.say())
        await asyncio.wait_for(begun.wait(), 10)
        second = asyncio.create_task(agent.say())
        for each in (first, second):
            with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError)):
                await asyncio.wait_for(each, 10)
        said = await agent.say()
        assert (said.status, said.headers["x-should-retry"]) == (402, "false")
    assert len(upstream.seen) == 2
    assert [use.partial for use in bill.uses] == [True, True]
    assert bill.purse.used.tokens >= 1000


async def test_near_the_limit_requests_wait_for_each_other(doors: Any, upstream: FakeUpstream) -> None:
    """So that what is used beyond the budget is at most one request's use, however many come at once."""
    upstream.default = message(output=OUTPUT)
    each = INPUT + OUTPUT + CACHE_READ + CACHE_WRITE
    bill = RecordingBill(Budget(tokens=3 * each))
    async with doors.open(bill=bill) as agent:
        said = await asyncio.gather(*[agent.say(body=ask("y" * 1600)) for _ in range(10)], return_exceptions=True)
    passed = [one for one in said if not isinstance(one, BaseException) and one.status == 200]
    assert len(upstream.seen) <= 4
    assert 1 <= len(passed) <= 4
    assert bill.purse.used.tokens <= 4 * each
    assert bill.unsettled == 0


async def test_answers_that_are_no_streams_overdraw_a_budget_by_one_at_most(doors: Any, upstream: FakeUpstream) -> None:
    """Nothing is known of them before their end, and they may be as long as `max_tokens`."""
    all_here = asyncio.Event()

    async def answers_when_all_are_here(request: web.Request) -> web.StreamResponse:
        if len(upstream.seen) == 16:
            all_here.set()
        with suppress(TimeoutError):
            await asyncio.wait_for(all_here.wait(), 0.5)
        return await message(output=32_000)(request)

    upstream.default = answers_when_all_are_here
    bill = RecordingBill(Budget(tokens=10_000))
    async with doors.open(bill=bill) as agent:
        body = ask(stream=False, max_tokens=32_000)
        await asyncio.gather(*[agent.say(body=body) for _ in range(16)], return_exceptions=True)
    assert [use.tokens.output for use in bill.uses] == [32_000]
    assert len(upstream.seen) == 1


async def test_a_budget_of_money_needs_a_price(doors: Any, settings: dict[str, Any], upstream: FakeUpstream) -> None:
    async with doors.open(bill=RecordingBill(Budget(micros=10**9))) as agent:
        unknown = {**ask(), "model": "claude-unheard-of-9"}
        assert b"TREADLE_MODEL_PRICES" in (await agent.say(body=unknown)).body
    settings |= {"model_prices": {"claude-unheard": {"input": 2, "output": 4}}}
    async with doors.open(bill=RecordingBill(Budget(micros=10**9))) as agent:
        assert (await agent.say(body=unknown)).status == 200
    assert agent.bill.uses[0].cost_micros == 2 * INPUT + 4 * OUTPUT + 2 * CACHE_READ + 2 * CACHE_WRITE
    async with doors.open() as agent:
        assert (await agent.say(body={**ask(), "model": "claude-other-9"})).status == 200
    assert agent.bill.uses[0].cost_micros is None, "no budget of money: it passes, without a cost"


async def test_a_door_that_closes_cuts_and_settles(doors: Any, upstream: FakeUpstream) -> None:
    begun = asyncio.Event()
    upstream.plays(message("first", "last", wait=asyncio.Event(), begun=begun))
    async with doors.open() as agent:
        task = asyncio.create_task(agent.say())
        await asyncio.wait_for(begun.wait(), 10)
    with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError)):
        await asyncio.wait_for(task, 10)
    assert [use.partial for use in agent.bill.uses] == [True]
    assert agent.bill.unsettled == 0
    await asyncio.wait_for(upstream.hung_up.wait(), 10)


async def test_a_stale_socket_is_replaced_and_a_newer_one_is_left(doors: Any) -> None:
    async with doors.open() as first:
        first.door.socket.with_name("kept").hardlink_to(first.door.socket)
    first.door.socket.with_name("kept").rename(first.door.socket)
    async with AsyncExitStack() as newer:
        async with doors.open() as older:
            # As when a server takes the turn back from itself: the old drive closes after the new one has opened.
            agent = await newer.enter_async_context(doors.open())
            assert agent.door == older.door
        async with Agent.at(agent.door, agent.bill) as again:
            assert (await again.say()).status == 200


async def test_only_its_owner_can_use_the_socket(agent: Agent) -> None:
    status_ = agent.door.socket.stat()
    assert (status_.st_mode & 0o777, status_.st_uid) == (0o600, os.geteuid())
    assert [path.name for path in agent.door.socket.parent.iterdir()] == ["model.sock"], "no draft is left"


# -- configuration ---------------------------------------------------------------------------------------------------------


async def test_without_a_credential_a_provider_that_needs_a_model_is_refused(settings: dict[str, Any]) -> None:
    settings |= {"anthropic_api_key": SecretStr(""), "openai_api_key": SecretStr("")}
    async with open_models(Settings(**settings)) as models:
        models.gateway.check("replay", "")
        for provider, variable in (("claude", "CLAUDE_CODE_OAUTH_TOKEN"), ("anthropic", "ANTHROPIC_API_KEY"), ("codex", "OPENAI")):
            with pytest.raises(ProviderNotConfigured, match=variable):
                models.gateway.check(provider, "")
        with pytest.raises(ProviderNotConfigured):
            models.gateway.check("somebody-elses", "")
        assert models.namer is None


@pytest.mark.parametrize(
    ("provider", "model", "why"),
    [
        ("claude", "nonsense", "model 'nonsense' is not allowed on this server; TREADLE_MODELS allows claude-*, gpt-*"),
        ("claude", "claude-x y", "model 'claude-x y' is no model's name"),
        ("claude", "gpt-5", "model 'gpt-5' is one of OpenAI's, which this agent does not speak to"),
        ("anthropic", "o3", "model 'o3' is one of OpenAI's, which this agent does not speak to"),
        ("codex", "claude-opus-4-5", "model 'claude-opus-4-5' is one of Anthropic's, which this agent does not speak to"),
        ("of-tomorrow", "nonsense", "model 'nonsense' is not allowed on this server"),
    ],
)
async def test_a_model_that_would_be_refused_is_found_beforehand(
    settings: dict[str, Any], agent: Agent, upstream: FakeUpstream, provider: str, model: str, why: str
) -> None:
    async with open_models(Settings(**settings)) as models:
        with pytest.raises(ModelNotAllowed) as refused:
            models.gateway.check(provider, model)
    assert refused.value.message.startswith(why)
    assert refused.value.field == "model"
    if provider == "claude":
        # The same at the door.
        said = await agent.say(body={**ask(), "model": model})
        assert (said.status, said.json["error"]["message"]) == (402, f"Treadle: model: {refused.value.message.removeprefix('model ')}")
        assert upstream.seen == []


async def test_a_model_that_may_be_used_is_found_so(settings: dict[str, Any]) -> None:
    settings |= {"models": "claude-*,gpt-*,o[0-9]*,in-house"}
    async with open_models(Settings(**settings)) as models:
        for provider, model in (
            ("claude", ""),
            ("claude", "claude-opus-5-5"),
            ("claude", "in-house"),
            ("codex", "o3"),
            ("of-tomorrow", "gpt-5"),
            ("replay", "any recording.jsonl"),
        ):
            models.gateway.check(provider, model)


async def test_a_recording_never_gets_a_door(settings: dict[str, Any]) -> None:
    async with open_models(Settings(**settings)) as models:
        assert not models.gateway.serves("replay")
        assert models.gateway.serves("claude")
        assert models.gateway.serves("somebody-elses")


@pytest.mark.parametrize("url", ["ftp://x", "https://", "https://user@x", "https://x?y=1", "x"])
async def test_an_address_that_cannot_be_right_stops_the_start(settings: dict[str, Any], url: str) -> None:
    with pytest.raises(ModelsUnfit, match="TREADLE_ANTHROPIC_URL"):
        async with open_models(Settings(**settings | {"anthropic_url": url})):
            pass


async def test_a_price_that_cannot_be_right_stops_the_start(settings: dict[str, Any]) -> None:
    with pytest.raises(ModelsUnfit, match="TREADLE_MODEL_PRICES"):
        async with open_models(Settings(**settings | {"model_prices": {"claude-": {"input": 1}}})):
            pass
