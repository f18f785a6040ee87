"""treadle up: Postgres, a sample repository and the server as one."""
