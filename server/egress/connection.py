"""One connection of an agent's, from its request to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import structlog

from gateway.addresses import Address, Network, is_public, within
from server.egress.client_hello import HelloReader, NotTls
from server.egress.names import Names, NameUnknown
from server.egress.own_address import is_own
from server.egress.proxy import NotDialled, Proxy, Streams
from server.egress.request import MAX_HEAD_BYTES, NotProxying, ProxyRequest, read_request
from server.kernel.egress import MAX_NAME, PLAIN_PORT, TLS_PORT, EgressReason, HostRule, HostRules, is_name
from server.kernel.errors import Fenced
from server.kernel.ports.egress import Access, Ledger

REQUEST_SECONDS = 10.0
HELLO_SECONDS = 15.0
IDLE_SECONDS = 300.0
ANSWER_SECONDS = 30.0
"""The same for an agent that has said all it had to say over plain HTTP, before an answer: it waits for it, or has left, which looks the
same. In a tunnel it has left: TLS has an end of its own, and its clients close both ways or none."""
_PIECE_BYTES = 64 * 1024
_MAX_ADDRESSES = 4
"""How many of a name's addresses are tried, one after the other."""

_STATUS = {EgressReason.NOT_PROXYING: 400, EgressReason.TOO_MANY: 429, EgressReason.NAME_UNKNOWN: 502, EgressReason.UNREACHABLE: 502}

log = structlog.get_logger()


@dataclass(frozen=True)
class WayOut:
    """What all doors of a server share."""

    names: Names
    proxy: Proxy
    networks: Sequence[Network]
    """The operator's own, which may be private: for hosts that the operator names."""
    denied: Sequence[Network] = ()
    """What nobody reaches."""


@dataclass
class Allowance:
    """What one turn may have."""

    rules: HostRules
    refused: HostRules
    """Those of the session that the operator does not allow (any more)."""
    named: HostRules
    """The operator's own that name hosts: these may be in the operator's networks. Whoever owns any name could point it there."""
    bytes_left: int


