"""One turn's requests, each from the agent's first byte to the last of the answer."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import structlog
from aiohttp import web

from server import telemetry
from server.kernel.errors import BudgetExhausted, KernelError
from server.kernel.model_use import ModelUse, Tokens
from server.kernel.ports.model_gateway import ModelBill, ModelTrouble, Reservation
from server.kernel.ports.tracer import Tracer
from server.models import anthropic_rules, openai_rules
from server.models.formats import COUNT_TOKENS, TARGETS, Format, error_body, error_of
from server.models.headers import answer_headers, request_headers
from server.models.meter import Meter, meter_for
from server.models.patience import Patience, Silent, spoken
from server.models.prices import Prices
from server.models.room import Place, Room, Share
from server.models.rules import Checked, Refused, Rules
from server.models.upstream import Delivery, Upstream, UpstreamFailed, read_short

_MAX_UNDER_WAY = 16
_BODY_SECONDS = 60.0
_PATIENCE_SECONDS = 10.0
_SLOWEST = 4 * 1024 * 1024
"""Bytes in a second: agents are on this machine, and have a request ready before they send it."""
_BLOCKING_BYTES = 128 * 1024
"""A larger request is read in a thread."""
_FINAL_STATUS = 402
"""For what is final: what the rules refuse, and what the gateway has tried as often as it may. Agents' own clients try 429 and 5xx, and
some 401, again and again, and the Claude program asks again five times after a 400 or 422, whatever the headers say (measured: once after
402, 403, 405 and 413; 402 alone is told as it is)."""

log = structlog.get_logger()


@dataclass(frozen=True)
class Shared:
    """What all turns' requests need."""

    upstreams: Mapping[Format, Upstream]
    rules: Rules
    prices: Prices
    room: Room
    max_bytes: int
    silence_seconds: float
    """How long an answer that has begun may stand still."""
    tracer: Tracer


