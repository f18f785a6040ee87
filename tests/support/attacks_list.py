"""The names of what `attacks.py` tries; it runs elsewhere and cannot be imported."""

from __future__ import annotations

import re
from pathlib import Path

NAMES = re.findall(r'^    "([^"]+)": ', Path(__file__).with_name("attacks.py").read_text(), re.MULTILINE)
