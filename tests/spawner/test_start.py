"""What stops a spawner's start: each with what to do about it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from docker.types import Mount
from support.containers import environment, require_engine, spawner_settings, spawning
from support.requirements import require

from server.refusal import StartRefused
from server.spawner import readiness
from server.spawner.engine import Engine
from server.spawner.root import held_root
from server.spawner.serve import checked, serving
from server.spawner.settings import SpawnerSettings
from server.spawner.template import Template

CHECK = [sys.executable, "-m", "server.spawner", "--check"]


async def run(command: list[str], settings: SpawnerSettings) -> tuple[int | None, str]:
    null, pipe, same = asyncio.subprocess.DEVNULL, asyncio.subprocess.PIPE, asyncio.subprocess.STDOUT
    process = await asyncio.create_subprocess_exec(*command, env=environment(settings), stdin=null, stdout=pipe, stderr=same)
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, out.decode()


async def test_where_all_is_there_it_says_what_it_makes(tmp_path: Path) -> None:
    code, said = await run(CHECK, spawner_settings(tmp_path))
    assert code == 0, said
    assert "replay" in said.partition(": ")[0].split(", ")
    assert "probed by running it" in said


async def test_images_of_another_version_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images").write_text("#!/bin/sh\necho 0123456789ab\n")
    (tmp_path / "images").chmod(0o755)
    monkeypatch.setattr(readiness, "_IMAGES", tmp_path / "images")
    monkeypatch.setattr(readiness, "_MARK", tmp_path / "mark")
    for mark, stale in (("0123456789ab", ()), ("", ()), ("ba9876543210", ("replay",))):

        async def marked(self: Engine, image: str, label: str, mark: str = mark) -> str:
            assert label == "treadle.content"
            return mark if "replay" in image else ""

        monkeypatch.setattr(Engine, "label", marked)
        assert (await checked(spawner_settings(tmp_path))).stale == stale
    # In the server's image there is no checkout.
    (tmp_path / "mark").write_text("ba9876543210\n")
    assert (await checked(spawner_settings(tmp_path))).stale == ()


async def test_a_user_who_may_not_use_the_engine_is_told_so(tmp_path: Path) -> None:
    require(os.geteuid() == 0, "root", "run the tests as root")
    # What it needs is imported before: where this tree is, that user may not look.
    script = (
        "import os, sys, server.environment, server.spawner.serve, server.spawner.__main__ as program; os.setgroups([]); "
        "os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534); sys.argv = ['spawner', '--check']; sys.exit(program.main())"
    )
    home = Path("/tmp") / f"treadle-nobody-{os.getpid()}"
    home.mkdir()
    os.chown(home, 65534, 65534)
    try:
        code, said = await run([sys.executable, "-c", script], spawner_settings(tmp_path, data_dir=home))
    finally:
        home.rmdir()
    assert code == 2
    assert "may not be used by this user; run the spawner as root, or as a member of the group" in said


async def test_another_root_inside_than_outside_is_noticed(tmp_path: Path) -> None:
    """The spawner's worker root is a file system that only it sees, as in a container that mounts something else there."""
    require(os.geteuid() == 0, "root", "run the tests as root")
    (tmp_path / "workers").mkdir()
    command = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o mode=700 none "$0" && exec "$@"', str(tmp_path / "workers"), *CHECK]
    code, said = await run(command, spawner_settings(tmp_path))
    assert code == 2, said
    assert "TREADLE_WORKER_ROOT must be the same path inside and outside" in said


async def test_a_worker_root_has_one_spawner(tmp_path: Path) -> None:
    async with spawning(tmp_path) as settings:
        with pytest.raises(StartRefused, match="another spawner serves"):
            async with serving(settings):
                pass
        await checked(settings)


def another_owner(root: Path) -> None:
    os.chown(root, 65534, 65534)


def another_owner_above(root: Path) -> None:
    os.chown(root.parent, 65534, 65534)


def open_to_all(root: Path) -> None:
    root.chmod(0o1777)


def open_to_all_above(root: Path) -> None:
    root.parent.chmod(0o777)


