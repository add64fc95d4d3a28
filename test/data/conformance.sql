-- What every storage must answer, by the words of the design.  Run by
-- test/t/050_conformance.pl, once for each storage, whose name is :s.
--
-- A test is a statement and what it yields, "-->" a row or "--!" the SQLSTATE of
-- its error.  One that begins with "--until" is repeated until it yields that.

SELECT sagaz.count_records('saga', :'s'), sagaz.count_records('outbox', :'s'), sagaz.load_saga_state('order-1', :'s') IS NULL;
--> 0|0|t

SELECT status, latency_ms >= 0, message <> '', jsonb_typeof(details) FROM sagaz.health_check(:'s');
--> healthy|t|t|object

-- ---------------------------------------------------------------------------
-- Save and load

SELECT sagaz.save_saga_state('order-1', 'OrderSaga', 'executing',
	'[{"name": "reserve"}, {"name": "pay", "retry_count": 2, "timeout": 1.5}]',
	'{"k": "é", "n": 1e3, "nothing": null}', storage => :'s');
--> 1

SELECT sagaz.load_saga_state('order-1', :'s') - '{created_at,updated_at,steps}'::text[];
--> {"status": "executing", "context": {"k": "é", "n": 1000, "nothing": null}, "saga_id": "order-1", "version": 1, "metadata": null, "saga_name": "OrderSaga"}

SELECT jsonb_array_elements(sagaz.load_saga_state('order-1', :'s')->'steps');
--> {"name": "reserve", "error": null, "result": null, "status": "pending", "executed_at": null, "retry_count": 0, "compensated_at": null}
--> {"name": "pay", "error": null, "result": null, "status": "pending", "timeout": 1.5, "executed_at": null, "retry_count": 2, "compensated_at": null}

-- its times are instants in UTC
SELECT s->>'created_at' ~ '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?\+00:00$',
	(s->>'created_at')::timestamptz BETWEEN now() - interval '1 min' AND clock_timestamp(),
	s->'created_at' = s->'updated_at'
	FROM sagaz.load_saga_state('order-1', :'s') AS s;
--> t|t|t

SELECT s->>'updated_at' AS saved FROM sagaz.load_saga_state('order-1', :'s') AS s \gset

-- a save that changes nothing writes nothing
SELECT sagaz.save_saga_state('order-1', 'OrderSaga', 'executing',
	'[{"name": "reserve", "status": "pending"}, {"name": "pay", "retry_count": 2, "timeout": 1.5}]',
	'{"n": 1000, "k": "é", "nothing": null}', NULL, 1, storage => :'s');
--> 1

SELECT s->>'updated_at' = :'saved' FROM sagaz.load_saga_state('order-1', :'s') AS s;
--> t

-- one that changes something keeps the time of creation
SELECT sagaz.save_saga_state('order-1', 'OrderSaga', 'completed',
	'[{"name": "reserve"}, {"name": "pay"}]', '{"k": 1}', '{}', storage => :'s');
--> 2

SELECT s->>'created_at' = :'saved', s->>'updated_at' > :'saved', s->'version',
		s->'status', s->'context', s->'metadata', s->'steps'->1->'timeout'
	FROM sagaz.load_saga_state('order-1', :'s') AS s;
--> t|t|2|"completed"|{"k": 1}|{}|

-- versions that are not the present one
SELECT sagaz.save_saga_state('order-1', 'OrderSaga', 'failed', expected_version => 1, storage => :'s');
--! SZ006

SELECT sagaz.save_saga_state('order-1', 'OrderSaga', 'failed', expected_version => 0, storage => :'s');
--! SZ006

SELECT sagaz.save_saga_state('order-2', 'OrderSaga', 'failed', expected_version => 1, storage => :'s');
--! SZ006

SELECT sagaz.load_saga_state('order-1', :'s')->'status', sagaz.load_saga_state('order-2', :'s') IS NULL;
--> "completed"|t

SELECT sagaz.save_saga_state('order-1', 'OrderSaga', 'failed', context => 'null', expected_version => 2, storage => :'s');
--> 3

SELECT sagaz.save_saga_state('order-2', 'OrderSaga', 'pending', expected_version => 0, storage => :'s');
--> 1

SELECT s->'steps', s->'context', s->'metadata' FROM sagaz.load_saga_state('order-1', :'s') AS s;
--> []|null|null

-- bad input changes nothing
SELECT sagaz.save_saga_state('', 'OrderSaga', 'pending', storage => :'s');
--! SZ009

SELECT sagaz.save_saga_state(NULL, 'OrderSaga', 'pending', storage => :'s');
--! SZ009

SELECT sagaz.save_saga_state('bad', NULL, 'pending', storage => :'s');
--! SZ009

SELECT sagaz.save_saga_state('bad', 'OrderSaga', 'done', storage => :'s');
--! SZ009

SELECT sagaz.save_saga_state('bad', 'OrderSaga', 'pending', NULL, storage => :'s');
--! SZ009

SELECT sagaz.save_saga_state('bad', 'OrderSaga', 'pending', '{}', storage => :'s');
--! SZ009

SELECT sagaz.save_saga_state('bad', 'OrderSaga', 'pending', '[{"name": "a"}, {"name": "a"}]', storage => :'s');
--! SZ009