class Denied(Exception):
    """The request ends here, with this status and sentence. `told` as what, for the turn's readers; empty for nothing."""

    def __init__(self, status: int, message: str, *, kind: str = "", told: str = "MODEL_REQUEST_REFUSED", provider_status: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.told = told
        self.provider_status = provider_status


@dataclass
class _Asked:
    """One request, and how far it has come."""

    request: web.BaseRequest
    patience: Patience
    form: Format = Format.ANTHROPIC
    target: str = ""
    body: bytes = b""
    """What goes to the provider, until it was sent: answers may take long, and it may be large."""
    response: web.StreamResponse | None = None
    """Set when the answer has begun: then nothing but its end can be told."""
    received_at: float = field(default_factory=time.monotonic)
    delivery: Delivery = field(default_factory=Delivery)


class Exchange:
    """The requests at one door. `close` ends those that are under way, and waits until what they used is settled."""

    def __init__(self, shared: Shared, *, token: str, formats: frozenset[Format], bill: ModelBill) -> None:
        self._shared = shared
        self._token = token.encode()
        self._formats = formats
        self._bill = bill
        self._room = Share(shared.room, shared.max_bytes)
        self._under_way: set[asyncio.Task[web.StreamResponse]] = set()
        self._settling: set[asyncio.Task[None]] = set()
        self._closed = False
        bill.on_exhausted(self.cut)

    def cut(self) -> None:
        """End every request that is under way, and take no more."""
        self._closed = True
        for task in [*self._under_way]:
            task.cancel()

    async def close(self) -> None:
        """See the class. Repeatable."""
        self.cut()
        while left := {*self._under_way, *self._settling}:
            await asyncio.wait(left)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request: an aiohttp handler. Cancelled when the agent hangs up."""
        asked = _Asked(request, Patience(self._tell_aside))
        work = asyncio.create_task(self._answered(asked))
        self._under_way.add(work)
        work.add_done_callback(self._under_way.discard)
        try:
            return await work
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            # Not this handler was cancelled, but its work: the budget is used up, or the turn is over.
            return _broken_off(asked) or _error(asked.form, _FINAL_STATUS, "Treadle: the turn may not ask for more")

    async def _answered(self, asked: _Asked) -> web.StreamResponse:
        outcome = "passed"
        try:
            return await self._pass(asked)
        except Denied as denied:
            outcome = "refused" if denied.told == "MODEL_REQUEST_REFUSED" else "failed"
            if denied.told:
                await self._tell(ModelTrouble(denied.told, denied.message, provider_status=denied.provider_status))
            return _error(asked.form, denied.status, f"Treadle: {denied.message}", kind=denied.kind)
        except asyncio.CancelledError:
            outcome = "cut"
            raise
        except (aiohttp.ClientError, OSError, Silent) as error:
            outcome = "cut"
            if not _connected(asked):
                # The agent hung up, which is its own affair.
                return _broken_off(asked) or _error(asked.form, 503, "Treadle: the agent hung up")
            return await self._cut_off(asked, f"stood still for {spoken(error.seconds)}" if isinstance(error, Silent) else "broke off")
        except KernelError as error:
            # The database is away, or another server has the turn: whoever is there soon answers the agent's next try.
            outcome = "failed"
            log.warning("model.request_failed", error=error.message)
            return _broken_off(asked) or _error(asked.form, 503, "Treadle: not now")
        except Exception:
            # Else aiohttp would answer, in nobody's form, and tell its own log, which nobody reads. Tried again it would break again.
            outcome = "broken"
            log.exception("model.request_crashed")
            return _broken_off(asked) or _error(asked.form, _FINAL_STATUS, "Treadle: a defect of the server; its log tells more")
        finally:
            telemetry.MODEL_REQUESTS.labels(asked.form, outcome).inc()

    async def _cut_off(self, asked: _Asked, how: str) -> web.StreamResponse:
        """An answer that does not come to its end. Whether it is asked for again is the agent's affair."""
        message = f"the answer from {self._host(asked)} {how}; the agent may ask again"
        await self._tell(ModelTrouble("MODEL_ANSWER_CUT", message, retryable=True))
        return _broken_off(asked) or _error(asked.form, 503, "Treadle: the answer broke off")

    def _host(self, asked: _Asked) -> str:
        return self._shared.upstreams[asked.form].host

    # -- from the door to the provider --------------------------------------------------------------------------------------

    async def _pass(self, asked: _Asked) -> web.StreamResponse:
        self._admit(asked)
        with self._room.place() as place:
            checked = await self._checked(asked, place)
            with self._shared.tracer.span("model", parent=self._bill.trace_parent, model=checked.model) as span:
                try:
                    response = await self._allowed(asked, checked, place)
                except Denied as denied:
                    span.conclude(failed="Denied", status=denied.status)
                    raise
                span.conclude(failed="", status=response.status)
                return response

    async def _allowed(self, asked: _Asked, checked: Checked, place: Place) -> web.StreamResponse:
        if asked.target.startswith(COUNT_TOKENS):
            return await self._count(asked, checked)
        expected = self._use(checked, checked.expected.most, partial=True)
        if self._bill.costs_are_limited and expected.cost_micros is None:
            raise Denied(_FINAL_STATUS, f"there is a budget of money, and no price is known for {checked.model} (TREADLE_MODEL_PRICES)")
        try:
            reservation = await self._bill.admit(expected)
        except BudgetExhausted as error:
            raise Denied(_FINAL_STATUS, error.message, told="") from error
        return await self._paid(asked, checked, reservation, place)

    def _admit(self, asked: _Asked) -> None:
        """Token, path and method. Errors: Denied."""
        request = asked.request
        form, asked.target = TARGETS.get(request.raw_path, (None, ""))
        asked.form = form or asked.form
        if not self._shows_token(request):
            raise Denied(401, "the token is not this turn's")
        if form is None or form not in self._formats:
            raise Denied(404, "there is no such path here")
        if request.method != "POST":
            raise Denied(405, "only POST is allowed here")
        if self._closed:
            raise Denied(_FINAL_STATUS, "the turn may not ask for more", told="")
        if len(self._under_way) > _MAX_UNDER_WAY:
            raise Denied(429, f"more than {_MAX_UNDER_WAY} requests at once", told="")

    def _shows_token(self, request: web.BaseRequest) -> bool:
        key = request.headers.get("x-api-key", "")
        bearer = request.headers.get("authorization", "")
        shown = (key, bearer[7:] if bearer[:7].lower() == "bearer " else "")
        return any(hmac.compare_digest(each.encode("utf-8", "replace"), self._token) for each in shown)

    async def _checked(self, asked: _Asked, place: Place) -> Checked:
        """The request, read and allowed; it has its place until it is sent. Errors: Denied."""
        size = self._size(asked.request)
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                data = await _received(asked.request.content, size, place)
        except TimeoutError:
            raise Denied(408, "the request came too slowly") from None
        except asyncio.IncompleteReadError:
            raise Denied(400, "the request is shorter than it says", told="") from None
        check = openai_rules.check if asked.form is Format.OPENAI else anthropic_rules.check
        try:
            if size > _BLOCKING_BYTES:
                checked = await asyncio.to_thread(check, data, self._shared.rules)
            else:
                checked = check(data, self._shared.rules)
        except Refused as refused:
            raise Denied(_FINAL_STATUS, str(refused)) from refused
        asked.body = checked.body
        return replace(checked, body=b"")

    def _size(self, request: web.BaseRequest) -> int:
        """Errors: Denied for a body that is packed, or whose length is not told beforehand."""
        if request.headers.get("content-encoding", "identity") != "identity":
            raise Denied(415, "a compressed request is not allowed")
        size = request.content_length
        if size is None or "transfer-encoding" in request.headers:
            raise Denied(411, "a request must tell its length")
        if size == 0:
            raise Denied(_FINAL_STATUS, "the request is empty")
        if size > self._shared.max_bytes:
            raise Denied(413, f"a request of {size:,} bytes; at most {self._shared.max_bytes:,} are allowed")
        return size

    # -- from the provider to the agent -------------------------------------------------------------------------------------

    async def _count(self, asked: _Asked, checked: Checked) -> web.StreamResponse:
        """The count of a request's tokens costs nothing."""
        async with await self._sent(asked, checked) as answer:
            return await self._whole(asked, answer)

    async def _paid(self, asked: _Asked, checked: Checked, reservation: Reservation, place: Place) -> web.StreamResponse:
        meter = meter_for(asked.form, streams=checked.streams, expected=checked.expected)
        answered_at: float | None = None
        try:
            answer = await self._sent(asked, checked)
            answered_at = time.monotonic()
            place.leave()
            async with answer:
                if answer.status >= 400:
                    return await self._refusal(asked, answer)
                return await self._stream(asked, answer, checked, meter, reservation)
        finally:
            owed = meter.owed(time.monotonic() - answered_at if answered_at is not None else 0)
            # Who hangs up before the first byte may have been answered all the same, and that costs.
            use = self._use(checked, owed, partial=not meter.complete) if asked.delivery.billable else None
            await self._settled(reservation, use)

    async def _refusal(self, asked: _Asked, answer: aiohttp.ClientResponse) -> web.Response:
        """What the provider finds wrong with the request. Told, but for a 400: the agent may know what to leave out, and asks again."""
        response = await self._whole(asked, answer)
        if answer.status != 400:
            said = error_of(response.body)[1] if isinstance(response.body, bytes) else ""
            message = self._shared.upstreams[asked.form].sentence(answer.status, said)
            await self._tell(ModelTrouble("MODEL_REQUEST_REFUSED", message, provider_status=answer.status))
        return response

    async def _whole(self, asked: _Asked, answer: aiohttp.ClientResponse) -> web.Response:
        """A short answer, in the provider's own words."""
        body = self._shared.upstreams[asked.form].masked(await read_short(answer))
        return web.Response(status=answer.status, body=body, headers=answer_headers(answer.headers))

    async def _sent(self, asked: _Asked, checked: Checked) -> aiohttp.ClientResponse:
        """The provider's answer. Errors: Denied, with the provider's last word."""
        headers = request_headers(asked.form, asked.request.headers, streams=checked.streams)
        body, asked.body = asked.body, b""
        try:
            return await self._shared.upstreams[asked.form].post(
                asked.target,
                headers,
                body,
                streams=checked.streams,
                tell=self._tell,
                patience=asked.patience,
                delivery=asked.delivery,
            )
        except UpstreamFailed as error:
            failure, trouble = error.failure, error.failure.trouble
            # By this word the Claude program would try again, whatever the status.
            kind = "api_error" if failure.kind == "overloaded_error" else failure.kind
            raise Denied(_FINAL_STATUS, trouble.message, kind=kind, told=trouble.code, provider_status=trouble.provider_status) from error

    async def _stream(
        self, asked: _Asked, answer: aiohttp.ClientResponse, checked: Checked, meter: Meter, reservation: Reservation
    ) -> web.StreamResponse:
        response = asked.response = web.StreamResponse(status=answer.status, headers=answer_headers(answer.headers))
        await response.prepare(asked.request)
        first = True
        while piece := await self._piece(asked, answer):
            await response.write(piece)
            if first:
                first = False
                telemetry.MODEL_FIRST_BYTE_SECONDS.labels(asked.form).observe(time.monotonic() - asked.received_at)
            if meter.feed(piece):
                reservation.count(self._use(checked, meter.rounds, partial=True))
        meter.finish()
        if meter.broken:
            message = f"{self._host(asked)} ended its answer with an error; the agent may ask again"
            await self._tell(ModelTrouble("MODEL_ANSWER_CUT", message, retryable=True))
        # Its end is written by aiohttp when this request is done: when what it used is durable, and not before.
        return response

    async def _piece(self, asked: _Asked, answer: aiohttp.ClientResponse) -> bytes:
        """What comes next of an answer; nothing at its end. Errors: Silent, aiohttp.ClientError."""
        async with asked.patience.waiting(self._shared.silence_seconds, f"nothing more from {self._host(asked)}"):
            return await answer.content.readany()

    def _use(self, checked: Checked, rounds: Sequence[Tokens], *, partial: bool) -> ModelUse:
        return ModelUse(checked.model, sum(rounds, Tokens()), self._shared.prices.cost(checked.model, *rounds), partial=partial)

    async def _settled(self, reservation: Reservation, use: ModelUse | None) -> None:
        """Also when the request was cancelled."""
        await self._uncut(self._settle(reservation, use))

    async def _uncut(self, work: Coroutine[Any, Any, None]) -> None:
        """What writes to the turn's log is never cut off by an agent that hangs up: half a step would break the log. It runs in a task
        that the door waits for when it closes."""
        task = asyncio.create_task(work)
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)
        await asyncio.shield(task)

    async def _settle(self, reservation: Reservation, use: ModelUse | None) -> None:
        if use is not None:
            # By the names in the table of prices: an agent could make up any number of models.
            model = self._shared.prices.name(use.model) or "other"
            for kind in ("input", "output", "cache_read", "cache_write"):
                telemetry.MODEL_TOKENS.labels(model, kind).inc(getattr(use.tokens, kind))
        await reservation.settle(use)

    async def _tell(self, trouble: ModelTrouble) -> None:
        await self._uncut(self._bill.trouble(trouble))

    def _tell_aside(self, trouble: ModelTrouble) -> None:
        """While something else is waited for."""
        task = asyncio.create_task(self._told_aside(trouble))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _told_aside(self, trouble: ModelTrouble) -> None:
        try:
            await self._bill.trouble(trouble)
        except KernelError as error:
            log.warning("model.trouble_not_told", code=trouble.code, error=error.message)


