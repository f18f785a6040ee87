"""Which repositories may be reached, and in which spelling."""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from server.kernel.errors import InvalidField, RepositoryNotAllowed
from server.setting_forms import git_prefixes, parts

_SEGMENT = re.compile(r"[A-Za-z0-9._-]{1,100}\Z")
_LONGEST = 2000


class RemoteUrls:
    """The allow-list: `https` on known hosts, and prefixes that the operator named exactly. Implements the port `Hosts`."""

    def __init__(self, *, hosts: str, prefixes: str, plain_credentials: bool = False) -> None:
        """`hosts` and `prefixes` are comma lists. Errors: ValueError for a prefix that is no http(s) URL ending in `/`."""
        self._plain_credentials = plain_credentials
        self._hosts = frozenset(host.lower() for host in parts(hosts))
        self._prefixes = parts(git_prefixes(prefixes))

    def check(self, url: str) -> str:
        """The canonical spelling, rebuilt from its parts. Errors: RepositoryNotAllowed."""
        if not url:
            raise RepositoryNotAllowed("the URL is empty")
        if len(url) > _LONGEST or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
            raise RepositoryNotAllowed("the URL is too long or holds characters that no repository URL needs")
        prefix = self._prefix_of(url)
        return prefix + "/".join(_path(url[len(prefix) :])) if prefix else self._on_a_known_host(url)

    def is_operators(self, url: str) -> bool:
        """Whether a checked URL is under a prefix that the operator named: then private addresses are meant."""
        return self._prefix_of(url) is not None

    def check_host(self, host: str) -> str:
        """See Hosts."""
        if (prefix := self._prefix_of(host) or self._prefix_of(f"{host}/")) is not None:
            return prefix
        # People paste addresses of pages and repositories.
        name = host.lower().removeprefix("https://").partition("/")[0]
        if name in self._hosts:
            return name
        allowed = ", ".join([*sorted(self._hosts), *self._prefixes]) or "none"
        raise InvalidField("host", f"{host!r} is not one that this server fetches from; there are: {allowed}")

    def keeps_secrets(self, host: str) -> bool:
        """See Hosts."""
        return self._plain_credentials or not host.startswith("http://") or _is_loopback(urlsplit(host).hostname or "")

    def host_of(self, url: str) -> str:
        """See Hosts."""
        return self._prefix_of(url) or urlsplit(url).hostname or ""

    def _prefix_of(self, url: str) -> str | None:
        return next((prefix for prefix in self._prefixes if url.startswith(prefix)), None)

    def _on_a_known_host(self, url: str) -> str:
        try:
            address = urlsplit(url)
            port = address.port
        except ValueError:
            raise RepositoryNotAllowed("the URL is malformed") from None
        if address.scheme != "https":
            if hint := _as_https(url):
                raise RepositoryNotAllowed(f"only https:// URLs are fetched{hint}")
            also = f", and what is below {', '.join(self._prefixes)}" if self._prefixes else ""
            hint = _as_bare(url) or "; the server's operator allows more by their prefix, with TREADLE_GIT_ALLOWED_PREFIXES"
            raise RepositoryNotAllowed(f"only https:// URLs are fetched{also}{hint}")
        if "@" in address.netloc:
            raise RepositoryNotAllowed("the URL holds a user name or password")
        if port is not None or address.netloc.endswith(":") or "?" in url or "#" in url:
            raise RepositoryNotAllowed("the URL holds a port, a query or a fragment")
        host = (address.hostname or "").lower()
        if host not in self._hosts:
            allowed = ", ".join(sorted(self._hosts)) or "none"
            raise RepositoryNotAllowed(
                f"host {host!r}, allowed are {allowed}; the server's operator allows more with TREADLE_GIT_ALLOWED_HOSTS"
            )
        segments = _path(address.path.removeprefix("/"))
        if len(segments) != 2:
            raise RepositoryNotAllowed("the path is not owner/name")
        # With `.git` no known host answers with a redirect, which we would not follow.
        return f"https://{host}/{segments[0]}/{segments[1].removesuffix('.git')}.git"


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _path(path: str) -> list[str]:
    segments = path.removesuffix("/").split("/")
    for segment in segments:
        if not _SEGMENT.match(segment) or segment in {".", "..", ".git"}:
            raise RepositoryNotAllowed("the path is not a repository's")
    return segments


def _as_bare(url: str) -> str:
    """A hint for who names a directory; empty for all else."""
    if not url.startswith(("/", "./", "../", "~", "file:")):
        return ""
    return "; a directory is first cloned (git clone --bare) to where the server's sample repository is, as the README says"


def _as_https(url: str) -> str:
    """A hint for the two ways in which people write SSH addresses; empty for all else."""
    found = re.fullmatch(r"(?:ssh://)?[\w.-]+@([\w.-]+)[:/](?!/)([\w./-]+)", url)
    return f"; try https://{found[1]}/{found[2]}" if found else ""