SELECT sagaz.save_saga_state('bad', 'OrderSaga', 'pending', '[{"status": "pending"}]', storage => :'s');
--! SZ009

SELECT sagaz.save_saga_state('bad', 'OrderSaga', 'pending', '[{"name": "a", "status": "done"}]', storage => :'s');
--! SZ009

SELECT sagaz.save_saga_state('bad', 'OrderSaga', 'pending', '[{"name": "a", "executed_at": "tomorrow"}]', storage => :'s');
--! SZ009

SELECT sagaz.save_saga_state('bad', 'OrderSaga', 'pending', '[{"name": "a", "retry_count": -1}]', storage => :'s');
--! SZ009

SELECT sagaz.save_saga_state('bad', 'OrderSaga', 'pending', expected_version => -1, storage => :'s');
--! SZ009

SELECT sagaz.load_saga_state('bad', :'s') IS NULL;
--> t

-- ---------------------------------------------------------------------------
-- Steps

SELECT sagaz.save_saga_state('steps', 'StepSaga', 'executing',
	'[{"name": "a", "note": "kept"}, {"name": "b", "executed_at": "2025-01-02T05:04:05.5+02:00"}]', storage => :'s');
--> 1

SELECT sagaz.update_step_state('steps', 'a', 'completed', '{"ok": true}', NULL, '2025-01-02 03:04:05.678+00', storage => :'s');
--> 2

SELECT sagaz.update_step_state('steps', 'a', 'compensated', NULL, 'undone', NULL, '2025-01-03 00:00+00', storage => :'s');
--> 3

-- what is NULL stays
SELECT jsonb_array_elements(sagaz.load_saga_state('steps', :'s')->'steps');
--> {"name": "a", "note": "kept", "error": "undone", "result": {"ok": true}, "status": "compensated", "executed_at": "2025-01-02T03:04:05.678000+00:00", "retry_count": 0, "compensated_at": "2025-01-03T00:00:00+00:00"}
--> {"name": "b", "error": null, "result": null, "status": "pending", "executed_at": "2025-01-02T03:04:05.500000+00:00", "retry_count": 0, "compensated_at": null}

SELECT sagaz.update_step_state('steps', 'a', 'compensated', storage => :'s');
--> 3

SELECT sagaz.update_step_state('nobody', 'a', 'completed', storage => :'s');
--! SZ002

SELECT sagaz.update_step_state('steps', 'nothing', 'completed', storage => :'s');
--! SZ002

SELECT sagaz.update_step_state('steps', 'a', 'done', storage => :'s');
--! SZ009

SELECT sagaz.update_step_state('steps', NULL, 'completed', storage => :'s');
--! SZ009

SELECT sagaz.load_saga_state('steps', :'s')->'version';
--> 3

-- ---------------------------------------------------------------------------
-- Delete

SELECT sagaz.delete_saga_state('order-2', :'s'), sagaz.delete_saga_state('nobody', :'s');
--> t|f

SELECT sagaz.delete_saga_state('order-2', :'s'), sagaz.load_saga_state('order-2', :'s') IS NULL;
--> f|t

SELECT sagaz.delete_saga_state(NULL, :'s');
--! SZ009

-- saved again it is a new saga
SELECT sagaz.save_saga_state('order-2', 'OrderSaga', 'pending', expected_version => 0, storage => :'s');
--> 1

-- ---------------------------------------------------------------------------
-- Lists

SELECT sagaz.save_saga_state('list-1', 'Ship_ment', 'completed', '[{"name": "a", "status": "completed"}, {"name": "b"}]', storage => :'s');
--> 1

SELECT sagaz.save_saga_state('list-2', 'shipXment', 'executing', storage => :'s');
--> 1

SELECT sagaz.save_saga_state('list-3', 'Größe', 'executing', storage => :'s');
--> 1

-- those created last first
SELECT saga_id, saga_name, status, step_count, completed_steps FROM sagaz.list_sagas(storage => :'s');
--> list-3|Größe|executing|0|0
--> list-2|shipXment|executing|0|0
--> list-1|Ship_ment|completed|2|1
--> order-2|OrderSaga|pending|0|0
--> steps|StepSaga|executing|2|0
--> order-1|OrderSaga|failed|0|0

SELECT string_agg(saga_id, ' ') FROM sagaz.list_sagas('executing', storage => :'s');
--> list-3 list-2 steps

-- a name is a literal part, in upper or lower case
SELECT string_agg(saga_id, ' ') FROM sagaz.list_sagas(NULL, 'SHIP', storage => :'s');
--> list-2 list-1

SELECT string_agg(saga_id, ' ') FROM sagaz.list_sagas(NULL, 'p_M', storage => :'s');
--> list-1

SELECT string_agg(saga_id, ' ') FROM sagaz.list_sagas('executing', 'GRÖ', storage => :'s');
--> list-3

SELECT count(*) FROM sagaz.list_sagas(NULL, '%', storage => :'s');
--> 0

SELECT string_agg(saga_id, ' ') FROM sagaz.list_sagas(max_rows => 2, skip_rows => 1, storage => :'s');
--> list-2 list-1

SELECT count(*) FROM sagaz.list_sagas(skip_rows => 5, storage => :'s');
--> 1

