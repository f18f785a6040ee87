-- Every statement that runs more than once. A statement begins behind a line with its name.
-- Statements about callers name tenant and owner themselves; row-level security is the second wall, not the first.
-- Whoever locks more than one session_heads row does it in the order of session_id: so no two of them can wait for each other.


-- append_runs --
-- The journal's only write for workers: one statement, one transaction, one round trip. Arrays hold one element per session.
-- A head that is not exactly where its run says (epoch, turn, attempt, next_seq, worker_seq) is left alone, and so nothing is
-- inserted for it: fenced, repeated and skipping runs are absent from the result. ON CONFLICT DO NOTHING would leave gaps instead.
WITH run AS MATERIALIZED (
  SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::int[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[])
    AS r (session_id, turn_id, attempt, epoch, first_seq, last_seq, first_worker_seq)
), locked AS MATERIALIZED (
  SELECT session_id FROM session_heads WHERE session_id = ANY ($1::uuid[]) ORDER BY session_id FOR NO KEY UPDATE
), head AS (
  UPDATE session_heads h
  SET next_seq = run.last_seq + 1, worker_seq = run.first_worker_seq + run.last_seq - run.first_seq
  FROM locked JOIN run USING (session_id)
  WHERE h.session_id = run.session_id
    AND h.epoch = run.epoch AND h.turn_id = run.turn_id AND h.attempt = run.attempt
    AND h.next_seq = run.first_seq AND h.worker_seq = run.first_worker_seq - 1
  RETURNING h.tenant_id, run.*
), stored AS (
  INSERT INTO event_chunks (tenant_id, session_id, first_seq, last_seq, turn_id, attempt, first_worker_seq, epoch, recorded_at, data)
  SELECT head.tenant_id, head.session_id, head.first_seq, head.last_seq, head.turn_id, head.attempt, head.first_worker_seq, head.epoch,
         chunk.recorded_at, chunk.data
  FROM head JOIN unnest($1::uuid[], $8::timestamptz[], $9::bytea[]) AS chunk (session_id, recorded_at, data) USING (session_id)
)
SELECT session_id FROM head


-- read_head --
SELECT h.session_id, h.epoch, h.next_seq, h.turn_id, h.attempt, h.worker_seq, t.id AS active_turn_id, s.state,
       ARRAY(SELECT r.id FROM requests r WHERE r.session_id = h.session_id AND r.outcome IS NULL ORDER BY r.seq) AS open_requests,
       EXISTS (SELECT FROM inputs i WHERE i.session_id = h.session_id AND i.state = 'QUEUED' AND (NOT s.held OR i.delivery = 'INTERRUPT'))
         AS input_due
FROM session_heads h
JOIN sessions s ON s.tenant_id = h.tenant_id AND s.id = h.session_id
LEFT JOIN turns t ON t.tenant_id = h.tenant_id AND t.session_id = h.session_id AND t.active
WHERE h.session_id = $1


-- read_tails --
SELECT h.session_id, h.epoch, h.next_seq, t.id AS active_turn_id,
       EXISTS (SELECT FROM inputs i WHERE i.session_id = h.session_id AND i.state = 'QUEUED' AND (NOT s.held OR i.delivery = 'INTERRUPT'))
         AS input_due
FROM session_heads h
JOIN sessions s ON s.tenant_id = h.tenant_id AND s.id = h.session_id
LEFT JOIN turns t ON t.tenant_id = h.tenant_id AND t.session_id = h.session_id AND t.active
WHERE h.session_id = ANY ($1::uuid[])


-- read_chunks --
-- From the chunk that holds the event after $2, as long as what came before it stays under $3 bytes and $4 chunks. From chunk to chunk
-- by the primary key, since each begins where the one before ended: a page costs the same in a log of any length. (An ORDER BY with a
-- LIMIT let the planner, where it expected a short log, sort the whole rest of a long one for each page.)
WITH RECURSIVE page AS (
  (SELECT first_seq, last_seq, data, 1 AS number, octet_length(data)::bigint AS bytes
   FROM event_chunks WHERE session_id = $1 AND first_seq <= $2 + 1 ORDER BY first_seq DESC LIMIT 1)
  UNION ALL
  SELECT next.first_seq, next.last_seq, next.data, page.number + 1, page.bytes + octet_length(next.data)
  FROM page CROSS JOIN LATERAL (
    SELECT first_seq, last_seq, data FROM event_chunks c WHERE c.session_id = $1 AND c.first_seq = page.last_seq + 1 LIMIT 1
  ) AS next
  WHERE page.bytes < $3 AND page.number < $4
)
SELECT first_seq, last_seq, data FROM page WHERE last_seq > $2 ORDER BY first_seq


-- turn_end --
SELECT end_seq FROM turns WHERE id = $1


-- commit_step --
-- One durable step: the turn, its session, its events and the head, or nothing of it. It stands on the row of `held`: the lease's epoch,
-- and the head where the step's events ($25 to $26, null when it tells none) begin; then on the turn's version. One statement is one
-- round trip and its own transaction; as seven it took four times as long.
-- An interrupt that was asked for meanwhile is kept: it comes without a version. A turn that ended cannot change.
-- What a turn changes about its session leaves the session's version, which counts the users' changes only.
-- A transcript ($35, its bytes before compression $36) replaces the one that the same agent left in an earlier turn.
-- The server's own events leave the worker's watermark; an attempt that starts ($31, $32) and a turn that ends set it to 0. With $37 the
-- first event is the worker's with that worker_seq, and the watermark, which must be the one before, moves.
-- After a turn that failed or was interrupted the session's queue is held.
WITH held AS MATERIALIZED (
  SELECT tenant_id, session_id FROM session_heads
  WHERE tenant_id = $1 AND session_id = $28 AND epoch = $27 AND ($25::bigint IS NULL OR next_seq = $25)
    AND ($37::bigint IS NULL OR (turn_id = $2 AND attempt = $7 AND worker_seq = $37 - 1))
  FOR NO KEY UPDATE
), turn AS (
  UPDATE turns t SET
    version = $3 + 1, state = $4, base_commit = $5, branch = $6, attempt = $7,
    interrupt_reason = coalesce(nullif(interrupt_reason, ''), $8),
    outcome_status = $9, outcome_code = $10, outcome_message = $11, outcome_native_stop_reason = $12,
    imported = $13, commit = $14, commit_message = $42, push_attempted = $15, pushed = $16,
    snapshot_state = $17, snapshot_key = $18, snapshot_sha256 = $19, snapshot_size = $20,
    started_at = $21, awaiting = $38, waiting_since = $39, waited_seconds = $40, network_bytes = $41, concluded_at = $46,
    ended_at = CASE WHEN $23 THEN coalesce($22, clock_timestamp()) END,
    end_seq = CASE WHEN $23 THEN coalesce($26::bigint, 0) ELSE 0 END
  FROM held
  WHERE t.tenant_id = held.tenant_id AND t.session_id = held.session_id AND t.id = $2 AND t.version = $3 AND t.active
  RETURNING t.tenant_id, t.session_id, t.id, t.attempt, t.provider, t.number
), session AS (
  UPDATE sessions s
  SET state = $29, title = coalesce($30, title), branch = coalesce($33, branch), head_commit = coalesce($34, head_commit),
      pushed_commit = coalesce(nullif($43, ''), pushed_commit), push_refusal = coalesce($44, push_refusal),
      push_message = coalesce($45, push_message), held = CASE WHEN $23 THEN $4 <> 'COMPLETED' ELSE held END, updated_at = now()
  FROM turn WHERE s.tenant_id = turn.tenant_id AND s.id = turn.session_id
), stored AS (
  INSERT INTO event_chunks (tenant_id, session_id, first_seq, last_seq, turn_id, attempt, first_worker_seq, epoch, data)
  SELECT turn.tenant_id, turn.session_id, $25, $26, turn.id, turn.attempt, $37, $27, $24 FROM turn WHERE $25::bigint IS NOT NULL
), kept AS (
  INSERT INTO transcripts (tenant_id, session_id, provider, turn_number, data, size)
  SELECT turn.tenant_id, turn.session_id, turn.provider, turn.number, $35, $36 FROM turn WHERE $35::bytea IS NOT NULL
  ON CONFLICT (tenant_id, session_id, provider)
  DO UPDATE SET turn_number = excluded.turn_number, data = excluded.data, size = excluded.size, updated_at = now()
)
UPDATE session_heads h SET
  next_seq = coalesce($26::bigint + 1, next_seq),
  turn_id = CASE WHEN $23 THEN NULL ELSE coalesce($31, h.turn_id) END,
  attempt = CASE WHEN $23 THEN 0 ELSE coalesce($32, h.attempt) END,
  worker_seq = CASE WHEN $23 OR $31::uuid IS NOT NULL THEN 0 ELSE coalesce($37, worker_seq) END
FROM turn WHERE h.session_id = turn.session_id
RETURNING h.session_id


-- insert_session --
-- With its head: an empty log that nobody drives.
WITH made AS (
  INSERT INTO sessions (tenant_id, id, owner_id, title, repository_url, base_branch, branch_requested, labels, state, request_id, request_digest,
                        allowed_hosts)
  VALUES ($1, $2, $3, $4, $5, $6, $7, $8::jsonb, 'IDLE', $9, $10, $11)
  ON CONFLICT (tenant_id, owner_id, request_id) WHERE request_id <> '' DO NOTHING
  RETURNING tenant_id, id
)
INSERT INTO session_heads (tenant_id, session_id) SELECT tenant_id, id FROM made RETURNING session_id


