"""The configuration: Envoy takes it, and every RPC has the route that it needs."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from google.api import annotations_pb2
from google.protobuf.descriptor import MethodDescriptor
from support.gateway import own_certificate

from gateway.config import Gateway, render, render_secret
from treadle.account.v1 import credential_service_pb2
from treadle.git.v1 import git_service_pb2
from treadle.session.v1 import event_stream_service_pb2, session_service_pb2


def methods() -> Iterator[MethodDescriptor]:
    for file in (session_service_pb2, event_stream_service_pb2, credential_service_pb2, git_service_pb2):
        for service in file.DESCRIPTOR.services_by_name.values():
            yield from service.methods


def paths(method: MethodDescriptor) -> Iterator[str]:
    """Every path by which a method is called, over gRPC and over HTTP."""
    yield f"/{method.containing_service.full_name}/{method.name}"
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    for binding in (rule, *rule.additional_bindings):
        yield re.sub(r"\{[a-z_]+\}", "0190aaaa-0000-7000-8000-000000000000", getattr(binding, binding.WhichOneof("pattern")))


def route_of(path: str) -> dict:
    configuration = yaml.safe_load(render(Gateway("127.0.0.1:1", "127.0.0.1:2", admin=Path("/run/admin.sock"))))
    (chain,) = configuration["static_resources"]["listeners"][0]["filter_chains"]
    (host,) = chain["filters"][0]["typed_config"]["route_config"]["virtual_hosts"]
    for route in host["routes"]:
        match = route["match"]
        if "headers" in match:
            continue
        if path.startswith(match["prefix"]) if "prefix" in match else re.fullmatch(match["safe_regex"]["regex"], path):
            return route["route"]
    raise AssertionError(f"no route for {path}")


@pytest.mark.parametrize("method", list(methods()), ids=lambda method: method.full_name)
def test_streams_have_no_time_limit_and_all_else_has_one(method: MethodDescriptor) -> None:
    for path in paths(method):
        route = route_of(path)
        limit = "120s" if method.name == "PushSession" else "30s"
        streams = method.server_streaming or method.client_streaming
        assert route["timeout"] == ("0s" if streams else limit), path
        # Of silence: what is open for long says something, or nobody knows whether it is read.
        assert ("idle_timeout" in route) == streams, path
        assert ("retry_policy" in route) != streams, path


def test_what_is_dead_is_noticed() -> None:
    """Half-open connections and clients that do not take the end of a stream: each would be kept for ever, which takes too long to test."""
    configuration = yaml.safe_load(render(Gateway("127.0.0.1:1", "127.0.0.1:2", admin="127.0.0.1:3")))
    (cluster,) = [each for each in configuration["static_resources"]["clusters"] if each["name"] == "server"]
    (options,) = cluster["typed_extension_protocol_options"].values()
    assert options["explicit_http_config"]["http2_protocol_options"]["connection_keepalive"] == {"interval": "30s", "timeout": "20s"}
    manager = configuration["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    assert manager["http2_protocol_options"]["connection_keepalive"] == {"interval": "60s", "timeout": "20s"}
    assert manager["stream_flush_timeout"] == "60s"


def test_no_limit_for_silence_stands_above_the_routes() -> None:
    text = render(Gateway("127.0.0.1:1", "127.0.0.1:2", admin="127.0.0.1:3"))
    manager = yaml.safe_load(text)["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    assert manager["stream_idle_timeout"] == "0s"


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("upstream", ["127.0.0.1:7433", "tasks.main:7433"])
async def test_envoy_takes_it(program: Path, tmp_path: Path, tls: bool, upstream: str) -> None:
    if tls:
        await own_certificate(tmp_path)
    wanted = Gateway(
        "0.0.0.0:7430",
        upstream,
        admin=tmp_path / "admin.sock",
        origins=("https://a.example",),
        tls_certificate=tmp_path / "cert.pem" if tls else None,
        tls_key=tmp_path / "key.pem" if tls else None,
        tls_secret=tmp_path / "tls.yaml",
    )
    if tls:
        wanted.tls_secret.write_text(render_secret(wanted))
    file = tmp_path / "envoy.yaml"
    file.write_text(render(wanted))
    process = await asyncio.create_subprocess_exec(
        program, "--mode", "validate", "-c", file, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, out.decode()[-2000:]
