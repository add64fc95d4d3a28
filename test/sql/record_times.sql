-- Times that are 0 as the server counts them are times like others.
SET timezone = 'UTC';

CREATE FUNCTION pg_temp.event(n integer, status text, more jsonb DEFAULT '{}') RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_build_array(jsonb_build_object('event_id', '00000000-0000-4000-8000-00000000000' || n, 'saga_id', 's',
		'event_type', 'E', 'payload', n, 'created_at', '2000-01-01T00:00:00Z', 'status', status) || more)
$$;

SELECT sagaz.import_records(pg_temp.event(n, 'pending'), 'outbox', 'replace', 'native') FROM generate_series(1, 3) AS n;
SELECT sagaz.import_records(pg_temp.event(1, 'claimed', '{"claimed_at": "2000-01-01T00:00:00Z"}'), 'outbox', 'replace', 'native');
SELECT sagaz.import_records(pg_temp.event(2, 'sent', '{"claimed_at": "2000-01-01T00:00:00Z", "sent_at": "2000-01-01T00:00:00Z"}'),
	'outbox', 'replace', 'native');
SELECT sagaz.import_records(pg_temp.event(3, 'dead_letter', '{"claimed_at": "2000-01-01T00:00:00Z"}'), 'outbox', 'replace', 'native');
SELECT sagaz.import_records(pg_temp.event(4, 'sent', '{"sent_at": "2000-01-01T00:00:00Z"}'), 'outbox', 'replace', 'native');

CREATE VIEW pg_temp.times AS
	SELECT payload, status, created_at, claimed_at, sent_at FROM sagaz.outbox_events ORDER BY payload;
SELECT * FROM pg_temp.times;
SELECT r->'payload' AS payload, r->'created_at' AS created_at, r->'claimed_at' AS claimed_at, r->'sent_at' AS sent_at
	FROM sagaz.export_all('outbox', 'native') AS r ORDER BY 1;
SELECT event_id, status, regexp_replace(reason, 'archive since .*', 'archive'), claimed_at, sent_at
	FROM (SELECT event_id FROM sagaz.outbox_events) AS e, LATERAL sagaz.explain_event(event_id) ORDER BY event_id;

-- retention keeps them
SELECT sagaz.archive_sent_events('0');
SELECT * FROM pg_temp.times WHERE status = 'sent';