-- session_of_request --
SELECT id, request_digest FROM sessions WHERE tenant_id = $1 AND owner_id = $2 AND request_id = $3


-- get_session --
-- What it takes is summed up where it is asked for ($4): all that is done to a session reads it, and some have thousands of snapshots.
SELECT s.*, h.next_seq, h.epoch, t.id AS active_turn_id, CASE WHEN t.queued AND t.state = 'QUEUED' THEN t.told_ahead END AS ahead, t.told_reason,
       ARRAY(SELECT r.id FROM requests r WHERE r.session_id = s.id AND r.outcome IS NULL ORDER BY r.seq) AS open_requests,
       (SELECT count(*) FROM inputs i WHERE i.session_id = s.id AND i.state IN ('QUEUED', 'OFFERED') AND i.delivery <> 'INTERRUPT')
         AS waiting_inputs,
       CASE WHEN $4::bool THEN (SELECT coalesce(sum(n.size), 0)::bigint FROM snapshots n WHERE n.tenant_id = s.tenant_id AND n.session_id = s.id) END
         AS stored_bytes
FROM sessions s
JOIN session_heads h ON h.tenant_id = s.tenant_id AND h.session_id = s.id
LEFT JOIN turns t ON t.tenant_id = s.tenant_id AND t.session_id = s.id AND t.active
WHERE s.tenant_id = $1 AND s.owner_id = $2 AND s.id = $3


-- list_sessions --
-- By keyset: what is inserted meanwhile is newer than every page's start, and moves nothing.
SELECT s.*, h.next_seq, h.epoch, t.id AS active_turn_id, CASE WHEN t.queued AND t.state = 'QUEUED' THEN t.told_ahead END AS ahead, t.told_reason,
       ARRAY(SELECT r.id FROM requests r WHERE r.session_id = s.id AND r.outcome IS NULL ORDER BY r.seq) AS open_requests,
       (SELECT count(*) FROM inputs i WHERE i.session_id = s.id AND i.state IN ('QUEUED', 'OFFERED') AND i.delivery <> 'INTERRUPT')
         AS waiting_inputs,
       (SELECT coalesce(sum(n.size), 0)::bigint FROM snapshots n WHERE n.tenant_id = s.tenant_id AND n.session_id = s.id) AS stored_bytes
FROM sessions s
JOIN session_heads h ON h.tenant_id = s.tenant_id AND h.session_id = s.id
LEFT JOIN turns t ON t.tenant_id = s.tenant_id AND t.session_id = s.id AND t.active
WHERE s.tenant_id = $1 AND s.owner_id = $2
  AND ($3::timestamptz IS NULL OR (s.created_at, s.id) < ($3, $4::uuid))
ORDER BY s.created_at DESC, s.id DESC
LIMIT $5


-- lock_session --
-- Held by whoever starts a turn or deletes the session, so that these exclude each other.
SELECT version FROM sessions WHERE tenant_id = $1 AND owner_id = $2 AND id = $3 FOR UPDATE


-- turns_in_the_way --
-- The session's active turn, and the caller's turn with the request_id $4. A statement of its own, behind lock_session: one that waited
-- for the lock would still not see the turn that was made meanwhile.
SELECT id, request_id FROM turns WHERE tenant_id = $1 AND session_id = $2 AND active
UNION ALL
SELECT id, request_id FROM turns WHERE tenant_id = $1 AND owner_id = $3 AND request_id = $4 AND $4 <> ''


-- update_session --
UPDATE sessions SET title = coalesce($4, title), labels = coalesce($5::jsonb, labels), allowed_hosts = coalesce($6, allowed_hosts),
  version = version + 1, updated_at = now()
WHERE tenant_id = $1 AND owner_id = $2 AND id = $3


-- delete_session --
-- Its objects are deleted later (doomed_objects).
WITH deleted AS (
  DELETE FROM sessions WHERE tenant_id = $1 AND owner_id = $2 AND id = $3 RETURNING tenant_id, id
)
INSERT INTO doomed_objects (tenant_id, prefix) SELECT tenant_id, tenant_id || '/' || id || '/' FROM deleted


-- turn_of_request --
SELECT * FROM turns WHERE tenant_id = $1 AND owner_id = $2 AND request_id = $3


-- start_turn --
-- Whoever starts a turn drives the session, whoever drove it before; no worker may append until a step opens the head.
-- Without a replica ($10) nobody drives it, and the turn waits. Its lease has no end: a replica from before there was a queue, in a rolling
-- upgrade, would take it for one that was lost.
WITH head AS (
  UPDATE session_heads
  SET epoch = epoch + 1, lease_owner = $10,
      lease_expires_at = CASE WHEN $10::text IS NULL THEN 'infinity' ELSE clock_timestamp() + $11 * interval '1 second' END,
      turn_id = NULL, attempt = 0, worker_seq = 0
  WHERE tenant_id = $1 AND session_id = $3
  RETURNING tenant_id, session_id, epoch, next_seq
), turn AS (
  INSERT INTO turns (tenant_id, id, session_id, owner_id, number, start_seq, request_id, request_digest, provider, model, prompt,
                     trace_parent, approvals, input_id, queued)
  SELECT tenant_id, $2, session_id, $4,
         (SELECT coalesce(max(number), 0) + 1 FROM turns WHERE tenant_id = $1 AND session_id = $3),
         next_seq - 1, $5, $6, $7, $8, $9, $12, $13, $14, $10::text IS NULL
  FROM head
  RETURNING id, number, start_seq, created_at
), session AS (
  UPDATE sessions SET state = 'QUEUED', provider = $7, model = $8, updated_at = now()
  WHERE tenant_id = $1 AND owner_id = $4 AND id = $3
  RETURNING *
)
SELECT session.*, head.next_seq, head.epoch, turn.id AS active_turn_id, turn.number, turn.start_seq, turn.created_at AS turn_created_at
FROM session, head, turn


-- lock_queue --
-- Held by whoever gives a place to a turn, or lets one wait, as far as a limit counts them: so they count one after the other.
SELECT pg_advisory_xact_lock(hashtextextended('treadle.turn_queue', 0))


-- running_of --
SELECT count(*) FILTER (WHERE owner_id = $2) AS of_user, count(*) AS of_tenant
FROM turns WHERE tenant_id = $1 AND active AND NOT (queued AND state = 'QUEUED')


-- waiting_of --
SELECT count(*) FILTER (WHERE owner_id = $2) AS of_user, count(*) AS of_tenant
FROM turns WHERE tenant_id = $1 AND queued AND state = 'QUEUED'


-- lock_waiting_turn --
-- The session's turn, if it waits, and nobody is giving it a place in this moment.
SELECT id FROM turns WHERE tenant_id = $1 AND session_id = $2 AND queued AND state = 'QUEUED' FOR UPDATE SKIP LOCKED


-- waiting_turns --
-- The fair order of all that wait: by how many turns of its tenant would run if it and those before it began now, then by whose tenant got
-- a place longer ago, then by age; within a tenant the same by users. Without the second, who comes with a thousand turns would get the
-- only place again and again, since nobody runs a turn when it becomes free.
-- `ahead` is within its tenant: how much others have to do is nobody's business.
-- What a limit ($1 for users, $2 for tenants, 0 for none) holds back is behind all others, and what shall be stopped behind that.
-- With $4 = 0: those that get the next $3 places, and up to $5 that shall be stopped. Else up to $4 whose logs are to be told where they
-- stand: each change of the first ten, and of the others a quarter, so that a queue of any length is told in few events.
WITH running AS MATERIALIZED (
  SELECT tenant_id, owner_id, count(*) AS turns FROM turns WHERE active AND NOT (queued AND state = 'QUEUED') GROUP BY tenant_id, owner_id
), candidate AS (
  SELECT t.id, t.tenant_id, t.owner_id, t.session_id, t.created_at, t.told_ahead, t.told_reason, t.told_at,
         coalesce(u.placed_at, '-infinity') AS user_placed_at, coalesce(n.placed_at, '-infinity') AS tenant_placed_at,
         t.interrupt_reason <> '' OR EXISTS (
           SELECT FROM inputs i WHERE i.session_id = t.session_id AND i.turn_id = t.id AND i.state = 'QUEUED' AND i.delivery = 'INTERRUPT'
         ) AS stopped
  FROM turns t JOIN users u ON u.tenant_id = t.tenant_id AND u.id = t.owner_id JOIN tenants n ON n.id = t.tenant_id
  WHERE t.queued AND t.state = 'QUEUED'
), by_user AS (
  SELECT *, row_number() OVER (PARTITION BY tenant_id, owner_id ORDER BY stopped, created_at, id) AS nth_of_user FROM candidate
), of_users AS (
  SELECT u.*, coalesce(r.turns, 0) + nth_of_user AS of_user, $1::int > 0 AND coalesce(r.turns, 0) + nth_of_user > $1 AS held
  FROM by_user u LEFT JOIN running r USING (tenant_id, owner_id)
), by_tenant AS (
  SELECT *, row_number() OVER (
    PARTITION BY tenant_id ORDER BY stopped, held, of_user, nth_of_user > 1, user_placed_at, created_at, id
  ) AS nth_of_tenant FROM of_users
), of_tenants AS (
  SELECT t.*, coalesce(r.turns, 0) + nth_of_tenant AS of_tenant
  FROM by_tenant t LEFT JOIN (SELECT tenant_id, sum(turns) AS turns FROM running GROUP BY tenant_id) r USING (tenant_id)
), reasoned AS (
  SELECT *, CASE WHEN held THEN 'USER_LIMIT' WHEN $2::int > 0 AND of_tenant > $2 THEN 'TENANT_LIMIT' ELSE 'PLACE' END AS reason
  FROM of_tenants
), ranked AS MATERIALIZED (
  SELECT *, row_number() OVER (
    ORDER BY stopped, reason <> 'PLACE', of_tenant, nth_of_tenant > 1, tenant_placed_at, created_at, id
  ) - 1 AS place, nth_of_tenant - 1 AS ahead FROM reasoned
), counted AS (
  SELECT count(*) AS waiting, count(*) FILTER (WHERE reason = 'PLACE' AND NOT stopped) AS startable, count(*) FILTER (WHERE stopped) AS stopped
  FROM ranked
), chosen AS (
  SELECT id AS turn_id, session_id, ahead, reason FROM ranked, counted
  WHERE CASE WHEN $4::int = 0 THEN
    CASE WHEN ranked.stopped THEN place < counted.waiting - counted.stopped + $5::int ELSE reason = 'PLACE' AND place < $3::int END
  ELSE
    NOT ranked.stopped AND (told_ahead IS NULL OR (
      told_at <= clock_timestamp() - interval '1 second'
      AND (reason <> told_reason OR (ahead <> told_ahead AND (ahead < 10 OR abs(ahead - told_ahead) * 4 >= told_ahead)))
    )) END
  ORDER BY told_ahead IS NOT NULL, place LIMIT nullif($4, 0)
)
SELECT counted.*, chosen.* FROM counted LEFT JOIN chosen ON true


