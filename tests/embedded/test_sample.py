"""The sample repository's address: the known one when it is free, and the old ones as long as nobody else has them."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from server.embedded.sample import came_up, sample_repository


@pytest.fixture
def port() -> int:
    """The known port of this test: 7435 may be anybody's."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    return subprocess.run(["git", "ls-remote", "--exit-code", url], capture_output=True, timeout=30, check=False).returncode == 0


def test_it_comes_back_to_the_known_port_and_old_addresses_stay_good(tmp_path: Path, port: int) -> None:
    known = f"http://127.0.0.1:{port}/sample.git"
    with socket.create_server(("127.0.0.1", port)):
        with sample_repository(tmp_path, port) as first:
            assert first.moved
            assert first.url != known
            assert first.prefixes == (first.url.removesuffix("sample.git"),), "what somebody else serves must not be allowed"
            assert answers(first.url)
        with sample_repository(tmp_path, port) as again:
            assert again.url == first.url
    with sample_repository(tmp_path, port) as back:
        assert not back.moved
        assert back.url == known
        assert set(back.prefixes) == {url.removesuffix("sample.git") for url in (known, first.url)}
        assert answers(known)
        assert answers(first.url)
        assert (tmp_path / "sample" / "url").read_text() == f"{known}\n"
    assert not answers(known)


def test_the_one_port_of_an_older_version_is_kept(tmp_path: Path, port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        old = probe.getsockname()[1]
    (tmp_path / "sample").mkdir()
    (tmp_path / "sample" / "port").write_text(str(old))
    with sample_repository(tmp_path, port) as served:
        assert served.url == f"http://127.0.0.1:{port}/sample.git"
        assert answers(f"http://127.0.0.1:{old}/sample.git")


def test_any_port_is_kept(tmp_path: Path) -> None:
    with sample_repository(tmp_path, 0) as first:
        assert not first.moved
    with sample_repository(tmp_path, 0) as second:
        assert second.url == first.url


def test_it_is_new_until_a_start_came_up_with_it(tmp_path: Path) -> None:
    """So that the demo is not used up by a start that failed, and an older installation plays none."""
    for _ in range(2):
        with sample_repository(tmp_path, 0) as served:
            assert served.new
    came_up(tmp_path)
    with sample_repository(tmp_path, 0) as served:
        assert not served.new
