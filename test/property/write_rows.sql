-- Several rows at once, with DEFAULT among the values, and the functions.
\set saga random(1, 20)
\set wait random(0, 15)
BEGIN;
UPDATE load.saga SET n = n + 5 WHERE saga_id = 's:saga' RETURNING n \gset
WITH event AS (
	INSERT INTO sagaz.emit (event_id, created_at, saga_id, event_type, payload, headers)
	VALUES (DEFAULT, DEFAULT, 's:saga', 'test', to_jsonb(:n - 4), DEFAULT),
		(sagaz.uuidv7(), DEFAULT, 's:saga', 'test', to_jsonb(:n - 3), '{}'),
		(DEFAULT, clock_timestamp(), 's:saga', 'test', to_jsonb(:n - 2), DEFAULT)
	RETURNING event_id, saga_id, payload)
INSERT INTO load.truth SELECT event_id, saga_id, payload::integer FROM event;
\sleep :wait ms
INSERT INTO load.truth
	SELECT sagaz.insert_event('s:saga', 'test', to_jsonb(:n - 1)), 's:saga', :n - 1;
INSERT INTO load.truth
	SELECT unnest(sagaz.insert_events('[{"saga_id": "s:saga", "event_type": "test", "payload": :n}]')), 's:saga', :n;
COMMIT;
