-- Where events stand: view outbox_events and the functions that list events.
CREATE FUNCTION pg_temp.emit(saga text, names text[]) RETURNS void LANGUAGE sql AS
	$$ SELECT sagaz.insert_event(saga, name, '1') FROM unnest(names) name $$;
CREATE FUNCTION pg_temp.ids(names text[]) RETURNS uuid[] LANGUAGE sql AS
	$$ SELECT array(SELECT event_id FROM sagaz.outbox WHERE event_type = ANY (names) ORDER BY seq) $$;
CREATE FUNCTION pg_temp.due() RETURNS void LANGUAGE sql AS
	$$ UPDATE sagaz.outbox_retry SET next_attempt_at = now() WHERE next_attempt_at IS NOT NULL $$;
-- what the view says, in the order of the log
CREATE FUNCTION pg_temp.states(pattern text DEFAULT '')
RETURNS TABLE (event text, status sagaz.event_status, claimed boolean, sent boolean,
	retries integer, error text, worker text) LANGUAGE sql AS $$
	SELECT e.event_type, e.status, e.claimed_at IS NOT NULL, e.sent_at IS NOT NULL,
		e.retry_count, e.last_error, e.worker_id
	FROM sagaz.outbox_events e JOIN sagaz.outbox o USING (event_id)
	WHERE e.event_type ~ pattern ORDER BY o.seq
$$;
-- The same events by each way of asking: in full, by status, by saga, by id,
-- and counted; true if all say the same and no event is there twice.
CREATE FUNCTION pg_temp.agree() RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	differences bigint;
BEGIN
	CREATE TEMP TABLE whole AS SELECT * FROM sagaz.outbox_events;
	CREATE TEMP TABLE by_status AS
		SELECT e.* FROM unnest(enum_range(NULL::sagaz.event_status)) s,
			LATERAL (SELECT * FROM sagaz.outbox_events WHERE status = s OFFSET 0) e;
	CREATE TEMP TABLE by_saga AS
		SELECT e.* FROM (SELECT DISTINCT saga_id FROM whole) s,
			LATERAL (SELECT * FROM sagaz.outbox_events WHERE saga_id = s.saga_id OFFSET 0) e;
	CREATE TEMP TABLE by_id AS
		SELECT e.* FROM whole w,
			LATERAL (SELECT * FROM sagaz.outbox_events WHERE event_id = w.event_id OFFSET 0) e;
	CREATE TEMP TABLE by_function AS
		SELECT e.* FROM whole w, LATERAL sagaz.get_event(w.event_id) e;
	ALTER TABLE by_function DROP batch_id, DROP consumer_group;
	SELECT count(*) INTO differences FROM (
		(TABLE whole EXCEPT ALL TABLE by_status) UNION ALL (TABLE by_status EXCEPT ALL TABLE whole)
		UNION ALL (TABLE whole EXCEPT ALL TABLE by_saga) UNION ALL (TABLE by_saga EXCEPT ALL TABLE whole)
		UNION ALL (TABLE whole EXCEPT ALL TABLE by_id) UNION ALL (TABLE by_id EXCEPT ALL TABLE whole)
		UNION ALL (TABLE whole EXCEPT ALL TABLE by_function) UNION ALL (TABLE by_function EXCEPT ALL TABLE whole)) d;
	SELECT differences + abs(count(*) - count(DISTINCT w.event_id)) + abs(count(*)
			- (SELECT count(*) FROM sagaz.outbox) - (SELECT count(*) FROM sagaz.outbox_archive))
			+ abs(count(*) FILTER (WHERE status = 'pending') - sagaz.get_pending_count())
		INTO differences FROM whole w;
	SELECT differences
			+ abs(s.pending - count(*) FILTER (WHERE status = 'pending'))
			+ abs(s.claimed - count(*) FILTER (WHERE status = 'claimed'))
			+ abs(s.sent + s.archived - count(*) FILTER (WHERE status = 'sent'))
			+ abs(s.failed - count(*) FILTER (WHERE status = 'failed'))
			+ abs(s.dead_letter - count(*) FILTER (WHERE status = 'dead_letter'))
			+ abs(s.total + s.archived - count(*))
		INTO differences FROM whole, sagaz.get_outbox_statistics() s
		GROUP BY s.pending, s.claimed, s.sent, s.failed, s.dead_letter, s.total, s.archived;
	DROP TABLE whole, by_status, by_saga, by_id, by_function;
	RETURN differences = 0;
