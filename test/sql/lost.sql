-- Workers that vanish: what a lost batch had goes out again in halves until the
-- event that kills stands alone, and is a dead letter in the end.
-- the last lease of a worker has run out
CREATE FUNCTION pg_temp.expire(worker text) RETURNS void LANGUAGE sql AS $$
	UPDATE sagaz.outbox_batch SET claimed_at = claimed_at - interval '1 hour'
		WHERE worker_id = worker AND batch_id = (SELECT max(batch_id) FROM sagaz.outbox_batch WHERE worker_id = worker) $$;
-- A worker that dies of events of type "kill", and finishes what is without,
-- until there is nothing.  What each claim had, and how it ended.
CREATE FUNCTION pg_temp.work(consumer_group text) RETURNS TABLE (events text, ended text) LANGUAGE plpgsql AS $$
DECLARE
	batch bigint;
BEGIN
	FOR turn IN 1 .. 100 LOOP
		SELECT string_agg(event_type, ' ' ORDER BY event_type), max(batch_id) INTO events, batch
			FROM sagaz.claim_batch('w', 8, consumer_group => work.consumer_group);
		EXIT WHEN events IS NULL;
		IF events ~ 'kill' THEN
			PERFORM pg_temp.expire('w');
			ended := 'lost';
		ELSE
			PERFORM sagaz.finish_batch(batch, 'w');
			ended := 'finished';
		END IF;
		RETURN NEXT;
	END LOOP;
END $$;
CREATE VIEW pg_temp.dead AS SELECT event_type, retry_count, worker_id, last_error FROM sagaz.outbox_events
	WHERE status = 'dead_letter';

-- one saga, so one lane: halves, and nothing beside them; what is new waits
SELECT count(sagaz.insert_event('a', CASE n WHEN 6 THEN 'kill' ELSE 'g' || n END, '1')) FROM generate_series(1, 8) n;
SELECT count(*) FROM sagaz.claim_batch('w', 8);
SELECT pg_temp.expire('w');
SELECT sagaz.insert_event('a', 'later', '1') IS NULL AS no;
SELECT events, ended, count(*) FROM pg_temp.work('sagaz-workers') WITH ORDINALITY w (events, ended, n)
	GROUP BY 1, 2 ORDER BY min(n);
SELECT * FROM pg_temp.dead;
-- the limit is stored, and what else it may be is
SELECT count(*) FROM sagaz.claim_batch('w');
SELECT count(sagaz.insert_event('a', 'h' || n, '1')) FROM generate_series(1, 4) n;
SELECT count(*) FROM sagaz.claim_batch('w');
SELECT pg_temp.expire('w');
SELECT event_type FROM sagaz.claim_batch('w');
SELECT get_byte(owed, 0) AS version, get_byte(owed, length(owed) - 1) AS "limit"
	FROM sagaz.outbox_batch WHERE batch_id % 1024 = 1 ORDER BY claimed_at DESC LIMIT 1;
SELECT regexp_replace(reason, 'at 20[-0-9T:.+]*', 'at TIME', 'g') AS reason FROM sagaz.outbox,
	sagaz.explain_event(event_id) WHERE event_type IN ('h1', 'h4') ORDER BY seq;
-- a worker that gives it back is well
SELECT sagaz.release_batch(max(batch_id), 'w') FROM sagaz.outbox_batch;
SELECT string_agg(event_type, ' ') FROM sagaz.claim_batch('w', 8);
SELECT string_agg(event_type, ' ') FROM sagaz.claim_batch('w', 8);
SELECT count(*) FROM sagaz.claim_batch('w', 8);
SELECT sum(sagaz.finish_batch(batch_id, 'w')) FROM (SELECT batch_id FROM sagaz.outbox_batch ORDER BY batch_id DESC LIMIT 2) b;

-- several lanes in one batch
SELECT count(sagaz.insert_event('s' || n, CASE n WHEN 5 THEN 'kill' ELSE 'g' || n END, '1')) FROM generate_series(1, 8) n;
SELECT ended, count(*) FROM pg_temp.work('sagaz-workers') GROUP BY 1 ORDER BY 1;
SELECT count(*) FROM pg_temp.dead;
SELECT status, count(*) FROM sagaz.outbox_events GROUP BY 1 ORDER BY 1;

-- an ordered group: what follows in the saga waits until the event is dead
SELECT sagaz.create_consumer_group('o', 'saga', 'now');
SELECT count(sagaz.insert_event('s', CASE n WHEN 2 THEN 'kill' ELSE 'o' || n END, '1')) FROM generate_series(1, 4) n;
SELECT events, ended, count(*) FROM pg_temp.work('o') WITH ORDINALITY w (events, ended, n)
	GROUP BY 1, 2 ORDER BY min(n);
SELECT event_type, status, retry_count FROM sagaz.get_dead_letter_events(consumer_group => 'o');

