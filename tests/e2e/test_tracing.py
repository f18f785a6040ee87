"""One trace from the caller's span through the RPC and the turn to what the agent runs, as a collector receives it."""

from __future__ import annotations

import asyncio
import io
import json
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from pydantic import SecretStr
from support.fake_upstream import fake_upstream, message, status
from support.git_server import GitServer
from support.model_script import asking, files, hand_out_tokens, recordings_reach_models
from support.sandbox import require_sandbox
from support.treadle import events_of, in_process, kinds, recording, settings_for

from server.embedded.postgres_home import DatabaseUrls
from server.telemetry import configure_logging
from treadle.session.v1 import session_service_pb2 as pb

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CANARY = "canary-in-the-prompt-7f3a"
STEPS = ["fetch", "branch", "workspace", "spawn", "agent", "import", "push", "snapshot"]


class Collector:
    """An OpenTelemetry collector: keeps every span it is sent."""

    def __init__(self) -> None:
        self.address = ""
        self.spans: list[Span] = []

    async def export(self, request: trace_service_pb2.ExportTraceServiceRequest, _context: Any) -> bytes:
        self.spans += [span for part in request.resource_spans for scope in part.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse().SerializeToString()

    def named(self, name: str) -> Span:
        (found,) = [span for span in self.spans if span.name == name]
        return found


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    collector, server = Collector(), grpc.aio.server()
    export = grpc.unary_unary_rpc_method_handler(
        collector.export, request_deserializer=trace_service_pb2.ExportTraceServiceRequest.FromString, response_serializer=None
    )
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": export}),))
    collector.address = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield collector
    finally:
        await server.stop(None)


async def session(settings: Any, git_server: GitServer, trace_parent: str) -> Any:
    steps = recording({"run": ["sh", "-c", "echo parent=$TRACEPARENT > trace.txt; cat trace.txt"]})
    git_server.create("acme/app", {"r.jsonl": steps})
    request = pb.ExecuteSessionRequest(
        repository_url=f"{git_server.url}/acme/app.git", prompt=f"Add a note, {CANARY}", provider="replay", model="r.jsonl"
    )
    async with in_process(settings) as (_, client):
        metadata = (*client.metadata, ("traceparent", trace_parent))
        return await events_of(client.stub.ExecuteSession(request, metadata=metadata, timeout=60))


async def test_the_callers_trace_goes_through_the_turn_to_what_the_agent_runs(
    database: DatabaseUrls, server_data_dir: Path, git_server: GitServer, collector: Collector
) -> None:
    settings = settings_for(database, server_data_dir, git_server, otlp_endpoint=collector.address)
    events = await session(settings, git_server, f"00-{TRACE}-{CALLER}-01")

    assert kinds(events)[-1] == "turn_completed"
    ours = [span for span in collector.spans if span.trace_id.hex() == TRACE]
    call = collector.named("treadle.session.v1.SessionService/ExecuteSession")
    turn = collector.named("turn")
    assert call.parent_span_id.hex() == CALLER
    assert turn.parent_span_id == call.span_id
    assert [span.name for span in sorted(ours, key=lambda span: span.start_time_unix_nano) if span.parent_span_id == turn.span_id] == STEPS
    assert [(span.name, span.status.message) for span in ours if span.status.code == Status.STATUS_CODE_ERROR] == []
    # A worker sends no spans: it says when it worked.
    agent, worker = collector.named("agent"), collector.named("worker")
    assert worker.parent_span_id == agent.span_id
    assert agent.start_time_unix_nano < worker.start_time_unix_nano < worker.end_time_unix_nano < agent.end_time_unix_nano
    # Events carry the turn's span; what the agent runs carries that of the agent's part.
    assert {event.trace_parent for event in events} == {f"00-{TRACE}-{turn.span_id.hex()}-01"}
    printed = "".join(event.content_delta.data for event in events if event.HasField("content_delta"))
    assert f"parent=00-{TRACE}-{collector.named('agent').span_id.hex()}-01" in printed
    assert not any(CANARY in str(span) for span in collector.spans)


async def test_a_step_that_fails_is_marked_by_its_type_only(
    database: DatabaseUrls, server_data_dir: Path, git_server: GitServer, collector: Collector
) -> None:
    settings = settings_for(database, server_data_dir, git_server, otlp_endpoint=collector.address)
    async with in_process(settings) as (_, client):
        bare = git_server.create("acme/gone", {"README.md": "x"})
        request = pb.CreateSessionRequest(repository_url=f"{git_server.url}/acme/gone.git")
        created = await client.call("CreateSession", request)
        bare.rename(bare.with_name("moved.git"))
        await client.run(session_id=created.session.session_id, prompt="go", provider="replay")
    failed = [(span.name, span.status.message) for span in collector.spans if span.status.code == Status.STATUS_CODE_ERROR]
    assert failed == [("fetch", "RepositoryUnreachable")]


async def test_each_request_to_a_model_is_part_of_the_agents(
    database: DatabaseUrls, server_data_dir: Path, git_server: GitServer, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_sandbox()
    recordings_reach_models(monkeypatch.setattr)
    tokens = asyncio.create_task(hand_out_tokens(server_data_dir / "workers"))
    said = {"messages": [{"role": "user", "content": CANARY}]}
    git_server.create("acme/app", files(asking("a", "b"), a=said, b=said))
    request = pb.ExecuteSessionRequest(repository_url=f"{git_server.url}/acme/app.git", prompt="x", provider="replay", model="r.jsonl")
    async with fake_upstream() as upstream:
        upstream.plays(message(CANARY), status(404, CANARY))
        models = {"anthropic_url": upstream.url, "anthropic_api_key": SecretStr("sk-ant"), "naming": False}
        async with in_process(settings_for(database, server_data_dir, git_server, otlp_endpoint=collector.address, **models)) as (
            _,
            client,
        ):
            await events_of(client.stub.ExecuteSession(request, metadata=client.metadata, timeout=60))
    tokens.cancel()
    agent = collector.named("agent")
    requests = [span for span in collector.spans if span.name == "model"]
    assert [(span.trace_id, span.parent_span_id) for span in requests] == [(agent.trace_id, agent.span_id)] * 2
    attributes = [{each.key: each.value for each in span.attributes} for span in requests]
    assert [(each["model"].string_value, each["status"].int_value) for each in attributes] == [
        ("claude-sonnet-4-5", 200), ("claude-sonnet-4-5", 404)
    ]  # fmt: skip
    assert [{*each} for each in attributes] == [{"model", "status"}] * 2
    assert not any(CANARY in str(span) for span in collector.spans)


async def test_calls_are_told_as_the_conventions_say(
    database: DatabaseUrls, server_data_dir: Path, git_server: GitServer, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """https://opentelemetry.io/docs/specs/semconv/rpc/grpc/: what the caller did wrong is no failure of the server."""
    settings = settings_for(database, server_data_dir, git_server, otlp_endpoint=collector.address)
    async with in_process(settings) as (_, client):
        await client.call("ListSessions", pb.ListSessionsRequest())
        with pytest.raises(grpc.aio.AioRpcError):
            await client.call("GetSession", pb.GetSessionRequest(session_id="none"))
        with pytest.raises(grpc.aio.AioRpcError):
            await client.stub.ListInputs(pb.ListInputsRequest(session_id="none"), metadata=(("authorization", "Bearer trd_x"),))
        monkeypatch.setattr("server.kernel.sessions.Sessions.create", _broken)
        with pytest.raises(grpc.aio.AioRpcError):
            await client.call("CreateSession", pb.CreateSessionRequest(repository_url="https://github.com/a/b"))
    told = {}
    for span in collector.spans:
        attributes = {one.key: one.value.string_value or one.value.int_value for one in span.attributes}
        if "rpc.method" in attributes:
            assert (attributes["rpc.system"], attributes["rpc.service"]) == ("grpc", "treadle.session.v1.SessionService")
            assert (span.kind, span.name) == (Span.SPAN_KIND_SERVER, f"{attributes['rpc.service']}/{attributes['rpc.method']}")
            outcome = attributes["rpc.grpc.status_code"], attributes.get("error.type")
            told[attributes["rpc.method"]] = (*outcome, span.status.code, span.status.message)
    assert told == {
        "ListSessions": (0, None, Status.STATUS_CODE_UNSET, ""),
        "GetSession": (5, "SESSION_NOT_FOUND", Status.STATUS_CODE_UNSET, ""),
        "ListInputs": (16, "API_KEY_INVALID", Status.STATUS_CODE_UNSET, ""),
        "CreateSession": (13, "INTERNAL", Status.STATUS_CODE_ERROR, "INTERNAL"),
    }


async def _broken(*_: Any, **__: Any) -> None:
    raise RuntimeError(CANARY)


async def test_log_lines_name_the_trace(
    database: DatabaseUrls, server_data_dir: Path, git_server: GitServer, collector: Collector, log: io.StringIO
) -> None:
    settings = settings_for(database, server_data_dir, git_server, otlp_endpoint=collector.address)
    await session(settings, git_server, f"00-{TRACE}-{CALLER}-01")
    async with in_process(settings) as (_, client):
        with pytest.raises(grpc.aio.AioRpcError):
            await client.call("GetSession", pb.GetSessionRequest(session_id="none"))
    lines = {line["event"]: line for line in map(json.loads, log.getvalue().splitlines())}
    assert lines["turn.driven"]["trace_id"] == lines["turn.ended"]["trace_id"] == TRACE
    call = collector.named("treadle.session.v1.SessionService/GetSession")
    assert lines["call.refused"]["trace_id"] == call.trace_id.hex()


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    output = io.StringIO()
    configure_logging(log_format="json", level="info", secrets=lambda: (), output=output)
    yield output
    structlog.reset_defaults()


@pytest.mark.parametrize("trace_parent", ["", "nonsense", f"00-{'0' * 32}-{CALLER}-01"])
async def test_without_a_usable_parent_a_trace_of_its_own_begins(
    database: DatabaseUrls, server_data_dir: Path, git_server: GitServer, collector: Collector, trace_parent: str
) -> None:
    settings = settings_for(database, server_data_dir, git_server, otlp_endpoint=collector.address)
    await session(settings, git_server, trace_parent)
    call = collector.named("treadle.session.v1.SessionService/ExecuteSession")
    assert not call.parent_span_id
    assert collector.named("turn").trace_id == call.trace_id


async def test_a_collector_that_is_away_costs_spans_and_nothing_else(
    database: DatabaseUrls, server_data_dir: Path, git_server: GitServer
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    settings = settings_for(database, server_data_dir, git_server, otlp_endpoint=address)
    events = await session(settings, git_server, "")
    assert kinds(events)[-1] == "turn_completed"


async def test_without_an_endpoint_nothing_is_traced(database: DatabaseUrls, server_data_dir: Path, git_server: GitServer) -> None:
    events = await session(settings_for(database, server_data_dir, git_server), git_server, f"00-{TRACE}-{CALLER}-01")
    assert {event.trace_parent for event in events} == {""}
