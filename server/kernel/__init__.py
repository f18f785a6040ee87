"""The kernel: what would still be here if Postgres, S3, Docker and the code hosts were all replaced."""
