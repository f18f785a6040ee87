"""What every worker's service in a Swarm is like. Nobody who asks for one can change anything here.

A Swarm has no `network none`, no no-new-privileges, no limit of swap and no sizes of volumes for a service. The carrier, which is root in
the container for that, makes up for the first two (carrier/wall.py), and the server's look at the disk for the last.
The carrier also gives the worker the filter of system calls that other launchers have (server/sandbox/calls.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from server.sandbox.bubblewrap import HOME
from server.spawner.settings import SpawnerSettings
from server.spawner.template import PATH
from server.workers.inside import ENVIRONMENT, MODELS, RUN, WORKSPACE

_MIB = 1024 * 1024
_OPEN_FILES = 16_384
_SOCKETS_BYTES = _MIB
_GRACE_NANOSECONDS = 1_000_000_000
UID = 10001
"""That has a name in the images. What the kernel counts per user, workers of one machine share."""
_SECRET = "treadle"  # noqa: S105 the name of a file
# To make the directories the worker's, go to a network without a way out (SYS_ADMIN, and NET_ADMIN for loopback) and keep the worker's user
# from ever being another; then only what the carrier's wall.py keeps is left, and for the worker nothing.
_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "NET_ADMIN", "SETGID", "SETPCAP", "SETUID", "SYS_ADMIN")


@dataclass(frozen=True)
class SwarmTemplate:
    """By the spawner's settings."""

    settings: SpawnerSettings
    network: str
    """Its id."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """Of the images that are in a registry: each machine shall have the same."""

    @property
    def reserved_mib(self) -> int:
        """The memory that a machine must have free for a worker."""
        return min(self.settings.worker_reserved_mib, self.settings.worker_memory_mib)

    def image(self, provider: str) -> str:
        """The image of an agent."""
        named = self.settings.worker_image.replace("{provider}", provider)
        return f"{named}@{self.digests[provider]}" if provider in self.digests else named

    def task(self, provider: str, labels: Mapping[str, str], secret: tuple[str, str]) -> dict[str, Any]:
        """The task template; `secret`: its id and name."""
        settings = self.settings
        environment = {"PATH": PATH, "HOME": str(HOME), "USER": "agent", "LANG": "C.UTF-8", **ENVIRONMENT}
        return {
            "ContainerSpec": {
                "Image": self.image(provider),
                "Command": ["/opt/treadle/bin/python", "-I", "-B", "-m", "carrier", f"/run/secrets/{_SECRET}", str(UID)],
                "Dir": "/",
                "User": "0:0",
                "Hostname": "worker",
                "Env": [f"{name}={value}" for name, value in environment.items()],
                "Labels": dict(labels),
                "Init": True,
                "ReadOnly": True,
                "CapabilityDrop": ["ALL"],
                "CapabilityAdd": [f"CAP_{name}" for name in _CAPABILITIES],
                "StopGracePeriod": _GRACE_NANOSECONDS,
                # Nobody answers there: names of the world are not asked for by anybody in here.
                "DNSConfig": {"Nameservers": ["127.0.0.1"], "Options": ["attempts:1", "timeout:1"]},
                "Ulimits": [
                    {"Name": "nofile", "Soft": _OPEN_FILES, "Hard": _OPEN_FILES},
                    {"Name": "core", "Soft": 0, "Hard": 0},
                ],
                # Volumes without a name: they are on the machine's disk, and go with the container.
                "Mounts": [
                    *({"Type": "volume", "Target": path} for path in (str(WORKSPACE), str(HOME), "/tmp")),  # noqa: S108
                    *(
                        {"Type": "tmpfs", "Target": str(path), "TmpfsOptions": {"SizeBytes": _SOCKETS_BYTES, "Mode": 0o755}}
                        for path in (RUN, MODELS)
                    ),
                ],
                "Secrets": [
                    {
                        "SecretID": secret[0],
                        "SecretName": secret[1],
                        "File": {"Name": _SECRET, "UID": "0", "GID": "0", "Mode": 0o400},
                    }
                ],
            },
            "Resources": {
                "Limits": {
                    "MemoryBytes": settings.worker_memory_mib * _MIB,
                    "NanoCPUs": round(settings.worker_cpus * 1_000_000_000),
                    "Pids": settings.worker_pids,
                },
                # By this the scheduler sees how full a machine is.
                "Reservations": {"MemoryBytes": self.reserved_mib * _MIB},
            },
            # Once, and not again in another place: what was done is gone with the first.
            "RestartPolicy": {"Condition": "none", "MaxAttempts": 0},
            "Networks": [{"Target": self.network}],
            "LogDriver": {"Name": "local", "Options": {"max-size": "1m", "max-file": "1", "compress": "false"}},
        }
