-- Nobody gains a right: who may set which setting, and where; what functions
-- with their definer's rights do when others call them; what a monitor does
-- not see; whose tables adopt() reads; row level security.  Written by hand: a
-- setting that is not in the list fails the test.
BEGIN;
SELECT plan(56);

CREATE ROLE regress_nobody;
CREATE ROLE regress_tenant;
CREATE ROLE regress_setter;
CREATE ROLE regress_monitor;
CREATE ROLE regress_auditor;
SELECT sagaz.grant_access('regress_monitor', 'monitor');
SELECT sagaz.grant_access('regress_auditor', 'auditor');
SELECT sagaz.grant_access('regress_tenant', 'operator');
SELECT sagaz.grant_access('regress_tenant', 'producer');
GRANT USAGE ON FOREIGN DATA WRAPPER sagaz_memory TO regress_tenant;

-- Runs a command as a role; tells the SQLSTATE, or "" where it works.
CREATE FUNCTION pg_temp.state_as(role text, command text) RETURNS text
	LANGUAGE plpgsql AS $$
DECLARE
	answer text := '';
BEGIN
	BEGIN
		EXECUTE format('SET LOCAL ROLE %I', role);
		EXECUTE command;
	EXCEPTION WHEN OTHERS THEN
		answer := SQLSTATE;
	END;
	RESET ROLE;
	RETURN answer;
END
$$;

---------------------------------------------------------------------------
-- Settings
---------------------------------------------------------------------------

CREATE TEMP TABLE expected_setting (name text PRIMARY KEY, context text, value text);
INSERT INTO expected_setting VALUES
	-- where data go, and which files may be used
	('saga_storage',			'superuser',	'native'),
	('outbox_storage',			'superuser',	'native'),
	('sqlite_directory',		'superuser',	'/nowhere'),
	-- memory that an answer of a storage may take
	('max_payload_size',			'superuser',	'4MB'),
	('max_reply',				'superuser',	'4MB'),
	-- time and memory of one's own session
	('memory_limit',			'user',			'1MB'),
	('idle_timeout',			'user',			'1s'),
	('connect_timeout',			'user',			'1s'),
	('command_timeout',			'user',			'1s'),
	-- the server's
	('poll_interval',			'sighup',		'1s'),
	('claim_timeout',			'sighup',		'1s'),
	('max_retries',				'sighup',		'1'),
	('retry_backoff',			'sighup',		'1s'),
	('batch_size',				'sighup',		'1'),
	('archive_after',			'sighup',		'1s'),
	('inbox_after',				'sighup',		'1s'),
	('housekeeping_interval',	'sighup',		'1s'),
	('databases',				'sighup',		'postgres'),
	('max_crashes',				'sighup',		'1'),
	('max_deliveries_per_database',	'sighup',	'1'),
	('max_deliveries_per_role',	'sighup',		'1'),
	('spare_processes',			'sighup',		'1'),
	('max_deliveries',			'postmaster',	'1');
SELECT set_eq($$
	SELECT substr(name, 7), context FROM pg_settings WHERE name LIKE 'sagaz.%'
	$$, 'SELECT name, context FROM expected_setting', 'somebody decided about every setting');

-- Each way to set one, by somebody who has nothing
SELECT is_empty(format($$
	SELECT name, way FROM expected_setting, (VALUES
			('session', 'SET sagaz.%%s = %%L'),
			('transaction', 'SET LOCAL sagaz.%%s = %%L'),
			('function', 'SELECT pg_catalog.set_config(''sagaz.%%s'', %%L, false)'),
			('database', 'ALTER DATABASE %1$I SET sagaz.%%s = %%L')) AS w (way, command)
		WHERE (pg_temp.state_as('regress_nobody', format(command, name, value)) = '')
			<> (context = 'user' AND way IN ('session', 'transaction', 'function'))
	$$, current_database()), 'a setting moves the rights of nobody else');
SELECT is_empty($$
	SELECT name FROM expected_setting
		WHERE context = 'superuser' AND pg_temp.state_as('regress_nobody',
			format('ALTER ROLE regress_nobody SET sagaz.%s = %L', name, value)) <> '42501'
	$$, 'nor for the sessions to come of a role');
