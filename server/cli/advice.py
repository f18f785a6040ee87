"""What to type when the server says no: for the reasons where its own words cannot know that."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

from server.cli.program import typed
from server.cli.refusals import what_to_do
from treadle.session.v1.event_pb2 import PUSH_REFUSAL_UNSPECIFIED, PushRefusal


def advice(reason: str, metadata: Mapping[str, str], data_dir: Path | None) -> list[str]:
    """Lines for a person; none for most reasons."""
    found = _ADVICE.get(reason)
    return found(metadata, data_dir) if found else []


def _turn_active(metadata: Mapping[str, str], data_dir: Path | None) -> list[str]:
    if "edit" in metadata:
        return ["try again in a moment"]
    session = metadata.get("session_id", "SESSION")
    return [
        f"say something, now or for the next turn: {typed(f'send {session} TEXT', data_dir)}",
        f"follow it: {typed(f'resume {session}', data_dir)}",
        f"stop it:   {typed(f'interrupt {session}', data_dir)}",
    ]


def _branch_exists(_: Mapping[str, str], data_dir: Path | None) -> list[str]:
    del data_dir
    return ["name another one with --branch; a new session grows from this one by `run --base`"]


def _push_refused(metadata: Mapping[str, str], data_dir: Path | None) -> list[str]:
    kind = f"PUSH_REFUSAL_{metadata.get('kind', '')}"
    refusal = PushRefusal.Value(kind) if kind in dict(PushRefusal.items()) else PUSH_REFUSAL_UNSPECIFIED
    session, repository, begun = metadata.get("session_id", "SESSION"), metadata.get("repository", ""), metadata.get("commit") != ""
    return what_to_do(refusal, session, data_dir, repository=repository, begun=begun)


def _api_key_invalid(_: Mapping[str, str], data_dir: Path | None) -> list[str]:
    if os.environ.get("TREADLE_API_KEY"):
        return ["it came from the environment variable TREADLE_API_KEY; without it the file in the data directory is used"]
    if given := os.environ.get("TREADLE_API_KEY_FILE"):
        return [f"it came from {given}, which TREADLE_API_KEY_FILE names"]
    return [f"it came from {data_dir / 'api-key'}; set TREADLE_API_KEY for a server of another data directory"] if data_dir else []


def _repository_unreachable(metadata: Mapping[str, str], data_dir: Path | None) -> list[str]:
    match metadata.get("credential"):
        case "MISSING":
            return _another_token(metadata, data_dir, word="a")
        case "REFUSED":
            return _another_token(metadata, data_dir)
    return []


def _host(metadata: Mapping[str, str]) -> str:
    return shlex.quote(metadata.get("host", "HOST"))


def _another_token(metadata: Mapping[str, str], data_dir: Path | None, *, word: str = "another") -> list[str]:
    if "sso_url" in metadata:
        return [f"let the token in there: {metadata['sso_url']}"]
    return [f"store {word} token: {typed(f'credential add {_host(metadata)}', data_dir)}"]


def _token_missing(metadata: Mapping[str, str], data_dir: Path | None) -> list[str]:
    return _another_token(metadata, data_dir, word="a")


def _login_over(metadata: Mapping[str, str], data_dir: Path | None) -> list[str]:
    return [f"begin anew: {typed(f'credential login {_host(metadata)}', data_dir)}"]


_ADVICE: Mapping[str, Callable[[Mapping[str, str], Path | None], list[str]]] = {
    "TURN_ACTIVE": _turn_active,
    "BRANCH_EXISTS": _branch_exists,
    "PUSH_REFUSED": _push_refused,
    "REPOSITORY_UNREACHABLE": _repository_unreachable,
    "CREDENTIAL_MISSING": _token_missing,
    "CREDENTIAL_REJECTED": _another_token,
    "CREDENTIAL_UNREADABLE": _another_token,
    "CODE_HOST_FORBIDDEN": _another_token,
    "LOGIN_EXPIRED": _login_over,
    "API_KEY_INVALID": _api_key_invalid,
    "API_KEY_EXPIRED": _api_key_invalid,
}
