# A caller's search_path never matters: with a schema in front that shadows
# functions, operators, types and tables, every function works and nothing of
# that schema is called.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use SagazTest;
use Test::More;

my $node = new_node('search_path', conf => "track_functions = 'all'\n");

# For each function and operator of pg_catalog on these types one that raises,
# and for each table and view of sagaz a view of that name that raises.
$node->safe_psql('postgres', <<'SQL');
SET client_min_messages = error;
CREATE SCHEMA evil;
CREATE FUNCTION evil.types() RETURNS oid[] LANGUAGE sql AS $$
	SELECT '{boolean,text,name,smallint,integer,bigint,oid,uuid,jsonb,timestamptz,interval,xid8,bytea,text[],uuid[],bigint[]}'::regtype[]::oid[] $$;
CREATE FUNCTION evil.make(name text, arguments text, result regtype)
	RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE FUNCTION evil.%I(%s) RETURNS %s LANGUAGE plpgsql'
		' AS ''BEGIN RAISE EXCEPTION ''''evil was called''''; END''',
		name, arguments, result);
END $$;
SELECT evil.make('raise', '', 'integer');
SELECT count(evil.make(proname, oidvectortypes(proargtypes), prorettype))
	FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace
		AND prokind = 'f' AND NOT proretset AND provariadic = 0
		AND proargtypes::oid[] <@ evil.types() AND prorettype = ANY (evil.types());
DO $$
DECLARE
	o record;
BEGIN
	FOR o IN SELECT oprname, 'op' || oid AS function, oprleft::regtype AS l,
			oprright::regtype AS r, oprresult AS result
		FROM pg_operator WHERE oprnamespace = 'pg_catalog'::regnamespace
			AND oprleft = ANY (evil.types()) AND oprright = ANY (evil.types())
			AND oprresult = ANY (evil.types())
	LOOP
		PERFORM evil.make(o.function, o.l || ',' || o.r, o.result);
		EXECUTE format('CREATE OPERATOR evil.%s (FUNCTION = evil.%I, LEFTARG = %s, RIGHTARG = %s)',
			o.oprname, o.function, o.l, o.r);
	END LOOP;
	FOR o IN SELECT relname FROM pg_class
		WHERE relnamespace = 'sagaz'::regnamespace AND relkind IN ('r', 'v')
	LOOP
		EXECUTE format('CREATE VIEW evil.%I AS SELECT evil.raise()', o.relname);
	END LOOP;
	FOR o IN SELECT typname, typnamespace::regnamespace || '.' || quote_ident(typname) AS base
		FROM pg_type WHERE oid = ANY (evil.types()) AND typelem = 0
			OR typnamespace = 'sagaz'::regnamespace AND typtype = 'e'
	LOOP
		EXECUTE format('CREATE DOMAIN evil.%I AS %s CHECK (evil.raise() IS NULL)',
			o.typname, o.base) ;
	END LOOP;
END $$;
SQL
$node->command_ok(
	[
		'psql', '--quiet', '--no-psqlrc', '--output=/dev/null',
		'--file=test/data/pg-clean.sql', $node->connstr('postgres')
	],
	'tables of the Python library to adopt');