SELECT count(*) FROM sagaz.list_sagas(max_rows => 0, storage => :'s');
--> 0

SELECT count(*) FROM sagaz.list_sagas('done', storage => :'s');
--! SZ009

SELECT count(*) FROM sagaz.list_sagas(max_rows => -1, storage => :'s');
--! SZ009

SELECT count(*) FROM sagaz.list_sagas(skip_rows => -1, storage => :'s');
--! SZ009

SELECT string_agg(saga_id, ' ') FROM sagaz.stuck_sagas('0', :'s');
--> steps order-2 list-2 list-3

SELECT count(*) FROM sagaz.stuck_sagas('1 hour', :'s');
--> 0

SELECT count(*) FROM sagaz.stuck_sagas('-1 hour', :'s');
--! SZ009

SELECT * FROM sagaz.get_saga_statistics(:'s') ORDER BY saga_name COLLATE "C", status;
--> Größe|executing|1|f
--> OrderSaga|pending|1|f
--> OrderSaga|failed|1|f
--> Ship_ment|completed|1|f
--> StepSaga|executing|1|f
--> shipXment|executing|1|f

SELECT sagaz.cleanup_completed_sagas('1 hour', storage => :'s');
--> 0

SELECT sagaz.cleanup_completed_sagas('0', storage => :'s');
--> 1

SELECT sagaz.cleanup_completed_sagas('0', '{failed}', :'s');
--> 1

SELECT sagaz.cleanup_completed_sagas('0', '{done}', :'s');
--! SZ009

SELECT sagaz.cleanup_completed_sagas(NULL, storage => :'s');
--! SZ009

SELECT sagaz.count_records('saga', :'s'), string_agg(saga_id, ' ') FROM sagaz.list_sagas(storage => :'s');
--> 4|list-3 list-2 order-2 steps

-- ---------------------------------------------------------------------------
-- Insert events

SELECT sagaz.insert_event('s1', 'Paid', '{"a": 1}', event_id => '00000000-0000-4000-8000-000000000001', storage => :'s');
--> 00000000-0000-4000-8000-000000000001

SELECT sagaz.insert_event('s1', 'Sent', '[null]', 'order', 'ORD:1', '{"h": "v"}', 'route', 'part',
	'00000000-0000-4000-8000-00000000ABCD', storage => :'s');
--> 00000000-0000-4000-8000-00000000abcd

SELECT event_id, saga_id, aggregate_type, aggregate_id, event_type, payload, headers, status, claimed_at, sent_at,
		retry_count, last_error, worker_id, routing_key, partition_key, batch_id, consumer_group,
		created_at BETWEEN now() - interval '1 min' AND clock_timestamp()
	FROM sagaz.get_events_by_saga('s1', storage => :'s');
--> 00000000-0000-4000-8000-000000000001|s1|saga|s1|Paid|{"a": 1}|{}|pending|||0||||||sagaz-workers|t
--> 00000000-0000-4000-8000-00000000abcd|s1|order|ORD:1|Sent|[null]|{"h": "v"}|pending|||0|||route|part||sagaz-workers|t

-- an id is there once
SELECT sagaz.insert_event('s1', 'Again', '{}', event_id => '00000000-0000-4000-8000-000000000001', storage => :'s');
--! 23505

-- all of a set, or none
SELECT sagaz.insert_events('[{"saga_id": "s2", "event_type": "X", "payload": 1},
	{"saga_id": "s2", "event_type": "X", "payload": 2, "event_id": "00000000-0000-4000-8000-000000000001"}]', :'s');
--! 23505

SELECT sagaz.insert_events('[{"saga_id": "s2", "event_type": "X", "payload": 1}, {"saga_id": "s2", "event_type": "", "payload": 2}]', :'s');
--! SZ009

SELECT sagaz.insert_events('[{"saga_id": "s2", "event_type": "X", "payload": 1, "typo": 2}]', :'s');
--! SZ009

SELECT sagaz.insert_events('{}', :'s');
--! SZ009

SELECT count(*) FROM sagaz.get_events_by_saga('s2', storage => :'s');
--> 0

SELECT sagaz.insert_events('[{"saga_id": "s2", "event_type": "One", "payload": 1, "event_id": "00000000-0000-4000-8000-000000000002"},
	{"saga_id": "s2", "event_type": "Two", "payload": null, "headers": {"a": "b"}, "event_id": "00000000-0000-4000-8000-000000000003"}]', :'s');
--> {00000000-0000-4000-8000-000000000002,00000000-0000-4000-8000-000000000003}

SELECT sagaz.insert_events('[]', :'s');
--> {}

SELECT sagaz.insert_event('', 'X', '{}', storage => :'s');
--! SZ009

SELECT sagaz.insert_event('s', NULL, '{}', storage => :'s');
--! SZ009

SELECT sagaz.insert_event('s', 'X', NULL, storage => :'s');
--! SZ009

SELECT sagaz.insert_event('s', 'X', '{}', headers => '[]', storage => :'s');
--! SZ009

SELECT event_type, payload, headers, aggregate_id FROM sagaz.get_event('00000000-0000-4000-8000-000000000003', storage => :'s');
--> Two|null|{"a": "b"}|s2

