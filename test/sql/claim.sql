-- Claims: what a worker gets, and in which order. Sagas a and e are in lane 0,
-- b in lane 1; within a lane the order is that of the log.
CREATE FUNCTION pg_temp.try(command text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE command;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	RETURN sqlstate || ': ' || sqlerrm;
END $$;

-- nothing there: nothing written, no xid taken
BEGIN;
SELECT count(*) FROM sagaz.claim_batch('w');
COMMIT;
BEGIN;
SELECT count(*) FROM sagaz.claim_batch('w');
SELECT pg_current_xact_id_if_assigned() IS NULL AS no_xid;
COMMIT;
SELECT count(*) FROM sagaz.outbox_batch;

-- every column
SELECT sagaz.insert_event('a', 'created', '{"n": 1}', 'order', 'order-1', '{"h": "x"}', 'route', 'part',
	'11111111-1111-7111-8111-111111111111');
SELECT sagaz.insert_event('a', 'paid', '[2, null]', event_id => '22222222-2222-7222-8222-222222222222');
CREATE TABLE claimed AS SELECT * FROM sagaz.claim_batch('w');
\x
SELECT event_id, saga_id, aggregate_type, aggregate_id, event_type, payload, headers, status, sent_at,
		retry_count, last_error, worker_id, routing_key, partition_key, batch_id = c.batch_id AS batch_id,
		consumer_group, created_at < claimed_at AND claimed_at <= now() AS times
	FROM claimed c ORDER BY event_type;
\x
-- the batch has one row a lane
SELECT events, group_no, lane, worker_id, root FROM sagaz.outbox_batch;
SELECT sagaz.finish_batch(batch_id, 'w') FROM claimed LIMIT 1;
SELECT count(*) FROM sagaz.claim_batch('w');

-- batch_size is for all lanes together; a batch has one id in all of them
SELECT count(sagaz.insert_event(saga, 'n' || n, '1')) FROM generate_series(1, 5) n, unnest('{a,b,c,d}'::text[]) saga;
CREATE TABLE sizes AS SELECT batch_id, count(*) FROM sagaz.claim_batch('w', 8) GROUP BY 1;
SELECT count FROM sizes;
SELECT sum(events), count(*) BETWEEN 2 AND 3 AS some_lanes FROM sagaz.outbox_batch WHERE batch_id IN (SELECT batch_id FROM sizes);
SELECT count(*), count(DISTINCT batch_id) FROM sagaz.claim_batch('w', 100);
SELECT count(*) FROM sagaz.claim_batch('w', 100);

-- claim and finish in one statement
SELECT count(sagaz.insert_event('a', 'n' || n, '1')) FROM generate_series(1, 5) n;
SELECT sagaz.finish_batch(min(batch_id), 'w') FROM sagaz.claim_batch('w');
SELECT count(*) FROM sagaz.claim_batch('w');

-- two claims in one statement share nothing
SELECT count(sagaz.insert_event('a', 'n' || n, '1')) FROM generate_series(1, 4) n;
SELECT worker_id, event_type FROM sagaz.claim_batch('one', 2)
	UNION ALL SELECT worker_id, event_type FROM sagaz.claim_batch('two', 2) ORDER BY 1, 2;

-- a transaction does not get its own events, whatever it did before
BEGIN;
SELECT sagaz.insert_event('a', 'own', '1') IS NOT NULL AS inserted;
SELECT count(*) FROM sagaz.claim_batch('w');
SAVEPOINT s;
SELECT sagaz.insert_event('a', 'own in a savepoint', '1') IS NOT NULL AS inserted;
SELECT count(*) FROM sagaz.claim_batch('w');
RELEASE s;
SAVEPOINT s;
SELECT sagaz.insert_event('a', 'rolled back', '1') IS NOT NULL AS inserted;
ROLLBACK TO s;
SELECT count(*) FROM sagaz.claim_batch('w');
COMMIT;
SELECT event_type FROM sagaz.claim_batch('w');

-- older_than ends the batch at the first event that is too young
INSERT INTO sagaz.emit (saga_id, event_type, payload, created_at) VALUES
	('e', 'old 1', '1', now() - interval '1 hour'),
	('e', 'young', '1', now() + interval '1 hour'),
	('e', 'old 2', '1', now() - interval '1 hour');
SELECT event_type FROM sagaz.claim_batch('w', older_than => '10 minutes');
SELECT event_type FROM sagaz.claim_batch('w', older_than => '10 minutes');
SELECT event_type FROM sagaz.claim_batch('w');

-- a claim that gets nothing writes nothing, also where a released range is too young
SELECT sagaz.release_batch(max(batch_id), 'w') FROM sagaz.outbox_batch;
SELECT count(*) AS rows FROM sagaz.outbox_batch \gset
SELECT count(*) FROM sagaz.claim_batch('w', older_than => '10 minutes');
SELECT count(*) FROM sagaz.claim_batch('w', older_than => '10 minutes');
SELECT count(*) - :rows AS more FROM sagaz.outbox_batch;
SELECT event_type FROM sagaz.claim_batch('w');

-- groups: each on its own, from the beginning, from now, since a time
SELECT sagaz.create_consumer_group('all');
SELECT sagaz.create_consumer_group('new', start_from => 'now');
SELECT sagaz.create_consumer_group('since', start_from => to_char(now() + interval '30 minutes', 'YYYY-MM-DD"T"HH24:MI:SSOF'));
SELECT count(*) = (SELECT count(*) FROM sagaz.outbox) AS everything FROM sagaz.claim_batch('w', 1000, '0', 'all');
SELECT count(*) FROM sagaz.claim_batch('w', 1000, '0', 'new');
SELECT event_type FROM sagaz.claim_batch('w', 1000, '0', 'since');
SELECT sagaz.insert_event('a', 'after', '1') IS NOT NULL AS inserted;
SELECT event_type, consumer_group FROM sagaz.claim_batch('w', 1000, '0', 'all');
SELECT event_type, consumer_group FROM sagaz.claim_batch('w', 1000, '0', 'new');
SELECT event_type, consumer_group FROM sagaz.claim_batch('w', 1000);

-- what a claim refuses, changing nothing
SELECT pg_temp.try(command) FROM unnest(ARRAY[
	$$SELECT sagaz.claim_batch(NULL)$$,
	$$SELECT sagaz.claim_batch('')$$,
	$$SELECT sagaz.claim_batch('w', 0)$$,
	$$SELECT sagaz.claim_batch('w', NULL)$$,
	$$SELECT sagaz.claim_batch('w', 1, '-1 second')$$,
	$$SELECT sagaz.claim_batch('w', 1, NULL)$$,
	$$SELECT sagaz.claim_batch('w', 1, '0', 'nobody')$$,
	$$SELECT sagaz.claim_batch('w', 1, '0', 'all', 'elsewhere')$$]) command;
SET sagaz.outbox_storage = 'elsewhere';
SELECT pg_temp.try($$SELECT sagaz.claim_batch('w')$$);
SELECT count(*) FROM sagaz.claim_batch('w', storage => 'native');
RESET sagaz.outbox_storage;

-- a sequence with a cache would break the order
ALTER SEQUENCE sagaz.outbox_seq CACHE 10;
SELECT pg_temp.try($$SELECT sagaz.claim_batch('w')$$);
ALTER SEQUENCE sagaz.outbox_seq CACHE 1;
SELECT count(*) FROM sagaz.claim_batch('w');
-- so would one that was set back
SELECT sagaz.insert_event('a', 'last', '1') IS NOT NULL AS inserted;
SELECT event_type FROM sagaz.claim_batch('w');
BEGIN;
SELECT last_value > setval('sagaz.outbox_seq', 3) AS set_back FROM sagaz.outbox_seq;
SELECT pg_temp.try($$SELECT sagaz.claim_batch('w')$$) ~ 'was set back' AS refused;
SELECT setval('sagaz.outbox_seq', max(seq)) = max(seq) AS set_right FROM sagaz.outbox;
COMMIT;
SELECT count(*) FROM sagaz.claim_batch('w');
