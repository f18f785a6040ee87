"""`treadle doctor`, `version` and help: they need no server."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.requirements import require

from server.replica import held_replica
from server.serving import Serving
from treadle.spawner.v1 import spawner_service_pb2 as wire
from treadle.spawner.v1 import spawner_service_pb2_grpc as stubs


async def test_doctor_says_that_this_machine_will_do(unused) -> None:
    ended = await unused.run("doctor", TREADLE_LISTEN="127.0.0.1:0")
    assert ended.code == 0, ended
    for name in ("Python", "Git", "Postgres", "Envoy", "sandbox", "launcher", "agents", "models", "data", "disk", "sockets", "port"):
        assert f"  {name}" in ended.out
    for name in ("code hosts", "vault", "webhooks", "objects", "retention", "quota"):
        assert f"ok  {name}" in ended.out
    assert "Treadle can run here" in ended.out
    assert not unused.data_dir.exists()


@pytest.mark.parametrize(
    "setting", ["TREADLE_LISTEN", "TREADLE_METRICS_LISTEN", "TREADLE_GATEWAY_LISTEN", "TREADLE_GATEWAY_METRICS_LISTEN"]
)
async def test_doctor_names_what_is_missing_and_what_to_do(unused, setting) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = await unused.run("doctor", **({"TREADLE_LISTEN": "127.0.0.1:0"} | {setting: address}))
    assert ended.code == 1
    assert f"no  port       {address}: address already in use\n" in ended.out
    assert f"choose another with {setting}" in ended.out


async def test_doctor_and_up_agree_about_a_disk_that_is_too_small(unused, tmp_path) -> None:
    """A disk of 60 MB, mounted where only these processes see it."""
    command = f'TREADLE_LISTEN=127.0.0.1:0 {sys.executable} -m server.cli "$1" --data-dir {tmp_path}/data'
    mount = f"mount -t tmpfs -o size=60m none {tmp_path} && {command}"
    ends = []
    for verb in ("doctor", "up"):
        process = await asyncio.create_subprocess_exec(
            "unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh", verb,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await asyncio.wait_for(process.communicate(), 60)
        require(b"unshare:" not in err and b"mount:" not in err, "mounts in a user namespace", err.decode())
        ends.append((process.returncode, out.decode(), err.decode()))
    (doctor, told, _), (up, _, refused) = ends
    assert (doctor, up) == (1, 2)
    assert "no  disk       63 MB free" in told
    assert refused.startswith("treadle: only 63 MB are free for ")


async def test_doctor_knows_a_directory_that_cannot_be_written(unused) -> None:
    ended = await unused.run("doctor", "--data-dir", "/proc/treadle", TREADLE_LISTEN="127.0.0.1:0")
    assert ended.code == 1
    assert "no  data" in ended.out


async def test_doctor_looks_at_the_database_that_the_settings_name(unused, postgres, database) -> None:
    given = {"TREADLE_LISTEN": "127.0.0.1:0", "TREADLE_DATABASE_URL": database.app, "TREADLE_DATABASE_SYSTEM_URL": database.system}
    found = await unused.run("doctor", **given)
    assert f"ok  Postgres   {postgres.version}." in found.out
    gone = await unused.run("doctor", **given | {"TREADLE_DATABASE_SYSTEM_URL": "postgresql://treadle_system@127.0.0.1:1/treadle"})
    assert gone.code == 1
    assert "no  Postgres   none by TREADLE_DATABASE_SYSTEM_URL: " in gone.out


async def test_doctor_says_what_pays_for_models(unused) -> None:
    none = await unused.run("doctor", TREADLE_LISTEN="127.0.0.1:0")
    assert "no credential in this shell, so only recordings of `replay` run" in none.out
    assert "set ANTHROPIC_API_KEY, CLAUDE_CODE_OAUTH_TOKEN or OPENAI_API_KEY" in none.out
    key = await unused.run("doctor", TREADLE_LISTEN="127.0.0.1:0", ANTHROPIC_API_KEY="sk-ant-canary")
    assert "a credential for anthropic in this shell (not tried)" in key.out
    assert "canary" not in key.out
    wrong = await unused.run("doctor", TREADLE_LISTEN="127.0.0.1:0", TREADLE_CLAUDE_CREDENTIALS="/nowhere/login")
    assert wrong.code == 1
    assert "/nowhere/login cannot be read" in wrong.out


async def test_doctor_says_whether_workers_get_out(unused) -> None:
    off = await unused.run("doctor", TREADLE_LISTEN="127.0.0.1:0")
    assert "ok  egress     off: with a server of this shell no session may let its workers connect" in off.out
    hosts = {"TREADLE_LISTEN": "127.0.0.1:0", "TREADLE_EGRESS_HOSTS": "index.example.org"}
    on = await unused.run("doctor", **hosts)
    assert "a server of this shell lets sessions allow index.example.org (TREADLE_EGRESS_HOSTS); `treadle up` brings the Envoy" in on.out
    with socket.create_server(("127.0.0.1", 0)) as other:
        place = f"127.0.0.1:{other.getsockname()[1]}"
    proxy = {"TREADLE_EGRESS_PROXY": place, "TREADLE_EGRESS_PROXY_CREDENTIAL": "the-credential"}
    nobody = await unused.run("doctor", **hosts, **proxy)
    assert f"but no Envoy for it answers at {place}" in nobody.out
    assert "the-credential" not in nobody.out


async def test_doctor_names_a_setting_that_does_not_fit(unused) -> None:
    ended = await unused.run("doctor", TREADLE_MAX_TURNS="many")
    assert ended.code == 1
    assert "TREADLE_MAX_TURNS" in ended.out


async def test_version_and_help(unused) -> None:
    assert (await unused.run("version")).out == "treadle 0.1.0\n"
    told = await unused.run("--help")
    for command in ("up", "demo", "run", "resume", "sessions", "interrupt", "doctor", "version"):
        assert f"\n    {command} " in told.out
    assert "\n  130  Ctrl-C; a turn that was started goes on\n" in told.out
    assert (await unused.run("--version")).out == "treadle 0.1.0\n"
    for command in ("up", "demo", "run", "resume", "sessions", "interrupt", "doctor"):
        lines = (await unused.run(command, "--help", COLUMNS="80")).out.splitlines()
        assert max(map(len, lines)) < 80, command
    bare = await unused.run()
    assert bare.code == 2
    assert bare.err == told.out


async def test_doctor_beside_a_running_server_says_so(shared) -> None:
    ended = await shared.run("doctor")
    assert ended.code == 0, ended
    assert f"ok  server     running on {(shared.data_dir / 'address').read_text().strip()}" in ended.out


async def test_doctor_tells_what_the_server_has_and_not_this_shell(home) -> None:
    nothing = {"ANTHROPIC_API_KEY": "", "OPENAI_API_KEY": "", "TREADLE_LAUNCHER": "docker"}
    keys = {"ANTHROPIC_API_KEY": "sk-ant-canary", "TREADLE_DEFAULT_PROVIDER": "replay", "TREADLE_EGRESS_HOSTS": "index.example.org"}
    keys |= {"TREADLE_GITHUB_CLIENT_ID": "Iv1.abc", "TREADLE_GITHUB_WEBHOOK_SECRET": "canary", "TREADLE_RETENTION_DAYS": "30"}
    keys |= {"TREADLE_STORAGE_TENANT_MIB": "7", "TREADLE_GIT_ALLOWED_PREFIXES": "https://git.example.org/"}
    async with home.started("up", "--listen", "127.0.0.1:0", **keys) as up:
        await up.says("Try, in another terminal")
        ended = await home.run("doctor", **nothing)
        more = await home.run("doctor", OPENAI_API_KEY="sk-canary")
        await up.stop()
    assert ended.code == more.code == 0, ended
    assert "ok  models     the server that runs has a credential for anthropic (not tried)" in ended.out
    assert "a session on the server that runs, when it names none, gets replay: TREADLE_DEFAULT_PROVIDER says so" in ended.out
    assert "in this shell" not in ended.out
    assert "ok  launcher   the server that runs has process, with " in ended.out
    assert "(TREADLE_LAUNCHER of this shell is docker)" in ended.out
    assert "ok  egress     the server that runs lets sessions allow index.example.org" in ended.out
    assert "its Envoy answers at " in ended.out
    assert "this shell has one for openai: stop the server, and start it from here" in more.out
    assert "canary" not in ended.out + more.out
    assert "all below https://git.example.org/,http://127.0.0.1:" in ended.out
    assert "login in the browser for GitHub" in ended.out
    assert "ok  webhooks   taken" in ended.out
    assert "ok  retention  snapshots are kept 30 days" in ended.out
    assert "ok  quota      a tenant's snapshots may take 7 MiB (TREADLE_STORAGE_TENANT_MIB); most take those of local: 0.0 MiB" in ended.out
    assert not (home.data_dir / "serving.json").exists()
    alone = await home.run("doctor", TREADLE_LISTEN="127.0.0.1:0", **nothing | {"TREADLE_LAUNCHER": "process"})
    assert "no credential in this shell" in alone.out


async def test_doctor_is_not_misled_by_what_a_crashed_server_left(unused) -> None:
    unused.data_dir.mkdir()
    (unused.data_dir / "replica").write_text("")
    (unused.data_dir / "address").write_text("127.0.0.1:7433\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = await unused.run("doctor", TREADLE_LISTEN=f"127.0.0.1:{taken.getsockname()[1]}")
    assert ended.code == 1
    assert "no  port" in ended.out


async def test_doctor_tells_which_agent_a_session_gets_and_why(unused) -> None:
    ended = await unused.run("doctor", TREADLE_LISTEN="127.0.0.1:0")
    assert "a session that names none gets replay" in ended.out
    assert "with ANTHROPIC_API_KEY it would be claude" in ended.out


async def test_doctor_names_where_a_credential_is_from_and_never_the_credential(unused) -> None:
    for variable in ("ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN"):
        ended = await unused.run("doctor", TREADLE_LISTEN="127.0.0.1:0", **{variable: "sk-canary-0123456789"})
        assert ended.code == 0, ended
        assert f"a session that names none gets claude: {variable} is set" in ended.out
        assert "canary" not in ended.out + ended.err


async def test_doctor_asks_the_object_store(unused) -> None:
    s3 = {"TREADLE_OBJECT_STORE": "s3", "TREADLE_S3_ENDPOINT": "127.0.0.1:1", "TREADLE_S3_SECURE": "false"}
    ended = await unused.run("doctor", TREADLE_LISTEN="127.0.0.1:0", **s3)
    assert ended.code == 0, ended
    assert "!   objects    in the bucket treadle on 127.0.0.1:1: " in ended.out
    assert "snapshots wait for it" in ended.out


async def test_doctor_says_that_an_agent_is_not_there(unused) -> None:
    ended = await unused.run("doctor", TREADLE_LISTEN="127.0.0.1:0", TREADLE_DEFAULT_PROVIDER="nobody")
    assert ended.code == 1
    assert "TREADLE_DEFAULT_PROVIDER: 'nobody' is no agent; there are: " in ended.out


@contextmanager
def said_to_serve(data_dir: Path, **facts: Any) -> Iterator[None]:
    """What a server with containers, started by itself, leaves for others to see while it runs."""
    serving = Serving(
        agent="only-in-an-image", why="ANTHROPIC_API_KEY is set", credentials=["anthropic"], address="127.0.0.1:1", launcher="docker",
        workers="sealed", providers=["claude", "only-in-an-image"], egress_hosts="", egress_proxy="",
        spawner=str(data_dir / "spawner.sock"), host=socket.gethostname(),
    )  # fmt: skip
    with held_replica(data_dir):
        (data_dir / "serving.json").write_text(json.dumps(asdict(serving) | facts))
        yield


async def test_doctor_asks_the_spawner_of_a_server_now_and_advises_for_how_it_runs(unused) -> None:
    class Spawner(stubs.SpawnerServiceServicer):
        async def Describe(self, request: Any, context: Any) -> wire.DescribeResponse:  # noqa: N802
            return wire.DescribeResponse(providers=["claude"], detail="sealed")

    with said_to_serve(unused.data_dir):
        no_socket = await unused.run("doctor")
        spawner = grpc.aio.server()
        stubs.add_SpawnerServiceServicer_to_server(Spawner(), spawner)
        spawner.add_insecure_port(f"unix:{unused.data_dir / 'spawner.sock'}")
        await spawner.start()
        answers = await unused.run("doctor")
        await spawner.stop(None)
        with socket.socket(socket.AF_UNIX) as left:  # as one that was killed leaves it
            (unused.data_dir / "spawner.sock").unlink(missing_ok=True)
            left.bind(str(unused.data_dir / "spawner.sock"))
        killed = await unused.run("doctor")
    with said_to_serve(unused.data_dir, host="a-container"):
        beside = await unused.run("doctor")
    assert (no_socket.code, answers.code, killed.code) == (1, 0, 1), answers
    assert "no  launcher   the server that runs has docker, but there is no socket of a spawner at " in no_socket.out
    assert f"its spawner does not answer at {unused.data_dir / 'spawner.sock'}" in " ".join(killed.out.split())
    assert "docker-compose up -d spawner" in killed.out
    assert "ok  launcher   the server that runs has docker, with claude, only-in-an-image: sealed" in answers.out
    assert "ok  agents     claude, only-in-an-image; a session on the server that runs" in answers.out
    assert "The server that runs has what it needs." in answers.out
    assert "!   server     127.0.0.1:1 does not answer\n" in answers.out
    assert "`docker-compose logs server`" in answers.out
    assert "treadle up" not in answers.out
    assert "ok  server     runs in another container, or on another machine: a-container, 127.0.0.1:1" in beside.out