-- take_waiting --
-- They wait no more, and $2 drives them.
WITH taken AS MATERIALIZED (
  SELECT t.tenant_id, t.id, t.session_id
  FROM turns t JOIN session_heads h ON h.tenant_id = t.tenant_id AND h.session_id = t.session_id
  WHERE t.id = ANY ($1::uuid[]) AND t.queued AND t.state = 'QUEUED'
  ORDER BY t.session_id
  FOR NO KEY UPDATE OF t, h SKIP LOCKED
), unqueued AS (
  UPDATE turns t
  SET queued = false, interrupt_reason = coalesce(nullif(t.interrupt_reason, ''), (
    SELECT 'interrupted by ' || u.name || ' for a new request'
    FROM inputs i JOIN users u ON u.tenant_id = i.tenant_id AND u.id = i.owner_id
    WHERE i.session_id = t.session_id AND i.turn_id = t.id AND i.state = 'QUEUED' AND i.delivery = 'INTERRUPT' LIMIT 1
  ), '')
  FROM taken WHERE t.tenant_id = taken.tenant_id AND t.id = taken.id
  RETURNING t.tenant_id, t.owner_id, t.interrupt_reason
), served AS (
  SELECT DISTINCT tenant_id, owner_id FROM unqueued WHERE interrupt_reason = ''
), users_served AS (
  UPDATE users u SET placed_at = clock_timestamp() FROM served WHERE u.tenant_id = served.tenant_id AND u.id = served.owner_id
), tenants_served AS (
  UPDATE tenants n SET placed_at = clock_timestamp() WHERE n.id IN (SELECT tenant_id FROM served)
)
UPDATE session_heads h
SET epoch = h.epoch + 1, lease_owner = $2, lease_expires_at = clock_timestamp() + $3 * interval '1 second'
FROM taken WHERE h.session_id = taken.session_id
RETURNING h.session_id


-- tell_waiting --
-- What the logs of waiting turns get, one element per session. A turn that somebody takes, or a log that does not end where it did, is
-- left alone. A session without a title gets one ($9).
WITH telling AS MATERIALIZED (
  SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[], $7::int[], $8::text[], $9::text[])
    AS r (session_id, turn_id, epoch, first_seq, last_seq, ahead, reason, title)
), waiting AS MATERIALIZED (
  SELECT t.tenant_id, t.id, t.session_id
  FROM turns t JOIN sessions s ON s.tenant_id = t.tenant_id AND s.id = t.session_id
  WHERE t.id = ANY ($2) AND t.queued AND t.state = 'QUEUED'
  ORDER BY t.session_id
  FOR NO KEY UPDATE OF t, s SKIP LOCKED
), head AS (
  UPDATE session_heads h SET next_seq = telling.last_seq + 1
  FROM waiting JOIN telling ON telling.turn_id = waiting.id
  WHERE h.session_id = waiting.session_id AND h.epoch = telling.epoch AND h.next_seq = telling.first_seq
  RETURNING h.tenant_id, telling.*
), told AS (
  UPDATE turns t SET told_ahead = head.ahead, told_reason = head.reason, told_at = clock_timestamp()
  FROM head WHERE t.tenant_id = head.tenant_id AND t.id = head.turn_id
), titled AS (
  UPDATE sessions s SET title = head.title
  FROM head WHERE s.tenant_id = head.tenant_id AND s.id = head.session_id AND head.title IS NOT NULL AND s.title = ''
), stored AS (
  INSERT INTO event_chunks (tenant_id, session_id, first_seq, last_seq, turn_id, epoch, data)
  SELECT head.tenant_id, head.session_id, head.first_seq, head.last_seq, head.turn_id, head.epoch, chunk.data
  FROM head JOIN unnest($1::uuid[], $6::bytea[]) AS chunk (session_id, data) USING (session_id)
)
SELECT session_id FROM head


-- request_interrupt --
UPDATE turns SET interrupt_reason = coalesce(nullif(interrupt_reason, ''), $5)
WHERE tenant_id = $1 AND owner_id = $2 AND session_id = $3 AND active AND ($4::uuid IS NULL OR id = $4)
RETURNING *


-- interrupts --
SELECT t.id, t.interrupt_reason
FROM turns t JOIN session_heads h ON h.tenant_id = t.tenant_id AND h.session_id = t.session_id
WHERE t.active AND t.interrupt_reason <> '' AND h.lease_owner = $1


-- open_request --
-- Within the transaction of the step whose first event asks it.
INSERT INTO requests (tenant_id, session_id, id, turn_id, attempt, seq, kind, choices, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8::jsonb, $9)


-- told_inputs --
UPDATE inputs i SET told_version = told.version
FROM unnest($3::uuid[], $4::bigint[]) AS told (id, version)
WHERE i.tenant_id = $1 AND i.session_id = $2 AND i.id = told.id


-- taken_inputs --
-- An agent that took it has it, also when the turn was thought to be over before it said so.
UPDATE inputs SET state = 'DELIVERED', turn_id = $3, told_version = version, updated_at = now()
WHERE tenant_id = $1 AND session_id = $2 AND id = ANY ($4::uuid[])


-- told_requests --
UPDATE requests SET told = true WHERE tenant_id = $1 AND session_id = $2 AND id = ANY ($3::text[])


-- input_of_request --
SELECT * FROM inputs WHERE tenant_id = $1 AND owner_id = $2 AND request_id = $3


-- queue_length --
SELECT (SELECT count(*) FROM inputs WHERE tenant_id = $1 AND session_id = $2 AND state IN ('QUEUED', 'OFFERED')) AS queued,
       (SELECT coalesce(max(position), 0) FROM inputs WHERE tenant_id = $1 AND session_id = $2) AS last_position


-- insert_input --
INSERT INTO inputs (tenant_id, id, session_id, owner_id, position, text, delivery, request_id, request_digest, turn_id)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
RETURNING *


-- active_turn --
SELECT id FROM turns WHERE tenant_id = $1 AND session_id = $2 AND active


-- release_queue --
UPDATE sessions SET held = false WHERE tenant_id = $1 AND id = $2 AND held


-- first_input --
-- What the session's next turn begins with, and what that turn takes over from the one before. The session is locked.
SELECT i.*, coalesce((SELECT t.approvals FROM turns t WHERE t.tenant_id = i.tenant_id AND t.session_id = i.session_id
                      ORDER BY t.number DESC LIMIT 1), '') AS approvals
FROM inputs i
WHERE i.tenant_id = $1 AND i.session_id = $2 AND i.state = 'QUEUED'
ORDER BY i.delivery <> 'INTERRUPT', i.position
LIMIT 1


-- deliver_input --
-- Its event is one of the turn's first step.
UPDATE inputs SET state = 'DELIVERED', turn_id = $3, told_version = version, updated_at = now()
WHERE tenant_id = $1 AND id = $2
RETURNING *


-- list_inputs --
-- At most $5, and at most $6 bytes of text, but one in any case; `found` says whether there are more.
SELECT * FROM (
  SELECT *, sum(octet_length(text)) OVER (ORDER BY position) AS bytes, row_number() OVER (ORDER BY position) AS number, count(*) OVER () AS found
  FROM (
    SELECT * FROM inputs
    WHERE tenant_id = $1 AND session_id = $2 AND position > $3 AND ($4 OR state IN ('QUEUED', 'OFFERED'))
    ORDER BY position
    LIMIT $5 + 1
  ) AS next
) AS page
WHERE number <= $5 AND (bytes <= $6 OR number = 1)
ORDER BY position


