-- What requests to models used, one row each, written in the same transaction as its event. No foreign key to sessions and turns: the
-- rows outlive them, so that who deletes a session gets no budget back.
CREATE TABLE model_uses (
  tenant_id                text NOT NULL,
  turn_id                  uuid NOT NULL,
  epoch                    bigint NOT NULL,
  -- From 1, within the epoch.
  number                   int NOT NULL CHECK (number > 0),
  session_id               uuid NOT NULL,
  owner_id                 text NOT NULL,
  provider                 text NOT NULL,
  model                    text NOT NULL,
  purpose                  text NOT NULL CHECK (purpose IN ('AGENT', 'NAMING')),
  input_tokens             bigint NOT NULL,
  output_tokens            bigint NOT NULL,
  cache_read_tokens        bigint NOT NULL,
  cache_write_tokens       bigint NOT NULL,
  cache_write_hour_tokens  bigint NOT NULL,
  reasoning_tokens         bigint NOT NULL,
  total_tokens             bigint NOT NULL,
  -- Estimated, in millionths of a US dollar; null when no price was known.
  cost_micros              bigint,
  partial                  boolean NOT NULL,
  created_at               timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, turn_id, epoch, number),
  FOREIGN KEY (tenant_id, owner_id) REFERENCES users ON DELETE CASCADE
);
CREATE INDEX model_uses_by_day ON model_uses (tenant_id, owner_id, created_at);

ALTER TABLE model_uses ENABLE ROW LEVEL SECURITY;
ALTER TABLE model_uses FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON model_uses TO treadle_app USING (tenant_id = nullif(current_setting('app.tenant', true), ''));
CREATE POLICY system ON model_uses TO treadle_system USING (true);

GRANT SELECT, INSERT ON model_uses TO treadle_system;