RESET sagaz.memory_limit;
RESET sagaz.idle_timeout;
RESET sagaz.connect_timeout;
RESET sagaz.command_timeout;

-- A function's SET clause holds with the rights of who runs it
GRANT CREATE ON SCHEMA public TO regress_nobody;
SELECT is(pg_temp.state_as('regress_nobody', $$
	CREATE FUNCTION public.regress_clause() RETURNS text LANGUAGE sql
		SET sagaz.outbox_storage = 'evil' AS $q$ SELECT pg_catalog.current_setting('sagaz.outbox_storage') $q$
	$$), '42501', 'a function''s SET clause is refused when it is made');

-- GRANT SET ON PARAMETER is the way for others
SELECT is(pg_temp.state_as('regress_setter', 'SET sagaz.outbox_storage = ''native'''), '42501', 'not without the grant');
GRANT SET ON PARAMETER sagaz.outbox_storage TO regress_setter;
SELECT is(pg_temp.state_as('regress_setter', 'SET sagaz.outbox_storage = ''native'''), '', 'GRANT SET ON PARAMETER gives it');
SELECT is(pg_temp.state_as('regress_setter', 'SET sagaz.saga_storage = ''native'''), '42501', 'and not the other one');

-- Names only, for superusers, too; no message quotes what may hold a secret
SELECT is_empty(format($$
	SELECT name, command FROM unnest('{saga_storage,outbox_storage}'::text[]) AS name,
			(VALUES ('SET sagaz.%%s = %%L'), ('ALTER ROLE regress_nobody SET sagaz.%%s = %%L'),
				('ALTER DATABASE %1$I SET sagaz.%%s = %%L'),
				('SELECT pg_catalog.set_config(''sagaz.%%s'', %%L, true)')) AS w (command)
		WHERE pg_temp.state_as(current_user, format(command, name, 'memory://x')) <> '22023'
	$$, current_database()), 'a URL is no setting');
SELECT throws_ok($$SET sagaz.outbox_storage = 'redis://u:TOPSECRET@h/0'$$, '22023',
	'a storage that is a setting must be one with a name', 'and is not quoted');

---------------------------------------------------------------------------
-- The storage that a setting names
---------------------------------------------------------------------------

SELECT sagaz.create_storage('kept', 'memory://kept');
CREATE SCHEMA regress_shop;
GRANT USAGE ON SCHEMA regress_shop TO PUBLIC;
CREATE FUNCTION regress_shop.place_order() RETURNS void LANGUAGE sql SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	AS $$ SELECT sagaz.insert_event('o', 'placed', '{"card": "4111"}') $$;
CREATE TABLE regress_shop.orders (id text);
GRANT INSERT ON regress_shop.orders TO PUBLIC;
CREATE FUNCTION regress_shop.on_order() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	AS $$ BEGIN PERFORM sagaz.insert_event(new.id, 'ordered', '1'); RETURN new; END $$;
CREATE TRIGGER on_order BEFORE INSERT ON regress_shop.orders
	FOR EACH ROW EXECUTE FUNCTION regress_shop.on_order();

CREATE TEMP TABLE caller (role text);
INSERT INTO caller VALUES ('regress_nobody'), ('regress_tenant'), (current_user);
CREATE FUNCTION pg_temp.log_size() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM sagaz.outbox';

SELECT is_empty($$
	SELECT role FROM caller WHERE pg_temp.state_as(role, 'SELECT regress_shop.place_order()') <> ''
		OR pg_temp.state_as(role, 'INSERT INTO regress_shop.orders VALUES (''t'')') <> ''
	$$, 'a definer''s function and a definer''s trigger work for three roles');
SELECT is(pg_temp.log_size(), 6::bigint, 'and emit here');
SET LOCAL sagaz.outbox_storage = 'kept';
SELECT is_empty($$
	SELECT role FROM caller WHERE pg_temp.state_as(role, 'SELECT regress_shop.place_order()') <> ''
	$$, 'a superuser''s setting is obeyed there');
