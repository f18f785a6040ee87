"""The spawner's settings: what a container is like. A request decides nothing of this."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, field_validator

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
    worker_image: Annotated[str, AfterValidator(forms.worker_image)] = Field(
        "treadle-worker-{provider}",
        description="The workers' images; `{provider}` is the agent's name. An agent without an image does not run.",
    )
    worker_uid: int = Field(
        10001, ge=1, le=2**31 - 1, description="User and group of workers where the spawner is root; else they are the spawner's own."
    )
    worker_cpus: float = Field(1.0, ge=0.01, allow_inf_nan=False, description="Processors that a worker may use.")
    worker_pids: int = Field(1024, ge=64, description="Processes and threads that a worker may have.")
    worker_tmp_mib: int = Field(
        512, ge=16, description="Size of a worker's /tmp and of its home, in MiB each; what is in them counts as its memory."
    )
    worker_runtime: str = Field("", description="The engine's runtime for workers, for example `runsc`; empty for its default.")
    worker_seconds: Seconds = Field(172_800, description="A worker that is older than this is ended, whatever its turn's limit says.")

    @field_validator("worker_memory_mib")
    @classmethod
    def _enough(cls, memory: int) -> int:
        if memory < _LEAST_MEMORY_MIB:
            raise ValueError(f"{memory} MiB are too little for a container: at least {_LEAST_MEMORY_MIB}")
        return memory
