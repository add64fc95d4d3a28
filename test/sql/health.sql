-- Is the outbox fit?
CREATE FUNCTION pg_temp.health() RETURNS TABLE (status text, message text, measured boolean, groups jsonb)
LANGUAGE sql AS $$
	SELECT status, regexp_replace(message, 'waits for \d+ s', 'waits for <n> s'), latency_ms > 0, details -> 'groups' FROM sagaz.health_check()
$$;
CREATE FUNCTION pg_temp.ids(names text[]) RETURNS uuid[] LANGUAGE sql AS
	$$ SELECT array(SELECT event_id FROM sagaz.outbox WHERE event_type = ANY (names) ORDER BY seq) $$;

-- not used yet
SELECT * FROM pg_temp.health();
SELECT details ->> 'active' AS active, (details ->> 'preloaded')::boolean
		= (current_setting('shared_preload_libraries') = 'sagaz') AS preload_told,
		(details ->> 'log_bytes')::bigint > 0 AS has_size, details ->> 'sequence_cache' AS sequence_cache,
		details ->> 'in_recovery' AS in_recovery, details ? 'oldest_transaction_seconds' AS transactions_told,
		details ->> 'counted_up_to' AS counted_up_to
	FROM sagaz.health_check('native');

-- in use
SELECT count(sagaz.insert_event('a', 'n' || n, '1')) FROM generate_series(1, 4) n;
SELECT max(batch_id) AS b FROM sagaz.claim_batch('w', 2) \gset
SELECT status, message, groups #- '{0,oldest_pending_seconds}' AS groups,
		(groups #>> '{0,oldest_pending_seconds}')::float8 >= 0 AS has_age FROM pg_temp.health();

-- an event waits too long; a scheduled one does not
UPDATE sagaz.outbox SET created_at = created_at - interval '1 hour' WHERE event_type = 'n4';
SELECT sagaz.insert_event('a', 'later', '1', available_at => now() + interval '1 day') IS NOT NULL AS inserted;
UPDATE sagaz.outbox SET created_at = created_at - interval '2 hours' WHERE event_type = 'later';
SELECT status, message, (groups #>> '{0,oldest_pending_seconds}')::float8 BETWEEN 3600 AND 7000 AS age FROM pg_temp.health();

-- a paused group is not asked for its age
SELECT sagaz.pause_consumer_group('sagaz-workers');
SELECT status, message FROM pg_temp.health();
SELECT sagaz.resume_consumer_group('sagaz-workers');
UPDATE sagaz.outbox SET created_at = now();

-- a lease that ran out, a dead letter
UPDATE sagaz.outbox_batch SET claimed_at = claimed_at - interval '1 hour';
SELECT status, message, groups #> '{0,expired}' AS expired FROM pg_temp.health();
SELECT sagaz.mark_sent(pg_temp.ids('{n1}'), 'w');
SELECT status FROM sagaz.update_event_status((pg_temp.ids('{n2}'))[1], 'dead_letter', 'x');
SELECT status, message, groups #> '{0,dead_letter}' AS dead FROM pg_temp.health();
SELECT sagaz.requeue_dead_letters();
SELECT status, message FROM pg_temp.health();

-- claims would refuse
ALTER SEQUENCE sagaz.outbox_seq CACHE 32;
SELECT status, message FROM pg_temp.health();
ALTER SEQUENCE sagaz.outbox_seq CACHE 1;
BEGIN;
UPDATE sagaz.cluster SET system_identifier = system_identifier + 1;
SELECT status, message, details -> 'active' AS active FROM sagaz.health_check();
ROLLBACK;
SELECT status, message FROM pg_temp.health();

\set VERBOSITY sqlstate
SELECT sagaz.health_check('redis');
