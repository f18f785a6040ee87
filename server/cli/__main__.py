"""`python -m server.cli`: the `treadle` command where its script is not installed."""

from __future__ import annotations

import sys

from server.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
