-- The lease of a batch: finish, release, extend, and single events of it.
CREATE FUNCTION pg_temp.try(command text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE command;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	RETURN sqlstate || ': ' || regexp_replace(sqlerrm, '[0-9a-f]{8}-[-0-9a-f]{27}', 'ID', 'g');
END $$;
CREATE FUNCTION pg_temp.insert(names text[]) RETURNS bigint LANGUAGE sql AS
	$$ SELECT count(sagaz.insert_event('a', name, '1')) FROM unnest(names) name $$;
CREATE FUNCTION pg_temp.ids(names text[]) RETURNS uuid[] LANGUAGE sql AS
	$$ SELECT array(SELECT event_id FROM sagaz.outbox WHERE event_type = ANY (names) ORDER BY seq) $$;

-- finish: once, by the worker that holds it
SELECT pg_temp.insert('{a1,a2,a3}');
SELECT count(*) FROM sagaz.claim_batch('w');
SELECT batch_id AS b FROM sagaz.outbox_batch \gset
SELECT pg_temp.try(format('SELECT sagaz.finish_batch(%s, %L)', :b, 'other'));
SELECT sagaz.finish_batch(:b, 'w');
SELECT pg_temp.try(format('SELECT sagaz.finish_batch(%s, %L)', :b, 'w'));
SELECT pg_temp.try(format('SELECT sagaz.release_batch(%s, %L)', :b, 'w'));
SELECT pg_temp.try(format('SELECT sagaz.extend_batch(%s, %L, %L)', :b, 'w', '1 minute'));
SELECT kind, events FROM sagaz.outbox_receipt;

-- release: with a reason, now or later; what was released counts no retry
SELECT pg_temp.insert('{b1,b2}');
SELECT max(batch_id) AS b FROM sagaz.claim_batch('w') \gset
SELECT sagaz.release_batch(:b, 'w', 'target is down', '1 hour');
SELECT kind, events, note, until - at AS delay FROM sagaz.outbox_receipt WHERE batch_id = :b;
SELECT count(*) FROM sagaz.claim_batch('w');
UPDATE sagaz.outbox_receipt SET until = at WHERE batch_id = :b;
SELECT event_type, retry_count, last_error FROM sagaz.claim_batch('w');
SELECT max(batch_id) AS b FROM sagaz.outbox_batch \gset
SELECT sagaz.release_batch(:b, 'w');
-- a part of it: the rest stays to be handed out
SELECT event_type FROM sagaz.claim_batch('w', 1);
SELECT event_type FROM sagaz.claim_batch('v', 1);
SELECT count(*) FROM sagaz.claim_batch('w');
SELECT sagaz.finish_batch(batch_id, worker_id) FROM sagaz.outbox_batch WHERE batch_id > :b ORDER BY batch_id;

-- extend: from now on, never shorter than it was
SELECT pg_temp.insert('{c1}');
SELECT max(batch_id) AS b FROM sagaz.claim_batch('w') \gset
SELECT sagaz.extend_batch(:b, 'w', '1 hour') - now() > '59 minutes' AS longer;
SELECT sagaz.extend_batch(:b, 'w', '0') - now() > '59 minutes' AS not_shorter;
SELECT sagaz.finish_batch(:b, 'w');

-- a lease that has run out is taken over, in halves
SELECT pg_temp.insert('{d1,d2}');
SELECT max(batch_id) AS b FROM sagaz.claim_batch('w') \gset
SELECT count(*) FROM sagaz.claim_batch('thief');
UPDATE sagaz.outbox_batch SET claimed_at = claimed_at - interval '1 hour' WHERE batch_id = :b;
SELECT event_type, worker_id, retry_count FROM sagaz.claim_batch('thief');
SELECT kind, note FROM sagaz.outbox_receipt WHERE batch_id = :b;
SELECT pg_temp.try(format('SELECT sagaz.finish_batch(%s, %L)', :b, 'w'));
SELECT root = :b AS again FROM sagaz.outbox_batch ORDER BY batch_id DESC LIMIT 1;
SELECT sagaz.finish_batch(max(batch_id), 'thief') FROM sagaz.outbox_batch;
SELECT sagaz.finish_batch(max(batch_id), 'thief') FROM sagaz.claim_batch('thief');

-- mark_sent: single events; with the last of them the batch is finished
SELECT pg_temp.insert('{e1,e2,e3}');
SELECT max(batch_id) AS b FROM sagaz.claim_batch('w') \gset
SELECT sagaz.mark_sent(pg_temp.ids('{e2}'), 'w');
SELECT pg_temp.try($$SELECT sagaz.mark_sent(pg_temp.ids('{e2}'), 'w')$$);
SELECT pg_temp.try($$SELECT sagaz.mark_failed(pg_temp.ids('{e2}'), 'w', 'no')$$);
-- all or nothing
SELECT pg_temp.try($$SELECT sagaz.mark_sent(pg_temp.ids('{e1,e2}'), 'w')$$);
SELECT pg_temp.try($$SELECT sagaz.mark_sent(pg_temp.ids('{e1}'), 'other')$$);
SELECT kind, events FROM sagaz.outbox_receipt WHERE batch_id = :b ORDER BY kind;
-- what is finished is not released
SELECT sagaz.release_batch(:b, 'w');
SELECT event_type FROM sagaz.claim_batch('w');
SELECT sagaz.mark_sent(pg_temp.ids('{e1}') || pg_temp.ids('{e1}'), 'w');
SELECT sagaz.mark_sent(pg_temp.ids('{e3}'), 'w');
SELECT max(batch_id) AS b FROM sagaz.outbox_batch \gset
SELECT kind FROM sagaz.outbox_receipt WHERE batch_id = :b ORDER BY kind;
SELECT pg_temp.try(format('SELECT sagaz.finish_batch(%s, %L)', :b, 'w'));
SELECT count(*) FROM sagaz.claim_batch('w');
-- events of several batches at once
SELECT pg_temp.insert('{f1,f2,f3,f4}');
SELECT count(*) FROM sagaz.claim_batch('w', 2);
SELECT count(*) FROM sagaz.claim_batch('w', 2);
SELECT sagaz.mark_sent(pg_temp.ids('{f3,f1}'), 'w');
SELECT sagaz.mark_sent(pg_temp.ids('{f2,f4}'), 'w');
-- one that is not out
SELECT pg_temp.insert('{g1}');
SELECT pg_temp.try($$SELECT sagaz.mark_sent(pg_temp.ids('{g1}'), 'w')$$);
SELECT count(*) FROM sagaz.claim_batch('w');

-- a claim in a transaction that rolls back never happened
SELECT pg_temp.insert('{h1}');
BEGIN;
SELECT event_type FROM sagaz.claim_batch('w');
ROLLBACK;
SELECT event_type FROM sagaz.claim_batch('w');
-- neither did the finish
BEGIN;
SELECT sagaz.finish_batch(max(batch_id), 'w') FROM sagaz.outbox_batch;
ROLLBACK;
SELECT sagaz.finish_batch(max(batch_id), 'w') FROM sagaz.outbox_batch;

-- bad input
SELECT pg_temp.try(command) FROM unnest(ARRAY[
	$$SELECT sagaz.finish_batch(NULL, 'w')$$,
	$$SELECT sagaz.finish_batch(0, 'w')$$,
	$$SELECT sagaz.finish_batch(-1, 'w')$$,
	$$SELECT sagaz.finish_batch(1, NULL)$$,
	$$SELECT sagaz.finish_batch(1, '')$$,
	$$SELECT sagaz.finish_batch(99999 * 1024 + 1, 'w')$$,
	$$SELECT sagaz.finish_batch(9223372036854775807, 'w')$$,
	$$SELECT sagaz.finish_batch(1, 'w', 'elsewhere')$$,
	$$SELECT sagaz.release_batch(NULL, 'w')$$,
	$$SELECT sagaz.release_batch(1025, 'w', NULL, '-1 second')$$,
	$$SELECT sagaz.release_batch(1025, 'w', NULL, NULL)$$,
	$$SELECT sagaz.extend_batch(1025, 'w', '-1 second')$$,
	$$SELECT sagaz.extend_batch(1025, 'w', NULL)$$,
	$$SELECT sagaz.mark_sent(NULL, 'w')$$,
	$$SELECT sagaz.mark_sent('{NULL}', 'w')$$,
	$$SELECT sagaz.mark_sent('{11111111-1111-7111-8111-111111111111}', 'w')$$,
	$$SELECT sagaz.mark_sent('{}', NULL)$$,
	$$SELECT sagaz.mark_sent('{}', 'w', 'nobody')$$,
	$$SELECT sagaz.mark_failed(NULL, 'w', 'x')$$,
	$$SELECT sagaz.mark_failed('{}', '', 'x')$$]) command;
SELECT sagaz.mark_sent('{}', 'w');