SELECT count(*) FROM sagaz.get_event('00000000-0000-4000-8000-00000000ffff', storage => :'s');
--> 0

SELECT sagaz.get_pending_count(storage => :'s'), sagaz.count_records('outbox', :'s');
--> 4|4

-- an event of the future waits
SELECT sagaz.insert_event('later', 'Later', '1', event_id => '00000000-0000-4000-8000-000000000004',
	available_at => clock_timestamp() + interval '1 hour', storage => :'s');
--> 00000000-0000-4000-8000-000000000004

-- ---------------------------------------------------------------------------
-- Claim and finish

-- only what is old enough
SELECT count(*) FROM sagaz.claim_batch('w', older_than => '1 hour', storage => :'s');
--> 0

SELECT string_agg(event_type, ' ' ORDER BY event_type) AS events, count(DISTINCT batch_id) AS batches, min(batch_id) AS b,
		string_agg(DISTINCT status || ' ' || worker_id || ' ' || consumer_group, ',') AS how, bool_and(claimed_at <= clock_timestamp()) AS past
	FROM sagaz.claim_batch('w 1', storage => :'s') \gset got_

SELECT :'got_events', :got_batches, :got_b > 0, :'got_how', :'got_past';
--> One Paid Sent Two|1|t|claimed w 1 sagaz-workers|t

SELECT count(*) FROM sagaz.claim_batch('w 2', storage => :'s');
--> 0

SELECT event_type, status, worker_id, batch_id = :got_b, claimed_at IS NOT NULL
	FROM sagaz.get_event('00000000-0000-4000-8000-000000000001', storage => :'s');
--> Paid|claimed|w 1|t|t

-- it is his who claimed it
SELECT sagaz.finish_batch(:got_b, 'w 2', :'s');
--! SZ006

SELECT sagaz.release_batch(:got_b, 'w 2', storage => :'s');
--! SZ006

SELECT sagaz.extend_batch(:got_b, 'w 2', '1 hour', :'s');
--! SZ006

SELECT sagaz.finish_batch(:got_b, '', :'s');
--! SZ009

SELECT sagaz.finish_batch(NULL, 'w 1', :'s');
--! SZ009

SELECT sagaz.finish_batch(:got_b, 'w 1', :'s');
--> 4

-- and only once
SELECT sagaz.finish_batch(:got_b, 'w 1', :'s');
--! SZ006

SELECT sagaz.release_batch(:got_b, 'w 1', storage => :'s');
--! SZ006

SELECT event_type, status, worker_id, claimed_at <= sent_at, sent_at <= clock_timestamp(), retry_count, last_error
	FROM sagaz.get_events_by_saga('s1', storage => :'s');
--> Paid|sent|w 1|t|t|0|
--> Sent|sent|w 1|t|t|0|

SELECT count(*) FROM sagaz.claim_batch('w', storage => :'s');
--> 0

SELECT count(*) FROM sagaz.claim_batch('', storage => :'s');
--! SZ009

SELECT count(*) FROM sagaz.claim_batch('w', 0, storage => :'s');
--! SZ009

SELECT count(*) FROM sagaz.claim_batch('w', older_than => '-1 s', storage => :'s');
--! SZ009

-- in the order of emission, however fast and whatever the ids
SELECT cardinality(sagaz.insert_events(jsonb_agg(jsonb_build_object('saga_id', 'fast', 'event_type', 'F', 'payload', n,
	'event_id', '00000000-0000-4000-8000-' || lpad((1300 - n)::text, 12, '0')) ORDER BY n), :'s')) FROM generate_series(1, 300) AS n;
--> 300

SELECT min(batch_id) AS fast, array_agg(payload::integer) = array(SELECT generate_series(1, 300)) AS in_order
	FROM sagaz.claim_batch('w', 300, storage => :'s') \gset

SELECT :'in_order', sagaz.finish_batch(:fast, 'w', :'s');
--> t|300

-- not more than asked for, the oldest first
SELECT sagaz.insert_event('page', 'P1', '1', storage => :'s') IS NOT NULL, sagaz.insert_event('page', 'P2', '2', storage => :'s') IS NOT NULL,
	sagaz.insert_event('page', 'P3', '3', storage => :'s') IS NOT NULL;
--> t|t|t

SELECT string_agg(event_type, ' ' ORDER BY event_type) AS events, min(batch_id) AS first FROM sagaz.claim_batch('w', 2, storage => :'s') \gset

SELECT string_agg(event_type, ' ') AS rest, min(batch_id) AS second FROM sagaz.claim_batch('w', 2, storage => :'s') \gset

SELECT :'events', :'rest', :first <> :second;
--> P1 P2|P3|t

SELECT sagaz.finish_batch(:first, 'w', :'s'), sagaz.finish_batch(:second, 'w', :'s');
--> 2|1

-- ---------------------------------------------------------------------------
-- Release

SELECT sagaz.insert_event('r', 'R', '1', event_id => '00000000-0000-4000-8000-000000000010', storage => :'s');
--> 00000000-0000-4000-8000-000000000010

SELECT batch_id AS b FROM sagaz.claim_batch('w', storage => :'s') \gset

SELECT sagaz.release_batch(:b, 'w', 'broker is down', storage => :'s');
--> 1

