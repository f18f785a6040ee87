"""Why a push did not get through, as a type: against a real Git server that says what hosts say, and a network that fails."""

from __future__ import annotations

import asyncio
import random
from http import HTTPStatus
from pathlib import Path

import pytest
from support.git_server import git, git_server
from support.git_world import BASE, BRANCH, World, open_world

from server.git import remote as remote_module
from server.git import repository as repository_module
from server.git.command import Completed, GitFailed
from server.git.refusal import refused
from server.kernel.credential import Token
from server.kernel.errors import PushRefused
from server.kernel.ports.repositories import Repository
from server.kernel.push_refusal import PushRefusal

GITHUB_PROTECTED = """\
error: GH006: Protected branch update failed for refs/heads/treadle/work-12345678.
error: Changes must be made through a pull request."""
GITHUB_RULES = """\
error: GH013: Repository rule violations found for refs/heads/treadle/work-12345678.
Review all repository rules at https://github.com/owner/name/rules?ref=refs%2Fheads%2Ftreadle

- Changes must be made through a pull request.
"""
GITHUB_SECRET = """\
error: GH013: Repository rule violations found for refs/heads/treadle/work-12345678.

- GITHUB PUSH PROTECTION
  Resolve the following violations before pushing again
  - Push cannot contain secrets
"""
GITHUB_LARGE = """\
error: Trace: 5c7f0d1f0a
error: See https://gh.io/lfs for more information.
error: File big.bin is 123.00 MB; this exceeds the file size limit of 100.00 MB
error: GH001: Large files detected. You may want to try Git Large File Storage - https://git-lfs.github.com."""
GITHUB_EMAIL = "error: GH007: Your push would publish a private email address."
GITLAB_PROTECTED = "GitLab: You are not allowed to push code to protected branches on this project."
GITLAB_LARGE = "GitLab: You are attempting to check in one or more files which exceed the 100MiB limit:"
GITLAB_PERMISSION = "GitLab: You are not allowed to push code to this project."
GITEA_PROTECTED = "Gitea: Not allowed to push to protected branch treadle/work-12345678"
BITBUCKET_PROTECTED = "Permission denied to update branch treadle/work-12345678."
AZURE_PROTECTED = "error: TF402455: Pushes to this branch are not permitted; you must use a pull request to update this branch."


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (GITHUB_PROTECTED, PushRefusal.PROTECTED_BRANCH),
        (GITHUB_RULES, PushRefusal.PROTECTED_BRANCH),
        (GITHUB_SECRET, PushRefusal.HOOK_DECLINED),
        (GITHUB_LARGE, PushRefusal.TOO_LARGE),
        (GITHUB_EMAIL, PushRefusal.HOOK_DECLINED),
        (GITLAB_PROTECTED, PushRefusal.PROTECTED_BRANCH),
        (GITLAB_LARGE, PushRefusal.TOO_LARGE),
        (GITLAB_PERMISSION, PushRefusal.PERMISSION),
        (GITEA_PROTECTED, PushRefusal.PROTECTED_BRANCH),
        (BITBUCKET_PROTECTED, PushRefusal.PROTECTED_BRANCH),
        (AZURE_PROTECTED, PushRefusal.PROTECTED_BRANCH),
        ("the tests of this commit are red", PushRefusal.HOOK_DECLINED),
    ],
)
async def test_what_a_host_says_is_told_and_understood(world: World, said: str, kind: PushRefusal) -> None:
    world.server.refuse_pushes("demo", said)
    base = await world.fetch()
    with pytest.raises(PushRefused) as caught:
        await world.push(base, create=True)
    assert caught.value.kind is kind
    assert said.splitlines()[0].removeprefix("error: ") in caught.value.reason
    assert BRANCH not in world.pushed("for-each-ref", "--format=%(refname:short)")


UNABLE = "fatal: unable to access 'https://h/r/'"
STATUS = "!\t0123456789abcdef:refs/heads/treadle/x\t"