async def _received(content: aiohttp.StreamReader, size: int, place: Place) -> bytearray:
    """A request's bytes; its place grows with them. Errors: IncompleteReadError, TimeoutError when they come too slowly."""
    data = bytearray()
    waited = 0.0
    while len(data) < size:
        # Only the time that the agent takes: for room it may have to wait because of others.
        begun = time.monotonic()
        async with asyncio.timeout(_PATIENCE_SECONDS + len(data) / _SLOWEST - waited):
            piece = await content.readany()
        waited += time.monotonic() - begun
        if not piece:
            raise asyncio.IncompleteReadError(b"", size)
        await place.grow(len(piece))
        data += piece
    return data


def _connected(asked: _Asked) -> bool:
    return asked.request.transport is not None and not asked.request.transport.is_closing()


def _broken_off(asked: _Asked) -> web.StreamResponse | None:
    """End an answer that has begun without its end, so that nobody takes it for complete; None when none has begun."""
    if asked.response is None:
        return None
    if asked.request.transport is not None:
        asked.request.transport.close()
    return asked.response


def _error(form: Format, status: int, message: str, *, kind: str = "") -> web.Response:
    headers = {"content-type": "application/json"}
    if status == 429:
        headers["retry-after"] = "1"
    elif status != 503:
        # The clients of both providers know it: do not try this again.
        headers["x-should-retry"] = "false"
    return web.Response(status=status, body=error_body(form, status, message, kind=kind), headers=headers)
