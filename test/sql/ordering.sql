-- Groups with ordering 'saga'. Sagas a and e are in lane 0, so nothing but the
-- rules of the group keeps them apart.
SELECT sagaz.create_consumer_group('ordered', 'saga');
CREATE FUNCTION pg_temp.insert(names text[]) RETURNS bigint LANGUAGE sql AS
	$$ SELECT count(sagaz.insert_event(left(name, 1), name, '1')) FROM unnest(names) name $$;
CREATE FUNCTION pg_temp.ids(names text[]) RETURNS uuid[] LANGUAGE sql AS
	$$ SELECT array(SELECT event_id FROM sagaz.outbox WHERE event_type = ANY (names) ORDER BY seq) $$;
CREATE FUNCTION pg_temp.due() RETURNS void LANGUAGE sql AS
	$$ UPDATE sagaz.outbox_retry SET next_attempt_at = now() WHERE next_attempt_at IS NOT NULL $$;
CREATE FUNCTION pg_temp.claim(batch_size integer DEFAULT 100) RETURNS SETOF text LANGUAGE sql AS
	$$ SELECT event_type FROM sagaz.claim_batch('w', batch_size, '0', 'ordered') $$;
-- the next claim that gets something
CREATE FUNCTION pg_temp.claim_next() RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 3 LOOP
		RETURN QUERY SELECT pg_temp.claim();
		EXIT WHEN FOUND;
	END LOOP;
END $$;
CREATE FUNCTION pg_temp.finish() RETURNS integer LANGUAGE sql AS
	$$ SELECT sagaz.finish_batch(max(batch_id), 'w') FROM sagaz.outbox_batch $$;
CREATE FUNCTION pg_temp.release() RETURNS integer LANGUAGE sql AS
	$$ SELECT sagaz.release_batch(max(batch_id), 'w') FROM sagaz.outbox_batch $$;
CREATE FUNCTION pg_temp.fail(names text[]) RETURNS integer LANGUAGE sql AS
	$$ SELECT sagaz.mark_failed(pg_temp.ids(names), 'w', 'broken', 'ordered') $$;

-- one batch at a time
SELECT pg_temp.insert('{a1,e1,a2,e2}');
SELECT pg_temp.claim(2);
SELECT pg_temp.claim();
SELECT pg_temp.finish();
SELECT pg_temp.claim();
SELECT pg_temp.finish();

-- what was released comes back before anything else
SELECT pg_temp.insert('{a3,a4,e3}');
SELECT pg_temp.claim();
SELECT pg_temp.release();
SELECT pg_temp.insert('{a5}');
SELECT pg_temp.claim(1);
SELECT pg_temp.claim();
SELECT pg_temp.finish();
SELECT pg_temp.claim();
SELECT pg_temp.finish();
SELECT pg_temp.claim();
SELECT pg_temp.finish();

-- a failure takes the saga's later events out of the batch; the rest of it goes on
SELECT pg_temp.insert('{a6,a7,e4,a8}');
SELECT pg_temp.claim();
SELECT pg_temp.fail('{a7}');
SELECT event_type, state FROM sagaz.outbox_retry WHERE state IN (1, 2) ORDER BY seq;
SELECT pg_temp.finish();
SELECT pg_temp.insert('{a9,e5}');
SELECT pg_temp.claim();
SELECT pg_temp.finish();
SELECT pg_temp.due();
SELECT pg_temp.claim(2);
SELECT pg_temp.finish();
SELECT pg_temp.due();
SELECT pg_temp.claim();
SELECT pg_temp.finish();
SELECT count(*) FROM sagaz.outbox_retry WHERE state <> 5;

-- fails again and again, then is dead: those behind it go on, in order
SELECT pg_temp.insert('{a10,a11,a12}');
SELECT pg_temp.claim();
SELECT pg_temp.fail('{a10}');
DO $$ BEGIN
	FOR i IN 1 .. 9 LOOP
		PERFORM pg_temp.due();
		PERFORM pg_temp.claim(1);
		PERFORM pg_temp.fail('{a10}');
	END LOOP;
END $$;
SELECT event_type, state, retry_count FROM sagaz.outbox_retry WHERE state <> 5 ORDER BY seq;
SELECT pg_temp.due();
SELECT pg_temp.claim();
SELECT pg_temp.fail('{a10}');
SELECT event_type, state, retry_count FROM sagaz.outbox_retry WHERE state <> 5 ORDER BY seq;
SELECT pg_temp.claim();
SELECT pg_temp.finish();
SELECT event_type, state FROM sagaz.outbox_retry WHERE state <> 5 ORDER BY seq;

-- a requeued dead letter of a saga holds back what is left of a released
-- batch, and nothing newer overtakes what the lane still owes
SELECT pg_temp.insert('{a13,a14,e6}');
SELECT pg_temp.claim();
SELECT pg_temp.release();
SELECT pg_temp.claim(2);
SELECT pg_temp.insert('{e7}');
UPDATE sagaz.outbox_retry SET state = 1, next_attempt_at = now() + interval '1 hour' WHERE event_type = 'a10';
SELECT pg_temp.release();
SELECT pg_temp.claim_next();
SELECT pg_temp.finish();
SELECT pg_temp.due();
SELECT pg_temp.claim_next();
SELECT pg_temp.finish();
SELECT pg_temp.claim();
SELECT count(*) FROM sagaz.outbox_retry WHERE state <> 5;

-- older_than ends a claim also at what a released batch left
SELECT pg_temp.insert('{a15,e8}');
SELECT pg_temp.claim();
SELECT pg_temp.release();
SELECT count(*) FROM sagaz.claim_batch('w', 10, '1 hour', 'ordered');
SELECT pg_temp.insert('{e9}');
SELECT count(*) FROM sagaz.claim_batch('w', 10, '1 hour', 'ordered');
SELECT pg_temp.claim();
SELECT pg_temp.finish();
SELECT pg_temp.claim();
