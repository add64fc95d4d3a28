# The launcher: workers come and go with their deliveries, keep out of the way
# of commands that need a database for themselves, and come back when they are
# ended or when there was no room for them.
use strict;
use warnings;

use SagazDelivery;
use SagazTest;
use Test::More;

# A statement that fails while anybody is connected to the database it names.
sub at_once
{
	my ($node, $name, $sql) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	timed(4, $name, sub {
		my ($status, $out, $err) = $node->psql('postgres', $sql);
		is($status, 0, "$name succeeds") or diag($err);
	});
}

sub log_end
{
	return -s $_[0]->logfile;
}

sub setting
{
	my ($node, $name, $value) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET $name = '$value'");
	$node->reload;
}

sub count_effects
{
	return $_[0]->safe_psql($_[1], 'SELECT count(*) FROM effects');
}

# So many events in batches of ten that take a tenth of a second each.
sub keep_busy
{
	my ($node, $db, $count) = @_;

	emit_events($node, $db, $count);
	query_is($node, 'postgres',
		"SELECT state FROM pg_stat_activity WHERE backend_type = 'sagaz worker' AND datname = '$db'",
		'active', "the delivery of $db is busy");
}

my $node = new_node('launcher', create => 0, conf => <<'CONF');
fsync = off
max_worker_processes = 40
sagaz.retry_backoff = 100ms
CONF

for my $end (q(SELECT sagaz.drop_delivery('d')), 'DROP EXTENSION sagaz CASCADE')
{
	subtest $end => sub {
		prepare_delivery($node, 'come');
		create_delivery($node, 'come', 'd');
		has_worker($node, 'come', 'd', 'a worker comes by itself');
		emit_events($node, 'come', 5);
		exactly_once($node, 'come', 'at first');
		$node->safe_psql('come', "BEGIN; $end; ROLLBACK");
		emit_events($node, 'come', 5);
		exactly_once($node, 'come', 'after a rollback');
		timed(4, $end, sub { $node->safe_psql('come', $end) });
		has_no_worker($node, 'come', 'd', 'the worker goes');
		at_once($node, 'DROP DATABASE', 'DROP DATABASE come');
	};
}

subtest 'rolled back' => sub {
	prepare_delivery($node, 'come');
	$node->safe_psql('come', <<'SQL');
BEGIN;
SELECT sagaz.create_delivery('d', 'public.handle(sagaz.outbox_event[])');
ROLLBACK;
SQL
	create_delivery($node, 'come', 'e');
	has_worker($node, 'come', 'e', 'the worker of another delivery comes');
	has_no_worker($node, 'come', 'd', 'a delivery rolled back has none');
	$node->safe_psql('come', <<'SQL');
CREATE SCHEMA other;
CREATE EXTENSION citext;
SQL
	for my $sql ('DROP SCHEMA other', 'DROP EXTENSION citext')
	{
		$node->safe_psql('come', "BEGIN; $sql; PREPARE TRANSACTION 'p'");
		is($node->safe_psql('come', "COMMIT PREPARED 'p'"), '',
			"$sql can be prepared");
	}
	my ($status, $out, $err) = $node->psql('come',
		"BEGIN; DROP EXTENSION sagaz CASCADE; PREPARE TRANSACTION 'p'");
	like($err, qr/cannot PREPARE/, 'DROP EXTENSION sagaz cannot');
	($status, $out, $err) = $node->psql('come', 'DROP SCHEMA sagaz CASCADE');
	like($err, qr/extension sagaz requires it/,
		'the schema goes only with the extension');
	is( $node->safe_psql('postgres', <<'SQL'), 'idle|', 'the launcher is idle');
SELECT state, datname FROM pg_stat_activity WHERE backend_type = 'sagaz launcher'
SQL
};

