-- Who may do what: each routine and relation against each kind of access, as
-- written here by hand.  A routine that is not in the list fails the test:
-- whoever adds one decides whose it is, here and in sagaz_internal.access_list().
BEGIN;
SELECT plan(19);

CREATE ROLE regress_producer;
CREATE ROLE regress_consumer;
CREATE ROLE regress_operator;
CREATE ROLE regress_auditor;
CREATE ROLE regress_monitor;
CREATE ROLE regress_nobody;

CREATE TEMP TABLE expected_routine (name text PRIMARY KEY, kinds text,
	schema regnamespace DEFAULT to_regnamespace('sagaz'));
INSERT INTO expected_routine VALUES
	('save_saga_state',			'producer'),
	('load_saga_state',			'auditor operator producer'),
	('delete_saga_state',		'operator producer'),
	('update_step_state',		'producer'),
	('insert_event',			'producer'),
	('insert_events',			'producer'),
	('uuidv7',					'producer'),
	('claim_batch',				'consumer'),
	('finish_batch',			'consumer'),
	('release_batch',			'consumer'),
	('extend_batch',			'consumer'),
	('mark_sent',				'consumer'),
	('mark_failed',				'consumer'),
	('wait_for_events',			'consumer'),
	('check_and_insert_inbox',	'consumer'),
	('get_event',				'auditor consumer operator'),
	('get_events_by_saga',		'auditor consumer operator'),
	('get_pending_count',		'auditor consumer monitor operator'),
	('update_event_status',		'operator'),
	('create_storage',			'operator'),
	('create_outbox_storage',	'operator'),
	('drop_storage',			'operator'),
	('export_all',				'auditor operator'),
	('import_record',			'operator'),
	('import_records',			'operator'),
	('count_records',			'auditor monitor operator'),
	('checksum',				'auditor monitor operator'),
	('transfer',				'operator'),
	('migrate',					'operator'),
	('resume_transfer',			'operator'),
	('retry_transfer_errors',	'operator'),
	('cancel_transfer',			'operator'),
	('validate_transfer',		'operator'),
	('backends',				'auditor consumer monitor operator producer'),
	('requeue_dead_letters',	'operator'),
	('release_stuck_events',	'operator'),
	('create_consumer_group',	'operator'),
	('drop_consumer_group',		'operator'),
	('pause_consumer_group',	'operator'),
	('resume_consumer_group',	'operator'),
	('archive_sent_events',		'operator'),
	('cleanup_completed_sagas',	'operator'),
	('cleanup_inbox',			'operator'),
	('activate',				'operator'),
	('create_delivery',			'operator'),
	('drop_delivery',			'operator'),
	('pause_delivery',			'operator'),
	('resume_delivery',			'operator'),
	('list_sagas',				'auditor monitor operator'),
	('stuck_sagas',				'auditor monitor operator'),
	('get_saga_statistics',		'auditor monitor operator'),
	('get_outbox_statistics',	'auditor monitor operator'),
	('get_stuck_events',		'auditor operator'),
	('get_dead_letter_events',	'auditor operator'),
	('explain_event',			'auditor monitor operator'),
	('new_events',				'auditor operator'),
	('health_check',			'auditor monitor operator'),
	-- the owner's
	('grant_access',			''),
	('revoke_access',			''),
	('adopt',					'');
-- what only sagaz calls
ALTER TABLE expected_routine ALTER schema SET DEFAULT to_regnamespace('sagaz_internal');
INSERT INTO expected_routine VALUES
	('lane',					'producer'),
	('is_event',				'producer'),
	('next_seq',				'producer'),
	('change_event_status',		'operator'),
	('export_page',				'operator'),
	('merge_records',			'operator'),
	('remove_records',			'operator'),
	('storage_refuse_unknown',	'operator'),
	('transfer_is_alive',		'auditor monitor operator'),
	('worker_statistics',		'auditor monitor operator'),
	('group_lag',				'auditor monitor operator'),
	('events_fdw',				''),
	('storage_fdw',				''),
	('memory_validator',		''),
	('sqlite_validator',		''),
	('redis_validator',		''),
	('postgresql_validator',	''),
	('access_apply',			''),
	('access_apply_common',		''),
	('access_check',			''),
	('access_held',				''),
	('access_list',				''),
	('adopt_batch',				''),
	('adopt_count_problem',		''),
	('adopt_event_rows',		''),
	('adopt_events',			''),
	('adopt_finished',			''),
	('adopt_inbox',				''),
	('adopt_open',				''),
	('adopt_result',			''),
	('adopt_sagas',				''),
	('adopt_text_problem',		''),
	('adopt_time_problem',		''),
	('adopt_trust',				''),
	('adopt_unfinished',		''),
	('adopt_word_problem',		'');

