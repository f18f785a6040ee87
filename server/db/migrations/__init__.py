"""Schema changes, forward only: one file per change in `versions/`, plain SQL."""
