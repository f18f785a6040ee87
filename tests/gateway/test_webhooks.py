"""GitHub's webhooks, through the real gateway: who may say something, and that what they say tells nobody more than the host would."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import io
import json
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
from support.fake_github import TOKEN, FakeGitHub, Pull, Reply, fake_github
from support.git_server import GitServer, git
from support.git_server import git_server as serving
from support.treadle import Client, branch_of, connected, in_process, recording, settings_for

from gateway.config import Gateway
from server.config import Settings
from server.db.pull_request_store import PostgresPullRequestStore
from server.embedded.gateway import embedded_gateway
from server.embedded.postgres_home import DatabaseUrls
from server.identity.keys import create_key
from server.kernel.errors import StoreUnavailable
from server.kernel.identity import Principal
from server.kernel.ids import new_id
from treadle.account.v1 import credential_service_pb2 as credentials_pb
from treadle.account.v1 import credential_service_pb2_grpc as credentials_grpc
from treadle.git.v1 import git_service_pb2 as git_pb
from treadle.git.v1 import git_service_pb2_grpc
from treadle.session.v1 import event_pb2 as pb
from treadle.session.v1 import session_service_pb2

SECRET, OLD_SECRET = "the-new-one-4f1e", "the-old-one-77ab"
LEASE_SECONDS = 6.0
OTHERS_TOKEN = "ghp_of_the_other_tenant_19c4"


@pytest.fixture
def git_server(tmp_path: Path) -> Iterator[GitServer]:
    with serving(tmp_path / "host", token=TOKEN) as server:
        slow = recording({"write": "made.txt", "content": "made\n"}, {"say": "waiting"}, {"wait_ms": 60_000})
        server.create("acme/app", {"r.jsonl": recording({"write": "made.txt", "content": "made\n"}), "slow.jsonl": slow})
        yield server


@pytest.fixture
async def fake(git_server: GitServer) -> AsyncIterator[FakeGitHub]:
    async with fake_github() as fake:
        fake.takes(TOKEN)
        fake.clone_url = f"{git_server.url}/"
        fake.repo("acme/app")
        yield fake


@dataclass
class World:
    server: Any
    client: Client
    git: GitServer
    fake: FakeGitHub
    http: aiohttp.ClientSession
    base: str
    database: DatabaseUrls
    settings: Settings

    @property
    def url(self) -> str:
        return f"{self.git.url}/acme/app.git"

    async def session(self, client: Client | None = None, model: str = "r.jsonl") -> tuple[str, str]:
        """One with a pushed branch, of which the fake knows too; (id, branch)."""
        events = await (client or self.client).run(repository_url=self.url, prompt="Add a file", provider="replay", model=model)
        return events[0].session_id, self.known(branch_of(events))

    def known(self, branch: str) -> str:
        self.fake.repos["acme/app"].branches[branch] = ["Initial commit", "Add a file"]
        return branch

    def opened(self, branch: str, number: int = 7, **fields: Any) -> Pull:
        """A pull request that somebody opened on the host."""
        pulls = self.fake.repos["acme/app"].pulls
        pulls[number] = Pull(number, branch, "main", "Add a file", **fields)
        return pulls[number]

    async def post(self, event: str, body: Any, *, secret: str = SECRET, delivery: str = "", **headers: str) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else json.dumps(body, indent=1, ensure_ascii=False).encode()
        signature = "sha256=" + hmac.new(secret.encode(), data, hashlib.sha256).hexdigest()
        told = {
            "content-type": "application/json",
            "x-github-event": event,
            "x-github-delivery": delivery or new_id(),
            "x-hub-signature-256": signature,
        }
        async with self.http.post(f"{self.base}/v1/webhooks/github", data=io.BytesIO(data), headers=told | headers) as answer:
            return answer.status, await answer.json(content_type=None)

    async def outcome(self, event: str, body: Any, **more: str) -> str:
        status, said = await self.post(event, body, **more)
        assert status == 200, said
        return said["outcome"].removeprefix("WEBHOOK_OUTCOME_")

    def repository(self, name: str = "acme/app") -> dict[str, Any]:
        return {"full_name": name, "clone_url": f"{self.git.url}/{name}.git"}

    def pull_request(self, branch: str, number: int = 7, head: str = "acme/app") -> dict[str, Any]:
        pull = {"number": number, "head": {"ref": branch, "repo": {"full_name": head}}, "title": "ä\u2028 forged"}
        return {"action": "closed", "number": number, "pull_request": pull, "repository": self.repository()}


@pytest.fixture
async def world(
    database: DatabaseUrls, server_data_dir: Path, git_server: GitServer, fake: FakeGitHub, program: Path, passable: Path
) -> AsyncIterator[World]:
    settings = settings_for(
        database,
        server_data_dir,
        git_server,
        github_apis=f"{git_server.url}/={fake.url}",
        github_webhook_secret=f"{SECRET}, {OLD_SECRET}",
        lease_seconds=LEASE_SECONDS,
        # Servers that share a database share it.
        vault_key=base64.b64encode(os.urandom(32)).decode(),
    )
    async with in_process(settings) as (server, client):
        # A test sends more at once than a host does; test_guards.py has the limit.
        gateway = Gateway(listen="127.0.0.1:0", upstream=client.address, admin="", webhooks_per_second=200)
        async with embedded_gateway(program, gateway, passable / "gateway") as address, aiohttp.ClientSession() as http:
            await put_token(client, git_server, TOKEN)
            yield World(server, client, git_server, fake, http, f"http://{address}", database, settings)


async def put_token(client: Client, git_server: GitServer, token: str) -> None:
    stub = credentials_grpc.CredentialServiceStub(client.channel)
    await stub.PutCredential(credentials_pb.PutCredentialRequest(host=f"{git_server.url}/", token=token), metadata=client.metadata)


async def told(client: Client, session_id: str, count: int = 1) -> list[pb.Event]:
    """The events of a pull request, once there are so many. Nothing follows the log of an idle session, so it is looked at again."""
    async with asyncio.timeout(20):
        while True:
            frames = [frame async for frame in client.resume(session_id, follow=False)]
            found = [event for frame in frames for event in frame.events.events if event.HasField("pull_request_updated")]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.05)


async def get(client: Client, session_id: str) -> Any:
    return (await client.call("GetSession", session_service_pb2.GetSessionRequest(session_id=session_id))).session


async def test_only_what_is_signed_is_taken_and_not_twice_under_one_id(world: World) -> None:
    nothing = world.pull_request("none")
    refused = [
        await world.post("pull_request", nothing, secret="another"),
        await world.post("pull_request", nothing, **{"x-hub-signature-256": ""}),
        await world.post("pull_request", nothing, **{"x-hub-signature-256": "sha256=äö"}),
        # GitHub's older signature, by SHA-1.
        await world.post("pull_request", nothing, **{"x-hub-signature-256": "", "x-hub-signature": "sha1=0"}),
    ]
    assert [(status, said["details"][0]["reason"]) for status, said in refused] == [(401, "SIGNATURE_INVALID")] * 4
    # Whatever bytes they are, these are signed: no proxy on the way writes them anew.
    for odd in (b'{"a":1}\r\n', b' {"\\u00e4" : "\xc3\xa4\\/"} ', b"{}\x00"[:2]):
        assert await world.outcome("star", odd) == "IGNORED"
    for secret in (SECRET, OLD_SECRET):
        assert await world.outcome("pull_request", nothing, secret=secret) == "TAKEN"
    assert [await world.outcome("pull_request", nothing, delivery="the-same-one") for _ in range(2)] == ["TAKEN", "REPEATED"]
    assert await world.outcome("ping", {"zen": "…"}) == "IGNORED"
    assert (
        await world.outcome("push", {"ref": "refs/heads/main", "repository": {"clone_url": "https://elsewhere.test/a/b.git"}}) == "IGNORED"
    )
    endless = b'{"installation": {"id": Infinity}}'
    for event, body in (
        ("pull_request", b"payload=%7B%7D"),
        ("pull_request", {"number": 1}),
        ("push", []),
        ("installation", endless),
    ):
        status, said = await world.post(event, body)
        assert (status, said["details"][0]["reason"]) == (400, "INVALID_FIELD"), (event, body)
    assert await world.outcome("star", b"{}" + b" " * 999_998) == "IGNORED"
    assert (await world.post("star", b"{}" + b" " * 999_999))[0] == 413
    assert (await world.post("push", b"", **{"x-github-delivery": "'"}))[0] == 400
    async with world.http.get(f"{world.base}/v1/webhooks/github") as answer:
        assert answer.status == 405


async def test_what_somebody_did_on_the_host_is_told_in_the_session_s_log(world: World) -> None:
    session_id, branch = await world.session()
    pull = world.opened(branch)
    assert await world.outcome("pull_request", world.pull_request(branch)) == "TAKEN"
    (opened,) = await told(world.client, session_id)
    update = opened.pull_request_updated
    # What the host shows to the owner, not what the delivery says.
    assert (update.number, update.title, update.state) == (7, "Add a file", pb.PULL_REQUEST_STATE_OPEN)
    assert (update.head, update.base, update.url) == (branch, "main", "https://github.com/acme/app/pull/7")
    assert (opened.turn_id, opened.actor.kind) == ("", pb.ACTOR_KIND_SERVER)
    # A delivery that changes nothing is no event, and the host may be away for a while.
    pull.state, pull.merged = "closed", True
    world.fake.plays("GET", "/pulls/7", *[Reply(503)] * 3)
    await world.outcome("pull_request", world.pull_request(branch))
    async with asyncio.timeout(20):
        while world.fake.paths("GET").count("/repos/acme/app/pulls/7") < 4:
            await asyncio.sleep(0.05)
    # It asks again by itself a minute later; or when the next delivery names it.
    await world.outcome("pull_request", world.pull_request(branch))
    _, last = await told(world.client, session_id, 2)
    assert last.pull_request_updated.state == pb.PULL_REQUEST_STATE_MERGED
    session = await get(world.client, session_id)
    assert session.pull_request == last.pull_request_updated
    assert {each.token for each in world.fake.asked} == {TOKEN}


async def test_it_is_told_while_a_turn_runs(world: World) -> None:
    stream = world.client.execute(repository_url=world.url, prompt="Add a file", provider="replay", model="slow.jsonl")
    events: list[pb.Event] = []
    async for frame in stream:
        events += frame.events.events
        if any(event.HasField("message") for event in events):
            break
    branch = world.known(branch_of(events))
    world.opened(branch)
    await world.outcome("pull_request", world.pull_request(branch))
    (event,) = await told(world.client, events[0].session_id)
    assert event.turn_id == events[0].turn_id
    assert (await get(world.client, events[0].session_id)).active_turn_id
    stream.cancel()


async def test_a_turn_on_another_server_hears_of_it_by_its_lease_s_sweep(
    world: World, tmp_path: Path, passable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The webhook came to the one that has no turn."""
    monkeypatch.setattr("server.kernel.pull_requests.SWEEP_SECONDS", 3600.0)
    other = passable / "other"
    other.mkdir(mode=0o700)
    async with in_process(world.settings.model_copy(update={"data_dir": other})) as (_, client):
        stream = client.execute(repository_url=world.url, prompt="Add a file", provider="replay", model="slow.jsonl")
        events: list[pb.Event] = []
        async for frame in stream:
            events += frame.events.events
            if any(event.HasField("message") for event in events):
                break
        branch = world.known(branch_of(events))
        world.opened(branch)
        started = asyncio.get_running_loop().time()
        assert await world.outcome("pull_request", world.pull_request(branch)) == "TAKEN"
        async with asyncio.timeout(20):
            async for frame in stream:
                if any(event.HasField("pull_request_updated") for event in frame.events.events):
                    break
        # A third of the lease, and what a loaded machine takes.
        assert asyncio.get_running_loop().time() - started < 2 * LEASE_SECONDS
        stream.cancel()