-- lock_input --
SELECT * FROM inputs WHERE tenant_id = $1 AND session_id = $2 AND id = $3 FOR UPDATE


-- update_input --
UPDATE inputs SET text = coalesce($4, text), state = $5, version = version + 1, updated_at = now()
WHERE tenant_id = $1 AND session_id = $2 AND id = $3
RETURNING *


-- get_request --
SELECT * FROM requests WHERE tenant_id = $1 AND session_id = $2 AND id = $3


-- resolve_request --
-- Who finds it open is first.
UPDATE requests SET outcome = $4, option_id = $5, answers = $6::jsonb, resolved_by = $7, note = $8
WHERE tenant_id = $1 AND session_id = $2 AND id = $3 AND outcome IS NULL
RETURNING id


-- news_of_inputs --
SELECT * FROM inputs
WHERE session_id = $1
  AND (told_version < version OR (state IN ('OFFERED', 'QUEUED') AND turn_id = $2) OR (state = 'QUEUED' AND delivery = 'STEER'))
ORDER BY position


-- news_of_requests --
SELECT * FROM requests WHERE tenant_id = $1 AND turn_id = $2 ORDER BY seq


-- news_of_pull_request --
SELECT pull_request FROM sessions WHERE tenant_id = $1 AND id = $2 AND NOT pull_request_told


-- told_pull_request --
-- Unless there is a newer one by now.
UPDATE sessions SET pull_request_told = true WHERE tenant_id = $1 AND id = $2 AND pull_request = $3::jsonb AND NOT pull_request_told
RETURNING id


-- offer_input --
-- This and the four below stand on the lease's epoch, as every step does.
WITH held AS MATERIALIZED (
  SELECT session_id FROM session_heads WHERE tenant_id = $1 AND session_id = $2 AND epoch = $3 FOR NO KEY UPDATE
)
UPDATE inputs i SET state = 'OFFERED', turn_id = $4, updated_at = now()
FROM held WHERE i.tenant_id = $1 AND i.session_id = held.session_id AND i.id = $5 AND i.state = 'QUEUED'
RETURNING i.id


-- withdraw_request --
WITH held AS MATERIALIZED (
  SELECT session_id FROM session_heads WHERE tenant_id = $1 AND session_id = $2 AND epoch = $3 FOR NO KEY UPDATE
)
UPDATE requests r SET outcome = 'CANCELLED'
FROM held WHERE r.tenant_id = $1 AND r.session_id = held.session_id AND r.turn_id = $4 AND r.id = $5 AND r.outcome IS NULL


-- expire_requests --
WITH held AS MATERIALIZED (
  SELECT session_id FROM session_heads WHERE tenant_id = $1 AND session_id = $2 AND epoch = $3 FOR NO KEY UPDATE
)
UPDATE requests r SET outcome = 'EXPIRED'
FROM held
WHERE r.tenant_id = $1 AND r.session_id = held.session_id AND r.turn_id = $4 AND r.outcome IS NULL AND r.expires_at <= clock_timestamp()


-- close_requests --
WITH held AS MATERIALIZED (
  SELECT session_id FROM session_heads WHERE tenant_id = $1 AND session_id = $2 AND epoch = $3 FOR NO KEY UPDATE
)
UPDATE requests r SET outcome = 'CANCELLED'
FROM held WHERE r.tenant_id = $1 AND r.session_id = held.session_id AND r.turn_id = $4 AND r.outcome IS NULL


-- take_offers_back --
WITH held AS MATERIALIZED (
  SELECT session_id FROM session_heads WHERE tenant_id = $1 AND session_id = $2 AND epoch = $3 FOR NO KEY UPDATE
)
UPDATE inputs i SET state = 'QUEUED', turn_id = NULL, updated_at = now()
FROM held WHERE i.tenant_id = $1 AND i.session_id = held.session_id AND i.turn_id = $4 AND i.state = 'OFFERED'


-- desk_calls --
SELECT h.session_id
FROM session_heads h
JOIN turns t ON t.tenant_id = h.tenant_id AND t.session_id = h.session_id AND t.active
WHERE h.lease_owner = $1
  AND (EXISTS (SELECT FROM inputs i WHERE i.session_id = h.session_id AND i.told_version < i.version)
    OR EXISTS (SELECT FROM requests r WHERE r.session_id = h.session_id AND r.outcome IS NOT NULL AND NOT r.told)
    OR EXISTS (SELECT FROM sessions s WHERE s.tenant_id = h.tenant_id AND s.id = h.session_id AND NOT s.pull_request_told))


-- due_sessions --
-- Whose queue may go on. Looked at again once the session is locked.
SELECT DISTINCT i.tenant_id, i.session_id
FROM inputs i JOIN sessions s ON s.tenant_id = i.tenant_id AND s.id = i.session_id
WHERE i.state = 'QUEUED' AND (NOT s.held OR i.delivery = 'INTERRUPT') AND ($1::uuid IS NULL OR i.session_id = $1)
  AND NOT EXISTS (SELECT FROM turns t WHERE t.tenant_id = i.tenant_id AND t.session_id = i.session_id AND t.active)
LIMIT $2


-- lock_due_session --
SELECT s.*, u.name AS owner_name, u.email AS owner_email
FROM sessions s JOIN users u ON u.tenant_id = s.tenant_id AND u.id = s.owner_id
WHERE s.tenant_id = $1 AND s.id = $2
FOR UPDATE OF s


-- claim_leases --
-- Heads that another replica is claiming right now are skipped, and those that it has just claimed no longer match.
WITH free AS MATERIALIZED (
  SELECT h.session_id
  FROM session_heads h JOIN turns t ON t.tenant_id = h.tenant_id AND t.session_id = h.session_id AND t.active
  WHERE h.lease_expires_at IS NULL OR h.lease_expires_at <= clock_timestamp() OR ($3 AND h.lease_owner = $1)
  ORDER BY h.session_id
  LIMIT $4
  FOR NO KEY UPDATE OF h SKIP LOCKED
)
UPDATE session_heads h
SET epoch = h.epoch + 1, lease_owner = $1, lease_expires_at = clock_timestamp() + $2 * interval '1 second'
FROM free
WHERE h.session_id = free.session_id
RETURNING h.session_id, h.epoch


-- claimed_turns --
SELECT t.*, u.name AS owner_name, u.email AS owner_email, h.epoch
FROM session_heads h
JOIN turns t ON t.tenant_id = h.tenant_id AND t.session_id = h.session_id AND t.active
JOIN users u ON u.tenant_id = t.tenant_id AND u.id = t.owner_id
WHERE h.session_id = ANY ($1::uuid[])


-- claimed_sessions --
SELECT s.*, h.next_seq, h.epoch, t.id AS active_turn_id
FROM sessions s
JOIN session_heads h ON h.tenant_id = s.tenant_id AND h.session_id = s.id
LEFT JOIN turns t ON t.tenant_id = s.tenant_id AND t.session_id = s.id AND t.active
WHERE h.session_id = ANY ($1::uuid[])


-- renew_leases --
WITH held AS MATERIALIZED (
  SELECT session_id FROM session_heads
  WHERE session_id = ANY ($2::uuid[]) AND lease_owner = $1
  ORDER BY session_id FOR NO KEY UPDATE
)
UPDATE session_heads h
SET lease_expires_at = clock_timestamp() + $3 * interval '1 second'
FROM held
WHERE h.session_id = held.session_id AND h.lease_owner = $1
RETURNING h.session_id


-- transcript --
SELECT c.data, c.size
FROM session_heads h JOIN transcripts c ON c.tenant_id = h.tenant_id AND c.session_id = h.session_id
WHERE h.session_id = $1 AND c.provider = $2


-- repository_url --
SELECT s.repository_url
FROM session_heads h JOIN sessions s ON s.tenant_id = h.tenant_id AND s.id = h.session_id
WHERE h.session_id = $1


-- turn_leftover --
SELECT CASE WHEN active THEN 'NEEDED' WHEN imported THEN 'NOBODYS' ELSE 'KEPT' END FROM turns WHERE id = $1


-- ended_turn --
SELECT t.*, u.name AS owner_name, u.email AS owner_email
FROM turns t JOIN users u ON u.tenant_id = t.tenant_id AND u.id = t.owner_id
WHERE t.id = $1 AND NOT t.active


-- turn_rescued --
UPDATE turns SET imported = true WHERE id = $1 AND NOT active


-- lock_between --
-- Behind lock_session, in a session that has no active turn: whoever has both rows may append to the log.
SELECT s.head_commit, h.epoch, h.next_seq
FROM sessions s JOIN session_heads h ON h.tenant_id = s.tenant_id AND h.session_id = s.id
WHERE s.tenant_id = $1 AND s.owner_id = $2 AND s.id = $3
FOR NO KEY UPDATE OF h


-- append_between --
WITH head AS (
  UPDATE session_heads SET next_seq = $4 + 1 WHERE tenant_id = $1 AND session_id = $2 AND next_seq = $3
  RETURNING tenant_id, session_id, epoch
)
INSERT INTO event_chunks (tenant_id, session_id, first_seq, last_seq, epoch, data)
SELECT tenant_id, session_id, $3, $4, epoch, $5 FROM head


