"""The way to one provider: the credential, the tries, and what is final."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from time import time
from urllib.parse import urlsplit

import aiohttp
from multidict import CIMultiDictProxy

from server.kernel.ports.model_gateway import ModelTrouble
from server.models.credentials import Credential
from server.models.formats import error_of
from server.models.login import LoginFailed
from server.models.patience import Patience, Silent, spoken
from server.models.unreached import why_unreached

_SHORT_BYTES = 64 * 1024
_SHORT_SECONDS = 5.0
_LARGE_BYTES = 512 * 1024
_REMEMBERED = 4
_FIRST_PAUSE_SECONDS = 0.5
_WHOLE_SECONDS = 600.0
"""For an answer that is not streamed: it begins when it is complete."""
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
        first_byte_seconds: float,
        renewed: Callable[[], None],
    ) -> None:
        self.host = urlsplit(url).netloc
        """For people."""
        self._http = http
        self._url = url.rstrip("/")
        self._first_byte_seconds = first_byte_seconds
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

    def sentence(self, status: int, said: str) -> str:
        """An answer with an error, as it is told."""
        return f"{status} from {self.host}" + (f": {said}" if said else "")

    async def post(
        self, target: str, headers: Mapping[str, str], body: bytes, *, streams: bool, tell: Tell, patience: Patience, delivery: Delivery
    ) -> aiohttp.ClientResponse:
        """An answer that goes back to the agent: a success, or a refusal that is about the request. Each try that failed before is told.
        The caller releases it. Errors: UpstreamFailed."""
        seconds = self._first_byte_seconds if streams else max(self._first_byte_seconds, _WHOLE_SECONDS)
        attempt, renewed = 1, False
        while True:
            answer, sent = await self._try(target, headers, body, patience=patience, seconds=seconds, delivery=delivery)
            if isinstance(answer, aiohttp.ClientResponse):
                return answer
            if answer.trouble.provider_status == 401 and not renewed and await self._credential.renew(sent):
                renewed = True
                self._renewed()
                continue
            pause = max(answer.retry_after, _FIRST_PAUSE_SECONDS * 2 ** (attempt - 1) * random.uniform(0.8, 1.2))  # noqa: S311
            if not answer.retried or attempt > self._retries or pause > self._longest_pause:
                raise UpstreamFailed(self._final(answer, attempt, pause))
            trouble = answer.trouble
            message = f"{trouble.message}; try {attempt + 1} of {self._retries + 1} in {spoken(pause)}"
            await tell(replace(trouble, message=message, retryable=True, attempt=attempt))
            await asyncio.sleep(pause)
            attempt += 1

    def _final(self, failure: Failure, attempt: int, pause: float) -> Failure:
        """The same, and why nothing more is tried."""
        if failure.retried and attempt <= self._retries:
            wish = f"it asks to wait for {spoken(pause)}, and TREADLE_MODEL_RETRY_SECONDS allows {spoken(self._longest_pause)}"
        elif attempt > 1:
            wish = f"given up after {attempt} tries"
        else:
            return failure
        return replace(failure, trouble=replace(failure.trouble, message=f"{failure.trouble.message}; {wish}"))

    async def _try(
        self, target: str, headers: Mapping[str, str], body: bytes, *, patience: Patience, seconds: float, delivery: Delivery
    ) -> tuple[aiohttp.ClientResponse | Failure, dict[str, str]]:
        sent: dict[str, str] = {}
        try:
            sent = await self._credential.headers()
            self._remember(sent)
            delivery.billable = True
            async with patience.waiting(seconds, f"no answer from {self.host}"):
                answer = await self._http.post(
                    self._url + target, data=_payload(body), headers=_joined(headers, sent), allow_redirects=False
                )
        except LoginFailed as error:
            message = f"{error}; check {self._credential.setting}"
            return Failure(ModelTrouble("MODEL_CREDENTIAL_REFUSED", message)), sent
        except Silent:
            # Nobody knows what it did meanwhile; as for all that fails, nothing is booked.
            delivery.billable = False
            return self._unavailable(f"no answer from {self.host} within {spoken(seconds)}"), sent
        except (aiohttp.ClientError, OSError) as error:
            delivery.billable = False
            return self._unavailable(f"{self.host} {why_unreached(error)}"), sent
        delivery.billable = answer.status < 300
        if delivery.billable or (400 <= answer.status < 500 and answer.status not in _RETRIED and answer.status != 401):
            return answer, sent
        return self._failure(answer, self.masked(await read_short(answer))), sent

    def _unavailable(self, message: str) -> Failure:
        return Failure(ModelTrouble("MODEL_UNAVAILABLE", message), retried=True)

    def _failure(self, answer: aiohttp.ClientResponse, body: bytes) -> Failure:
        status = answer.status
        kind, said = error_of(body)
        code, message = _CODES.get(status, "MODEL_UNAVAILABLE"), self.sentence(status, said)
        if status == 401:
            code, message = "MODEL_CREDENTIAL_REFUSED", f"{message}; check {self._credential.setting}"
        elif 300 <= status < 400:
            message = self.sentence(status, "a redirect, which is not followed")
        trouble = ModelTrouble(code, message, provider_status=status)
        return Failure(trouble, kind, _retry_after(answer.headers), retried=status in _RETRIED)

    def _remember(self, sent: Mapping[str, str]) -> None:
        secret = (sent.get("x-api-key") or sent.get("authorization", "").removeprefix("Bearer ")).encode()
        if secret and secret not in self._shown:
            self._shown[secret] = None
            # A login that is renewed for months has many; the provider repeats the last ones, if any.
            while len(self._shown) > _REMEMBERED:
                del self._shown[next(iter(self._shown))]


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
