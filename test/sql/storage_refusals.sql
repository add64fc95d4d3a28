-- What a storage refuses as the native tables do, changing nothing.
\set VERBOSITY sqlstate
SELECT sagaz.create_storage('m', 'memory://m');
SET sagaz.saga_storage = 'm';
SET sagaz.outbox_storage = 'm';

-- a foreign table must say of what
CREATE FOREIGN TABLE on_storage (saga_id text) SERVER m;
SELECT * FROM on_storage;
UPDATE on_storage SET saga_id = '';
CREATE FOREIGN TABLE with_option (saga_id text) SERVER m OPTIONS (path 'x');
DROP FOREIGN TABLE on_storage;

-- a saga that somebody will go on with is not cleaned up
SELECT sagaz.save_saga_state('s', 'n', 'executing', '[{"name": "a", "status": "failed"}]');
SELECT sagaz.cleanup_completed_sagas('0', '{executing}');
SELECT sagaz.cleanup_completed_sagas('0', '{completed, null}');
SELECT sagaz.count_records('saga');

-- NULL leaves the status of a step as it is
SELECT sagaz.update_step_state('s', 'a', NULL, error => 'e');
SELECT sagaz.load_saga_state('s')->'steps'->0->>'status' AS status;
SELECT sagaz.update_step_state('s', 'a', 'completed', executed_at => 'infinity');
SELECT sagaz.update_step_state('s', 'b', 'completed');
SELECT sagaz.update_step_state('t', 'a', 'completed');

-- one event_id twice, in one call
SELECT sagaz.insert_events('[
	{"saga_id": "s", "event_type": "a", "payload": 1, "event_id": "11111111-1111-7111-8111-111111111111"},
	{"saga_id": "s", "event_type": "b", "payload": 2, "event_id": "11111111-1111-7111-8111-111111111111"}]');
SELECT sagaz.count_records('outbox');
SELECT sagaz.claim_batch('w', consumer_group => 'other');
SELECT sagaz.archive_sent_events();

-- the longest unchanged comes first, whichever was created first
SELECT count(sagaz.import_record(r, 'saga')) FROM jsonb_array_elements('[
	{"saga_id": "old", "saga_name": "n", "status": "pending", "created_at": "2020-01-01", "updated_at": "2024-01-01"},
	{"saga_id": "new", "saga_name": "n", "status": "pending", "created_at": "2021-01-01", "updated_at": "2022-01-01"}]') AS r;
SELECT saga_id FROM sagaz.stuck_sagas('1 day');