SELECT is(pg_temp.log_size(), 6::bigint, 'then not here');
SELECT is(sagaz.count_records('outbox', 'kept'), 3::bigint, 'but where it says');
-- the present user's USAGE counts, not the setting's
SELECT is(pg_temp.state_as('regress_tenant', 'SELECT sagaz.insert_event(''a'', ''b'', ''1'')'), '42501',
	'who has no USAGE on that server may not use it');
GRANT USAGE ON FOREIGN SERVER kept TO regress_tenant;
SELECT is(pg_temp.state_as('regress_tenant', 'SELECT sagaz.insert_event(''a'', ''b'', ''1'')'), '', 'who has it may');

-- Whoever owns the server decides where it is: so not anybody
SELECT is(pg_temp.state_as('regress_tenant', 'SELECT sagaz.create_storage(''evil'', ''memory://evil'')'), '', 'a tenant''s storage');
SELECT is(pg_temp.state_as('regress_tenant', 'GRANT USAGE ON FOREIGN SERVER evil TO PUBLIC'), '', 'for everybody');
SET LOCAL sagaz.outbox_storage = 'evil';
SELECT is_empty($$
	SELECT role FROM caller WHERE pg_temp.state_as(role, 'SELECT regress_shop.place_order()') <> '42501'
	$$, 'is the default of no definer''s function');
SELECT is(pg_temp.state_as('regress_tenant', 'SELECT sagaz.insert_event(''a'', ''b'', ''1'')'), '', 'but of its owner''s own calls');
SELECT is(pg_temp.state_as(current_user, 'SELECT sagaz.insert_event(''a'', ''b'', ''1'', storage => ''evil'')'), '',
	'and may be named by whoever trusts him');
GRANT SET ON PARAMETER sagaz.outbox_storage TO regress_tenant;
SELECT is_empty($$
	SELECT role FROM caller WHERE pg_temp.state_as(role, 'SELECT regress_shop.place_order()') <> ''
	$$, 'unless he may say what the default is');
REVOKE SET ON PARAMETER sagaz.outbox_storage FROM regress_tenant;
SET LOCAL sagaz.outbox_storage = 'native';
SELECT is(pg_temp.log_size(), 6::bigint, 'none of these came here');

-- Renamed, re-owned and dropped
ALTER ROLE regress_tenant RENAME TO regress_renamed;
SELECT is(pg_temp.state_as('regress_renamed', 'SELECT sagaz.count_records(''saga'', ''kept'')'), '', 'a renamed role has what it had');
ALTER ROLE regress_renamed RENAME TO regress_tenant;
ALTER SERVER evil OWNER TO CURRENT_USER;
SELECT is(pg_temp.state_as('regress_tenant', 'ALTER SERVER evil OPTIONS (SET name ''x'')'), '42501', 'a server that was given away is not his any more');
REVOKE ALL ON FOREIGN SERVER evil FROM PUBLIC;
SELECT is(pg_temp.state_as('regress_tenant', 'SELECT sagaz.count_records(''saga'', ''evil'')'), '42501', 'nor may he use it then');
ALTER SCHEMA regress_shop OWNER TO regress_tenant;
SELECT is(pg_temp.state_as('regress_nobody', 'SELECT regress_shop.place_order()'), '', 'a schema that was given away changes nothing of its functions');
ALTER FUNCTION regress_shop.place_order() OWNER TO regress_nobody;
SELECT is(pg_temp.state_as('regress_tenant', 'SELECT regress_shop.place_order()'), '42501', 'a function given to somebody has the rights of that one');

-- switch says first what it may not do
SELECT is_empty($$SELECT i FROM sagaz.validate_transfer('native', 'kept') AS v,
	jsonb_array_elements(v.issues) AS i WHERE i ->> 'code' = 'switch'$$, 'a superuser may switch');
SET LOCAL ROLE regress_tenant;
SELECT matches((SELECT string_agg(i ->> 'message', ' ') FROM sagaz.validate_transfer('native', 'kept') AS v,
	jsonb_array_elements(v.issues) AS i WHERE i ->> 'code' = 'switch'), 'must be owner of database', 'validate_transfer() tells who may not');
