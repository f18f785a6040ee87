"""What must be true before a spawner serves that makes services of a Swarm."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import structlog

from server.spawner.engine import Engine, EngineError, RegistryDenies
from server.spawner.readiness import Ready, known_providers, providers_with_image, stale_images
from server.spawner.settings import SpawnerSettings
from server.spawner.swarm import Swarm, SwarmUnfit
from server.spawner.swarm_template import UID, SwarmTemplate

_TRIES, _PAUSE_SECONDS = 3, 2.0
_MIB = 1024 * 1024

log = structlog.get_logger()


def names_registry(image: str) -> bool:
    """By the rule of engines: what has no dot and no port in its first part is one of their own, or of their default registry."""
    first, _, rest = image.partition("/")
    return bool(rest) and ("." in first or ":" in first or first == "localhost")


async def _digests(engine: Engine, template: SwarmTemplate) -> dict[str, str]:
    """Of the agents whose image the registry has; it need not have all. Errors: SwarmUnfit where it does not say whether it has one."""
    known = known_providers()
    answers = await asyncio.gather(*(_digest(engine, template.image(provider)) for provider in known))
    found = {provider: answer for provider, answer in zip(known, answers, strict=True) if isinstance(answer, str) and answer}
    for provider, answer in zip(known, answers, strict=True):
        image = template.image(provider)
        # One that shows us others, and denies this, has none for us.
        if isinstance(answer, EngineError) and not (found and isinstance(answer, RegistryDenies)):
            raise SwarmUnfit(
                f"the registry does not say whether it has {image}: {answer}; where it asks who comes, `docker login` and DOCKER_CONFIG, "
                "or the secret for it, tell that"
            )
        if provider not in found:
            log.info("image.not_in_registry", image=image, why=str(answer))
    return found


async def _digest(engine: Engine, image: str) -> str | EngineError:
    """As the engine tells it, asked again where it may have been an accident."""
    tried = 0
    while True:
        try:
            return await engine.digest_in_registry(image)
        except EngineError as error:
            tried += 1
            if isinstance(error, RegistryDenies) or tried == _TRIES:
                return error
        await asyncio.sleep(_PAUSE_SECONDS)


async def look_at_swarm(engine: Engine, settings: SpawnerSettings) -> tuple[SwarmTemplate, Ready]:
    """The engine, its Swarm, the network and the images. Errors: StartRefused."""
    swarm = Swarm(engine)
    try:
        facts = await engine.facts()
        if not await swarm.is_manager():
            raise SwarmUnfit(
                "TREADLE_SPAWNER_KIND: the engine is no manager of a Swarm; `docker swarm init` makes one, or run the spawner on one"
            )
        network = await swarm.network(settings.swarm_network)
        if network is None or network["Driver"] != "overlay" or not network["Internal"]:
            raise SwarmUnfit(
                f"TREADLE_SWARM_NETWORK: the Swarm has no internal overlay network {settings.swarm_network!r}; "
                f"`docker network create --driver overlay --internal {settings.swarm_network}` makes it"
            )
        if settings.worker_runtime:
            raise SwarmUnfit("TREADLE_WORKER_RUNTIME: a service of a Swarm has no runtime of its own; make it the default of the engines")
        if not facts.seccomp:
            raise SwarmUnfit("the engine filters no system calls (seccomp); it must not be run with --seccomp-profile=unconfined")
        template = SwarmTemplate(settings, network["Id"])
        if template.reserved_mib > (most := await swarm.largest_machine() // _MIB):
            remedy = "no turn begins before a machine that takes tasks has that much; lower TREADLE_WORKER_RESERVED_MIB, or add a machine"
            log.warning("reservation.too_large", reserved_mib=template.reserved_mib, largest_machine_mib=most, remedy=remedy)
        if names_registry(settings.worker_image):
            template = replace(template, digests=await _digests(engine, template))
        # An image need not be on this machine, but then nothing is known of it.
        here = await providers_with_image(engine, template, needed=not template.digests)
        stale = await stale_images(engine, template, here)
        providers = tuple(sorted({*here, *template.digests}))
    except EngineError as error:
        raise SwarmUnfit(str(error)) from None
    detail = (
        f"Swarm of Docker {facts.version}, network {settings.swarm_network} for the carrier only, uid {UID}, "
        f"{settings.worker_cpus:g} CPU, {settings.worker_memory_mib} MiB, {settings.worker_pids} processes; "
        "/tmp and home on the disk, swap not limited, no runtime of its own"  # noqa: S108
    )
    return template, Ready(providers, detail, stale)
