"""Git repositories in three zones: trusted, workspace, import."""
