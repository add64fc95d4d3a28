-- What the property test knows of the events, beside the engine: each saga
-- has a counter, raised under its row lock, so the events of a saga bear the
-- numbers 1, 2, 3 … in causal order, and an aborted transaction leaves no gap.

CREATE SCHEMA load;

CREATE TABLE load.saga (saga_id text PRIMARY KEY, n integer NOT NULL DEFAULT 0)
	WITH (fillfactor = 20);
INSERT INTO load.saga (saga_id)
	SELECT 's' || g FROM generate_series(1, 20) AS g
	UNION ALL VALUES ('long'), ('bulk'), ('later');
CREATE TABLE load.noise (x integer);

-- What committed.
CREATE TABLE load.truth (event_id uuid, saga_id text, n integer);

-- The order of effects.
CREATE SEQUENCE load.clock;

-- Effects in the transaction of claim and finish.
CREATE TABLE load.once (
	h bigint DEFAULT nextval('load.clock'),
	consumer_group text, event_id uuid, saga_id text, n integer,
	at timestamptz DEFAULT clock_timestamp());

-- What was handed out, effects, and what the worker said of the batch, each
-- in a transaction of its own.  'at' is always read before the engine is told.
CREATE TABLE load.lease (
	consumer_group text, batch_id bigint, place bigint, worker text,
	event_id uuid, saga_id text, n integer, claimed_at timestamptz);
CREATE INDEX ON load.lease (batch_id);
CREATE TABLE load.effect (
	h bigint DEFAULT nextval('load.clock'),
	batch_id bigint, event_id uuid, saga_id text, n integer,
	outcome text CHECK (outcome IN ('done', 'sent', 'failed', 'held')),
	at timestamptz DEFAULT clock_timestamp());
CREATE INDEX ON load.effect (batch_id);
CREATE TABLE load.said (
	batch_id bigint,
	what text CHECK (what IN ('extended', 'released', 'finished')),
	until timestamptz);
CREATE INDEX ON load.said (batch_id);

-- The next events of a saga, and the truth about them.
CREATE FUNCTION load.emit(of_saga text, count integer) RETURNS void
	LANGUAGE sql AS $$
	WITH counter AS (
		UPDATE load.saga SET n = n + count WHERE saga_id = of_saga RETURNING n),
	event AS (
		INSERT INTO sagaz.emit (saga_id, event_type, payload)
		SELECT of_saga, 'test', to_jsonb(number)
		FROM counter, generate_series(n - count + 1, n) AS number
		RETURNING event_id, payload)
	INSERT INTO load.truth SELECT event_id, of_saga, payload::integer FROM event
$$;

-- Claim, act, maybe emit a follow-up event and claim again, and finish: each
-- batch at once, or all of them in the end.  No event follows in sagas whose
-- writers take seconds, for the claimer holds its lanes while it waits.
CREATE FUNCTION load.handle_once(consumer_group text, size integer,
		patient boolean, follow_up boolean, again boolean)
	RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
	worker text := 'worker ' || pg_backend_pid();
	at_once boolean := size % 2 = 0;
	batches bigint[] := '{}';
	batch bigint;
	got integer;
	total integer := 0;
	finished integer := 0;
	saga text;
BEGIN
	FOR round IN 1 .. 1 + again::integer LOOP
		WITH claimed AS MATERIALIZED (
			SELECT * FROM sagaz.claim_batch(worker, size,
				CASE WHEN patient THEN interval '50 ms' ELSE '0' END,
				handle_once.consumer_group)),
		acted AS (
			INSERT INTO load.once (consumer_group, event_id, saga_id, n)
			SELECT c.consumer_group, c.event_id, c.saga_id, c.payload::integer
			FROM claimed AS c)
		SELECT max(batch_id), count(*),
				max(saga_id) FILTER (WHERE saga_id NOT IN ('long', 'bulk', 'later'))
			INTO batch, got, saga FROM claimed;
		CONTINUE WHEN got = 0;
		total := total + got;
		batches := batches || batch;
		IF follow_up AND round = 1 AND saga IS NOT NULL THEN
			PERFORM load.emit(saga, 1);
		END IF;
		IF at_once THEN
			finished := finished + sagaz.finish_batch(batch, worker);
		END IF;
	END LOOP;
	IF NOT at_once THEN
		finished := coalesce(sum(sagaz.finish_batch(b, worker)), 0)
			FROM unnest(batches) AS b;
	END IF;
	IF finished <> total THEN
		RAISE 'claimed % events, finished %', total, finished;
	END IF;
	RETURN total;
END
$$;