@pytest.mark.parametrize(
    ("status", "stderr", "kind"),
    [
        ("[remote rejected] (protected branch hook declined)", "", PushRefusal.PROTECTED_BRANCH),
        ("[remote rejected] (push declined due to repository rule violations)", "", PushRefusal.PROTECTED_BRANCH),
        ("[remote rejected] (push declined due to email privacy restrictions)", "", PushRefusal.HOOK_DECLINED),
        ("[remote rejected] (refusing to allow an OAuth App to update workflow `x` without `workflow` scope)", "", PushRefusal.PERMISSION),
        ("[rejected] (fetch first)", "", PushRefusal.NON_FAST_FORWARD),
        ("[rejected] (stale info)", "", PushRefusal.NON_FAST_FORWARD),
        ("[remote rejected] (cannot lock ref 'refs/heads/treadle/x': is at 0123 but expected 4567)", "", PushRefusal.NON_FAST_FORWARD),
        ("[remote failure] (remote failed to report status)", "", PushRefusal.NETWORK),
        ("[remote rejected] (failed)", "remote: fatal: pack exceeds maximum allowed size (2.00 GiB)", PushRefusal.TOO_LARGE),
        ("[remote rejected] (unpacker error)", "remote: the disk is full", PushRefusal.OTHER),
        # A hook may say what it likes: what git itself says of the connection is only read where there is no such line.
        ("[remote rejected] (pre-receive hook declined)", "remote: the CI returned error: 404", PushRefusal.HOOK_DECLINED),
        ("", f"remote: This repository was archived.\n{UNABLE}: The requested URL returned error: 403", PushRefusal.PERMISSION),
        ("", "remote: Repository not found.\nfatal: repository 'https://h/r/' not found", PushRefusal.PERMISSION),
        ("", "fatal: could not read Username for 'https://h': terminal prompts disabled", PushRefusal.AUTHENTICATION),
        ("", "remote: HTTP Basic: Access denied.\nfatal: Authentication failed for 'https://h/r/'", PushRefusal.AUTHENTICATION),
        ("", "error: RPC failed; HTTP 413 curl 22 The requested URL returned error: 413", PushRefusal.TOO_LARGE),
        ("", "error: RPC failed; HTTP 502 curl 22 The requested URL returned error: 502", PushRefusal.NETWORK),
        ("", f"{UNABLE}: Could not resolve host: h", PushRefusal.NETWORK),
        ("", f"{UNABLE}: Operation too slow. Less than 1 bytes/sec", PushRefusal.NETWORK),
        ("", "fatal: something new", PushRefusal.OTHER),
    ],
)  # fmt: skip
def test_what_git_prints_is_understood(status: str, stderr: str, kind: PushRefusal) -> None:
    printed = f"To https://h/r\n{STATUS}{status}\nDone" if status else "To https://h/r"
    reason = "; ".join(stderr.splitlines())
    assert refused(GitFailed(Completed(1, printed.encode(), stderr), reason)).kind is kind


def test_a_reason_orders_nothing_of_a_terminal_and_tells_no_token() -> None:
    printed = f"{STATUS}[remote rejected] (no\x1b[2J, ghs_secret)\n".encode()
    told = refused(GitFailed(Completed(1, printed, "remote: \x1b]0;title\x07bad\n"), ""), secrets=("ghs_secret",))
    assert told.reason == "[remote rejected] (no, ***); bad"
    assert "ghs_secret" not in told.message


async def test_a_host_that_only_goes_forward_says_so(world: World) -> None:
    """Treadle asks before it pushes; here it does not, so that the host's own word is heard."""
    git(world.remote, "config", "receive.denyNonFastForwards", "true")
    await world.fetch()
    theirs = world.server.commit("demo", {"theirs": "1"}, branch=BRANCH)
    mine = git(world.mirror, "commit-tree", f"{await _base(world)}^{{tree}}", "-m", "mine")
    with pytest.raises(PushRefused) as caught:
        await world.git.remote.push(world.repository, world.mirror, branch=BRANCH, commit=mine, expected=theirs)
    assert caught.value.kind is PushRefusal.NON_FAST_FORWARD
    assert world.pushed("rev-parse", BRANCH) == theirs


async def test_a_branch_that_moved_in_the_last_moment_is_not_overwritten(world: World) -> None:
    base = await world.fetch()
    await world.push(base, create=True)
    theirs = world.server.commit("demo", {"theirs": "1"}, branch=BRANCH)
    mine = git(world.mirror, "commit-tree", f"{base}^{{tree}}", "-p", base, "-m", "mine")
    with pytest.raises(PushRefused) as caught:
        await world.git.remote.push(world.repository, world.mirror, branch=BRANCH, commit=mine, expected=base)
    assert caught.value.kind is PushRefusal.NON_FAST_FORWARD
    assert world.pushed("rev-parse", BRANCH) == theirs


async def test_a_branch_named_like_a_part_of_ours_is_in_the_way(world: World) -> None:
    base = await world.fetch()
    git(world.remote, "branch", "treadle", "main")
    with pytest.raises(PushRefused) as caught:
        await world.push(base, create=True)
    assert caught.value.kind is PushRefusal.BRANCH_EXISTS


