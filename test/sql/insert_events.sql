-- insert_event() and insert_events().
CREATE FUNCTION pg_temp.try(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	context text;
BEGIN
	EXECUTE command;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS context = PG_EXCEPTION_CONTEXT;
	RETURN sqlstate || ': ' || sqlerrm || coalesce(', ' || substring(context from 'element \d+ of events'), '');
END $$;

-- each argument goes where it belongs; what is left out gets its default
SELECT sagaz.insert_event('a', 'all', '{"n": 1}', 'order', 'order-1', '{"h": "x"}', 'route', 'part',
	'11111111-1111-7111-8111-111111111111', '2020-01-01 00:00:00+00');
CREATE TABLE few AS SELECT sagaz.insert_event('a', 'few', 'null') AS id;
SELECT id = event_id AS its_id FROM few, sagaz.emit WHERE event_type = 'few';
SELECT sagaz.insert_event('a', 'nulls', '1', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL) IS NOT NULL AS inserted;
SELECT sagaz.insert_events('[]');
SELECT cardinality(sagaz.insert_events('[
	{"saga_id": "a", "event_type": "list 1", "payload": {"deep": [1, {"x": null}]}, "aggregate_type": "order",
	 "aggregate_id": "order-2", "headers": {"h": 1}, "routing_key": "r", "partition_key": "p",
	 "event_id": "22222222-2222-7222-8222-222222222222", "available_at": "2020-01-01T00:00:00+00:00"},
	{"payload": null, "event_type": "list 2", "saga_id": "a"},
	{"payload": "text", "event_type": "list 3", "saga_id": "a", "aggregate_type": null, "aggregate_id": null,
	 "headers": null, "routing_key": null, "partition_key": null, "event_id": null, "available_at": null}]'));
SET TimeZone = 'UTC';
\x
SELECT saga_id, aggregate_type, aggregate_id, event_type, payload, headers, routing_key, partition_key, available_at
	FROM sagaz.outbox ORDER BY seq;
\x
-- the ids come in the order of the array
CREATE TABLE inserted AS SELECT sagaz.insert_events(jsonb_agg(jsonb_build_object('saga_id', 's' || n, 'event_type', 'y', 'payload', n) ORDER BY n)) AS ids
	FROM generate_series(1, 1000) n;
SELECT ids = array(SELECT event_id FROM sagaz.outbox WHERE event_type = 'y' ORDER BY payload::int) AS in_order FROM inserted;
SELECT array_agg(payload::int ORDER BY seq) = array_agg(payload::int ORDER BY payload::int) AS placed_in_order
	FROM sagaz.outbox WHERE event_type = 'y';
-- ids of ours are of version 7 and rise
SELECT bool_and(substring(event_id::text, 15, 1) = '7') AS version_7,
	count(*) FILTER (WHERE substring(event_id::text, 1, 18) < before) AS falling
	FROM (SELECT event_id, lag(substring(event_id::text, 1, 18)) OVER (ORDER BY seq) AS before FROM sagaz.outbox WHERE event_type = 'y') x;
-- the same lane and the same defaults as by an INSERT into the view
INSERT INTO sagaz.emit (saga_id, event_type, payload) SELECT saga_id, 'plain', payload FROM sagaz.emit WHERE event_type = 'y';
SELECT count(*) FROM sagaz.outbox a JOIN sagaz.outbox b USING (saga_id, lane, aggregate_type, headers)
	WHERE a.event_type = 'y' AND b.event_type = 'plain';

-- times without an offset are UTC, whatever TimeZone says
SET TimeZone = 'Asia/Tokyo';
SELECT cardinality(sagaz.insert_events('[{"saga_id": "a", "event_type": "tz", "payload": 1, "available_at": "2020-01-01T00:00:00"},
	{"saga_id": "a", "event_type": "tz", "payload": 1, "available_at": "2020-01-01T00:00:00+09:00"}]'));
SELECT available_at AT TIME ZONE 'UTC' FROM sagaz.outbox WHERE event_type = 'tz' ORDER BY seq;
RESET TimeZone;

-- bad input names the field and inserts nothing
SELECT count(*) AS before FROM sagaz.outbox \gset
SELECT pg_temp.try('SELECT sagaz.insert_event(' || arguments || ')') FROM unnest(ARRAY[
	$$NULL, 'x', '1'$$, $$'', 'x', '1'$$, $$'a', NULL, '1'$$, $$'a', '', '1'$$, $$'a', 'x', NULL$$,
	$$'a', 'x', '1', ''$$, $$'a', 'x', '1', headers => '[]'$$, $$'a', 'x', '1', headers => '1'$$,
	$$'a', 'x', '1', available_at => 'infinity'$$,
	$$'a', 'x', '1', event_id => '11111111-1111-7111-8111-111111111111'$$,
	$$'a', 'x', '1', storage => 'elsewhere'$$]) arguments;
SELECT pg_temp.try(format('SELECT sagaz.insert_events(%L)', events)) FROM unnest(ARRAY[
	NULL, '1', '{}', '"x"', '[1]', '[[]]', '[null]',
	'[{}]',
	'[{"saga_id": "a", "event_type": "x"}]',
	'[{"saga_id": "a", "event_type": "x", "payload": 1}, {"saga_id": "", "event_type": "x", "payload": 1}]',
	'[{"saga_id": 1, "event_type": "x", "payload": 1}]',
	'[{"saga_id": "a", "event_type": ["x"], "payload": 1}]',
	'[{"saga_id": "a", "event_type": "x", "payload": 1, "headers": []}]',
	'[{"saga_id": "a", "event_type": "x", "payload": 1, "event_id": "x"}]',
	'[{"saga_id": "a", "event_type": "x", "payload": 1, "event_id": "11111111-1111-7111-8111-111111111111"}]',
	'[{"saga_id": "a", "event_type": "x", "payload": 1, "available_at": "infinity"}]',
	'[{"saga_id": "a", "event_type": "x", "payload": 1, "available_at": "tomorrow"}]',
	'[{"saga_id": "a", "event_type": "x", "payload": 1, "available_at": "2020-13-01"}]',
	'[{"saga_id": "a", "event_type": "x", "payload": 1, "colour": "red"}]']) events;
SELECT count(*) - :before AS more FROM sagaz.outbox;
