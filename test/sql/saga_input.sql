-- Each argument of the saga functions, given badly: SZ009, and nothing changed.
\pset format unaligned
\pset tuples_only on
CREATE FUNCTION complaint(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text;
	detail text;
	hint text;
BEGIN
	EXECUTE statement;
	RETURN 'none: ' || statement;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL,
		hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(E'\n  ', SQLSTATE || ': ' || message, nullif(detail, ''), nullif(hint, ''));
END $$;
SELECT sagaz.save_saga_state('s', 'S', 'executing', '[{"name": "a"}]', '{"k": 1}', '{}');
CREATE TABLE before AS SELECT sagaz.load_saga_state('s') AS saga;

-- save_saga_state: steps
CREATE FUNCTION steps_complaint(steps jsonb) RETURNS text LANGUAGE sql AS $$
	SELECT complaint(format('SELECT sagaz.save_saga_state(%L, %L, %L, %L)', 's', 'S', 'executing', steps)) $$;
SELECT steps_complaint(steps) FROM unnest(ARRAY[
	NULL, 'null', '{}', '"text"', '7', 'true', '[1]', '[null]', '["a"]', '[[]]', '[{"name": "a"}, []]',
	'[{}]', '[{"name": null}]', '[{"name": ""}]', '[{"name": 1}]', '[{"name": {"__type__": "enum", "value": "a"}}]',
	'[{"name": "a"}, {"name": "b"}, {"name": "a"}]',
	'[{"name": "a", "status": "done"}]', '[{"name": "a", "status": "COMPLETED"}]', '[{"name": "a", "status": ""}]', '[{"name": "a", "status": 3}]',
	'[{"name": "a", "status": "rolled_back"}]', '[{"name": "a", "status": {"__type__": "enum", "value": "Colour"}}]',
	'[{"name": "a", "retry_count": -1}]', '[{"name": "a", "retry_count": 1.5}]', '[{"name": "a", "retry_count": "1"}]', '[{"name": "a", "retry_count": 2147483648}]',
	'[{"name": "a", "error": 7}]', '[{"name": "a", "error": {"message": "x"}}]',
	'[{"name": "a", "executed_at": "soon"}]', '[{"name": "a"}, {"name": "b", "compensated_at": 1709251199}]']::jsonb[]) steps;
SELECT steps_complaint(jsonb_build_array(jsonb_build_object('name', repeat('x', 1025))));
-- a long wrong word is cut between characters
SELECT steps_complaint(jsonb_build_array(jsonb_build_object('name', 'a', 'status', repeat('x', 79) || 'éé')));

-- save_saga_state: the others
SELECT complaint('SELECT sagaz.save_saga_state(' || arguments || ')') FROM unnest(ARRAY[
	$$NULL, 'S', 'executing'$$, $$'', 'S', 'executing'$$, $$repeat('x', 1025), 'S', 'executing'$$,
	$$'s', NULL, 'executing'$$, $$'s', '', 'executing'$$, $$'s', repeat('x', 2049), 'executing'$$,
	$$'s', 'S', NULL$$, $$'s', 'S', ''$$, $$'s', 'S', 'EXECUTING'$$, $$'s', 'S', 'dead_letter'$$,
	$$'s', 'S', 'executing', expected_version => -1$$,
	$$'s', 'S', 'executing', storage => 'redis'$$, $$'s', 'S', 'executing', storage => ''$$]) arguments;

-- update_step_state
SELECT complaint('SELECT sagaz.update_step_state(' || arguments || ')') FROM unnest(ARRAY[
	$$NULL, 'a', 'failed'$$, $$'', 'a', 'failed'$$, $$'s', NULL, 'failed'$$, $$'s', '', 'failed'$$,
	$$'s', 'a', 'done'$$, $$'s', 'a', ''$$,
	$$'s', 'a', 'failed', executed_at => 'infinity'$$, $$'s', 'a', 'failed', compensated_at => '-infinity'$$,
	$$'s', 'a', 'failed', executed_at => '10000-01-01 00:00:00Z'$$, $$'s', 'a', 'failed', compensated_at => '0001-12-31 00:00:00Z BC'$$,
	$$'s', 'b', 'failed'$$, $$'t', 'a', 'failed'$$, $$'s', 'a', 'failed', storage => 'redis'$$]) arguments;

-- load, delete
SELECT complaint('SELECT sagaz.' || call) FROM unnest(ARRAY[
	$$load_saga_state(NULL)$$, $$load_saga_state('')$$, $$load_saga_state('s', 'redis')$$,
	$$delete_saga_state(NULL)$$, $$delete_saga_state('')$$, $$delete_saga_state('s', 'redis')$$]) call;

-- lists, statistics, clean-up
SELECT complaint('SELECT sagaz.' || call) FROM unnest(ARRAY[
	$$list_sagas('done')$$, $$list_sagas('')$$, $$list_sagas(max_rows => -1)$$, $$list_sagas(max_rows => NULL)$$,
	$$list_sagas(skip_rows => -1)$$, $$list_sagas(skip_rows => NULL)$$, $$list_sagas(storage => 'redis')$$,
	$$stuck_sagas(NULL)$$, $$stuck_sagas('-1 second')$$, $$stuck_sagas('1 hour', 'redis')$$,
	$$get_saga_statistics('redis')$$,
	$$cleanup_completed_sagas(NULL)$$, $$cleanup_completed_sagas('-1 day')$$, $$cleanup_completed_sagas('0', NULL)$$,
	$$cleanup_completed_sagas('0', ARRAY[NULL])$$, $$cleanup_completed_sagas('0', '{done}')$$, $$cleanup_completed_sagas('0', '{completed,executing}')$$,
	$$cleanup_completed_sagas('0', '{{pending,completed}}')$$, $$cleanup_completed_sagas('0', storage => 'redis')$$]) call;

-- the setting of the storage counts where no argument is given
SET sagaz.saga_storage = 'redis';
SELECT complaint('SELECT sagaz.load_saga_state(''s'')');
SELECT sagaz.load_saga_state('s', 'native') IS NOT NULL;
RESET sagaz.saga_storage;

-- nothing changed
SELECT saga = sagaz.load_saga_state('s') FROM before;
SELECT count(*) FROM sagaz.sagas;

-- the longest texts that are taken, in index entries too
SELECT sagaz.save_saga_state(id, name, 'pending', jsonb_build_array(jsonb_build_object('name', step)))
	FROM (SELECT string_agg(chr(33 + (random() * 90)::int), '') FROM generate_series(1, 1024)) a (id),
		(SELECT string_agg(chr(33 + (random() * 90)::int), '') FROM generate_series(1, 2048)) b (name),
		(SELECT string_agg(chr(33 + (random() * 90)::int), '') FROM generate_series(1, 1024)) c (step);
