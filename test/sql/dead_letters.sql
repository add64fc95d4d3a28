-- Dead letters, and what an operator does with events.
\set VERBOSITY terse
-- the event of a type, which is unique here
CREATE FUNCTION id(event_type text) RETURNS uuid LANGUAGE sql
	RETURN (SELECT o.event_id FROM sagaz.outbox o WHERE o.event_type = id.event_type);
-- let what failed wait long enough for the rest of this test
CREATE FUNCTION put_off() RETURNS void LANGUAGE sql AS $$
	UPDATE sagaz.outbox_retry SET next_attempt_at = now() + interval '1 day'
		WHERE state = 1 AND failed_at IS NOT NULL
$$;
CREATE FUNCTION change(type text, status text, error text DEFAULT NULL,
		consumer_group text DEFAULT 'sagaz-workers')
	RETURNS TABLE (event_type text, new_status sagaz.event_status,
		retry_count integer, last_error text, in_batch boolean)
	LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY
		SELECT e.event_type, e.status, e.retry_count, e.last_error, e.batch_id IS NOT NULL
		FROM sagaz.update_event_status(id(type), status, error, consumer_group) e;
	PERFORM put_off();
END
$$;
SELECT count(sagaz.insert_event('saga-' || i, 'e' || i, '1', event_id => lpad(i::text, 32, 'e')::uuid))
	FROM generate_series(1, 8) AS i;

-- not yet handed out
SELECT * FROM change('e1', 'sent');
SELECT * FROM change('e2', 'dead_letter', 'unwanted');
SELECT status, retry_count, last_error FROM sagaz.update_event_status(id('e3'), 'failed', 'not now');
SELECT next_attempt_at - failed_at BETWEEN '0.5 s' AND '1 s' AS backoff
	FROM sagaz.outbox_retry WHERE event_id = id('e3');
SELECT put_off();
SELECT * FROM change('e4', 'claimed');
SELECT * FROM change('e4', 'pending');
SELECT event_type FROM sagaz.claim_batch('w') ORDER BY 1;
-- out in a batch
SELECT * FROM change('e4', 'sent');
SELECT * FROM change('e5', 'failed', 'boom');
SELECT * FROM change('e6', 'pending');
SELECT * FROM change('e7', 'dead_letter', 'poison');
SELECT * FROM change('e8', 'claimed');
-- the worker is told what is his still
SELECT sagaz.mark_sent(ARRAY[id('e5')], 'w');
SELECT sagaz.mark_failed(ARRAY[id('e4')], 'w', 'late');
SELECT sagaz.mark_sent(ARRAY[id('e8')], 'w');
SELECT kind, count(*), sum(events) FROM sagaz.outbox_receipt GROUP BY 1 ORDER BY 1;
-- pending is due at once, and nothing else is
SELECT event_type, retry_count FROM sagaz.claim_batch('w');
-- out as a retry
SELECT * FROM change('e6', 'failed', 'again');
SELECT count(*) FROM sagaz.claim_batch('w');
-- every change that is not allowed, and nothing changes
SELECT * FROM change('e1', 'pending');
SELECT * FROM change('e4', 'failed');
SELECT * FROM change('e8', 'sent');
SELECT * FROM change('e2', 'sent');
SELECT * FROM change('e2', 'failed');
SELECT * FROM change('e2', 'dead_letter');
SELECT * FROM change('e5', 'failed');
SELECT * FROM change('e5', 'claimed');
SELECT * FROM change('e5', 'lost');
SELECT sagaz.update_event_status(id('e5'), 'sent', storage => 'redis');
SELECT * FROM change('e5', NULL);
SELECT * FROM change('e5', 'sent', 'why');
SELECT * FROM change('nothing', 'sent');
SELECT * FROM change('e5', 'sent', NULL, 'nobody');
SELECT sagaz.update_event_status('00000000-0000-0000-0000-000000000001', 'sent');
SELECT event_type, state, retry_count, last_error FROM sagaz.outbox_retry ORDER BY 1;
-- from failed
SELECT * FROM change('e3', 'pending');
SELECT * FROM change('e5', 'sent');
SELECT * FROM change('e6', 'dead_letter');
SELECT event_type, retry_count FROM sagaz.claim_batch('w');
SELECT sagaz.mark_sent(ARRAY[id('e3')], 'w');
-- from dead_letter: the failures are forgotten
SELECT * FROM change('e6', 'pending');
SELECT event_type, retry_count FROM sagaz.claim_batch('w');
SELECT * FROM change('e6', 'dead_letter');
-- an event older than the group's start is none of its
SELECT sagaz.create_consumer_group('later', start_from => '2999-01-01');
SELECT * FROM change('e8', 'sent', NULL, 'later');
-- and so is one that was there when the group began
SELECT sagaz.create_consumer_group('latest', start_from => 'now');
SELECT * FROM change('e8', 'dead_letter', NULL, 'latest');
SELECT sagaz.mark_sent(ARRAY[id('e8')], 'w', 'latest');
SELECT sagaz.drop_consumer_group('latest');
-- one in the archive stays as it is
INSERT INTO sagaz.outbox_archive (event_id, saga_id, aggregate_type, aggregate_id,
		event_type, payload, headers, status, created_at, retry_count)
	VALUES (lpad('f', 32, 'f')::uuid, 's', 'saga', 's', 'x', '1', '{}', 'sent', now(), 0);
