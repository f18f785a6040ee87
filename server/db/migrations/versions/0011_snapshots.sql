-- Servers may be at work. All locks that stop them are taken here, at once or not at all: a wait stops them for half a second, and what
-- follows reads and writes no more than some hundred bytes for each turn.
DO $$
BEGIN
  FOR try IN 1..200 LOOP
    BEGIN
      SET LOCAL lock_timeout = '500ms';
      LOCK TABLE turns, sessions, transcripts IN ACCESS EXCLUSIVE MODE;
      SET LOCAL lock_timeout = 0;
      RETURN;
    EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
      PERFORM pg_sleep(0.5);  -- without any: they went with the failed try
    END;
  END LOOP;
  RAISE lock_not_available USING MESSAGE = 'turns, sessions and transcripts were never free for a moment';
END $$;

-- Every commit that a session's head has been at, whoever made it: its history, and what the object store holds of it.
CREATE TABLE snapshots (
  tenant_id     text NOT NULL,
  session_id    uuid NOT NULL,
  -- In the order in which the head moved. Given out under the lock of the session's row in session_heads.
  number        int NOT NULL CHECK (number > 0),
  owner_id      text NOT NULL,
  kind          text NOT NULL CHECK (kind IN ('TURN', 'EDIT', 'RESTORE', 'IMPORT', 'CHECKPOINT', 'FORK')),
  -- The turn that made it; null for what was made between turns.
  turn_id       uuid,
  commit        text NOT NULL,
  -- What its bundle stands on; empty when it holds the whole history.
  parent        text NOT NULL,
  message       text NOT NULL DEFAULT '',
  -- The user who made it, or for whom it was made.
  actor         text NOT NULL,
  -- The number of the turn whose transcript goes with it (past_transcripts); null for none, 0 for what a fork began with.
  conversation  int,
  state         text NOT NULL DEFAULT 'PENDING' CHECK (state IN ('PENDING', 'STORED')),
  object_key    text NOT NULL DEFAULT '',
  sha256        text NOT NULL DEFAULT '',
  size          bigint NOT NULL DEFAULT 0,
  created_at    timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, session_id, number),
  FOREIGN KEY (tenant_id, session_id) REFERENCES sessions ON DELETE CASCADE
);
CREATE UNIQUE INDEX snapshots_turn ON snapshots (tenant_id, turn_id) WHERE kind = 'TURN';
CREATE INDEX snapshots_commit ON snapshots (tenant_id, session_id, commit);
CREATE INDEX snapshots_pending ON snapshots (created_at, session_id, number) WHERE state = 'PENDING';

-- What agents remembered at the end of each turn, so that a session can go on from there, or be forked. `transcripts` has what the next
-- turn begins with; what it had before this table was made is copied here when something replaces it.
CREATE TABLE past_transcripts (
  tenant_id    text NOT NULL,
  session_id   uuid NOT NULL,
  -- 0 for what a fork began with.
  turn_number  int NOT NULL CHECK (turn_number >= 0),
  provider     text NOT NULL,
  size         int NOT NULL CHECK (size BETWEEN 1 AND 33554432),
  data         bytea NOT NULL,
  PRIMARY KEY (tenant_id, session_id, turn_number),
  FOREIGN KEY (tenant_id, session_id) REFERENCES sessions ON DELETE CASCADE
);
ALTER TABLE past_transcripts ALTER data SET STORAGE EXTERNAL;

CREATE VIEW remembered WITH (security_invoker = true) AS
SELECT tenant_id, session_id, turn_number, provider, data, size FROM past_transcripts
UNION ALL
SELECT tenant_id, session_id, turn_number, provider, data, size FROM transcripts t
WHERE NOT EXISTS (
  SELECT FROM past_transcripts p WHERE p.tenant_id = t.tenant_id AND p.session_id = t.session_id AND p.turn_number = t.turn_number
);

-- Prefixes of object keys that nothing needs any more. No foreign key: a row outlives what it was made for.
CREATE TABLE doomed_objects (
  tenant_id   text NOT NULL,
  prefix      text NOT NULL,
  due_at      timestamptz NOT NULL DEFAULT now(),
  -- Whether it will be looked at once more: an upload may have been under way.
  again       boolean NOT NULL DEFAULT true,
  PRIMARY KEY (tenant_id, prefix)
);
CREATE INDEX doomed_objects_due ON doomed_objects (due_at);

ALTER TABLE turns ADD commit_message text NOT NULL DEFAULT '';
ALTER TABLE transcripts DROP CONSTRAINT transcripts_turn_number_check, ADD CONSTRAINT transcripts_turn_number_check CHECK (turn_number >= 0);

