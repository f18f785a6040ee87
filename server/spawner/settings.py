"""The spawner's settings: what a container is like. A request decides nothing of this."""

from __future__ import annotations

import os
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from server import setting_forms as forms
from server.config import Seconds, WorkerSettings, also

_LEAST_MEMORY_MIB = 256


class SpawnerSettings(WorkerSettings):
    """See above."""

    docker_host: str = Field(
        "unix:///var/run/docker.sock",
        validation_alias=also("docker_host", "DOCKER_HOST"),
        description="The container engine; also `DOCKER_HOST`.",
    )
    spawner_kind: Literal["docker", "swarm"] = Field(
        "docker",
        description="What is made for workers: `docker`, containers of this engine; `swarm`, services of the Swarm that it manages. The "
        "server's launcher must be the same.",
    )
    swarm_network: str = Field(
        "treadle-workers",
        description="With `swarm`: the overlay network for workers and servers; it must be internal, and is for one installation.",
    )
    worker_image: Annotated[str, AfterValidator(forms.worker_image)] = Field(
        "treadle-worker-{provider}",
        description="The workers' images; `{provider}` is the agent's name. An agent without an image does not run.",
    )
    worker_uids: Annotated[str, AfterValidator(forms.uids)] = Field(
        "20000-29999",
        description="User ids that nobody else on the machine has. Where the spawner is root, each worker has one of its own, also as "
        "its group; else workers are the spawner's user.",
    )
    server_user: Annotated[str, AfterValidator(forms.user)] = Field(
        "",
        description="User of the main server where that is not the spawner's, which is root: `uid` or `uid:gid`. Whoever else is in its "
        "group can read what workers print.",
    )
    worker_cpus: float = Field(1.0, ge=0.01, allow_inf_nan=False, description="Processors that a worker may use.")
    worker_pids: int = Field(1024, ge=64, description="Processes and threads that a worker may have.")
    worker_tmp_mib: int = Field(
        512, ge=16, description="Size of a worker's /tmp and of its home, in MiB each; what is in them counts as its memory."
    )
    worker_reserved_mib: int = Field(
        512,
        ge=0,
        description="With `swarm`: memory in MiB that a machine must have free for a worker, and then keeps for it; no more than "
        "TREADLE_WORKER_MEMORY_MIB. A turn for which no machine has that waits for one, no longer than a turn may take.",
    )
    worker_runtime: str = Field("", description="The engine's runtime for workers, for example `runsc`; empty for its default.")
    worker_seconds: Seconds = Field(172_800, description="A worker that is older than this is ended, whatever its turn's limit says.")

    @property
    def server_ids(self) -> tuple[int, int]:
        """Uid and gid of the main server."""
        return forms.user_ids(self.server_user) if self.server_user else (os.geteuid(), os.getegid())

    @property
    def slot_uids(self) -> range:
        """Those that slots may have; the last is for trying the wall."""
        return forms.uid_range(self.worker_uids)[:-1]

    @property
    def probe_user(self) -> tuple[int, int]:
        """Uid and gid of a container in which the wall is tried."""
        last = forms.uid_range(self.worker_uids)[-1]
        return (last, last) if os.geteuid() == 0 else (os.geteuid(), os.getegid())

    @field_validator("server_user")
    @classmethod
    def _apart(cls, user: str, info: ValidationInfo) -> str:
        if user and os.geteuid() != 0 and forms.user_ids(user)[0] != os.geteuid():
            raise ValueError("only a spawner that is root works for a server of another user; leave it empty, and run both as one")
        if user and set(forms.user_ids(user)) & set(forms.uid_range(info.data.get("worker_uids", "1-2"))):
            raise ValueError(f"{user} is among TREADLE_WORKER_UIDS, so a worker could be the server")
        return user

    @field_validator("worker_memory_mib")
    @classmethod
    def _enough(cls, memory: int) -> int:
        if memory < _LEAST_MEMORY_MIB:
            raise ValueError(f"{memory} MiB are too little for a container: at least {_LEAST_MEMORY_MIB}")
        return memory