SELECT status, claimed_at, worker_id, retry_count, last_error, batch_id FROM sagaz.get_event('00000000-0000-4000-8000-000000000010', storage => :'s');
--> pending|||0|broker is down|

SELECT sagaz.finish_batch(:b, 'w', :'s');
--! SZ006

SELECT batch_id AS b FROM sagaz.claim_batch('w', storage => :'s') \gset

-- after a delay
SELECT sagaz.release_batch(:b, 'w', NULL, '300 ms', :'s');
--> 1

SELECT status FROM sagaz.get_event('00000000-0000-4000-8000-000000000010', storage => :'s');
--> pending

--until
SELECT event_id, worker_id FROM sagaz.claim_batch('w', storage => :'s');
--> 00000000-0000-4000-8000-000000000010|w

SELECT batch_id AS b FROM sagaz.get_event('00000000-0000-4000-8000-000000000010', storage => :'s') \gset

SELECT sagaz.release_batch(:b, 'w', NULL, '1 hour', :'s');
--> 1

SELECT count(*) FROM sagaz.claim_batch('w', storage => :'s');
--> 0

SELECT sagaz.release_batch(:b, 'w', NULL, '-1 s', :'s');
--! SZ009

-- ---------------------------------------------------------------------------
-- Leases: extended, run out, taken over

SELECT sagaz.insert_event('kept', 'Kept', '1', event_id => '00000000-0000-4000-8000-000000000020', storage => :'s');
--> 00000000-0000-4000-8000-000000000020

SELECT batch_id AS kept FROM sagaz.claim_batch('careful', storage => :'s') \gset

SELECT sagaz.extend_batch(:kept, 'careful', '1 hour', :'s') BETWEEN clock_timestamp() + interval '59 min' AND clock_timestamp() + interval '1 hour';
--> t

SELECT sagaz.extend_batch(:kept, 'careful', '-1 s', :'s');
--! SZ009

SELECT sagaz.insert_event('lost', 'Lost', '1', event_id => '00000000-0000-4000-8000-000000000021', storage => :'s');
--> 00000000-0000-4000-8000-000000000021

SELECT batch_id AS lost FROM sagaz.claim_batch('slow', storage => :'s') \gset

SELECT count(*) FROM sagaz.claim_batch('quick', storage => :'s');
--> 0

ALTER SYSTEM SET sagaz.claim_timeout = '100ms';

SELECT pg_reload_conf();
--> t

--until
SHOW sagaz.claim_timeout;
--> 100ms

-- whether it counts as a failure is the storage's affair
--until
SELECT event_type, worker_id FROM sagaz.claim_batch('quick', storage => :'s');
--> Lost|quick

ALTER SYSTEM RESET sagaz.claim_timeout;

SELECT pg_reload_conf();
--> t

--until
SHOW sagaz.claim_timeout;
--> 5min

SELECT sagaz.finish_batch(:lost, 'slow', :'s');
--! SZ006

SELECT sagaz.extend_batch(:lost, 'slow', '1 hour', :'s');
--! SZ006

SELECT batch_id AS taken, batch_id <> :lost AS other FROM sagaz.get_event('00000000-0000-4000-8000-000000000021', storage => :'s') \gset

SELECT :'other', sagaz.finish_batch(:taken, 'quick', :'s'), sagaz.finish_batch(:kept, 'careful', :'s');
--> t|1|1

-- stuck ones
SELECT sagaz.insert_event('stuck', 'Stuck', '1', event_id => '00000000-0000-4000-8000-000000000022', storage => :'s');
--> 00000000-0000-4000-8000-000000000022

SELECT batch_id AS b FROM sagaz.claim_batch('gone', storage => :'s') \gset

SELECT count(*) FROM sagaz.get_stuck_events(storage => :'s');
--> 0

SELECT event_type, status, worker_id, batch_id = :b FROM sagaz.get_stuck_events('0', storage => :'s');
--> Stuck|claimed|gone|t

SELECT sagaz.release_stuck_events('1 hour', storage => :'s');
--> 0

SELECT sagaz.release_stuck_events('0', storage => :'s');
--> 1

SELECT sagaz.finish_batch(:b, 'gone', :'s');
--! SZ006

SELECT status, worker_id, claimed_at, retry_count FROM sagaz.get_event('00000000-0000-4000-8000-000000000022', storage => :'s');
--> pending|||0

SELECT batch_id AS b FROM sagaz.claim_batch('w', storage => :'s') \gset

SELECT sagaz.finish_batch(:b, 'w', :'s');
--> 1

SELECT count(*) FROM sagaz.get_stuck_events('-1 s', storage => :'s');
--! SZ009

-- ---------------------------------------------------------------------------
-- Single events: sent, failed, retried, dead

SELECT sagaz.insert_events('[{"saga_id": "m", "event_type": "M1", "payload": 1, "event_id": "00000000-0000-4000-8000-000000000031"},
	{"saga_id": "m", "event_type": "M2", "payload": 1, "event_id": "00000000-0000-4000-8000-000000000032"},
	{"saga_id": "m", "event_type": "M3", "payload": 1, "event_id": "00000000-0000-4000-8000-000000000033"}]', :'s') IS NOT NULL;
--> t

