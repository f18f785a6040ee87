-- What a user has to get into a code host: one row per host. The secret is sealed (server/identity/vault.py); its key is not in the database.
CREATE TABLE credentials (
  tenant_id     text NOT NULL,
  id            uuid NOT NULL,
  owner_id      text NOT NULL,
  -- The name of a host, or an operator's prefix.
  host          text NOT NULL,
  kind          text NOT NULL CHECK (kind IN ('TOKEN', 'GITHUB_OAUTH', 'GITHUB_APP')),
  username      text NOT NULL,
  scopes        text[] NOT NULL DEFAULT '{}',
  sealed        bytea NOT NULL,
  expires_at    timestamptz,
  created_at    timestamptz NOT NULL DEFAULT now(),
  last_used_at  timestamptz,
  version       bigint NOT NULL DEFAULT 1,
  PRIMARY KEY (tenant_id, id),
  UNIQUE (tenant_id, owner_id, host),
  FOREIGN KEY (tenant_id, owner_id) REFERENCES users ON DELETE CASCADE
);

ALTER TABLE credentials ENABLE ROW LEVEL SECURITY;
ALTER TABLE credentials FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON credentials TO treadle_app USING (tenant_id = nullif(current_setting('app.tenant', true), ''));
CREATE POLICY system ON credentials TO treadle_system USING (true);

GRANT SELECT, INSERT, DELETE ON credentials TO treadle_app;
GRANT UPDATE (kind, username, scopes, sealed, expires_at, last_used_at, version) ON credentials TO treadle_app;
-- For the change of the key.
GRANT SELECT, UPDATE (sealed) ON credentials TO treadle_system;
