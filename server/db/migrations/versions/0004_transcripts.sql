-- An agent's own memory of a session: opaque bytes that only the same agent can read, apart from the tree and from the log.
-- One row per agent; a turn's replaces the one before. No caller reads it, so treadle_app has no right to it.
CREATE TABLE transcripts (
  tenant_id    text NOT NULL,
  session_id   uuid NOT NULL,
  provider     text NOT NULL,
  -- The turn that left it.
  turn_number  int NOT NULL CHECK (turn_number > 0),
  -- Bytes before compression.
  size         int NOT NULL CHECK (size BETWEEN 1 AND 33554432),
  -- zlib.
  data         bytea NOT NULL,
  updated_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, session_id, provider),
  FOREIGN KEY (tenant_id, session_id) REFERENCES sessions ON DELETE CASCADE
);
ALTER TABLE transcripts ALTER data SET STORAGE EXTERNAL;

ALTER TABLE transcripts ENABLE ROW LEVEL SECURITY;
ALTER TABLE transcripts FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON transcripts TO treadle_app USING (tenant_id = nullif(current_setting('app.tenant', true), ''));
CREATE POLICY system ON transcripts TO treadle_system USING (true);

GRANT SELECT, INSERT, UPDATE ON transcripts TO treadle_system;
