-- Making, naming and using storages: what is refused, who may, and that no
-- error tells a secret.
BEGIN;
SELECT plan(40);

-- An error with all that a client or a log shows of it.
CREATE FUNCTION error_of(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	m text;
	d text;
	h text;
	c text;
BEGIN
	EXECUTE command;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS m = MESSAGE_TEXT, d = PG_EXCEPTION_DETAIL,
		h = PG_EXCEPTION_HINT, c = PG_EXCEPTION_CONTEXT;
	RETURN concat_ws(' | ', sqlstate, m, d, h, replace(c, command, ''));
END
$$;

-- Input
CREATE TEMP TABLE bad_input (call text, wanted text);
INSERT INTO bad_input VALUES
	($$create_storage(NULL, 'memory://')$$, 'SZ009 \| name '),
	($$create_storage('', 'memory://')$$, 'SZ009 \| name '),
	($$create_storage('native', 'memory://')$$, 'SZ009 \| name '),
	($$create_storage('memory://', 'memory://')$$, 'SZ009 \| name '),
	($$create_storage(repeat('n', 64), 'memory://')$$, 'SZ009 \| name '),
	($$create_storage('s', NULL)$$, 'SZ009 \| url '),
	($$create_storage('s', '')$$, 'SZ009 \| url '),
	($$create_storage('s', 'memory')$$, 'SZ009 \| url '),
	($$create_storage('s', 'native://')$$, 'SZ009 \| .*native'),
	($$create_storage('s', 'nothing://')$$, 'SZ000 \| .*"nothing://".* It has: memory://'),
	($$create_storage('s', 'memory://', 'things')$$, 'SZ009 \| storage_type .*''saga'', ''outbox'' or ''both'''),
	($$create_storage('s', 'memory://', options => NULL)$$, 'SZ009 \| options '),
	($$create_storage('s', 'memory://', options => '[]')$$, 'SZ009 \| options '),
	($$create_storage('s', 'memory://', options => '{"consumer_group": null}')$$, 'SZ009 \| options '),
	($$create_storage('s', 'memory://', options => '{"consumer_group": ""}')$$, 'SZ009 \| consumer_group '),
	($$create_storage('s', 'memory://', options => '{"other": 1}')$$, 'HV00D \| .*"other".*name, consumer_group, storage_type'),
	($$create_storage('s', 'memory://', options => '{"name": "a"}')$$, '42710 \| option "name"'),
	($$create_storage('s', 'memory://', for_public => NULL)$$, 'SZ009 \| for_public '),
	($$drop_storage(NULL)$$, 'SZ002'),
	($$drop_storage('none')$$, 'SZ002 \| .*"none"'),
	($$drop_storage('native')$$, 'SZ002'),
	($$load_saga_state('x', 'none')$$, 'SZ002 \| .*"none"');
SELECT matches(error_of('SELECT sagaz.' || call), '^' || wanted, call)
	FROM bad_input;
SELECT is((SELECT string_agg(name, ' ') FROM sagaz.storages), 'native',
	'and nothing was made');

-- Secrets
SELECT unalike(error_of(command), '%s3cret%', command) FROM unnest(ARRAY[
	$$SELECT sagaz.create_storage('s', 'redis://user:s3cret@host:port')$$,
	$$SELECT sagaz.create_storage('s', 'user:s3cret@host://')$$,
	$$SELECT sagaz.create_storage('s', 'memory://', options => '{"password": "s3cret"}')$$,
	$$SELECT sagaz.load_saga_state('s', 'redis://user:s3cret@localhost:1')$$,
	$$SELECT sagaz.load_saga_state('s', 'user:s3cret@host://')$$]) AS command;

-- What a storage keeps, and where there is none named
SELECT sagaz.create_storage('s', 'memory://a', 'saga');
SELECT sagaz.create_outbox_storage('o', 'memory://a');
SELECT is((SELECT string_agg(concat_ws(' ', name, backend, storage_type, usable), ', ' ORDER BY name)
		FROM sagaz.storages),
	'native native both t, o memory outbox t, s memory saga t', 'storages');
SELECT throws_ok($$SELECT sagaz.insert_event('a', 'b', '1', storage => 's')$$, 'SZ000', NULL,
	'one of sagas keeps no events');
SELECT throws_ok($$SELECT sagaz.save_saga_state('a', 'b', 'pending', storage => 'o')$$, 'SZ000', NULL,
	'one of events keeps no sagas');
SET LOCAL sagaz.saga_storage = 's';
SET LOCAL sagaz.outbox_storage = 'o';
SELECT sagaz.save_saga_state('a', 'b', 'pending');
SELECT sagaz.insert_event('a', 'b', '1');
SELECT results_eq($$SELECT sagaz.count_records('saga', 's'), sagaz.count_records('outbox', 'o'),
		sagaz.count_records('saga', 'native'), sagaz.count_records('outbox', 'native')$$,
	$$VALUES (1::bigint, 1::bigint, 0::bigint, 0::bigint)$$, 'sagas here and events there');
SET LOCAL sagaz.memory_limit = '256kB';
SELECT throws_ok($$SELECT sagaz.save_saga_state('big', 'b', 'pending',
		context => to_jsonb(repeat('x', 300000)))$$, 'SZ007', NULL, 'memory is bounded');
SELECT is(sagaz.count_records('saga'), 1::bigint, 'what was there is there');
RESET sagaz.saga_storage;
RESET sagaz.outbox_storage;
RESET sagaz.memory_limit;

-- Who may: each function that takes a storage, with the name of one that is
-- somebody else's and with a URL.
CREATE ROLE regress_app;
SELECT sagaz.grant_access('regress_app', kind)
	FROM unnest('{producer,consumer,operator,auditor,monitor}'::text[]) AS kind;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA sagaz TO regress_app;
CREATE TEMP TABLE call AS
	SELECT p.proname AS name, format('SELECT * FROM sagaz.%I(%s storage => %%L)', p.proname,
		(SELECT string_agg(format('%I => %s, ', a.name,
				CASE format_type(a.type, NULL)
					WHEN 'text' THEN CASE a.name WHEN 'type' THEN '''saga''' ELSE '''x''' END
					WHEN 'jsonb' THEN CASE a.name WHEN 'headers' THEN '''{}''' ELSE '''[]''' END
					WHEN 'uuid' THEN '''00000000-0000-0000-0000-000000000000'''
					WHEN 'uuid[]' THEN '''{}'''
					WHEN 'text[]' THEN '''{pending}'''
					WHEN 'interval' THEN '''1 s'''
					WHEN 'boolean' THEN 'true'
					WHEN 'timestamp with time zone' THEN 'now()'
					ELSE '1'
				END), '')
			FROM ROWS FROM (unnest(p.proargnames[1:p.pronargs - 1]),
				unnest(string_to_array(p.proargtypes::text, ' ')::oid[])) WITH ORDINALITY AS a (name, type, n)
			WHERE a.n < p.pronargs)) AS command
	FROM pg_proc AS p
	WHERE p.pronamespace = 'sagaz'::regnamespace
		AND p.proargnames[p.pronargs] = 'storage';
GRANT SELECT ON call TO regress_app;
SELECT cmp_ok(count(*), '>=', 32::bigint, 'there are functions that take a storage') FROM call;
SET LOCAL ROLE regress_app;
CREATE TEMP TABLE answer AS
	SELECT name, storage, error_of(format(command, storage)) AS error
		FROM call, unnest('{s,o,memory://a}'::text[]) AS storage;
SELECT is_empty('SELECT * FROM answer WHERE error NOT LIKE ''42501 | permission denied for %''',
	'grant_access() gives no storage of others, and no URL');
SELECT throws_ok($$SELECT sagaz.create_storage('mine', 'memory://')$$, '42501', NULL,
	'nor a storage of one''s own');
SELECT is((SELECT string_agg(name, ' ') FROM sagaz.storages WHERE usable), 'native',
	'storages tells which may be used');
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER s TO regress_app;
SELECT sagaz.create_storage('shared', 'memory://b', for_public => true);
SET LOCAL ROLE regress_app;
SELECT is(sagaz.count_records('saga', 's'), 0::bigint, 'USAGE on the server is enough');
SELECT is(sagaz.count_records('saga', 'shared'), 0::bigint, 'and a shared one is everybody''s');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
