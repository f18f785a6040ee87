"""Places in a session's files and in its history, as they are typed, for the server that takes one form of them."""

from __future__ import annotations


def file_path(text: str) -> str:
    """As a shell completes it: `./a`."""
    while text.startswith("./"):
        text = text[2:].lstrip("/")
    return text


def directory_path(text: str) -> str:
    """As well with a slash at its end, which `files ls` prints; `.` is the root."""
    path = file_path("./" if text == "." else text)
    return path.rstrip("/") or path


def point(text: str) -> str:
    """Git's own word for the newest commit is known."""
    return "head" if text == "HEAD" else text
