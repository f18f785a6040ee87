"""Calls of GitHub's REST API: limits, retries, and what each refusal means.

Facts are from https://docs.github.com/en/rest (API version 2022-11-28): "Best practices for using the REST API" (redirects, limits),
"Rate limits for the REST API", "Using pagination in the REST API", "Troubleshooting the REST API".
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from gateway.addresses import is_public
from server.kernel.errors import (
    CodeHostForbidden,
    CodeHostLimited,
    CodeHostRefused,
    CodeHostUnavailable,
    CredentialRejected,
    InvalidField,
    RemoteNotFound,
)

MAX_ANSWER_BYTES = 16 * 1024 * 1024
TRY_SECONDS = 6.0
READ_PAUSES = (0.2, 1.0)
"""Before the second and the third try of a read."""
UNTOLD_LIMIT_SECONDS = 60
"""What GitHub asks to wait at least where it does not say how long."""

_SOON_PARSED_BYTES = 256 * 1024
_REDIRECTS = 2
_SAID = 300
_HEADERS = {
    # Nothing is unpacked, so nothing is larger than it looks.
    "accept-encoding": "identity",
    "user-agent": "treadle",
    "x-github-api-version": "2022-11-28",
}
_NEXT = re.compile(r'<([^<>]+)>;\s*rel="next"')


@dataclass(frozen=True)
class Answer:
    """One that was expected."""

    status: int
    headers: Mapping[str, str]
    json: Any

    @property
    def next_page(self) -> str:
        """The number of the next page, by the header Link (RFC 8288); empty at the end."""
        found = _NEXT.search(self.headers.get("link", ""))
        page = URL(found[1]).query.get("page", "") if found else ""
        return page if page.isdigit() else ""


class Api:
    """One host's API. Its address comes from the settings and nowhere else."""

    def __init__(self, http: aiohttp.ClientSession, url: str, *, host: str, accept: str = "application/vnd.github+json") -> None:
        """`host`: as credentials name it."""
        self.host = host
        self._accept = accept
        self._http = http
        self.url = url.rstrip("/")

    async def ask(
        self,
        method: str,
        path: str,
        *,
        token: str,
        what: str,
        query: Mapping[str, str | int] | None = None,
        body: object = None,
        expect: tuple[int, ...] = (),
    ) -> Answer:
        """An answer with a 2xx, or with one of `expect`. `what` is looked for, should it not be found. `path` is encoded already. Only
        reads are tried again. Errors: those of every call of CodeHost, and RemoteNotFound."""
        url = URL(self.url + path, encoded=True).update_query({name: value for name, value in (query or {}).items() if value != ""})
        for pause in (*(READ_PAUSES if method == "GET" else ()), None):
            try:
                answer = await self._answered(method, url, token, body)
            except CodeHostUnavailable:
                if pause is None:
                    raise
                await asyncio.sleep(pause)
            else:
                if answer.status < 300 or answer.status in expect:
                    return answer
                raise self._refusal(answer, token, what)
        raise AssertionError("the last try has no pause")

    @contextmanager
    def understood(self) -> Iterator[None]:
        """Errors: CodeHostUnavailable where the answer is not what GitHub answers."""
        try:
            yield
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise CodeHostUnavailable(self.host, "its answer was not understood") from error

    async def _answered(self, method: str, url: URL, token: str, body: object) -> Answer:
        """Errors: CodeHostUnavailable."""
        for _ in range(1 + _REDIRECTS):
            answer, location = await self._sent(method, url, token, body)
            if answer.status >= 500:
                raise CodeHostUnavailable(self.host, f"status {answer.status}")
            if not location:
                return answer
            url = self._followed(method, answer.status, location)
        raise CodeHostUnavailable(self.host, "it redirects again and again")

    async def _sent(self, method: str, url: URL, token: str, body: object) -> tuple[Answer, str]:
        headers = {**_HEADERS, "accept": self._accept, **({"authorization": f"Bearer {token}"} if token else {})}
        try:
            async with self._http.request(method, url, json=body, headers=headers, allow_redirects=False) as response:
                headers = {name.lower(): value for name, value in response.headers.items()}
                if headers.get("content-encoding", "identity") != "identity":
                    raise CodeHostUnavailable(self.host, "its answer is compressed, which it was not asked for")
                location = headers.get("location", "") if response.status in (301, 302, 307, 308) else ""
                return Answer(response.status, headers, await self._parsed(response)), location
        except TimeoutError:
            raise CodeHostUnavailable(self.host, f"no answer within {TRY_SECONDS:g} s") from None
        except aiohttp.ClientConnectorDNSError as error:
            raise CodeHostUnavailable(self.host, "its name leads to no address that may be used") from error
        except (aiohttp.ClientError, OSError) as error:
            raise CodeHostUnavailable(self.host, f"no connection ({type(error).__name__})") from error

    async def _parsed(self, response: aiohttp.ClientResponse) -> Any:
        data = bytearray()
        async for chunk in response.content.iter_any():
            data += chunk
            if len(data) > MAX_ANSWER_BYTES:
                raise CodeHostUnavailable(self.host, f"its answer is larger than {MAX_ANSWER_BYTES:,} bytes")
        try:
            return (await asyncio.to_thread(json.loads, data) if len(data) > _SOON_PARSED_BYTES else json.loads(data)) if data else None
        except (ValueError, RecursionError):
            if response.status < 300:
                raise CodeHostUnavailable(self.host, "its answer is no JSON") from None
            return None

    def _followed(self, method: str, status: int, location: str) -> URL:
        """A repository that was renamed is elsewhere on the same host. Nothing is sent to any other, and no write becomes a read."""
        url = URL(location, encoded=True)
        ours = URL(self.url)
        if url.origin() != ours.origin() or not url.path.startswith(ours.path) or (method != "GET" and status < 307):
            raise CodeHostUnavailable(self.host, "it redirects to somewhere else")
        return url

    def _refusal(self, answer: Answer, token: str, what: str) -> Exception:
        said = _said(answer.json, token) or f"status {answer.status}"
        match answer.status:
            case 401:
                return CredentialRejected(self.host, said)
            case 403 | 429 if (seconds := _limit_seconds(answer, said)) is not None:
                return CodeHostLimited(self.host, seconds=seconds)
            case 403 if sso := re.search(r"url=(https://\S+)", answer.headers.get("x-github-sso", "")):
                return CredentialRejected(self.host, said, sso_url=sso[1])
            case 403:
                return CodeHostForbidden(self.host, said)
            case 404 | 410:
                return RemoteNotFound(what)
        return CodeHostRefused(self.host, said)


