-- The newest commit that the session's branch on the remote is known to hold, and why the last push, if it failed, did.
ALTER TABLE sessions
  ADD COLUMN pushed_commit text NOT NULL DEFAULT '',
  ADD COLUMN push_refusal text NOT NULL DEFAULT '',
  ADD COLUMN push_message text NOT NULL DEFAULT '';

-- A server of the version before, which runs for a while beside newer ones, only says it in the turn.
CREATE FUNCTION keep_pushed_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE sessions SET pushed_commit = NEW.commit, push_refusal = '', push_message = ''
  WHERE tenant_id = NEW.tenant_id AND id = NEW.session_id AND pushed_commit <> NEW.commit;
  RETURN NULL;
END $$;
CREATE TRIGGER keep_pushed_commit AFTER UPDATE OF pushed ON turns FOR EACH ROW
  WHEN (NEW.pushed AND NOT OLD.pushed AND NEW.commit <> '') EXECUTE FUNCTION keep_pushed_commit();

-- What there is already. An owner who is no superuser sees rows of these two only while their row-level security is not forced.
ALTER TABLE sessions NO FORCE ROW LEVEL SECURITY;
ALTER TABLE turns NO FORCE ROW LEVEL SECURITY;
UPDATE sessions s SET pushed_commit = s.head_commit
FROM turns t
WHERE t.tenant_id = s.tenant_id AND t.session_id = s.id AND t.commit = s.head_commit AND t.pushed AND s.head_commit <> '';
ALTER TABLE turns FORCE ROW LEVEL SECURITY;
ALTER TABLE sessions FORCE ROW LEVEL SECURITY;
