"""`treadle doctor`, `version` and help: they need no server."""

from __future__ import annotations

import socket


async def test_doctor_says_that_this_machine_will_do(unused) -> None:
    ended = await unused.run("doctor", TREADLE_LISTEN="127.0.0.1:0")
    assert ended.code == 0, ended
    for name in ("Python", "Git", "Postgres", "sandbox", "launchers", "agents", "models", "data", "disk", "sockets", "port"):
        assert f"  {name}" in ended.out
    assert "Treadle can run here" in ended.out
    assert not unused.data_dir.exists()


async def test_doctor_names_what_is_missing_and_what_to_do(unused) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = await unused.run("doctor", TREADLE_LISTEN=address)
    assert ended.code == 1
    assert f"no  port       {address}: address already in use\n" in ended.out
    assert "choose another with TREADLE_LISTEN" in ended.out


async def test_doctor_knows_a_directory_that_cannot_be_written(unused) -> None:
    ended = await unused.run("doctor", "--data-dir", "/proc/treadle", TREADLE_LISTEN="127.0.0.1:0")
    assert ended.code == 1
    assert "no  data" in ended.out


async def test_doctor_says_what_pays_for_models(unused) -> None:
    none = await unused.run("doctor", TREADLE_LISTEN="127.0.0.1:0")
    assert "no credential, so only recordings of `replay` run" in none.out
    key = await unused.run("doctor", TREADLE_LISTEN="127.0.0.1:0", ANTHROPIC_API_KEY="sk-ant-canary")
    assert "a credential for anthropic (not tried)" in key.out
    assert "canary" not in key.out
    wrong = await unused.run("doctor", TREADLE_LISTEN="127.0.0.1:0", TREADLE_CLAUDE_CREDENTIALS="/nowhere/login")
    assert wrong.code == 1
    assert "/nowhere/login cannot be read" in wrong.out


async def test_doctor_names_a_setting_that_does_not_fit(unused) -> None:
    ended = await unused.run("doctor", TREADLE_MAX_TURNS="many")
    assert ended.code == 1
    assert "TREADLE_MAX_TURNS" in ended.out


async def test_version_and_help(unused) -> None:
    assert (await unused.run("version")).out == "treadle 0.1.0\n"
    told = await unused.run("--help")
    for command in ("up", "demo", "run", "resume", "sessions", "interrupt", "doctor", "version"):
        assert f"\n    {command} " in told.out
    assert (await unused.run("--version")).out == "treadle 0.1.0\n"
    bare = await unused.run()
    assert bare.code == 2
    assert bare.err == told.out


async def test_doctor_beside_a_running_server_says_so(shared) -> None:
    ended = await shared.run("doctor")
    assert ended.code == 0, ended
    assert f"ok  server     running on {(shared.data_dir / 'address').read_text().strip()}" in ended.out


async def test_doctor_is_not_misled_by_what_a_crashed_server_left(unused) -> None:
    unused.data_dir.mkdir()
    (unused.data_dir / "replica").write_text("")
    (unused.data_dir / "address").write_text("127.0.0.1:7433\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = await unused.run("doctor", TREADLE_LISTEN=f"127.0.0.1:{taken.getsockname()[1]}")
    assert ended.code == 1
    assert "no  port" in ended.out