-- note_push --
-- What the log tells beside it.
UPDATE sessions SET branch = coalesce($4, branch), pushed_commit = coalesce(nullif($5, ''), pushed_commit), push_refusal = $6, push_message = $7,
  updated_at = now()
WHERE tenant_id = $1 AND owner_id = $2 AND id = $3


-- insert_snapshot --
-- The rows of lock_between are held, so nobody else gives out a number, and the transcript is the one that the next turn begins with.
WITH moved AS (
  UPDATE sessions SET head_commit = $5, updated_at = now() WHERE tenant_id = $1 AND owner_id = $2 AND id = $3
  RETURNING tenant_id, id, owner_id, provider
)
INSERT INTO snapshots (tenant_id, session_id, owner_id, number, kind, commit, parent, message, actor, conversation)
SELECT tenant_id, id, owner_id, (SELECT coalesce(max(number), 0) + 1 FROM snapshots WHERE tenant_id = $1 AND session_id = $3),
       $4, $5, $6, $7, owner_id,
       (SELECT turn_number FROM transcripts c WHERE c.tenant_id = $1 AND c.session_id = $3 AND c.provider = moved.provider)
FROM moved
RETURNING *


-- record_where_seen --
-- What lock_session, turns_in_the_way, lock_between, insert_snapshot and append_between do, in one round trip, for whoever has seen the
-- session between turns, its log ending before $8 in epoch $9. A turn that starts changes the epoch, everything else that moves the head is
-- told in the log: so where anything is not as it was seen there is no row, and nothing is written.
WITH mine AS MATERIALIZED (
  SELECT tenant_id, id FROM sessions WHERE tenant_id = $1 AND owner_id = $2 AND id = $3 AND head_commit = $10 FOR NO KEY UPDATE
), head AS (
  UPDATE session_heads h SET next_seq = $11 + 1 FROM mine
  WHERE h.tenant_id = mine.tenant_id AND h.session_id = mine.id AND h.next_seq = $8 AND h.epoch = $9
  RETURNING h.tenant_id, h.session_id, h.epoch
), moved AS (
  UPDATE sessions s SET head_commit = $5, updated_at = now() FROM head WHERE s.tenant_id = head.tenant_id AND s.id = head.session_id
  RETURNING s.tenant_id, s.id, s.owner_id, s.provider
), told AS (
  INSERT INTO event_chunks (tenant_id, session_id, first_seq, last_seq, epoch, data)
  SELECT tenant_id, session_id, $8, $11, epoch, $12 FROM head
), made AS (
  INSERT INTO snapshots (tenant_id, session_id, owner_id, number, kind, commit, parent, message, actor, conversation)
  SELECT tenant_id, id, owner_id, (SELECT coalesce(max(number), 0) + 1 FROM snapshots WHERE tenant_id = $1 AND session_id = $3),
         $4, $5, $6, $7, owner_id,
         (SELECT turn_number FROM transcripts c WHERE c.tenant_id = $1 AND c.session_id = $3 AND c.provider = moved.provider)
  FROM moved
  RETURNING *
), answered AS (
  INSERT INTO edit_requests (tenant_id, session_id, request_id, digest, commit, number, changes)
  SELECT tenant_id, session_id, $13, $14, commit, number, $15 FROM made WHERE $13 <> ''
)
SELECT * FROM made


-- answer_edit --
-- No row where the request_id was answered before.
INSERT INTO edit_requests (tenant_id, session_id, request_id, digest, commit, number, changes)
SELECT tenant_id, id, $4, $5, $6, $7, $8 FROM sessions WHERE tenant_id = $1 AND owner_id = $2 AND id = $3
ON CONFLICT DO NOTHING
RETURNING true


-- edit_answered --
SELECT r.digest, r.commit, r.number, r.changes
FROM edit_requests r JOIN sessions s ON s.tenant_id = r.tenant_id AND s.id = r.session_id
WHERE r.tenant_id = $1 AND s.owner_id = $2 AND r.session_id = $3 AND r.request_id = $4


-- forget_answers --
DELETE FROM edit_requests WHERE created_at < now() - $1::interval


-- insert_checkpoint --
-- Behind commit_step, whose lock on the head is held. The session's head stays.
INSERT INTO snapshots (tenant_id, session_id, owner_id, number, kind, turn_id, commit, parent, message, actor, conversation)
SELECT $1, $3, $2, (SELECT coalesce(max(number), 0) + 1 FROM snapshots WHERE tenant_id = $1 AND session_id = $3),
       'CHECKPOINT', $4, $6, $7, $8, $2,
       (SELECT turn_number FROM transcripts WHERE tenant_id = $1 AND session_id = $3 AND provider = $5)


-- expire_checkpoints --
-- Of a running turn's only the last two are kept, the newest that is stored, and those that they stand on.
WITH RECURSIVE kept AS (
  (SELECT number, parent FROM snapshots
   WHERE tenant_id = $1 AND session_id = $2 AND turn_id = $3 AND kind = 'CHECKPOINT' ORDER BY number DESC LIMIT 2)
  UNION
  (SELECT number, parent FROM snapshots
   WHERE tenant_id = $1 AND session_id = $2 AND turn_id = $3 AND kind = 'CHECKPOINT' AND state = 'STORED' ORDER BY number DESC LIMIT 1)
  UNION
  SELECT below.number, below.parent FROM kept CROSS JOIN LATERAL (
    SELECT number, parent FROM snapshots
    WHERE tenant_id = $1 AND session_id = $2 AND turn_id = $3 AND kind = 'CHECKPOINT' AND state <> 'EXPIRED'
      AND commit = kept.parent AND number < kept.number
    ORDER BY state = 'STORED' DESC, number DESC LIMIT 1
  ) AS below
), gone AS (
  UPDATE snapshots SET state = 'EXPIRED', size = 0
  WHERE tenant_id = $1 AND session_id = $2 AND turn_id = $3 AND kind = 'CHECKPOINT' AND state <> 'EXPIRED'
    AND number NOT IN (SELECT number FROM kept)
  RETURNING tenant_id, object_key
)
INSERT INTO doomed_objects (tenant_id, prefix) SELECT tenant_id, object_key FROM gone WHERE object_key <> ''
ON CONFLICT (tenant_id, prefix) DO NOTHING


-- newest_checkpoint --
SELECT * FROM snapshots
WHERE tenant_id = $1 AND session_id = $2 AND turn_id = $3 AND kind = 'CHECKPOINT'
ORDER BY number DESC LIMIT 1


-- stored_checkpoints --
SELECT * FROM snapshots
WHERE tenant_id = $1 AND session_id = $2 AND turn_id = $3 AND kind = 'CHECKPOINT' AND state = 'STORED'
ORDER BY number DESC


-- forget_conversations --
-- They are all in past_transcripts but for those that are older than that table.
WITH forgotten AS (
  DELETE FROM transcripts WHERE tenant_id = $1 AND session_id = $2 RETURNING tenant_id, session_id, turn_number, provider, size, data
)
INSERT INTO past_transcripts (tenant_id, session_id, turn_number, provider, size, data) SELECT * FROM forgotten
ON CONFLICT (tenant_id, session_id, turn_number) DO NOTHING


-- recall_conversation --
-- The session goes on with an agent, and with what that remembered at the end of turn $4 of session $3, if it is still kept: which becomes
-- what the session remembers of its turn $5.
WITH gone_on AS (
  UPDATE sessions SET provider = $6, model = $7 WHERE tenant_id = $1 AND id = $2
)
INSERT INTO transcripts (tenant_id, session_id, provider, turn_number, data, size)
SELECT p.tenant_id, $2, p.provider, $5, p.data, p.size
FROM remembered p WHERE p.tenant_id = $1 AND p.session_id = $3 AND p.turn_number = $4


-- insert_fork --
-- Behind recall_conversation. A commit that the remote has needs no bundle.
WITH fork AS (
  UPDATE sessions SET head_commit = $4 WHERE tenant_id = $1 AND owner_id = $2 AND id = $3 RETURNING tenant_id, id, owner_id
)
INSERT INTO snapshots (tenant_id, session_id, owner_id, number, kind, commit, parent, message, actor, conversation, state)
SELECT tenant_id, id, owner_id, 1, 'FORK', $4, $5, '', owner_id,
       (SELECT turn_number FROM transcripts WHERE tenant_id = $1 AND session_id = $3), CASE WHEN $4 = $5 THEN 'STORED' ELSE 'PENDING' END
FROM fork


-- moment_now --
SELECT s.head_commit AS commit, s.provider, s.model, c.turn_number AS conversation
FROM sessions s LEFT JOIN transcripts c ON c.tenant_id = s.tenant_id AND c.session_id = s.id AND c.provider = s.provider
WHERE s.tenant_id = $1 AND s.owner_id = $2 AND s.id = $3


-- moment_of_turn --
-- Of a turn that left no transcript: the one that it began with.
SELECT coalesce(nullif(t.commit, ''), t.base_commit) AS commit, t.provider, t.model,
       (SELECT s.state FROM snapshots s WHERE s.tenant_id = t.tenant_id AND s.turn_id = t.id AND s.kind = 'TURN') AS state,
       coalesce((SELECT s.conversation FROM snapshots s WHERE s.tenant_id = t.tenant_id AND s.turn_id = t.id AND s.kind = 'TURN'),
                (SELECT max(p.turn_number) FROM remembered p
                 WHERE p.tenant_id = t.tenant_id AND p.session_id = t.session_id AND p.provider = t.provider AND p.turn_number <= t.number))
         AS conversation
