-- A plain INSERT INTO sagaz.emit emits correctly, however it is written.
CREATE FUNCTION pg_temp.try(command text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE command;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	RETURN sqlstate || ': ' || sqlerrm;
END $$;

INSERT INTO sagaz.emit (saga_id, event_type, payload) VALUES ('a', 'single', '{"n": 1}')
	RETURNING saga_id, aggregate_type, aggregate_id, event_type, payload, headers, routing_key, partition_key,
		available_at, uuid_send(event_id) IS NOT NULL AS has_id, created_at <= clock_timestamp() AS has_time;

-- several rows, defaults spelled out, columns in any order
INSERT INTO sagaz.emit (payload, created_at, event_id, headers, event_type, saga_id) VALUES
	('1', DEFAULT, DEFAULT, DEFAULT, 'row 1', 'a'),
	('2', DEFAULT, '11111111-1111-7111-8111-111111111111', '{"k": "v"}', 'row 2', 'a'),
	('3', '2020-02-02 02:02:02+00', DEFAULT, DEFAULT, 'row 3', 'a');
INSERT INTO sagaz.emit (saga_id, event_type, payload, aggregate_type, aggregate_id, routing_key, partition_key)
	SELECT 'a', 'selected ' || n, to_jsonb(n), 'order', 'order-' || n, 'r', 'p' FROM generate_series(1, 3) n;
PREPARE emit (text, text, jsonb) AS INSERT INTO sagaz.emit (saga_id, event_type, payload) VALUES ($1, $2, $3) RETURNING event_type;
EXECUTE emit ('a', 'prepared 1', '1');
EXECUTE emit ('a', 'prepared 2', 'null');
WITH new AS (INSERT INTO sagaz.emit (saga_id, event_type, payload) VALUES ('a', 'with', '1') RETURNING event_type)
	SELECT * FROM new;
INSERT INTO sagaz.emit (saga_id, event_type, payload, event_id) VALUES
	('a', 'repeated', '1', '11111111-1111-7111-8111-111111111111') ON CONFLICT (event_id) DO NOTHING;

-- the transaction is the place's, the lane is the saga's, and the order that of the rows
SELECT count(*) FILTER (WHERE lane <> sagaz_internal.lane(saga_id)) AS wrong_lane,
	count(*) FILTER (WHERE pos::text::bigint <> xmin::text::bigint) AS wrong_pos FROM sagaz.outbox;
BEGIN;
SAVEPOINT s;
INSERT INTO sagaz.emit (saga_id, event_type, payload) VALUES ('a', 'in a savepoint', '1');
RELEASE s;
SELECT pos = pg_current_xact_id() AS of_the_top_transaction FROM sagaz.outbox WHERE event_type = 'in a savepoint';
COMMIT;
SELECT event_type, payload, aggregate_type, aggregate_id, headers FROM sagaz.claim_batch('w');

-- scheduled
INSERT INTO sagaz.emit (saga_id, event_type, payload, available_at) VALUES ('a', 'scheduled', '1', now() + interval '1 hour');
SELECT count(*) FROM sagaz.claim_batch('w');
SELECT event_type, state FROM sagaz.outbox_retry;

-- place and transaction cannot be chosen
SELECT attname FROM pg_attribute WHERE attrelid = 'sagaz.emit'::regclass AND attnum > 0 AND attname IN ('pos', 'seq', 'lane');

-- bad input
SELECT count(*) AS before FROM sagaz.outbox \gset
SELECT pg_temp.try('INSERT INTO sagaz.emit (saga_id, event_type, payload) VALUES ' || v) FROM unnest(ARRAY[
	$$(NULL, 'x', '1')$$, $$('', 'x', '1')$$, $$('a', NULL, '1')$$, $$('a', '', '1')$$,
	$$('a', 'x', NULL)$$, $$('a', 'x', '{')$$, $$('a', 'x', '1'), ('', 'y', '1')$$]) v;
SELECT pg_temp.try('INSERT INTO sagaz.emit (saga_id, event_type, payload, ' || v) FROM unnest(ARRAY[
	$$headers) VALUES ('a', 'x', '1', NULL)$$, $$aggregate_type) VALUES ('a', 'x', '1', NULL)$$,
	$$headers) VALUES ('a', 'x', '1', '[]')$$, $$aggregate_type) VALUES ('a', 'x', '1', '')$$,
	$$available_at) VALUES ('a', 'x', '1', 'infinity')$$,
	$$event_id) VALUES ('a', 'x', '1', '11111111-1111-7111-8111-111111111111')$$,
	$$seq) VALUES ('a', 'x', '1', 1)$$, $$pos) VALUES ('a', 'x', '1', '1')$$]) v;
SELECT pg_temp.try($$COPY sagaz.emit (saga_id, event_type, payload) FROM '/dev/null'$$);
SELECT count(*) - :before AS more FROM sagaz.outbox;