# The database of a busy delivery is renamed, copied and dropped.
subtest 'commands for a whole database' => sub {
	prepare_delivery($node, 'busy');
	create_delivery($node, 'busy', 'd', handler => 'handle_slowly', batch_size => 10);
	keep_busy($node, 'busy', 200);
	at_once($node, 'ALTER DATABASE RENAME', 'ALTER DATABASE busy RENAME TO moved');
	has_worker($node, 'moved', 'd', 'delivery goes on under the new name');
	query_is($node, 'moved', 'SELECT count(*) > 20 FROM effects', 't',
		'and has effects');

	my $offset = log_end($node);
	at_once($node, 'CREATE DATABASE TEMPLATE', 'CREATE DATABASE copy TEMPLATE moved');
	$node->reload;
	log_says($node, qr/outbox of database "copy" is not active/, $offset,
		'the copy was looked at and found inert');
	my $copied = count_effects($node, 'copy');
	cmp_ok($copied, '<', 200, 'there is something left in the copy');
	emit_events($node, 'copy', 10);
	exactly_once($node, 'moved', 'source');
	is(count_effects($node, 'copy'), $copied, 'the copy delivered nothing');
	has_no_worker($node, 'copy', 'd', 'it has no worker');
	$node->safe_psql('copy', 'SELECT sagaz.activate()');
	exactly_once($node, 'copy', 'copy, once activated');
	is(count_effects($node, 'copy'), 210, 'what is left has come');

	my $pid = worker_pid($node, 'moved', 'd');
	$node->safe_psql('postgres',
		'CREATE ROLE nobody; CREATE ROLE maker CREATEDB');
	for my $sql (
		'SET ROLE nobody; DROP DATABASE moved',
		'SET ROLE nobody; ALTER DATABASE moved RENAME TO mine',
		'SET ROLE maker; CREATE DATABASE mine TEMPLATE moved')
	{
		my ($status, $out, $err) = $node->psql('postgres', $sql);
		like($err, qr/permission denied|must be owner/, "denied: $sql");
	}
	$node->psql('moved', 'BEGIN; DROP DATABASE copy; COMMIT');
	is(worker_pid($node, 'moved', 'd'), $pid,
		'who may not use the database so does not end its worker');
	has_worker($node, 'copy', 'd', 'a worker ended in vain comes again');
	$node->psql('moved', 'ALTER DATABASE moved RENAME TO mine');
	is(worker_pid($node, 'moved', 'd'), $pid, 'nor does what cannot succeed');

	my $renames = <<'SQL';
BEGIN;
ALTER DATABASE moved RENAME TO one;
ALTER DATABASE copy RENAME TO two;
ALTER DATABASE one RENAME TO three;
ALTER DATABASE two RENAME TO moved;
ALTER DATABASE three RENAME TO copy;
SQL
	my ($status, $out, $err) =
	  $node->psql('postgres', "$renames PREPARE TRANSACTION 'r'");
	like($err, qr/cannot PREPARE/, 'renamed in two phases');
	for my $end ('ROLLBACK', 'COMMIT')
	{
		$node->safe_psql('postgres', "$renames $end");
		has_worker($node, $_, 'd', "many renamed, $end: $_") for 'moved', 'copy';
	}

	keep_busy($node, $_, 200) for 'moved', 'copy';
	at_once($node, 'DROP DATABASE', 'DROP DATABASE moved; DROP DATABASE copy');
};