-- Claim a batch and note what was in it; 0 if there was nothing.
CREATE FUNCTION load.take(consumer_group text, size integer, patient boolean)
	RETURNS bigint LANGUAGE sql AS $$
	WITH taken AS (
		INSERT INTO load.lease
		SELECT c.consumer_group, batch_id, place, worker_id, event_id, saga_id,
			payload::integer, claimed_at
		FROM sagaz.claim_batch('worker ' || pg_backend_pid(), size,
			CASE WHEN patient THEN interval '50 ms' ELSE '0' END,
			consumer_group) WITH ORDINALITY AS c (event_id, saga_id,
			aggregate_type, aggregate_id, event_type, payload, headers, status,
			created_at, claimed_at, sent_at, retry_count, last_error,
			worker_id, routing_key, partition_key, batch_id, consumer_group,
			place)
		RETURNING batch_id)
	SELECT coalesce(max(batch_id), 0) FROM taken
$$;

-- Beat a lost lease by an error, so that what the worker does is fenced.
CREATE FUNCTION load.extend(batch bigint) RETURNS void
	LANGUAGE sql AS $$
	INSERT INTO load.said
	SELECT batch, 'extended', sagaz.extend_batch(batch, worker, '500 ms')
	FROM (SELECT DISTINCT worker FROM load.lease WHERE batch_id = batch) AS l
$$;

CREATE FUNCTION load.finish(batch bigint) RETURNS void
	LANGUAGE plpgsql AS $$
BEGIN
	PERFORM sagaz.finish_batch(batch, worker)
		FROM (SELECT DISTINCT worker FROM load.lease WHERE batch_id = batch) AS l;
	INSERT INTO load.said VALUES (batch, 'finished', NULL);
END
$$;

-- Act on the first events of a batch in their order.
CREATE FUNCTION load.act(batch bigint, count integer, outcome text)
	RETURNS void LANGUAGE sql AS $$
	INSERT INTO load.effect (batch_id, event_id, saga_id, n, outcome)
	SELECT batch_id, event_id, saga_id, n, outcome
	FROM (SELECT * FROM load.lease WHERE batch_id = batch
		ORDER BY place LIMIT count) AS l
$$;

-- Some handlers fail.  In an ordered group the worker leaves alone what comes
-- behind a failure in the same saga.
CREATE FUNCTION load.fail_some(batch bigint, dice bigint) RETURNS void
	LANGUAGE plpgsql AS $$
DECLARE
	event load.lease;
	failed text[] := '{}';
	outcome text;
BEGIN
	FOR event IN SELECT * FROM load.lease WHERE batch_id = batch ORDER BY place LOOP
		outcome := CASE
			WHEN event.consumer_group LIKE '%saga' AND event.saga_id = ANY (failed) THEN 'held'
			WHEN abs(hashint8(dice + event.place)) % 6 = 0 THEN 'failed'
			ELSE 'done' END;
		INSERT INTO load.effect (batch_id, event_id, saga_id, n, outcome)
			VALUES (batch, event.event_id, event.saga_id, event.n, outcome);
		IF outcome = 'failed' THEN
			failed := failed || event.saga_id;
			PERFORM sagaz.mark_failed(ARRAY[event.event_id], event.worker,
				'no luck', event.consumer_group);
		END IF;
	END LOOP;
END
$$;

-- Do one thing with a batch; false if its lease was lost and nothing was done.
CREATE FUNCTION load.work(batch bigint, what text, dice bigint)
	RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	size integer := count(*) FROM load.lease WHERE batch_id = batch;
	part integer := dice % size;
	delay interval := dice % 3 * interval '100 ms';
	worker text := max(l.worker) FROM load.lease AS l WHERE batch_id = batch;
	g text := max(l.consumer_group) FROM load.lease AS l WHERE batch_id = batch;
	began timestamptz := clock_timestamp();
BEGIN
	CASE what
		WHEN 'finish' THEN
			PERFORM load.finish(batch);
			PERFORM load.act(batch, size, 'done');
		WHEN 'act' THEN
			PERFORM load.extend(batch);
			PERFORM load.act(batch, size, 'done');
		WHEN 'fail' THEN
			PERFORM load.extend(batch);
			PERFORM load.fail_some(batch, dice);
		WHEN 'finish rest' THEN
			IF EXISTS (SELECT FROM load.effect
				WHERE batch_id = batch AND outcome = 'done') THEN
				PERFORM load.finish(batch);
			END IF;
		WHEN 'release' THEN
			PERFORM load.extend(batch);
			PERFORM load.act(batch, part, 'sent');
			PERFORM sagaz.mark_sent(array_agg(event_id), worker, g)
				FROM (SELECT event_id FROM load.lease WHERE batch_id = batch
					ORDER BY place LIMIT part) AS l
				HAVING count(*) > 0;
			PERFORM sagaz.release_batch(batch, worker, 'target is down', delay);
			INSERT INTO load.said VALUES (batch, 'released', began + delay);
		WHEN 'send each' THEN
			PERFORM load.extend(batch);
			PERFORM load.act(batch, size, 'sent');
			PERFORM sagaz.mark_sent(ARRAY[event_id], worker, g)
				FROM (SELECT event_id FROM load.lease WHERE batch_id = batch
					ORDER BY place) AS l;
	END CASE;
	RETURN true;
EXCEPTION WHEN SQLSTATE 'SZ006' THEN
	RETURN false;
END
$$;