SELECT throws_matching($$CALL sagaz.migrate('native', 'kept', switch => true)$$, 'must be owner of database', 'and migrate() does so first');
RESET ROLE;
SELECT is_empty('SELECT * FROM sagaz.transfer', 'before it writes anything');

---------------------------------------------------------------------------
-- Who monitors, and who audits
---------------------------------------------------------------------------

CREATE TEMP TABLE secret_of (command text, monitor text, auditor text);
INSERT INTO secret_of VALUES
	('SELECT payload FROM sagaz.outbox_events', '42501', ''),
	('SELECT headers FROM sagaz.outbox_events', '42501', ''),
	('SELECT last_error FROM sagaz.outbox_events', '42501', ''),
	('SELECT e FROM sagaz.outbox_events AS e', '42501', ''),
	('SELECT to_jsonb(e) FROM sagaz.outbox_events AS e', '42501', ''),
	('SELECT 1 FROM sagaz.outbox_events WHERE payload @> ''{}''', '42501', ''),
	('SELECT event_id, status, created_at FROM sagaz.outbox_events', '', ''),
	('SELECT status, count(*) FROM sagaz.outbox_events GROUP BY 1', '', ''),
	('SELECT context FROM sagaz.sagas', '42501', ''),
	('SELECT metadata FROM sagaz.sagas', '42501', ''),
	('SELECT * FROM sagaz.sagas', '42501', ''),
	('SELECT saga_id, status FROM sagaz.sagas', '', ''),
	('SELECT result FROM sagaz.saga_steps', '42501', ''),
	('SELECT error FROM sagaz.saga_steps', '42501', ''),
	('SELECT extra FROM sagaz.saga_steps', '42501', ''),
	('SELECT step_name, status FROM sagaz.saga_steps', '', ''),
	('SELECT * FROM sagaz.consumer_inbox', '42501', ''),
	('SELECT * FROM sagaz.outbox_debezium', '42501', ''),
	('SELECT * FROM sagaz.transfer_error', '42501', ''),
	('SELECT * FROM sagaz.outbox', '42501', '42501'),
	('SELECT * FROM sagaz.outbox_archive', '42501', '42501'),
	('SELECT * FROM sagaz.event_state', '42501', '42501'),
	('SELECT * FROM sagaz.new_events()', '42501', ''),
	('SELECT * FROM sagaz.get_event(''00000000-0000-0000-0000-000000000000'')', '42501', ''),
	('SELECT * FROM sagaz.get_events_by_saga(''o'')', '42501', ''),
	('SELECT * FROM sagaz.get_stuck_events()', '42501', ''),
	('SELECT * FROM sagaz.get_dead_letter_events()', '42501', ''),
	('SELECT * FROM sagaz.load_saga_state(''o'')', '42501', ''),
	('SELECT * FROM sagaz.export_all(''saga'')', '42501', ''),
	('SELECT * FROM sagaz.health_check()', '', ''),
	('SELECT * FROM sagaz.stat_delivery', '', ''),
	('SELECT * FROM sagaz.transfers', '', ''),
	('SELECT * FROM sagaz.list_sagas()', '', ''),
	('SELECT * FROM sagaz.get_outbox_statistics()', '', ''),
	('SELECT sagaz.insert_event(''a'', ''b'', ''1'')', '42501', '42501'),
	('SELECT * FROM sagaz.claim_batch(''w'')', '42501', '42501'),
	('SELECT sagaz.requeue_dead_letters()', '42501', '42501'),
	('SELECT sagaz.create_storage(''z'', ''memory://z'')', '42501', '42501');
SELECT is_empty('SELECT * FROM secret_of WHERE pg_temp.state_as(''regress_monitor'', command) <> monitor',
	'a monitor sees where things stand, and no payload, context or inbox');
SELECT is_empty('SELECT * FROM secret_of WHERE pg_temp.state_as(''regress_auditor'', command) <> auditor',
	'an auditor reads them, and changes nothing');
