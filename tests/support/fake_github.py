"""A fake of GitHub's REST API: an HTTP server that keeps repositories, branches, files and pull requests in memory, and answers as GitHub
does (status codes, words, headers, pages). Only this is faked; Git itself is `support.git_server`.

What shall go wrong is scripted: `fake.plays("PUT", "/merge", Reply(405, "Pull Request is not mergeable"))` answers the next request whose
path ends so, and then the fake goes on by itself. Tokens that it takes are in `tokens`; each request is in `asked`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from server.kernel.ports.repositories import Repository

TOKEN = "ghp_canary_5d0f17c2"
HOST = "https://github.test/"
"""As the operator may name it."""
AT = Repository("acme", "alice", f"{HOST}acme/app.git")

ROUTE = re.compile(r"/repos/(?P<name>[^/]+/[^/]+)(?P<rest>/.*)?")


@dataclass
class Reply:
    """A scripted answer; text is a message, as GitHub's errors have one. `aborts`: the connection instead."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    aborts: bool = False


@dataclass
class Asked:
    """A request as it came."""

    method: str
    path: str
    token: str
    body: Any
    headers: dict[str, str]


@dataclass
class Pull:
    """A pull request. `mergeable`: what it says when it is asked, one after the other; the last for ever."""

    number: int
    head: str
    base: str
    title: str
    body: str = ""
    state: str = "open"
    merged: bool = False
    draft: bool = False
    mergeable: list[bool | None] = field(default_factory=lambda: [True])
    from_fork: bool = False


@dataclass
class Repo:
    """`branches` lead to lists of commits (messages), `files` are those of every branch."""

    name: str
    branches: dict[str, list[str]] = field(default_factory=lambda: {"main": ["Initial commit"]})
    files: dict[str, bytes] = field(default_factory=dict)
    pulls: dict[int, Pull] = field(default_factory=dict)
    conflicts: set[tuple[str, str]] = field(default_factory=set)
    """(into, from) that cannot be merged."""
    private: bool = True

    def sha(self, branch: str) -> str:
        return _sha("\n".join([self.name, *self.branches[branch]]))

    def ahead(self, head: str, base: str) -> list[str]:
        return [commit for commit in self.branches[head] if commit not in self.branches[base]]


@dataclass
class Held:
    """An answer that was made, and is kept back from when it is `ready` until it may `go`."""

    ready: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)