class Refused(Exception):
    """It does not come about; the message is for whoever asked for it."""

    def __init__(self, reason: EgressReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class _Cut(Exception):
    """It ends before its time."""

    def __init__(self, reason: EgressReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass
class Connection:
    """Serves one, and tells the ledger of it."""

    way: WayOut | None
    """None where nobody gets out: then no rule is left."""
    allowance: Allowance
    ledger: Ledger
    agent: Streams
    number: int
    full: bool = False
    """One too many: it is refused whatever it asks for."""
    _access: Access = field(init=False)
    _began: float = field(init=False)
    _patience: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._access = Access(self.number, "", 0, "")
        self._began = asyncio.get_running_loop().time()

    async def serve(self) -> None:
        """To its end. Never raises but for a cancel, which cuts it."""
        try:
            await self._served()
        except Refused as refused:
            await self._refuse(refused)
        except _Cut as cut:
            await self._ended(cut.reason, str(cut))
        except asyncio.CancelledError:
            # What it wanted is not known before it has said so.
            if self._access.method:
                await self._ended(EgressReason.TURN_ENDED, "its turn ended")
            raise
        except OSError:
            await self._ended(EgressReason.UNREACHABLE, "it broke off")
        except Fenced:
            log.warning("egress.fenced")
        except Exception:  # one connection's defect is not the turn's
            log.exception("egress.connection_broke")
            await self._ended(EgressReason.UNREACHABLE, "a defect of the server ended it")

    async def _served(self) -> None:
        request = await self._asked()
        if request is None:
            return
        self._access = replace(self._access, host=request.host, port=request.port, method=request.method)
        rule = self._admitted(request)
        self._access = replace(self._access, rule=str(rule))
        addresses = await self._addresses(request.host, request.port)
        # Nothing is dialled before the log says so.
        await self.ledger.opened(self._access)
        host = await self._dialled(addresses, request)
        try:
            await self._begin(request, host)
            await self._joined(host)
        finally:
            host[1].transport.abort()
        await self._ended()

    # -- what is asked for ------------------------------------------------------------------------------------------------------

    async def _asked(self) -> ProxyRequest | None:
        """None when the agent went away without a word."""
        if self.full:
            raise Refused(EgressReason.TOO_MANY, "this turn has too many connections open; close some first")
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                return read_request(await self.agent[0].readuntil(b"\r\n\r\n"))
        except asyncio.IncompleteReadError as error:
            if not error.partial:
                return None
            raise Refused(EgressReason.NOT_PROXYING, "the request broke off") from None
        except OSError:
            return None
        except asyncio.LimitOverrunError:
            raise Refused(EgressReason.NOT_PROXYING, f"the head of the request has more than {MAX_HEAD_BYTES:,} bytes") from None
        except TimeoutError:
            raise Refused(EgressReason.NOT_PROXYING, f"no request came within {REQUEST_SECONDS:g} s") from None
        except NotProxying as error:
            raise Refused(EgressReason.NOT_PROXYING, str(error)) from None

    def _admitted(self, request: ProxyRequest) -> HostRule:
        """The rule that lets it pass. Errors: Refused."""
        host, port = request.host, request.port
        if self.allowance.bytes_left <= 0:
            raise Refused(EgressReason.TOO_MANY, "this turn has had all the bytes that it may have (TREADLE_EGRESS_TURN_MIB)")
        rule = self.allowance.rules.find(host, port) if is_name(host) else None
        if rule is None:
            raise Refused(*self._not_allowed(host, port))
        if request.is_tunnel and port == PLAIN_PORT:
            raise Refused(EgressReason.PORT_NOT_ALLOWED, "port 80 is for plain HTTP, without a tunnel")
        if not request.is_tunnel and port == TLS_PORT:
            raise Refused(EgressReason.PORT_NOT_ALLOWED, "port 443 is for a tunnel (CONNECT), with TLS in it")
        return rule

    def _not_allowed(self, host: str, port: int) -> tuple[EgressReason, str]:
        if self.allowance.refused.find(host, port):
            return EgressReason.HOST_NOT_ALLOWED, f"{host} is not allowed by this server any more (TREADLE_EGRESS_HOSTS)"
        if not is_name(host):
            return EgressReason.HOST_NOT_ALLOWED, f"{host} is not the name of a host, and only names can be allowed"
        if self.allowance.rules.knows(host):
            return EgressReason.PORT_NOT_ALLOWED, f"port {port} of {host} is not in the allowed_hosts of this session ({host}:{port})"
        return EgressReason.HOST_NOT_ALLOWED, f"{host} is not in the allowed_hosts of this session"

    # -- the way to the host ----------------------------------------------------------------------------------------------------

    async def _addresses(self, host: str, port: int) -> Sequence[Address]:
        """All public. One that is not is no oversight of whoever owns the name: then nothing is dialled. Errors: Refused."""
        assert self.way is not None  # noqa: S101 - a rule let it pass
        try:
            addresses = await self.way.names.addresses(host)
        except NameUnknown:
            raise Refused(EgressReason.NAME_UNKNOWN, f"{host} has no address") from None
        besides = self.way.networks if self.allowance.named.find(host, port) else ()
        if not all(is_public(address, besides=besides) for address in addresses):
            raise Refused(EgressReason.ADDRESS_FORBIDDEN, f"{host} has an address that is not a public one")
        if any(is_own(address) and not within(address, besides) for address in addresses):
            raise Refused(EgressReason.ADDRESS_FORBIDDEN, f"{host} has an address of this server's own machine")
        if any(within(address, self.way.denied) for address in addresses):
            raise Refused(EgressReason.ADDRESS_FORBIDDEN, f"{host} has an address that this server's operator denies")
        return addresses

    async def _dialled(self, addresses: Sequence[Address], request: ProxyRequest) -> Streams:
        """A connection to the first that answers. Errors: Refused."""
        assert self.way is not None  # noqa: S101
        why = NotDialled(EgressReason.NAME_UNKNOWN, "it has no address")
        for address in addresses[:_MAX_ADDRESSES]:
            try:
                return await self.way.proxy.dial(address, request.port)
            except NotDialled as error:
                why = error
        raise Refused(why.reason, f"{request.host}:{request.port}: {why}")

    async def _begin(self, request: ProxyRequest, host: Streams) -> None:
        """What is said first: a request, or in a tunnel the hello of TLS, for the host that the tunnel is for. Errors: _Cut."""
        first = request.head
        if request.is_tunnel:
            self.agent[1].write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            first = await self._hello(request.host)
        self._count_out(len(first))
        host[1].write(first)
        await host[1].drain()

    async def _hello(self, host: str) -> bytes:
        hello = HelloReader()
        name: str | None = None
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                while name is None:
                    piece = await self.agent[0].read(_PIECE_BYTES)
                    if not piece:
                        raise NotTls
                    name = hello.add(piece)
        except (NotTls, TimeoutError, OSError):
            raise _Cut(EgressReason.NOT_TLS, "a tunnel is for TLS, and no TLS client spoke") from None
        if name != host:
            raise _Cut(EgressReason.WRONG_NAME, f"in a tunnel to {host}, TLS asked for {ascii(name[:MAX_NAME]) if name else 'no host'}")
        return bytes(hello.said)

    # -- what passes ------------------------------------------------------------------------------------------------------------

    async def _joined(self, host: Streams) -> None:
        """Both ways, until one side has nothing more to say, but for the answer to the last word. Errors: _Cut."""
        self._patience = IDLE_SECONDS
        clock = asyncio.timeout(self._patience)
        asking = asyncio.create_task(self._pump(self.agent[0], host[1], self._count_out, clock))
        answering = asyncio.create_task(self._pump(host[0], self.agent[1], self._count_in, clock))
        answers_last = False
        try:
            async with clock:
                try:
                    await asyncio.wait({asking, answering}, return_when=asyncio.FIRST_COMPLETED)
                    said_all = not answering.done() and asking.exception() is None and asking.result()
                    # Who had an answer before is no such agent: it has left.
                    answers_last = said_all and self._access.method != "CONNECT" and not self._access.bytes_in
                    if answers_last:
                        # Envoy is not told: it would take the end of one way for that of both.
                        self._patience = ANSWER_SECONDS
                        self._go_on(clock)
                        await asyncio.wait({answering})
                finally:
                    asking.cancel()
                    answering.cancel()
                    ends = await asyncio.gather(asking, answering, return_exceptions=True)
        except TimeoutError:
            if not answers_last:
                raise _Cut(EgressReason.IDLE, f"nothing passed for {IDLE_SECONDS:g} s") from None
        for end in ends:
            if isinstance(end, _Cut):
                raise end

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, count: Callable[[int], None], clock: asyncio.Timeout
    ) -> bool:
        """Whether all was passed on that the source had to say."""
        with suppress(OSError):
            while piece := await source.read(_PIECE_BYTES):
                self._go_on(clock)
                count(len(piece))
                sink.write(piece)
                await sink.drain()
            return True
        return False

    def _go_on(self, clock: asyncio.Timeout) -> None:
        clock.reschedule(asyncio.get_running_loop().time() + self._patience)

    def _count_in(self, size: int) -> None:
        self._access = replace(self._access, bytes_in=self._access.bytes_in + size)
        self._spend(size)

    def _count_out(self, size: int) -> None:
        self._access = replace(self._access, bytes_out=self._access.bytes_out + size)
        self._spend(size)

    def _spend(self, size: int) -> None:
        self.allowance.bytes_left -= size
        if self.allowance.bytes_left < 0:
            raise _Cut(EgressReason.TOO_MUCH, "this turn has had all the bytes that it may have (TREADLE_EGRESS_TURN_MIB)")

    # -- its end ----------------------------------------------------------------------------------------------------------------

    async def _refuse(self, refused: Refused) -> None:
        """Told to the ledger, and to the agent in the first line: that is what its programs show."""
        await self._ended(refused.reason, str(refused))
        text = str(refused)
        head = f"HTTP/1.1 {_STATUS.get(refused.reason, 403)} {text}\r\ncontent-type: text/plain\r\ncontent-length: {len(text) + 1}\r\n"
        self.agent[1].write(f"{head}connection: close\r\n\r\n{text}\n".encode("ascii", "replace"))

    async def _ended(self, reason: EgressReason | None = None, message: str = "") -> None:
        seconds = asyncio.get_running_loop().time() - self._began
        self._access = replace(self._access, reason=reason, message=message, ended=True, seconds=seconds)
        await self.ledger.ended(self._access)
