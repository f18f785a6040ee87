-- The newest pull request from the session's branch (as server/db/rows.py writes it), and whether the log tells of it.
ALTER TABLE sessions
  ADD COLUMN pull_request jsonb,
  ADD COLUMN pull_request_told boolean NOT NULL DEFAULT true;
CREATE INDEX sessions_untold_pull_requests ON sessions (tenant_id, id) WHERE NOT pull_request_told;
-- A webhook names a repository and a branch, and no tenant.
CREATE INDEX sessions_by_repository ON sessions (lower(repository_url), branch);

-- Pull requests that the host shall be asked about, as the session's owner: a webhook named them.
CREATE TABLE pull_request_looks (
  tenant_id   text NOT NULL,
  session_id  uuid NOT NULL,
  number      integer NOT NULL CHECK (number > 0),
  due_at      timestamptz NOT NULL DEFAULT now(),
  tries       integer NOT NULL DEFAULT 0,
  PRIMARY KEY (tenant_id, session_id),
  FOREIGN KEY (tenant_id, session_id) REFERENCES sessions ON DELETE CASCADE
);
CREATE INDEX pull_request_looks_due ON pull_request_looks (due_at);

-- Deliveries of webhooks that were taken, so that none is taken twice. They are nobody's: no tenant sees them.
CREATE TABLE webhook_deliveries (
  id           text PRIMARY KEY,
  received_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX webhook_deliveries_received ON webhook_deliveries (received_at);

ALTER TABLE pull_request_looks ENABLE ROW LEVEL SECURITY;
ALTER TABLE pull_request_looks FORCE ROW LEVEL SECURITY;
ALTER TABLE webhook_deliveries ENABLE ROW LEVEL SECURITY;
ALTER TABLE webhook_deliveries FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON pull_request_looks TO treadle_app USING (tenant_id = nullif(current_setting('app.tenant', true), ''));
CREATE POLICY system ON pull_request_looks TO treadle_system USING (true);
CREATE POLICY system ON webhook_deliveries TO treadle_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON pull_request_looks, webhook_deliveries TO treadle_system;
