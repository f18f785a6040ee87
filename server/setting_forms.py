"""What a setting may look like. Each function gives the value to use, and raises ValueError with a sentence that names what is wrong."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from gateway.addresses import parse_networks
from server.adapters import installed, not_installed
from server.kernel.egress import parse_ceiling
from server.kernel.errors import InvalidField
from server.kernel.naming import check_branch_name

_ADDRESS = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")
_ORIGIN = re.compile(r"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
_LAST_PORT = 65535
# https://pkg.go.dev/github.com/distribution/reference: host and path, tag, digest.
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]*?(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?")
SOCKET_BYTES = 107
_COAUTHOR = re.compile(r"[^<>\s][^<>]{0,99} <[^<>@\s]{1,100}@[^<>@\s]{1,100}>")
# What RFC 3986 allows, and braces.
_LINK = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%{}-]{1,500}")
_UIDS = re.compile(r"([0-9]{1,10})-([0-9]{1,10})")
_USER = re.compile(r"([0-9]{1,10})(?::([0-9]{1,10}))?")
_LAST_ID = 2**31 - 1
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_AGENT = re.compile(r"[a-z0-9][a-z0-9-]{0,27}")
MAX_POOL = 256


def bucket(text: str) -> str:
    """A name that any S3 server takes; else it would be found out at the end of the first turn."""
    if not _BUCKET.fullmatch(text):
        raise ValueError(f"{text!r} is no bucket's name: 3 to 63 of a-z, 0-9, `-` and `.`, the first and the last a letter or digit")
    return text


def address(text: str) -> str:
    """`host:port`."""
    found = _ADDRESS.fullmatch(text)
    if not found or int(found[2]) > _LAST_PORT:
        raise ValueError(f"{text!r} is not host:port, as in 127.0.0.1:7433 or [::1]:7433 (0.0.0.0 for all interfaces)")
    return text


def optional_address(text: str) -> str:
    """`host:port`, or empty for none."""
    return address(text) if text else text


def parts(text: str) -> tuple[str, ...]:
    """The parts of a comma list."""
    return tuple(filter(None, (part.strip() for part in text.split(","))))


def origins(text: str) -> str:
    """A comma list of origins as browsers send them (RFC 6454 section 6.2): no path, not even `/`."""
    for origin in parts(text):
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(f"{origin!r} is not an origin, as in https://example.org or http://localhost:3000")
    return text


def git_prefixes(text: str) -> str:
    """A comma list of URL prefixes."""
    for prefix in parts(text):
        url = urlsplit(prefix)
        if url.scheme not in {"http", "https"} or not url.hostname or "@" in url.netloc or not prefix.endswith("/"):
            raise ValueError(f"{prefix!r} is not an http or https URL that ends with /")
    return text


def host_urls(text: str) -> str:
    """A comma list of host=URL."""
    for host, url in urls_by_host(text).items():
        parsed = urlsplit(url)
        if not host or parsed.scheme not in {"http", "https"} or not parsed.hostname or "@" in parsed.netloc or "?" in url or "#" in url:
            raise ValueError(f"{host}={url} is not host=URL, as in github.com=https://api.github.com")
        if "://" not in host and parsed.scheme != "https":
            raise ValueError(f"{url} is not https, and {host} is not a prefix of TREADLE_GIT_ALLOWED_PREFIXES")
    return text


def urls_by_host(text: str) -> dict[str, str]:
    """What such a setting says."""
    return {host: url for host, _, url in (part.partition("=") for part in parts(text))}


def values_by_host(text: str) -> dict[str, str]:
    """`VALUE` for all hosts ("" here), or a comma list of `host=VALUE`."""
    return {host: value for host, _, value in (part.rpartition("=") for part in parts(text))}


def by_host(text: str) -> str:
    """A value, or a comma list of host=value."""
    found = values_by_host(text)
    if not all(found.values()) or len(found) != len(parts(text)):
        raise ValueError("it is neither one value nor a comma list of host=value")
    return text


def secret_by_host(secret: SecretStr) -> SecretStr:
    """The same for a secret."""
    by_host(secret.get_secret_value())
    return secret


def egress_hosts(text: str) -> str:
    """A comma list of rules."""
    parse_ceiling(text)
    return text


def networks(text: str) -> str:
    """A comma list of networks."""
    try:
        parse_networks(text)
    except ValueError as error:
        raise ValueError(f"{error}; a network is 10.1.0.0/16, or a single address") from None
    return text


def addresses(text: str) -> str:
    """A comma list of `address:port`."""
    for part in parts(text):
        address(part)
    return text


def socket_or_address(text: str) -> str:
    """The absolute path of a unix socket, `host:port`, or empty."""
    return text if text.startswith("/") else optional_address(text)


def collector(text: str) -> str:
    """An http(s) URL with a host, or empty."""
    url = urlsplit(text)
    if text and (url.scheme not in {"http", "https"} or not url.hostname):
        raise ValueError(f"{text!r} is not http://host:port or https://host:port")
    return text


def branch_prefix(text: str) -> str:
    """What a branch's name may begin with."""
    try:
        check_branch_name(f"{text}session-00000000")
    except InvalidField as error:
        raise ValueError(f"{text!r} cannot begin a branch's name: {error.message.removeprefix('branch: ')}") from None
    return text