# Call everything; results that later calls need go to psql's variables.
my ($status, $out, $err) = $node->psql('postgres', <<'SQL');
SET search_path = evil, pg_catalog, public;
SELECT sagaz.save_saga_state('saga-1', 'order', 'executing', '[{"name": "pay", "status": "pending"}]', '{"n": 1}', '{}');
SELECT sagaz.save_saga_state('saga-1', 'order', 'executing', '[{"name": "pay", "status": "executing"}]', '{"n": 2}', '{}', 1);
SELECT sagaz.update_step_state('saga-1', 'pay', 'completed', '{"ok": true}');
SELECT sagaz.load_saga_state('saga-1');
SELECT * FROM sagaz.list_sagas('executing', 'ord');
SELECT * FROM sagaz.stuck_sagas('1 hour');
SELECT * FROM sagaz.get_saga_statistics();
SELECT sagaz.cleanup_completed_sagas('1 day', '{completed}');
SELECT sagaz.delete_saga_state('saga-1');
SELECT sagaz.create_consumer_group('ordered', 'saga', 'now');
SELECT sagaz.pause_consumer_group('ordered');
SELECT sagaz.resume_consumer_group('ordered');
SELECT sagaz.insert_event('a', 'one', '1', event_id => '11111111-1111-7111-8111-111111111111', available_at => '2020-01-01T00:00:00Z');
SELECT sagaz.insert_events('[{"saga_id": "a", "event_type": "two", "payload": {}, "event_id": "22222222-2222-7222-8222-222222222222", "available_at": "2020-01-01T00:00:00Z"}]');
INSERT INTO sagaz.emit (saga_id, event_type, payload, event_id) VALUES ('a', 'three', '1', '33333333-3333-7333-8333-333333333333');
SELECT event_type FROM sagaz.emit;
SELECT sagaz.uuidv7();
SELECT sagaz.get_pending_count();
SELECT batch_id FROM sagaz.claim_batch('w', 1) \gset
SELECT sagaz.extend_batch(:batch_id, 'w', '1 hour');
SELECT sagaz.release_batch(:batch_id, 'w', 'down');
SELECT batch_id FROM sagaz.claim_batch('w') LIMIT 1 \gset
SELECT sagaz.mark_sent('{11111111-1111-7111-8111-111111111111}', 'w');
SELECT sagaz.mark_failed('{22222222-2222-7222-8222-222222222222}', 'w', 'bad');
SELECT * FROM sagaz.get_stuck_events('0');
SELECT sagaz.finish_batch(:batch_id, 'w');
SELECT batch_id FROM sagaz.claim_batch('w', consumer_group => 'ordered') LIMIT 1 \gset
SELECT sagaz.mark_failed('{11111111-1111-7111-8111-111111111111}', 'w', 'bad', 'ordered');
SELECT sagaz.release_stuck_events('0', 'ordered');
SELECT * FROM sagaz.update_event_status('22222222-2222-7222-8222-222222222222', 'dead_letter', 'no');
SELECT * FROM sagaz.get_dead_letter_events();
SELECT sagaz.requeue_dead_letters(event_type => 'two', reason => 'again');
SELECT * FROM sagaz.get_event('22222222-2222-7222-8222-222222222222');
SELECT * FROM sagaz.get_events_by_saga('a');
SELECT * FROM sagaz.explain_event('22222222-2222-7222-8222-222222222222');
SELECT * FROM sagaz.new_events(), sagaz.new_events(pg_catalog.pg_current_snapshot()) AS n;
SELECT * FROM sagaz.outbox_events WHERE event_id OPERATOR(pg_catalog.=) '33333333-3333-7333-8333-333333333333';
SELECT * FROM sagaz.outbox_debezium;
SELECT * FROM sagaz.get_outbox_statistics();
SELECT status FROM sagaz.health_check();
SELECT sagaz.archive_sent_events('0');
SELECT sagaz.check_and_insert_inbox('e', 'c', 'topic', 'type', '{}');
SELECT sagaz.cleanup_inbox('0');
CALL sagaz.wait_for_events('0', available => NULL);
SELECT sagaz.activate();
SELECT * FROM sagaz.adopt('public');
CREATE ROLE worker;
SELECT sagaz.grant_access('worker', 'consumer');
SELECT sagaz.revoke_access('worker', 'consumer');
CREATE FUNCTION public.handle(events sagaz.outbox_event[]) RETURNS void LANGUAGE sql AS '';
SELECT sagaz.create_delivery('d', 'public.handle(sagaz.outbox_event[])', 'ordered');
SELECT sagaz.pause_delivery('d');
SELECT sagaz.resume_delivery('d');
SELECT * FROM sagaz.stat_delivery;
SELECT sagaz.drop_delivery('d');
SELECT sagaz.create_storage('m', 'memory://m');
SELECT sagaz.create_outbox_storage('file', 'sqlite:///tmp/sagaz-search-path.db');
SELECT * FROM sagaz.storages;
SELECT * FROM sagaz.backends();
SELECT sagaz.import_record('{"saga_id": "s", "saga_name": "n", "status": "pending", "created_at": "2024-01-01", "updated_at": "2024-01-01", "steps": [{"name": "a", "executed_at": "2024-01-01T00:00:00Z"}]}', 'saga', name) FROM (VALUES ('m'), ('native')) v (name);
SELECT sagaz.import_record('{"event_id": "44444444-4444-7444-8444-444444444444", "saga_id": "s", "event_type": "t", "payload": 1, "status": "sent", "created_at": "2024-01-01"}', 'outbox', name) FROM (VALUES ('m'), ('native')) v (name);
SELECT sagaz.import_records('[{"saga_id": "s2", "saga_name": "n", "status": "pending"}]', 'saga', 'skip', name) FROM (VALUES ('m'), ('native')) v (name);
SELECT (sagaz_internal.export_page('saga', NULL, 10)).record, (sagaz_internal.export_page('outbox', keys => '{00000000-0000-4000-8000-00000000000a}')).record;
SELECT sagaz_internal.merge_records('[{"saga_id": "s2", "saga_name": "other", "status": "failed"}]', 'saga', false, name) FROM (VALUES ('m'), ('native')) v (name);
SELECT sagaz_internal.remove_records('{s2}', 'saga', name) FROM (VALUES ('m'), ('native')) v (name);
SELECT sagaz.export_all('saga'), sagaz.export_all('saga', 'm');
SELECT sagaz.count_records('saga'), sagaz.checksum('saga');
SELECT * FROM sagaz.validate_transfer('native', 'm');
CALL sagaz.transfer('native', 'm', 'saga');
CALL sagaz.migrate('m', 'memory://other');
SELECT sagaz.cancel_transfer(transfer_id) FROM sagaz.transfers;
UPDATE sagaz.transfer SET state = 'failed', phase = 'copy' WHERE operation OPERATOR(pg_catalog.=) 'transfer';
CALL sagaz.resume_transfer(1);
CALL sagaz.retry_transfer_errors(1);
SELECT sagaz.create_delivery('g', 'public.handle(sagaz.outbox_event[])'::regprocedure), sagaz.drop_delivery('g');
SELECT sagaz.create_delivery('f', 'file'), sagaz.drop_delivery('f');
SELECT sagaz.drop_storage('m'), sagaz.drop_storage('file');
SELECT sagaz.drop_consumer_group('ordered');
SQL
is($err, '', 'every call works');
is( $node->safe_psql('postgres', <<'SQL'), '', 'no function was left out');
SELECT proname FROM pg_proc
	WHERE pronamespace IN ('sagaz'::regnamespace, 'sagaz_internal'::regnamespace)
		AND prolang <> (SELECT oid FROM pg_language WHERE lanname = 'internal')
		AND prokind <> 'a' AND proname !~ '^(adopt_|access_)'
		-- it only raises, and what raises is not counted
		AND proname <> 'storage_refuse_unknown'
		AND prorettype <> 'fdw_handler'::regtype AND proname !~ '_validator$'
		AND oid NOT IN (SELECT funcid FROM pg_stat_user_functions)
SQL
is( $node->safe_psql('postgres', <<'SQL'), '', 'nothing in front was called');
SELECT funcname FROM pg_stat_user_functions
	WHERE schemaname = 'evil' AND funcname NOT IN ('types', 'make')
SQL
is( $node->safe_psql('postgres', <<'SQL'), 't', 'what stands in front raises');
SELECT to_regoperator('evil.=(text,text)') IS NOT NULL
	AND to_regprocedure('evil.clock_timestamp()') IS NOT NULL
	AND to_regclass('evil.outbox') IS NOT NULL
	AND to_regtype('evil.uuid') IS NOT NULL
SQL
($status, $out, $err) = $node->psql('postgres',
	q(SET search_path = evil, pg_catalog; SELECT 'a'::pg_catalog.text = 'b'::pg_catalog.text));
like($err, qr/evil was called/, 'it would have been seen');
$node->stop;

done_testing();