SELECT sagaz.grant_access('regress_monitor', 'auditor');
SELECT sagaz.revoke_access('regress_monitor', 'auditor');
SELECT is(pg_temp.state_as('regress_monitor', 'SELECT saga_id FROM sagaz.sagas'), '42501', 'an auditor no more is no monitor any more');
SELECT sagaz.grant_access('regress_monitor', 'auditor');
SELECT sagaz.revoke_access('regress_monitor', 'monitor');
SELECT is(pg_temp.state_as('regress_monitor', 'SELECT context FROM sagaz.sagas'), '', 'who is a monitor no more is still an auditor');

---------------------------------------------------------------------------
-- adopt()
---------------------------------------------------------------------------

CREATE SCHEMA regress_lib;
CREATE TABLE regress_lib.saga_outbox (event_id uuid PRIMARY KEY, saga_id varchar(255),
	aggregate_type varchar(255), aggregate_id varchar(255), event_type varchar(255), payload jsonb,
	headers jsonb DEFAULT '{}', status varchar(50) DEFAULT 'pending', created_at timestamptz DEFAULT now(),
	claimed_at timestamptz, sent_at timestamptz, retry_count int DEFAULT 0, last_error text, worker_id varchar(255));
CREATE FUNCTION pg_temp.adopt() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
BEGIN
	PERFORM set_config('regress.watched', 'yes', true);
	PERFORM * FROM sagaz.adopt('regress_lib');
	PERFORM set_config('regress.watched', 'no', true);
	RETURN '';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN SQLSTATE || ' ' || coalesce(nullif(detail, ''), SQLERRM);
