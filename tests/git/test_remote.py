"""The port's promises about remotes, against a real Git server over HTTP."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.git_server import GitServer, git, git_server
from support.git_world import BASE, BRANCH, World, open_world

from server.git import remote as remote_module
from server.git.command import Git
from server.git.remote_url import RemoteUrls
from server.kernel.credential import Token
from server.kernel.errors import BranchUnknown, PushRefused, RepositoryNotAllowed, RepositoryUnreachable
from server.kernel.ports.repositories import RemoteBranch, Repository


async def test_inspect_finds_the_default_branch_and_a_named_one(world: World) -> None:
    head = world.pushed("rev-parse", "main")
    other = world.server.commit("demo", {"x": "x"}, branch="feature/x#1")
    assert await world.git.inspect(world.repository, branch="") == RemoteBranch("main", head)
    assert await world.git.inspect(world.repository, branch="feature/x#1") == RemoteBranch("feature/x#1", other)


@pytest.mark.parametrize("branch", ["nope", "--upload-pack=touch /tmp/x", "a..b", "ain", "refs/heads/main", "a b", "*"])
async def test_inspect_knows_no_such_branch(world: World, branch: str) -> None:
    with pytest.raises(BranchUnknown):
        await world.git.inspect(world.repository, branch=branch)


async def test_an_empty_repository_has_no_branch(world: World) -> None:
    git(world.server.root, "init", "--quiet", "--bare", "--template=", "empty.git")
    with pytest.raises(BranchUnknown):
        await world.git.inspect(world.at("empty"), branch="")


async def test_inspect_tells_git_s_reason(world: World) -> None:
    with pytest.raises(RepositoryUnreachable, match="not found"):
        await world.git.inspect(world.at("missing"), branch="")


async def test_inspect_does_not_wait_for_a_silent_server(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert remote_module.LS_REMOTE_SECONDS == 10
    monkeypatch.setattr(remote_module, "LS_REMOTE_SECONDS", 0.3)
    world.server.speaking.clear()
    with pytest.raises(RepositoryUnreachable, match=r"no answer within 0\.3 s"):
        await world.git.inspect(world.repository, branch="")
    assert _children() == []


async def test_a_cancelled_command_leaves_no_process(world: World) -> None:
    world.server.speaking.clear()
    asked = len(world.server.asked)
    asking = asyncio.create_task(world.git.inspect(world.repository, branch=""))
    async with asyncio.timeout(5):
        while len(world.server.asked) == asked:
            await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert _children() == []


async def test_a_url_that_is_not_allowed_is_never_asked(world: World) -> None:
    asked = list(world.server.asked)
    with pytest.raises(RepositoryNotAllowed):
        await world.git.inspect(replace(world.repository, url="http://127.0.0.1:1/demo.git"), branch="")
    assert world.server.asked == asked


async def test_fetch_starts_from_the_session_branch_when_there_is_one(world: World) -> None:
    base = await world.fetch()
    assert base == world.pushed("rev-parse", "main")
    later = world.server.commit("demo", {"later": "1"}, branch=BRANCH)
    assert await world.fetch() == later
    assert await world.fetch() == later


async def test_fetch_follows_a_rewritten_base_and_keeps_session_refs(world: World) -> None:
    base = await world.fetch()
    workspace = await world.workspace(base)
    (workspace / "a").write_text("a")
    made = await world.import_(workspace, base)
    world.pushed("update-ref", "refs/heads/main", git(world.remote, "commit-tree", "main^{tree}", "-m", "rewritten"))
    assert await world.fetch() == world.pushed("rev-parse", "main")
    assert git(world.mirror, "for-each-ref", "--format=%(objectname)", "refs/treadle/sessions") == made.commit


async def test_fetch_goes_on_from_a_commit_that_could_not_be_pushed(world: World) -> None:
    base = await world.fetch()
    workspace = await world.workspace(base)
    (workspace / "a").write_text("a")
    made = await world.import_(workspace, base)
    assert made.commit is not None
    # Neither when the branch is not there, nor when it is behind, is the work forgotten.
    assert await world.fetch(made.commit) == made.commit
    await world.push(base, create=True)
    assert await world.fetch(made.commit) == made.commit
    assert await world.fetch("0" * 40) == base


async def test_fetch_of_an_unknown_branch_fails(world: World) -> None:
    with pytest.raises(BranchUnknown):
        await world.git.fetch(world.repository, branch="nope", session_branch="", head_commit="")


async def test_mirrors_of_two_owners_are_apart(world: World) -> None:
    from dataclasses import replace

    other = replace(world.repository, owner_id="somebody-else")
    assert world.git.mirrors.path(other) != world.mirror


async def test_push_makes_a_branch_moves_it_forward_and_may_be_repeated(world: World) -> None:
    base = await world.fetch()
    await world.push(base, create=True)
    await world.push(base, create=True)
    workspace = await world.workspace(base)
    (workspace / "a").write_text("a")
    made = await world.import_(workspace, base)
    assert made.commit is not None
    await world.push(made.commit)
    await world.push(made.commit)
    assert world.pushed("rev-parse", BRANCH) == made.commit


async def test_push_never_overwrites_somebody_else_s_work(world: World) -> None:
    base = await world.fetch()
    await world.push(base, create=True)
    theirs = world.server.commit("demo", {"theirs": "1"}, branch=BRANCH)
    workspace = await world.workspace(base)
    (workspace / "a").write_text("a")
    made = await world.import_(workspace, base)
    assert made.commit is not None
    with pytest.raises(PushRefused, match="non-fast-forward"):
        await world.push(made.commit)
    assert await world.fetch(made.commit) == theirs
    with pytest.raises(PushRefused, match="non-fast-forward"):
        await world.push(made.commit)
    assert world.pushed("rev-parse", BRANCH) == theirs


async def test_push_does_not_take_over_a_branch_that_exists(world: World) -> None:
    base = await world.fetch()
    theirs = world.server.commit("demo", {"theirs": "1"}, branch=BRANCH)
    with pytest.raises(PushRefused):
        await world.push(base, create=True)
    assert world.pushed("rev-parse", BRANCH) == theirs


async def test_push_refuses_the_default_branch(world: World) -> None:
    base = await world.fetch()
    with pytest.raises(PushRefused, match="default branch"):
        await world.git.push(world.repository, branch="main", commit=base, create=False)


@pytest.mark.parametrize("branch", ["--delete", "a:refs/heads/main", "a b", "x\ny", ""])
async def test_push_takes_only_branch_names(world: World, branch: str) -> None:
    base = await world.fetch()
    with pytest.raises(PushRefused):
        await world.git.push(world.repository, branch=branch, commit=base, create=True)
    assert "refs/heads/main" in world.pushed("for-each-ref", "--format=%(refname)")


async def test_push_tells_why_the_host_refused(world: World) -> None:
    world.server.refuse_pushes("demo", "GH006: protected branch, ask Ada")
    base = await world.fetch()
    with pytest.raises(PushRefused, match=r"pre-receive hook declined.*protected branch, ask Ada"):
        await world.push(base, create=True)


async def test_a_token_reaches_the_host_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = "ghs_canary_93f1"
    seen: list[str] = []

    async def supply(repository: Repository) -> Token | None:
        return Token("x-access-token", token if repository.url.endswith("demo.git") else "ghs_canary_wrong")

    start = asyncio.create_subprocess_exec

    async def spy(*argv: str, **options: object) -> asyncio.subprocess.Process:
        seen.extend(map(str, argv))
        return await start(*argv, **options)  # type: ignore[arg-type]

    with git_server(tmp_path / "served", token=token) as server:
        _seed(server)
        async with open_world(server, tmp_path, token=supply) as world:
            with monkeypatch.context() as patch:
                patch.setattr(asyncio, "create_subprocess_exec", spy)
                base = await world.fetch()
                await world.push(base, create=True)
                with pytest.raises(RepositoryUnreachable) as refused:
                    await world.git.inspect(world.at("other"), branch="")
            assert world.pushed("rev-parse", BRANCH) == base
    assert seen
    assert "canary" not in "\0".join(seen) + str(refused.value) + repr(refused.value.__cause__)
    for file in (tmp_path / "data").rglob("*"):
        assert not file.is_file() or b"canary" not in file.read_bytes()


@pytest.mark.parametrize("another", [True, False])
async def test_a_token_that_is_refused_is_asked_for_once_more_where_there_may_be_another(tmp_path: Path, another: bool) -> None:
    tokens = ["ghs_revoked", "ghs_new"]

    async def supply(_: Repository) -> Token | None:
        return Token("x-access-token", tokens[0], refused=lambda: another and bool(tokens.pop(0)))

    with git_server(tmp_path / "served", token="ghs_new") as server:
        _seed(server)
        async with open_world(server, tmp_path, token=supply) as world:
            if another:
                await world.push(await world.fetch(), create=True)
            else:
                with pytest.raises(RepositoryUnreachable):
                    await world.fetch()
    assert len(tokens) == 1 + (not another)


async def test_without_a_token_a_private_repository_is_unreachable_and_nothing_asks_for_one(tmp_path: Path) -> None:
    with git_server(tmp_path / "served", token="t") as server:
        _seed(server)
        async with open_world(server, tmp_path) as world:
            with pytest.raises(RepositoryUnreachable, match=r"Authentication failed|could not read"):
                await world.fetch()


class _Redirecting(BaseHTTPRequestHandler):
    """Sends everybody to another server."""

    to = ""

    def do_GET(self) -> None:
        self.send_response(302)
        self.send_header("Location", self.to + self.path.lstrip("/"))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


async def test_a_redirect_is_not_followed(server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither to another host, nor with the token that was meant for this one."""

    async def supply(repository: Repository) -> Token | None:
        return Token("x-access-token", "ghs_canary")

    monkeypatch.setattr(_Redirecting, "to", server.url)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Redirecting) as redirecting:
        threading.Thread(target=redirecting.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        url = f"http://127.0.0.1:{redirecting.server_port}/"
        repository = Repository("tenant", "owner", f"{url}demo.git")
        try:
            remote = remote_module.Remote(Git(timeout_seconds=10), RemoteUrls(hosts="", prefixes=url), token=supply)
            with pytest.raises(RepositoryUnreachable, match="302"):
                await remote.advertised(repository)
            git(tmp_path, "init", "--quiet", "--bare", "mirror.git")
            with pytest.raises(RepositoryUnreachable, match="302"):
                await remote.fetch(repository, tmp_path / "mirror.git", ["main"])
        finally:
            redirecting.shutdown()
    assert server.asked == []


def _seed(server: GitServer) -> None:
    server.create("demo", BASE)
    server.create("other", BASE)


def _children() -> list[str]:
    """Names of this process's own git children."""
    import psutil

    return [child.name() for child in psutil.Process().children(recursive=True) if child.name().startswith("git-remote")]
