-- How large the parts of an event may be is the same for every way in.
CREATE FUNCTION pg_temp.try(command text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE command;
	RETURN 'taken';
EXCEPTION WHEN others THEN
	RETURN SQLSTATE || ': ' || SQLERRM
		|| CASE WHEN SQLERRM LIKE 'record%' THEN (SELECT ' ' || pg_temp.detail(command)) ELSE '' END;
END
$$;
CREATE FUNCTION pg_temp.detail(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
BEGIN
	EXECUTE command;
EXCEPTION WHEN others THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN detail;
END
$$;
-- an event with one field as given, by each way
CREATE FUNCTION pg_temp.ways(field text, value jsonb) RETURNS TABLE (way text, became text) LANGUAGE plpgsql AS $$
DECLARE
	event jsonb := '{"saga_id": "s", "event_type": "t", "payload": 1}' || jsonb_build_object(field, value);
	whole jsonb := '{"aggregate_type": "a", "aggregate_id": "b", "headers": {}, "status": "pending", "retry_count": 0,
		"created_at": "2026-01-01T00:00:00+00:00"}'
		|| event || jsonb_build_object('event_id', gen_random_uuid());
	assigned text := (SELECT string_agg(format('%I => %L::%s', key, CASE WHEN t = 'jsonb' THEN (event->key)::text ELSE event->>key END, t), ', ')
		FROM jsonb_object_keys(event) key,
			LATERAL (SELECT CASE WHEN key IN ('payload', 'headers') THEN 'jsonb' WHEN key LIKE '%_at' THEN 'timestamptz' ELSE 'text' END) k(t));
BEGIN
	IF field <> 'created_at' THEN
		way := 'insert_event';
		became := pg_temp.try(format('SELECT sagaz.insert_event(%s)', assigned));
		RETURN NEXT;
		way := 'insert_events';
		became := pg_temp.try(format('SELECT sagaz.insert_events(%L)', jsonb_build_array(event)));
		RETURN NEXT;
	END IF;
	way := 'emit';
	became := pg_temp.try(format('INSERT INTO sagaz.emit (%s) SELECT %s FROM jsonb_populate_record(NULL::sagaz.outbox, %L)',
		(SELECT string_agg(quote_ident(key), ', ') FROM jsonb_object_keys(event) key),
		(SELECT string_agg(quote_ident(key), ', ') FROM jsonb_object_keys(event) key), event));
	RETURN NEXT;
	IF field <> 'available_at' THEN
		way := 'import_record';
		became := regexp_replace(pg_temp.try(format('SELECT sagaz.import_record(%L, %L)', whole, 'outbox')),
			'[0-9a-f]{8}-[0-9a-f-]{27}', 'ID', 'g');
		RETURN NEXT;
	END IF;
END
$$;

-- texts: as long as may be, and longer
SELECT field, way, became FROM unnest('{saga_id,event_type,aggregate_type,aggregate_id,routing_key,partition_key}'::text[])
	WITH ORDINALITY f(field, n), pg_temp.ways(field, to_jsonb(repeat('x', 2600))) WHERE became <> 'taken';
SELECT field, way, became FROM unnest('{saga_id,event_type,aggregate_type,aggregate_id,routing_key,partition_key}'::text[])
	WITH ORDINALITY f(field, n), pg_temp.ways(field, to_jsonb(repeat('x', 2599) || 'ä')) ORDER BY n, way;
-- times
SELECT field, value, way, became FROM unnest('{available_at,created_at}'::text[]) WITH ORDINALITY f(field, n),
	unnest('{infinity,-infinity,0044-03-15 BC,10000-01-01,9999-12-31T00:00:00Z,0001-01-02T00:00:00Z}'::text[])
	WITH ORDINALITY v(value, m), pg_temp.ways(field, to_jsonb(value)) ORDER BY n, m, way;
-- JSON, as text
SET sagaz.max_payload_size = '1MB';
SELECT field, name, way, became FROM unnest('{payload,headers}'::text[]) WITH ORDINALITY f(field, n),
	(VALUES (1, 'at the limit', jsonb_build_object('a', repeat('x', 1024 * 1024 - 9))),
		(2, 'a byte more', jsonb_build_object('a', repeat('x', 1024 * 1024 - 8))),
		(3, 'escapes', jsonb_build_object('a', repeat(E'\u0001', 180000))),
		(4, 'long numbers', jsonb_build_object('a', (SELECT jsonb_agg(1e130000::numeric) FROM generate_series(1, 9)))),
		(5, 'short numbers', jsonb_build_object('a', (SELECT jsonb_agg(i) FROM generate_series(1, 100000) i))))
	v(m, name, value), pg_temp.ways(field, value) ORDER BY n, m, way;
RESET sagaz.max_payload_size;
SHOW sagaz.max_payload_size;

-- the inbox keeps two of its fields in one key
SELECT pg_temp.try(format('SELECT sagaz.check_and_insert_inbox(%L, %L, %L, %L, %L)', f[1], f[2], f[3], f[4], '1'))
	FROM (SELECT ARRAY(SELECT repeat('x', CASE WHEN i = n THEN 1301 ELSE 1300 END) FROM generate_series(1, 4) i) f
		FROM generate_series(0, 4) n) g;

-- what came in goes through all that a claim and retention do with it
SELECT count(*) > 0 FROM sagaz.claim_batch('w', 1000);
SELECT sagaz.mark_failed(ARRAY(SELECT event_id FROM sagaz.get_stuck_events('0')), 'w', 'no') > 0;
SELECT count(*) > 0 FROM sagaz.export_all('outbox');

-- a batch has at most 64 MB and the event that passes them, so that it fits into an array
SELECT sagaz.create_consumer_group('large', start_from => 'now'), sagaz.create_consumer_group('large_ordered', ordering => 'saga', start_from => 'now');
SELECT count(sagaz.insert_event('large', 'T', to_jsonb(repeat('y', 12000000)))) FROM generate_series(1, 8);
SELECT count(*) FROM sagaz.claim_batch('w', 100, consumer_group => 'large');
SELECT count(*) FROM sagaz.claim_batch('w', 100, consumer_group => 'large');
SELECT count(*) FROM sagaz.claim_batch('w', 100, consumer_group => 'large_ordered');
SELECT count(sagaz.finish_batch(batch_id, 'w')) > 0 FROM (SELECT DISTINCT batch_id FROM sagaz.get_stuck_events('0', 'large_ordered')) b;
SELECT count(*) FROM sagaz.claim_batch('w', 100, consumer_group => 'large_ordered');
