"""The composition root: the one place where everything meets."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import structlog

from server import telemetry
from server.agents import COAUTHORS, Choice, default_agent
from server.api.event_codec import ProtobufEventCodec
from server.api.server import Api, open_api
from server.codehosts.github_webhooks import GitHubWebhooks
from server.codehosts.opened import KnownHosts, open_githubs
from server.config import Settings
from server.db.stores import Stores, open_postgres
from server.descriptors import allow_enough
from server.egress.egress import open_egress
from server.git.live import OpenedFiles
from server.git.remote_url import RemoteUrls
from server.git.repository import open_git
from server.identity.authenticator import ApiKeyAuthenticator
from server.identity.vault import open_vault
from server.kernel.credentials import Credentials
from server.kernel.disposal import Disposal
from server.kernel.edits import Edits
from server.kernel.execute import Execute
from server.kernel.files import Files
from server.kernel.hosting import Hosting
from server.kernel.inputs import Inputs
from server.kernel.inspection import Inspections
from server.kernel.journal import Journal, Notes
from server.kernel.live import Live
from server.kernel.model_use import Budget
from server.kernel.places import Line
from server.kernel.ports.input_store import Starter
from server.kernel.ports.launcher import Launcher
from server.kernel.ports.repositories import Repositories
from server.kernel.pull_requests import PullRequests
from server.kernel.pushes import Pushes
from server.kernel.quota import Quota
from server.kernel.retention import Policy, Retention
from server.kernel.retrieval import Retrieval
from server.kernel.rush import Rush
from server.kernel.sessions import Sessions
from server.kernel.states import States
from server.kernel.supervisor import Limits, Ports, Supervisor, Treasury
from server.kernel.time_travel import TimeTravel
from server.kernel.trailers import Trailers
from server.kernel.uploads import Uploads
from server.kernel.webhooks import Webhooks
from server.models.gateway import open_models
from server.parts import running
from server.replica import held_replica
from server.secrets import known_secrets
from server.tracing import open_tracer

CHECKPOINTS_AT_ONCE = 2
"""Workspaces that are read while their agents work."""

log = structlog.get_logger()


@dataclass(frozen=True)
class Server:
    """The running main server."""

    api: Api
    supervisor: Supervisor
    launcher: Launcher
    stores: Stores
    notes: Notes
    """What is said in logs between turns."""
    agent: Choice
    """The agent of a session that names none."""
    failed: asyncio.Future[None]
    """Done, with its error, when a part that everything stands on has ended."""


@asynccontextmanager
async def compose(settings: Settings, *, mark: Callable[[str], None] | None = None) -> AsyncIterator[Server]:
    """Everything, opened in order and closed in reverse. `mark` is told at every named point of a turn's life.
    Errors: StartRefused, StoreUnavailable, RuntimeError when an address is taken."""
    allow_enough(settings)
    async with AsyncExitStack() as stack:
        replica = stack.enter_context(held_replica(settings.data_dir))
        tracer = await stack.enter_async_context(open_tracer(settings.otlp_endpoint, replica=replica))
        stores = await stack.enter_async_context(open_postgres(settings))
        objects = await stack.enter_async_context(_adapter("object_store", settings.object_store, settings))
        hosts = RemoteUrls(
            hosts=settings.git_allowed_hosts, prefixes=settings.git_allowed_prefixes, plain_credentials=settings.git_plain_credentials
        )
        githubs = await stack.enter_async_context(open_githubs(settings))
        credentials = Credentials(stores.credentials, stores.logins, open_vault(settings), hosts, githubs.tokens)
        stack.push_async_callback(credentials.finished)
        await credentials.renew_seals()
        repositories = await stack.enter_async_context(open_git(settings, token=credentials.token_for))
        launcher = await stack.enter_async_context(_adapter("launcher", settings.launcher, settings))
        models = await stack.enter_async_context(open_models(settings, tracer))
        egress = await stack.enter_async_context(open_egress(settings))
        point = _points(mark)
        codec = ProtobufEventCodec()
        journal = Journal(stores.events, stores.turns, codec, mark=point, heartbeat_seconds=settings.heartbeat_seconds)
        scratch = _scratch(settings)
        agent = default_agent(settings, launcher.capability.providers)
        limits = _limits(settings, replica=replica, scratch=scratch, agent=agent.name)
        secrets = known_secrets(settings, os.environ)
        rush = Rush()
        quota = Quota(
            stores.history, tenant_bytes=settings.storage_tenant_mib * 1024 * 1024, refused=telemetry.QUOTA_REFUSALS.inc
        )  # fmt: skip
        disposal = Disposal(stores.history, objects, retry_seconds=settings.snapshot_retry_seconds)
        retrieval = Retrieval(stores.history, repositories, objects, scratch=scratch)
        uploads = Uploads(
            stores.history,
            stores.turns,
            repositories,
            objects,
            scratch=scratch,
            retry_seconds=settings.snapshot_retry_seconds,
        )
        retention = Retention(
            stores.history,
            repositories,
            objects,
            retrieval,
            policy=Policy(timedelta(days=settings.retention_days) if settings.retention_days else None),
            scratch=scratch,
            mark=point,
            expired=disposal.call,
            waiting=telemetry.RETENTION_WAITING.set,
        )
        notes = Notes(stores.history, journal, codec, secrets=secrets, recorded=uploads.add)
        ports = Ports(
            turns=stores.turns,
            queue=stores.queue,
            desk=stores.desk,
            journal=journal,
            codec=codec,
            repositories=repositories,
            trees=repositories.trees,
            retrieval=retrieval,
            notes=notes,
            history=stores.history,
            recorded=uploads.add,
            checkpointing=Line(most=CHECKPOINTS_AT_ONCE),
            quota=quota,
            launcher=launcher,
            objects=objects,
            models=models.gateway,
            egress=egress,
            namer=models.namer,
            treasury=Treasury(
                stores.usage,
                turn=_budget(settings, "turn"),
                day=_budget(settings, "day"),
                kept=timedelta(days=settings.model_use_days),
            ),
            secrets=secrets,
            mark=point,
            rush=rush,
            tracer=tracer,
            waited=telemetry.TURN_WAIT_SECONDS.observe,
        )
        supervisor = Supervisor(ports, limits)
        telemetry.TURNS_ACTIVE.set_function(lambda: supervisor.active)
        telemetry.TURNS_WAITING.set_function(lambda: supervisor.waiting)
        inspections = Inspections(repositories)
        execute = Execute(
            stores.sessions,
            stores.turns,
            inspections,
            supervisor,
            rush=rush,
            tracer=tracer,
            providers=lambda: launcher.capability.providers,
            models=models.gateway,
            egress=egress,
            quota=quota,
            default_provider=agent.name,
            lease_seconds=settings.lease_seconds,
        )
        sessions = Sessions(
            stores.sessions, stores.turns, journal, inspections, supervisor, repositories=repositories, egress=egress, deleted=disposal.call
        )
        inputs = Inputs(
            stores.inputs,
            stores.sessions,
            supervisor,
            models=models.gateway,
            quota=quota,
            starter=Starter(replica, settings.lease_seconds, agent.name),
            mark=point,
            tracer=tracer,
        )
        states = States(stores.sessions, stores.history, trees=repositories.trees, repositories=repositories, retrieval=retrieval)
        live = Live(supervisor, launcher, OpenedFiles(), codec)
        edits = Edits(
            stores.sessions,
            stores.history,
            notes,
            states,
            quota=quota,
            trees=repositories.trees,
            live=live,
            codec=codec,
            trailers=limits.trailers,
            upload_bytes=settings.upload_mib * 1024 * 1024,
        )
        await stack.enter_async_context(_legacy_writer(settings, stores, repositories, scratch))
        code_hosts = KnownHosts(githubs.apis, hosts, repositories, credentials.token_for)
        pull_requests = PullRequests(stores.pull_requests, code_hosts, notes, journal, codec, replica=replica, call=supervisor.call)
        webhooks = Webhooks(
            GitHubWebhooks(settings.github_webhook_secrets, repositories),
            stores.pull_requests,
            pull_requests,
            repositories,
            forget_installation=credentials.forget_installation,
        )
        failed = await stack.enter_async_context(
            running(
                {"journal": journal.run, "supervisor": supervisor.run, "uploads": uploads.run},
                chores={
                    "disposal": disposal.run,
                    "retention": retention.run,
                    "pull_requests": pull_requests.run,
                    "webhooks": webhooks.run,
                },
                at_the_end=supervisor.detach,
            )
        )
        await supervisor.recover()
        for calls in (execute, inputs, edits):  # those that go on without their callers
            stack.push_async_callback(calls.finished)
        api = await stack.enter_async_context(
            open_api(
                listen=settings.listen,
                write_seconds=settings.write_timeout_seconds,
                sessions=sessions,
                execute=execute,
                inputs=inputs,
                time_travel=TimeTravel(
                    stores.sessions,
                    stores.history,
                    notes,
                    retrieval,
                    repositories=repositories,
                    trees=repositories.trees,
                    inspections=inspections,
                    egress=egress,
                    quota=quota,
                    codec=codec,
                    recorded=uploads.add,
                ),
                pushes=Pushes(stores.sessions, repositories, notes, codec, retrieval=ports.retrieval, branch_prefix=settings.branch_prefix),
                credentials=credentials,
                hosting=Hosting(stores.sessions, repositories, hosts, code_hosts, pull_requests),
                webhooks=webhooks,
                files=Files(stores.sessions, states, trees=repositories.trees, repositories=repositories, live=live),
                edits=edits,
                authenticator=ApiKeyAuthenticator(stores.keys),
                tracer=tracer,
            )
        )
        yield Server(api, supervisor, launcher, stores, notes, agent, failed)


def _scratch(settings: Settings) -> Path:
    scratch = settings.data_dir / "scratch"
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    return scratch


def _limits(settings: Settings, *, replica: str, scratch: Path, agent: str) -> Limits:
    return Limits(
        replica=replica,
        scratch=scratch,
        branch_prefix=settings.branch_prefix,
        trailers=Trailers(
            coauthor="" if settings.commit_coauthor == "agent" else settings.commit_coauthor,
            coauthors=COAUTHORS if settings.commit_coauthor == "agent" else {},
            session_link=settings.session_link,
        ),
        turn_seconds=settings.turn_timeout_seconds,
        workspace_bytes=settings.worker_disk_mib * 1024 * 1024,
        workspace_files=settings.worker_files,
        agent_steps=settings.agent_steps,
        lease_seconds=settings.lease_seconds,
        import_retry_seconds=settings.import_retry_seconds,
        checkpoint_seconds=settings.checkpoint_seconds,
        max_turns=settings.max_turns,
        default_provider=agent,
        request_seconds=settings.request_timeout_seconds,
    )


def _points(mark: Callable[[str], None] | None) -> Callable[[str], None]:
    measure = telemetry.StepMetrics()
    if mark is None:
        return measure

    def point(name: str) -> None:
        measure(name)
        mark(name)

    return point


def _budget(settings: Settings, of: str) -> Budget:
    return Budget(getattr(settings, f"budget_{of}_tokens"), round(getattr(settings, f"budget_{of}_usd") * 1_000_000))


def _legacy_writer(settings: Settings, stores: Stores, repositories: Repositories, scratch: Path) -> AbstractAsyncContextManager[None]:
    """What writes to the bucket of the old system, if there is one. Only then is it loaded: the client of buckets takes its time."""
    if not settings.legacy_bucket:
        return nullcontext()
    from server.legacy.writing import open_writer

    return open_writer(settings, stores.legacy, repositories, scratch)


def _adapter(port: str, name: str, settings: Settings) -> AbstractAsyncContextManager[Any]:
    (found,) = entry_points(group=f"treadle.{port}", name=name)
    adapter: AbstractAsyncContextManager[Any] = found.load()(settings)
    return adapter
