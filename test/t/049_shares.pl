# Processes are few: no database gets all of them, whoever was first, some are
# left to others, and limits hold.  Who waits is told for what.
use strict;
use warnings;

use SagazDelivery;
use SagazTest;
use Test::More;

# 1 for the launcher, 2 for others: six.
my $node = new_node('shares', create => 0, conf => <<'CONF');
fsync = off
max_worker_processes = 9
max_logical_replication_workers = 0
sagaz.spare_processes = 2
CONF

sub setting
{
	my ($name, $value) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET $name = '$value'");
	$node->reload;
}

# How many processes each database has.
sub shares_are
{
	my ($expected, $what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	query_is($node, 'postgres', <<'SQL', $expected, $what);
SELECT string_agg(datname || ' ' || n, ', ' ORDER BY datname) FROM
	(SELECT datname, count(*) n FROM pg_stat_activity WHERE backend_type = 'sagaz worker' GROUP BY datname) s
SQL
}

# Deliveries d1 to dN of a database, each of a group of its own.
sub create
{
	my ($db, $from, $to, $role) = @_;

	$node->safe_psql($db, "SET ROLE $role;" . join '', map {
		"SELECT sagaz.create_consumer_group('g$_'); SELECT sagaz.create_delivery('d$_', 'public.handle(sagaz.outbox_event[])', 'g$_');"
	} $from .. $to);
}

# Why deliveries of a database wait, and how many of them.
sub waits_are
{
	my ($db, $expected, $what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	query_is($node, $db,
		q{SELECT count(*), string_agg(DISTINCT last_error, '; ') FROM sagaz.stat_delivery WHERE state = 'waiting for a process'},
		$expected, $what);
}

$node->safe_psql('postgres', 'CREATE ROLE tenant LOGIN; CREATE ROLE other LOGIN');
for my $db ('a', 'b', 'c')
{
	prepare_delivery($node, $db);
	$node->safe_psql($db, <<'SQL');
GRANT ALL ON effects, effects_at_seq TO tenant, other;
SELECT sagaz.grant_access(role, 'operator') FROM unnest('{tenant,other}'::text[]) role;
SQL
}

my $spare = 'max_worker_processes is exhausted but for those that sagaz.spare_processes (2) leaves to others';
create('a', 1, 10, 'tenant');
shares_are('a 6', 'who is alone gets all there are');
waits_are('a', "4|$spare", 'but those that are left to others');
like($node->safe_psql('a', 'SELECT message FROM sagaz.health_check()'),
	qr/delivery "d\d+" waits for a process: max_worker_processes/, 'health_check says so');
log_says($node, qr/no background process is free/, 0, 'so does the log');
my $force = $node->safe_psql('postgres', 'SHOW server_version_num') >= 160000 ?
  'debug_parallel_query' : 'force_parallel_mode';
like($node->safe_psql('a', "SET $force = on; EXPLAIN (ANALYZE, COSTS off, TIMING off) SELECT count(*) FROM effects"),
	qr/Workers Launched: 1/, 'a parallel query has its worker');

create('b', 1, 1, 'other');
shares_are('a 5, b 1', 'another database gets its share from who has more');
create('b', 2, 10, 'other');
shares_are('a 3, b 3', 'up to as many');
create('c', 1, 10, 'other');
shares_are('a 2, b 2, c 2', 'three databases');
$node->safe_psql('c', q{SELECT sagaz.drop_delivery(name) FROM sagaz.delivery});
shares_are('a 3, b 3', 'what is given back is taken evenly');
emit_events($node, 'b', 20);
query_is($node, 'b', 'SELECT count(DISTINCT consumer), count(*) / 20 FROM effects', '3|3', 'those that run deliver');

setting('sagaz.max_deliveries_per_database', 2);
shares_are('a 2, b 2', 'a limit for each database');
waits_are('a', '8|sagaz.max_deliveries_per_database (2) is reached', 'is told');
my $running = $node->safe_psql('a', 'SELECT min(name) FROM sagaz.stat_delivery WHERE pid IS NOT NULL');
my $pids = 'SELECT string_agg(pid::text, $$ $$ ORDER BY pid) FROM sagaz.stat_delivery';
my $before = $node->safe_psql('b', $pids);
create('b', 0, 0, 'other');
waits_are('b', '9|sagaz.max_deliveries_per_database (2) is reached', 'a new one waits');
is($node->safe_psql('b', $pids), $before, 'and takes the place of none');
$node->safe_psql('a', "SELECT sagaz.drop_delivery('$running')");
shares_are('a 2, b 2', 'another runs in the place of one that is dropped');
setting('sagaz.max_deliveries_per_database', -1);
shares_are('a 3, b 3', 'without that limit');

setting('sagaz.max_deliveries_per_role', 2);
create('c', 11, 20, 'tenant');
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'sagaz worker'});
query_is($node, 'postgres',
	q{SELECT string_agg(usename || ' ' || n, ', ' ORDER BY usename) FROM
		(SELECT usename, count(*) n FROM pg_stat_activity WHERE backend_type = 'sagaz worker' GROUP BY usename) s},
	'other 2, tenant 2', 'a limit for each role, in all databases');
waits_are('b', '9|sagaz.max_deliveries_per_role (2) is reached by role "other"', 'is told');
$node->stop;

done_testing();
