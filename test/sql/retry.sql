-- Failures: retries with a growing wait, then the dead letters.
CREATE FUNCTION pg_temp.ids(names text[]) RETURNS uuid[] LANGUAGE sql AS
	$$ SELECT array(SELECT event_id FROM sagaz.outbox WHERE event_type = ANY (names) ORDER BY seq) $$;
CREATE FUNCTION pg_temp.due() RETURNS void LANGUAGE sql AS
	$$ UPDATE sagaz.outbox_retry SET next_attempt_at = now() WHERE next_attempt_at IS NOT NULL $$;

-- one event fails, the others of its batch do not
SELECT count(sagaz.insert_event('a', 'n' || n, '1')) FROM generate_series(1, 3) n;
SELECT max(batch_id) AS b FROM sagaz.claim_batch('w') \gset
SELECT sagaz.mark_failed(pg_temp.ids('{n2}'), 'w', 'no such address');
SELECT event_type, state, retry_count, last_error, next_attempt_at > now() AS waits, worker_id
	FROM sagaz.outbox_retry;
SELECT count(*) FROM sagaz.claim_batch('w');
SELECT sagaz.finish_batch(:b, 'w');
-- the retry says what happened before
SELECT pg_temp.due();
SELECT event_type, retry_count, last_error, status FROM sagaz.claim_batch('v');
SELECT count(*) FROM sagaz.claim_batch('w');
-- it is sent with its batch
SELECT sagaz.finish_batch(max(batch_id), 'v') FROM sagaz.outbox_batch;
SELECT state, retry_count, last_error FROM sagaz.outbox_retry;
SELECT count(*) FROM sagaz.claim_batch('w');

-- a batch that is out with retries alone: released, taken over, acknowledged one by one
SELECT count(sagaz.insert_event('a', 'm' || n, '1')) FROM generate_series(1, 2) n;
SELECT count(*) FROM sagaz.claim_batch('w');
SELECT sagaz.mark_failed(pg_temp.ids('{m1,m2}'), 'w', NULL);
SELECT pg_temp.due();
SELECT event_type, retry_count, last_error FROM sagaz.claim_batch('w');
SELECT sagaz.release_batch(max(batch_id), 'w', 'down') FROM sagaz.outbox_batch;
SELECT event_type, retry_count, last_error FROM sagaz.claim_batch('w');
UPDATE sagaz.outbox_batch SET claimed_at = claimed_at - interval '1 hour' WHERE batch_id = (SELECT max(batch_id) FROM sagaz.outbox_batch);
SELECT event_type, retry_count, worker_id FROM sagaz.claim_batch('v');
SELECT event_type, retry_count, worker_id FROM sagaz.claim_batch('v');
SELECT count(*) FROM sagaz.claim_batch('w');
SELECT sagaz.mark_sent(pg_temp.ids('{m1}'), 'v');
SELECT sagaz.mark_failed(pg_temp.ids('{m2}'), 'v', 'again');
SELECT event_type, state, retry_count, last_error FROM sagaz.outbox_retry WHERE event_type ~ '^m' ORDER BY 1;

-- retries and new events in one batch, in that order
SELECT sagaz.insert_event('a', 'new', '1') IS NOT NULL AS inserted;
SELECT pg_temp.due();
SELECT event_type FROM sagaz.claim_batch('w');
SELECT sagaz.release_batch(max(batch_id), 'w') FROM sagaz.outbox_batch;
SELECT event_type FROM sagaz.claim_batch('w') ORDER BY 1;
SELECT sagaz.finish_batch(max(batch_id), 'w') FROM sagaz.outbox_batch;
SELECT count(*) FROM sagaz.claim_batch('w');

-- an event that is failed by one group is another's own business
SELECT sagaz.create_consumer_group('other', start_from => 'now');
SELECT sagaz.insert_event('a', 'both', '1') IS NOT NULL AS inserted;
SELECT event_type FROM sagaz.claim_batch('w');
SELECT event_type FROM sagaz.claim_batch('w', consumer_group => 'other');
SELECT sagaz.mark_failed(pg_temp.ids('{both}'), 'w', 'here', 'other');
SELECT sagaz.mark_sent(pg_temp.ids('{both}'), 'w');
SELECT pg_temp.due();
SELECT event_type, retry_count FROM sagaz.claim_batch('w', consumer_group => 'other');
SELECT count(*) FROM sagaz.claim_batch('w');

-- the wait doubles, loses up to half by chance, and ends after max_retries failures
CREATE FUNCTION pg_temp.fail(event text, times integer) RETURNS TABLE (retry integer, state smallint, wait_in_bounds boolean)
	LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. times LOOP
		PERFORM pg_temp.due();
		PERFORM sagaz.claim_batch('w');
		PERFORM sagaz.mark_failed(pg_temp.ids(ARRAY[event]), 'w', 'failure ' || i);
		RETURN QUERY SELECT r.retry_count, r.state,
				r.next_attempt_at - r.failed_at BETWEEN 0.5 * least(2 ^ (i - 1), 3600) * interval '1 second'
					AND least(2 ^ (i - 1), 3600) * interval '1 second'
			FROM sagaz.outbox_retry r WHERE event_type = event;
	END LOOP;
END $$;
SELECT sagaz.insert_event('a', 'poison', '1') IS NOT NULL AS inserted;
SELECT * FROM pg_temp.fail('poison', 11);
SELECT state, retry_count, last_error, next_attempt_at, batch_id FROM sagaz.outbox_retry WHERE event_type = 'poison';
SELECT pg_temp.due();
SELECT count(*) FROM sagaz.claim_batch('w');