subtest 'twenty databases' => sub {
	prepare_delivery($node, 'pattern');
	for my $n (1 .. 20)
	{
		$node->safe_psql('postgres', "CREATE DATABASE many$n TEMPLATE pattern");
		emit_events($node, "many$n", 3);
		create_delivery($node, "many$n", 'd');
		$node->safe_psql('postgres', 'DROP DATABASE many' . ($n - 12))
		  if $n > 12;
	}
	exactly_once($node, "many$_", "many$_") for 9 .. 20;
	query_is($node, 'postgres',
		q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'sagaz worker' AND datname LIKE 'many%'),
		'12', 'each database has one worker');

	setting($node, 'sagaz.databases', 'come, many9, many10');
	query_is($node, 'postgres',
		q(SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_stat_activity WHERE backend_type = 'sagaz worker'),
		'come many10 many9', 'sagaz.databases restricts');
	emit_events($node, $_, 3) for 'many9', 'many11';
	exactly_once($node, 'many9', 'a database that is named');
	is(count_effects($node, 'many11'), 3, 'nothing in one that is not');
	setting($node, 'sagaz.databases', '*');
	exactly_once($node, 'many11', 'named again');

	# what a look finds that began when the database was named
	for my $round (1 .. 5)
	{
		$node->safe_psql('come', <<'SQL');
SELECT sagaz.pause_delivery('e');
SELECT sagaz.resume_delivery('e');
ALTER SYSTEM SET sagaz.databases = 'many9';
SELECT pg_reload_conf();
SQL
		query_is($node, 'come', <<'SQL', 'stopped', "round $round: none works in a database that is not named any more");
SELECT state FROM sagaz.stat_delivery WHERE name = 'e' AND pid IS NULL
	AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'sagaz look')
SQL
		$node->safe_psql('come', 'ALTER SYSTEM RESET sagaz.databases');
		$node->reload;
		has_worker($node, 'come', 'e', "round $round: named again");
	}
	timed(10, 'to drop them', sub {
		$node->safe_psql('postgres', "DROP DATABASE many$_") for 9 .. 20;
	});
	query_is($node, 'postgres',
		q(SELECT string_agg(datname, ' ') FROM pg_stat_activity WHERE backend_type LIKE 'sagaz worker'),
		'come', 'no worker is left behind');
};

subtest 'processes that are ended' => sub {
	my $worker = worker_pid($node, 'come', 'e');
	my $launcher = $node->safe_psql('postgres',
		q(SELECT pid FROM pg_stat_activity WHERE backend_type = 'sagaz launcher'));

	$node->safe_psql('postgres', "SELECT pg_terminate_backend($worker)");
	query_is($node, 'come',
		"SELECT count(*) FROM sagaz.stat_delivery WHERE pid <> $worker", '1',
		'the worker comes back');
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($launcher)");
	query_is($node, 'postgres',
		"SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'sagaz launcher' AND pid <> $launcher",
		'1', 'the launcher comes back');
	emit_events($node, 'come', 5);
	exactly_once($node, 'come', 'afterwards');
	$worker = worker_pid($node, 'come', 'e');
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($worker)");
	query_is($node, 'come',
		"SELECT count(*) FROM sagaz.stat_delivery WHERE pid <> $worker", '1',
		'the new launcher tends a worker that it did not start');
	create_delivery($node, 'come', 'f');
	has_worker($node, 'come', 'f', 'and starts others');
};

subtest 'the owner of a delivery' => sub {
	$node->safe_psql('come', <<'SQL');
CREATE ROLE app LOGIN;
GRANT SELECT, INSERT ON effects TO app;
GRANT USAGE ON effects_at_seq TO app;
SELECT sagaz.grant_access('app', 'operator');
SELECT sagaz.create_consumer_group('mine');
SET SESSION AUTHORIZATION app;
SELECT sagaz.create_delivery('owned', 'public.handle(sagaz.outbox_event[])', 'mine');
SQL
	exactly_once($node, 'come', 'a common role', 'mine');
	is( $node->safe_psql('postgres',
			q(SELECT usename FROM pg_stat_activity WHERE application_name = 'sagaz delivery owned')),
		'app', 'the worker is connected as the owner');

	my $offset = log_end($node);
	my $launcher = $node->safe_psql('postgres',
		q(SELECT pid FROM pg_stat_activity WHERE backend_type = 'sagaz launcher'));
	$node->safe_psql('come', 'ALTER ROLE app RENAME TO application');
	# it may have gone by itself
	$node->safe_psql('postgres', q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'sagaz delivery owned'));
	$node->reload;
	log_says($node, qr/role "app", does not exist/, $offset, 'the log says why it does not run');
	has_no_worker($node, 'come', 'owned', 'it has no worker');
	is( $node->safe_psql('come',
			q(SELECT state FROM sagaz.stat_delivery WHERE name = 'owned')),
		'halted', 'as the view shows');
	$offset = log_end($node);
	$node->safe_psql('come', 'CREATE ROLE app LOGIN SUPERUSER');
	$node->reload;
	log_says($node, qr/role "app", does not exist or is another role now/, $offset,
		'nor does another role that has the name own it');
	has_no_worker($node, 'come', 'owned', 'so it has no worker');
	$node->safe_psql('come', 'DROP ROLE app');
	$node->safe_psql('come', 'ALTER ROLE application RENAME TO app');
	$node->reload;
	has_worker($node, 'come', 'owned', 'it runs again under the old name');
	$node->safe_psql('come', 'DROP OWNED BY app');
	$node->safe_psql('come', 'DROP ROLE app');
	emit_events($node, 'come', 5);
	exactly_once($node, 'come', 'others, once it is dropped');
	is( $node->safe_psql('postgres',
			q(SELECT pid FROM pg_stat_activity WHERE backend_type = 'sagaz launcher')),
		$launcher, 'the launcher is the same');
};
$node->stop;

