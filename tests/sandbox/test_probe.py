"""The probe believes what it has seen, and nothing else."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest
from support.sandbox import require_sandbox

from server.sandbox import bubblewrap
from server.sandbox import probe as probing
from server.sandbox.bubblewrap import Sandbox
from server.sandbox.mount import Mount, missing_parents, without_covered
from server.sandbox.probe import Unavailable, probe
from server.sandbox.runtime import python_mounts


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return require_sandbox()


def test_every_bubblewrap_of_this_machine_holds(sandbox: Sandbox) -> None:
    verdicts = {str(program): probing._try(replace(sandbox, bwrap=program)) for program in probing._programs()}
    assert None in verdicts.values(), verdicts


def test_a_bubblewrap_that_does_nothing_is_seen_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `bwrap` that ignores its options and runs the command on the host must not be believed."""
    fake = tmp_path / "bwrap"
    fake.write_text('#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done; shift; exec "$@"\n')
    fake.chmod(0o755)
    monkeypatch.setattr(probing, "_programs", lambda: iter([fake]))
    assert isinstance(probe.__wrapped__(), Unavailable)


@pytest.mark.parametrize(
    ("hole", "complaint"),
    [
        ({"--remount-ro", "/dev"}, "/dev"),
        ({"--size", "67108864"}, "/dev/shm"),
    ],
)
def test_a_hole_in_the_wall_is_found(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, hole: set[str], complaint: str) -> None:
    """An older bubblewrap, or a change of ours: what can be written is measured."""
    real = bubblewrap._jail

    def leaky(mounts: Sequence[Mount]) -> list[str]:
        options = real(mounts)
        first = next(at for at in range(len(options)) if set(options[at : at + 2]) == hole)
        return options[:first] + options[first + 2 :]

    monkeypatch.setattr(bubblewrap, "_jail", leaky)
    assert f"too much can be written inside: {complaint}" in str(probing._try(sandbox))


def test_scratch_has_the_size_that_is_promised(sandbox: Sandbox) -> None:
    """By writing: 64 MiB are there, not one byte more, and outside of it nothing is."""
    script = "head -c 67108865 /dev/zero > /dev/shm/all; stat -c %s /dev/shm/all; touch /dev/new"
    argv = sandbox.wrap(["/bin/sh", "-c", script], mounts=[], env={}, cwd="/")
    ended = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert ended.stdout.split() == ["67108864"]
    assert "No space left" in ended.stderr
    assert "Read-only file system" in ended.stderr


def test_no_bubblewrap_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "_programs", lambda: iter([]))
    verdict = probe.__wrapped__()
    assert isinstance(verdict, Unavailable)
    assert "install" in verdict.remedy


def test_the_environment_of_the_caller_stays_outside(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", "secret")
    argv = sandbox.wrap(["/usr/bin/env"], mounts=[], env={"GIVEN": "yes"}, cwd="/")
    seen = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert "CANARY" not in seen
    assert "GIVEN=yes" in seen


def test_a_mount_is_read_only_unless_writable(sandbox: Sandbox, tmp_path: Path) -> None:
    for name in ("closed", "open"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o777)
    mounts = [
        Mount(tmp_path / "closed", PurePosixPath("/a/b/closed")),
        Mount(tmp_path / "open", PurePosixPath("/a/b/open"), writable=True),
    ]
    argv = sandbox.wrap(["/bin/sh", "-c", "touch /a/b/closed/x /a/b/open/x"], mounts=mounts, env={}, cwd="/")
    assert subprocess.run(argv, capture_output=True, check=False).returncode != 0
    assert not (tmp_path / "closed" / "x").exists()
    assert (tmp_path / "open" / "x").exists()


def test_mounts_that_another_one_shows_are_left_out() -> None:
    outer, inner = Mount(Path("/srv"), PurePosixPath("/srv")), Mount(Path("/srv/a"), PurePosixPath("/srv/a"))
    other = Mount(Path("/elsewhere"), PurePosixPath("/srv/b"))
    assert without_covered([inner, other, outer]) == [outer, other]
    assert missing_parents([Mount(Path("/x"), PurePosixPath("/a/b/c"))]) == [PurePosixPath("/a"), PurePosixPath("/a/b")]


@pytest.mark.parametrize("target", ["/tmp/program/lib", "/home/agent/program/lib"])
def test_what_is_installed_under_scratch_is_seen(sandbox: Sandbox, tmp_path: Path, target: str) -> None:
    """A clone in /tmp: the empty /tmp of the sandbox must not cover it."""
    (tmp_path / "here").write_text("seen")
    (tmp_path / "here").chmod(0o644)
    tmp_path.chmod(0o755)
    argv = sandbox.wrap(["/bin/cat", f"{target}/here"], mounts=[Mount(tmp_path, PurePosixPath(target))], env={}, cwd="/")
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == "seen"


CONNECT = """
import os, socket, sys
socket.socket(socket.AF_UNIX).connect("/door/s")
try:
    os.unlink("/door/s")
except OSError:
    print("kept")
"""


def test_a_socket_in_a_read_only_mount_can_be_connected_to_and_not_removed(sandbox: Sandbox) -> None:
    """The door to models: the directory stays the server's, the socket is the jailed user's."""
    with tempfile.TemporaryDirectory(prefix="treadle-") as folder, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{folder}/s")
        listening.listen()
        os.chown(f"{folder}/s", sandbox.uid, sandbox.gid)
        Path(folder, "s").chmod(0o600)
        Path(folder).chmod(0o755)
        mounts = [*python_mounts(), Mount(Path(folder), PurePosixPath("/door"))]
        argv = sandbox.wrap([sys.executable, "-I", "-S", "-c", CONNECT], mounts=mounts, env={}, cwd="/")
        assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == "kept\n"
        assert Path(folder, "s").exists()