FROM turns t
WHERE t.tenant_id = $1 AND t.owner_id = $2 AND t.session_id = $3 AND t.id = $4::uuid AND NOT t.active AND t.base_commit <> ''


-- moment_of_snapshot --
SELECT n.commit, n.state, coalesce(p.provider, s.provider) AS provider, coalesce(t.model, s.model) AS model, n.conversation
FROM snapshots n
JOIN sessions s ON s.tenant_id = n.tenant_id AND s.id = n.session_id
LEFT JOIN remembered p ON p.tenant_id = n.tenant_id AND p.session_id = n.session_id AND p.turn_number = n.conversation
LEFT JOIN turns t ON t.tenant_id = n.tenant_id AND t.session_id = n.session_id AND t.number = n.conversation
WHERE n.tenant_id = $1 AND n.owner_id = $2 AND n.session_id = $3 AND n.number = $4


-- moment_of_origin --
SELECT n.parent AS commit, s.provider, s.model, NULL::int AS conversation
FROM snapshots n JOIN sessions s ON s.tenant_id = n.tenant_id AND s.id = n.session_id
WHERE n.tenant_id = $1 AND n.owner_id = $2 AND n.session_id = $3 AND n.number = 1 AND n.parent <> ''


-- snapshot_of_commit --
-- Of which there may be several, of one commit.
SELECT CASE WHEN count(DISTINCT commit) = 1 THEN coalesce(max(number) FILTER (WHERE state <> 'EXPIRED'), max(number)) END
FROM snapshots WHERE tenant_id = $1 AND owner_id = $2 AND session_id = $3 AND starts_with(commit, $4)


-- is_kept --
SELECT EXISTS (SELECT FROM remembered WHERE tenant_id = $1 AND session_id = $2 AND turn_number = $3)


-- newest_snapshot --
-- But for checkpoints of turns, which moved no head.
SELECT * FROM snapshots
WHERE tenant_id = $1 AND session_id = $2 AND (kind <> 'CHECKPOINT' OR turn_id IS NULL) ORDER BY number DESC LIMIT 1


-- list_snapshots --
-- Each stands on the one before, but for checkpoints of turns: what was pushed takes all with it that came before.
WITH moved AS (
  SELECT max(n.number) FILTER (WHERE n.commit = s.head_commit) AS head, max(n.number) FILTER (WHERE n.commit = s.pushed_commit) AS pushed
  FROM snapshots n JOIN sessions s ON s.tenant_id = n.tenant_id AND s.id = n.session_id
  WHERE n.tenant_id = $1 AND n.session_id = $3 AND (n.kind <> 'CHECKPOINT' OR n.turn_id IS NULL)
    AND n.commit IN (s.head_commit, s.pushed_commit)
)
SELECT n.*, coalesce(n.number = moved.head, false) AS current,
       coalesce(n.number <= moved.pushed, false) AND (n.kind <> 'CHECKPOINT' OR n.turn_id IS NULL) AS pushed
FROM snapshots n CROSS JOIN moved
WHERE n.tenant_id = $1 AND n.owner_id = $2 AND n.session_id = $3 AND ($4::int IS NULL OR n.number < $4)
ORDER BY n.number DESC LIMIT $5


-- get_snapshot --
SELECT * FROM snapshots
WHERE tenant_id = $1 AND owner_id = $2 AND session_id = $3 AND (number = $4 OR (kind = 'TURN' AND turn_id = $5::uuid))


-- snapshot_chain --
-- From the newest snapshot of a commit back to the first, each standing on the one before; of those of one commit, if it can be, one that
-- is stored.
WITH RECURSIVE chain AS (
  (SELECT * FROM snapshots
   WHERE tenant_id = $1 AND session_id = $2 AND commit = $3 AND state NOT IN ('EXPIRED', 'LOST') ORDER BY state = 'STORED' DESC, number DESC LIMIT 1)
  UNION ALL
  SELECT s.* FROM chain CROSS JOIN LATERAL (
    SELECT * FROM snapshots
    WHERE tenant_id = $1 AND session_id = $2 AND commit = chain.parent AND number < chain.number AND state NOT IN ('EXPIRED', 'LOST')
    ORDER BY state = 'STORED' DESC, number DESC LIMIT 1
  ) AS s
)
SELECT * FROM chain ORDER BY number


-- pending_snapshots --
SELECT s.* FROM snapshots s
LEFT JOIN turns t ON t.tenant_id = s.tenant_id AND t.id = s.turn_id AND t.active
WHERE s.state = 'PENDING' AND (t.id IS NULL OR s.kind = 'CHECKPOINT')
  AND ($2::timestamptz IS NULL OR (s.created_at, s.session_id, s.number) > ($2, $3::uuid, $4::int))
ORDER BY s.created_at, s.session_id, s.number LIMIT $1


-- aged_sessions --
-- Those that another replica has claimed are left to it. Long chains are looked for where something was stored lately: shortened once, they
-- grow no longer by themselves.
WITH aged AS MATERIALIZED (
  SELECT h.session_id
  FROM sessions s JOIN session_heads h ON h.tenant_id = s.tenant_id AND h.session_id = s.id
  WHERE (h.tended_at IS NULL OR h.tended_at < clock_timestamp() - $4 * interval '1 second') AND (
    EXISTS (
      SELECT FROM snapshots n
      WHERE n.tenant_id = s.tenant_id AND n.session_id = s.id AND n.state = 'STORED' AND n.object_key <> '' AND n.commit <> s.head_commit
        AND (n.created_at < now() - $1::interval
          OR (n.kind = 'CHECKPOINT' AND n.turn_id IS NOT NULL AND n.created_at < now() - $2::interval))
    ) OR (
      s.updated_at > now() - interval '1 day' AND
      (SELECT count(*) FROM snapshots n WHERE n.tenant_id = s.tenant_id AND n.session_id = s.id AND n.state = 'STORED') > $3
    )
  )
  ORDER BY h.session_id LIMIT $5
  FOR NO KEY UPDATE OF h SKIP LOCKED
), claimed AS (
  UPDATE session_heads h SET tended_at = clock_timestamp() FROM aged WHERE h.session_id = aged.session_id
  RETURNING h.tenant_id, h.session_id, h.next_seq, h.epoch
)
SELECT s.*, c.next_seq, c.epoch, NULL::uuid AS active_turn_id
FROM claimed c JOIN sessions s ON s.tenant_id = c.tenant_id AND s.id = c.session_id


-- waiting_sessions --
-- How many aged_sessions would find.
SELECT count(DISTINCT n.session_id)
FROM snapshots n
JOIN sessions s ON s.tenant_id = n.tenant_id AND s.id = n.session_id
JOIN session_heads h ON h.tenant_id = n.tenant_id AND h.session_id = n.session_id
WHERE n.state = 'STORED' AND n.object_key <> '' AND n.commit <> s.head_commit
  AND (n.created_at < now() - $1::interval
    OR (n.kind = 'CHECKPOINT' AND n.turn_id IS NOT NULL AND n.created_at < now() - $2::interval))
  AND (h.tended_at IS NULL OR h.tended_at < clock_timestamp() - $3 * interval '1 second')


-- shelf --
SELECT n.*, n.state = 'STORED' AND n.object_key <> '' AND n.commit <> s.head_commit AND t.id IS NULL
  AND (n.created_at < now() - $3::interval
    OR (n.kind = 'CHECKPOINT' AND n.turn_id IS NOT NULL AND n.created_at < now() - $4::interval))
  IS TRUE AND NOT EXISTS (
    SELECT FROM snapshots p WHERE p.tenant_id = n.tenant_id AND p.session_id = n.session_id AND p.parent = n.commit AND p.state = 'PENDING'
  ) AS old
FROM snapshots n
JOIN sessions s ON s.tenant_id = n.tenant_id AND s.id = n.session_id
LEFT JOIN turns t ON t.tenant_id = n.tenant_id AND t.id = n.turn_id AND t.active
WHERE n.tenant_id = $1 AND n.session_id = $2 AND n.state NOT IN ('EXPIRED', 'LOST')
ORDER BY n.number


-- announce_object --
-- Never one that a snapshot is stored as.
INSERT INTO doomed_objects (tenant_id, prefix, due_at, again)
SELECT $1, $3, clock_timestamp() + $4 * interval '1 second', true
WHERE NOT EXISTS (SELECT FROM snapshots WHERE tenant_id = $1 AND session_id = $2 AND object_key = $3)
ON CONFLICT (tenant_id, prefix) DO NOTHING


-- rebase_snapshot --
-- What was announced is saved, unless somebody may be deleting it.
WITH saved AS (
  DELETE FROM doomed_objects
  WHERE tenant_id = $1 AND prefix = $6 AND again AND due_at > clock_timestamp() + interval '1 minute'
    AND EXISTS (SELECT FROM snapshots WHERE tenant_id = $1 AND session_id = $2 AND number = $3 AND state = 'STORED' AND object_key = $4)
  RETURNING tenant_id
), made AS (
  UPDATE snapshots n SET parent = $5, object_key = $6, sha256 = $7, size = $8
  FROM saved
  WHERE n.tenant_id = saved.tenant_id AND n.session_id = $2 AND n.number = $3 AND n.state = 'STORED' AND n.object_key = $4
  RETURNING n.tenant_id
)
INSERT INTO doomed_objects (tenant_id, prefix) SELECT tenant_id, $4 FROM made WHERE $4 <> ''
ON CONFLICT (tenant_id, prefix) DO UPDATE SET due_at = excluded.due_at, again = true
RETURNING prefix