@pytest.mark.parametrize("spoilt", [another_owner, another_owner_above, open_to_all, open_to_all_above])
async def test_a_root_spawner_refuses_a_worker_root_that_others_can_change(tmp_path: Path, spoilt: Callable[[Path], None]) -> None:
    """Who swaps a name there while root gives it away or mounts it would be root."""
    require(os.geteuid() == 0, "root", "run the tests as root")
    settings = spawner_settings(tmp_path, worker_root=tmp_path / "above" / "workers")
    settings.slots_dir.mkdir(parents=True)
    spoilt(settings.slots_dir)
    with pytest.raises(StartRefused, match=r"TREADLE_WORKER_ROOT: the spawner is root, and .* can be changed by others.* only root can"):
        async with serving(settings):
            pass
    assert list(settings.slots_dir.iterdir()) == []
    with pytest.raises(StartRefused, match="can be changed by others"):
        await checked(settings)
    assert list(settings.slots_dir.iterdir()) == []


async def test_a_root_spawner_follows_no_link_to_its_worker_root(tmp_path: Path) -> None:
    require(os.geteuid() == 0, "root", "run the tests as root")
    (tmp_path / "there").mkdir()
    (tmp_path / "here").symlink_to("there")
    with pytest.raises(StartRefused, match=rf"leads through a link; for a spawner that is root, name it as {tmp_path}/there/workers"):
        async with serving(spawner_settings(tmp_path, worker_root=tmp_path / "here" / "workers")):
            pass


def test_the_name_of_an_installation_is_written_through_no_link(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    root = tmp_path / "workers"
    root.mkdir(mode=0o700)
    (root / ".installation.new").symlink_to(tmp_path / "kept")
    with held_root(root) as installation:
        assert (root / ".installation").read_text() == installation
    assert (tmp_path / "kept").read_text() == "kept"
    with held_root(root) as again:
        assert again == installation


async def test_a_socket_too_deep_is_refused(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    with pytest.raises(StartRefused, match=r"TREADLE_SPAWNER_SOCKET: .* is longer than the 107 bytes"):
        async with serving(spawner_settings(deep, spawner_socket=None)):
            pass


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"cannot_limit": ("memory", "swap")}, "the engine cannot limit memory, swap of containers"),
        ({"seccomp": False}, "the engine filters no system calls"),
        ({"memory": 4 << 30}, "TREADLE_WORKER_MEMORY_MIB: 8192 are more than the 4096 that the engine's machine has"),
    ],
)
async def test_an_engine_without_the_kernels_help_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facts: dict[str, Any], says: str
) -> None:
    real = Engine.facts

    async def lacking(self: Engine) -> Any:
        return replace(await real(self), **facts)

    monkeypatch.setattr(Engine, "facts", lacking)
    with pytest.raises(StartRefused, match=says):
        await checked(spawner_settings(tmp_path, worker_memory_mib=8192))


async def test_a_limit_that_limits_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartRefused, match=r"TREADLE_WORKER_PIDS: 1000000000000 are more than the \d+ that this machine has .*; set fewer"):
        await checked(spawner_settings(tmp_path, worker_pids=10**12))


HOLES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "network": (lambda host: host.update(network_mode="bridge"), "there is a network inside"),
    "capabilities": (lambda host: host.update(cap_drop=[]), "capabilities are left inside"),
    "new privileges": (lambda host: host.update(security_opt=[]), "capabilities are left inside"),
    "system": (lambda host: host.update(read_only=False), "the image's files can be written inside"),
    "processes": (lambda host: host.update(pid_mode="host"), "namespaces with the host: pid"),
    "memory": (lambda host: host.update(shm_size=1 << 30), "too much can be written inside: /dev/shm"),
    "system calls": (lambda host: host["security_opt"].append("seccomp=unconfined"), "system calls are allowed"),
    "the engine's own filter": (lambda host: host["security_opt"].pop(), r"system calls are allowed .*socket\(AF_VSOCK\)"),
    "files": (lambda host: host["mounts"].append(Mount("/host", "/tmp", type="bind")), "too much can be written inside: /host"),
}


@pytest.mark.parametrize("hole", HOLES)
async def test_a_wall_with_a_hole_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hole: str) -> None:
    make, says = HOLES[hole]
    real = Template.host

    def leaky(self: Template, slot: Any, user: tuple[int, int]) -> dict[str, Any]:
        host = real(self, slot, user)
        make(host)
        return host

    monkeypatch.setattr(Template, "host", leaky)
    with pytest.raises(StartRefused, match=f"the wall of containers does not hold: .*({says})"):
        await checked(spawner_settings(tmp_path))
    assert not (tmp_path / "workers").exists()
    left = require_engine().containers.list(all=True, ignore_removed=True, filters={"label": "treadle.probe"})
    assert not [container for container in left if str(tmp_path) in str(container.attrs["Mounts"])]
