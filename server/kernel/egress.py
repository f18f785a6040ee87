"""Where a session's workers may connect to: rules like `index.example.org`, `*.packages.example.org` and `example.org:80`.

A rule is a name, or `*.` and a name, which stands for all names below it and not for itself; without a port it means 443. An operator may
also allow `*`: every name, on ports 443 and 80. Addresses are no names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

TLS_PORT = 443
PLAIN_PORT = 80
MAX_RULES = 64
MAX_NAME = 253

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})+")
_NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
"""What resolvers take for an address (https://url.spec.whatwg.org/#ends-in-a-number-checker)."""


class EgressReason(StrEnum):
    """Why a connection was refused, or failed. Stable words, for programs."""

    # Refused: nothing of it got out.
    HOST_NOT_ALLOWED = "HOST_NOT_ALLOWED"
    PORT_NOT_ALLOWED = "PORT_NOT_ALLOWED"
    NOT_PROXYING = "NOT_PROXYING"
    """What came is no request for a proxy."""
    NOT_TLS = "NOT_TLS"
    """A tunnel to which no TLS client spoke."""
    WRONG_NAME = "WRONG_NAME"
    """A tunnel to one host, in which another one was asked for."""
    ADDRESS_FORBIDDEN = "ADDRESS_FORBIDDEN"
    """The name stands for an address that is not public."""
    TOO_MANY = "TOO_MANY"
    """More connections at a time, or more bytes by now, than a turn may have."""
    # Allowed, but it did not come about.
    NAME_UNKNOWN = "NAME_UNKNOWN"
    UNREACHABLE = "UNREACHABLE"
    # Allowed, and cut.
    TOO_MUCH = "TOO_MUCH"
    """With it the turn had more bytes than it may have."""
    IDLE = "IDLE"
    TURN_ENDED = "TURN_ENDED"

    @property
    def denies(self) -> bool:
        """Whether it says that nothing was let out."""
        return self in _DENIALS


_DENIALS = frozenset(
    {
        EgressReason.HOST_NOT_ALLOWED,
        EgressReason.PORT_NOT_ALLOWED,
        EgressReason.NOT_PROXYING,
        EgressReason.NOT_TLS,
        EgressReason.WRONG_NAME,
        EgressReason.ADDRESS_FORBIDDEN,
        EgressReason.TOO_MANY,
    }
)


@dataclass(frozen=True)
class HostRule:
    """One rule. `name` is empty for `*`."""

    name: str
    below: bool = False
    """All names below it."""
    port: int = TLS_PORT

    def __str__(self) -> str:
        shown = f"*.{self.name}" if self.name and self.below else self.name or "*"
        return shown if self.port == TLS_PORT or not self.name else f"{shown}:{self.port}"

    def covers(self, other: HostRule) -> bool:
        """Whether all that `other` allows is allowed by this one."""
        if not self.name:
            return other.port in (TLS_PORT, PLAIN_PORT)
        if self.port != other.port:
            return False
        if self.below:
            return other.name.endswith(f".{self.name}") or (other.below and other.name == self.name)
        return not other.below and other.name == self.name


@dataclass(frozen=True)
class HostRules:
    """Several, of which one is enough."""

    rules: Sequence[HostRule] = ()

    def find(self, host: str, port: int) -> HostRule | None:
        """The first rule that lets a connection to this name pass."""
        asked = HostRule(host, port=port)
        return next((rule for rule in self.rules if rule.covers(asked)), None)

    def knows(self, host: str) -> bool:
        """Whether the name is allowed on any port."""
        return any(rule.covers(HostRule(host, port=rule.port)) for rule in self.rules)

    def within(self, ceiling: HostRules) -> HostRules:
        """Those that the ceiling covers."""
        return HostRules([rule for rule in self.rules if ceiling.covers(rule)])

    @property
    def naming(self) -> HostRules:
        """Those that name hosts: all but `*`."""
        return HostRules([rule for rule in self.rules if rule.name])

    def covers(self, rule: HostRule) -> bool:
        """Whether one of them covers it."""
        return any(each.covers(rule) for each in self.rules)

    def __bool__(self) -> bool:
        return bool(self.rules)

    def __str__(self) -> str:
        return ", ".join(map(str, self.rules))


def parse_rules(texts: Iterable[str]) -> HostRules:
    """A session's rules, in their usual form, each once. Errors: ValueError, a sentence that names the rule."""
    return HostRules([*dict.fromkeys(parse_rule(text) for text in texts)])


def parse_rule(text: str) -> HostRule:
    """Errors: ValueError, a sentence that names the rule."""
    shown = ascii(text[: MAX_NAME + 10])
    if not text.isascii():
        # In lower case some letters of others would be ours.
        raise ValueError(f"{shown} is not the name of a host in ASCII (xn--… for others)")
    name, separator, digits = text.strip().lower().partition(":")
    port = TLS_PORT
    if separator:
        if not digits.isdigit() or len(digits) > 5 or not 0 < int(digits) < 65536:
            raise ValueError(f"{shown} has no port behind its colon (only names, like example.org or *.example.org:80)")
        port = int(digits)
    below, name = name.startswith("*."), name.removeprefix("*.")
    if not is_name(name):
        raise ValueError(f"{shown} is not the name of a host, like example.org or *.example.org")
    return HostRule(name, below, port)


def parse_ceiling(text: str) -> HostRules:
    """An operator's rules, by comma; `*` among them allows every name. Errors: ValueError, a sentence that names the rule."""
    parts = [part for part in (part.strip() for part in text.split(",")) if part]
    return HostRules([HostRule("") if part == "*" else parse_rule(part) for part in parts])


def is_name(text: str) -> bool:
    """Whether it is the full name of a host, in lower case: never an address in any spelling, and no name without a dot, which would be
    one of the operator's own network."""
    return len(text) <= MAX_NAME and _NAME.fullmatch(text) is not None and _NUMERIC.fullmatch(text) is None