-- lock_head --
SELECT FROM session_heads WHERE tenant_id = $1 AND session_id = $2 FOR NO KEY UPDATE


-- expire_snapshots --
-- Under lock_head, so nothing new stands on them meanwhile.
WITH gone AS (
  UPDATE snapshots n SET state = 'EXPIRED', size = 0
  FROM sessions s
  WHERE n.tenant_id = $1 AND n.session_id = $2 AND n.number = ANY ($3::int[]) AND n.state = 'STORED'
    AND s.tenant_id = n.tenant_id AND s.id = n.session_id AND s.head_commit <> n.commit
    AND NOT EXISTS (
      SELECT FROM snapshots p
      WHERE p.tenant_id = n.tenant_id AND p.session_id = n.session_id AND p.parent = n.commit AND p.commit <> n.commit
        AND p.state NOT IN ('EXPIRED', 'LOST') AND p.number > n.number AND p.number <> ALL ($3::int[])
    )
  RETURNING n.tenant_id, n.number, n.object_key
), doomed AS (
  INSERT INTO doomed_objects (tenant_id, prefix) SELECT tenant_id, object_key FROM gone WHERE object_key <> ''
  ON CONFLICT (tenant_id, prefix) DO NOTHING
)
SELECT number FROM gone


-- stored_bytes --
SELECT coalesce(sum(size), 0)::bigint FROM snapshots WHERE tenant_id = $1


-- doomed_objects --
-- Whoever doomed it, never what a snapshot is stored as: the last wall before the work is gone.
SELECT prefix FROM doomed_objects d
WHERE due_at <= clock_timestamp() AND prefix > $2
  AND NOT EXISTS (
    SELECT FROM snapshots n
    WHERE n.tenant_id = d.tenant_id AND n.object_key = d.prefix AND n.state = 'STORED'
      -- A key is <tenant>/<session>/<name>.
      AND n.session_id = CASE WHEN substr(d.prefix, length(d.tenant_id) + 2, 36) ~ '^[0-9a-f-]{36}$'
                         THEN substr(d.prefix, length(d.tenant_id) + 2, 36)::uuid END
  )
ORDER BY prefix LIMIT $1


-- objects_gone --
WITH once AS (
  UPDATE doomed_objects SET again = false, due_at = clock_timestamp() + $2 * interval '1 second' WHERE prefix = $1 AND again
)
DELETE FROM doomed_objects WHERE prefix = $1 AND NOT again


-- snapshot_stored --
-- No row where the snapshot waits no more; whoever gave it up did not know of the server that has it. A turn's own fields as well: servers of the version before look there for what is to be stored.
WITH stored AS (
  UPDATE snapshots SET state = 'STORED', object_key = $4, sha256 = $5, size = $6
  WHERE tenant_id = $1 AND session_id = $2 AND number = $3 AND state IN ('PENDING', 'LOST')
  RETURNING tenant_id, kind, turn_id
), told AS (
  UPDATE turns t SET snapshot_state = 'STORED', snapshot_key = $4, snapshot_sha256 = $5, snapshot_size = $6
  FROM stored WHERE t.tenant_id = stored.tenant_id AND t.id = stored.turn_id AND stored.kind = 'TURN' AND NOT t.active
)
SELECT true FROM stored


-- snapshot_lost --
UPDATE snapshots SET state = 'LOST' WHERE tenant_id = $1 AND session_id = $2 AND number = $3 AND state = 'PENDING'


-- find_key --
SELECT k.secret_sha256, k.expires_at, k.last_used_at, u.tenant_id, u.id AS user_id, u.name, u.email
FROM api_keys k JOIN users u ON u.tenant_id = k.tenant_id AND u.id = k.user_id
WHERE k.prefix = $1 AND k.revoked_at IS NULL


-- insert_key --
INSERT INTO api_keys (tenant_id, user_id, prefix, secret_sha256, expires_at) VALUES ($1, $2, $3, $4, $5)


-- key_used --
-- Several servers may have seen it at once.
UPDATE api_keys SET last_used_at = now() WHERE prefix = $1 AND (last_used_at IS NULL OR last_used_at < now() - $2 * interval '1 second')


-- keys_in_force --
SELECT prefix, tenant_id, user_id, created_at, expires_at, last_used_at FROM api_keys
WHERE ($1 = '' OR tenant_id = $1) AND ($2 = '' OR user_id = $2) AND revoked_at IS NULL ORDER BY tenant_id, user_id, created_at, prefix


-- revoke_key --
UPDATE api_keys SET revoked_at = now() WHERE tenant_id = $1 AND user_id = $2 AND prefix = $3 AND revoked_at IS NULL RETURNING id


-- ensure_tenant --
INSERT INTO tenants (id) VALUES ($1) ON CONFLICT DO NOTHING


-- ensure_user --
INSERT INTO users (tenant_id, id, name, email) VALUES ($1, $2, $3, $4)
ON CONFLICT (tenant_id, id) DO UPDATE SET name = excluded.name, email = excluded.email
RETURNING xmax = 0


-- insert_use --
INSERT INTO model_uses (tenant_id, turn_id, epoch, number, session_id, owner_id, provider, model, purpose, input_tokens, output_tokens,
                        cache_read_tokens, cache_write_tokens, cache_write_hour_tokens, reasoning_tokens, total_tokens, cost_micros, partial)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)


-- forget_uses --
DELETE FROM model_uses WHERE ctid = ANY (ARRAY(SELECT ctid FROM model_uses WHERE created_at < $1 ORDER BY created_at LIMIT $2))


-- uses_of_turn --
SELECT coalesce(sum(total_tokens), 0)::bigint AS tokens, coalesce(sum(cost_micros), 0)::bigint AS micros
FROM model_uses WHERE tenant_id = $1 AND turn_id = $2


-- uses_of_day --
SELECT coalesce(sum(total_tokens), 0)::bigint AS tokens, coalesce(sum(cost_micros), 0)::bigint AS micros
FROM model_uses WHERE tenant_id = $1 AND owner_id = $2 AND created_at >= $3 AND created_at < $4


-- find_credential --
SELECT * FROM credentials WHERE tenant_id = $1 AND owner_id = $2 AND host = $3


-- list_credentials --
SELECT * FROM credentials WHERE tenant_id = $1 AND owner_id = $2 ORDER BY host