-- retries that were out in a lost batch, also when an operator ends the lease
SELECT sagaz.create_consumer_group('r', start_from => 'now');
SELECT count(sagaz.insert_event('s', 'r' || n, '1')) FROM generate_series(1, 4) n;
SELECT sagaz.mark_failed(array_agg(event_id), 'w', 'no', 'r') FROM sagaz.claim_batch('w', consumer_group => 'r');
UPDATE sagaz.outbox_retry SET next_attempt_at = now() WHERE state = 1 AND last_error = 'no';
SELECT count(*) FROM sagaz.claim_batch('w', consumer_group => 'r');
SELECT sagaz.release_stuck_events('0', 'r');
SELECT seq - min(seq) OVER () AS n, state, retry_count, batch_limit FROM sagaz.outbox_retry
	WHERE event_type ~ '^r' ORDER BY seq;
SELECT count(sagaz.insert_event('s', 'new', '1'));
SELECT string_agg(event_type, ' ') FROM sagaz.claim_batch('w', 8, consumer_group => 'r');
SELECT sagaz.release_stuck_events('0', 'r');
SELECT string_agg(event_type, ' ') FROM sagaz.claim_batch('v', 8, consumer_group => 'r');
SELECT sagaz.finish_batch(max(batch_id), 'v') FROM sagaz.outbox_batch;
SELECT string_agg(event_type, ' ') FROM sagaz.claim_batch('v', 8, consumer_group => 'r');
SELECT sagaz.release_stuck_events('0', 'r');
SELECT event_type, status, retry_count, last_error FROM sagaz.outbox o, LATERAL
	(SELECT status, retry_count, last_error FROM sagaz.explain_event(o.event_id) WHERE consumer_group = 'r') x
	WHERE event_type ~ '^r' ORDER BY seq;
SELECT regexp_replace(reason, 'at 20[-0-9T:.+]*', 'at TIME', 'g') AS reason FROM sagaz.outbox,
	sagaz.explain_event(event_id) WHERE event_type IN ('r1', 'r2') AND consumer_group = 'r' ORDER BY seq;

-- what was still owed is written down, as retention may remove the batch's rows
SELECT sagaz.create_consumer_group('p', start_from => 'now');
SELECT count(sagaz.insert_event('p' || n % 3, 'p' || n, '1')) FROM generate_series(1, 8) n;
SELECT count(*) FROM sagaz.claim_batch('w', 8, consumer_group => 'p');
SELECT sagaz.mark_sent(array_agg(event_id), 'w', 'p') FROM sagaz.outbox WHERE event_type IN ('p1', 'p2', 'p5');
SELECT sagaz.release_stuck_events('0', 'p');
SELECT r.kind, r.events FROM sagaz.outbox_receipt r
	WHERE batch_id = (SELECT max(batch_id) FROM sagaz.outbox_batch) ORDER BY kind;

-- the lowest limit counts, also of a retry that is due later than others
SELECT sagaz.create_consumer_group('l', start_from => 'now');
CREATE FUNCTION pg_temp.due(now_due text) RETURNS void LANGUAGE sql AS $$
	UPDATE sagaz.outbox_retry SET next_attempt_at = CASE WHEN event_type ~ now_due THEN now() - interval '1 s' * (event_type <> 'K')::int
		ELSE now() + interval '1 hour' END WHERE state = 1 $$;
SELECT count(sagaz.insert_event('l', CASE n WHEN 9 THEN 'K' ELSE 'l' || n END, '1')) FROM generate_series(1, 9) n;
SELECT count(sagaz.mark_failed(ARRAY[event_id], 'w', 'no', 'l')) FROM sagaz.claim_batch('w', 9, consumer_group => 'l');
SELECT pg_temp.due('^l');
SELECT count(*) FROM sagaz.claim_batch('w', 9, consumer_group => 'l');
SELECT sagaz.release_stuck_events('0', 'l');
SELECT pg_temp.due('K');
SELECT count(*) FROM sagaz.claim_batch('w', 9, consumer_group => 'l');
SELECT sagaz.release_stuck_events('0', 'l');
SELECT pg_temp.due('K|l[678]');
SELECT string_agg(event_type, ' ' ORDER BY event_type) FROM sagaz.claim_batch('w', 9, consumer_group => 'l');
SELECT sagaz.release_stuck_events('0', 'l');
SELECT event_type, retry_count, batch_limit FROM sagaz.outbox_retry WHERE event_type ~ '^K|^l[1678]$' ORDER BY 1;

-- many that were alone, of which one claim fails no more than a thousand
SELECT sagaz.create_consumer_group('m', start_from => 'now');
SELECT count(sagaz.insert_event('m', 'm', '1')) FROM generate_series(1, 1001);
DO $$ BEGIN FOR i IN 1 .. 1001 LOOP PERFORM FROM sagaz.claim_batch('w', 1, consumer_group => 'm'); END LOOP; END $$;
SELECT sagaz.release_stuck_events('0', 'm');
SELECT count(*) FROM sagaz.claim_batch('w', 1, consumer_group => 'm');
SELECT retry_count, state, count(*) FROM sagaz.outbox_retry WHERE event_type = 'm' GROUP BY 1, 2 ORDER BY 1, 2;
