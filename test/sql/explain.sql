-- Why an event is not delivered yet, in words; times are shown as <time>.
CREATE FUNCTION pg_temp.ids(names text[]) RETURNS uuid[] LANGUAGE sql AS
	$$ SELECT array(SELECT event_id FROM sagaz.outbox WHERE event_type = ANY (names) ORDER BY seq) $$;
CREATE FUNCTION pg_temp.why(name text, only_group text DEFAULT 'sagaz-workers')
RETURNS TABLE (status sagaz.event_status, reason text, next boolean, batch boolean,
	worker text, retries integer, error text) LANGUAGE sql AS $$
	SELECT status, regexp_replace(regexp_replace(reason, '\d{4}-\d\d-\d\dT[0-9:.]+\+00:00', '<time>', 'g'),
			'batch \d+', 'batch <n>', 'g'),
		next_attempt_at IS NOT NULL, batch_id IS NOT NULL, worker_id, retry_count, last_error
	FROM sagaz.explain_event((pg_temp.ids(ARRAY[name]))[1]) WHERE consumer_group = only_group
$$;
CREATE FUNCTION pg_temp.age_batches() RETURNS void LANGUAGE sql AS
	$$ UPDATE sagaz.outbox_batch SET claimed_at = claimed_at - interval '1 hour' $$;

-- before the first claim
SELECT count(sagaz.insert_event('a', 'n' || n, '1')) FROM generate_series(1, 5) n;
SELECT * FROM pg_temp.why('n1');
SELECT * FROM pg_temp.why('n2');
SELECT * FROM pg_temp.why('n5');

-- out, with the lease running and run out
SELECT max(batch_id) AS b FROM sagaz.claim_batch('w', 1) \gset
SELECT * FROM pg_temp.why('n1');
SELECT next_attempt_at, batch_id = :b AS in_batch, claimed_at < now() AS claimed, sent_at
	FROM sagaz.explain_event((pg_temp.ids('{n1}'))[1]);
SELECT * FROM pg_temp.why('n5');
SELECT pg_temp.age_batches();
SELECT * FROM pg_temp.why('n1');
SELECT sagaz.extend_batch(:b, 'w', '1 hour') > now() AS extended;
SELECT * FROM pg_temp.why('n1');

-- sent
SELECT sagaz.finish_batch(:b, 'w');
SELECT * FROM pg_temp.why('n1');

-- released for later, released at once, taken away
SELECT max(batch_id) AS b FROM sagaz.claim_batch('w', 1) \gset
SELECT sagaz.release_batch(:b, 'w', 'target down', '1 hour');
SELECT * FROM pg_temp.why('n2');
UPDATE sagaz.outbox_receipt SET until = now() WHERE batch_id = :b;
SELECT * FROM pg_temp.why('n2');
SELECT max(batch_id) AS b FROM sagaz.claim_batch('w', 1) \gset
SELECT sagaz.release_stuck_events('0');
SELECT * FROM pg_temp.why('n2');

-- failed, due, out again, dead, back
SELECT count(*) FROM sagaz.claim_batch('w', 1);
SELECT sagaz.mark_failed(pg_temp.ids('{n2}'), 'w', 'boom');
UPDATE sagaz.outbox_retry SET next_attempt_at = now() + interval '1 hour';
SELECT * FROM pg_temp.why('n2');
UPDATE sagaz.outbox_retry SET next_attempt_at = now();
SELECT * FROM pg_temp.why('n2');
SELECT count(*) FROM sagaz.claim_batch('w', 1);
SELECT * FROM pg_temp.why('n2');
UPDATE sagaz.outbox_retry SET claimed_at = claimed_at - interval '1 hour';
SELECT * FROM pg_temp.why('n2');
SELECT status FROM sagaz.update_event_status((pg_temp.ids('{n2}'))[1], 'dead_letter', 'given up');
SELECT * FROM pg_temp.why('n2');
SELECT sagaz.requeue_dead_letters();
SELECT * FROM pg_temp.why('n2');
SELECT max(batch_id) AS b FROM sagaz.claim_batch('w', 1) \gset
SELECT sagaz.finish_batch(:b, 'w');
SELECT * FROM pg_temp.why('n2');

-- scheduled, before and after a claim has come to it
SELECT sagaz.insert_event('b', 'later', '1', available_at => now() + interval '1 day') IS NOT NULL AS inserted;
SELECT * FROM pg_temp.why('later');
SELECT count(*) FROM sagaz.claim_batch('w');
SELECT * FROM pg_temp.why('later');
UPDATE sagaz.outbox_retry SET next_attempt_at = now() WHERE event_type = 'later';
SELECT * FROM pg_temp.why('later');

-- each group has its row; paused, late and ordered ones say so
SELECT sagaz.create_consumer_group('late', start_from => 'now'),
	sagaz.create_consumer_group('since', start_from => '2100-01-01T00:00:00Z'),
	sagaz.create_consumer_group('ordered', 'saga', 'now');
SELECT sagaz.pause_consumer_group('late');
SELECT count(sagaz.insert_event('o', 'o' || n, '1')) FROM generate_series(1, 3) n;
SELECT consumer_group, status FROM sagaz.explain_event((pg_temp.ids('{o2}'))[1]) ORDER BY 1;
SELECT * FROM pg_temp.why('o2', 'late');
SELECT * FROM pg_temp.why('n1', 'late');
SELECT * FROM pg_temp.why('o2', 'since');
SELECT event_type FROM sagaz.claim_batch('w', 1, consumer_group => 'ordered');
SELECT * FROM pg_temp.why('o2', 'ordered');
SELECT sagaz.mark_failed(pg_temp.ids('{o1}'), 'w', 'x', 'ordered');
UPDATE sagaz.outbox_retry SET next_attempt_at = now() + interval '1 hour' WHERE event_type = 'o1';
SELECT replace(reason, (pg_temp.ids('{o1}'))[1]::text, 'o1') AS reason FROM pg_temp.why('o2', 'ordered');
SELECT count(*) FROM sagaz.claim_batch('w', consumer_group => 'ordered');
SELECT status, replace(reason, (pg_temp.ids('{o1}'))[1]::text, 'o1') AS reason FROM pg_temp.why('o2', 'ordered');

-- in the archive
INSERT INTO sagaz.outbox_archive (event_id, saga_id, aggregate_type, aggregate_id, event_type, payload,
		headers, status, created_at, claimed_at, sent_at, retry_count, worker_id, archived_at)
	VALUES ('00000000-0000-0000-0000-0000000000aa', 'a', 'saga', 'a', 'old', '1', '{}', 'sent',
		'2024-01-01 00:00:00+00', '2024-01-02 00:00:00+00', '2024-01-03 00:00:00+00', 2, 'w0', '2024-01-04 00:00:00+00');
SELECT consumer_group, status, reason, worker_id, sent_at AT TIME ZONE 'UTC' AS sent_at, retry_count
	FROM sagaz.explain_event('00000000-0000-0000-0000-0000000000aa');

-- another cluster's data, not activated
BEGIN;
UPDATE sagaz.cluster SET system_identifier = system_identifier + 1;
SELECT * FROM pg_temp.why('n5');
ROLLBACK;

-- no such event, for whom it is not committed; nothing asked
SELECT * FROM sagaz.explain_event('00000000-0000-0000-0000-00000000dead');
SELECT * FROM sagaz.explain_event(NULL);
