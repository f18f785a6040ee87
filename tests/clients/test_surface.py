"""What the package offers: the same to both worlds, complete against the protos, and as its README says."""

from __future__ import annotations

import asyncio
import importlib.metadata
import inspect
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, get_args

import grpc
import pytest
from google.protobuf.descriptor import EnumDescriptor
from support.clients import Driver, environment
from support.frame_relay import frame_relay
from support.requirements import require

import treadle_client as tc
from treadle.session.v1 import event_pb2 as pb
from treadle.session.v1.event_pb2 import DESCRIPTOR

ROOT = Path(__file__).parents[2]
ASYNC_NAMES = {"aclose": "close", "__aenter__": "__enter__", "__aexit__": "__exit__", "__anext__": "__next__", "__aiter__": "__iter__"}


def surface(kind: type) -> dict[str, str]:
    """Public members with their parameters, by their blocking names."""
    found = {}
    for name, member in inspect.getmembers(kind):
        blocking = ASYNC_NAMES.get(name, name)
        if not name.startswith("_") or name in {*ASYNC_NAMES, *ASYNC_NAMES.values(), "__init__"}:
            is_property = isinstance(member, property)
            found[blocking] = (
                "property" if is_property else str(inspect.signature(member).replace(return_annotation="")).replace("Async", "")
            )
    return found


@pytest.mark.parametrize(
    ("blocking", "other"),
    [
        (tc.Treadle, tc.AsyncTreadle),
        (tc.EventStream, tc.AsyncEventStream),
        (tc.Credentials, tc.AsyncCredentials),
        (tc.Files, tc.AsyncFiles),
        (tc.Git, tc.AsyncGit),
    ],
)
def test_both_clients_have_the_same_surface(blocking: type, other: type) -> None:
    there = surface(other)
    assert {name: there.get(name) for name in surface(blocking)} == surface(blocking)
    assert set(there) == set(surface(blocking))


def test_every_kind_of_event_has_its_body() -> None:
    kinds = {each.message_type.name: each.name for each in pb.Event.DESCRIPTOR.oneofs_by_name["body"].fields}
    assert {body.__name__ for body in get_args(tc.Body)} == {*kinds, "Unknown"}
    for name, kind in kinds.items():
        body = getattr(tc, name)
        event = tc.Event(pb.Event(seq=1, **{kind: body()}))
        assert (event.kind, event.body) == (kind, body())
    assert tc.Event(pb.Event(seq=1)).body == tc.Unknown()
    assert tc.Event(pb.Event(seq=1)).kind == ""


def test_all_that_events_are_made_of_is_exported() -> None:
    enums: list[EnumDescriptor] = list(DESCRIPTOR.enum_types_by_name.values())
    wanted = {*(each.name for each in enums), *DESCRIPTOR.message_types_by_name} - {"Event"}
    assert wanted <= set(tc.__all__)
    assert all(hasattr(tc, name) for name in tc.__all__)
    errors = {name for name, kind in vars(tc.errors).items() if inspect.isclass(kind) and issubclass(kind, tc.TreadleError)}
    assert errors <= set(tc.__all__)


def test_events_match_by_type_and_by_place() -> None:
    delta = pb.ContentDelta(channel=pb.CHANNEL_TEXT, data="hi")
    event = tc.Event(pb.Event(seq=3, session_id="s", content_delta=delta))
    match event:
        case tc.Event(tc.ContentDelta(channel=tc.Channel.CHANNEL_TEXT, data=text)):
            assert text == "hi"
        case _:
            pytest.fail("no match")
    message = tc.Event(pb.Event(seq=4, message=pb.Message(parts=[pb.Part(text="a"), pb.Part(text="b")])))
    match message.body:
        case tc.Message(parts=[tc.Part(text=first), *rest]):
            assert (first, len(rest)) == ("a", 1)
        case _:
            pytest.fail("no match")
    assert event == tc.Event(pb.Event.FromString(event.proto.SerializeToString()))
    assert len({event, tc.Event(event.proto), message}) == 2
    assert event.recorded_at.tzinfo is not None


TYPED = """
from typing import assert_type
from treadle_client import *

def read(treadle: Treadle) -> None:
    for event in treadle.execute("repository", "prompt"):
        assert_type(event.body, Body)
        match event.body:
            case ContentDelta(channel=Channel.CHANNEL_TEXT, data=data):
                assert_type(data, str)
            case Message(parts=[Part(text=text), *_]):
                assert_type(text, str)
            case _:
                pass
        match event:
            case Event(TurnCompleted(pushed=pushed)):
                assert_type(pushed, bool)
            case _:
                pass

async def follow(treadle: AsyncTreadle) -> Session:
    async for event in treadle.resume("session", after_seq=3):
        assert_type(event, Event)
    return assert_type(await treadle.get_session("session"), Session)
"""


def test_type_checkers_know_what_a_body_is(tmp_path: Path) -> None:
    """Strictly, and as somebody else's program sees the installed packages."""
    (tmp_path / "program.py").write_text(TYPED)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "program.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout


def test_it_needs_only_the_protos_and_grpc() -> None:
    needs = importlib.metadata.requires("treadle-client") or []
    assert {re.split(r"[ <>=~!;]", each)[0] for each in needs} == {"treadle-protos", "grpcio"}
    assert importlib.metadata.version("treadle-client") == tc.target.VERSION
    program = "import sys, treadle_client; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60).stdout.split()
    assert not {"server", "worker", "gateway", "pydantic", "structlog", "asyncpg", "rich"} & set(loaded)


