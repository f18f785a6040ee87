"""Inputs that wait in a session's queue, told."""

from __future__ import annotations


def in_words(waiting: int) -> str:
    """For a person."""
    return "1 input waits" if waiting == 1 else f"{waiting} inputs wait"
