"""What a command says when the server says no."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from support.frame_relay import frame_relay
from support.gateway import own_certificate

from server.api.status import status_of
from server.cli.connection import Target, explain
from server.cli.failure import ExitCode
from server.cli.program import typed
from server.kernel.errors import InvalidField, KernelError, ShuttingDown, StoreUnavailable, TurnActive
from treadle_client.errors import failure_of


def refused(error: KernelError) -> grpc.aio.AioRpcError:
    code, status = status_of(error)
    metadata = grpc.aio.Metadata(("grpc-status-details-bin", status.SerializeToString()))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), metadata, status.message)


@pytest.mark.parametrize("error", [StoreUnavailable(), ShuttingDown()])
def test_a_server_that_answers_is_not_called_unreachable(error: KernelError) -> None:
    failure = explain(failure_of(refused(error)), Target("127.0.0.1:7433", "key", Path("/data")))
    assert failure.exit_code is ExitCode.UNREACHABLE
    assert str(failure).startswith(f"the server at 127.0.0.1:7433 cannot do it now: {error.message}")
    assert "cannot be reached" not in str(failure)
    assert "start it" not in str(failure)


def test_an_edit_between_two_states_is_tried_again() -> None:
    told = str(explain(failure_of(refused(TurnActive("s", "t", edit=True))), Target("127.0.0.1:7433", "key", Path("/data"))))
    assert "try again in a moment" in told
    assert not any(word in told for word in ("send s", "resume s", "interrupt s"))


def test_a_field_is_named_as_the_option_that_it_came_from() -> None:
    error = InvalidField("onto_new_branch", "letters only")
    told = str(explain(failure_of(refused(error)), Target("127.0.0.1:7433", "key", Path("/data"))))
    assert told.startswith("--branch: letters only\n")


async def test_a_busy_session_gets_the_two_commands_that_help(shared, find_session) -> None:
    async with shared.started("run", *shared.add_gated_recording(), "Be busy") as run:
        await run.says("first.txt")
        session = find_session(run.out)
        busy = await shared.run("run", "--session", session, "Me too")
        shared.open_gate()
        await run.ended()
    assert busy.code == 2
    assert "the session's turn has not ended\n" in busy.err
    assert f"resume --data-dir {shared.data_dir} {session}\n" in busy.err
    assert f"interrupt --data-dir {shared.data_dir} {session}\n" in busy.err
    assert "reason TURN_ACTIVE" in busy.err


async def test_a_wrong_key_is_told_with_its_place(shared, unused) -> None:
    ended = await shared.run("sessions", TREADLE_API_KEY="trd_wrong")
    assert "environment variable TREADLE_API_KEY" in ended.err
    unused.data_dir.mkdir()
    (unused.data_dir / "api-key").write_text("trd_wrong\n")
    address = (shared.data_dir / "address").read_text().strip()
    ended = await unused.run("sessions", "--server", address)
    assert ended.code == 2
    assert str(unused.data_dir / "api-key") in ended.err


async def test_a_server_with_a_certificate_of_its_own(shared, unused, tmp_path: Path) -> None:
    """It is trusted by --ca-file or TREADLE_CA_FILE; else the command says what is missing."""
    certificate, key = await own_certificate(tmp_path)
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    given = {"TREADLE_API_KEY": (shared.data_dir / "api-key").read_text().strip()}
    plain = (shared.data_dir / "address").read_text().strip()
    async with frame_relay(plain, credentials=credentials) as relay:
        port = relay.address.rpartition(":")[2]
        with_tls = ("sessions", "--server", f"https://127.0.0.1:{port}")
        for ended in (
            await unused.run(*with_tls, "--ca-file", str(certificate), **given),
            await unused.run("sessions", **given, TREADLE_ADDRESS=with_tls[2], TREADLE_CA_FILE=str(certificate)),
        ):
            assert (ended.code, ended.err) == (0, "")
        wrong = {
            with_tls: ("its certificate is not accepted: self-signed certificate\n", "--ca-file FILE or TREADLE_CA_FILE"),
            ("sessions", "--server", f"127.0.0.1:{port}"): (f"it speaks TLS: name it as https://127.0.0.1:{port}\n",),
            ("sessions", "--server", f"https://{plain}"): ("a server in plain text is named without https://\n",),
        }
        for command, says in wrong.items():
            ended = await unused.run(*command, **given)
            assert ended.code == 3
            assert ended.err.startswith("treadle: the server at ")
            assert all(each in ended.err for each in says), ended.err
            assert "treadle up" not in ended.err
    away = await unused.run(*with_tls, **given)
    assert away.err.endswith("  --server names it: does it run, and can it be reached from here?\n")
    unused.data_dir.mkdir()
    (unused.data_dir / "address").write_text("127.0.0.1:1\n")
    ours = await unused.run("sessions", **given)
    assert f"start it with `{typed('up', unused.data_dir)}`" in ours.err
