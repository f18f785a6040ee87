"""The way to one provider: the credential, the tries, and what is final."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import time

import aiohttp
from multidict import CIMultiDictProxy

from server.kernel.ports.model_gateway import ModelTrouble
from server.models.credentials import Credential
from server.models.formats import error_of
from server.models.login import LoginFailed

_SHORT_BYTES = 64 * 1024
_SHORT_SECONDS = 5.0
_LARGE_BYTES = 512 * 1024
_REMEMBERED = 4
_FIRST_PAUSE_SECONDS = 0.5
_RETRIED = frozenset({408, 429, 500, 502, 503, 504, 520, 522, 524, 529})
_CODES = {429: "MODEL_RATE_LIMITED", 503: "MODEL_OVERLOADED", 529: "MODEL_OVERLOADED"}

Tell = Callable[[ModelTrouble], Awaitable[None]]


@dataclass(frozen=True)
class Failure:
    """What the provider said, or why it said nothing."""

    trouble: ModelTrouble
    kind: str = ""
    """The provider's own word for the sort of error; empty when it said none."""
    retry_after: float = 0.0
    retried: bool = False
    """Whether a retry may help."""


class UpstreamFailed(Exception):
    """No answer is to be had; `failure` is the last word."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.trouble.message)
        self.failure = failure

    @classmethod
    def of(cls, trouble: ModelTrouble) -> UpstreamFailed:
        """With nothing known but what went wrong."""
        return cls(Failure(trouble))


@dataclass
class Delivery:
    """What has become of one request, also for who was cancelled while it was under way."""

    billable: bool = False
    """Whether the provider may be at work on it, or has been: not before a try is sent, and no longer once it has failed."""


class Upstream:
    """One provider. Its address comes from the settings and nowhere else; redirects are not followed."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        url: str,
        credential: Credential,
        *,
        retries: int,
        longest_pause: float,
        renewed: Callable[[], None],
    ) -> None:
        self._http = http
        self._url = url.rstrip("/")
        self._credential = credential
        self._retries = retries
        self._longest_pause = longest_pause
        self._renewed = renewed
        self._shown: dict[bytes, None] = {}

    def masked(self, data: bytes) -> bytes:
        """The provider's words without this server's credential, should it repeat it."""
        for secret in self._shown:
            data = data.replace(secret, b"*" * len(secret))
        return data

    async def post(self, target: str, headers: Mapping[str, str], body: bytes, *, tell: Tell, delivery: Delivery) -> aiohttp.ClientResponse:
        """An answer that goes back to the agent: a success, or a refusal that is about the request. Each try that failed before is told.
        The caller releases it. Errors: UpstreamFailed."""
        attempt, renewed = 1, False
        while True:
            answer, sent = await self._try(target, headers, body, attempt, delivery)
            if isinstance(answer, aiohttp.ClientResponse):
                return answer
            if answer.trouble.provider_status == 401 and not renewed and await self._credential.renew(sent):
                renewed = True
                self._renewed()
                continue
            pause = max(answer.retry_after, _FIRST_PAUSE_SECONDS * 2 ** (attempt - 1) * random.uniform(0.8, 1.2))  # noqa: S311
            if not answer.retried or attempt > self._retries or pause > self._longest_pause:
                raise UpstreamFailed(answer)
            trouble = answer.trouble
            await tell(ModelTrouble(trouble.code, trouble.message, True, attempt, trouble.provider_status))
            await asyncio.sleep(pause)
            attempt += 1

    async def _try(
        self, target: str, headers: Mapping[str, str], body: bytes, attempt: int, delivery: Delivery
    ) -> tuple[aiohttp.ClientResponse | Failure, dict[str, str]]:
        sent: dict[str, str] = {}
        try:
            sent = await self._credential.headers()
            self._remember(sent)
            delivery.billable = True
            answer = await self._http.post(self._url + target, data=_payload(body), headers=_joined(headers, sent), allow_redirects=False)
        except LoginFailed as error:
            return Failure(ModelTrouble("MODEL_CREDENTIAL_REFUSED", str(error), attempt=attempt)), sent
        except (aiohttp.ClientError, OSError) as error:
            delivery.billable = False
            # Nobody's text but the exception's name: it may hold an address, and a person cannot do more with it.
            trouble = ModelTrouble("MODEL_UNAVAILABLE", f"the provider cannot be reached: {type(error).__name__}", attempt=attempt)
            return Failure(trouble, retried=True), sent
        delivery.billable = answer.status < 300
        if delivery.billable or (400 <= answer.status < 500 and answer.status not in _RETRIED and answer.status != 401):
            return answer, sent
        return _failure(answer, self.masked(await read_short(answer)), attempt), sent

    def _remember(self, sent: Mapping[str, str]) -> None:
        secret = (sent.get("x-api-key") or sent.get("authorization", "").removeprefix("Bearer ")).encode()
        if secret and secret not in self._shown:
            self._shown[secret] = None
            # A login that is renewed for months has many; the provider repeats the last ones, if any.
            while len(self._shown) > _REMEMBERED:
                del self._shown[next(iter(self._shown))]


def _failure(answer: aiohttp.ClientResponse, body: bytes, attempt: int) -> Failure:
    status = answer.status
    kind, said = error_of(body)
    said = said or f"the provider answered {status}"
    if status == 401:
        code, message = "MODEL_CREDENTIAL_REFUSED", f"the provider does not take this server's credential: {said}"
    elif 300 <= status < 400:
        code, message = "MODEL_UNAVAILABLE", "the provider answered with a redirect, which is not followed"
    else:
        code, message = _CODES.get(status, "MODEL_UNAVAILABLE"), said
    trouble = ModelTrouble(code, message, attempt=attempt, provider_status=status)
    return Failure(trouble, kind, _retry_after(answer.headers), retried=status in _RETRIED)


async def read_short(answer: aiohttp.ClientResponse) -> bytes:
    """A body that should be short, as far as it came; the connection is not used again."""
    body = bytearray()
    try:
        async with asyncio.timeout(_SHORT_SECONDS):
            while len(body) < _SHORT_BYTES and (piece := await answer.content.readany()):
                body += piece
    except (TimeoutError, aiohttp.ClientError):
        pass  # what has come is all that there is
    finally:
        answer.close()
    return bytes(body[:_SHORT_BYTES])


def _payload(body: bytes) -> bytes | io.BytesIO:
    """A large body is sent in pieces, so that nobody waits for the whole of it."""
    return body if len(body) < _LARGE_BYTES else io.BytesIO(body)


def _joined(headers: Mapping[str, str], credential: Mapping[str, str]) -> dict[str, str]:
    """Both may set beta switches."""
    joined = {**headers, **credential}
    betas = [source["anthropic-beta"] for source in (headers, credential) if "anthropic-beta" in source]
    if betas:
        joined["anthropic-beta"] = ",".join(betas)
    return joined


def _retry_after(headers: CIMultiDictProxy[str]) -> float:
    """Seconds; 0 when nothing is asked for. The header holds a number or a date."""
    value = headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time())
    except ValueError:
        return 0.0
