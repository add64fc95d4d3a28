# Roles that own a delivery, its function, a storage or the extension are
# renamed, dropped or give away what they have; schemas are renamed; event
# triggers look on, and object.  What is done with whose rights stays as it was,
# nothing is done half, and what stands still says why.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use SagazDelivery;
use SagazTest;
use Test::More;

my $node = new_node('owners', conf => <<'CONF');
max_worker_processes = 20
fsync = off
sagaz.poll_interval = 1h
CONF

sub sql
{
	my ($sql, $db) = @_;

	return $node->safe_psql($db // 'postgres', $sql);
}

sub emit
{
	my ($type, $db) = @_;

	sql("SELECT sagaz.insert_event('s', '$type', '{}')", $db);
}

# What was handled, by which function and as whom.
sub calls_are
{
	my ($expected, $what, $db) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	query_is($node, $db // 'postgres', q{SELECT string_agg(concat_ws(' ', who, event_type), ', ' ORDER BY n) FROM calls}, $expected, $what);
	sql('TRUNCATE calls', $db);
}

sub halted_for
{
	my ($reason, $what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$node->reload;
	query_is($node, 'postgres', q{SELECT state, pid IS NULL, last_error FROM sagaz.stat_delivery WHERE name = 'd'}, "halted|t|$reason", $what);
}

my $objects = <<'SQL';
CREATE TABLE calls (who text, event_type text, n bigserial);
GRANT INSERT ON calls TO PUBLIC;
GRANT USAGE ON SEQUENCE calls_n_seq TO PUBLIC;
CREATE SCHEMA shop;
GRANT CREATE, USAGE ON SCHEMA shop TO app, maker, heir;
SELECT sagaz.grant_access(r, 'operator') FROM unnest('{app,maker,heir}'::text[]) r;
GRANT USAGE ON FOREIGN DATA WRAPPER sagaz_sqlite TO app;
SET ROLE maker;
CREATE FUNCTION shop.h(sagaz.outbox_event[]) RETURNS void LANGUAGE sql AS
	$$ INSERT INTO public.calls SELECT current_user, event_type FROM unnest($1) $$;
SQL
sql("CREATE ROLE app LOGIN; CREATE ROLE maker LOGIN; CREATE ROLE heir LOGIN; $objects");
sql(q{SET ROLE app; SELECT sagaz.create_delivery('d', 'shop.h(sagaz.outbox_event[])')});
emit('a');
calls_are('app a', 'a delivery of one role to a function of another');

# ----------------------------------------------------------------------
# Schemas

sql('ALTER SCHEMA shop RENAME TO "the shop"; CREATE SCHEMA shop AUTHORIZATION heir');
sql(q{SET ROLE heir; CREATE FUNCTION shop.h(sagaz.outbox_event[]) RETURNS void LANGUAGE sql AS 'SELECT 1/0'});
emit('a');
calls_are('app a', 'a schema that is renamed takes its function along');
is(sql('SELECT handler FROM sagaz.delivery'), '"the shop".h(sagaz.outbox_event[])', 'whose name is kept');
sql('DROP SCHEMA shop CASCADE; ALTER SCHEMA "the shop" RENAME TO shop');
sql('ALTER SCHEMA shop OWNER TO heir');
emit('b');
calls_are('app b', 'a schema that is given away says nothing of its functions');
is(sql(q{SELECT handler FROM sagaz.delivery}), 'shop.h(sagaz.outbox_event[])', 'and back');

# The extension's own: it is found by its name, so it keeps it.
like(error_of($node, 'ALTER EXTENSION sagaz SET SCHEMA public'), qr/ERROR:  0A000: .*does not support SET SCHEMA/, 'the extension is not relocatable');
like(error_of($node, 'ALTER SCHEMA sagaz RENAME TO old'), qr/ERROR:  0A000: schema "sagaz" of the extension sagaz cannot be renamed/, 'nor is its schema renamed');
like(error_of($node, q{DO $$ BEGIN EXECUTE 'ALTER SCHEMA sagaz RENAME TO old'; END $$}), qr/ERROR:  0A000/, 'in whatever way');
sql('CREATE DATABASE none');
sql('CREATE SCHEMA sagaz; ALTER SCHEMA sagaz RENAME TO old', 'none');

# Where that was not seen, for want of the module, nothing is written into a
# schema that somebody else gives that name.
my $late = new_node('late', preload => 0, conf => 'fsync = off');
$late->safe_psql('postgres', <<'SQL');
CREATE ROLE evil LOGIN;
CREATE ROLE heir LOGIN;
GRANT CREATE ON DATABASE postgres TO evil;
ALTER SCHEMA sagaz RENAME TO old;
GRANT USAGE ON SCHEMA old TO heir;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA old TO heir;
SET ROLE evil;
CREATE SCHEMA sagaz;
GRANT USAGE ON SCHEMA sagaz TO PUBLIC;
CREATE FUNCTION sagaz.boom() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'ALTER ROLE evil SUPERUSER'; RETURN new; END $$;
SQL
$late->safe_psql('postgres', <<'SQL');
DO $$
DECLARE
	t record;
BEGIN
	FOR t IN SELECT relname, relkind FROM pg_class WHERE relnamespace = 'old'::regnamespace AND relkind IN ('r', 'S') LOOP
		IF t.relkind = 'S' THEN
			EXECUTE format('CREATE SEQUENCE sagaz.%I', t.relname);
		ELSE
			EXECUTE format('CREATE TABLE sagaz.%I (LIKE old.%1$I)', t.relname);
			EXECUTE format('CREATE TRIGGER boom BEFORE INSERT OR UPDATE OR DELETE ON sagaz.%I FOR EACH ROW EXECUTE FUNCTION sagaz.boom()', t.relname);
		END IF;
		EXECUTE format('ALTER TABLE sagaz.%I OWNER TO evil', t.relname);
	END LOOP;
END $$;
SQL
for my $call (q{insert_event('s', 'x', '{}')}, q{save_saga_state('s', 'S', 'pending')}, q{claim_batch('w')}, q{archive_sent_events('0')}, q{get_saga_statistics()},
	q{create_consumer_group('g')}, q{create_delivery('d', 'x')}, q{load_saga_state('s')}, q{requeue_dead_letters()})
{
	my ($status, $out, $err) = $late->psql('postgres', "SELECT old.$call", extra_params => [ '-U', 'heir' ]);

	like($err, qr/ERROR:  .*"?sagaz.* does not exist|ERROR:  there is no schema "sagaz" of the extension/, "$call does not take it for its own");
}
is($late->safe_psql('postgres', q{SELECT rolsuper FROM pg_roles WHERE rolname = 'evil'}), 'f', 'and nobody has become a superuser');
$late->safe_psql('postgres', 'DROP SCHEMA sagaz CASCADE; ALTER SCHEMA old RENAME TO sagaz');
is($late->safe_psql('postgres', q{SELECT sagaz.save_saga_state('s', 'S', 'pending')}), '1', 'with its name back it works');
$late->stop;

# ----------------------------------------------------------------------
# The owner of the delivery

sql('ALTER ROLE app RENAME TO cart');
halted_for('its owner, role "app", does not exist or is another role now', 'its owner has another name');
sql('CREATE ROLE app LOGIN SUPERUSER');
emit('held');
halted_for('its owner, role "app", does not exist or is another role now', 'which another role has got');
sql('SELECT sagaz.resume_delivery(name) FROM sagaz.delivery');
halted_for('its owner, role "app", does not exist or is another role now', 'whoever resumes it');
is(sql('SELECT count(*) FROM calls'), '0', 'nothing runs as that one');
sql('DROP ROLE app; ALTER ROLE cart RENAME TO app');
sql('SELECT sagaz.resume_delivery(name) FROM sagaz.delivery');
calls_are('app held', 'its name back, nothing was lost');

# Functions and servers change hands; deliveries have no owner for REASSIGN.
sql('REASSIGN OWNED BY maker TO heir');
halted_for('function shop.h(sagaz.outbox_event[]) belongs to role "heir" now', 'REASSIGN OWNED of the function\'s owner');
sql(q{REASSIGN OWNED BY heir TO maker; REASSIGN OWNED BY app TO heir; SELECT sagaz.resume_delivery('d')});
emit('a');
calls_are('app a', 'REASSIGN OWNED of its own leaves it the delivery');

sql(q{GRANT USAGE ON FOREIGN DATA WRAPPER sagaz_sqlite TO app; GRANT pg_read_server_files, pg_write_server_files TO app});
my $file = PostgreSQL::Test::Utils::tempdir_short() . '/a.db';
sql(qq{SET ROLE app; SELECT sagaz.create_outbox_storage('file', 'sqlite://$file'); SELECT sagaz.create_consumer_group('file', start_from => 'now');
	SELECT sagaz.create_delivery('f', 'file', 'file')});
emit('c');
query_is($node, 'postgres', q{SELECT sagaz.count_records('outbox', 'file')}, '1', 'a storage of its own');
calls_are('app c', 'beside it');
for my $drop ('DROP OWNED BY app', 'DROP ROLE app')
{
	like(error_of($node, $drop), qr/ERROR:  2BP01: .*(constraint delivery f depends on server file|objects depend on it)/s, "$drop is refused");
}
sql('REASSIGN OWNED BY app TO heir');
is(sql(q{SELECT state, last_error FROM sagaz.stat_delivery WHERE name = 'f'}), 'halted|storage file belongs to role "heir" now', 'REASSIGN OWNED of a storage\'s owner');
sql('ALTER SERVER file OWNER TO app');

like(error_of($node, 'DROP OWNED BY app CASCADE; DROP OWNED BY maker; DROP ROLE maker'), qr/ERROR:  2BP01.*constraint delivery d depends on function/s, 'DROP OWNED of the function\'s owner');
sql('DROP ROLE app');
halted_for('its owner, role "app", does not exist or is another role now', 'its owner is gone');
is(sql(q{SELECT last_error FROM sagaz.stat_delivery WHERE name = 'f'}), 'its owner, role "app", does not exist or is another role now', 'so for all it had');
is(sql(q{SELECT count(*) FROM sagaz.storages WHERE name = 'file'}), '0', 'and the storage');
sql('CREATE ROLE app LOGIN');
emit('held');
halted_for('its owner, role "app", does not exist or is another role now', 'a new role of the name has no part in it');
sql(q{SELECT sagaz.grant_access('app', 'operator')});
like(error_of($node, q{SET ROLE app; SELECT sagaz.resume_delivery('d')}), qr/ERROR:  42501: must be owner of delivery "d"/, 'and may not change it');
sql('SELECT sagaz.drop_delivery(name) FROM sagaz.delivery');
is(sql(q{SELECT consumer_group, paused_at IS NULL FROM sagaz.consumer_group ORDER BY 1}), "file|t\nsagaz-workers|t", 'groups have no owner and are there');
sql(q{GRANT USAGE ON SCHEMA shop TO app; SET ROLE app; SELECT sagaz.create_delivery('d', 'shop.h(sagaz.outbox_event[])')});
calls_are('app held', 'a delivery of the new role goes on where the old one stood');

# ----------------------------------------------------------------------
# Event triggers

sql(<<'SQL');
CREATE TABLE seen (event text, tag text, who text, object text);
GRANT INSERT ON seen TO PUBLIC;
CREATE FUNCTION on_end() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.seen SELECT tg_event, tg_tag, current_user, object_identity FROM pg_event_trigger_ddl_commands();
END $$;
CREATE FUNCTION on_drop() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.seen SELECT tg_event, tg_tag, current_user, object_identity FROM pg_event_trigger_dropped_objects();
END $$;
-- as a superuser might make one of a function of somebody else's
ALTER FUNCTION on_end OWNER TO maker;
ALTER FUNCTION on_drop OWNER TO maker;
CREATE EVENT TRIGGER at_end ON ddl_command_end EXECUTE FUNCTION on_end();
CREATE EVENT TRIGGER at_drop ON sql_drop EXECUTE FUNCTION on_drop();
GRANT USAGE ON FOREIGN DATA WRAPPER sagaz_memory TO heir;
GRANT TEMP ON DATABASE postgres TO heir;
GRANT CREATE, USAGE ON SCHEMA shop TO heir, app;
SQL
like(error_of($node, q{SET ROLE heir; CREATE EVENT TRIGGER mine ON ddl_command_end EXECUTE FUNCTION on_end()}), qr/ERROR:  42501/, 'no tenant makes one');
my @calls = (
	q{create_storage('m', 'memory://m')}, q{create_consumer_group('z', start_from => 'now')}, q{create_delivery('e', 'shop.h(sagaz.outbox_event[])', 'z')}, q{pause_delivery('e')}, q{resume_delivery('e')},
	q{drop_delivery('e')}, q{drop_storage('m')}, q{drop_consumer_group('z')}, q{archive_sent_events('0')},
	q{cleanup_inbox('0')}, q{cleanup_completed_sagas('0')}, q{activate()}, q{requeue_dead_letters()});
sql('TRUNCATE seen');
# alone, and within a command that is one for event triggers itself
sql("SET ROLE heir; SELECT sagaz.$_") for @calls;
sql("SET ROLE heir; CREATE TEMP TABLE t AS SELECT sagaz.$calls[$_]::text AS r$_") for 0 .. $#calls;
is(sql(q{SELECT count(*), string_agg(DISTINCT who, ' ') FROM seen WHERE who <> 'heir'}), '0|', 'none sees more rights than the caller\'s');
is(sql(q{SELECT string_agg(DISTINCT tag || ' ' || object, ', ' ORDER BY tag || ' ' || object) FROM seen WHERE object !~ 'pg_temp|pg_toast' AND object <> 't'}),
	'DROP SERVER m, DROP USER MAPPING heir on server m', 'they see what is said in SQL');
sql('TRUNCATE seen');
emit('a');
calls_are('app a', 'the worker has its rights too');
is(sql('SELECT count(*) FROM seen'), '0', 'and says nothing of that kind');

# The one that DROP FUNCTION takes along has a name.
sql('DROP FUNCTION shop.h CASCADE');
is(sql(q{SELECT string_agg(object, ', ' ORDER BY object) FROM seen}), '"delivery d" on sagaz.delivery_binding, shop.h(sagaz.outbox_event[])', 'a delivery\'s tie that CASCADE drops is seen');
sql('TRUNCATE seen');
sql(q{SELECT sagaz.drop_delivery(name) FROM sagaz.delivery});

# One that objects: the command is undone as a whole.
sql(<<'SQL');
CREATE FUNCTION no() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no %', tg_tag USING ERRCODE = 'P0007'; END $$;
SET ROLE heir;
CREATE FUNCTION shop.h(sagaz.outbox_event[]) RETURNS void LANGUAGE sql AS
	$$ INSERT INTO public.calls SELECT current_user, event_type FROM unnest($1) $$;
SELECT sagaz.create_storage('m', 'memory://m');
SELECT sagaz.create_delivery('d', 'shop.h(sagaz.outbox_event[])');
RESET ROLE;
SELECT sagaz.save_saga_state('s', 'S', 'completed');
CREATE EVENT TRIGGER no_end ON ddl_command_end EXECUTE FUNCTION no();
SQL
like(error_of($node, 'SET ROLE heir; DROP FUNCTION shop.h CASCADE'), qr/P0007: no DROP FUNCTION/, 'an event trigger objects');
like(error_of($node, q{SET ROLE heir; SELECT sagaz.drop_storage('m')}), qr/P0007: no DROP USER MAPPING/, 'to drop_storage()');
is(sql(q{SELECT count(*) FROM pg_user_mappings WHERE srvname = 'm'}), '1', 'which leaves all there was');
emit('a');
calls_are('heir a', 'the delivery is what it was');
sql(qq{ALTER EVENT TRIGGER no_end DISABLE; SELECT sagaz.create_storage('kept', 'sqlite://$file'), sagaz.create_storage('next', 'sqlite://$file.next')});
sql('ALTER EVENT TRIGGER no_end ENABLE');
like(error_of($node, q{CALL sagaz.migrate('kept', 'next', switch => true)}), qr/SZ004: transfer 1 failed: no ALTER SERVER/, 'to the switch of a migration');
is(sql(q{SELECT state FROM sagaz.transfers}), 'failed', 'which has failed');
is(sql(q{SHOW sagaz.saga_storage}), 'native', 'the default is what it was');
is(sql(q{SELECT setconfig FROM pg_db_role_setting}), '', 'for other sessions, too');
is(sql(q{SELECT sagaz.save_saga_state('t', 'T', 'pending')}), '1', 'and it is written to');
sql('DROP EVENT TRIGGER no_end, at_end, at_drop');
sql('CALL sagaz.resume_transfer(1)');
is(sql(q{SHOW sagaz.saga_storage}), 'next', 'without the trigger it goes on');
sql(q{ALTER DATABASE postgres RESET ALL});

# ----------------------------------------------------------------------
# The owner of the extension

sql('CREATE ROLE admin SUPERUSER LOGIN; CREATE DATABASE other');
sql('SET ROLE admin; CREATE EXTENSION sagaz', 'other');
sql($objects =~ s/CREATE SCHEMA shop/RESET ROLE; CREATE SCHEMA shop/r, 'other');
sql('SET ROLE maker; SELECT sagaz.create_delivery(\'d\', \'shop.h(sagaz.outbox_event[])\')', 'other');
emit('a', 'other');
calls_are('maker a', 'an extension of somebody else', 'other');
like(error_of($node, 'DROP OWNED BY admin', database => 'other'), qr/ERROR:  2BP01/, 'DROP OWNED of the extension\'s owner is refused');
like(error_of($node, 'REASSIGN OWNED BY admin TO heir', database => 'other'), qr/ERROR:  42501: .*foreign-data wrapper/, 'REASSIGN OWNED to who is no superuser, too');
sql('CREATE ROLE next SUPERUSER; REASSIGN OWNED BY admin TO next', 'other');
emit('b', 'other');
calls_are('maker b', 'REASSIGN OWNED gives sagaz to another superuser', 'other');
is(sql(q{SELECT sagaz.save_saga_state('s', 'S', 'pending'), sagaz.delete_saga_state('s')}, 'other'), '1|t', 'and it works');
is(sql(q{SELECT status FROM sagaz.health_check()}, 'other'), 'healthy', 'healthy');
like(error_of($node, q{SET ROLE maker; SELECT sagaz.create_storage('m', 'memory://m')}, database => 'other'), qr/ERROR:  42501/, 'with the rights there were');
sql('DROP ROLE admin; ALTER ROLE next RENAME TO newborn');
emit('c', 'other');
calls_are('maker c', 'renamed too', 'other');
sql('DROP EXTENSION sagaz CASCADE', 'other');

$node->stop;
done_testing();