async def test_nobody_learns_what_the_host_does_not_show_them(world: World) -> None:
    mine, branch = await world.session()
    stranger = Principal("evil", "mallory", "Mallory", "mallory@example.org")
    await world.server.stores.keys.ensure_user(stranger)
    key = await create_key(world.server.stores.keys, stranger)
    async with connected(world.client.address, key) as theirs:
        await put_token(theirs, world.git, TOKEN)
        session_id, _ = await world.session(theirs)
        await asyncpg_execute(world.database, "UPDATE sessions SET branch = $1 WHERE tenant_id = 'evil'", branch)
        # They could read the repository once.
        await put_token(theirs, world.git, OTHERS_TOKEN)
        world.opened(branch)
        await world.outcome("pull_request", world.pull_request(branch))
        await told(world.client, mine)
        # Their session was looked at as well, and they were shown nothing.
        async with asyncio.timeout(20):
            while await asyncpg_execute(world.database, "SELECT count(*) FROM pull_request_looks"):
                await asyncio.sleep(0.05)
        assert OTHERS_TOKEN in {each.token for each in world.fake.asked}
        assert not (await get(theirs, session_id)).HasField("pull_request")


async def test_a_fork_s_branch_of_the_same_name_is_another(world: World) -> None:
    session_id, branch = await world.session()
    world.opened(branch, from_fork=True)
    assert await world.outcome("pull_request", world.pull_request(branch, head="stranger/app")) == "IGNORED"
    # Not either when the delivery lies, as somebody could who knows the secret.
    world.opened(branch, 8)
    await world.outcome("pull_request", world.pull_request(branch))
    await world.outcome("pull_request", world.pull_request(branch, 8))
    (first,) = await told(world.client, session_id)
    assert first.pull_request_updated.number == 8


