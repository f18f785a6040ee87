"""A session's work becomes a pull request and is merged, by a scripted GitHub; and what plain Git can do."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.fake_github import TOKEN, FakeGitHub, Reply, fake_github
from support.git_server import GitServer, git
from support.git_server import git_server as serving
from support.treadle import Client, branch_of, error_info, in_process, recording, settings_for

from server.embedded.postgres_home import DatabaseUrls
from server.kernel import hosting
from server.kernel.code_host import Comparison
from server.kernel.pull_request_text import body_of, title_of
from treadle.account.v1 import credential_service_pb2 as credentials_pb
from treadle.account.v1 import credential_service_pb2_grpc as credentials_grpc
from treadle.git.v1 import git_service_pb2 as pb
from treadle.git.v1 import git_service_pb2_grpc


@pytest.fixture
def git_server(tmp_path: Path) -> Iterator[GitServer]:
    with serving(tmp_path / "host", token=TOKEN) as server:
        server.create("acme/app", {"README.md": "# App\n", "r.jsonl": recording({"write": "made.txt", "content": "made\n"})})
        yield server


@pytest.fixture
async def fake(git_server: GitServer) -> AsyncIterator[FakeGitHub]:
    async with fake_github() as fake:
        fake.takes(TOKEN)
        fake.clone_url = f"{git_server.url}/"
        fake.repo("acme/app", files={"README.md": b"# App\n"})
        yield fake


@dataclass
class World:
    client: Client
    git: GitServer
    fake: FakeGitHub

    @property
    def host(self) -> str:
        return f"{self.git.url}/"

    @property
    def url(self) -> str:
        return f"{self.host}acme/app.git"

    async def ask(self, method: str, request: Any) -> Any:
        stub = git_service_pb2_grpc.GitServiceStub(self.client.channel)
        return await getattr(stub, method)(request, metadata=self.client.metadata, timeout=30)

    async def refused(self, method: str, request: Any) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.ask(method, request)
        return error_info(caught.value)[:2]

    async def auto(self, **fields: Any) -> list[pb.AutoPullRequestResponse]:
        stub = git_service_pb2_grpc.GitServiceStub(self.client.channel)
        return [step async for step in stub.AutoPullRequest(pb.AutoPullRequestRequest(**fields), metadata=self.client.metadata, timeout=30)]

    async def session(self) -> tuple[str, str]:
        """One with a pushed branch, of which the fake knows too; (id, branch)."""
        events = await self.client.run(repository_url=self.url, prompt="Add a file", provider="replay", model="r.jsonl")
        branch = branch_of(events)
        repo = self.fake.repos["acme/app"]
        repo.branches[branch] = [*repo.branches["main"], "Add a file"]
        return events[0].session_id, branch


@pytest.fixture
async def world(
    database: DatabaseUrls, server_data_dir: Path, git_server: GitServer, fake: FakeGitHub, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    monkeypatch.setattr(hosting, "POLL_SECONDS", 0.01)
    settings = settings_for(database, server_data_dir, git_server, github_apis=f"{git_server.url}/={fake.url}", github_client_id="the-app")
    async with in_process(settings) as (_, client):
        world = World(client, git_server, fake)
        stub = credentials_grpc.CredentialServiceStub(client.channel)
        await stub.PutCredential(credentials_pb.PutCredentialRequest(host=world.host, token=TOKEN), metadata=client.metadata)
        yield world


async def test_a_session_s_branch_becomes_a_merged_pull_request(world: World) -> None:
    session_id, branch = await world.session()
    repo = world.fake.repos["acme/app"]
    repo.branches["main"].append("News")
    world.fake.new_pulls = [None, None, True]
    steps = await world.auto(session_id=session_id)
    assert [step.WhichOneof("step") for step in steps] == ["ready", "base_merged", "checking", "checking", "merged", "branch_removed"]
    ready = steps[0].ready
    assert (ready.created, ready.pull_request.title, ready.pull_request.base) == (True, "Add a file", "main")
    assert ready.pull_request.body.startswith("## Summary\n\nAdd a file\n\n## Commits\n\n- Add a file")
    assert steps[1].base_merged.commit
    assert steps[4].merged.commit == repo.sha("main")
    assert steps[5].branch_removed.deleted
    assert branch not in repo.branches
    found = (await world.ask("ListPullRequests", pb.ListPullRequestsRequest(session_id=session_id))).pull_requests
    assert [each.state for each in found] == [pb.PULL_REQUEST_STATE_MERGED]
    # All of it by the caller's own token.
    assert {each.token for each in world.fake.asked} == {TOKEN}


async def test_what_an_automatic_merge_cannot_do_it_says_and_goes_on_when_it_is_asked_again(world: World) -> None:
    session_id, branch = await world.session()
    repo = world.fake.repos["acme/app"]

    async def refused() -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await world.auto(session_id=session_id)
        return error_info(caught.value)[:2]

    repo.branches[branch].remove("Add a file")
    assert await refused() == (grpc.StatusCode.FAILED_PRECONDITION, "NO_COMMITS")
    repo.branches[branch].append("Add a file")
    repo.conflicts.add((branch, "main"))
    assert await refused() == (grpc.StatusCode.ABORTED, "MERGE_CONFLICT")
    merge_base = pb.MergeBaseRequest(session_id=session_id)
    assert await world.refused("MergeBase", merge_base) == (grpc.StatusCode.ABORTED, "MERGE_CONFLICT")
    repo.conflicts.clear()
    assert (await world.ask("MergeBase", merge_base)).commit == ""
    (pull,) = repo.pulls.values()
    pull.mergeable = [None]
    assert await refused() == (grpc.StatusCode.DEADLINE_EXCEEDED, "MERGEABILITY_UNKNOWN")
    pull.mergeable = [False]
    assert await refused() == (grpc.StatusCode.ABORTED, "MERGE_CONFLICT")
    # Somebody closes it while its branch is being brought up to date.
    pull.mergeable = [True]
    world.fake.plays("GET", f"/pulls/{pull.number}", Reply(200, {**world.fake.shown(repo, pull), "state": "closed"}))
    assert await refused() == (grpc.StatusCode.FAILED_PRECONDITION, "NOT_MERGEABLE")
    world.fake.plays("PUT", "/merge", Reply(405, "At least 1 approving review is required"))
    assert await refused() == (grpc.StatusCode.FAILED_PRECONDITION, "NOT_MERGEABLE")
    world.fake.plays("DELETE", branch, Reply(403, "Resource not accessible by personal access token"))
    steps = await world.auto(session_id=session_id)
    assert (steps[0].ready.created, steps[-1].branch_removed.deleted) == (False, False)
    assert "not accessible" in steps[-1].branch_removed.reason
    assert len(repo.pulls) == 1


async def test_a_pull_request_that_somebody_else_merges_meanwhile_is_merged(world: World) -> None:
    session_id, branch = await world.session()
    repo = world.fake.repos["acme/app"]
    world.fake.new_pulls = [None, True]
    stub = git_service_pb2_grpc.GitServiceStub(world.client.channel)
    request = pb.AutoPullRequestRequest(session_id=session_id, keep_branch=True)
    steps = []
    async for step in stub.AutoPullRequest(request, metadata=world.client.metadata, timeout=30):
        steps.append(step.WhichOneof("step"))
        if steps[-1] == "checking":
            (pull,) = repo.pulls.values()
            pull.merged, pull.state, pull.mergeable = True, "closed", [None]
    assert (steps, step.merged.commit) == (["ready", "base_merged", "checking", "merged"], "")
    assert branch in repo.branches


async def test_the_commands(world: World) -> None:
    session_id, _ = await world.session()
    environment = os.environ | {"TREADLE_ADDRESS": world.client.address, "TREADLE_API_KEY": world.client.key}

    async def treadle(*words: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "server.cli", *words, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        async with asyncio.timeout(40):
            said, _ = await process.communicate()
        return process.returncode or 0, said.decode()

    assert "acme/app" in (await treadle("repos", world.host))[1]
    code, said = await treadle("credential", "list")
    assert (code, world.host in said, "used " in said) == (0, True, True), said
    code, said = await treadle("pr", "show", session_id)
    assert (code, "has no pull request" in said) == (2, True), said
    code, said = await treadle("pr", "create", session_id, "--title", "Mine")
    assert (code, "https://github.com/acme/app/pull/1" in said, "Mine" in said) == (0, True, True), said
    code, said = await treadle("pr", "auto", session_id, "--keep-branch")
    assert (code, "found https://github.com/acme/app/pull/1" in said, "merged: " in said) == (0, True, True), said
    code, said = await treadle("pr", "merge", session_id)
    assert (code, "reason NOT_MERGEABLE" in said) == (2, True), said
    login = asyncio.create_task(treadle("credential", "login", world.url))
    async with asyncio.timeout(30):
        while not world.fake.logins:
            await asyncio.sleep(0.05)
    world.fake.logins = dict.fromkeys(world.fake.logins, "done")
    code, said = await login
    assert (code, f"open {world.fake.url}/login/device and enter WDJB-" in said, "in place of the one" in said) == (0, True, True), said
    assert "never used" in said, said


async def test_pull_requests_and_contents_by_repository(world: World) -> None:
    repo = world.fake.repos["acme/app"]
    made = await world.ask("CreateBranch", pb.CreateBranchRequest(repository_url=world.url, branch="work"))
    assert made.branch.commit == repo.sha("main")
    read = await world.ask("GetContents", pb.GetContentsRequest(repository_url=world.url, path="README.md", ref="work"))
    assert read.data == b"# App\n"
    put = pb.PutContentsRequest(repository_url=world.url, path="README.md", branch="work", sha=read.entry.sha, data=b"# Better\n")
    assert (await world.ask("PutContents", put)).commit == repo.sha("work")
    assert await world.refused("PutContents", put) == (grpc.StatusCode.ABORTED, "CONTENT_CHANGED")
    assert repo.branches["work"][-1] == "Update README.md"
    create = pb.CreatePullRequestRequest(repository_url=world.url, head="work", title="Mine")
    opened = (await world.ask("CreatePullRequest", create)).pull_request
    assert (opened.title, opened.base, opened.HasField("mergeable")) == ("Mine", "main", False)
    assert await world.refused("CreatePullRequest", create) == (grpc.StatusCode.ALREADY_EXISTS, "PULL_REQUEST_EXISTS")
    update = pb.UpdatePullRequestRequest(repository_url=world.url, number=opened.number, title="Better", state=pb.PULL_REQUEST_STATE_CLOSED)
    assert (await world.ask("UpdatePullRequest", update)).pull_request.state == pb.PULL_REQUEST_STATE_CLOSED
    merge = pb.MergePullRequestRequest(repository_url=world.url, number=opened.number)
    assert await world.refused("MergePullRequest", merge) == (grpc.StatusCode.FAILED_PRECONDITION, "NOT_MERGEABLE")
    tree = await world.ask("GetTree", pb.GetTreeRequest(repository_url=world.url))
    assert [each.path for each in tree.entries] == ["README.md"]
    listed = await world.ask("ListRepositories", pb.ListRepositoriesRequest(host=world.host))
    assert [each.url for each in listed.repositories] == [world.url]
    generated = await world.ask("GeneratePullRequestContent", pb.GeneratePullRequestContentRequest(repository_url=world.url, head="work"))
    assert (generated.title, generated.commits, generated.files_changed) == ("Merge work into main", 1, 3)
    delete = pb.DeleteBranchRequest(repository_url=world.url, branch="work")
    assert (await world.ask("DeleteBranch", delete)).deleted
    assert not (await world.ask("DeleteBranch", delete)).deleted


async def test_what_is_wrong_is_refused_before_anything_is_asked(world: World) -> None:
    session_id, _ = await world.session()
    world.fake.asked.clear()
    for method, request in (
        ("ListBranches", pb.ListBranchesRequest()),
        ("ListBranches", pb.ListBranchesRequest(repository_url=world.url, session_id=session_id)),
        ("ListBranches", pb.ListBranchesRequest(repository_url=world.url, page_size=101)),
        ("GetContents", pb.GetContentsRequest(repository_url=world.url, path="../../../../user")),
        ("GetContents", pb.GetContentsRequest(repository_url=world.url, path="/etc")),
        ("GetTree", pb.GetTreeRequest(repository_url=world.url, ref="../../../../user")),
        ("CreateBranch", pb.CreateBranchRequest(repository_url=world.url, branch="a..b", base="main")),
        ("CreatePullRequest", pb.CreatePullRequestRequest(repository_url=world.url)),
        ("GetPullRequest", pb.GetPullRequestRequest(repository_url=world.url)),
        ("ListRepositories", pb.ListRepositoriesRequest(host="evil.test")),
    ):
        assert await world.refused(method, request) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"), request
    elsewhere = pb.ListBranchesRequest(repository_url="https://evil.test/a/b")
    assert await world.refused("ListBranches", elsewhere) == (grpc.StatusCode.INVALID_ARGUMENT, "REPOSITORY_NOT_ALLOWED")
    nobody = pb.MergeBaseRequest(session_id="0190aaaa-0000-7000-8000-000000000000")
    assert await world.refused("MergeBase", nobody) == (grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")
    main = pb.DeleteBranchRequest(repository_url=world.url, branch="main")
    assert await world.refused("DeleteBranch", main) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert world.fake.paths() == ["/repos/acme/app"]


async def test_plain_git_can_do_branches(database: DatabaseUrls, server_data_dir: Path, git_server: GitServer, fake: FakeGitHub) -> None:
    async with in_process(settings_for(database, server_data_dir, git_server)) as (_, client):
        world = World(client, git_server, fake)
        stub = credentials_grpc.CredentialServiceStub(client.channel)
        await stub.PutCredential(credentials_pb.PutCredentialRequest(host=world.host, token=TOKEN), metadata=client.metadata)
        bare = git_server.root / "acme/app.git"
        made = (await world.ask("CreateBranch", pb.CreateBranchRequest(repository_url=world.url, branch="work"))).branch
        assert made.commit == git(bare, "rev-parse", "refs/heads/work") == git(bare, "rev-parse", "refs/heads/main")
        again = pb.CreateBranchRequest(repository_url=world.url, branch="work", base="nope")
        assert await world.refused("CreateBranch", again) == (grpc.StatusCode.NOT_FOUND, "REMOTE_NOT_FOUND")
        first = await world.ask("ListBranches", pb.ListBranchesRequest(repository_url=world.url, page_size=1))
        rest = pb.ListBranchesRequest(repository_url=world.url, page_size=5, page_token=first.next_page_token)
        assert [each.name for each in (*first.branches, *(await world.ask("ListBranches", rest)).branches)] == ["main", "work"]
        assert (await world.ask("DeleteBranch", pb.DeleteBranchRequest(repository_url=world.url, branch="work"))).deleted
        assert git(bare, "branch", "--list", "work") == ""
        pulls = pb.ListPullRequestsRequest(repository_url=world.url)
        assert await world.refused("ListPullRequests", pulls) == (grpc.StatusCode.FAILED_PRECONDITION, "UNSUPPORTED_BY_HOST")
    assert fake.asked == []


def test_words_of_a_pull_request_are_cut_and_cannot_act() -> None:
    assert title_of("\n  Add\ta thing \nmore", head="h", base="b") == "Add a thing"
    assert len(title_of("x" * 500, head="h", base="b")) == 72
    assert title_of("", head="work", base="main") == "Merge work into main"
    hostile = ("fix <img src=x> @everyone [x](http://evil.test) #1 `",)
    body = body_of("", Comparison(1, hostile, added=("a`b\n# Title",), renamed=(("a", "b"),)), head="work", base="main")
    assert "- fix \\<img src=x\\> \\@everyone \\[x\\](http://evil.test) \\#1 \\`" in body
    assert "- `a'b # Title`" in body
    assert "- `a` → `b`" in body
    assert body.endswith("---\nMade with Treadle")
    many = body_of("", Comparison(99, tuple(map(str, range(99)))), head="work", base="main")
    assert "- … and 49 more" in many
