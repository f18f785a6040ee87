"""What the kernel asks of the world: one Protocol per file, whose docstring is its specification."""