async def test_calls_of_the_git_service_are_told_in_the_same_way(world: World) -> None:
    session_id, branch = await world.session()
    stub = git_service_pb2_grpc.GitServiceStub(world.client.channel)
    made = await stub.CreatePullRequest(git_pb.CreatePullRequestRequest(session_id=session_id), metadata=world.client.metadata)
    number = made.pull_request.number
    closing = git_pb.UpdatePullRequestRequest(session_id=session_id, number=number, state=git_pb.PULL_REQUEST_STATE_CLOSED)
    await told(world.client, session_id)
    await stub.UpdatePullRequest(closing, metadata=world.client.metadata)
    await told(world.client, session_id, 2)
    async for _ in stub.AutoPullRequest(git_pb.AutoPullRequestRequest(session_id=session_id), metadata=world.client.metadata):
        pass
    session = await get(world.client, session_id)
    assert (session.pull_request.state, session.pull_request.head) == (pb.PULL_REQUEST_STATE_MERGED, branch)


async def test_what_was_pushed_is_there_before_the_next_session_asks(world: World, server_data_dir: Path) -> None:
    await world.session()
    world.git.commit("acme/app", {"news.txt": "news\n"})
    commit = git(world.git.root / "acme/app.git", "rev-parse", "main")
    body = {"ref": "refs/heads/main", "deleted": False, "repository": world.repository()}
    assert await world.outcome("push", body) == "TAKEN"
    (mirror,) = server_data_dir.rglob("*.git/objects/pack")
    async with asyncio.timeout(20):
        while not git(mirror.parents[1], "for-each-ref", f"--points-at={commit}"):
            await asyncio.sleep(0.05)


async def test_who_has_sessions_there_is_looked_up_once_for_a_delivery_and_costs_none_its_answer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, look_up = [], PostgresPullRequestStore.based_on

    async def based_on(*arguments: Any, **limits: Any) -> Any:
        looked.append(arguments[1:])
        if len(looked) > 1:
            raise StoreUnavailable
        return await look_up(*arguments, **limits)

    monkeypatch.setattr(PostgresPullRequestStore, "based_on", based_on)
    body = {"ref": "refs/heads/main", "deleted": False, "repository": world.repository()}
    assert [await world.outcome("push", body, delivery="the-same-one") for _ in range(3)] == ["TAKEN", "REPEATED", "REPEATED"]
    assert len(looked) == 1
    # What is known to have come, and would not be taken again, is not answered with a failure.
    assert [await world.outcome("push", body, delivery="another-one") for _ in range(2)] == ["TAKEN", "REPEATED"]
    assert len(looked) == 2


async def asyncpg_execute(database: DatabaseUrls, statement: str, *values: object) -> Any:
    connection = await asyncpg.connect(database.owner)
    try:
        return await connection.fetchval(statement, *values)
    finally:
        await connection.close()