-- insert_credential --
INSERT INTO credentials (tenant_id, owner_id, id, host, kind, username, scopes, sealed, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (tenant_id, owner_id, host) DO NOTHING RETURNING *


-- replace_credential --
-- The new one has not been used yet.
UPDATE credentials SET kind = $4, username = $5, scopes = $6, sealed = $7, expires_at = $8, last_used_at = NULL, version = version + 1
WHERE tenant_id = $1 AND owner_id = $2 AND id = $3 AND version = $9 RETURNING *


-- delete_credential --
DELETE FROM credentials WHERE tenant_id = $1 AND owner_id = $2 AND id = $3 RETURNING id


-- credential_used --
UPDATE credentials SET last_used_at = now()
WHERE tenant_id = $1 AND owner_id = $2 AND id = $3 AND (last_used_at IS NULL OR last_used_at < now() - $4 * interval '1 second')


-- all_credentials --
SELECT * FROM credentials ORDER BY tenant_id, id


-- reseal_credential --
UPDATE credentials SET sealed = $4 WHERE tenant_id = $1 AND id = $2 AND sealed = $3


-- lock_logins --
-- Held by whoever counts a user's logins and begins another.
SELECT pg_advisory_xact_lock(hashtextextended('treadle.logins/' || $1::text || '/' || $2::text, 0))


-- forget_logins --
DELETE FROM logins
WHERE tenant_id = $1 AND owner_id = $2 AND expires_at <= statement_timestamp() AND begun_at <= statement_timestamp() - $3 * interval '1 second'


-- login_wait --
-- Until one is not open any more, and until one was begun long enough ago; null when neither is in the way.
WITH mine AS MATERIALIZED (
  SELECT expires_at - statement_timestamp() AS open_for, begun_at + $5::float8 * interval '1 second' - statement_timestamp() AS counts_for
  FROM logins WHERE tenant_id = $1 AND owner_id = $2
), waits AS (
  (SELECT open_for AS wait FROM mine WHERE open_for > interval '0' ORDER BY open_for DESC OFFSET $3::int - 1 LIMIT 1)
  UNION ALL
  (SELECT counts_for FROM mine WHERE counts_for > interval '0' ORDER BY counts_for DESC OFFSET $4::int - 1 LIMIT 1)
)
SELECT extract(epoch FROM max(wait))::float8 FROM waits


-- begin_login --
-- Nobody knows it before its host has answered.
INSERT INTO logins (tenant_id, owner_id, id, begun_at, expires_at, interval_seconds, ask_at)
VALUES ($1, $2, $3, statement_timestamp(), statement_timestamp() + $4 * interval '1 second', 0, 'infinity')


-- begun_login --
UPDATE logins SET expires_at = statement_timestamp() + $4 * interval '1 second', interval_seconds = $5::int,
  ask_at = statement_timestamp() + $5::int * interval '1 second'
WHERE tenant_id = $1 AND owner_id = $2 AND id = $3


-- lock_login --
SELECT interval_seconds, extract(epoch FROM ask_at - clock_timestamp())::float8 AS wait FROM logins
WHERE tenant_id = $1 AND owner_id = $2 AND id = $3 FOR UPDATE


-- asked_login --
UPDATE logins SET interval_seconds = $4::int, ask_at = statement_timestamp() + $4::int * interval '1 second'
WHERE tenant_id = $1 AND owner_id = $2 AND id = $3


-- end_login --
UPDATE logins SET expires_at = least(expires_at, statement_timestamp()) WHERE tenant_id = $1 AND owner_id = $2 AND id = $3


-- legacy_user --
SELECT tenant_id, id AS user_id, name, email FROM users WHERE tenant_id = $1 AND id = $2


-- legacy_standing --
-- A session by its id alone, whosever it is, and what is known of its archive; also when only one of the two is there.
SELECT s.tenant_id, s.owner_id, s.branch, s.head_commit, s.labels ? 'legacy' AS imported,
       EXISTS (SELECT FROM turns t WHERE t.tenant_id = s.tenant_id AND t.session_id = s.id) AS has_turns,
       EXISTS (SELECT FROM turns t WHERE t.tenant_id = s.tenant_id AND t.session_id = s.id AND t.active) AS active,
       (SELECT n.kind = 'IMPORT' AND n.commit = s.head_commit FROM snapshots n
        WHERE n.tenant_id = s.tenant_id AND n.session_id = s.id ORDER BY n.number DESC LIMIT 1) AS head_is_import,
       a.version, a.sha256, a.commit
FROM (SELECT $1::uuid AS id) AS q
LEFT JOIN session_heads h ON h.session_id = q.id
LEFT JOIN sessions s ON s.tenant_id = h.tenant_id AND s.id = h.session_id
LEFT JOIN legacy_archives a ON a.session_id = q.id


-- legacy_adopt --
-- A session that has none yet goes on with the branch and the agent of its archive; one that was just made is as old as it was there.
UPDATE sessions SET
  branch = coalesce(nullif(branch, ''), $4), provider = coalesce(nullif(provider, ''), $5),
  created_at = CASE head_commit WHEN '' THEN coalesce($6, created_at) ELSE created_at END
WHERE tenant_id = $1 AND owner_id = $2 AND id = $3


-- legacy_pushed --
-- Not after a turn, whose own push may be on its way.
UPDATE sessions SET pushed_commit = $4, push_refusal = '', push_message = ''
WHERE tenant_id = $1 AND owner_id = $2 AND id = $3 AND head_commit = $5


-- remember --
-- Not beside a turn, nor after one that began since the head was looked at: it knows better.
INSERT INTO transcripts (tenant_id, session_id, provider, turn_number, data, size)
SELECT s.tenant_id, s.id, $4, coalesce((SELECT max(number) FROM turns t WHERE t.tenant_id = s.tenant_id AND t.session_id = s.id), 0), $5, $6
FROM sessions s
WHERE s.tenant_id = $1 AND s.owner_id = $2 AND s.id = $3 AND s.head_commit = $7
  AND NOT EXISTS (SELECT FROM turns t WHERE t.tenant_id = s.tenant_id AND t.session_id = s.id AND t.active)
ON CONFLICT (tenant_id, session_id, provider)
DO UPDATE SET turn_number = excluded.turn_number, data = excluded.data, size = excluded.size, updated_at = now()


-- legacy_agreed --
-- What was to replace another version can only fail by now; what shall replace this one may be on its way.
WITH agreed AS (
  INSERT INTO legacy_archives (tenant_id, session_id, session_key, version, sha256, commit)
  VALUES ($1, $2, $3, $4, $5, $6)
  ON CONFLICT (session_id) DO UPDATE
  SET version = excluded.version, sha256 = excluded.sha256, commit = excluded.commit, updated_at = now()
  WHERE legacy_archives.tenant_id = excluded.tenant_id AND ($7::text IS NULL OR legacy_archives.version = $7)
  RETURNING tenant_id, session_id
), settled AS (
  DELETE FROM legacy_intents i USING agreed a WHERE i.tenant_id = a.tenant_id AND i.session_id = a.session_id AND i.replaces <> $4
)
SELECT session_id FROM agreed


-- legacy_intend --
-- Those of a day ago came to nothing, or this one would not be made: it replaces what was there before them.
WITH old AS (
  DELETE FROM legacy_intents WHERE tenant_id = $1 AND session_id = $2 AND intended_at < now() - interval '1 day' AND sha256 <> $3
)
INSERT INTO legacy_intents (tenant_id, session_id, sha256, commit, replaces)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (session_id, sha256) DO UPDATE SET commit = excluded.commit, replaces = excluded.replaces, intended_at = now()
WHERE legacy_intents.tenant_id = excluded.tenant_id


-- legacy_intents --
SELECT sha256, commit FROM legacy_intents WHERE session_id = $1


-- legacy_unwritten --
-- No index helps here; it is one look at all sessions every few seconds, and only while two systems run side by side.
SELECT s.tenant_id, s.owner_id, s.id AS session_id, coalesce(a.session_key, s.id::text) AS session_key, coalesce(a.version, '') AS version,
       s.title, s.repository_url, s.base_branch, s.branch, s.head_commit AS commit, s.created_at, s.updated_at
FROM sessions s LEFT JOIN legacy_archives a ON a.session_id = s.id
WHERE ($1::timestamptz IS NULL OR s.updated_at > $1) AND s.head_commit <> '' AND s.branch <> ''
  AND a.commit IS DISTINCT FROM s.head_commit
  AND NOT EXISTS (SELECT FROM turns t WHERE t.tenant_id = s.tenant_id AND t.session_id = s.id AND t.active)
ORDER BY s.updated_at


-- delivery_heard --
INSERT INTO webhook_deliveries (id) VALUES ($1) ON CONFLICT DO NOTHING RETURNING id


-- forget_deliveries --
DELETE FROM webhook_deliveries WHERE received_at < now() - $1 * interval '1 second'


-- look_at_pull_request --
-- For all sessions whose branch it is from, of every tenant.
INSERT INTO pull_request_looks (tenant_id, session_id, number)
SELECT tenant_id, id, $3 FROM sessions WHERE branch = $2 AND branch <> '' AND lower(repository_url) = ANY ($1::text[])
ON CONFLICT (tenant_id, session_id) DO UPDATE SET number = excluded.number, due_at = excluded.due_at, tries = 0


-- due_looks --
WITH due AS MATERIALIZED (
  SELECT l.tenant_id, l.session_id FROM pull_request_looks l JOIN sessions s ON s.tenant_id = l.tenant_id AND s.id = l.session_id
  WHERE l.due_at <= clock_timestamp() AND split_part(s.repository_url, '/', 3) <> ALL ($3::text[])
  ORDER BY l.due_at LIMIT $1 FOR UPDATE OF l SKIP LOCKED
), taken AS (
  UPDATE pull_request_looks l SET due_at = clock_timestamp() + $2 * interval '1 second', tries = tries + 1
  FROM due WHERE l.tenant_id = due.tenant_id AND l.session_id = due.session_id
  RETURNING l.*
)
SELECT taken.*, s.owner_id, s.repository_url FROM taken JOIN sessions s ON s.tenant_id = taken.tenant_id AND s.id = taken.session_id


-- looked --
DELETE FROM pull_request_looks WHERE tenant_id = $1 AND session_id = $2 AND due_at = $3


-- look_later --
UPDATE pull_request_looks SET due_at = clock_timestamp() + $4 * interval '1 second' WHERE tenant_id = $1 AND session_id = $2 AND due_at = $3


-- saw_pull_request --
-- One that is as old as what is known may be newer: hosts tell seconds. What only says when it was changed is nothing new.
UPDATE sessions SET pull_request = $5::jsonb, pull_request_told = false, updated_at = now()
WHERE tenant_id = $1 AND owner_id = $2 AND branch = $4 AND lower(repository_url) = ANY ($3::text[])
  AND (pull_request IS NULL
    OR (pull_request ->> 'number')::bigint < ($5::jsonb ->> 'number')::bigint
    OR (pull_request -> 'number' = $5::jsonb -> 'number' AND pull_request - 'updated_at' <> $5::jsonb - 'updated_at'
      AND coalesce((pull_request ->> 'updated_at')::timestamptz <= ($5::jsonb ->> 'updated_at')::timestamptz, true)))
RETURNING id


-- untold_pull_requests --
SELECT s.tenant_id, s.id, s.owner_id, s.pull_request FROM sessions s
WHERE NOT s.pull_request_told
  AND NOT EXISTS (SELECT FROM turns t WHERE t.tenant_id = s.tenant_id AND t.session_id = s.id AND t.active)
LIMIT $1


-- based_on --
SELECT tenant_id, owner_id, repository_url, max(updated_at) AS used FROM sessions
WHERE lower(repository_url) = ANY ($1::text[]) AND (branch = $2 OR base_branch = $2) AND updated_at > now() - $3 * interval '1 day'
GROUP BY tenant_id, owner_id, repository_url ORDER BY used DESC LIMIT $4
