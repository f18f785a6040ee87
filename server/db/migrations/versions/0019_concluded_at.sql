-- Until when the agent's commits can have been made: an import that is done again must make the same ones.
ALTER TABLE turns ADD COLUMN concluded_at timestamptz;
