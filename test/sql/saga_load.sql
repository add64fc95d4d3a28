-- load_saga_state() gives back what was saved, times as UTC whatever TimeZone says.
\pset format unaligned
\pset tuples_only on
SET timezone = 'Asia/Tokyo';

-- all that JSON can hold, in every place that holds JSON
SELECT sagaz.save_saga_state('order:1 "é"', 'Ordér', 'partially_committed', $$[
	{"name": "z", "status": "completed", "result": {"n": 1.10, "big": 123456789012345678901234567890, "list": [1, [null, true], {}]},
	 "error": "boom: \"x\"\n at line 1 ☃", "executed_at": "2024-02-29T23:59:59.678901+00:00", "compensated_at": "2024-07-01T12:00:00", "retry_count": 2147483647,
	 "extra": {"deep": {"__type__": "decimal", "value": "1.10"}}, "pivot": false, "none": null},
	{"name": "a", "result": "text ☃"},
	{"name": "m", "result": [], "status": "tainted"},
	{"name": "x", "result": 2.5}]$$,
	'{"m": {"zz": 1, "aa": 2}}', '{"tags": ["x"]}');
SELECT jsonb_pretty(sagaz.load_saga_state('order:1 "é"') - '{created_at,updated_at}'::text[]);
SELECT bool_and(saga ->> key ~ '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?\+00:00$'
		AND (saga ->> key)::timestamptz BETWEEN now() - interval '1 hour' AND clock_timestamp())
	FROM sagaz.load_saga_state('order:1 "é"') saga, unnest('{created_at,updated_at}'::text[]) key;
-- the text of a time is that of the instant in the table
SELECT (saga ->> 'created_at')::timestamptz = s.created_at, (saga ->> 'updated_at')::timestamptz = s.updated_at
	FROM sagaz.sagas s, sagaz.load_saga_state(s.saga_id) saga;
-- saved as it was loaded, it is the same
SELECT sagaz.save_saga_state(saga_id, saga ->> 'saga_name', saga ->> 'status', saga -> 'steps', saga -> 'context', saga -> 'metadata')
	FROM (VALUES ('order:1 "é"')) v (saga_id), sagaz.load_saga_state(saga_id) saga;
-- nothing there
SELECT sagaz.load_saga_state('order:2') IS NULL;
-- no steps, null metadata; scalars as context
SELECT sagaz.save_saga_state('bare', 'Bare', 'pending'), sagaz.save_saga_state('odd', 'Odd', 'pending', '[]', '7', '"text"');
SELECT sagaz.load_saga_state(id) - '{created_at,updated_at}'::text[] FROM unnest('{bare,odd}'::text[]) id;
-- ten thousand steps keep their order
SELECT sagaz.save_saga_state('long', 'Long', 'pending',
	(SELECT jsonb_agg(jsonb_build_object('name', md5(i::text)) ORDER BY i) FROM generate_series(1, 10000) i));
SELECT count(*), bool_and(step ->> 'name' = md5(i::text))
	FROM jsonb_array_elements(sagaz.load_saga_state('long') -> 'steps') WITH ORDINALITY AS t (step, i);
-- one statement sees one state
SELECT sagaz.save_saga_state('bare', 'Bare', 'completed'), sagaz.load_saga_state('bare') ->> 'status';
SELECT sagaz.load_saga_state('bare') ->> 'status';

-- times in all the spellings there are
CREATE FUNCTION time_of(time_text jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM sagaz.save_saga_state('time', 'Time', 'pending',
		jsonb_build_array(jsonb_build_object('name', 'a', 'executed_at', time_text)));
	RETURN sagaz.load_saga_state('time') #>> '{steps,0,executed_at}';
EXCEPTION WHEN SQLSTATE 'SZ009' THEN
	RETURN SQLERRM;
END $$;
SELECT t, time_of(to_jsonb(t)) FROM unnest(ARRAY[
	'2024-02-29T23:59:59.678901+00:00', '2024-02-29T23:59:59+00:00', '2024-02-29 23:59:59', '2024-02-29t23:59:59Z',
	'2024-02-29T23:59:59.6789019', '2024-02-29T23:59:59,5', '2024-02-29T23:59:59.000000Z', '2024-02-29T23:59',
	'2024-02-29T23', '2024-02-29', '20240229', '20240229T235959.5', '20240229T2359', '2024-02-29T10:00:00+05:30',
	'2024-02-29T10:00:00+05:30:15', '2024-02-29T10:00:00.5-0800', '2024-02-29T10:00:00-08', '2024-02-29T10+05',
	'0001-01-01T00:00:00Z', '9999-12-31T23:59:59.999999Z', '0001-01-01T00:00:00-01:00', '1582-10-10T00:00:00Z']) t;
SELECT time_of('{"__type__": "datetime", "value": "2024-02-29 23:59:59.678901+05:30"}');
SELECT time_of('null') IS NULL;
-- and what is none
SELECT time_of(to_jsonb(t)) FROM unnest(ARRAY[
	'', 'now', 'today', 'tomorrow', 'yesterday', 'epoch', 'infinity', '-infinity', 'allballs', '2024', '2024-02', '2024-02-30', '2023-02-29',
	'2024-13-01', '2024-00-01', '2024-01-00', '0000-01-01', '10000-01-01', '-2024-01-01', '2024-0101', '202401-01', '24-01-01',
	'2024-01-01T', '2024-01-01T24:00:00', '2024-01-01T23:60', '2024-01-01T23:59:60', '2024-01-01T1:02', '2024-01-01T10:0', '2024-01-01T10:00:00.',
	'2024-01-01T10:00:00 +00:00', '2024-01-01T10:00:00UTC', '2024-01-01T10:00:00 UTC', '2024-01-01T10:00:00+24:00', '2024-01-01T10:00:00+5',
	'2024-01-01T10:00:00 BC', ' 2024-01-01', '2024-01-01 ', '2024-01-01+00:00', '2024-01-01T10:00:00Z+00:00', '01/02/2024', 'January 1, 2024',
	'0001-01-01T00:00:00+01:00', '9999-12-31T23:59:59-01:00', E'2024-01-01\n']) t;
SELECT time_of('1709251199'), time_of('["2024-01-01"]'), time_of('{"value": "2024-01-01"}'), time_of('{"__type__": "datetime"}'),
	time_of('{"__type__": "decimal", "value": "2024-01-01"}'), time_of('{"__type__": "datetime", "value": "soon"}');
-- a time that only SQL can have put there
UPDATE sagaz.sagas SET created_at = 'infinity' WHERE saga_id = 'bare';
\set VERBOSITY sqlstate
SELECT sagaz.load_saga_state('bare');