SELECT sagaz.mark_sent('{00000000-0000-4000-8000-000000000031}', 'w', storage => :'s');
--! SZ006

SELECT min(batch_id) AS b FROM sagaz.claim_batch('w', storage => :'s') \gset

SELECT sagaz.mark_sent('{00000000-0000-4000-8000-000000000031}', 'other', storage => :'s');
--! SZ006

SELECT sagaz.mark_sent('{00000000-0000-4000-8000-000000000031,00000000-0000-4000-8000-00000000ffff}', 'w', storage => :'s');
--! SZ002

SELECT sagaz.mark_sent(NULL, 'w', storage => :'s');
--! SZ009

SELECT sagaz.mark_sent('{NULL}', 'w', storage => :'s');
--! SZ009

SELECT sagaz.mark_sent('{}', 'w', storage => :'s');
--> 0

SELECT sagaz.mark_sent('{00000000-0000-4000-8000-000000000031}', 'w', storage => :'s');
--> 1

SELECT sagaz.mark_failed('{00000000-0000-4000-8000-000000000031}', 'w', 'late', storage => :'s');
--! SZ008

SELECT sagaz.mark_failed('{00000000-0000-4000-8000-000000000032}', 'w', 'no such address', storage => :'s');
--> 1

SELECT sagaz.mark_failed('{00000000-0000-4000-8000-000000000032}', 'w', 'no such address', storage => :'s');
--! SZ006

SELECT event_type, status, retry_count, last_error, worker_id, sent_at IS NOT NULL FROM sagaz.get_events_by_saga('m', storage => :'s');
--> M1|sent|0||w|t
--> M2|failed|1|no such address|w|f
--> M3|claimed|0||w|f

-- the rest of the batch is finished with it
SELECT sagaz.finish_batch(:b, 'w', :'s');
--> 1

-- the retry waits, here for minutes
SELECT count(*) FROM sagaz.claim_batch('w', storage => :'s');
--> 0

-- unless an operator says: now
SELECT status, retry_count, last_error, worker_id FROM sagaz.update_event_status('00000000-0000-4000-8000-000000000032', 'pending', storage => :'s');
--> pending|1|no such address|

SELECT event_type, retry_count, last_error, status FROM sagaz.claim_batch('w', storage => :'s');
--> M2|1|no such address|claimed

ALTER SYSTEM SET sagaz.retry_backoff = '1ms';

SELECT pg_reload_conf();
--> t

--until
SHOW sagaz.retry_backoff;
--> 1ms

SELECT sagaz.mark_failed('{00000000-0000-4000-8000-000000000032}', 'w', NULL, storage => :'s');
--> 1

SELECT status, retry_count, last_error FROM sagaz.get_event('00000000-0000-4000-8000-000000000032', storage => :'s');
--> failed|2|

--until
SELECT event_type, retry_count, last_error FROM sagaz.claim_batch('w', storage => :'s');
--> M2|2|

-- one failure more than sagaz.max_retries, which is 2
SELECT sagaz.mark_failed('{00000000-0000-4000-8000-000000000032}', 'w', 'given up', storage => :'s');
--> 1

SELECT event_type, status, retry_count, last_error FROM sagaz.get_dead_letter_events(storage => :'s');
--> M2|dead_letter|3|given up

SELECT count(*) FROM sagaz.claim_batch('w', storage => :'s');
--> 0

SELECT count(*) FROM sagaz.get_dead_letter_events(0, storage => :'s');
--> 0

SELECT count(*) FROM sagaz.get_dead_letter_events(-1, storage => :'s');
--! SZ009

SELECT sagaz.requeue_dead_letters(event_type => 'M1', storage => :'s');
--> 0

SELECT sagaz.requeue_dead_letters(saga_id => 'nobody', storage => :'s');
--> 0

SELECT sagaz.requeue_dead_letters('{00000000-0000-4000-8000-00000000ffff}', storage => :'s');
--> 0

SELECT sagaz.requeue_dead_letters(max_rows => 0, storage => :'s');
--! SZ009

SELECT sagaz.requeue_dead_letters('{00000000-0000-4000-8000-000000000032}', storage => :'s');
--> 1

-- it begins anew
SELECT event_type, status, retry_count, last_error FROM sagaz.claim_batch('w', storage => :'s');
--> M2|claimed|0|given up

SELECT count(*) FROM sagaz.get_dead_letter_events(storage => :'s');
--> 0

-- ---------------------------------------------------------------------------
-- An operator's changes

SELECT status, last_error FROM sagaz.update_event_status('00000000-0000-4000-8000-000000000032', 'dead_letter', 'by hand', storage => :'s');
--> dead_letter|by hand

SELECT sagaz.update_event_status('00000000-0000-4000-8000-000000000032', 'sent', storage => :'s');
--! SZ008

SELECT sagaz.update_event_status('00000000-0000-4000-8000-000000000032', 'failed', storage => :'s');
--! SZ008

SELECT sagaz.update_event_status('00000000-0000-4000-8000-000000000032', 'dead_letter', storage => :'s');
--! SZ008

SELECT status, retry_count FROM sagaz.update_event_status('00000000-0000-4000-8000-000000000032', 'pending', storage => :'s');
--> pending|0

