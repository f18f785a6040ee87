"""What terminals take as an order instead of showing it."""

from __future__ import annotations

import re

ESCAPE_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
"""Escape sequences of ECMA-48: CSI (colours, movements), OSC (titles, links) with their text, and the two-character ones."""
