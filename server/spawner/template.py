"""What every worker's container is like. Nobody who asks for one can change anything here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from docker.types import LogConfig, Mount, Ulimit

from server.sandbox.bubblewrap import HOME, SCRATCH_FILES
from server.sandbox.calls import profile
from server.spawner.settings import SpawnerSettings
from server.workers.inside import ENVIRONMENT, MODELS, RUN, WORKSPACE, configuration
from server.workers.slot import Slot

_MIB = 1024 * 1024
_SHM_BYTES = 64 * _MIB
_OPEN_FILES = 16_384
_LOG = {"max-size": "1m", "max-file": "1", "compress": "false"}
_EARLY_TO_GO = 500
"""When memory runs out; what its agent runs goes before it (worker/oom.py)."""
PATH = "/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True)
class Template:
    """By the spawner's settings. `user`: uid and gid of the worker."""

    settings: SpawnerSettings

    @property
    def scratch(self) -> Mapping[str, int]:
        """What may be written besides the slot, and how many bytes of it: they are the container's memory."""
        size = self.settings.worker_tmp_mib * _MIB
        return {"/tmp": size, str(HOME): size, "/dev/shm": _SHM_BYTES}  # noqa: S108

    def image(self, provider: str) -> str:
        """The image of an agent."""
        return self.settings.worker_image.replace("{provider}", provider)

    def configuration(self, user: tuple[int, int], labels: Mapping[str, str]) -> dict[str, Any]:
        """What the container runs."""
        uid, gid = user
        return {
            "user": f"{uid}:{gid}",
            "hostname": "worker",
            "environment": {"PATH": PATH, "HOME": str(HOME), "USER": "agent", "LANG": "C.UTF-8", **ENVIRONMENT},
            "working_dir": str(WORKSPACE),
            "labels": dict(labels),
            # Open for one: it ends with whoever said the configuration.
            "stdin_open": True,
        }

    def host(self, slot: Slot, user: tuple[int, int]) -> dict[str, Any]:
        """What is around it."""
        settings = self.settings
        uid, gid = user
        memory = settings.worker_memory_mib * _MIB
        # Agents build and run programs there, so not `noexec`.
        tmpfs = f"rw,exec,nosuid,nodev,nr_inodes={SCRATCH_FILES},size={self.scratch[str(HOME)]}"
        return {
            "network_mode": "none",
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges:true", f"seccomp={profile()}"],
            "read_only": True,
            "privileged": False,
            "init": True,
            "ipc_mode": "private",
            "mounts": [
                _bound(slot.workspace, WORKSPACE),
                _bound(slot.run, RUN),
                _bound(slot.models, MODELS, read_only=True),
                # Programs ask what their user is called.
                *(_bound(slot.path / name, f"/etc/{name}", read_only=True) for name in ("passwd", "group")),
            ],
            "tmpfs": {"/tmp": f"{tmpfs},mode=1777", str(HOME): f"{tmpfs},mode=0700,uid={uid},gid={gid}"},  # noqa: S108
            "shm_size": _SHM_BYTES,
            "mem_limit": memory,
            "memswap_limit": memory,
            "nano_cpus": round(settings.worker_cpus * 1_000_000_000),
            "pids_limit": settings.worker_pids,
            "oom_score_adj": _EARLY_TO_GO,
            "ulimits": [Ulimit(name="nofile", soft=_OPEN_FILES, hard=_OPEN_FILES), Ulimit(name="core", soft=0, hard=0)],
            "log_config": LogConfig(type="local", config=_LOG),
            # What became of it is read before it is removed.
            "auto_remove": False,
            "restart_policy": {"Name": "no"},
            **({"runtime": settings.worker_runtime} if settings.worker_runtime else {}),
        }

    def line(self, slot: Slot, provider: str, *, furnished: bool) -> bytes:
        """What the worker hears on its standard input. Where there is nothing to work on yet, it has the time to load its agent."""
        told = configuration(orphan_seconds=self.settings.worker_orphan_seconds, max_processes=0)
        if not furnished:
            told["preload"] = provider
        return (json.dumps(told | {"secret": slot.secret().hex()}) + "\n").encode()


def _bound(source: Any, target: Any, *, read_only: bool = False) -> Mount:
    return Mount(str(target), str(source), type="bind", read_only=read_only, propagation="rprivate")
