# What a handler leaves behind in its session is gone before the next call, in
# the same transaction or in another one, and after one that failed.
use strict;
use warnings;

use SagazDelivery;
use SagazTest;
use Test::More;

my $node = new_node('session', conf => <<'CONF');
fsync = off
sagaz.poll_interval = 1h
sagaz.housekeeping_interval = 1h
sagaz.max_retries = 0
CONF

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

sub emit
{
	my ($count, $type) = @_;

	sql("SELECT count(sagaz.insert_event('s', '$type', '{}')) FROM generate_series(1, $count)");
}

# What there is, as an earlier call left it; then leave one of each.
sql(<<'SQL');
CREATE TABLE found (xact xid8 DEFAULT pg_current_xact_id(), event_type text, things text);
CREATE ROLE other;
CREATE SEQUENCE numbers CACHE 20;
CREATE FUNCTION things() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	things text[] := '{}';
BEGIN
	IF to_regclass('pg_temp.things') IS NOT NULL THEN
		things := things || 'table'::text;
	END IF;
	IF EXISTS (SELECT FROM pg_type WHERE typname = 'temporary') THEN
		things := things || 'type'::text;
	END IF;
	IF EXISTS (SELECT FROM pg_prepared_statements) THEN
		things := things || 'statement'::text;
	END IF;
	IF EXISTS (SELECT FROM pg_cursors WHERE is_holdable) THEN
		things := things || 'cursor'::text;
	END IF;
	IF coalesce(current_setting('my.setting', true), '') <> '' THEN
		things := things || 'setting'::text;
	END IF;
	IF current_user <> 'postgres' OR session_user <> 'postgres' THEN
		things := things || 'role'::text;
	END IF;
	RETURN array_to_string(things, ' ');
END $$;
CREATE FUNCTION leave(events sagaz.outbox_event[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.found (event_type, things) VALUES (events[1].event_type, public.things());
	CREATE TEMPORARY TABLE things AS SELECT repeat('x', 10000) AS x;
	CREATE TYPE pg_temp.temporary AS ENUM ('x');
	EXECUTE 'PREPARE thing AS SELECT 1';
	EXECUTE 'DECLARE thing CURSOR WITH HOLD FOR SELECT 1';
	PERFORM pg_advisory_lock(1), pg_advisory_lock_shared(2), pg_advisory_lock(1);
	PERFORM set_config('my.setting', 'x', false), nextval('public.numbers');
	IF events[1].event_type = 'role' THEN
		PERFORM set_config('role', 'other', false);
	ELSE
		PERFORM set_config('session_authorization', 'other', false);
	END IF;
	IF events[1].event_type = 'fail' THEN
		RAISE 'fail';
	END IF;
END $$;
SELECT sagaz.create_delivery('d', 'public.leave(sagaz.outbox_event[])', batch_size => 1);
SQL

# What is left where others can see it, once all is delivered.
sub nothing_is_left
{
	my ($what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	query_is($node, 'postgres', q{SELECT state, lag_events FROM sagaz.stat_delivery}, 'idle|0',
		"$what: delivered");
	is(sql(q{SELECT locktype, objid FROM pg_locks WHERE locktype = 'advisory'}), '', "$what: no lock");
	is(sql(q{SELECT relname FROM pg_class WHERE relnamespace::regnamespace::text ~ '^pg_(toast_)?temp'
			UNION ALL SELECT typname FROM pg_type WHERE typname = 'temporary'}), '',
		"$what: no temporary object");
}

query_is($node, 'postgres', q{SELECT pid IS NOT NULL FROM sagaz.stat_delivery}, 't', 'the worker is there');
my $pid = worker_pid($node, 'postgres', 'd');
emit(5, 'role');
nothing_is_left('calls that share a transaction');
emit(1, 'role') for 1 .. 3;
nothing_is_left('calls that do not');
is(sql('SELECT count(DISTINCT xact) < count(*), count(DISTINCT xact) > 3 FROM found'), 't|t', 'there were both');
emit(4, 'authorization');
nothing_is_left('SET SESSION AUTHORIZATION');
is(sql('SELECT count(*), string_agg(DISTINCT things, NULL) FROM found'), '12|', 'no call found anything');
emit(1, 'fail');
emit(3, 'fail');
nothing_is_left('calls that fail');
is(sql(q{SELECT count(*) FROM sagaz.get_dead_letter_events() WHERE last_error = 'fail'}), '4', 'and do so each');
emit(1, 'role');
nothing_is_left('afterwards');
is(sql('SELECT count(*), string_agg(DISTINCT things, NULL) FROM found'), '13|', 'nothing is found');
is(sql('SELECT last_value % 20 FROM numbers'), '0', 'numbers of a sequence are fetched anew');
cmp_ok(sql('SELECT last_value FROM numbers'), '>', 60, 'for each batch');

# None of this is for LISTEN, which a background process may not.
sql(<<'SQL');
CREATE OR REPLACE FUNCTION leave(events sagaz.outbox_event[]) RETURNS void LANGUAGE plpgsql AS
	$$ BEGIN EXECUTE 'LISTEN something'; END $$;
SQL
emit(1, 'listen');
query_is($node, 'postgres', q{SELECT regexp_replace(last_error, '^event [-0-9a-f]{36}: ', '') FROM sagaz.stat_delivery},
	'cannot execute LISTEN within a background process', 'LISTEN is refused');
is(worker_pid($node, 'postgres', 'd'), $pid, 'it was one process all the time');
$node->stop;

done_testing();
