"""Launchers, and the client side of the worker protocol."""