CREATE TEMP TABLE expected_relation (name text, privilege text, kinds text);
INSERT INTO expected_relation VALUES
	('consumer_group',		'SELECT',		'auditor monitor operator'),
	('consumer_inbox',		'SELECT',		'auditor operator'),
	('delivery',			'SELECT',		'auditor monitor operator'),
	('stat_delivery',		'SELECT',		'auditor monitor operator'),
	('emit',				'INSERT',		'producer'),
	('emit.created_at',		'SELECT',		'producer'),
	('emit.event_id',		'SELECT',		'producer'),
	('outbox_events',		'SELECT',		'auditor operator'),
	('outbox_debezium',	'SELECT',		'auditor consumer operator'),
	('storages',			'SELECT',		'auditor consumer monitor operator producer'),
	('saga_steps',			'SELECT',		'auditor operator'),
	('transfers',			'SELECT',		'auditor monitor operator'),
	('transfer_error',		'SELECT',		'auditor operator'),
	('sagas',				'SELECT',		'auditor operator');
-- who monitors sees where things stand, and not what is in them
INSERT INTO expected_relation
	SELECT 'outbox_events.' || name, 'SELECT', 'monitor' FROM unnest('{event_id,saga_id,aggregate_type,
		aggregate_id,event_type,status,created_at,claimed_at,sent_at,retry_count,worker_id}'::text[]) AS name
	UNION ALL
	SELECT 'sagas.' || name, 'SELECT', 'monitor'
		FROM unnest('{saga_id,saga_name,status,version,created_at,updated_at}'::text[]) AS name
	UNION ALL
	SELECT 'saga_steps.' || name, 'SELECT', 'monitor'
		FROM unnest('{saga_id,step_name,ordinal,status,executed_at,compensated_at,retry_count}'::text[]) AS name;

CREATE TEMP VIEW routine AS
	SELECT oid, proname::text AS name, pronamespace::regnamespace AS schema, proacl,
		prosecdef, proconfig, prolang, prosqlbody, prokind, proargtypes
	FROM pg_catalog.pg_proc
	WHERE pronamespace IN (to_regnamespace('sagaz'), to_regnamespace('sagaz_internal'));

-- What a grantee has been given on relations and columns; 0 is PUBLIC.
CREATE TEMP VIEW relation_grant AS
	SELECT c.relname::text AS name, a.privilege_type, a.grantee
		FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a
		WHERE c.relnamespace = to_regnamespace('sagaz')
	UNION ALL
	SELECT c.relname || '.' || t.attname, a.privilege_type, a.grantee
		FROM pg_catalog.pg_class c
			JOIN pg_catalog.pg_attribute t ON t.attrelid = c.oid,
			pg_catalog.aclexplode(t.attacl) a
		WHERE c.relnamespace = to_regnamespace('sagaz');

CREATE TEMP VIEW public_grant AS
	SELECT name || ' ' || privilege_type AS what FROM relation_grant
		WHERE grantee = 0
	UNION ALL
	SELECT name FROM routine,
			pg_catalog.aclexplode(coalesce(proacl, pg_catalog.acldefault('f', 10))) a
		WHERE a.grantee = 0
	UNION ALL
	SELECT t.typname FROM pg_catalog.pg_type t,
			pg_catalog.aclexplode(coalesce(typacl, pg_catalog.acldefault('T', 10))) a
		WHERE typnamespace = to_regnamespace('sagaz') AND typcategory <> 'A'
			AND a.grantee = 0
	UNION ALL
	SELECT n.nspname FROM pg_catalog.pg_namespace n,
			pg_catalog.aclexplode(coalesce(nspacl, pg_catalog.acldefault('n', 10))) a
		WHERE nspname IN ('sagaz', 'sagaz_internal') AND a.grantee = 0;

