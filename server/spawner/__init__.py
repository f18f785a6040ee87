"""The spawner: the only program that speaks to the container engine."""