def commit_coauthor(text: str) -> str:
    """`Name <address>`, `agent`, or empty."""
    if text not in ("", "agent") and (not _COAUTHOR.fullmatch(text) or not text.isprintable()):
        raise ValueError(f"{text!r} is neither `agent` nor a name with an address, as in Ada Lovelace <ada@example.org>")
    return text


def session_link(text: str) -> str:
    """A URL with a place for the session's id, or empty."""
    url = urlsplit(text)
    whole = url.scheme in {"http", "https"} and url.hostname and text.count("{session_id}") == 1 and _LINK.fullmatch(text)
    if text and not whole:
        raise ValueError(
            f"{text!r} is not an http or https URL with {{session_id}} in it, as in https://treadle.example/sessions/{{session_id}}"
        )
    return text


def socket_path(path: Path | None) -> Path | None:
    """Where a unix socket can be: its address has room for 107 bytes."""
    if path is not None and len(os.fsencode(path.absolute())) > SOCKET_BYTES:
        raise ValueError(f"{path} is longer than the {SOCKET_BYTES} bytes that a socket's path may have")
    return path


def pool_sizes(text: str) -> dict[str, int]:
    """How many workers of each agent wait. Errors: ValueError."""
    sizes: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        agent, equals, number = (word.strip() for word in part.partition("="))
        if not equals or not _AGENT.fullmatch(agent) or not number.isdecimal() or agent in sizes or not 0 < int(number) <= MAX_POOL:
            raise ValueError(f"{part!r} is not AGENT=NUMBER, each agent once, with at most {MAX_POOL} workers, as in claude=2,replay=1")
        sizes[agent] = int(number)
    return sizes


def worker_pool(text: str) -> str:
    """What `pool_sizes` reads."""
    pool_sizes(text)
    return text


def worker_image(text: str) -> str:
    """An image's name with a place for the agent's."""
    if "{provider}" not in text or not _IMAGE.fullmatch(text.replace("{provider}", "agent")):
        raise ValueError(
            f"{text!r} is not the name of an image with {{provider}} in it, as in registry.example/treadle-worker-{{provider}}:1.0"
        )
    return text


def readable(path: Path | None) -> Path | None:
    """A file that can be read."""
    if path is not None:
        try:
            # Opening a FIFO would wait for somebody who writes to it.
            if stat.S_ISFIFO(path.stat().st_mode):
                raise ValueError(f"{path} cannot be read: it is a FIFO")
            path.open("rb").close()
        except OSError as error:
            raise ValueError(unreadable(path, error)) from None
    return path


def unreadable(path: Path, error: OSError) -> str:
    """Why a file cannot be read, and who must be able to: in a container nobody knows as whom a program runs."""
    whom = f" (this runs as uid {os.geteuid()}: chown {os.geteuid()})" if error.errno == errno.EACCES else ""
    return f"{path} cannot be read: {os.strerror(error.errno or 0)}{whom}"


def both_or_none(key: Path | None, others: Mapping[str, Any]) -> Path | None:
    """A key that has its certificate."""
    if "gateway_tls_certificate" in others and (key is None) != (others["gateway_tls_certificate"] is None):
        raise ValueError("it is of use only together with TREADLE_GATEWAY_TLS_CERTIFICATE, and needed with it")
    return key


def name_of(port: str) -> Callable[[str], str]:
    """The name of something that is installed."""

    def check(name: str) -> str:
        if name not in installed(port):
            raise ValueError(f"{name!r} is not installed; there are: {', '.join(installed(port))}")
        return name

    return check


def agent(name: str, others: Mapping[str, Any]) -> str:
    """The name of an agent, or empty for none. Launcher `process` runs what is installed here; others have agents in images."""
    if name and name not in installed("provider"):
        if name not in not_installed("provider"):
            raise ValueError(f"{name!r} is no agent; there are: {', '.join(sorted({*installed('provider'), *not_installed('provider')}))}")
        if others.get("launcher") == "process":
            raise ValueError(f"{name!r} is not installed; there are: {', '.join(installed('provider'))}")
    return name


def uids(text: str) -> str:
    """`first-last`, at least two."""
    found = _UIDS.fullmatch(text)
    if not found or not 0 < int(found[1]) < int(found[2]) <= _LAST_ID:
        raise ValueError(f"{text!r} is not a range of at least two user ids, as in 20000-29999")
    return text


def uid_range(text: str) -> range:
    """What such a setting says."""
    first, _, last = text.partition("-")
    return range(int(first), int(last) + 1)


def user(text: str) -> str:
    """`uid` or `uid:gid`, or empty for none. Root is nobody to be kept from anything."""
    found = _USER.fullmatch(text)
    if text and (not found or any(not 0 < int(number) <= _LAST_ID for number in found.groups() if number)):
        raise ValueError(f"{text!r} is not a user, as in 10000 or 10000:10000 (numbers; not root, which is the default for a root spawner)")
    return text


def user_ids(text: str) -> tuple[int, int]:
    """Uid and gid, which is the same where none is said."""
    uid, _, gid = text.partition(":")
    return int(uid), int(gid or uid)