END
$$;

-- nothing is there
SELECT * FROM sagaz.outbox_events;
SELECT sagaz.get_pending_count();
SELECT * FROM sagaz.get_outbox_statistics();

-- before the first claim there is no group, and all is pending
SELECT pg_temp.emit('a', '{n1,n2,n3,n4,n5,n6}');
SELECT * FROM pg_temp.states();
SELECT * FROM sagaz.consumer_group;
SELECT pg_temp.agree();

-- all 16 fields
SELECT sagaz.insert_event('fields', 'full', '{"p": 1}', 'order', 'O-1', '{"h": "v"}', 'rk', 'pk',
	'00000000-0000-0000-0000-000000000001');
SELECT count(*) FROM sagaz.claim_batch('f');
SELECT sagaz.release_batch(max(batch_id), 'f') FROM sagaz.outbox_batch;
SELECT event_id, saga_id, aggregate_type, aggregate_id, event_type, payload, headers, status,
		claimed_at, sent_at, retry_count, last_error, worker_id, routing_key, partition_key
	FROM sagaz.outbox_events WHERE event_id = '00000000-0000-0000-0000-000000000001';
SELECT event_type, aggregate_id, batch_id, consumer_group
	FROM sagaz.get_event('00000000-0000-0000-0000-000000000001');
DELETE FROM sagaz.outbox WHERE saga_id = 'fields';

-- claimed; one of them finished alone, the rest with the batch
SELECT max(batch_id) AS b FROM sagaz.claim_batch('w1', 3) \gset
SELECT * FROM pg_temp.states();
SELECT sagaz.mark_sent(pg_temp.ids('{n2}'), 'w1');
SELECT * FROM pg_temp.states();
SELECT sent_at AS n2_sent_at FROM sagaz.outbox_events WHERE event_type = 'n2' \gset
SELECT pg_temp.agree();
SELECT sagaz.finish_batch(:b, 'w1');
SELECT * FROM pg_temp.states();
SELECT event_type, batch_id = :b AS of_batch, sent_at = :'n2_sent_at' AS as_n2, claimed_at < sent_at AS in_order
	FROM sagaz.get_events_by_saga('a') WHERE status = 'sent';
SELECT pg_temp.agree();

-- released: pending, not before its time; then claimed and finished by another
SELECT max(batch_id) AS b FROM sagaz.claim_batch('w1', 2) \gset
SELECT sagaz.release_batch(:b, 'w1', 'target down', '1 hour');
SELECT * FROM pg_temp.states('n[4-6]');
SELECT count(*) FROM sagaz.claim_batch('w2', 1);
SELECT * FROM pg_temp.states('n[4-6]');
UPDATE sagaz.outbox_receipt SET until = now() WHERE batch_id = :b;
SELECT max(batch_id) AS c FROM sagaz.claim_batch('w3', 1) \gset
SELECT * FROM pg_temp.states('n[4-6]');
SELECT pg_temp.agree();
SELECT sagaz.finish_batch(:c, 'w3');
SELECT max(batch_id) AS d FROM sagaz.claim_batch('w4', 1) \gset
SELECT sagaz.release_batch(:d, 'w4');
SELECT * FROM pg_temp.states('n[4-6]');
SELECT max(batch_id) AS d FROM sagaz.claim_batch('w5', 1) \gset
SELECT sagaz.finish_batch(:d, 'w5');
SELECT event_type, status, worker_id, batch_id = :c AS first, batch_id = :d AS second
	FROM sagaz.get_events_by_saga('a') WHERE event_type ~ 'n[45]';
SELECT pg_temp.agree();

-- stuck: n6 is still with w2; taken over it is another's
SELECT * FROM sagaz.get_stuck_events();
SELECT event_type, worker_id FROM sagaz.get_stuck_events('0');
UPDATE sagaz.outbox_batch SET claimed_at = claimed_at - interval '1 hour';
SELECT event_type, status, worker_id FROM sagaz.get_stuck_events();
SELECT max(batch_id) AS b FROM sagaz.claim_batch('w6') \gset
SELECT * FROM pg_temp.states('n6');
SELECT * FROM sagaz.get_stuck_events();
SELECT pg_temp.agree();

