-- save_saga_state() and update_step_state(): what they write, and what not.

-- The version that a statement returns, and the rows it writes in each table.
CREATE FUNCTION writes(statement text, OUT version bigint, OUT sagas text, OUT steps text)
	LANGUAGE plpgsql AS $$
DECLARE
	sagas_before text[];
	steps_before text[];
BEGIN
	sagas_before := counts('sagaz.sagas');
	steps_before := counts('sagaz.saga_steps');
	EXECUTE statement INTO version;
	sagas := difference(sagas_before, counts('sagaz.sagas'));
	steps := difference(steps_before, counts('sagaz.saga_steps'));
END $$;
CREATE FUNCTION counts(regclass) RETURNS text[] LANGUAGE sql AS $$
	SELECT ARRAY[n_tup_ins, n_tup_upd, n_tup_hot_upd, n_tup_del]
	FROM pg_stat_xact_user_tables WHERE relid = $1 $$;
CREATE FUNCTION difference(text[], text[]) RETURNS text LANGUAGE sql AS $$
	SELECT coalesce(string_agg((b::int - a::int) || ' ' || what, ', '), 'nothing')
	FROM unnest($1, $2, '{inserted,updated,of them HOT,deleted}'::text[]) AS t (a, b, what)
	WHERE a <> b $$;

-- the first save
SELECT * FROM writes($$ SELECT sagaz.save_saga_state('order-1', 'Order', 'executing',
	'[{"name": "reserve", "status": "completed", "executed_at": "2024-07-01T12:00:00+00:00"},
	  {"name": "pay", "region": {"code": "eu"}}, {"name": "ship"}]', '{"amount": 10}') $$);
SELECT created_at = updated_at AS same FROM sagaz.sagas;
-- the same again, spelt another way: nothing
SELECT * FROM writes($$ SELECT sagaz.save_saga_state('order-1', 'Order', 'executing',
	'[{"executed_at": "2024-07-01 14:00:00+02", "status": "completed", "name": "reserve", "error": null},
	  {"name": "pay", "status": "pending", "retry_count": 0, "region": {"code": "eu"}}, {"name": "ship", "result": null}]',
	'{"amount": 10}', 'null') $$);
-- not even a transaction id
BEGIN;
SELECT sagaz.save_saga_state('order-1', 'Order', 'executing',
	'[{"name": "reserve", "status": "completed", "executed_at": "2024-07-01T12:00:00+00:00"},
	  {"name": "pay", "region": {"code": "eu"}}, {"name": "ship"}]', '{"amount": 10}');