# Room for two workers of ours, and for two deliveries.
my $small = new_node('small', create => 0, conf => <<'CONF');
fsync = off
max_worker_processes = 4
max_logical_replication_workers = 0
sagaz.spare_processes = 1
sagaz.max_deliveries = 3
CONF

subtest 'no process is free' => sub {
	prepare_delivery($small, 'postgres');
	$small->safe_psql('postgres',
		"SELECT sagaz.create_consumer_group('$_')") for 'a', 'b', 'c', 'd';
	create_delivery($small, 'postgres', $_, group => $_) for 'a', 'b', 'c';
	emit_events($small, 'postgres', 5);
	query_is($small, 'postgres', <<'SQL', '1|2', 'one of three waits');
SELECT count(*) FILTER (WHERE state = 'waiting for a process'),
	count(*) FILTER (WHERE pid IS NOT NULL) FROM sagaz.stat_delivery
SQL
	log_says($small, qr/no background process is free/, 0, 'the log says so');
	like($small->safe_psql('postgres', 'SELECT status, message FROM sagaz.health_check()'),
		qr/degraded.*max_worker_processes/, 'health_check says so');
	my ($running, $waiting) = map {
		$small->safe_psql('postgres',
			"SELECT min(name) FROM sagaz.stat_delivery WHERE pid IS $_")
	} 'NOT NULL', 'NULL';
	$small->safe_psql('postgres', "SELECT sagaz.drop_delivery('$running')");
	has_worker($small, 'postgres', $waiting, 'it starts once a process is free');
	exactly_once($small, 'postgres', 'all that run', $waiting);
	$small->safe_psql('postgres',
		"SELECT sagaz.drop_delivery(name) FROM sagaz.delivery");
	query_is($small, 'postgres',
		q(SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'sagaz worker'),
		'0', 'workers go although no process is free to look');
};

subtest 'no slot is free' => sub {
	my $offset;

	$small->safe_psql('postgres', <<'SQL');
ALTER SYSTEM SET sagaz.max_deliveries = 1;
ALTER SYSTEM SET max_worker_processes = 10;
SQL
	$small->restart;
	$offset = log_end($small);
	create_delivery($small, 'postgres', $_, group => $_) for 'a', 'b';
	log_says($small, qr/more deliveries than sagaz.max_deliveries/, $offset,
		'the log says so');
	like($small->safe_psql('postgres', 'SELECT status, message FROM sagaz.health_check()'),
		qr/degraded.*sagaz.max_deliveries/, 'health_check says so');
	my $running = $small->safe_psql('postgres',
		'SELECT name FROM sagaz.stat_delivery WHERE pid IS NOT NULL');
	$small->safe_psql('postgres', "SELECT sagaz.drop_delivery('$running')");
	has_worker($small, 'postgres', $running eq 'a' ? 'b' : 'a',
		'the other starts once there is room');
};
$small->stop;

done_testing();
