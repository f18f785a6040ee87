"""Which URLs are let through, and which addresses behind them."""

from __future__ import annotations

import pytest

from server.git.address import is_public, public_addresses
from server.git.remote_url import RemoteUrls
from server.kernel.errors import RepositoryNotAllowed, RepositoryUnreachable

URLS = RemoteUrls(hosts="github.com, GitLab.com", prefixes="http://127.0.0.1:2000/git/")


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("https://github.com/ada/engine", "https://github.com/ada/engine.git"),
        ("https://GitHub.com/ada/engine.git", "https://github.com/ada/engine.git"),
        ("https://github.com/ada/.github/", "https://github.com/ada/.github.git"),
        ("https://gitlab.com/a/b", "https://gitlab.com/a/b.git"),
        ("http://127.0.0.1:2000/git/sample.git", "http://127.0.0.1:2000/git/sample.git"),
        ("http://127.0.0.1:2000/git/a/b/", "http://127.0.0.1:2000/git/a/b"),
    ],
)
def test_an_allowed_url_is_rebuilt(url: str, canonical: str) -> None:
    assert URLS.check(url) == canonical
    assert URLS.check(canonical) == canonical


@pytest.mark.parametrize(
    "url",
    [
        "",
        "github.com/a/b",
        "git@github.com:a/b.git",
        "ssh://github.com/a/b",
        "http://github.com/a/b",
        "file:///etc/passwd",
        "/etc",
        "ext::sh -c id",
        "https://evil.example/a/b",
        "https://github.com.evil.example/a/b",
        "https://user:pw@github.com/a/b",
        "https://github.com@evil.example/a/b",
        "https://github.com:444/a/b",
        "https://github.com:/a/b",
        "https://github.com/a/b?x=1",
        "https://github.com/a/b#x",
        "https://github.com/a",
        "https://github.com/a/b/c",
        "https://github.com/a/..",
        "https://github.com/a//b",
        "https://github.com/%2e%2e/b",
        "https://github.com\\@evil.example/a/b",
        "https://github.com/a/b\n",
        "https://gıthub.com/a/b",
        "--upload-pack=id",
        "https://[::1]/a/b",
        "https://127.0.0.1/a/b",
        "http://127.0.0.1:2000/a",
        "http://127.0.0.1:2000/git/../x",
        "http://127.0.0.1:2000/git/",
        "http://127.0.0.1:2000/gitx/a",
        "http://127.0.0.1:2000/git/a?x",
        "https://github.com/a/b " + "c" * 3000,
    ],
)
def test_everything_else_is_refused(url: str) -> None:
    with pytest.raises(RepositoryNotAllowed):
        URLS.check(url)


@pytest.mark.parametrize(
    ("url", "setting"),
    [("http://git.local/a/b", "TREADLE_GIT_ALLOWED_PREFIXES"), ("https://git.example/a/b", "TREADLE_GIT_ALLOWED_HOSTS")],
)
def test_a_refusal_names_the_setting_that_would_allow_it(url: str, setting: str) -> None:
    with pytest.raises(RepositoryNotAllowed, match=setting):
        URLS.check(url)


@pytest.mark.parametrize("url", ["/srv/app", "./app", "file:///srv/app.git"])
def test_who_names_a_directory_is_told_how_it_is_made_one_of_the_server_s(url: str) -> None:
    with pytest.raises(RepositoryNotAllowed) as caught:
        URLS.check(url)
    assert "git clone --bare" in caught.value.message


def test_what_is_fetched_besides_https_is_said() -> None:
    with pytest.raises(RepositoryNotAllowed) as caught:
        URLS.check("http://github.com/a/b")
    assert "what is below http://127.0.0.1:2000/git/" in caught.value.message
    assert "clone" not in caught.value.message


@pytest.mark.parametrize("prefix", ["http://host", "file:///srv/", "ssh://host/", "https://user@host/", "/srv/"])
def test_a_prefix_that_cannot_be_right_stops_the_server(prefix: str) -> None:
    with pytest.raises(ValueError, match="is not an http or https URL that ends with /"):
        RemoteUrls(hosts="", prefixes=prefix)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("140.82.121.4", True),
        ("2606:50c0:8000::153", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("169.254.169.254", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("::ffff:10.0.0.1", False),
        ("2002:7f00:1::", False),
        ("0.0.0.0", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("fd00::1", False),
        ("64:ff9b::8.8.8.8", True),
        ("64:ff9b::10.0.0.1", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("64:ff9b:1::10.0.0.1", False),
        ("2002:808:808::1", True),
        ("2001:0:808:808::1", False),
        ("::127.0.0.1", False),
        ("::10.0.0.1", False),
        ("fec0::1", False),
        ("3fff::1", False),
        ("4000::1", False),
        ("ff0e::1", False),
        ("::", False),
    ],
)
def test_only_global_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


async def test_a_name_of_this_machine_is_refused_before_git_is_started() -> None:
    with pytest.raises(RepositoryUnreachable, match="not public"):
        await public_addresses("https://localhost/a/b.git", seconds=5)
