"""Zone I, the untrusted half: reads a hostile tree and says what it found.

Runs as a process of its own (`main.py`), in a sandbox, with Python's standard library and pygit2 alone (and without
`dataclasses`, which loads `inspect`: every import waits for it). It imports nothing of the
server but this package; the trusted half imports `names` and `protocol` from here.
"""