async def test_a_push_that_is_too_large_for_the_host(world: World) -> None:
    git(world.remote, "config", "receive.maxInputSize", "2000")
    base = await world.fetch()
    workspace = await world.workspace(base)
    (workspace / "big").write_bytes(random.Random(1).randbytes(16384))
    made = await world.import_(workspace, base)
    assert made.commit is not None
    with pytest.raises(PushRefused) as caught:
        await world.push(made.commit, create=True)
    assert caught.value.kind is PushRefusal.TOO_LARGE


READ, WRITE = "service=git-upload-pack", "git-receive-pack"


@pytest.mark.parametrize(
    ("where", "status", "kind"),
    [
        (READ, 401, PushRefusal.AUTHENTICATION),
        (READ, 403, PushRefusal.PERMISSION),
        (READ, 404, PushRefusal.REPOSITORY_GONE),
        (READ, 301, PushRefusal.REPOSITORY_GONE),
        (WRITE, 401, PushRefusal.AUTHENTICATION),
        (WRITE, 403, PushRefusal.PERMISSION),
        (WRITE, 404, PushRefusal.PERMISSION),
        (WRITE, 413, PushRefusal.TOO_LARGE),
    ],
)
async def test_what_a_host_answers_in_http(world: World, where: str, status: int, kind: PushRefusal) -> None:
    base = await world.fetch()
    world.server.answers = {where: HTTPStatus(status)}
    with pytest.raises(PushRefused) as caught:
        await world.push(base, create=True)
    assert (caught.value.kind, str(status) in caught.value.reason or status in (401, 404)) == (kind, True)


@pytest.mark.parametrize(("where", "status"), [(READ, 500), (WRITE, 502), (WRITE, 429)])
async def test_a_host_that_is_away_for_a_moment_is_asked_again(
    world: World, monkeypatch: pytest.MonkeyPatch, where: str, status: int
) -> None:
    monkeypatch.setattr(repository_module, "PUSH_PAUSE_SECONDS", 0.01)
    base = await world.fetch()
    world.server.answers = {where: HTTPStatus(status)}
    pushing = asyncio.create_task(world.push(base, create=True))
    seen = len(world.server.asked)
    async with asyncio.timeout(20):
        while len(world.server.asked) < seen + 3:
            await asyncio.sleep(0.01)
    world.server.answers = {}
    await pushing
    assert world.pushed("rev-parse", BRANCH) == base


async def test_a_host_that_stays_away_is_told_of_in_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert repository_module.PUSH_AGAIN_SECONDS + remote_module.LS_REMOTE_SECONDS + remote_module.PUSH_SILENCE_SECONDS <= 60
    monkeypatch.setattr(repository_module, "PUSH_AGAIN_SECONDS", 0.3)
    monkeypatch.setattr(repository_module, "PUSH_PAUSE_SECONDS", 0.1)
    base = await world.fetch()
    world.server.stop()
    with pytest.raises(PushRefused) as caught:
        await world.push(base, create=True)
    assert caught.value.kind is PushRefusal.NETWORK


@pytest.mark.parametrize("where", [READ, WRITE])
async def test_a_host_that_hangs_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    monkeypatch.setattr(remote_module, "LS_REMOTE_SECONDS", 1)
    monkeypatch.setattr(remote_module, "PUSH_SILENCE_SECONDS", 1)
    monkeypatch.setattr(repository_module, "PUSH_AGAIN_SECONDS", 0)
    base = await world.fetch()
    world.server.hangs_on = where
    with pytest.raises(PushRefused) as caught:
        await world.push(base, create=True)
    assert caught.value.kind is PushRefusal.NETWORK


async def test_the_token_is_not_told_when_it_is_refused(tmp_path: Path) -> None:
    async def supply(_: Repository) -> Token | None:
        return Token("x-access-token", "ghs_wrong")

    with git_server(tmp_path / "served", token="ghs_right") as server:
        server.create("demo", BASE)
        async with open_world(server, tmp_path, token=supply) as world:
            with pytest.raises(PushRefused) as caught:
                await world.push("0" * 40, create=True)
    assert caught.value.kind is PushRefusal.AUTHENTICATION
    assert "ghs" not in caught.value.reason


async def test_a_commit_that_is_not_here_is_no_fault_of_the_remotes(world: World) -> None:
    await world.fetch()
    with pytest.raises(PushRefused, match="does not hold the commit") as caught:
        await world.push("0" * 39 + "1", create=True)
    assert caught.value.kind is PushRefusal.OTHER


async def _base(world: World) -> str:
    return world.pushed("rev-parse", "main")