SELECT sagaz.update_event_status('00000000-0000-4000-8000-000000000032', 'pending', storage => :'s');
--! SZ008

SELECT sagaz.update_event_status('00000000-0000-4000-8000-000000000032', 'claimed', storage => :'s');
--! SZ008

SELECT status, retry_count, last_error FROM sagaz.update_event_status('00000000-0000-4000-8000-000000000032', 'failed', 'by hand', storage => :'s');
--> failed|1|by hand

SELECT sagaz.update_event_status('00000000-0000-4000-8000-000000000032', 'failed', storage => :'s');
--! SZ008

SELECT status, sent_at <= clock_timestamp() FROM sagaz.update_event_status('00000000-0000-4000-8000-000000000032', 'sent', storage => :'s');
--> sent|t

SELECT sagaz.update_event_status('00000000-0000-4000-8000-000000000032', 'pending', storage => :'s');
--! SZ008

SELECT sagaz.update_event_status('00000000-0000-4000-8000-000000000032', 'done', storage => :'s');
--! SZ009

SELECT sagaz.update_event_status('00000000-0000-4000-8000-000000000032', 'sent', 'error', storage => :'s');
--! SZ009

SELECT sagaz.update_event_status('00000000-0000-4000-8000-00000000ffff', 'sent', storage => :'s');
--! SZ002

-- ---------------------------------------------------------------------------
-- Counts and retention

SELECT sagaz.insert_event('count', 'Dead', '1', event_id => '00000000-0000-4000-8000-000000000041', storage => :'s') IS NOT NULL,
	sagaz.insert_event('count', 'Out', '1', storage => :'s') IS NOT NULL;
--> t|t

SELECT status FROM sagaz.update_event_status('00000000-0000-4000-8000-000000000041', 'dead_letter', storage => :'s');
--> dead_letter

SELECT event_type FROM sagaz.claim_batch('w', storage => :'s');
--> Out

-- pending are those of the future and the one released for an hour
SELECT "group", total, pending, claimed, sent, failed, dead_letter, archived,
		oldest_pending BETWEEN '0' AND '5 min', open_batches, paused, estimated
	FROM sagaz.get_outbox_statistics(storage => :'s');
--> sagaz-workers|317|2|1|313|0|1|0|t|1|f|f

SELECT sagaz.get_pending_count(storage => :'s'), sagaz.count_records('outbox', :'s');
--> 2|317

SELECT sagaz.archive_sent_events('1 hour', keep => false, storage => :'s');
--> 0

SELECT sagaz.archive_sent_events('0', 2, false, :'s');
--> 2

SELECT sagaz.archive_sent_events('0', keep => false, storage => :'s') > 0, sagaz.archive_sent_events('-1 s', keep => false, storage => :'s');
--! SZ009

-- ---------------------------------------------------------------------------
-- Whole records

SELECT sagaz.import_record('{"saga_id": "imported", "saga_name": "Imported", "status": "rolled_back",
	"steps": [{"name": "a", "executed_at": "2024-02-29 12:00:00.25+05:30"}], "context": {"when": {"__type__": "datetime", "value": "2024-07-01T12:00:00-01:00"}},
	"metadata": {}, "created_at": "2024-01-01T00:00:00+00:00", "updated_at": "2024-01-02T00:00:00.000001"}', 'saga', :'s');
--> t

SELECT e FROM sagaz.export_all('saga', :'s') AS e WHERE e->>'saga_id' = 'imported';
--> {"steps": [{"name": "a", "error": null, "result": null, "status": "pending", "executed_at": "2024-02-29T06:30:00.250000+00:00", "retry_count": 0, "compensated_at": null}], "status": "rolled_back", "context": {"when": {"value": "2024-07-01T13:00:00+00:00", "__type__": "datetime"}}, "saga_id": "imported", "metadata": {}, "saga_name": "Imported", "created_at": "2024-01-01T00:00:00+00:00", "updated_at": "2024-01-02T00:00:00.000001+00:00"}

-- stuck_sagas() and cleanup see its times
SELECT sagaz.cleanup_completed_sagas('1 year', storage => :'s');
--> 1

SELECT sagaz.import_record('{"event_id": "00000000-0000-4000-8000-000000000051", "saga_id": "imported", "aggregate_type": "t", "aggregate_id": "i", "event_type": "E",
	"payload": [1.0], "headers": {"a": "b"}, "status": "sent", "created_at": "2024-01-01T00:00:00+00:00", "claimed_at": "2024-01-01T00:00:01+00:00",
	"sent_at": "2024-01-01T00:00:02+00:00", "retry_count": 3, "last_error": "once", "worker_id": "w", "routing_key": "r", "partition_key": "p"}', 'outbox', :'s');
--> t

SELECT sagaz.import_record('{"event_id": "00000000-0000-4000-8000-000000000052", "saga_id": "imported", "event_type": "F",
	"payload": null, "status": "failed", "created_at": "2024-01-01T00:00:00+00:00", "retry_count": 1, "last_error": "x"}', 'outbox', :'s');
--> t

