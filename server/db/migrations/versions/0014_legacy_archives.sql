-- Where a session of the old system and Treadle's agree: the archive that was imported or written last, and the commit that it stands for.
-- Not below `sessions`: a session that was deleted here shall not come back with the next import.
CREATE TABLE legacy_archives (
  tenant_id    text NOT NULL,
  -- Alone the key, as in session_heads.
  session_id   uuid PRIMARY KEY,
  -- In its bucket: `<session_key>/session.tar.gz`.
  session_key  text NOT NULL,
  -- What the bucket says of this version of it (ETag), so that it need not be downloaded again.
  version      text NOT NULL,
  sha256       text NOT NULL,
  commit       text NOT NULL,
  updated_at   timestamptz NOT NULL DEFAULT now()
);

ALTER TABLE legacy_archives ENABLE ROW LEVEL SECURITY;
ALTER TABLE legacy_archives FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON legacy_archives TO treadle_app USING (tenant_id = nullif(current_setting('app.tenant', true), ''));
CREATE POLICY system ON legacy_archives TO treadle_system USING (true);

GRANT SELECT, INSERT, UPDATE ON legacy_archives TO treadle_system;
