# Another PostgreSQL, whatever is set there for the role, the database or the
# session: the same answers, with this extension there and with the library's
# tables; and what a URL may say of the connection.
use strict;
use warnings;

use IO::Socket::UNIX;
use PostgreSQL::Test::Utils;
use SagazTest;
use Test::More;
use Time::HiRes qw(time);

my $node = new_node('near', conf => "fsync = off");
plan skip_all => 'built without the PostgreSQL backend'
  if $node->safe_psql('postgres', q{SELECT count(*) FROM sagaz.backends() WHERE name = 'postgresql'}) eq '0';
my $other = new_node('far', conf => "fsync = off");
my $secret = 'Gr33nT0mato';

$other->safe_psql('postgres', <<"SQL");
CREATE ROLE app LOGIN SUPERUSER PASSWORD '$secret';
CREATE DATABASE library OWNER app;
SQL
my $version = $other->safe_psql('postgres', "SELECT current_setting('server_version_num')::int");

sub url
{
	my ($database, $more) = @_;

	return "postgresql://app:$secret@" . ($other->host =~ s{/}{%2F}gr) . ':' . $other->port . "/$database" . ($more // '');
}

# of sessions that tidy up there, whatever is set
my $unbound = '-c default_transaction_read_only=off -c statement_timeout=0 -c search_path=public';
my %database = (extension => 'postgres', tables => 'library');
$node->safe_psql('postgres', "SELECT sagaz.create_storage('$_', '" . url($database{$_}) . "')") for sort keys %database;
$node->safe_psql('postgres', "CREATE SCHEMA $_; IMPORT FOREIGN SCHEMA sagaz FROM SERVER $_ INTO $_") for sort keys %database;

# All that a storage does, with what settings could change of it: times, numbers,
# bytes, backslashes, arrays with the word NULL, nulls.
sub battery
{
	my ($s) = @_;
	my $id = '00000000-0000-4000-8000-00000000000';
	my $saga = q('{"saga_id": "NULL", "saga_name": "back\\\\slash ''quote'' é", "status": "executing",
		"steps": [{"name": "one", "status": "completed", "result": {"n": 0.1234567890123456789, "e": 1e-7}, "executed_at": "2024-02-29T23:59:59.678901+00:00"}],
		"context": {"a": null, "x": "\\\\\\\\x41"}, "metadata": {}, "created_at": "2024-02-29T23:59:59.678901+05:30", "updated_at": "2024-03-31T02:30:00+00:00"}');

	return <<"SQL";
SELECT sagaz.import_record($saga, 'saga', storage => '$s');
SELECT sagaz.import_record(format('{"event_id": "$id%s", "saga_id": "NULL", "event_type": "E", "payload": 1.10, "status": "pending", "created_at": "2024-02-29T23:59:59.67890%s+00:00"}', i, i)::jsonb, 'outbox', storage => '$s') FROM generate_series(1, 2) i;
SELECT sagaz.load_saga_state('NULL', '$s'), sagaz.load_saga_state('none', '$s');
SELECT sagaz.export_all('saga', '$s');
SELECT saga_id, saga_name, created_at FROM sagaz.list_sagas(saga_name => 'SLASH', storage => '$s');
SELECT saga_id, context FROM $s.sagas WHERE saga_id IN ('NULL', 'none');
SELECT sagaz.update_step_state('NULL', 'one', 'failed', result => '{"b": [1e3, null]}', executed_at => '2024-10-27 01:30:00.5+00', storage => '$s');
SELECT sagaz.load_saga_state('NULL', '$s')->'steps';
SELECT event_id, payload, created_at, headers FROM sagaz.get_events_by_saga('NULL', storage => '$s') ORDER BY 1;
WITH c AS (SELECT * FROM sagaz.claim_batch('w', 10, storage => '$s')) SELECT array_agg(event_id ORDER BY event_id) FROM c;
SELECT sagaz.mark_failed('{${id}1}', 'w', 'it\\''s \\\\', storage => '$s');
SELECT status, last_error, retry_count FROM sagaz.get_event('${id}1', storage => '$s');
SELECT sagaz.mark_sent('{${id}2}', 'w', storage => '$s');
SELECT sagaz.get_pending_count(storage => '$s'), sagaz.count_records('saga', '$s'), sagaz.count_records('outbox', '$s');
SELECT pending, sent, failed FROM sagaz.get_outbox_statistics(storage => '$s');
SELECT * FROM sagaz.get_saga_statistics('$s');
SELECT sagaz.checksum('saga', '$s') IS NOT NULL, sagaz.delete_saga_state('NULL', '$s'), sagaz.delete_saga_state('NULL', '$s');
SQL
}

# What all of that gives; afterwards nothing is there.
sub run
{
	my ($s) = @_;
	my ($out, $err) = ('', '');
	my $text = battery($s);

	$node->psql('postgres', $text, stdout => \$out, stderr => \$err);
	local $ENV{PGOPTIONS} = $unbound;
	$other->safe_psql($database{$s}, $s eq 'tables' ? 'TRUNCATE saga_outbox, sagaz_event, sagaz_saga, sagas CASCADE'
		: 'DROP EXTENSION sagaz CASCADE; CREATE EXTENSION sagaz');
	return $out . ($err =~ s/^psql:[^:]*:\d+: //gmr);
}

my %expected = map { $_ => run($_) } sort keys %database;
unlike($expected{$_}, qr/ERROR|WARNING/, "$_: all works") or diag $expected{$_} for sort keys %expected;
like($expected{$_}, qr/2024-02-29T18:29:59.678901\+00:00/, "$_: and has microseconds") for sort keys %expected;

# What an administrator may set, each with what would do most harm.
my @settings = (
	[ statement_timeout => '1ms' ], [ lock_timeout => '1ms' ], [ idle_in_transaction_session_timeout => '1ms' ],
	[ idle_session_timeout => '1ms' ], [ search_path => 'nowhere' ], [ search_path => 'pg_temp, public' ],
	[ default_transaction_read_only => 'on' ], [ default_transaction_isolation => 'serializable' ],
	[ default_transaction_deferrable => 'on' ], [ row_security => 'on' ], [ DateStyle => 'SQL, DMY' ], [ DateStyle => 'German' ],
	[ TimeZone => 'Asia/Kathmandu' ], [ IntervalStyle => 'iso_8601' ], [ bytea_output => 'escape' ], [ extra_float_digits => '-15' ],
	[ client_encoding => 'LATIN1' ], [ standard_conforming_strings => 'off' ], [ backslash_quote => 'off' ], [ array_nulls => 'off' ],
	[ transform_null_equals => 'on' ], [ exit_on_error => 'on' ], [ client_min_messages => 'debug5' ], [ quote_all_identifiers => 'on' ],
	[ escape_string_warning => 'on' ], [ synchronous_commit => 'off' ], [ application_name => 'other' ], [ check_function_bodies => 'off' ],
	[ enable_seqscan => 'off' ], [ enable_indexscan => 'off' ], [ work_mem => '64kB' ], [ plan_cache_mode => 'force_generic_plan' ],
	[ lc_numeric => 'C' ], [ xmlbinary => 'hex' ], [ force_parallel_mode => 'on', 160000 ], [ debug_parallel_query => 'on', undef, 160000 ],
	[ transaction_timeout => '1ms', undef, 170000 ], [ restrict_nonsystem_relation_kind => 'view, foreign-table', undef, 170000 ]);
for my $setting (@settings)
{
	my ($name, $value, $before, $since) = @$setting;
	next if ($before && $version >= $before) || ($since && $version < $since);

	$other->safe_psql('postgres', "ALTER ROLE app SET $name = " . ($name eq 'search_path' ? $value : "'$value'"));
	is(run($_), $expected{$_}, "$_: $name = $value") for sort keys %database;
	$other->safe_psql('postgres', "ALTER ROLE app RESET $name");
}
$ENV{PGOPTIONS} = $unbound;
$other->safe_psql('postgres', "ALTER DATABASE $_ SET statement_timeout = '1ms'; ALTER DATABASE $_ SET default_transaction_read_only = on; ALTER ROLE app IN DATABASE $_ SET DateStyle = 'German'")
  for values %database;
delete $ENV{PGOPTIONS};
is(run($_), $expected{$_}, "$_: of the database") for sort keys %database;
$ENV{PGOPTIONS} = $unbound;
$other->safe_psql('postgres', "ALTER DATABASE $_ RESET ALL; ALTER ROLE app IN DATABASE $_ RESET ALL") for values %database;

delete $ENV{PGOPTIONS};

# A time that this session did not have is not one that the connection keeps.
like(error_of($node, "SET sagaz.command_timeout = '1ms'; SELECT sagaz.count_records('saga', 'tables'); RESET sagaz.command_timeout; SELECT 'after', sagaz.count_records('saga', 'tables')"),
	qr/^(?!.*after)/s, 'a short command_timeout');
is($node->safe_psql('postgres', "SELECT sagaz.count_records('saga', 'tables'); SET sagaz.command_timeout = '20s'; SELECT sagaz.count_records('saga', 'tables')"), "0\n0", 'and another');

# ----------------------------------------------------------------------
# URLs

my $named = url('library', '?application_name=shop&connect_timeout=3&options=-c%20work_mem%3D1MB%20--geqo%3Doff&schema=My%20Schema');
$other->safe_psql('library', 'CREATE SCHEMA "My Schema" AUTHORIZATION app');
is($node->safe_psql('postgres', "SELECT sagaz.save_saga_state('s', 'N', 'pending', storage => '$named')"), '1', 'a URL with all of it');
is($other->safe_psql('library', 'SELECT count(*) FROM "My Schema".sagas'), '1', 'whose schema is decoded');
{
	my $session = $node->background_psql('postgres');
	$session->query_safe("SELECT sagaz.count_records('saga', '$named')");
	is($other->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'shop'"), '1', 'whose name is seen there');
	$session->quit;
}
my %bad = (
	'-c search_path=public' => 'search_path is fixed', '-csearch_path=x' => 'is fixed', '--Statement-Timeout=1' => 'Statement-Timeout is fixed',
	'-c  client_encoding=LATIN1' => 'client_encoding is fixed', '-c geqo=off -c row_security=on' => 'row_security is fixed',
	'-c a=b\\ c -c DateStyle=German' => 'DateStyle is fixed', '-d 5' => 'Only settings', 'geqo=off' => 'Only settings', '-c geqo' => 'are missing', '-c' => 'are missing',
	'-c sear\\ch_path=x' => 'are missing');
for my $options (sort keys %bad)
{
	like(error_of($node, "CREATE SERVER x FOREIGN DATA WRAPPER sagaz_postgresql OPTIONS (options \$o\$$options\$o\$)"), qr/SZ009.*\Q$bad{$options}\E/s, "refused: $options");
}
like(error_of($node, "SELECT sagaz.count_records('saga', '" . url('library', '?options=-c%20row_security%3Don') . "')"), qr/SZ009.*row_security is fixed/s, 'in a URL, too');
like(error_of($node, "SELECT sagaz.count_records('saga', '" . url('library', '?options=-c%20no_such_setting%3Don') . "')"), qr/SZ001.*no_such_setting/s, 'what the server does not know');
like(error_of($node, "SELECT sagaz.count_records('saga', '" . url('library', "?connect_timeout=$_") . "')"), qr/SZ009.*connect_timeout/s, "connect_timeout=$_") for qw(-1 x 99999999999);

# nobody answers
my $listener = IO::Socket::UNIX->new(Local => $node->basedir . '/.s.PGSQL.5432', Listen => 1) or die $!;
my $start = time;
like(error_of($node, "SELECT sagaz.count_records('saga', 'postgresql://app:x@" . ($node->basedir =~ s{/}{%2F}gr) . "/postgres?connect_timeout=1')"), qr/SZ001/, 'nobody answers');
cmp_ok(time - $start, '<', 8, 'for as long as the URL says');

done_testing();
