"""GitHub, and GitHub Enterprise Server: the port `CodeHost` over the REST API (https://docs.github.com/en/rest)."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any
from urllib.parse import quote

from server.codehosts.api import Api, owner_and_name, page_query, said_of
from server.kernel.code_host import (
    Branch,
    Change,
    Changed,
    Comparison,
    Contents,
    Entry,
    EntryKind,
    HostRepository,
    MergeMethod,
    Page,
    PullRequest,
    PullRequestState,
    Tree,
)
from server.kernel.credential import CredentialKind, Token
from server.kernel.errors import (
    BranchExists,
    CodeHostForbidden,
    CodeHostRefused,
    ContentChanged,
    ContentTooLarge,
    CredentialMissing,
    CredentialRejected,
    MergeConflict,
    NoCommits,
    NotMergeable,
    PullRequestExists,
    RemoteNotFound,
)
from server.kernel.ports.code_host import MAX_FILE_BYTES
from server.kernel.ports.repositories import Repository

_KINDS = {
    "file": EntryKind.FILE,
    "blob": EntryKind.FILE,
    "dir": EntryKind.DIRECTORY,
    "tree": EntryKind.DIRECTORY,
    "symlink": EntryKind.SYMLINK,
    "submodule": EntryKind.SUBMODULE,
    "commit": EntryKind.SUBMODULE,
}


class GitHub:
    """Implements the port `CodeHost`."""

    def __init__(self, api: Api, token: Callable[[Repository], Awaitable[Token | None]]) -> None:
        self._api = api
        self._token = token

    async def repositories(self, at: Repository, *, page_size: int, page_token: str) -> Page[HostRepository]:
        """See CodeHost. An app sees those of its installation."""
        token, query = await self._token_of(at), page_query(page_size, page_token)
        if token.kind is CredentialKind.GITHUB_APP:
            answer = await self._ask_as(at, token, "GET", "/installation/repositories", what="installation", query=query)
        else:
            answer = await self._ask_as(at, token, "GET", "/user/repos", what="user", query={"sort": "updated", **query})
        with self._api.understood():
            listed = answer.json["repositories"] if token.kind is CredentialKind.GITHUB_APP else answer.json
            return Page(tuple(map(_repository, listed)), answer.next_page)

    async def default_branch(self, at: Repository) -> str:
        """See CodeHost."""
        answer = await self._ask(at, "GET", "", what="such repository")
        with self._api.understood():
            return str(answer.json["default_branch"])

    async def branches(self, at: Repository, *, page_size: int, page_token: str) -> Page[Branch]:
        """See CodeHost."""
        answer = await self._ask(at, "GET", "/branches", what="such repository", query=page_query(page_size, page_token))
        with self._api.understood():
            found = (Branch(str(each["name"]), str(each["commit"]["sha"]), bool(each.get("protected"))) for each in answer.json)
            return Page(tuple(found), answer.next_page)

    async def create_branch(self, at: Repository, name: str, *, base: str) -> Branch:
        """See CodeHost."""
        found = await self._ask(at, "GET", f"/git/ref/heads/{_path(base)}", what=f"branch {base!r}")
        with self._api.understood():
            commit = str(found.json["object"]["sha"])
        body = {"ref": f"refs/heads/{name}", "sha": commit}
        answer = await self._ask(at, "POST", "/git/refs", what="such repository", body=body, expect=(422,))
        if answer.status == 422:
            raise BranchExists(name) if "exists" in said_of(answer) else self._refused(answer)
        return Branch(name, commit)

    async def delete_branch(self, at: Repository, name: str) -> bool:
        """See CodeHost."""
        answer = await self._ask(at, "DELETE", f"/git/refs/heads/{_path(name)}", what="such repository", expect=(404, 422))
        if answer.status == 422 and "does not exist" not in said_of(answer):
            raise self._refused(answer)
        return bool(answer.status == 204)

    async def contents(self, at: Repository, path: str, *, ref: str) -> Contents:
        """See CodeHost."""
        answer = await self._ask(at, "GET", f"/contents/{_path(path)}", what=f"path {path!r}", query={"ref": ref})
        with self._api.understood():
            if isinstance(answer.json, list):
                return Contents(Entry(path, EntryKind.DIRECTORY, ""), entries=tuple(map(_entry, answer.json)))
            entry = _entry(answer.json)
            if entry.kind is EntryKind.FILE and entry.size > MAX_FILE_BYTES:
                raise ContentTooLarge(path, size=entry.size, limit=MAX_FILE_BYTES)
            return Contents(entry, data=base64.b64decode(answer.json["content"]) if entry.kind is EntryKind.FILE else b"")

    async def tree(self, at: Repository, *, ref: str) -> Tree:
        """See CodeHost."""
        wanted = ref or await self.default_branch(at)
        answer = await self._ask(at, "GET", f"/git/trees/{_path(wanted)}", what=f"ref {wanted!r}", query={"recursive": 1})
        with self._api.understood():
            return Tree(str(answer.json["sha"]), tuple(map(_entry, answer.json["tree"])), bool(answer.json.get("truncated")))

    async def change(self, at: Repository, change: Change) -> Changed:
        """See CodeHost."""
        body = {"message": change.message, "branch": change.branch, **({"sha": change.sha} if change.sha else {})}
        if change.data is not None:
            body["content"] = base64.b64encode(change.data).decode()
        method, where = "DELETE" if change.data is None else "PUT", f"/contents/{_path(change.path)}"
        answer = await self._ask(at, method, where, what=f"path {change.path!r} or branch {change.branch!r}", body=body, expect=(409, 422))
        # 409: another sha than the one that is there; 422: none was given, and there is a file. (A 422 can be a bad path as well.)
        if answer.status == 409 or (answer.status == 422 and "sha" in said_of(answer)):
            raise ContentChanged(change.path)
        if answer.status == 422:
            raise self._refused(answer)
        with self._api.understood():
            return Changed(str(answer.json["commit"]["sha"]), str(answer.json["content"]["sha"]) if answer.json["content"] else "")

    async def pull_requests(
        self, at: Repository, *, head: str, base: str, state: PullRequestState | None, page_size: int, page_token: str
    ) -> Page[PullRequest]:
        """See CodeHost."""
        owner = owner_and_name(at.url, self._api.host).partition("/")[0]
        query = {
            "state": "all" if state is None else "open" if state is PullRequestState.OPEN else "closed",
            "head": f"{owner}:{head}" if head else "",
            "base": base,
            **page_query(page_size, page_token),
        }
        answer = await self._ask(at, "GET", "/pulls", what="such repository", query=query)
        with self._api.understood():
            return Page(tuple(map(_pull_request, answer.json)), answer.next_page)

    async def pull_request(self, at: Repository, number: int) -> PullRequest:
        """See CodeHost."""
        answer = await self._ask(at, "GET", f"/pulls/{number}", what=f"pull request {number}")
        with self._api.understood():
            return _pull_request(answer.json)

    async def create_pull_request(self, at: Repository, *, title: str, body: str, head: str, base: str, draft: bool) -> PullRequest:
        """See CodeHost."""
        wanted = {"title": title, "body": body, "head": head, "base": base, "draft": draft}
        answer = await self._ask(at, "POST", "/pulls", what="such repository", body=wanted, expect=(422,))
        if answer.status == 422:
            said = said_of(answer)
            if "already exists" in said:
                raise PullRequestExists(head, base)
            raise NoCommits(head, base) if "No commits between" in said else self._refused(answer)
        with self._api.understood():
            return _pull_request(answer.json)

    async def update_pull_request(
        self, at: Repository, number: int, *, title: str | None, body: str | None, base: str | None, open_: bool | None
    ) -> PullRequest:
        """See CodeHost."""
        state = None if open_ is None else "open" if open_ else "closed"
        given = {"title": title, "body": body, "base": base, "state": state}
        wanted = {name: value for name, value in given.items() if value is not None}
        answer = await self._ask(at, "PATCH", f"/pulls/{number}", what=f"pull request {number}", body=wanted)
        with self._api.understood():
            return _pull_request(answer.json)

    async def merge_pull_request(
        self, at: Repository, number: int, *, method: MergeMethod, title: str, message: str, head_commit: str
    ) -> str:
        """See CodeHost."""
        given = {"merge_method": method.lower(), "commit_title": title, "commit_message": message, "sha": head_commit}
        wanted = {name: value for name, value in given.items() if value}
        what = f"pull request {number}"
        answer = await self._ask(at, "PUT", f"/pulls/{number}/merge", what=what, body=wanted, expect=(405, 409))
        if answer.status == 405:
            raise NotMergeable(number, said_of(answer))
        if answer.status == 409:
            raise MergeConflict("its base", what)
        with self._api.understood():
            return str(answer.json["sha"])

    async def merge_branch(self, at: Repository, *, from_: str, into: str) -> str:
        """See CodeHost."""
        what = f"branch {into!r} or {from_!r}"
        answer = await self._ask(at, "POST", "/merges", what=what, body={"base": into, "head": from_}, expect=(409,))
        if answer.status == 409:
            raise MergeConflict(into, from_)
        with self._api.understood():
            return "" if answer.status == 204 else str(answer.json["sha"])

    async def compare(self, at: Repository, *, base: str, head: str) -> Comparison:
        """See CodeHost."""
        answer = await self._ask(at, "GET", f"/compare/{_path(base)}...{_path(head)}", what=f"branch {base!r} or {head!r}")
        with self._api.understood():
            files = answer.json.get("files") or []
            named = {
                status: tuple(str(each["filename"]) for each in files if each["status"] == status)
                for status in ("added", "modified", "removed")
            }
            return Comparison(
                ahead_by=int(answer.json["ahead_by"]),
                commits=tuple(str(each["commit"]["message"]).partition("\n")[0] for each in answer.json["commits"]),
                **named,
                renamed=tuple((str(each["previous_filename"]), str(each["filename"])) for each in files if each["status"] == "renamed"),
                additions=sum(int(each["additions"]) for each in files),
                deletions=sum(int(each["deletions"]) for each in files),
            )

    async def _ask(self, at: Repository, method: str, path: str, *, what: str, **options: Any) -> Any:
        where = f"/repos/{owner_and_name(at.url, self._api.host)}{path}"
        return await self._ask_as(at, await self._token_of(at), method, where, what=what, **options)

    async def _ask_as(self, at: Repository, token: Token, method: str, where: str, **options: Any) -> Any:
        """What is refused was not carried out, so writes may be sent again, too."""
        try:
            return await self._api.ask(method, where, token=token.secret, **options)
        except (CredentialRejected, CodeHostForbidden, RemoteNotFound):
            if not token.refused():
                raise
        return await self._api.ask(method, where, token=(await self._token_of(at)).secret, **options)

    async def _token_of(self, at: Repository) -> Token:
        token = await self._token(at)
        if token is None:
            raise CredentialMissing(self._api.host)
        return token

    def _refused(self, answer: Any) -> CodeHostRefused:
        return CodeHostRefused(self._api.host, said_of(answer))


def _path(text: str) -> str:
    """For a URL. Slashes are what separates a branch's or a path's parts; no part can be a way up, which the caller has seen to."""
    return quote(text, safe="/")


def _moment(text: Any) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _repository(each: Any) -> HostRepository:
    return HostRepository(
        name=str(each["full_name"]),
        url=str(each["clone_url"]),
        web_url=str(each["html_url"]),
        description=str(each.get("description") or ""),
        default_branch=str(each["default_branch"]),
        private=bool(each["private"]),
        may_push=bool((each.get("permissions") or {}).get("push")),
        updated_at=_moment(each.get("updated_at")),
    )


def _entry(each: Any) -> Entry:
    kind = EntryKind.SYMLINK if each.get("mode") == "120000" else _KINDS[each["type"]]
    return Entry(str(each["path"]), kind, str(each["sha"]), int(each.get("size") or 0) if kind is EntryKind.FILE else 0)


def _pull_request(each: Any) -> PullRequest:
    merged = bool(each.get("merged_at"))
    state = PullRequestState.MERGED if merged else PullRequestState.OPEN if each["state"] == "open" else PullRequestState.CLOSED
    mergeable = each.get("mergeable")
    return PullRequest(
        number=int(each["number"]),
        title=str(each["title"]),
        body=str(each.get("body") or ""),
        state=state,
        url=str(each["html_url"]),
        head=str(each["head"]["ref"]),
        base=str(each["base"]["ref"]),
        head_commit=str(each["head"]["sha"]),
        draft=bool(each.get("draft")),
        mergeable=None if mergeable is None else bool(mergeable),
        created_at=_moment(each.get("created_at")),
        updated_at=_moment(each.get("updated_at")),
        # A head repository that was deleted is null.
        from_fork=(each["head"].get("repo") or {}).get("full_name") != (each["base"].get("repo") or {}).get("full_name"),
    )