-- A turn's snapshot and past transcript are written by triggers, in the transaction that writes the turn: servers of the version before,
-- which run for a while beside newer ones, write only `turns` and `transcripts`, and nothing of theirs may be missing here.
CREATE FUNCTION keep_snapshot_of_turn() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO snapshots (tenant_id, session_id, number, owner_id, kind, turn_id, commit, parent, message, actor, conversation,
                         state, object_key, sha256, size)
  SELECT NEW.tenant_id, NEW.session_id, coalesce(max(s.number), 0) + 1, NEW.owner_id, 'TURN', NEW.id, NEW.commit, NEW.base_commit,
         NEW.commit_message, NEW.owner_id,
         (SELECT c.turn_number FROM transcripts c
          WHERE c.tenant_id = NEW.tenant_id AND c.session_id = NEW.session_id AND c.provider = NEW.provider),
         CASE NEW.snapshot_state WHEN 'STORED' THEN 'STORED' ELSE 'PENDING' END, NEW.snapshot_key, NEW.snapshot_sha256, NEW.snapshot_size
  FROM snapshots s WHERE s.tenant_id = NEW.tenant_id AND s.session_id = NEW.session_id
  ON CONFLICT (tenant_id, turn_id) WHERE kind = 'TURN' DO UPDATE
  SET commit = excluded.commit, parent = excluded.parent, message = excluded.message,
      state = excluded.state, object_key = excluded.object_key, sha256 = excluded.sha256, size = excluded.size;
  RETURN NULL;
END $$;
CREATE TRIGGER keep_snapshot_of_turn AFTER UPDATE OF commit, snapshot_state ON turns FOR EACH ROW
  WHEN (NEW.commit <> '' AND (NEW.commit, NEW.snapshot_state) IS DISTINCT FROM (OLD.commit, OLD.snapshot_state))
  EXECUTE FUNCTION keep_snapshot_of_turn();

-- Of a session the newest hundred are kept, and no more than 128 MiB; the newest in any case.
CREATE FUNCTION keep_past_transcript() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'UPDATE' AND OLD.turn_number <> NEW.turn_number THEN
    INSERT INTO past_transcripts (tenant_id, session_id, turn_number, provider, size, data)
    VALUES (OLD.tenant_id, OLD.session_id, OLD.turn_number, OLD.provider, OLD.size, OLD.data)
    ON CONFLICT (tenant_id, session_id, turn_number) DO NOTHING;
  END IF;
  INSERT INTO past_transcripts (tenant_id, session_id, turn_number, provider, size, data)
  VALUES (NEW.tenant_id, NEW.session_id, NEW.turn_number, NEW.provider, NEW.size, NEW.data)
  ON CONFLICT (tenant_id, session_id, turn_number) DO NOTHING;
  DELETE FROM past_transcripts p USING (
    SELECT turn_number, row_number() OVER newest AS nth, sum(octet_length(data)) OVER newest AS bytes
    FROM past_transcripts WHERE tenant_id = NEW.tenant_id AND session_id = NEW.session_id WINDOW newest AS (ORDER BY turn_number DESC)
  ) AS ranked
  WHERE p.tenant_id = NEW.tenant_id AND p.session_id = NEW.session_id AND p.turn_number = ranked.turn_number
    AND ranked.nth > 1 AND (ranked.nth > 100 OR ranked.bytes > 134217728);
  RETURN NULL;
END $$;
CREATE TRIGGER keep_past_transcript AFTER INSERT OR UPDATE OF data ON transcripts FOR EACH ROW EXECUTE FUNCTION keep_past_transcript();

-- What there is already. An owner who is no superuser sees rows of these two only while their row-level security is not forced.
ALTER TABLE turns NO FORCE ROW LEVEL SECURITY;
ALTER TABLE transcripts NO FORCE ROW LEVEL SECURITY;
INSERT INTO snapshots (tenant_id, session_id, number, owner_id, kind, turn_id, commit, parent, actor, conversation,
                       state, object_key, sha256, size, created_at)
SELECT t.tenant_id, t.session_id, row_number() OVER (PARTITION BY t.tenant_id, t.session_id ORDER BY t.number), t.owner_id, 'TURN', t.id,
       t.commit, t.base_commit, t.owner_id, c.turn_number,
       CASE t.snapshot_state WHEN 'STORED' THEN 'STORED' ELSE 'PENDING' END, t.snapshot_key, t.snapshot_sha256, t.snapshot_size,
       coalesce(t.ended_at, now())
FROM turns t
LEFT JOIN transcripts c
  ON c.tenant_id = t.tenant_id AND c.session_id = t.session_id AND c.provider = t.provider AND c.turn_number <= t.number
WHERE t.commit <> '';
ALTER TABLE turns FORCE ROW LEVEL SECURITY;
ALTER TABLE transcripts FORCE ROW LEVEL SECURITY;

DO $$
DECLARE
  name text;
  tenant text := $tenant$nullif(current_setting('app.tenant', true), '')$tenant$;
BEGIN
  FOREACH name IN ARRAY ARRAY['snapshots', 'past_transcripts', 'doomed_objects'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
    EXECUTE format('CREATE POLICY tenant ON %I TO treadle_app USING (tenant_id = %s)', name, tenant);
    EXECUTE format('CREATE POLICY system ON %I TO treadle_system USING (true)', name);
  END LOOP;
END $$;

GRANT SELECT ON snapshots TO treadle_app;
GRANT INSERT ON doomed_objects TO treadle_app;
GRANT SELECT, INSERT, UPDATE ON snapshots TO treadle_system;
GRANT INSERT ON sessions, session_heads TO treadle_system;
GRANT DELETE ON transcripts TO treadle_system;
GRANT SELECT, INSERT, DELETE ON past_transcripts TO treadle_system;
GRANT SELECT ON remembered TO treadle_system;
GRANT SELECT, UPDATE, DELETE ON doomed_objects TO treadle_system;
