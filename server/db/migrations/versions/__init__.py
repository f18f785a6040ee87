"""One file per schema change; its name begins with its revision."""