DO $$ BEGIN
	PERFORM sagaz.grant_access('regress_' || kind, kind)
		FROM unnest('{producer,consumer,operator,auditor,monitor}'::text[]) kind;
END $$;

SELECT is_empty($$
	SELECT oid::regprocedure FROM routine
		WHERE (schema, name) NOT IN (SELECT schema, name FROM expected_routine)
	$$, 'somebody decided about every routine, and whether users call it');

SELECT set_eq($$
	SELECT oid::regprocedure::text, coalesce(string_agg(kind, ' ' ORDER BY kind)
			FILTER (WHERE has_function_privilege('regress_' || kind, oid, 'EXECUTE')), '')
		FROM routine, unnest('{producer,consumer,operator,auditor,monitor}'::text[]) kind
		GROUP BY oid
	$$, $$
	SELECT oid::regprocedure::text, kinds FROM routine JOIN expected_routine USING (schema, name)
	$$, 'each kind of access has the routines that it should');

SELECT set_eq($$
	SELECT name, privilege_type,
			string_agg(substr(grantee::regrole::text, 9), ' ' ORDER BY grantee::regrole::text)
		FROM relation_grant WHERE grantee::regrole::text LIKE 'regress\_%'
		GROUP BY 1, 2
	$$, $$
	SELECT * FROM expected_relation
		WHERE to_regclass('sagaz.' || split_part(name, '.', 1)) IS NOT NULL
	$$, 'each kind of access has the relations that it should');

SELECT is_empty($$
	SELECT object FROM sagaz_internal.access_list()
		WHERE object NOT IN (SELECT name FROM routine)
			AND to_regclass('sagaz.' || object) IS NULL
			AND to_regnamespace(object) IS NULL
	UNION
	SELECT name FROM expected_routine
		WHERE (schema, name) NOT IN (SELECT schema, name FROM routine)
	$$, 'what is listed is there');

SELECT is_empty($$
	SELECT rolname FROM pg_roles
		WHERE rolname IN ('regress_producer', 'regress_consumer', 'regress_operator', 'regress_auditor', 'regress_monitor')
			AND (NOT has_schema_privilege(oid, 'sagaz', 'USAGE')
				OR has_schema_privilege(oid, 'sagaz', 'CREATE')
				OR NOT has_type_privilege(oid, 'sagaz.outbox_event', 'USAGE')
				OR NOT has_type_privilege(oid, 'sagaz.event_status', 'USAGE'))
	$$, 'each kind of access has the schema and its types');

SELECT set_eq($$
	SELECT rolname FROM pg_roles WHERE rolname LIKE 'regress\_%'
		AND has_schema_privilege(oid, 'sagaz_internal', 'USAGE')
	$$, ARRAY['regress_operator'],
	'by name an operator alone calls what is internal: another sagaz does, in that role');
SELECT is_empty($$
	SELECT rolname FROM pg_roles WHERE rolname LIKE 'regress\_%'
		AND has_schema_privilege(oid, 'sagaz_internal', 'CREATE')
	$$, 'nobody creates there');

-- A routine is refused before it looks at its arguments.
GRANT USAGE ON SCHEMA sagaz, sagaz_internal TO regress_nobody;
CREATE FUNCTION pg_temp.call_all() RETURNS TABLE (routine text, answer text)
	LANGUAGE plpgsql AS $$
DECLARE
	r record;
BEGIN
	FOR r IN SELECT p.*, (SELECT string_agg('NULL::' || t::regtype, ', ')
			FROM unnest(p.proargtypes) t) AS arguments FROM routine p
	LOOP
		routine := r.oid::regprocedure;
		answer := 'no error';
		SET LOCAL ROLE regress_nobody;
		BEGIN
			EXECUTE format('%s %s.%I(%s)', CASE r.prokind WHEN 'p' THEN 'CALL' ELSE 'SELECT' END,
				r.schema, r.name, r.arguments);
		EXCEPTION WHEN OTHERS THEN
			answer := SQLSTATE;
		END;
		RESET ROLE;
		RETURN NEXT;
	END LOOP;
