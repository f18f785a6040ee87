"""The model gateway (see the port), from settings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog

from server.config import Settings
from server.kernel.errors import ModelNotAllowed, ProviderNotConfigured
from server.kernel.ports.launcher import ModelDoor
from server.kernel.ports.model_gateway import ModelBill, ModelGateway
from server.kernel.ports.namer import Namer
from server.kernel.ports.tracer import NoTracer, Tracer
from server.models.credentials import VARIABLES, Credential, credentials_of
from server.models.errors import ModelsUnfit
from server.models.formats import Format, format_of
from server.models.prices import Prices
from server.models.rules import Rules, why_not

if TYPE_CHECKING:
    import aiohttp

    from server.models.exchange import Shared
    from server.models.upstream import Upstream

_ROOM_BYTES = 256 * 1024 * 1024
_CONNECT_SECONDS = 10.0
_NO_TRACER = NoTracer()

FORMATS: Mapping[str, frozenset[Format]] = MappingProxyType(
    {
        "replay": frozenset(),
        "anthropic": frozenset({Format.ANTHROPIC}),
        "claude": frozenset({Format.ANTHROPIC}),
        "codex": frozenset({Format.OPENAI}),
    }
)
"""What each agent speaks. One that is not listed may speak whatever this server has a credential for."""

RECORDINGS: Mapping[str, frozenset[str]] = MappingProxyType({"replay": frozenset({"approvals", "first-session"})})
"""Agents for which a model is a recording: one that they bring, or a file of the repository."""

log = structlog.get_logger()


class HttpModelGateway:
    """See ModelGateway."""

    def __init__(self, shared: Shared | None, credentials: Mapping[Format, Credential], rules: Rules) -> None:
        self._shared = shared
        self._credentials = credentials
        self._rules = rules
        self._bills: set[ModelBill] = set()

    def check(self, provider: str, model: str) -> None:
        """See ModelGateway."""
        wanted = FORMATS.get(provider)
        if wanted is None:
            wanted = frozenset(Format)
        if wanted and not wanted & self._credentials.keys():
            raise ProviderNotConfigured(provider, [name for form in Format if form in wanted for name in VARIABLES[form]])
        if model and (reason := self._why_not(provider, model, wanted)):
            raise ModelNotAllowed(model, reason)

    def _why_not(self, provider: str, model: str, wanted: frozenset[Format]) -> str:
        if provider not in RECORDINGS:
            return why_not(model, self._rules, wanted & self._credentials.keys())
        if model in RECORDINGS[provider] or model.endswith(".jsonl"):
            return ""
        bundled = ", ".join(sorted(RECORDINGS[provider]))
        return f"is no recording, and {provider} calls no model: it plays {bundled}, or a file of the repository (*.jsonl)"

    def serves(self, provider: str) -> bool:
        """See ModelGateway."""
        return bool(FORMATS.get(provider, frozenset(Format)) & self._credentials.keys())

    @asynccontextmanager
    async def open(self, door: ModelDoor, *, provider: str, bill: ModelBill) -> AsyncIterator[None]:
        """See ModelGateway."""
        from server.models.door import listening
        from server.models.exchange import Exchange

        if self._shared is None:
            raise ProviderNotConfigured(provider, [])
        formats = FORMATS.get(provider, frozenset(Format)) & self._credentials.keys()
        self._bills.add(bill)
        try:
            async with listening(door, Exchange(self._shared, token=door.token, formats=frozenset(formats), bill=bill)):
                yield
        finally:
            self._bills.discard(bill)

    def secrets_changed(self) -> None:
        """A credential was renewed: every turn must keep it out of its events."""
        for bill in self._bills:
            bill.secrets_changed()


@dataclass(frozen=True)
class Models:
    """What this package is for."""

    gateway: ModelGateway
    namer: Namer | None
    """None when names are made by rule."""


@asynccontextmanager
async def open_models(settings: Settings, tracer: Tracer = _NO_TRACER) -> AsyncIterator[Models]:
    """From settings. Errors: ModelsUnfit."""
    credentials = credentials_of(settings)
    try:
        prices = Prices(settings.model_prices)
    except ValueError as error:
        raise ModelsUnfit(f"TREADLE_MODEL_PRICES: {error}") from error
    rules = Rules(_listed(settings.models), frozenset(_listed(settings.model_fields_allowed)))
    urls = {Format.ANTHROPIC: _url("ANTHROPIC", settings.anthropic_url), Format.OPENAI: _url("OPENAI", settings.openai_url)}
    if not credentials:
        # No request can be made: then what makes requests need not be loaded.
        yield Models(HttpModelGateway(None, credentials, rules), None)
        return
    from server.models.exchange import Shared
    from server.models.room import Room
    from server.models.upstream import Upstream

    gateway: HttpModelGateway | None = None

    def renewed() -> None:
        if gateway is not None:
            gateway.secrets_changed()

    async with _http() as http:
        upstreams = {
            form: Upstream(
                http,
                urls[form],
                credential,
                retries=settings.model_retries,
                longest_pause=settings.model_retry_seconds,
                first_byte_seconds=settings.model_first_byte_seconds,
                renewed=renewed,
            )
            for form, credential in credentials.items()
        }
        room = Room(_ROOM_BYTES)
        shared = Shared(upstreams, rules, prices, room, settings.model_request_bytes, settings.model_silence_seconds, tracer)
        gateway = HttpModelGateway(shared, credentials, rules)
        try:
            yield Models(gateway, _namer(settings, upstreams, prices))
        finally:
            for credential in credentials.values():
                await credential.close()


def _namer(settings: Settings, upstreams: Mapping[Format, Upstream], prices: Prices) -> Namer | None:
    from server.models.namer import DEFAULT_MODELS, ModelNamer

    model = settings.naming_model or next(DEFAULT_MODELS[form] for form in Format if form in upstreams)
    form = format_of(model) or Format.OPENAI
    if not settings.naming or form not in upstreams:
        return None
    return ModelNamer(upstreams[form], form, model, prices, seconds=settings.naming_seconds)


@asynccontextmanager
async def _http() -> AsyncIterator[aiohttp.ClientSession]:
    """Certificates are verified, cookies are not kept, and nothing of the environment (a proxy, a .netrc) has a say."""
    import aiohttp

    # How long an answer may take has limits of its own (see Patience).
    timeout = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=_CONNECT_SECONDS, sock_read=None)
    async with aiohttp.ClientSession(
        timeout=timeout,
        connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=60),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        raise_for_status=False,
    ) as http:
        yield http


def _listed(text: str) -> list[str]:
    return [part for part in (part.strip() for part in text.split(",")) if part]


def _url(name: str, url: str) -> str:
    """Errors: ModelsUnfit."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ModelsUnfit(f"TREADLE_{name}_URL: an address like https://api.example.org is needed, without user, query and fragment")
    if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        log.warning("models.not_encrypted", setting=f"TREADLE_{name}_URL", host=parts.hostname)
    return url