-- failed, claimed again, failed again, dead, tried again, sent
SELECT sagaz.mark_failed(pg_temp.ids('{n6}'), 'w6', 'boom');
SELECT * FROM pg_temp.states('n6');
SELECT pg_temp.due();
SELECT count(*) FROM sagaz.claim_batch('w7');
SELECT * FROM pg_temp.states('n6');
SELECT pg_temp.agree();
SELECT sagaz.mark_failed(pg_temp.ids('{n6}'), 'w7', 'boom again');
SELECT event_type, status, retry_count FROM sagaz.update_event_status((pg_temp.ids('{n6}'))[1], 'dead_letter', 'given up');
SELECT * FROM pg_temp.states('n6');
SELECT event_type, status, last_error FROM sagaz.get_dead_letter_events();
SELECT count(*) FROM sagaz.get_dead_letter_events(0);
SELECT pg_temp.agree();
SELECT sagaz.requeue_dead_letters(reason => 'repaired');
SELECT event, status, claimed, sent, retries, worker FROM pg_temp.states('n6');
SELECT pg_temp.agree();
SELECT max(batch_id) AS b FROM sagaz.claim_batch('w8') \gset
SELECT sagaz.finish_batch(:b, 'w8');
SELECT event, status, claimed, sent, retries, worker FROM pg_temp.states('n6');
SELECT pg_temp.agree();

-- scheduled: pending before and after a claim has come to it, and when due
SELECT sagaz.insert_event('a', 'later', '1', available_at => now() + interval '1 day') IS NOT NULL AS inserted;
SELECT * FROM pg_temp.states('later');
SELECT count(*) FROM sagaz.claim_batch('w');
SELECT * FROM pg_temp.states('later');
SELECT pg_temp.agree();
SELECT pg_temp.due();
SELECT event_type FROM sagaz.claim_batch('w');
SELECT * FROM pg_temp.states('later');
SELECT sagaz.mark_sent(pg_temp.ids('{later}'), 'w');
SELECT * FROM pg_temp.states('later');
SELECT pg_temp.agree();

-- straggler: its transaction was running when later events went out
BEGIN;
SELECT pg_temp.emit('a', '{early}');
PREPARE TRANSACTION 'straggler';
SELECT pg_temp.emit('a', '{s1,s2,s3}');
SELECT max(batch_id) AS b FROM sagaz.claim_batch('w', 2) \gset
SELECT sagaz.finish_batch(:b, 'w');
SELECT * FROM pg_temp.states('^s|early');
COMMIT PREPARED 'straggler';
SELECT * FROM pg_temp.states('^s|early');
SELECT pg_temp.agree();
SELECT max(batch_id) AS b FROM sagaz.claim_batch('w', 2) \gset
SELECT event, status, claimed FROM pg_temp.states('^s|early');
SELECT pg_temp.agree();
SELECT sagaz.finish_batch(:b, 'w');
SELECT event, status, claimed FROM pg_temp.states('^s|early');
SELECT pg_temp.agree();

-- a claim and a follow-up event in one transaction, seen in it and gone with it
SELECT pg_temp.emit('a', '{t1}');
BEGIN;
SELECT event_type FROM sagaz.claim_batch('w');
SELECT pg_temp.emit('a', '{follow}');
SELECT event, status FROM pg_temp.states('^t1|follow');
SELECT pg_temp.agree();
ROLLBACK;
SELECT event, status FROM pg_temp.states('^t1|follow');
BEGIN;
SELECT max(batch_id) AS b FROM sagaz.claim_batch('w') \gset
SELECT pg_temp.emit('a', '{follow}');
SELECT sagaz.finish_batch(:b, 'w');
COMMIT;
SELECT event, status FROM pg_temp.states('^t1|follow');
SELECT pg_temp.agree();

-- many sagas, all lanes, some of everything
SELECT count(sagaz.insert_event('saga ' || n % 17, 'many', '1')) FROM generate_series(1, 300) n;
SELECT count(*) FROM sagaz.claim_batch('m1', 100);
SELECT sagaz.mark_failed(array(SELECT event_id FROM sagaz.outbox_events WHERE worker_id = 'm1'
	AND status = 'claimed' ORDER BY event_id LIMIT 10), 'm1', 'x');
SELECT sagaz.mark_sent(array(SELECT event_id FROM sagaz.outbox_events WHERE worker_id = 'm1'
	AND status = 'claimed' ORDER BY event_id LIMIT 10), 'm1');
