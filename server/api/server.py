"""The gRPC server: services, health, reflection, limits, and how it stops."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH
from grpc_reflection.v1alpha import reflection_pb2_grpc
from grpc_reflection.v1alpha.reflection import SERVICE_NAME as REFLECTION

from server.api.credential_service import SERVICE as CREDENTIALS
from server.api.credential_service import CredentialService
from server.api.downloads import Downloads
from server.api.edge import MAX_REQUEST_BYTES, KeyCheck, NoSuchCall, Service, generic_handler
from server.api.event_stream_service import SERVICE as EVENT_STREAMS
from server.api.event_stream_service import EventStreamService
from server.api.file_service import SERVICE as FILES
from server.api.file_service import FileService
from server.api.git_service import SERVICE as GIT
from server.api.git_service import GitService
from server.api.keyless import Health, Reflection
from server.api.session_service import SERVICE, SessionService
from server.api.streams import Streams
from server.api.webhook_service import SERVICE as WEBHOOKS
from server.api.webhook_service import WebhookService
from server.kernel.credentials import Credentials
from server.kernel.edits import Edits
from server.kernel.execute import Execute
from server.kernel.files import Files
from server.kernel.hosting import Hosting
from server.kernel.inputs import Inputs
from server.kernel.ports.authenticator import Authenticator
from server.kernel.ports.tracer import Tracer
from server.kernel.pushes import Pushes
from server.kernel.sessions import Sessions
from server.kernel.time_travel import TimeTravel
from server.kernel.webhooks import Webhooks

GRACE_SECONDS = 10.0

OPTIONS = (
    # The gateway passes a JSON call's URL on as metadata, and takes 60 KiB of headers: what it lets in is answered by us, and typed.
    ("grpc.max_metadata_size", 64 * 1024),
    ("grpc.absolute_max_metadata_size", 64 * 1024),
    ("grpc.max_receive_message_length", 2 * MAX_REQUEST_BYTES),
    ("grpc.so_reuseport", 0),
    # Clients may ping every 10 s, also without calls: the default answers the third such ping with `too_many_pings`.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
)


@dataclass(frozen=True)
class Api:
    """The running API."""

    address: str
    """`host:port` that it listens on."""
    _health: Health
    _streams: Streams

    async def finish(self, *, seconds: float) -> None:
        """Let streams come to their own end, which they do when no turn runs any more; those that do not in time are left to `drain`."""
        await self._streams.finish(seconds)

    async def drain(self) -> None:
        """Say no to health checks and end the streams; unary calls go on."""
        self._health.drain()
        await self._streams.drain()


@asynccontextmanager
async def open_api(
    *,
    listen: str,
    write_seconds: float,
    sessions: Sessions,
    execute: Execute,
    inputs: Inputs,
    time_travel: TimeTravel,
    pushes: Pushes,
    credentials: Credentials,
    hosting: Hosting,
    webhooks: Webhooks,
    files: Files,
    edits: Edits,
    authenticator: Authenticator,
    tracer: Tracer,
) -> AsyncIterator[Api]:
    """Serve on `listen` (`host:port`, port 0 for any). Errors: RuntimeError when the address is taken."""
    server = grpc.aio.server(options=OPTIONS)
    streams = Streams(write_seconds=write_seconds)
    services: dict[ServiceDescriptor, Service] = {
        SERVICE: SessionService(sessions, execute, inputs, pushes=pushes, time_travel=time_travel, streams=streams),
        EVENT_STREAMS: EventStreamService(sessions, execute, streams, authenticator),
        CREDENTIALS: CredentialService(credentials),
        GIT: GitService(hosting),
        WEBHOOKS: WebhookService(webhooks),
        FILES: FileService(files, edits, Downloads(write_seconds=write_seconds), read_seconds=write_seconds),
    }
    names = [descriptor.full_name for descriptor in services]
    health = Health(("", *names))
    server.add_generic_rpc_handlers(
        [generic_handler(descriptor, service, authenticator, tracer) for descriptor, service in services.items()]
    )
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    reflection = Reflection((*names, HEALTH, REFLECTION))
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflection, server)
    server.add_generic_rpc_handlers((KeyCheck(authenticator), NoSuchCall()))
    host, _, _ = listen.rpartition(":")
    port = server.add_insecure_port(listen)
    await server.start()
    api = Api(f"{host}:{port}", health, streams)
    try:
        yield api
    finally:
        await api.drain()
        await server.stop(GRACE_SECONDS)
