"""What a command says when the server says no."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from server.api.status import status_of
from server.cli.connection import Target, explain
from server.cli.failure import ExitCode
from server.kernel.errors import KernelError, ShuttingDown, StoreUnavailable
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