SELECT sagaz.update_event_status(lpad('f', 32, 'f')::uuid, 'pending');

-- requeue: three are dead by now
SELECT event_type, last_error FROM sagaz.outbox_retry WHERE state = 4 ORDER BY 1;
SELECT sagaz.requeue_dead_letters(event_type => 'e9');
SELECT sagaz.requeue_dead_letters(saga_id => 'saga-7', reason => 'fixed');
SELECT state, retry_count, last_error, reason, failed_at FROM sagaz.outbox_retry
	WHERE event_type = 'e7';
SELECT event_type FROM sagaz.claim_batch('w');
SELECT sagaz.requeue_dead_letters(ARRAY[id('e2'), id('e2'), id('e7'), id('e8')]);
SELECT event_type FROM sagaz.claim_batch('w') ORDER BY 1;
SELECT sagaz.requeue_dead_letters(ARRAY[NULL::uuid]);
SELECT sagaz.requeue_dead_letters(max_rows => 0);
SELECT sagaz.requeue_dead_letters(spread => '-1 s');
SELECT sagaz.requeue_dead_letters(spread => NULL);
SELECT sagaz.requeue_dead_letters(consumer_group => 'nobody');
SELECT sagaz.requeue_dead_letters(storage => 'redis');
SELECT sagaz.requeue_dead_letters('{}');
-- the longest dead come first, evenly over the time; no other group's
SELECT sagaz.create_consumer_group('spread');
SELECT count(*) FROM generate_series(8, 1, -1) AS i, change('e' || i, 'dead_letter', NULL, 'spread');
SELECT sagaz.requeue_dead_letters(event_type => 'e6', consumer_group => 'sagaz-workers');
SELECT sagaz.requeue_dead_letters(max_rows => 4, spread => '4 hours', consumer_group => 'spread');
SELECT event_type, next_attempt_at - min(next_attempt_at) OVER () AS after
	FROM sagaz.outbox_retry JOIN sagaz.consumer_group USING (group_no)
	WHERE consumer_group = 'spread' AND state = 1 ORDER BY next_attempt_at;
SELECT event_type FROM sagaz.claim_batch('w', consumer_group => 'spread') ORDER BY 1;
SELECT sagaz.requeue_dead_letters(consumer_group => 'spread');
SELECT count(*) FROM sagaz.outbox_retry WHERE state = 4;

-- in an ordered group a saga goes on when what it waited for is sent or dead
SELECT sagaz.create_consumer_group('ordered', 'saga', 'now');
SELECT count(sagaz.insert_event('o', 'o' || i, '1', event_id => lpad(i::text, 32, 'a')::uuid))
	FROM generate_series(1, 4) AS i;
SELECT * FROM change('o2', 'failed', NULL, 'ordered');
SELECT event_type FROM sagaz.claim_batch('w', 3, consumer_group => 'ordered');
SELECT * FROM change('o1', 'failed', 'x', 'ordered');
SELECT event_type, state FROM sagaz.outbox_retry WHERE saga_id = 'o' ORDER BY 1;
SELECT event_type FROM sagaz.claim_batch('w', consumer_group => 'ordered');
SELECT * FROM change('o1', 'dead_letter', 'given up', 'ordered');
SELECT event_type FROM sagaz.claim_batch('w', consumer_group => 'ordered');
SELECT * FROM change('o2', 'pending', NULL, 'ordered');
SELECT event_type, state FROM sagaz.outbox_retry WHERE saga_id = 'o' ORDER BY 1;
SELECT * FROM change('o2', 'sent', NULL, 'ordered');
SELECT event_type FROM sagaz.claim_batch('w', consumer_group => 'ordered');

-- leases of workers that are gone
SELECT sagaz.create_consumer_group('stuck', start_from => 'now');
SELECT count(sagaz.insert_event('s' || i, 's' || i, '1')) FROM generate_series(1, 5) AS i;
SELECT batch_id FROM sagaz.claim_batch('w1', 100, consumer_group => 'stuck') LIMIT 1 \gset
SELECT sagaz.mark_failed(ARRAY[id('s1')], 'w1', 'x', 'stuck');
SELECT put_off();
SELECT sagaz.mark_sent(ARRAY[id('s2')], 'w1', 'stuck');
SELECT sagaz.release_stuck_events(consumer_group => 'stuck');
SELECT sagaz.release_stuck_events('0', 'stuck');
SELECT sagaz.release_stuck_events('0', 'stuck');
\set VERBOSITY sqlstate
SELECT sagaz.finish_batch(:batch_id, 'w1');
\set VERBOSITY terse
SELECT count(*) IN (1, 2) AS half FROM sagaz.claim_batch('w2', 100, consumer_group => 'stuck');
-- who extends is not stuck
SELECT DISTINCT sagaz.extend_batch(batch_id, 'w2', '1 hour') > now() AS extended
	FROM sagaz.outbox_batch WHERE worker_id = 'w2';
SELECT sagaz.release_stuck_events('0', 'stuck');
SELECT sagaz.release_stuck_events('-1 s');
SELECT sagaz.release_stuck_events(NULL);
SELECT sagaz.release_stuck_events('0', 'nobody');
SELECT sagaz.release_stuck_events(storage => 'memory://x');
