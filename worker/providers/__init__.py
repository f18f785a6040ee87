"""Coding agents, one file each, behind the port in `worker/provider.py`."""
