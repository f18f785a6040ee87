"""The treadle command."""
