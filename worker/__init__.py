"""Treadle's worker: one process for one turn. It runs the agent and streams events, and knows nothing else."""
