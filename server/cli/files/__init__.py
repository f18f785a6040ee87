"""`treadle files`: a session's files, without a worker. Content goes through standard input and output, as with cat."""
