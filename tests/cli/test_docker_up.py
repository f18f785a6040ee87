"""`treadle up` and `treadle doctor` with containers."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest
from support.containers import containers_of, no_containers_left, require_engine, worker_image
from support.workers import alive, eventually, processes_with

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def docker() -> dict[str, str]:
    require_engine()
    return {"TREADLE_LAUNCHER": "docker", "TREADLE_WORKER_IMAGE": worker_image("replay")}


def spawners(home) -> list[int]:
    marker = str(home.data_dir).encode()
    found = []
    for pid in processes_with("server.spawner\0--with"):
        with suppress(OSError):
            if marker in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(pid)
    return found


async def test_the_first_start_runs_the_demo_in_a_container_and_leaves_nothing(unused, docker) -> None:
    with no_containers_left(unused.data_dir / "workers"):
        secret = {"ANTHROPIC_API_KEY": "sk-ant-canary-0123456789abcdef", "TREADLE_DEFAULT_PROVIDER": "replay"}
        async with unused.started("up", "--listen", "127.0.0.1:0", **docker, **secret) as up:
            await up.says("Try, in another terminal")
            assert "docker, sandboxed" in up.out
            (spawner,) = spawners(unused)
            assert b"canary" not in Path(f"/proc/{spawner}/environ").read_bytes()
            os.kill(spawner, signal.SIGKILL)
            await up.says("the spawner serves again")
            ran = await unused.run("run", "--repo", unused.sample_url, "Add a note")
            assert ran.code == 0, ran
            ended = await up.stop()
        assert ended.code == 0, ended
        assert unused.processes() == []
        assert spawners(unused) == []
        await eventually(lambda: not containers_of(unused.data_dir / "workers"))


async def test_a_server_that_is_killed_takes_its_spawner_along(unused, docker) -> None:
    with no_containers_left(unused.data_dir / "workers"):
        async with unused.started("up", "--listen", "127.0.0.1:0", **docker) as up:
            await up.says("Try, in another terminal")
            (spawner,) = spawners(unused)
            up.process.kill()
            await eventually(lambda: not alive(spawner), limit=10)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"DOCKER_HOST": "unix:///nowhere/docker.sock"}, "no container engine answers at unix:///nowhere/docker.sock; start it"),
        ({"TREADLE_WORKER_IMAGE": "nobody-has-this-{provider}"}, "the engine has no image for any worker"),
        ({"TREADLE_WORKER_RUNTIME": "nobody"}, "TREADLE_WORKER_RUNTIME: the engine has no runtime 'nobody'; it has: "),
        ({"TREADLE_WORKER_CPUS": "4096"}, "TREADLE_WORKER_CPUS: 4096 are more than the "),
        ({"TREADLE_WORKER_MEMORY_MIB": "100"}, "TREADLE_WORKER_MEMORY_MIB: 100 MiB are too little for a container: at least 256"),
    ],
    ids=["engine", "image", "runtime", "processors", "memory"],
)
async def test_what_cannot_work_stops_the_start_and_doctor_says_the_same(home, docker, wrong, says) -> None:
    up = await home.run("up", "--listen", "127.0.0.1:0", **(docker | wrong))
    assert up.code == 2, up
    assert says in up.err
    assert "Traceback" not in up.err
    assert home.processes() == []
    doctor = await home.run("doctor", TREADLE_LISTEN="127.0.0.1:0", **(docker | wrong))
    assert doctor.code == 1
    assert f"no  launcher   docker: {says}" in doctor.out


async def test_doctor_tries_a_container(unused, docker) -> None:
    told = await unused.run("doctor", TREADLE_LISTEN="127.0.0.1:0", **docker)
    assert told.code == 0, told
    assert "ok  launcher   docker, with images for " in told.out
    assert "no network" in told.out
    assert not unused.data_dir.exists()
    plain = await unused.run("doctor", TREADLE_LISTEN="127.0.0.1:0")
    assert "ok  launcher   process (TREADLE_LAUNCHER of this shell; Treadle also has: docker, swarm)" in plain.out


async def test_an_agent_without_an_image_cannot_be_the_default(home, docker) -> None:
    image = require_engine().images.get(docker["TREADLE_WORKER_IMAGE"].replace("{provider}", "replay"))
    image.tag("treadle-test-only-replay")
    try:
        only = docker | {"TREADLE_WORKER_IMAGE": "treadle-test-only-{provider}"}
        up = await home.run("up", "--listen", "127.0.0.1:0", **only, TREADLE_DEFAULT_PROVIDER="claude")
    finally:
        require_engine().images.remove("treadle-test-only-replay", noprune=True)
    assert up.code == 2, up
    assert "TREADLE_DEFAULT_PROVIDER: the spawner has no image for 'claude'; it has: replay" in up.err