SELECT count(DISTINCT batch_id) FROM sagaz.claim_batch('m2', 70);
SELECT sagaz.release_batch(max(batch_id), 'm2', 'y') FROM sagaz.outbox_batch WHERE worker_id = 'm2';
SELECT count(*) FROM sagaz.claim_batch('m3', 40);
SELECT count(*) FROM sagaz.claim_batch('m4', 50);
SELECT sagaz.finish_batch(max(batch_id), 'm4') FROM sagaz.outbox_batch WHERE worker_id = 'm4';
SELECT pg_temp.agree();
SELECT count(*) FROM pg_temp.states('many');

-- archived
INSERT INTO sagaz.outbox_archive (event_id, saga_id, aggregate_type, aggregate_id, event_type, payload,
		headers, status, created_at, claimed_at, sent_at, retry_count, worker_id)
	VALUES ('00000000-0000-0000-0000-0000000000aa', 'a', 'saga', 'a', 'old', '1', '{}', 'sent',
		'2024-01-01 00:00:00+00', '2024-01-02 00:00:00+00', '2024-01-03 00:00:00+00', 2, 'w0');
SELECT event_type, status, sent_at AT TIME ZONE 'UTC' AS sent_at, retry_count, worker_id
	FROM sagaz.outbox_events WHERE event_id = '00000000-0000-0000-0000-0000000000aa';
SELECT event_type, status FROM sagaz.get_events_by_saga('a') LIMIT 3;
SELECT archived FROM sagaz.get_outbox_statistics();
SELECT pg_temp.agree();

-- other groups have their own view of the same events
SELECT sagaz.create_consumer_group('late', start_from => 'now'), sagaz.create_consumer_group('all');
SELECT pg_temp.emit('g', '{g1,g2}');
SELECT count(*) FROM sagaz.get_event((pg_temp.ids('{n1}'))[1], 'late');
SELECT event_type, status FROM sagaz.get_events_by_saga('g', 'late');
SELECT sagaz.get_pending_count('late');
SELECT sagaz.get_pending_count('all') = (SELECT count(*) FROM sagaz.outbox) AS gets_all;
SELECT event_type FROM sagaz.claim_batch('l', consumer_group => 'late');
SELECT event_type, status, worker_id, consumer_group FROM sagaz.get_events_by_saga('g', 'late');
SELECT event_type, status FROM sagaz.get_events_by_saga('g');
SELECT total, pending, claimed, sent, open_batches FROM sagaz.get_outbox_statistics('late');
SELECT sagaz.mark_sent(pg_temp.ids('{g1}'), 'l', 'late');
SELECT total, pending, claimed, sent, open_batches FROM sagaz.get_outbox_statistics('late');
SELECT sagaz.finish_batch(max(batch_id), 'l') FROM sagaz.outbox_batch WHERE worker_id = 'l';
SELECT total, pending, claimed, sent, open_batches FROM sagaz.get_outbox_statistics('late');
SELECT event_type, status FROM sagaz.get_events_by_saga('a', 'late');
-- also when retention has removed the row that says where the group began
SELECT count(sagaz.insert_event('lane of ' || n, 'lanes', '1')), count(DISTINCT sagaz_internal.lane('lane of ' || n)) AS lanes
	FROM generate_series(1, 20) n;
SELECT count(*), max(batch_id) AS b FROM sagaz.claim_batch('l', consumer_group => 'late') \gset
SELECT sagaz.finish_batch(:b, 'l');
DELETE FROM sagaz.outbox_batch WHERE last_seq = 9223372036854775807;
SELECT total, pending, claimed, sent, open_batches FROM sagaz.get_outbox_statistics('late');
SELECT event_type, status FROM sagaz.get_events_by_saga('a', 'late');

-- ordered: what comes behind a waiting retry is held back, pending
SELECT sagaz.create_consumer_group('ordered', 'saga', 'now');
SELECT pg_temp.emit('o', '{o1,o2}');
SELECT event_type FROM sagaz.claim_batch('w', 1, consumer_group => 'ordered');
SELECT sagaz.mark_failed(pg_temp.ids('{o1}'), 'w', 'x', 'ordered');
SELECT count(*) FROM sagaz.claim_batch('w', 1, consumer_group => 'ordered');
SELECT event_type, status, retry_count FROM sagaz.get_events_by_saga('o', 'ordered');
SELECT pending, failed FROM sagaz.get_outbox_statistics('ordered');
SELECT pg_temp.due();
SELECT event_type FROM sagaz.claim_batch('w', consumer_group => 'ordered');
SELECT event_type, status FROM sagaz.get_events_by_saga('o', 'ordered');
SELECT pg_temp.agree();

