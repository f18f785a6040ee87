"""Code hosts: what they do besides Git."""
