-- What was answered to an edit with a request_id: who asks again, because the answer got lost, gets it again.
CREATE TABLE edit_requests (
  tenant_id    text NOT NULL,
  session_id   uuid NOT NULL,
  request_id   text NOT NULL,
  -- Tells a repeated request from another one under its id.
  digest       text NOT NULL,
  -- The head then, and the snapshot that was made; empty and 0 where none was.
  commit       text NOT NULL,
  number       int NOT NULL,
  -- One for each edit, as JSON.
  changes      text NOT NULL,
  created_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, session_id, request_id),
  FOREIGN KEY (tenant_id, session_id) REFERENCES sessions ON DELETE CASCADE
);
CREATE INDEX edit_requests_created ON edit_requests (created_at);

ALTER TABLE edit_requests ENABLE ROW LEVEL SECURITY;
ALTER TABLE edit_requests FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON edit_requests TO treadle_app USING (tenant_id = nullif(current_setting('app.tenant', true), ''));
CREATE POLICY system ON edit_requests TO treadle_system USING (true);

GRANT SELECT, INSERT ON edit_requests TO treadle_app;
GRANT SELECT, INSERT, DELETE ON edit_requests TO treadle_system;
