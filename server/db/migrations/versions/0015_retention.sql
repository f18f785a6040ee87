-- Servers may be at work: the lock that stops them is taken for a moment, since no row is looked at.
SET LOCAL lock_timeout = '5s';
ALTER TABLE snapshots DROP CONSTRAINT snapshots_state_check;
-- EXPIRED: nothing is stored of it any more, and nothing stands on it. LOST: the disk that had it was gone before it was stored.
ALTER TABLE snapshots ADD CONSTRAINT snapshots_state_check CHECK (state IN ('PENDING', 'STORED', 'EXPIRED', 'LOST')) NOT VALID;
-- When a replica last looked after the session's old snapshots: others leave it alone for a while.
ALTER TABLE session_heads ADD tended_at timestamptz;
SET LOCAL lock_timeout = 0;

-- What a sweep looks for.
CREATE INDEX snapshots_stored ON snapshots (created_at) WHERE state = 'STORED';
CREATE INDEX snapshots_checkpoints ON snapshots (created_at) WHERE state = 'STORED' AND kind = 'CHECKPOINT';

-- A key is doomed before its object is put, and saved in the transaction that names it: so nothing is forgotten by whoever crashes between.
GRANT INSERT ON doomed_objects TO treadle_system;