def _limit_seconds(answer: Answer, said: str) -> int | None:
    """How long to wait, if it is a limit that refuses."""
    after, reset = answer.headers.get("retry-after", ""), answer.headers.get("x-ratelimit-reset", "")
    if after.isdigit():
        return max(1, int(after))
    if answer.headers.get("x-ratelimit-remaining") == "0" and reset.isdigit():
        return max(1, int(reset) - int(time.time()))
    if answer.status == 429 or "rate limit" in said.lower():
        return UNTOLD_LIMIT_SECONDS
    return None


def said_of(answer: Answer) -> str:
    """What a refusal says, for a decision."""
    return _said(answer.json, "")


def _said(body: Any, token: str) -> str:
    if not isinstance(body, dict):
        return ""
    errors = body.get("errors")
    more = (
        [each.get("message") or each.get("code") if isinstance(each, dict) else each for each in errors] if isinstance(errors, list) else []
    )
    words = "; ".join(str(each) for each in (body.get("message"), *more) if each)
    masked = words.replace(token, "***") if token else words
    return "".join(letter if letter.isprintable() else " " for letter in masked[:_SAID])


def page_query(page_size: int, page_token: str) -> dict[str, str | int]:
    """For a list. Errors: InvalidField."""
    if page_token and not (page_token.isascii() and page_token.isdigit() and len(page_token) < 7):
        raise InvalidField("page_token", "is not one that this call returned")
    return {"per_page": page_size, "page": page_token}


class PublicResolver(AbstractResolver):
    """Names that lead to public addresses only."""

    def __init__(self) -> None:
        self._names = ThreadedResolver()

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        """Errors: OSError."""
        found = await self._names.resolve(host, port, family)
        if not all(is_public(ip_address(each["host"])) for each in found):
            raise OSError(f"{host} resolves to an address that is not public")
        return found

    async def close(self) -> None:
        """Nothing is open."""
        await self._names.close()


def http_session(*, public_only: bool) -> aiohttp.ClientSession:
    """For one host."""
    connector = aiohttp.TCPConnector(resolver=PublicResolver() if public_only else None, limit=32)
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=TRY_SECONDS),
        trust_env=False,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
    )


def owner_and_name(url: str, host: str) -> str:
    """`owner/name` of a repository's checked URL. Errors: RemoteNotFound for a path that is no repository's of such a host."""
    path = url.removeprefix(host) if "://" in host else urlsplit(url).path.removeprefix("/")
    segments = path.removesuffix(".git").split("/")
    if len(segments) != 2 or not all(segments):
        raise RemoteNotFound("such repository")
    return "/".join(segments)
