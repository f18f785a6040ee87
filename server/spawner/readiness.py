"""What must be true before a spawner serves: the engine, its limits, the images, and a wall that was seen to hold."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from server.adapters import installed, not_installed
from server.refusal import StartRefused
from server.sandbox import inside
from server.sandbox.probe import OWN_NAMESPACES, breach
from server.spawner.engine import Engine, EngineAway, EngineError, EngineRefused, Facts
from server.spawner.root import PROBE
from server.spawner.settings import SpawnerSettings
from server.spawner.slots import build
from server.spawner.swarm_template import SwarmTemplate
from server.spawner.template import Template
from server.workers.inside import WORKSPACE
from server.workers.slot import FULL, Slot, delete_tree

_PROBE_SECONDS = 20.0
_MIB = 1024 * 1024
_PID_MAX = Path("/proc/sys/kernel/pid_max")
_FULL = "no space left on device"
PROBE_LABEL, PROBE_NAME = "treadle.probe", "treadle-probe-"
"""By them any spawner of this engine deletes what a probe left behind that was killed."""
_IMAGES = Path(__file__).parents[2] / "tools" / "images"
_MARK = Path("/usr/share/treadle/worker-content")
"""In the server's image: the mark of the workers' images that were built with it."""
_PYTHON = "/opt/treadle/bin/python"
"""Where worker/Dockerfile puts it."""


class EngineUnfit(StartRefused):
    """No worker's container can be made here, or none that holds; the message says what to do."""


@dataclass(frozen=True)
class Ready:
    """What was found."""

    providers: tuple[str, ...]
    detail: str
    stale: tuple[str, ...] = ()
    """Those whose image holds another version of the worker than this checkout, or than was built with the server's image."""


class NoSpace(EngineUnfit):
    """The wall could not be tried, since a disk is full."""


async def look(engine: Engine, template: Template) -> Ready:
    """Everything but the wall. Errors: EngineUnfit."""
    try:
        facts = await engine.facts()
        _check_limits(facts, template)
        providers = await providers_with_image(engine, template)
        stale = await stale_images(engine, template, providers)
    except EngineError as error:
        raise EngineUnfit(str(error)) from None
    return Ready(providers, _detail(facts, template), stale)


async def stale_images(engine: Engine, template: Template | SwarmTemplate, providers: Sequence[str]) -> tuple[str, ...]:
    """By the mark that `tools/images` gives; images of somebody else's making have none. Errors: EngineError."""
    marks = {provider: await engine.label(template.image(provider), "treadle.content") for provider in providers}
    ours = await asyncio.to_thread(_content) if any(marks.values()) else ""
    return tuple(provider for provider, mark in marks.items() if ours and mark and mark != ours)