SELECT e FROM sagaz.export_all('outbox', :'s') AS e WHERE e->>'saga_id' = 'imported' ORDER BY e->>'event_id';
--> {"status": "sent", "headers": {"a": "b"}, "payload": [1], "saga_id": "imported", "sent_at": "2024-01-01T00:00:02+00:00", "event_id": "00000000-0000-4000-8000-000000000051", "worker_id": "w", "claimed_at": "2024-01-01T00:00:01+00:00", "created_at": "2024-01-01T00:00:00+00:00", "event_type": "E", "last_error": "once", "retry_count": 3, "routing_key": "r", "aggregate_id": "i", "partition_key": "p", "aggregate_type": "t"}
--> {"status": "failed", "headers": {}, "payload": null, "saga_id": "imported", "sent_at": null, "event_id": "00000000-0000-4000-8000-000000000052", "worker_id": null, "claimed_at": null, "created_at": "2024-01-01T00:00:00+00:00", "event_type": "F", "last_error": "x", "retry_count": 1, "routing_key": null, "aggregate_id": "imported", "partition_key": null, "aggregate_type": "saga"}

-- what was sent stays sent, what failed is tried again
SELECT event_type, retry_count FROM sagaz.claim_batch('w', storage => :'s');
--> F|1

SELECT sagaz.import_record('{"saga_id": "x"}', 'saga', :'s');
--! SZ003

SELECT sagaz.import_record('[]', 'saga', :'s');
--! SZ003

SELECT sagaz.import_record('{"event_id": "00000000-0000-4000-8000-000000000053", "saga_id": "x", "event_type": "E", "payload": 1, "status": "gone"}', 'outbox', :'s');
--! SZ003

SELECT sagaz.import_record('{"event_id": "00000000-0000-4000-8000-000000000053", "saga_id": "x", "event_type": "E", "payload": 1, "status": "sent", "sent_at": "yesterday"}', 'outbox', :'s');
--! SZ003

SELECT sagaz.import_record(NULL, 'saga', :'s');
--! SZ009

SELECT sagaz.import_record('{}', 'sagas', :'s');
--! SZ009

SELECT sagaz.export_all('both', :'s');
--! SZ009

SELECT sagaz.count_records(NULL, :'s');
--! SZ009

-- the sum depends on what is there and on nothing else
SELECT sagaz.checksum('saga', :'s') AS before \gset

SELECT length(:'before'), sagaz.save_saga_state('more', 'More', 'pending', storage => :'s');
--> 64|1

SELECT sagaz.checksum('saga', :'s') = :'before', sagaz.delete_saga_state('more', :'s');
--> f|t

SELECT sagaz.checksum('saga', :'s') = :'before';
--> t

-- ---------------------------------------------------------------------------
-- Times at the edges

SELECT sagaz.save_saga_state('edges', 'Edges', 'executing', '[{"name": "a"}]', storage => :'s');
--> 1

SELECT sagaz.update_step_state('edges', 'a', 'completed', executed_at => '2000-01-01 00:00+00', compensated_at => '0001-01-01 00:00:00.000001+00', storage => :'s');
--> 2

SELECT s->'steps'->0->>'executed_at', s->'steps'->0->>'compensated_at' FROM sagaz.load_saga_state('edges', :'s') AS s;
--> 2000-01-01T00:00:00+00:00|0001-01-01T00:00:00.000001+00:00

SELECT sagaz.update_step_state('edges', 'a', 'completed', executed_at => 'infinity', storage => :'s');
--! SZ009

SELECT sagaz.update_step_state('edges', 'a', 'completed', executed_at => '-infinity', storage => :'s');
--! SZ009

SELECT sagaz.update_step_state('edges', 'a', 'completed', compensated_at => '10000-01-01 00:00+00', storage => :'s');
--! SZ009

SELECT sagaz.import_record('{"event_id": "00000000-0000-4000-8000-000000000061", "saga_id": "edges", "event_type": "E", "payload": 1, "status": "sent",
	"created_at": "2000-01-01T00:00:00+00:00", "claimed_at": "2000-01-01T01:00:00+01:00", "sent_at": "9999-12-31T23:59:59.999999+00:00"}', 'outbox', :'s'),
	sagaz.import_record('{"saga_id": "edges 2", "saga_name": "E", "status": "completed", "created_at": "2000-01-01T00:00:00+00:00",
	"updated_at": "1999-12-31T22:00:00-02:00"}', 'saga', :'s');
--> t|t

SELECT e->>'created_at', e->>'claimed_at', e->>'sent_at' FROM sagaz.export_all('outbox', :'s') AS e WHERE e->>'saga_id' = 'edges';
--> 2000-01-01T00:00:00+00:00|2000-01-01T00:00:00+00:00|9999-12-31T23:59:59.999999+00:00

SELECT created_at, claimed_at FROM sagaz.get_event('00000000-0000-4000-8000-000000000061', storage => :'s');
--> 2000-01-01 00:00:00+00|2000-01-01 00:00:00+00

SELECT e->>'created_at', e->>'updated_at' FROM sagaz.export_all('saga', :'s') AS e WHERE e->>'saga_id' = 'edges 2';
--> 2000-01-01T00:00:00+00:00|2000-01-01T00:00:00+00:00

SELECT created_at, updated_at FROM sagaz.list_sagas('completed', 'E', storage => :'s');
--> 2000-01-01 00:00:00+00|2000-01-01 00:00:00+00
