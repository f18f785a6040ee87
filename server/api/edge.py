"""The edge of every public RPC: who calls, which log lines belong to the call, and what a failure looks like outside."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from typing import Any, Protocol

import grpc
import structlog
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status
from structlog.contextvars import bound_contextvars

from server import telemetry
from server.api.status import STATUS, internal, status_of
from server.kernel.errors import ApiKeyMissing, CallUnknown, KernelError, MessageTooLarge, RequestMalformed, StoreUnavailable
from server.kernel.identity import Principal
from server.kernel.ids import new_id
from server.kernel.ports.authenticator import Authenticator
from server.kernel.ports.tracer import Attribute, Span, Tracer, trace_fields

ABORT_SECONDS = 5.0
"""`abort` itself can wait for a client that does not read."""

TICKETED = frozenset({"treadle.session.v1.EventStreamService.StreamResume"})
"""Calls whose request may carry a ticket in place of an API key in the metadata."""
MAX_TICKETED_BYTES = 4096

SIGNED = frozenset({"treadle.git.v1.WebhookService.ReceiveGithubEvent"})
"""Calls without an API key, whose request is signed: their service looks at that itself, before anything else."""
MAX_SIGNED_BYTES = 1_000_000 + 16 * 1024
"""The gateway's limit for a delivery, and room for its content type, a header, which has that of all headers."""

MAX_REQUEST_BYTES = 16 * 1024 * 1024
"""The gateway's limit too. gRPC's own is twice as much: what that refuses it refuses without a reason."""

MAX_PART_BYTES = 1024 * 1024 + 16 * 1024
"""Of a request that is a stream; each message of it, and what is around a piece of 1 MiB."""

KEY_CHECK = "/treadle.gateway/CheckKey"

_LOOK_SECONDS = 2.0
_SHOWN_PATH = 200
"""Characters of a path that nobody serves: what refuses it carries it twice, in headers that have room for 8 KiB."""

Farewell = Callable[[Status], bytes]