-- conditions on the status, however they are put
SELECT count(*) = (SELECT count(*) FROM sagaz.outbox_events e WHERE e.status::text = 'sent') AS same
	FROM sagaz.outbox_events WHERE status = 'sent';
SELECT status, count(*) > 0 AS some FROM sagaz.outbox_events WHERE status <> 'sent' AND status < 'failed' GROUP BY 1 ORDER BY 1;
SELECT DISTINCT status FROM sagaz.outbox_events WHERE status IN ('failed', 'claimed') ORDER BY 1;
SELECT count(*) FROM sagaz.outbox_events WHERE status = 'sent' AND status = 'pending';
SELECT count(*) FROM sagaz.outbox_events WHERE status IS NULL;
SET plan_cache_mode = force_generic_plan;
PREPARE by_status(sagaz.event_status, text) AS
	SELECT event_type FROM sagaz.outbox_events WHERE status = $1 AND saga_id = $2 ORDER BY created_at, event_type LIMIT 2;
EXECUTE by_status('sent', 'a');
EXECUTE by_status('pending', 'g');
EXECUTE by_status(NULL, 'g');
PREPARE by_ids(uuid[]) AS SELECT event_type FROM sagaz.outbox_events WHERE event_id = ANY ($1) ORDER BY 1;
SELECT pg_temp.ids('{n1,n2}') AS ids, (pg_temp.ids('{n1,n2}'))[1] AS id \gset
EXECUTE by_ids(:'ids'::uuid[] || :'ids'::uuid[] || NULL::uuid);
EXECUTE by_ids('{}');
EXECUTE by_ids(NULL);

-- the ways are taken, whatever the planner knows of the log
EXPLAIN (COSTS OFF) SELECT * FROM sagaz.outbox_events WHERE event_id = '00000000-0000-0000-0000-000000000001';
EXPLAIN (COSTS OFF) SELECT * FROM sagaz.outbox_events WHERE saga_id = 'a' AND status = 'sent';
EXPLAIN (COSTS OFF) SELECT * FROM sagaz.outbox_events WHERE status = 'pending' LIMIT 100;

-- a cursor keeps its snapshot
BEGIN;
DECLARE c CURSOR FOR SELECT count(*) FROM sagaz.outbox_events WHERE saga_id = 'cursor';
SELECT pg_temp.emit('cursor', '{c1}');
FETCH c;
CLOSE c;
ROLLBACK;

-- of a log larger than 32 MB only what is under way is counted
SELECT count(*) AS before FROM sagaz.outbox \gset
SELECT pending AS pending_before FROM sagaz.get_outbox_statistics() \gset
INSERT INTO sagaz.emit (saga_id, event_type, payload)
	SELECT 'large', 'Large', to_jsonb(repeat('x', 1800)) FROM generate_series(1, 20000);
VACUUM sagaz.outbox;
SELECT estimated, pending - :pending_before AS pending,
	abs(total - 20000 - :before) < 1000 AS about_right FROM sagaz.get_outbox_statistics();

-- bad input
\set VERBOSITY sqlstate
SELECT sagaz.get_event(NULL);
SELECT count(*) FROM sagaz.get_event(:'id', NULL);
SELECT sagaz.get_event(:'id', 'nobody');
SELECT sagaz.get_event(:'id', storage => 'redis');
SELECT sagaz.get_events_by_saga('');
SELECT sagaz.get_stuck_events('-1 s');
SELECT sagaz.get_dead_letter_events(-1);
SELECT sagaz.get_dead_letter_events(NULL);
SELECT sagaz.get_pending_count('nobody');
SELECT sagaz.get_outbox_statistics('');
INSERT INTO sagaz.outbox_events (saga_id) VALUES ('x');

-- in the leader of a parallel query
SELECT set_config(name, 'on', false) FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query');
SELECT count(*) FROM sagaz.outbox_events WHERE status = 'dead_letter';
SELECT sagaz.get_pending_count('nobody');