class FakeGitHub:
    """The server's memory."""

    def __init__(self) -> None:
        self.url = ""
        self.clone_url = "https://github.com/"
        self.tokens: dict[str, float] = {}
        """What it takes, and until when (the epoch)."""
        self.refresh_tokens: set[str] = set()
        self.logins: dict[str, str] = {}
        """Of each device code, what is said of it: an error of RFC 8628, or `done`."""
        self.interval, self.slower = 0, 10
        """What it says of how often it may be asked about a login, and to whom it has told to slow down."""
        self.app_key: Callable[[str], bool] = lambda _: False
        """Whether a JWT is the app's."""
        self.repos: dict[str, Repo] = {}
        self.asked: list[Asked] = []
        self.new_pulls: list[bool | None] = [True]
        """What a new pull request says of being mergeable."""
        self._scripts: list[tuple[str, str, list[Reply]]] = []
        self._held: dict[str, Held] = {}
        self._numbers = itertools.count(1)

    def takes(self, token: str, *, seconds: float = 3600) -> str:
        self.tokens[token] = time.time() + seconds
        return token

    def repo(self, name: str, **fields: Any) -> Repo:
        self.repos[name] = Repo(name, **fields)
        return self.repos[name]

    def plays(self, method: str, path_end: str, *replies: Reply) -> None:
        self._scripts.append((method, path_end, [*replies]))

    def holds(self, path: str) -> Held:
        """The next answer at this path."""
        self._held[path] = Held()
        return self._held[path]

    def paths(self, method: str = "") -> list[str]:
        return [each.path for each in self.asked if method in ("", each.method)]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        body = await request.json() if request.can_read_body else None
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.asked.append(Asked(request.method, request.path_qs, token, body, headers))
        answer = self._answer(request, token, body)
        if held := self._held.pop(request.path, None):
            held.ready.set()
            await held.go.wait()
        return answer

    def _answer(self, request: web.Request, token: str, body: Any) -> web.StreamResponse:
        if reply := self._scripted(request.method, request.path):
            if reply.aborts:
                assert request.transport is not None
                request.transport.abort()
            return _json(reply.status, {"message": reply.body} if isinstance(reply.body, str) else reply.body, reply.headers)
        if request.path == "/login/device/code":
            return self._device_codes(body)
        if request.path == "/login/oauth/access_token":
            return self._logged_in(body) if "device_code" in body else self._refreshed(body)
        if found := re.fullmatch(r"/app/installations/(\d+)/access_tokens", request.path):
            return self._installed(token, found[1])
        if self.tokens.get(token, 0) < time.time():
            return _json(401, {"message": "Bad credentials", "documentation_url": "https://docs.github.com/rest", "status": "401"})
        if request.path in ("/user/repos", "/installation/repositories"):
            return self._repositories(request)
        found = ROUTE.fullmatch(request.path)
        repo = self.repos.get(found["name"]) if found else None
        if found is None or repo is None:
            return _missing()
        return self._of(repo, request, found["rest"] or "", body)

    def _scripted(self, method: str, path: str) -> Reply | None:
        for wanted, end, replies in self._scripts:
            if wanted == method and path.endswith(end) and replies:
                return replies.pop(0)
        return None

    def _device_codes(self, body: Any) -> web.Response:
        if body.get("client_id") != "the-app":
            return _json(404, {"error": "Not Found"})
        number = next(self._numbers)
        self.logins[f"device_{number}"] = "authorization_pending"
        page = f"{self.url}/login/device"
        codes = {"device_code": f"device_{number}", "user_code": f"WDJB-{number:04}", "verification_uri": page}
        return _json(200, {**codes, "expires_in": 899, "interval": self.interval})

    def _logged_in(self, body: Any) -> web.Response:
        said = self.logins.get(body["device_code"], "incorrect_device_code")
        if said == "slow_down":
            self.logins[body["device_code"]] = "authorization_pending"
            return _json(200, {"error": said, "interval": self.slower})
        if said != "done":
            return _json(200, {"error": said, "error_description": "…"})
        # Once only.
        del self.logins[body["device_code"]]
        self.refresh_tokens.add("ghr_of_the_login")
        tokens = {"access_token": self.takes("ghu_of_the_login"), "refresh_token": "ghr_of_the_login", "scope": "repo"}
        return _json(200, {**tokens, "expires_in": 28800, "token_type": "bearer"})

    def _refreshed(self, body: Any) -> web.Response:
        if body.get("refresh_token") not in self.refresh_tokens or body.get("client_secret") != "of-the-app":
            return _json(200, {"error": "bad_refresh_token", "error_description": "The refresh token passed is incorrect or expired."})
        self.refresh_tokens.discard(body["refresh_token"])
        number = next(self._numbers)
        self.refresh_tokens.add(f"ghr_renewed_{number}")
        token = self.takes(f"ghu_renewed_{number}")
        return _json(
            200, {"access_token": token, "expires_in": 28800, "refresh_token": f"ghr_renewed_{number}", "scope": "", "token_type": "bearer"}
        )

    def _installed(self, jwt: str, installation: str) -> web.Response:
        if not self.app_key(jwt):
            return _json(401, {"message": "A JSON web token could not be decoded"})
        token = self.takes(f"ghs_installation_{installation}_{next(self._numbers)}")
        expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.tokens[token]))
        return _json(201, {"token": token, "expires_at": expires, "permissions": {"contents": "write"}})

    def _repositories(self, request: web.Request) -> web.Response:
        listed = [self._repository(repo) for repo in self.repos.values()]
        answer = self._page(request, listed)
        if request.path.startswith("/installation"):
            return _json(200, {"total_count": len(listed), "repositories": answer[0]}, answer[1])
        return _json(200, *answer)

    def _repository(self, repo: Repo) -> dict[str, Any]:
        return {
            "full_name": repo.name,
            "clone_url": f"{self.clone_url}{repo.name}.git",
            "html_url": f"https://github.com/{repo.name}",
            "description": None,
            "default_branch": "main",
            "private": repo.private,
            "permissions": {"push": True},
            "updated_at": "2026-01-02T03:04:05Z",
        }

    def _of(self, repo: Repo, request: web.Request, rest: str, body: Any) -> web.Response:
        for method, pattern, act in (
            ("GET", "", lambda *_: _json(200, self._repository(repo))),
            ("GET", "/branches", self._branches),
            ("GET", "/git/ref/heads/(.+)", self._ref),
            ("POST", "/git/refs", self._new_ref),
            ("DELETE", "/git/refs/heads/(.+)", self._no_ref),
            ("GET", "/git/trees/(.+)", self._tree),
            ("GET", "/contents/(.*)", self._contents),
            ("PUT", "/contents/(.+)", self._put),
            ("DELETE", "/contents/(.+)", self._put),
            ("GET", r"/compare/(.+)\.\.\.(.+)", self._compare),
            ("POST", "/merges", self._merges),
            ("GET", "/pulls", self._pulls),
            ("POST", "/pulls", self._new_pull),
            ("GET", r"/pulls/(\d+)", self._pull),
            ("PATCH", r"/pulls/(\d+)", self._change_pull),
            ("PUT", r"/pulls/(\d+)/merge", self._merge_pull),
        ):
            if method == request.method and (found := re.fullmatch(pattern, rest)):
                return act(repo, request, body, *found.groups())
        return _missing()

    def _branches(self, repo: Repo, request: web.Request, _: Any) -> web.Response:
        listed = [{"name": name, "commit": {"sha": repo.sha(name)}, "protected": name == "main"} for name in sorted(repo.branches)]
        return _json(200, *self._page(request, listed))

    def _ref(self, repo: Repo, _request: web.Request, _: Any, name: str) -> web.Response:
        if name not in repo.branches:
            return _missing()
        return _json(200, {"ref": f"refs/heads/{name}", "object": {"type": "commit", "sha": repo.sha(name)}})

    def _new_ref(self, repo: Repo, _request: web.Request, body: Any) -> web.Response:
        name = body["ref"].removeprefix("refs/heads/")
        if name in repo.branches:
            return _json(422, {"message": "Reference already exists"})
        (base,) = (each for each in repo.branches if repo.sha(each) == body["sha"])
        repo.branches[name] = [*repo.branches[base]]
        return _json(201, {"ref": body["ref"], "object": {"sha": body["sha"]}})

    def _no_ref(self, repo: Repo, _request: web.Request, _: Any, name: str) -> web.Response:
        if repo.branches.pop(name, None) is None:
            return _json(422, {"message": "Reference does not exist"})
        return web.Response(status=204)

    def _tree(self, repo: Repo, _request: web.Request, _: Any, ref: str) -> web.Response:
        if ref not in repo.branches:
            return _missing()
        tree = [
            {"path": path, "type": "blob", "mode": "100644", "sha": _blob(data), "size": len(data)} for path, data in repo.files.items()
        ]
        return _json(200, {"sha": repo.sha(ref), "tree": tree, "truncated": False})

    def _contents(self, repo: Repo, request: web.Request, _: Any, path: str) -> web.Response:
        if request.query.get("ref", "main") not in repo.branches:
            return _json(404, {"message": f"No commit found for the ref {request.query['ref']}"})
        if path in repo.files:
            data = repo.files[path]
            large = len(data) > 1024 * 1024
            content = {"encoding": "none", "content": ""} if large else {"encoding": "base64", "content": base64.encodebytes(data).decode()}
            return _json(200, {"type": "file", "path": path, "sha": _blob(data), "size": len(data), **content})
        folder = f"{path}/" if path else ""
        below = sorted({each.removeprefix(folder).partition("/")[0] for each in repo.files if each.startswith(folder)})
        if not below:
            return _missing()
        listed = [
            {"type": "file" if folder + each in repo.files else "dir", "path": folder + each, "sha": _sha(each), "size": 0}
            for each in below
        ]
        return _json(200, listed)

    def _put(self, repo: Repo, request: web.Request, body: Any, path: str) -> web.Response:
        if body["branch"] not in repo.branches:
            return _json(404, {"message": f"Branch {body['branch']} not found"})
        there = repo.files.get(path)
        if there is not None and "sha" not in body:
            return _json(422, {"message": 'Invalid request.\n\n"sha" wasn\'t supplied.'})
        if there is None and request.method == "DELETE":
            return _missing()
        if body.get("sha", "") != ("" if there is None else _blob(there)):
            return _json(409, {"message": f"{path} does not match {body['sha']}"})
        repo.branches[body["branch"]].append(body["message"])
        if request.method == "DELETE":
            del repo.files[path]
            return _json(200, {"content": None, "commit": {"sha": repo.sha(body["branch"])}})
        repo.files[path] = base64.b64decode(body["content"])
        return _json(
            201 if there is None else 200, {"content": {"sha": _blob(repo.files[path])}, "commit": {"sha": repo.sha(body["branch"])}}
        )

    def _compare(self, repo: Repo, _request: web.Request, _: Any, base: str, head: str) -> web.Response:
        if base not in repo.branches or head not in repo.branches:
            return _missing()
        commits = repo.ahead(head, base)
        files = [
            {"filename": "src/new.py", "status": "added", "additions": 10, "deletions": 0},
            {"filename": "README.md", "status": "modified", "additions": 2, "deletions": 1},
            {"filename": "b.txt", "previous_filename": "a.txt", "status": "renamed", "additions": 0, "deletions": 0},
        ]
        listed = [{"commit": {"message": message}} for message in commits]
        return _json(200, {"ahead_by": len(commits), "commits": listed, "files": files if commits else []})

    def _merges(self, repo: Repo, _request: web.Request, body: Any) -> web.Response:
        into, from_ = body["base"], body["head"]
        if into not in repo.branches or from_ not in repo.branches:
            return _json(404, {"message": "Base does not exist"})
        if (into, from_) in repo.conflicts:
            return _json(409, {"message": "Merge conflict"})
        if not (fresh := repo.ahead(from_, into)):
            return web.Response(status=204)
        repo.branches[into] += [*fresh, f"Merge {from_} into {into}"]
        return _json(201, {"sha": repo.sha(into)})

    def _pulls(self, repo: Repo, request: web.Request, _: Any) -> web.Response:
        head = request.query.get("head", "").partition(":")[2]
        base, state = request.query.get("base", ""), request.query.get("state", "open")
        listed = [
            self.shown(repo, pull, listed=True)
            for pull in reversed(repo.pulls.values())
            if head in ("", pull.head) and base in ("", pull.base) and state in ("all", pull.state)
        ]
        return _json(200, *self._page(request, listed))

    def _new_pull(self, repo: Repo, _request: web.Request, body: Any) -> web.Response:
        head, base = body["head"], body["base"]
        if head not in repo.branches or base not in repo.branches:
            return _invalid({"resource": "PullRequest", "field": "head", "code": "invalid"})
        if any(pull.state == "open" and (pull.head, pull.base) == (head, base) for pull in repo.pulls.values()):
            return _invalid({"resource": "PullRequest", "code": "custom", "message": f"A pull request already exists for acme:{head}."})
        if not repo.ahead(head, base):
            return _invalid({"resource": "PullRequest", "code": "custom", "message": f"No commits between {base} and {head}"})
        number = next(self._numbers)
        repo.pulls[number] = Pull(number, head, base, body["title"], body["body"], draft=body["draft"], mergeable=[*self.new_pulls])
        return _json(201, self.shown(repo, repo.pulls[number], listed=True))

    def _pull(self, repo: Repo, _request: web.Request, _: Any, number: str) -> web.Response:
        pull = repo.pulls.get(int(number))
        return _missing() if pull is None else _json(200, self.shown(repo, pull))

    def _change_pull(self, repo: Repo, _request: web.Request, body: Any, number: str) -> web.Response:
        pull = repo.pulls.get(int(number))
        if pull is None:
            return _missing()
        for name, value in body.items():
            setattr(pull, name, value)
        return _json(200, self.shown(repo, pull))

    def _merge_pull(self, repo: Repo, _request: web.Request, body: Any, number: str) -> web.Response:
        pull = repo.pulls.get(int(number))
        if pull is None:
            return _missing()
        if pull.merged or pull.state != "open":
            return _json(405, {"message": "Pull Request is not mergeable"})
        if body.get("sha", repo.sha(pull.head)) != repo.sha(pull.head):
            return _json(409, {"message": "Head branch was modified. Review and try the merge again."})
        repo.branches[pull.base] += [*repo.ahead(pull.head, pull.base), f"Merge pull request #{number}"]
        pull.merged, pull.state = True, "closed"
        return _json(200, {"sha": repo.sha(pull.base), "merged": True, "message": "Pull Request successfully merged"})

    def shown(self, repo: Repo, pull: Pull, *, listed: bool = False) -> dict[str, Any]:
        shown = {
            "number": pull.number,
            "title": pull.title,
            "body": pull.body or None,
            "state": pull.state,
            "draft": pull.draft,
            "html_url": f"https://github.com/{repo.name}/pull/{pull.number}",
            "head": {
                "ref": pull.head,
                "sha": repo.sha(pull.head) if pull.head in repo.branches else "0" * 40,
                "repo": {"full_name": "stranger/app" if pull.from_fork else repo.name},
            },
            "base": {"ref": pull.base, "repo": {"full_name": repo.name}},
            "merged_at": "2026-01-02T03:04:05Z" if pull.merged else None,
            "created_at": "2026-01-02T03:04:05Z",
            "updated_at": "2026-01-02T03:04:05Z",
        }
        if not listed:
            shown["mergeable"] = pull.mergeable.pop(0) if len(pull.mergeable) > 1 else pull.mergeable[0]
        return shown

    def _page(self, request: web.Request, listed: list[Any]) -> tuple[list[Any], dict[str, str]]:
        size, page = int(request.query.get("per_page", 30)), int(request.query.get("page", 1))
        links = []
        if page * size < len(listed):
            links.append(f'<{self.url}{request.path}?per_page={size}&page={page + 1}>; rel="next"')
        if page > 1:
            links.append(f'<{self.url}{request.path}?per_page={size}&page=1>; rel="first"')
        return listed[(page - 1) * size : page * size], {"link": ", ".join(links)} if links else {}


@asynccontextmanager
async def fake_github() -> AsyncIterator[FakeGitHub]:
    """A started server on a free port of loopback."""
    fake = FakeGitHub()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", fake.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield fake
    finally:
        await runner.cleanup()


def _json(status: int, body: Any, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response(body, status=status, headers=headers)


def _missing() -> web.Response:
    return _json(404, {"message": "Not Found", "documentation_url": "https://docs.github.com/rest", "status": "404"})


def _invalid(error: dict[str, str]) -> web.Response:
    return _json(422, {"message": "Validation Failed", "errors": [error]})


def _sha(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
