"""The port `CodeHost`, spoken to GitHub: what it says in each case, and what goes wrong between here and there."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from support.fake_github import AT, TOKEN, FakeGitHub, Reply

from server.codehosts import api as api_module
from server.codehosts.api import Api, http_session
from server.codehosts.github import GitHub
from server.kernel import errors
from server.kernel.code_host import Change, EntryKind, MergeMethod, PullRequestState

Call = Callable[[GitHub], Awaitable[Any]]


async def test_lists_come_in_pages(github: GitHub, fake: FakeGitHub) -> None:
    for number in range(4):
        fake.repo(f"acme/more-{number}")
        fake.repos["acme/app"].branches[f"b{number}"] = ["Initial commit"]
    first = await github.repositories(AT, page_size=3, page_token="")
    second = await github.repositories(AT, page_size=3, page_token=first.next_token)
    assert [each.name for each in (*first.items, *second.items)] == [*fake.repos]
    assert (first.next_token, second.next_token) == ("2", "")
    assert (first.items[0].url, first.items[0].may_push) == ("https://github.com/acme/app.git", True)
    branches = await github.branches(AT, page_size=4, page_token="")
    assert [each.name for each in branches.items] == ["b0", "b1", "b2", "b3"]
    last = await github.branches(AT, page_size=4, page_token=branches.next_token)
    assert [(each.name, each.protected, each.commit) for each in last.items] == [("main", True, fake.repos["acme/app"].sha("main"))]
    for token in ("x", "2&per_page=1", "-1", "٣"):
        with pytest.raises(errors.InvalidField, match="page_token"):
            await github.branches(AT, page_size=4, page_token=token)


async def test_branches_are_made_and_deleted(github: GitHub, fake: FakeGitHub) -> None:
    made = await github.create_branch(AT, "feature/ä b#1", base="main")
    assert made.commit == fake.repos["acme/app"].sha("main")
    with pytest.raises(errors.BranchExists):
        await github.create_branch(AT, "feature/ä b#1", base="main")
    with pytest.raises(errors.RemoteNotFound):
        await github.create_branch(AT, "other", base="nope")
    assert await github.delete_branch(AT, "feature/ä b#1")
    assert not await github.delete_branch(AT, "feature/ä b#1")


async def test_contents_are_read_and_changed_only_as_they_were_seen(github: GitHub, fake: FakeGitHub) -> None:
    fake.repos["acme/app"].files = {"README.md": b"# App\n", "src/a.py": b"\x00\xff", "large": b"x" * (1024 * 1024 + 1)}
    read = await github.contents(AT, "src/a.py", ref="main")
    assert (read.entry.kind, read.data) == (EntryKind.FILE, b"\x00\xff")
    root = await github.contents(AT, "", ref="")
    assert [(each.path, each.kind) for each in root.entries] == [
        ("README.md", EntryKind.FILE),
        ("large", EntryKind.FILE),
        ("src", EntryKind.DIRECTORY),
    ]
    tree = await github.tree(AT, ref="")
    assert [each.path for each in tree.entries] == ["README.md", "src/a.py", "large"]
    with pytest.raises(errors.ContentTooLarge):
        await github.contents(AT, "large", ref="main")
    for path, ref in (("nope", "main"), ("README.md", "nope")):
        with pytest.raises(errors.RemoteNotFound):
            await github.contents(AT, path, ref=ref)

    change = Change("README.md", "main", "Better", (await github.contents(AT, "README.md", ref="")).entry.sha, b"# Better\n")
    changed = await github.change(AT, change)
    assert fake.repos["acme/app"].files["README.md"] == b"# Better\n"
    for stale in (change, replace(change, sha="")):
        with pytest.raises(errors.ContentChanged):
            await github.change(AT, stale)
    assert (await github.change(AT, replace(change, sha=changed.sha, data=None))).sha == ""
    assert "README.md" not in fake.repos["acme/app"].files


async def test_a_pull_request_from_its_begin_to_its_end(github: GitHub, fake: FakeGitHub) -> None:
    repo = fake.repos["acme/app"]
    repo.branches["work"] = [*repo.branches["main"]]
    new = {"title": "Work", "body": "What it does", "head": "work", "base": "main", "draft": False}
    with pytest.raises(errors.NoCommits):
        await github.create_pull_request(AT, **new)
    repo.branches["work"].append("Do it\n\nand more")
    made = await github.create_pull_request(AT, **new)
    assert (made.state, made.mergeable, made.head_commit) == (PullRequestState.OPEN, None, repo.sha("work"))
    with pytest.raises(errors.PullRequestExists):
        await github.create_pull_request(AT, **new)
    with pytest.raises(errors.CodeHostRefused, match="Validation Failed; invalid"):
        await github.create_pull_request(AT, **(new | {"head": "nope"}))
    found = await github.pull_requests(AT, head="work", base="main", state=PullRequestState.OPEN, page_size=10, page_token="")
    assert [each.number for each in found.items] == [made.number]
    assert fake.asked[-1].path.startswith("/repos/acme/app/pulls?state=open&head=acme:work&base=main")
    compared = await github.compare(AT, base="main", head="work")
    assert (compared.ahead_by, compared.commits, compared.added, compared.renamed) == (
        1,
        ("Do it",),
        ("src/new.py",),
        (("a.txt", "b.txt"),),
    )
    updated = await github.update_pull_request(AT, made.number, title="Better", body=None, base=None, open_=None)
    assert (updated.title, updated.body, updated.mergeable) == ("Better", "What it does", True)

    merge = {"method": MergeMethod.SQUASH, "title": "", "message": ""}
    with pytest.raises(errors.MergeConflict):
        await github.merge_pull_request(AT, made.number, **merge, head_commit="0" * 40)
    fake.plays("PUT", "/merge", Reply(405, 'Required status check "ci" is expected.'))
    with pytest.raises(errors.NotMergeable, match='status check "ci"'):
        await github.merge_pull_request(AT, made.number, **merge, head_commit=made.head_commit)
    commit = await github.merge_pull_request(AT, made.number, **merge, head_commit=made.head_commit)
    assert commit == repo.sha("main")
    assert fake.asked[-1].body == {"merge_method": "squash", "sha": made.head_commit}
    assert (await github.pull_request(AT, made.number)).state is PullRequestState.MERGED
    with pytest.raises(errors.RemoteNotFound):
        await github.pull_request(AT, 99)


async def test_branches_are_merged(github: GitHub, fake: FakeGitHub) -> None:
    repo = fake.repos["acme/app"]
    repo.branches["work"] = [*repo.branches["main"]]
    assert await github.merge_branch(AT, from_="main", into="work") == ""
    repo.branches["main"].append("News")
    assert await github.merge_branch(AT, from_="main", into="work") == repo.sha("work")
    repo.conflicts.add(("work", "main"))
    with pytest.raises(errors.MergeConflict):
        await github.merge_branch(AT, from_="main", into="work")
    with pytest.raises(errors.RemoteNotFound):
        await github.merge_branch(AT, from_="main", into="nope")


SOON = {"retry_after_seconds": "90"}


def reset(seconds: int) -> str:
    return str(int(time.time()) + seconds)


@pytest.mark.parametrize(
    ("reply", "kind", "metadata"),
    [
        (Reply(401, "Bad credentials"), errors.CredentialRejected, {"reason": "Bad credentials"}),
        (
            Reply(403, "Resource protected by organization SAML enforcement.", {"X-GitHub-SSO": "required; url=https://github.com/orgs/acme/sso"}),
            errors.CredentialRejected,
            {"sso_url": "https://github.com/orgs/acme/sso"},
        ),
        (Reply(403, "Resource not accessible by personal access token"), errors.CodeHostForbidden, {}),
        (Reply(403, "limit", {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "90"}), errors.CodeHostLimited, SOON),
        (Reply(429, "slow down", {"retry-after": "7"}), errors.CodeHostLimited, {"retry_after_seconds": "7"}),
        (Reply(403, "You have exceeded a secondary rate limit."), errors.CodeHostLimited, {"retry_after_seconds": "60"}),
        (Reply(404, "Not Found"), errors.RemoteNotFound, {"what": "such repository"}),
        (Reply(451, "Repository access blocked"), errors.CodeHostRefused, {"reason": "Repository access blocked"}),
        (Reply(301, None, {"location": "https://evil.test/"}), errors.CodeHostUnavailable, {"reason": "it redirects to somewhere else"}),
        (Reply(200, {"message": "something else"}), errors.CodeHostUnavailable, {"reason": "its answer was not understood"}),
        (Reply(200, {}, {"content-encoding": "gzip"}), errors.CodeHostUnavailable, {}),
    ],
    ids=["revoked", "sso", "forbidden", "limit", "retry-after", "secondary", "missing", "blocked", "elsewhere", "nonsense", "packed"],
)  # fmt: skip
async def test_each_refusal_has_its_type_and_shows_no_token(
    github: GitHub, fake: FakeGitHub, reply: Reply, kind: type[errors.KernelError], metadata: dict[str, str]
) -> None:
    if reply.headers.get("x-ratelimit-reset"):
        reply.headers["x-ratelimit-reset"] = reset(90)
    reply.body = f"{reply.body} {TOKEN}" if isinstance(reply.body, str) and kind is errors.CodeHostForbidden else reply.body
    fake.plays("GET", "/acme/app", *[reply] * 3)
    with pytest.raises(kind) as refused:
        await github.default_branch(AT)
    assert TOKEN not in str(refused.value) + str(refused.value.metadata)
    for name, value in metadata.items():
        found = refused.value.metadata[name]
        assert found == value or (name == "retry_after_seconds" and abs(int(found) - int(value)) <= 2)
    assert all(each.headers["host"] in fake.url for each in fake.asked)


async def test_reads_are_tried_again_and_writes_are_not(github: GitHub, fake: FakeGitHub) -> None:
    fake.plays("GET", "/acme/app", Reply(502, "bad gateway"), Reply(aborts=True))
    assert await github.default_branch(AT) == "main"
    assert len(fake.asked) == 3
    fake.plays("GET", "/acme/app", *[Reply(500, "oops")] * 4)
    with pytest.raises(errors.CodeHostUnavailable, match="status 500"):
        await github.default_branch(AT)
    assert len(fake.asked) == 6
    fake.plays("POST", "/merges", Reply(503, "oops"))
    with pytest.raises(errors.CodeHostUnavailable):
        await github.merge_branch(AT, from_="main", into="main")
    assert len(fake.asked) == 7


async def test_a_renamed_repository_is_followed_on_the_same_host(github: GitHub, fake: FakeGitHub) -> None:
    fake.repo("acme/renamed", branches={"main": ["Another"]})
    fake.plays("GET", "/acme/app", Reply(301, "Moved Permanently", {"location": f"{fake.url}/repos/acme/renamed"}))
    assert await github.default_branch(AT) == "main"
    assert fake.paths() == ["/repos/acme/app", "/repos/acme/renamed"]
    fake.plays("POST", "/merges", Reply(301, "Moved Permanently", {"location": f"{fake.url}/repos/acme/renamed/merges"}))
    with pytest.raises(errors.CodeHostUnavailable, match="redirects"):
        await github.merge_branch(AT, from_="main", into="main")
    fake.plays("GET", "/acme/app", *[Reply(301, None, {"location": f"{fake.url}/repos/acme/app"})] * 9)
    with pytest.raises(errors.CodeHostUnavailable, match="again and again"):
        await github.default_branch(AT)


async def test_an_answer_without_an_end_is_cut_off(github: GitHub, fake: FakeGitHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "MAX_ANSWER_BYTES", 100_000)
    fake.plays("GET", "/acme/app", *[Reply(200, {"default_branch": "x" * 200_000})] * 3)
    with pytest.raises(errors.CodeHostUnavailable, match="larger than 100,000 bytes"):
        await github.default_branch(AT)


async def test_without_a_credential_nothing_is_asked(github: GitHub, fake: FakeGitHub) -> None:
    with pytest.raises(errors.CredentialMissing):
        await github.default_branch(replace(AT, owner_id="bob"))
    for url in ("https://github.test/app.git", "https://github.test/a/b/c.git"):
        with pytest.raises(errors.RemoteNotFound):
            await github.default_branch(replace(AT, url=url))
    assert fake.asked == []


async def test_a_host_by_name_is_reached_at_public_addresses_only(fake: FakeGitHub) -> None:
    async with http_session(public_only=True) as http:
        api = Api(http, fake.url.replace("127.0.0.1", "localhost"), host="github.com")
        with pytest.raises(errors.CodeHostUnavailable, match="no address that may be used"):
            await api.ask("POST", "/user", token=TOKEN, what="user")
    assert fake.asked == []
