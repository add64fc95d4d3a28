-- The events of a saga in a log of many pages, whether vacuum has seen them or not.
ALTER TABLE sagaz.outbox SET (fillfactor = 10, autovacuum_enabled = off);
INSERT INTO sagaz.emit (saga_id, event_type, payload)
	SELECT 'saga ' || n % 5000, 'n' || n, to_jsonb(repeat('x', 150)) FROM generate_series(1, 25000) n;
SELECT pg_relation_size('sagaz.outbox') / 8192 > 8192 AS many_pages;
-- what differs between the events of 50 sagas as the view finds them and as they are
CREATE FUNCTION pg_temp.differences() RETURNS bigint LANGUAGE sql AS $$
	WITH sagas AS (SELECT DISTINCT 'saga ' || n * 97 AS saga_id FROM generate_series(0, 49) n),
		seen AS (SELECT e.saga_id, e.event_type FROM sagas s,
			LATERAL (SELECT * FROM sagaz.outbox_events WHERE saga_id = s.saga_id OFFSET 0) e),
		there AS (SELECT saga_id, event_type FROM sagaz.outbox WHERE saga_id IN (SELECT saga_id FROM sagas))
	SELECT (SELECT count(*) FROM there) - 250
		+ count(*) FROM ((TABLE seen EXCEPT ALL TABLE there) UNION ALL (TABLE there EXCEPT ALL TABLE seen)) d
$$;
SELECT pg_temp.differences();
SELECT event_type FROM sagaz.get_events_by_saga('saga 4321');
VACUUM sagaz.outbox;
SELECT pg_temp.differences();
SELECT event_type FROM sagaz.get_events_by_saga('saga 4321');
-- some pages summarized, some not; space used again, so that places and pages differ in order
DELETE FROM sagaz.outbox WHERE seq BETWEEN 5001 AND 10000;
VACUUM sagaz.outbox;
SELECT sagaz.insert_event('saga 4321', 'again' || n, '1') IS NOT NULL AS inserted FROM generate_series(1, 2) n;
SELECT event_type FROM sagaz.get_events_by_saga('saga 4321');
SELECT count(*) FROM sagaz.get_events_by_saga('no such saga');