async def test_sessions(world: Any, driver: Driver, connect: Callable[..., Any]) -> None:
    client = connect(world.client.address, world.client.key)
    repository = world.repository(f"acme/sessions-{driver}", {"say": "hello"})["repository"]
    made = await driver.call(client, "create_session", repository, title="One", labels={"a": "b"}, request_id=f"made-{driver}")
    assert await driver.call(client, "create_session", repository, title="One", labels={"a": "b"}, request_id=f"made-{driver}") == made
    assert await driver.call(client, "get_session", made.session_id) == made
    changed = await driver.call(client, "update_session", made.session_id, title="Two", version=made.version)
    assert (changed.title, dict(changed.labels)) == ("Two", {"a": "b"})
    with pytest.raises(tc.VersionConflict):
        await driver.call(client, "update_session", made.session_id, labels={}, version=made.version)
    assert not (await driver.call(client, "update_session", made.session_id, labels={})).labels
    assert await driver.call(client, "interrupt", made.session_id) == ""
    await driver.call(client, "delete_session", made.session_id)
    with pytest.raises(tc.SessionNotFound):
        await driver.call(client, "get_session", made.session_id)


async def test_lists_go_over_all_pages(world: Any, driver: Driver, connect: Callable[..., Any]) -> None:
    client = connect(world.client.address, world.client.key)
    repository = world.repository(f"acme/pages-{driver}", {"say": "hello"})["repository"]
    made = [(await driver.call(client, "create_session", repository)).session_id for _ in range(7)]
    for size in (0, 1, 3, 7):
        listed = [each.session_id for each in await driver.call(client, "list_sessions", page_size=size)]
        assert listed[:7] == made[::-1]
        assert len(set(listed)) == len(listed)
        assert world.session_id in listed
    for size, after in ((0, 0), (1, len(world.log) - 5), (7, 3), (1000, 0), (5, len(world.log))):
        events = await driver.call(client, "list_events", world.session_id, after_seq=after, page_size=size)
        assert [event.proto for event in events] == world.log[after:]
    assert await driver.read(client.resume(world.session_id, after_seq=5, follow=False)) == [tc.Event(each) for each in world.log[5:]]


async def test_many_clients_of_one_request_see_one_turn(world: Any, driver: Driver, connect: Callable[..., Any]) -> None:
    fields = world.repository(f"acme/same-{driver}", {"burst": 30, "text": "x", "per_second": 100}) | {"request_id": f"same-{driver}"}
    streams = [connect(world.client.address, world.client.key).execute(**fields) for _ in range(4)]
    seen = await asyncio.gather(*(driver.read(stream) for stream in streams))
    assert all(each == seen[0] for each in seen)
    assert {(stream.session_id, stream.turn_id) for stream in streams} == {(seen[0][0].session_id, seen[0][0].turn_id)}


@pytest.fixture
async def tls(world: Any, tmp_path: Path) -> AsyncIterator[tuple[str, Path]]:
    """(the address of a server that speaks TLS, the certificate to trust)."""
    openssl = shutil.which("openssl")
    require(openssl, "openssl", "apt-get install openssl")
    assert openssl is not None
    options = ["-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", *options, *files]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, timeout=60)
    pair = ((tmp_path / "key.pem").read_bytes(), (tmp_path / "cert.pem").read_bytes())
    async with frame_relay(world.client.address, credentials=grpc.ssl_server_credentials([pair])) as relay:
        yield relay.address, tmp_path / "cert.pem"


async def test_tls(world: Any, driver: Driver, connect: Callable[..., Any], tls: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    address, certificate = tls
    client = connect(address, world.client.key, ca_file=certificate)
    assert [event.proto for event in await driver.read(client.resume(world.session_id))] == world.log
    given = connect(address, world.client.key, credentials=grpc.ssl_channel_credentials(certificate.read_bytes()))
    assert (await driver.call(given, "get_session", world.session_id)).session_id == world.session_id
    once = tc.Retry(unanswered_seconds=0)
    with environment(monkeypatch, TREADLE_CA_FILE=str(certificate)):
        named = connect(address, world.client.key)
    assert (await driver.call(named, "get_session", world.session_id)).session_id == world.session_id
    for wrong in (connect(address, world.client.key, retry=once), connect(address.removeprefix("https://"), world.client.key, retry=once)):
        with pytest.raises(tc.Unreachable):
            await driver.call(wrong, "get_session", world.session_id)


async def test_the_readme_s_programs_run_as_they_stand(world: Any) -> None:
    """Each Python block of clients/python/README.md is a program; only the repository is another one."""
    text = (ROOT / "clients/python/README.md").read_text()
    programs = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(programs) >= 3
    steps = [{"say": "hello"}, {"run": "true"}, {"write": "a.txt", "content": "a\n"}]
    fields = world.repository("acme/readme", *steps)
    for program in programs:
        assert "https://github.com/owner/name" in program
        code = program.replace("https://github.com/owner/name", fields["repository"])
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=os.environ | {"TREADLE_ADDRESS": world.client.address, "TREADLE_API_KEY": world.client.key},
        )  # fmt: skip
        out, err = await asyncio.wait_for(process.communicate(), 60)
        assert (process.returncode, err.decode()) == (0, ""), program
        assert out