END
$$;
CREATE SCHEMA regress_evil AUTHORIZATION regress_nobody;
SET LOCAL ROLE regress_nobody;
CREATE FUNCTION regress_evil.f(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	IF current_setting('regress.watched', true) = 'yes' THEN RAISE EXCEPTION 'it ran as %', current_user; END IF;
	RETURN $1;
END $$;
CREATE FUNCTION regress_evil.t() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RETURN new; END $$;
CREATE DOMAIN regress_evil.d AS text CHECK (regress_evil.f(value) IS NOT NULL);
GRANT USAGE ON SCHEMA regress_evil TO PUBLIC;
RESET ROLE;

SELECT is(pg_temp.adopt(), '', 'tables of one''s own');
ALTER TABLE regress_lib.saga_outbox OWNER TO regress_tenant;
SELECT is(pg_temp.adopt(), 'SZ009 regress_lib.saga_outbox belongs to role regress_tenant.', 'a table of somebody else');
ALTER TABLE regress_lib.saga_outbox OWNER TO CURRENT_USER;
ALTER SCHEMA regress_lib OWNER TO regress_tenant;
SELECT is(pg_temp.adopt(), 'SZ009 schema regress_lib belongs to role regress_tenant.', 'a schema of somebody else');
ALTER SCHEMA regress_lib OWNER TO CURRENT_USER;
SAVEPOINT one;
CREATE INDEX ON regress_lib.saga_outbox (regress_evil.f(saga_id));
SELECT is(pg_temp.adopt(), 'SZ009 regress_lib.saga_outbox runs somebody else''s function.', 'an index on somebody else''s function');
ROLLBACK TO one;
CREATE TRIGGER t BEFORE INSERT ON regress_lib.saga_outbox FOR EACH ROW EXECUTE FUNCTION regress_evil.t();
SELECT is(pg_temp.adopt(), 'SZ009 regress_lib.saga_outbox runs somebody else''s function.', 'a trigger');
ROLLBACK TO one;
ALTER TABLE regress_lib.saga_outbox ADD more text DEFAULT regress_evil.f('x');
SELECT is(pg_temp.adopt(), 'SZ009 regress_lib.saga_outbox runs somebody else''s function.', 'a default');
ROLLBACK TO one;
ALTER TABLE regress_lib.saga_outbox ADD CHECK (regress_evil.f(saga_id) IS NOT NULL);
SELECT is(pg_temp.adopt(), 'SZ009 regress_lib.saga_outbox runs somebody else''s function.', 'a constraint');
ROLLBACK TO one;
ALTER TABLE regress_lib.saga_outbox ALTER event_type TYPE regress_evil.d;
SELECT is(pg_temp.adopt(), 'SZ009 regress_lib.saga_outbox has a column of somebody else''s type.', 'a domain');
ROLLBACK TO one;
CREATE RULE r AS ON INSERT TO regress_lib.saga_outbox DO ALSO NOTHING;
SELECT is(pg_temp.adopt(), 'SZ009 regress_lib.saga_outbox has rules.', 'a rule');
ROLLBACK TO one;
CREATE TABLE regress_evil.child () INHERITS (regress_lib.saga_outbox);
ALTER TABLE regress_evil.child OWNER TO regress_nobody;
SELECT is(pg_temp.adopt(), 'SZ009 regress_evil.child belongs to role regress_nobody.', 'a child of somebody else');
ROLLBACK TO one;
ALTER TABLE regress_lib.saga_outbox RENAME TO hidden;
CREATE VIEW regress_lib.saga_outbox AS SELECT event_id, regress_evil.f(saga_id) AS saga_id, aggregate_type, aggregate_id,
	event_type, payload, headers, status, created_at, claimed_at, sent_at, retry_count, last_error, worker_id FROM regress_lib.hidden;
SELECT is(pg_temp.adopt(), 'SZ009 regress_lib.saga_outbox is no table.', 'a view, though it is one''s own');
ROLLBACK TO one;
SELECT is(pg_temp.adopt(), '', 'as before, it is adopted');
ALTER TABLE regress_lib.saga_outbox RENAME TO plain;
CREATE TABLE regress_lib.saga_outbox (LIKE regress_lib.plain INCLUDING DEFAULTS) PARTITION BY LIST (status);
CREATE TABLE regress_lib.part PARTITION OF regress_lib.saga_outbox DEFAULT;
SELECT is(pg_temp.adopt(), '', 'so is a partitioned table');
ROLLBACK TO one;
-- row level security would show less than there is
CREATE ROLE regress_owner CREATEROLE;
GRANT USAGE ON SCHEMA sagaz, sagaz_internal TO regress_owner;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA sagaz, sagaz_internal TO regress_owner;
GRANT USAGE, CREATE ON SCHEMA regress_lib TO regress_owner;
GRANT ALL ON regress_lib.saga_outbox TO regress_owner;
ALTER TABLE regress_lib.saga_outbox ENABLE ROW LEVEL SECURITY;
SET LOCAL ROLE regress_owner;
SELECT throws_ok($$SELECT * FROM sagaz.adopt('regress_lib')$$, 'SZ009', 'the tables are not to be trusted', 'rows that are hidden');
RESET ROLE;

---------------------------------------------------------------------------
-- Row level security on sagaz's own tables
---------------------------------------------------------------------------

SELECT sagaz.save_saga_state('mine', 'A', 'pending'), sagaz.save_saga_state('yours', 'B', 'pending');
ALTER TABLE sagaz.sagas ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON sagaz.sagas FOR SELECT TO regress_auditor USING (saga_id = 'mine');
SET LOCAL ROLE regress_auditor;
SELECT is((SELECT string_agg(saga_id, ' ') FROM sagaz.sagas), 'mine', 'a policy counts for SELECT on the table');
SELECT is((SELECT string_agg(saga_id, ' ' ORDER BY saga_id) FROM sagaz.list_sagas()), 'mine yours', 'and not for the functions');
SELECT is(sagaz.load_saga_state('yours') ->> 'saga_id', 'yours', 'of which EXECUTE is the permission');
RESET ROLE;
ALTER TABLE sagaz.outbox ENABLE ROW LEVEL SECURITY;
SELECT is(pg_temp.state_as('regress_tenant', 'INSERT INTO sagaz.emit (saga_id, event_type, payload) VALUES (''r'', ''x'', ''1'')'), '',
	'the view emit has its owner''s rights');
SELECT isnt(pg_temp.state_as('regress_tenant', 'SELECT * FROM sagaz.outbox'), '', 'the log is nobody''s to read');
SELECT cmp_ok((SELECT count(*) FROM sagaz.outbox_events WHERE saga_id = 'r'), '=', 1::bigint, 'and nothing is hidden from the engine');

SELECT * FROM finish();
ROLLBACK;