SELECT pg_current_xact_id_if_assigned() IS NULL AS no_xid;
COMMIT;
-- one step
SELECT * FROM writes($$ SELECT sagaz.save_saga_state('order-1', 'Order', 'executing',
	'[{"name": "reserve", "status": "completed", "executed_at": "2024-07-01T12:00:00+00:00"},
	  {"name": "pay", "status": "executing", "region": {"code": "eu"}}, {"name": "ship"}]', '{"amount": 10}') $$);
-- the context alone
SELECT * FROM writes($$ SELECT sagaz.save_saga_state('order-1', 'Order', 'executing',
	'[{"name": "reserve", "status": "completed", "executed_at": "2024-07-01T12:00:00+00:00"},
	  {"name": "pay", "status": "executing", "region": {"code": "eu"}}, {"name": "ship"}]', '{"amount": 11}') $$);
-- the status of the saga, which is in an index
SELECT * FROM writes($$ SELECT sagaz.save_saga_state('order-1', 'Order', 'compensating',
	'[{"name": "reserve", "status": "completed", "executed_at": "2024-07-01T12:00:00+00:00"},
	  {"name": "pay", "status": "executing", "region": {"code": "eu"}}, {"name": "ship"}]', '{"amount": 11}') $$);
-- a key without a column
SELECT * FROM writes($$ SELECT sagaz.save_saga_state('order-1', 'Order', 'compensating',
	'[{"name": "reserve", "status": "completed", "executed_at": "2024-07-01T12:00:00+00:00"},
	  {"name": "pay", "status": "executing", "region": {"code": "us"}}, {"name": "ship"}]', '{"amount": 11}') $$);
-- one step gone, one new, one elsewhere, one as it was
SELECT * FROM writes($$ SELECT sagaz.save_saga_state('order-1', 'Order', 'compensating',
	'[{"name": "reserve", "status": "completed", "executed_at": "2024-07-01T12:00:00+00:00"},
	  {"name": "ship"}, {"name": "refund"}]', '{"amount": 11}') $$);
SELECT step_name, ordinal, status, extra FROM sagaz.saga_steps ORDER BY ordinal;
-- metadata: nothing, and an empty object
SELECT * FROM writes($$ SELECT sagaz.save_saga_state('order-1', 'Order', 'compensating',
	'[{"name": "reserve", "status": "completed", "executed_at": "2024-07-01T12:00:00+00:00"},
	  {"name": "ship"}, {"name": "refund"}]', '{"amount": 11}', '{}') $$);
-- all that is left out is as in a new saga
SELECT * FROM writes($$ SELECT sagaz.save_saga_state('order-1', 'Order', 'failed') $$);
SELECT context, metadata, version FROM sagaz.sagas;
SELECT * FROM writes($$ SELECT sagaz.save_saga_state('order-1', 'Order', 'failed', context => NULL) $$);
SELECT context IS NULL AS is_null, sagaz.load_saga_state('order-1') -> 'context' AS loaded FROM sagaz.sagas;

-- created_at stays, updated_at moves
CREATE TABLE times AS SELECT created_at, updated_at FROM sagaz.sagas;
SELECT sagaz.save_saga_state('order-1', 'Order 1', 'failed');
SELECT s.created_at = t.created_at AS created_same, s.updated_at > t.updated_at AS updated_later
	FROM sagaz.sagas s, times t;

-- expected_version
CREATE FUNCTION complaint(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text;
	detail text;
	hint text;
BEGIN
	EXECUTE statement;
	RETURN 'none';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL,
		hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(E'\n', SQLSTATE || ': ' || message, nullif(detail, ''), nullif(hint, ''));
END $$;
\pset format unaligned
\pset tuples_only on
SELECT complaint($$ SELECT sagaz.save_saga_state('order-1', 'Order', 'failed', expected_version => 3) $$);
SELECT complaint($$ SELECT sagaz.save_saga_state('order-1', 'Order', 'failed', expected_version => 0) $$);
SELECT complaint($$ SELECT sagaz.save_saga_state('order-2', 'Order', 'failed', expected_version => 1) $$);
SELECT sagaz.save_saga_state('order-2', 'Order', 'pending', expected_version => 0);
SELECT sagaz.save_saga_state('order-2', 'Order', 'executing', expected_version => 1);
SELECT sagaz.save_saga_state('order-2', 'Order', 'executing', expected_version => 2);
-- also where nothing would change
SELECT complaint($$ SELECT sagaz.save_saga_state('order-2', 'Order', 'executing', expected_version => 1) $$);

-- several in one statement and transaction; what is rolled back never was
BEGIN;
SELECT sagaz.save_saga_state('twice', 'Twice', 'pending', '[{"name": "a"}]'),
	sagaz.save_saga_state('twice', 'Twice', 'executing', '[{"name": "b"}]'),
	sagaz.update_step_state('twice', 'b', 'completed'),
	sagaz.delete_saga_state('twice'),
	sagaz.save_saga_state('twice', 'Twice', 'executing', '[{"name": "c"}]');
SELECT step_name FROM sagaz.saga_steps WHERE saga_id = 'twice';
SAVEPOINT s;
SELECT sagaz.save_saga_state('twice', 'Twice', 'completed', '[{"name": "d"}]');
ROLLBACK TO s;
SELECT sagaz.save_saga_state('twice', 'Twice', 'executing', '[{"name": "c"}]');
SELECT sagaz.save_saga_state('twice', 'Twice', 'completed', '[{"name": "c"}]');
ROLLBACK;
SELECT count(*) FROM sagaz.sagas WHERE saga_id = 'twice';
SELECT sum(sagaz.save_saga_state('many-' || i, 'Many', 'pending', '[{"name": "a"}]'))
	FROM generate_series(1, 20000) i;
SELECT count(*) FROM sagaz.saga_steps WHERE saga_id LIKE 'many-%';

-- update_step_state
SELECT sagaz.save_saga_state('steps', 'Steps', 'executing',
	'[{"name": "a", "result": {"x": 1}, "retry_count": 3, "z": 1}, {"name": "b"}]');
SELECT * FROM writes($$ SELECT sagaz.update_step_state('steps', 'a', 'failed', error => 'no route',
	executed_at => '2024-07-01 12:00:00.25+02') $$);
SELECT * FROM writes($$ SELECT sagaz.update_step_state('steps', 'a', 'failed', error => 'no route') $$);
SELECT * FROM writes($$ SELECT sagaz.update_step_state('steps', 'a', NULL, compensated_at => '2024-07-01 12:00:00Z') $$);
SELECT sagaz.load_saga_state('steps') #> '{steps,0}';
SELECT * FROM writes($$ SELECT sagaz.update_step_state('steps', 'a', NULL, 'null') $$);
SELECT sagaz.load_saga_state('steps') #> '{steps,0,result}', sagaz.load_saga_state('steps') #> '{steps,1}';
SELECT complaint($$ SELECT sagaz.update_step_state('steps', 'c', 'failed') $$);
SELECT complaint($$ SELECT sagaz.update_step_state('stops', 'a', 'failed') $$);

-- large values stay out of line where they do not change
SELECT sagaz.save_saga_state('large', 'Large', 'executing', '[{"name": "a"}]',
	(SELECT jsonb_object_agg(i, md5(i::text)) FROM generate_series(1, 2000) i));
CREATE FUNCTION chunks() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	ids text;
BEGIN
	EXECUTE 'SELECT string_agg(DISTINCT chunk_id::text, $1) FROM '
		|| (SELECT reltoastrelid::regclass FROM pg_class WHERE oid = 'sagaz.sagas'::regclass)
		INTO ids USING ' ';
	RETURN ids;
END $$;
SELECT chunks() AS chunks_before \gset
SELECT :'chunks_before' <> '' AS out_of_line;
SELECT * FROM writes($$ SELECT sagaz.update_step_state('large', 'a', 'completed') $$);
SELECT * FROM writes($$ SELECT sagaz.save_saga_state('large', 'Large', 'completed', '[{"name": "a", "status": "completed"}]',
	(SELECT jsonb_object_agg(i, md5(i::text)) FROM generate_series(1, 2000) i)) $$);
SELECT * FROM writes($$ SELECT sagaz.save_saga_state('large', 'Large', 'completed', '[{"name": "a", "status": "completed"}]',
	(SELECT jsonb_object_agg(i, md5(i::text)) FROM generate_series(1, 2000) i)) $$);
SELECT chunks() = :'chunks_before' AS same_chunks;

-- delete_saga_state, and SQL's own DELETE, take the steps along
SELECT sagaz.delete_saga_state('steps'), sagaz.delete_saga_state('steps');
DELETE FROM sagaz.sagas WHERE saga_id = 'large';
SELECT count(*) FROM sagaz.saga_steps WHERE saga_id IN ('steps', 'large');

-- not in a read-only transaction
BEGIN READ ONLY;
SELECT complaint($$ SELECT sagaz.save_saga_state('order-1', 'Order', 'pending') $$);
COMMIT;
