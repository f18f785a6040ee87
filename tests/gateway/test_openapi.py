"""The OpenAPI document against the running gateway: what it promises is what is answered."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from google.api import annotations_pb2
from support.gateway import Http
from support.git_server import GitServer
from support.treadle import Client, recording

from gateway.local_replies import LOCAL_REPLIES
from server.kernel import validation
from treadle.account.v1 import credential_service_pb2
from treadle.file.v1 import file_service_pb2
from treadle.git.v1 import git_service_pb2
from treadle.session.v1 import event_stream_service_pb2, session_service_pb2

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "generated" / "openapi" / "treadle.openapi.json"
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,"
    "ignored_auth,unsupported_method,negative_data_rejection,use_after_free,ensure_resource_availability"
)
EXAMPLES = "12"
SEED = "20261125"


@pytest.fixture
def document() -> dict[str, Any]:
    """With nothing allowed beyond what it describes: in the tests, a field that it does not know is an error."""
    found = json.loads(DOCUMENT.read_text())
    for name, schema in found["components"]["schemas"].items():
        if "properties" in schema and name != "Status":
            assert ("additionalProperties" in schema) == bool(re.search("Request(Body)?$", name)) or name == "BadRequest", name
            schema["additionalProperties"] = False
    return found


@dataclass(frozen=True)
class Asking:
    """A session whose agent waits for an answer, while an input waits for the agent."""

    session_id: str
    request_id: str
    input_id: str


@pytest.fixture
async def asking(treadle: tuple[Any, Client], git_server: GitServer) -> AsyncIterator[Asking]:
    git_server.create("acme/asking", {"r.jsonl": recording({"ask": "Which?", "choices": ["a"]}, {"say": "{answer}"})})
    _, client = treadle
    url = f"{git_server.url}/acme/asking.git"
    stream = client.execute(repository_url=url, prompt="go", provider="replay", model="r.jsonl")
    async for frame in stream:
        for event in frame.events.events:
            if event.HasField("question_requested"):
                session_id, request_id = event.session_id, event.question_requested.request_id
                sent = await client.call("SendInput", session_service_pb2.SendInputRequest(session_id=session_id, text="later"))
                yield Asking(session_id, request_id, sent.input.input_id)
                stream.cancel()
                return
    raise AssertionError("the agent did not ask")


def test_every_binding_is_described(document: dict[str, Any]) -> None:
    bindings = 0
    for file in (session_service_pb2, event_stream_service_pb2, credential_service_pb2, file_service_pb2, git_service_pb2):
        for service in file.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                rule = method.GetOptions().Extensions[annotations_pb2.http]
                if method.client_streaming:
                    assert not rule.WhichOneof("pattern"), "HTTP would gather it first"
                    continue
                bindings += 1 + len(rule.additional_bindings)
                assert rule.WhichOneof("pattern"), f"{method.full_name} is not to be had over HTTP"
    assert sum(len(operations) for operations in document["paths"].values()) == bindings


def test_operations_have_names_that_stay_apart_in_every_spelling(document: dict[str, Any]) -> None:
    """Generators make snake_case, camelCase and PascalCase of them."""
    names = {
        operation["operationId"]: (verb, path) for path, operations in document["paths"].items() for verb, operation in operations.items()
    }
    assert len({name.lower() for name in names}) == sum(map(len, document["paths"].values()))
    assert all(re.fullmatch("[a-z]+([A-Z][a-z]+)*", name) for name in names), names
    assert names["execute"] == ("post", "/execute")
    assert names["executeSession"] == ("post", "/v1/sessions:execute")
    assert names["updateSession"] == ("patch", "/v1/sessions/{sessionId}")


def test_summaries_are_one_sentence(document: dict[str, Any]) -> None:
    for operations in document["paths"].values():
        for operation in operations.values():
            assert not re.search(r"\.\s|Errors:", operation["summary"]), operation["summary"]


def test_limits_are_those_of_the_server(document: dict[str, Any]) -> None:
    """A program that checks what it sends by the document sends nothing that the server refuses for its size."""
    schemas = document["components"]["schemas"]
    for name in ("ExecuteSessionRequest", "ExecuteSessionRequestBody"):
        fields = schemas[name]["properties"]
        assert schemas[name]["required"] == ["prompt"]
        assert (fields["prompt"]["minLength"], fields["prompt"]["maxLength"]) == (1, validation.MAX_PROMPT)
        limits = {field: schema["maxLength"] for field, schema in fields.items() if "maxLength" in schema}
        assert limits == {
            "requestId": validation.MAX_REQUEST_ID,
            "baseBranch": validation.MAX_BASE_BRANCH,
            "prompt": validation.MAX_PROMPT,
            "provider": validation.MAX_NAME,
            "model": validation.MAX_NAME,
            "title": validation.MAX_TITLE,
        }
    assert schemas["CreateSessionRequest"]["required"] == ["repositoryUrl"]
    assert schemas["SendInputRequestBody"]["required"] == schemas["UpdateInputRequestBody"]["required"] == ["text"]
    sizes = {}
    for path, operations in document["paths"].items():
        for parameter in operations.get("get", {}).get("parameters", ()):
            if parameter["name"] == "pageSize":
                sizes[path] = (parameter["schema"]["minimum"], parameter["schema"]["maximum"])
            if path == "/resume" and parameter["name"] == "sessionId":
                assert parameter["required"]
    assert sizes == {
        "/v1/git/branches": (0, 100),
        "/v1/git/pullRequests": (0, 100),
        "/v1/git/repositories": (0, 100),
        "/v1/sessions": (0, 200),
        "/v1/sessions/{sessionId}/events": (0, 1000),
        "/v1/sessions/{sessionId}/files": (0, 5000),
        "/v1/sessions/{sessionId}/snapshots": (0, 200),
        "/v1/sessions/{sessionId}/inputs": (0, 200),
    }


def test_the_gateways_own_answers_are_described(document: dict[str, Any]) -> None:
    for operations in document["paths"].values():
        for operation in operations.values():
            for reply in LOCAL_REPLIES:
                assert f"`{reply.reason}`" in operation["responses"][str(reply.status)]["description"]


async def test_examples_are_accepted(http: Http, repository: dict[str, str], asking: Asking, document: dict[str, Any]) -> None:
    async with http.session.post(http.base + "/execute", json=repository) as answer:
        ended = json.loads(http.blocks(await answer.text())[0]["data"])["sessionId"]
    sent = 0
    for path, operations in document["paths"].items():
        for verb, operation in operations.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            if "example" not in content:
                assert not content or not operation["requestBody"]["required"], path
                continue
            jsonschema_rs.validator_for(content["schema"] | {"components": document["components"]}).validate(content["example"])
            body = content["example"]
            if "repositoryUrl" in body:
                body |= {"repositoryUrl": repository["repositoryUrl"]}
            needs_an_end = "prompt" in body or path.endswith((":push", ":restore", ":fork", "files:edit"))
            session_id = ended if needs_an_end else asking.session_id
            url = path.format(sessionId=session_id, inputId=asking.input_id, requestId=asking.request_id)
            async with http.session.request(verb, http.base + url, json=body) as answer:
                assert answer.status == 200, (path, await answer.text())
                await answer.read()
            sent += 1
    assert sent == 15


@pytest.mark.timeout(200)
async def test_what_is_answered_is_what_is_described(
    http: Http, treadle: tuple[Any, Client], repository: dict[str, str], asking: Asking, document: dict[str, Any], tmp_path: Path
) -> None:
    """schemathesis: bounded, and with a fixed seed."""
    async with http.session.post(http.base + "/execute", json=repository) as answer:
        session_id = json.loads(http.blocks(await answer.text())[0]["data"])["sessionId"]
    file = tmp_path / "openapi.json"
    file.write_text(json.dumps(document))
    # Not as a header: then it could not leave it out to see what happens.
    (tmp_path / "schemathesis.toml").write_text(f'[auth.openapi.apiKey]\nbearer = "{treadle[1].key}"\n')
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("st"),
        *("run", file, "--url", http.base),
        *("--checks", CHECKS, "--phases", "examples,coverage,fuzzing,stateful", "--max-examples", EXAMPLES, "--seed", SEED),
        *("--request-timeout", "30", "--continue-on-failure", "--no-color"),
        cwd=tmp_path,
        env=os.environ
        | {
            "SCHEMATHESIS_HOOKS": str(Path(__file__).with_name("schemathesis_hooks.py")),
            "SESSION_ID": session_id,
            "REPOSITORY_URL": repository["repositoryUrl"],
            "ASKING_SESSION_ID": asking.session_id,
            "INPUT_ID": asking.input_id,
            "REQUEST_ID": asking.request_id,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), 180)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    print(out.decode())
    assert process.returncode == 0, out.decode()[-8000:]


async def test_a_change_that_names_no_field_is_told_how_to(http: Http, repository: dict[str, str]) -> None:
    async with http.session.post(http.base + "/v1/sessions", json={"repositoryUrl": repository["repositoryUrl"]}) as answer:
        one = f"{http.base}/v1/sessions/{(await answer.json())['session']['sessionId']}"
    async with http.session.patch(one, json={"title": "Changed"}) as answer:
        told = (await answer.json())["message"]
    query, member = re.findall(r'\?updateMask=title|"updateMask": "title"', told)
    for path, body in ((one + query, {"title": "by query"}), (one, json.loads(f'{{"title": "by body", {member}}}'))):
        async with http.session.patch(path, json=body) as answer:
            assert (await answer.json())["session"]["title"] == body["title"]


async def test_lines_of_json_are_what_is_described(http: Http, repository: dict[str, str], document: dict[str, Any]) -> None:
    """schemathesis knows no JSON lines."""
    async with http.session.post(http.base + "/v1/sessions:execute", json=repository) as answer:
        assert answer.content_type == "application/jsonl"
        lines = [json.loads(line) for line in (await answer.text()).splitlines()]
    described = document["paths"]["/v1/sessions:execute"]["post"]["responses"]["200"]["content"]["application/jsonl"]["itemSchema"]
    validator = jsonschema_rs.validator_for(described | {"components": document["components"]})
    for line in lines:
        validator.validate(line)
    assert "started" in lines[0]
    assert "closed" in lines[-1]
    with pytest.raises(jsonschema_rs.ValidationError):
        validator.validate({"started": {"sessionId": 7}})


async def test_blocks_of_server_sent_events_are_what_is_described(http: Http, repository: dict[str, str], document: dict[str, Any]) -> None:
    """With what is in `data`, which schemathesis takes as a text."""
    async with http.session.post(http.base + "/execute", json=repository) as answer:
        blocks = http.blocks(await answer.text())
    events = jsonschema_rs.validator_for({"$ref": "#/components/schemas/Event", "components": document["components"]})
    for block in blocks:
        if "id" in block:
            events.validate(json.loads(block["data"]))
    assert len(blocks) > 10