def _content() -> str:
    """Empty where this is neither our image nor a checkout."""
    if _MARK.exists():
        return _MARK.read_text().strip()
    try:
        done = subprocess.run([_IMAGES, "--content"], capture_output=True, text=True, timeout=_PROBE_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _check_limits(facts: Facts, template: Template) -> None:
    settings = template.settings
    if settings.worker_runtime and settings.worker_runtime not in facts.runtimes:
        known = ", ".join(sorted(facts.runtimes))
        raise EngineUnfit(f"TREADLE_WORKER_RUNTIME: the engine has no runtime {settings.worker_runtime!r}; it has: {known}")
    if settings.worker_cpus > facts.processors:
        raise EngineUnfit(f"TREADLE_WORKER_CPUS: {settings.worker_cpus:g} are more than the {facts.processors} that the engine has")
    # The default is more than a small machine has, and then its own memory is the limit.
    if "worker_memory_mib" in settings.model_fields_set and settings.worker_memory_mib > (most := facts.memory // _MIB):
        raise EngineUnfit(
            f"TREADLE_WORKER_MEMORY_MIB: {settings.worker_memory_mib} are more than the {most} that the engine's machine has, so "
            "nothing would be limited; set it so low that all workers that run at once find room"
        )
    if settings.worker_pids > (most := int(_PID_MAX.read_text())):
        raise EngineUnfit(
            f"TREADLE_WORKER_PIDS: {settings.worker_pids} are more than the {most} that this machine has ({_PID_MAX}); set fewer"
        )
    if facts.cannot_limit:
        lacking = ", ".join(facts.cannot_limit)
        raise EngineUnfit(
            f"the engine cannot limit {lacking} of containers: the kernel's control groups for it are off (see `docker info`); as kernel "
            "parameters: cgroup_enable=memory swapaccount=1"
        )
    if not facts.seccomp:
        raise EngineUnfit("the engine filters no system calls (seccomp), since its kernel or its build cannot; use one that can")


def known_providers() -> Sequence[str]:
    """All agents, whether or not they are installed here: they are in their images."""
    return sorted({*installed("provider"), *not_installed("provider")})


async def providers_with_image(engine: Engine, template: Template | SwarmTemplate, *, needed: bool = True) -> tuple[str, ...]:
    """The known agents that have an image here. Errors: EngineUnfit where one is needed, EngineError."""
    known = known_providers()
    found = tuple([provider for provider in known if await engine.has_image(template.image(provider))])
    if needed and not found:
        raise EngineUnfit(
            f"the engine has no image for any worker ({', '.join(map(template.image, known))}): `make images` builds them, and "
            "TREADLE_WORKER_IMAGE names others"
        )
    return found


async def check_wall(engine: Engine, template: Template, provider: str) -> None:
    """Make a container as every worker's is, and attack the wall from inside. Errors: EngineUnfit, NoSpace."""
    try:
        await _attack(engine, template, template.image(provider))
    except (EngineUnfit, EngineError) as error:
        if _FULL in str(error).lower():
            raise NoSpace(f"no container can be tried: {error}") from None
        raise (error if isinstance(error, EngineUnfit) else EngineUnfit(str(error))) from None
    except OSError as error:
        kind = NoSpace if error.errno in FULL else EngineUnfit
        raise kind(f"no container can be tried: {error.filename or template.settings.slots_dir}: {error.strerror}") from None


async def _attack(engine: Engine, template: Template, image: str) -> None:
    user = template.settings.probe_user
    with _probe_slot(template.settings.slots_dir, user) as slot:
        name = f"treadle{slot.path.name.replace('.', '-')}"
        hidden = slot.path / "secret"
        command = [_PYTHON, "-I", "-S", "-c", inspect.getsource(inside), str(hidden), str(WORKSPACE)]
        configuration = template.configuration(user, {PROBE_LABEL: ""}) | {"entrypoint": command}
        try:
            try:
                await engine.create(name, image, configuration, template.host(slot, user))
            except EngineRefused as error:
                raise EngineUnfit(_why_not_made(str(error), template)) from None
            told = await _ran(engine, name)
        finally:
            with contextlib.suppress(EngineAway):
                await engine.remove(name)
        written = slot.workspace / "probe"
        if not written.exists() or written.stat().st_uid != user[0]:
            raise EngineUnfit(_other_root(template))
    facts = json.loads(told)
    complaint = breach(facts, uid=user[0], namespaces=OWN_NAMESPACES, scratch=_scratch(template))
    # Another runtime may be a kernel of its own, which refuses the calls without a filter.
    if complaint is None and facts["seccomp"] != "2" and not template.settings.worker_runtime:
        complaint = "no filter for system calls (seccomp) is in force"
    if complaint is None and not facts["root_is_read_only"]:
        complaint = "the image's files can be written inside"
    if complaint is not None:
        raise EngineUnfit(f"the wall of containers does not hold: {complaint}")


async def _ran(engine: Engine, name: str) -> str:
    """What the container printed. Errors: EngineUnfit."""
    try:
        await engine.start(name, b"")
        await engine.ended(name, seconds=_PROBE_SECONDS)
    except EngineRefused as error:
        raise EngineUnfit(f"a container cannot be started: {error}") from None
    state, output = await engine.inspect(name), await engine.output(name)
    if state is None or state.code != 0:
        raise EngineUnfit(f"Python does not run in a worker's container (is the image of this version? `make images`): {output[-300:]}")
    return output


def _why_not_made(said: str, template: Template) -> str:
    if "bind source path does not exist" in said:
        return _other_root(template)
    return f"the engine makes no container as workers need it: {said}"


def _other_root(template: Template) -> str:
    return (
        f"the engine sees another {template.settings.slots_dir} than this process: TREADLE_WORKER_ROOT must be the same path inside and "
        "outside, so mount it into the spawner's container (and the server's) at exactly that path"
    )


def _scratch(template: Template) -> dict[str, int]:
    # The run directory is the slot's, as the workspace is; message queues have no size.
    return {**template.scratch, "/run/treadle": sys.maxsize, "/dev/mqueue": 0}


@contextmanager
def _probe_slot(root: Path, owner: tuple[int, int]) -> Iterator[Slot]:
    """Hidden, so that nobody takes it for a worker's."""
    slot = Slot(root / f"{PROBE}{secrets.token_hex(4)}")
    try:
        build(slot, server=(os.geteuid(), os.getegid()), user=owner)
        if os.geteuid() == 0:
            os.chown(slot.workspace, *owner)
        yield slot
    finally:
        with contextlib.suppress(FileNotFoundError):
            delete_tree(slot.path)


def _detail(facts: Facts, template: Template) -> str:
    settings = template.settings
    return (
        f"Docker {facts.version}{f' with {settings.worker_runtime}' if settings.worker_runtime else ''}, no network, {_whose(settings)}, "
        f"{settings.worker_cpus:g} CPU, {settings.worker_memory_mib} MiB, {settings.worker_pids} processes; "
        "probed by running it"
    )


def _whose(settings: SpawnerSettings) -> str:
    return f"one of the uids {settings.worker_uids} for each worker" if os.geteuid() == 0 else f"uid {os.geteuid()}"