_FAULTS = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""The statuses that count as failures of a server. All others are the caller's
(https://opentelemetry.io/docs/specs/semconv/rpc/grpc/#grpc-status)."""

FAREWELL: ContextVar[Farewell | None] = ContextVar("farewell", default=None)
"""Set when a stream has begun whose client cannot see how it ends: its last message is made from the status."""

STILL_LET_IN: ContextVar[Callable[[], Awaitable[None]] | None] = ContextVar("still_let_in", default=None)
"""For a stream to ask now and then. Errors: ApiKeyInvalid, ApiKeyExpired, TicketInvalid."""

log = structlog.get_logger()

Context = grpc.aio.ServicerContext[Any, Any]


class Service(Protocol):
    """An implementation: one coroutine `method(principal, request, context)` per RPC, by its name in snake case. A unary one returns
    a message or its bytes; a streaming one writes bytes to the context. Where the client streams, the request is `Parts`."""


def generic_handler(
    descriptor: ServiceDescriptor, service: Service, authenticator: Authenticator, tracer: Tracer
) -> grpc.GenericRpcHandler[Any, Any]:
    """Serve every RPC of a service. Stream frames pass as bytes: what is stored is sent, without a codec in between."""
    handlers = {method.name: _handler(method, service, authenticator, tracer) for method in descriptor.methods}
    return grpc.method_handlers_generic_handler(descriptor.full_name, handlers)


def _handler(method: MethodDescriptor, service: Service, authenticator: Authenticator, tracer: Tracer) -> grpc.RpcMethodHandler[Any, Any]:
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", method.name).lower()
    behaviour = _edge(method, getattr(service, name), authenticator, tracer)
    # As if requests were streams: of a single message gRPC reads all, up to its limit, before it asks who calls. They are parsed behind the
    # edge: what gRPC's own deserialiser cannot read it answers with the text of the exception.
    if method.server_streaming:
        return grpc.stream_stream_rpc_method_handler(behaviour, request_deserializer=None, response_serializer=None)
    return grpc.stream_unary_rpc_method_handler(behaviour, request_deserializer=None, response_serializer=_bytes)


class NoSuchCall(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # only the stubs have a generic class
    """The last of a server's handlers: gRPC would answer without a reason."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        """One that refuses the call, of whatever kind it is, without a look at its messages: anybody may call, and nobody shows a key."""
        path = handler_call_details.method[:_SHOWN_PATH]

        async def refuse(_: AsyncIterator[bytes], context: Context) -> None:
            await _abort(context, *status_of(CallUnknown(path)))

        return grpc.stream_stream_rpc_method_handler(refuse, request_deserializer=None, response_serializer=None)


class KeyCheck(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # only the stubs have a generic class
    """For the gateway, before it takes a large body: OK or the refusal, by the key alone. No message is sent, and nothing but the gateway
    has a way here."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """None for all other calls."""
        if handler_call_details.method != KEY_CHECK:
            return None

        async def check(_: AsyncIterator[bytes], context: Context) -> bytes:
            try:
                await self._authenticator.authenticate(api_key(context))
            except KernelError as error:
                code, _reason, status = _expected(error)
                await _abort(context, code, status)
            return b""

        return grpc.stream_unary_rpc_method_handler(check, request_deserializer=None, response_serializer=None)


Read = Callable[[int], Awaitable[Any]]
"""The one message of a call, of so many bytes at most. Errors: MessageTooLarge, RequestMalformed."""


async def _read(context: Context, parse: Callable[[bytes], Any], limit: int) -> Any:
    data = await context.read()
    if not isinstance(data, bytes):  # grpc.aio.EOF
        raise RequestMalformed
    return _parsed(data, parse, limit)


def _parsed(data: bytes, parse: Callable[[bytes], Any], limit: int) -> Any:
    if len(data) > limit:
        raise MessageTooLarge(size=len(data), limit=limit)
    try:
        return parse(data)
    except DecodeError:
        raise RequestMalformed from None


class Parts:
    """A request that is a stream of messages."""

    def __init__(self, first: Any, context: Context, parse: Callable[[bytes], Any]) -> None:
        self.first = first
        """The first message."""
        self._context = context
        self._parse = parse

    async def next(self) -> Any:
        """Of the others the next one; None behind the last. Errors: MessageTooLarge, RequestMalformed."""
        data = await self._context.read()
        return _parsed(data, self._parse, MAX_PART_BYTES) if isinstance(data, bytes) else None


def _bytes(response: Any) -> bytes:
    return response if isinstance(response, bytes) else response.SerializeToString()


def _edge(
    descriptor: MethodDescriptor, call: Callable[[Principal, Any, Context], Awaitable[Any]], authenticator: Authenticator, tracer: Tracer
) -> Callable[[AsyncIterator[bytes], Context], Awaitable[Any]]:
    method, service = descriptor.name, descriptor.containing_service.full_name
    # https://opentelemetry.io/docs/specs/semconv/rpc/grpc/
    attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
    parse = message_factory.GetMessageClass(descriptor.input_type).FromString
    admitted = _signed if descriptor.full_name in SIGNED else _ticketed if descriptor.full_name in TICKETED else _keyed

    async def behaviour(_: AsyncIterator[bytes], context: Context) -> Any:
        begun = time.monotonic()
        code, reason = grpc.StatusCode.OK, ""
        parent = metadata(context, "traceparent")
        with (
            tracer.span(f"{service}/{method}", parent=parent, incoming=True, **attributes) as span,
            bound_contextvars(method=method, call_id=new_id(), **trace_fields(tracer)),
        ):
            try:
                read = partial(_read, context, parse)
                principal, request = await admitted(authenticator, context, read)
                return await call(principal, Parts(request, context, parse) if descriptor.client_streaming else request, context)
            except KernelError as error:
                code, reason, status = _expected(error)
                await _abort(context, code, status)
            except asyncio.CancelledError:
                code = grpc.StatusCode.CANCELLED
                raise
            except (grpc.aio.AbortError, grpc.aio.UsageError, grpc.aio.BaseError):
                # The client is gone, or the status is set already.
                code = grpc.StatusCode.CANCELLED
                raise
            except Exception:  # the edge owns defects: logged with an id, and nothing of them leaves the server
                error_id = new_id()
                log.exception("call.crashed", error_id=error_id)
                (code, status), reason = internal(error_id), "INTERNAL"
                await _abort(context, code, status)
            finally:
                _conclude(span, code, reason)
                telemetry.CALLS.labels(method, code.name).inc()
                if not descriptor.server_streaming:
                    telemetry.CALL_SECONDS.labels(method).observe(time.monotonic() - begun)

    return behaviour


def _expected(error: KernelError) -> tuple[grpc.StatusCode, str, Status]:
    """(code, reason, status)"""
    if (known := STATUS.get(type(error))) is not None:
        log.info("call.refused", error=error.message, error_type=type(error).__name__)
        code, status = status_of(error)
        return code, known[1], status
    error_id = new_id()
    log.error("call.failed", error=error.message, error_type=type(error).__name__, error_id=error_id, **error.metadata)
    code, status = internal(error_id)
    return code, "INTERNAL", status


def _conclude(span: Span, code: grpc.StatusCode, reason: str) -> None:
    attributes: dict[str, Attribute] = {"rpc.grpc.status_code": code.value[0]}
    if reason:
        attributes |= {"error.type": reason}
    span.conclude(failed=reason or code.name if code in _FAULTS else "", **attributes)


async def _abort(context: Context, code: grpc.StatusCode, status: Status) -> None:
    """In any case the status is on its way afterwards, and the call ends with it: gRPC itself sees to that when this raises nothing."""
    farewell = FAREWELL.get()
    if farewell is not None:
        # It fails when the message before is still on its way: to a client that does not read, nothing can be said.
        with suppress(TimeoutError, grpc.aio.InternalError):
            async with asyncio.timeout(ABORT_SECONDS):
                await context.write(farewell(status))
    details = (("grpc-status-details-bin", status.SerializeToString()),)
    with suppress(TimeoutError):
        async with asyncio.timeout(ABORT_SECONDS):
            await context.abort(code, status.message, trailing_metadata=details)


async def _keyed(authenticator: Authenticator, context: Context, read: Read) -> tuple[Principal, Any]:
    """Who calls, and only then the request. Errors: as for Authenticator; ApiKeyMissing."""
    key = api_key(context)
    principal = await authenticator.authenticate(key)
    STILL_LET_IN.set(partial(_looked_again, partial(authenticator.authenticate, key)))
    return principal, await read(MAX_REQUEST_BYTES)


async def _ticketed(authenticator: Authenticator, context: Context, read: Read) -> tuple[Principal, Any]:
    """The same where the request itself may hold a ticket. gRPC reads it whole all the same, so the gateway lets no more through."""
    try:
        return await _keyed(authenticator, context, read)
    except ApiKeyMissing:
        request = await read(MAX_TICKETED_BYTES)
        if not request.ticket:
            raise
        principal = await authenticator.admit(request.ticket, request.session_id)
        STILL_LET_IN.set(partial(_looked_again, partial(authenticator.admit, request.ticket, request.session_id, before=True)))
        return principal, request


async def _signed(_: Authenticator, __: Context, read: Read) -> tuple[Principal, Any]:
    """It is nobody who calls: the principal owns nothing."""
    return Principal("", "", "", ""), await read(MAX_SIGNED_BYTES)


async def _looked_again(look: Callable[[], Awaitable[Principal]]) -> None:
    """Who was let in stays while nobody can tell, and waits no longer for it: the stream stands still meanwhile."""
    with suppress(StoreUnavailable, TimeoutError):
        async with asyncio.timeout(_LOOK_SECONDS):
            await look()


def api_key(context: Context) -> str:
    """`authorization: Bearer <key>`. Errors: ApiKeyMissing."""
    scheme, _, credential = metadata(context, "authorization").partition(" ")
    if scheme.lower() == "bearer" and credential.strip():
        return credential.strip()
    raise ApiKeyMissing


def metadata(context: Context, name: str) -> str:
    """The first text value under a name; empty without one."""
    return next((value for key, value in context.invocation_metadata() or () if key == name and isinstance(value, str)), "")
