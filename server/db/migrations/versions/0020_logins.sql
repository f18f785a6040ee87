-- A login that a user has begun: when its host may be asked again. The host's code is in none of it.
CREATE TABLE logins (
  tenant_id         text NOT NULL,
  id                uuid NOT NULL,
  owner_id          text NOT NULL,
  begun_at          timestamptz NOT NULL DEFAULT now(),
  -- It is open until then.
  expires_at        timestamptz NOT NULL,
  interval_seconds  int NOT NULL,
  ask_at            timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, owner_id) REFERENCES users ON DELETE CASCADE
);
CREATE INDEX logins_of_user ON logins (tenant_id, owner_id);

ALTER TABLE logins ENABLE ROW LEVEL SECURITY;
ALTER TABLE logins FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON logins TO treadle_app USING (tenant_id = nullif(current_setting('app.tenant', true), ''));
CREATE POLICY system ON logins TO treadle_system USING (true);

GRANT SELECT, INSERT, DELETE ON logins TO treadle_app;
GRANT UPDATE (expires_at, interval_seconds, ask_at) ON logins TO treadle_app;

-- Archives that servers are about to write, told before they do: a server that dies between the bucket and `legacy_archives` leaves one
-- there, and it is known for Treadle's own. Several servers may be about to write the same session's.
CREATE TABLE legacy_intents (
  tenant_id       text NOT NULL,
  session_id      uuid NOT NULL,
  sha256          text NOT NULL,
  commit          text NOT NULL,
  -- The version of the archive that it shall replace, empty for none.
  replaces        text NOT NULL,
  intended_at     timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (session_id, sha256)
);

ALTER TABLE legacy_intents ENABLE ROW LEVEL SECURITY;
ALTER TABLE legacy_intents FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON legacy_intents TO treadle_app USING (tenant_id = nullif(current_setting('app.tenant', true), ''));
CREATE POLICY system ON legacy_intents TO treadle_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON legacy_intents TO treadle_system;

INSERT INTO legacy_intents (tenant_id, session_id, sha256, commit, replaces)
SELECT tenant_id, session_id, intended_sha256, intended_commit, version FROM legacy_archives WHERE intended_sha256 <> '';
ALTER TABLE legacy_archives DROP COLUMN intended_sha256, DROP COLUMN intended_commit;
DELETE FROM legacy_archives WHERE commit = '';
