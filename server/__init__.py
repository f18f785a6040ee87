"""Treadle's main server: API, journal, supervisor, storage, Git and workers' launchers. Start with ARCHITECTURE.md."""
