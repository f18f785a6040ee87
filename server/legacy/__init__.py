"""The system that Treadle replaces: its archives (`session.tar.gz`), read and written while both run side by side."""