END
$$;
SELECT is_empty('SELECT * FROM pg_temp.call_all() WHERE answer <> ''42501''',
	'whoever has nothing is refused by every routine');
SELECT cmp_ok((SELECT count(*) FROM routine), '>', 30::bigint, 'those were many');
REVOKE USAGE ON SCHEMA sagaz, sagaz_internal FROM regress_nobody;

-- What is given can be taken away without a trace.
DO $$ BEGIN
	PERFORM sagaz.revoke_access('regress_' || kind, kind)
		FROM unnest('{producer,consumer,operator,auditor,monitor}'::text[]) kind;
END $$;
SELECT is_empty($$
	SELECT classid::regclass, objid FROM pg_shdepend
		WHERE refclassid = 'pg_authid'::regclass
			AND refobjid::regrole::text LIKE 'regress\_%'
	$$, 'revoke_access() leaves nothing');

-- PUBLIC, and what ALTER DEFAULT PRIVILEGES would give to it
SELECT is_empty('SELECT * FROM public_grant', 'PUBLIC has nothing');
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO PUBLIC;
DROP EXTENSION sagaz;
CREATE EXTENSION sagaz;
SELECT is_empty('SELECT * FROM public_grant',
	'PUBLIC has nothing, whatever the default privileges');

-- Functions with the owner's rights cannot be led astray.
SELECT is_empty($$
	SELECT oid::regprocedure FROM routine
		WHERE prosecdef
			AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (proconfig), false)
	$$, 'SECURITY DEFINER comes with a search_path');
SELECT is_empty($$
	SELECT r.oid::regprocedure FROM routine r JOIN pg_language l ON l.oid = prolang
		WHERE lanname <> 'c' AND prosqlbody IS NULL
			AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (proconfig), false)
	$$, 'so does a body in text');
SELECT is_empty($$
	SELECT c.relname FROM pg_class c
		WHERE relnamespace = 'sagaz'::regnamespace AND relkind = 'v'
			AND 'security_invoker=true' = ANY (reloptions)
	$$, 'views act as the owner, too');

-- Everything that says what was delivered is dumped, and no row is made
-- that a restore would meet.
SELECT set_eq($$
	SELECT unnest(extconfig)::regclass::text FROM pg_extension WHERE extname = 'sagaz'
	$$, $$
	SELECT c.oid::regclass::text FROM pg_class c
		WHERE relnamespace = 'sagaz'::regnamespace AND relkind IN ('r', 'p', 'S')
	$$, 'all tables and sequences are dumped');
SELECT is_empty($$
	SELECT unnest(extcondition) FROM pg_extension WHERE extname = 'sagaz'
	EXCEPT VALUES ('')
	$$, 'in whole');
CREATE FUNCTION pg_temp.rows() RETURNS TABLE (name regclass, rows bigint)
	LANGUAGE plpgsql AS $$
BEGIN
	FOR name IN SELECT c.oid FROM pg_class c
		WHERE relnamespace = 'sagaz'::regnamespace AND relkind IN ('r', 'p')
	LOOP
		EXECUTE format('SELECT count(*) FROM %s', name) INTO rows;
		RETURN NEXT;
	END LOOP;
END
$$;
SELECT is_empty('SELECT * FROM pg_temp.rows() WHERE rows > 0',
	'a fresh extension has no rows');
SELECT is_empty($$
	SELECT t.oid::regtype FROM pg_type t LEFT JOIN pg_class c ON c.oid = typrelid
		WHERE typnamespace = 'sagaz'::regnamespace
			AND (typtype IN ('e', 'd') OR c.relkind = 'c')
			AND obj_description(t.oid, 'pg_type') IS NULL
	$$, 'every type has a comment');

SELECT * FROM finish();
ROLLBACK;
