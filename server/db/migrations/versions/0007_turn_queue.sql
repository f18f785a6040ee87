-- A turn waits for a place while it is `queued` and its state is QUEUED; nobody has its session's lease then.
ALTER TABLE turns
  ADD queued       boolean NOT NULL DEFAULT false,
  -- What the log was told last of where it stands; null before it was told anything.
  ADD told_ahead   bigint,
  ADD told_reason  text NOT NULL DEFAULT '',
  ADD told_at      timestamptz;
CREATE INDEX turns_waiting ON turns (tenant_id, owner_id) WHERE queued AND state = 'QUEUED';

-- When a turn that had waited got its place last: who got one longer ago is next.
ALTER TABLE users ADD placed_at timestamptz;
ALTER TABLE tenants ADD placed_at timestamptz;
