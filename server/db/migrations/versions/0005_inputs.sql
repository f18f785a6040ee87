ALTER TABLE sessions DROP CONSTRAINT sessions_state_check;
ALTER TABLE sessions ADD CONSTRAINT sessions_state_check
  CHECK (state IN ('QUEUED', 'PROVISIONING', 'RUNNING', 'AWAITING_USER', 'AWAITING_APPROVAL', 'IDLE', 'FAILED')) NOT VALID;
-- True while queued inputs wait for their user: after a turn that failed or was interrupted.
ALTER TABLE sessions ADD held boolean NOT NULL DEFAULT false;

ALTER TABLE turns
  ADD approvals       text NOT NULL DEFAULT '' CHECK (approvals IN ('', 'ASK')),
  -- The queued input that the turn was started with; null for a turn that ExecuteSession started.
  ADD input_id        uuid,
  -- Whom the agent waits for; since when, and for how long it has waited before: the turn's time limit does not run meanwhile.
  ADD awaiting        text NOT NULL DEFAULT '' CHECK (awaiting IN ('', 'USER', 'APPROVAL')),
  ADD waiting_since   timestamptz,
  ADD waited_seconds  double precision NOT NULL DEFAULT 0;

CREATE TABLE inputs (
  tenant_id       text NOT NULL,
  id              uuid NOT NULL,
  session_id      uuid NOT NULL,
  owner_id        text NOT NULL,
  position        bigint NOT NULL CHECK (position > 0),
  text            text NOT NULL,
  delivery        text NOT NULL CHECK (delivery IN ('STEER', 'QUEUE', 'INTERRUPT')),
  -- OFFERED: the turn's worker has it, and its agent has not said yet that it took it.
  state           text NOT NULL DEFAULT 'QUEUED' CHECK (state IN ('QUEUED', 'OFFERED', 'DELIVERED', 'CANCELLED')),
  -- Counts the changes by users. The log has told of those up to told_version.
  version         bigint NOT NULL DEFAULT 1,
  told_version    bigint NOT NULL DEFAULT 0,
  -- The turn that has it; while it is OFFERED, the turn that it is offered to; while it is QUEUED, the turn that it interrupts.
  turn_id         uuid,
  request_id      text NOT NULL,
  request_digest  text NOT NULL,
  created_at      timestamptz NOT NULL DEFAULT now(),
  updated_at      timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id),
  UNIQUE (tenant_id, session_id, position),
  FOREIGN KEY (tenant_id, session_id) REFERENCES sessions ON DELETE CASCADE,
  FOREIGN KEY (tenant_id, owner_id) REFERENCES users
);
CREATE UNIQUE INDEX inputs_request ON inputs (tenant_id, owner_id, request_id) WHERE request_id <> '';
CREATE INDEX inputs_waiting ON inputs (session_id, position) WHERE state IN ('QUEUED', 'OFFERED');
CREATE INDEX inputs_untold ON inputs (session_id) WHERE told_version < version;

-- What an agent asks. The event that asks is the one with `seq`; it and the row are written by one transaction.
CREATE TABLE requests (
  tenant_id    text NOT NULL,
  session_id   uuid NOT NULL,
  id           text NOT NULL,
  turn_id      uuid NOT NULL,
  attempt      int NOT NULL,
  seq          bigint NOT NULL,
  kind         text NOT NULL CHECK (kind IN ('APPROVAL', 'QUESTION')),
  -- What may be answered: option ids, or questions with theirs.
  choices      jsonb NOT NULL,
  expires_at   timestamptz,
  -- Null while it is open; whoever sets it first has answered.
  outcome      text CHECK (outcome IN ('CHOSEN', 'ANSWERED', 'DECLINED', 'EXPIRED', 'CANCELLED')),
  option_id    text NOT NULL DEFAULT '',
  answers      jsonb NOT NULL DEFAULT '[]',
  resolved_by  text NOT NULL DEFAULT '',
  note         text NOT NULL DEFAULT '',
  -- Whether the log has told of the outcome.
  told         boolean NOT NULL DEFAULT false,
  PRIMARY KEY (tenant_id, session_id, id),
  FOREIGN KEY (tenant_id, session_id) REFERENCES sessions ON DELETE CASCADE,
  FOREIGN KEY (tenant_id, turn_id) REFERENCES turns ON DELETE CASCADE
);
CREATE INDEX requests_turn ON requests (tenant_id, turn_id);
CREATE INDEX requests_unsettled ON requests (session_id) WHERE outcome IS NULL OR NOT told;

DO $$
DECLARE
  name text;
  tenant text := $tenant$nullif(current_setting('app.tenant', true), '')$tenant$;
BEGIN
  FOREACH name IN ARRAY ARRAY['inputs', 'requests'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
    EXECUTE format('CREATE POLICY tenant ON %I TO treadle_app USING (tenant_id = %s)', name, tenant);
    EXECUTE format('CREATE POLICY system ON %I TO treadle_system USING (true)', name);
  END LOOP;
END $$;

GRANT UPDATE (held) ON sessions TO treadle_app;
GRANT SELECT, INSERT ON inputs TO treadle_app;
GRANT UPDATE (text, state, version, told_version, turn_id, updated_at) ON inputs TO treadle_app;
GRANT SELECT ON requests TO treadle_app;
GRANT UPDATE (outcome, option_id, answers, resolved_by, note) ON requests TO treadle_app;

GRANT INSERT ON turns TO treadle_system;
GRANT SELECT, UPDATE ON inputs TO treadle_system;
GRANT SELECT, INSERT, UPDATE ON requests TO treadle_system;
