"""Bad input is a typed error with its reason and field, and nothing is created."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import grpc
import pytest
from support.git_server import GitServer
from support.treadle import Client, connected, error_info, events_of, recording

from server.api.session_service import SERVICE
from server.identity.keys import create_key
from server.kernel.identity import Principal
from treadle.session.v1 import session_service_pb2 as pb

MISSING = "01a205c7-98df-7571-b198-54efc63eb7f2"
S = grpc.StatusCode


@pytest.fixture
def good(git_server: GitServer) -> dict[str, str]:
    git_server.create("acme/app", {"README.md": "# App\n", "quick.jsonl": recording({"say": "hello"})})
    return {"repository_url": f"{git_server.url}/acme/app.git", "prompt": "go", "provider": "replay", "model": "quick.jsonl"}


async def refused(stream: Any) -> tuple[grpc.StatusCode, str, dict[str, str], list[str]]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await events_of(stream)
    return error_info(caught.value)


async def sessions(client: Client) -> int:
    return len((await client.call("ListSessions", pb.ListSessionsRequest())).sessions)


@pytest.mark.parametrize(
    ("wrong", "code", "reason", "field"),
    [
        ({"prompt": ""}, S.INVALID_ARGUMENT, "INVALID_FIELD", "prompt"),
        ({"prompt": " \n"}, S.INVALID_ARGUMENT, "INVALID_FIELD", "prompt"),
        ({"prompt": "a\0b"}, S.INVALID_ARGUMENT, "INVALID_FIELD", "prompt"),
        ({"prompt": "a" * 100_001}, S.INVALID_ARGUMENT, "REQUEST_TOO_LARGE", "prompt"),
        ({"provider": "nobody"}, S.INVALID_ARGUMENT, "PROVIDER_UNKNOWN", "provider"),
        ({"provider": "x" * 200_000}, S.INVALID_ARGUMENT, "REQUEST_TOO_LARGE", "provider"),
        ({"repository_url": ""}, S.INVALID_ARGUMENT, "INVALID_FIELD", "repository_url"),
        ({"repository_url": "http://169.254.169.254/a/b"}, S.INVALID_ARGUMENT, "REPOSITORY_NOT_ALLOWED", "repository_url"),
        ({"repository_url": "file:///etc/passwd"}, S.INVALID_ARGUMENT, "REPOSITORY_NOT_ALLOWED", "repository_url"),
        ({"repository_url": "--upload-pack=touch /tmp/x"}, S.INVALID_ARGUMENT, "REPOSITORY_NOT_ALLOWED", "repository_url"),
        ({"repository_url": "ext::sh -c id"}, S.INVALID_ARGUMENT, "REPOSITORY_NOT_ALLOWED", "repository_url"),
        ({"base_branch": "no-such-branch"}, S.INVALID_ARGUMENT, "BRANCH_UNKNOWN", "base_branch"),
        ({"base_branch": "ä" * 255}, S.INVALID_ARGUMENT, "BRANCH_UNKNOWN", "base_branch"),
        ({"base_branch": "x" * 256}, S.INVALID_ARGUMENT, "REQUEST_TOO_LARGE", "base_branch"),
        ({"base_branch": "a\0b"}, S.INVALID_ARGUMENT, "INVALID_FIELD", "base_branch"),
        ({"branch": "../x"}, S.INVALID_ARGUMENT, "INVALID_FIELD", "branch"),
        ({"branch": "a..b"}, S.INVALID_ARGUMENT, "INVALID_FIELD", "branch"),
        ({"branch": "main"}, S.INVALID_ARGUMENT, "INVALID_FIELD", "branch"),
        ({"model": "a b"}, S.INVALID_ARGUMENT, "INVALID_FIELD", "model"),
        ({"title": "two\nlines"}, S.INVALID_ARGUMENT, "INVALID_FIELD", "title"),
        ({"request_id": "a b"}, S.INVALID_ARGUMENT, "INVALID_FIELD", "request_id"),
        ({"request_id": "a" * 129}, S.INVALID_ARGUMENT, "REQUEST_TOO_LARGE", "request_id"),
        ({"session_id": MISSING}, S.NOT_FOUND, "SESSION_NOT_FOUND", None),
        ({"session_id": "not a uuid"}, S.NOT_FOUND, "SESSION_NOT_FOUND", None),
    ],
)
async def test_execute_refuses(
    client: Client, good: dict[str, str], wrong: dict[str, str], code: grpc.StatusCode, reason: str, field: str | None
) -> None:
    got_code, got_reason, _, fields = await refused(client.execute(**(good | wrong)))
    assert (got_code, got_reason, fields) == (code, reason, [field] if field else [])
    assert await sessions(client) == 0


REFUSED = {"REQUEST_TOO_LARGE", "INVALID_FIELD", "REPOSITORY_NOT_ALLOWED", "SESSION_NOT_FOUND", "REQUEST_NOT_FOUND"}


async def test_a_text_of_any_length_is_refused_with_a_reason_that_is_short(client: Client, good: dict[str, str]) -> None:
    """Every text of every request. gRPC drops an answer whose metadata is larger than 8 to 16 KiB."""
    for method in SERVICE.methods:
        for field in (field.name for field in method.input_type.fields if field.type == field.TYPE_STRING):
            for character in ("x", "\U0001f6b2", "\x01"):
                refused = await _refused_for_its_length(client, good, method.name, {field: character * 200_000})
                reason, size = error_info(refused)[1], _header_bytes(refused)
                where = (method.name, field, character, reason, size)
                assert reason in REFUSED, where
                assert size < 8192, where
    assert await sessions(client) == 0


async def _refused_for_its_length(client: Client, good: dict[str, str], method: str, long: dict[str, str]) -> grpc.aio.AioRpcError:
    kind = getattr(pb, f"{method}Request")
    request = kind(**{name: value for name, value in good.items() if name in kind.DESCRIPTOR.fields_by_name} | long)
    if method == "UpdateSession":
        request.update_mask.paths.append("title")
    call = getattr(client.stub, method)(request, metadata=client.metadata, timeout=30)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (events_of(call) if method in ("ExecuteSession", "Resume") else call)
    return caught.value


def _header_bytes(error: grpc.aio.AioRpcError) -> float:
    """As they are sent: the message percent-encoded, the details in Base64."""
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    return len(quote(error.details() or "")) + len(details) * 4 / 3


async def test_a_repository_that_cannot_be_cloned_is_refused_with_gits_reason(
    client: Client, good: dict[str, str], git_server: GitServer
) -> None:
    code, reason, metadata, fields = await refused(client.execute(**(good | {"repository_url": f"{git_server.url}/acme/missing.git"})))
    assert (code, reason, fields) == (S.FAILED_PRECONDITION, "REPOSITORY_UNREACHABLE", ["repository_url"])
    assert "not found" in metadata["reason"]
    assert await sessions(client) == 0


async def test_without_a_key_and_with_a_wrong_one_nothing_is_told(client: Client, good: dict[str, str]) -> None:
    code, reason, *_ = await refused(client.stub.ExecuteSession(pb.ExecuteSessionRequest(**good)))
    assert (code, reason) == (S.UNAUTHENTICATED, "API_KEY_MISSING")
    for key in ("x", "trd_aaaaaaaa_" + "b" * 43, client.key[:-1] + ("a" if client.key[-1] != "a" else "b")):
        wrong = (("authorization", f"Bearer {key}"),)
        code, reason, *_ = await refused(client.stub.ExecuteSession(pb.ExecuteSessionRequest(**good), metadata=wrong))
        assert (code, reason) == (S.UNAUTHENTICATED, "API_KEY_INVALID")


async def test_a_foreign_session_looks_like_a_missing_one_in_every_rpc(server: Any, client: Client, good: dict[str, str]) -> None:
    mine = (await client.run(**good))[0].session_id
    stranger = Principal("other", "stranger", "Stranger", "s@other.invalid")
    await server.stores.keys.ensure_user(stranger)
    key = await create_key(server.stores.keys, stranger)
    async with connected(client.address, key) as other:
        for session_id in (mine, MISSING):
            answers = [await refused(other.execute(session_id=session_id, prompt="go")), await refused(other.resume(session_id))]
            for method in ("GetSession", "DeleteSession", "Interrupt", "ListEvents"):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await other.call(method, getattr(pb, f"{method}Request")(session_id=session_id))
                answers.append(error_info(caught.value))
            update = pb.UpdateSessionRequest(session_id=session_id, title="mine now")
            update.update_mask.paths.append("title")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await other.call("UpdateSession", update)
            answers.append(error_info(caught.value))
            for answer in answers:
                assert answer == (S.NOT_FOUND, "SESSION_NOT_FOUND", {"session_id": session_id}, [])
        assert await sessions(other) == 0


async def test_resume_beyond_the_end_is_refused(client: Client, good: dict[str, str]) -> None:
    events = await client.run(**good)
    session_id, last = events[0].session_id, events[-1].seq
    code, reason, metadata, fields = await refused(client.resume(session_id, last + 1))
    assert (code, reason, fields) == (S.OUT_OF_RANGE, "SEQUENCE_AHEAD", ["after_seq"])
    assert metadata["last_seq"] == str(last)
    assert await events_of(client.resume(session_id, last)) == []


async def test_a_request_over_the_size_limit_is_refused_and_the_server_goes_on(client: Client, good: dict[str, str]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await events_of(client.execute(**(good | {"prompt": "a" * (17 * 1024 * 1024)})))
    assert error_info(caught.value)[:2] == (S.INVALID_ARGUMENT, "REQUEST_TOO_LARGE")
    assert await sessions(client) == 0


async def test_the_same_request_again_follows_and_another_with_its_id_is_refused(client: Client, good: dict[str, str]) -> None:
    first = await client.run(request_id="r-1", **good)
    again = await client.run(request_id="r-1", **good)
    assert again == first
    assert await sessions(client) == 1
    code, reason, _, fields = await refused(client.execute(request_id="r-1", **(good | {"prompt": "something else"})))
    assert (code, reason, fields) == (S.ALREADY_EXISTS, "REQUEST_ID_REUSED", ["request_id"])


async def test_an_unknown_page_token_is_refused(client: Client) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.call("ListSessions", pb.ListSessionsRequest(page_token="no such token"))
    assert error_info(caught.value)[:2] == (S.INVALID_ARGUMENT, "INVALID_FIELD")
