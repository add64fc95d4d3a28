# A delivery to the outbox of another PostgreSQL, a database with the extension
# and one with the Python library's tables: each event is there once, whoever
# is killed; nothing is held while the worker waits for the other server, and
# while that is hung or down it costs one release a try and loses nothing.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use SagazDelivery;
use SagazTest;
use Test::More;
use Time::HiRes qw(usleep);

my $conf = <<'CONF';
sagaz.poll_interval = 1h
sagaz.retry_backoff = 100ms
restart_after_crash = on
sagaz.max_crashes = 0
CONF
my $node = new_node('forward_postgres', conf => $conf . <<'CONF');
sagaz.command_timeout = 1s
sagaz.connect_timeout = 1s
CONF
plan skip_all => 'built without the PostgreSQL backend'
  if $node->safe_psql('postgres', q{SELECT count(*) FROM sagaz.backends() WHERE name = 'postgresql'}) eq '0';

my $target = new_node('target', conf => $conf);
my %databases = (there => 'postgres', library => 'library');

$target->safe_psql('postgres', 'CREATE DATABASE library');

sub emit
{
	my ($count) = @_;
	return $node->safe_psql('postgres', <<"SQL");
SELECT count(sagaz.insert_event('saga' || n % 7, 'created', jsonb_build_object('n', n), routing_key => 'r'))
	FROM generate_series(1, $count) n
SQL
}

# All that was emitted is in each target, each event once, whole and pending.
sub arrived
{
	my ($name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	for my $storage (sort keys %databases)
	{
		query_is($node, 'postgres', "SELECT lag_events = 0 AND sagaz.count_records('outbox', '$storage') = "
			  . "(SELECT count(*) FROM sagaz.outbox) FROM sagaz.stat_delivery WHERE name = '$storage'",
			't', "$name: all is sent to $storage");
		is($node->safe_psql('postgres', <<"SQL"), '0|t', "$name: each once in $storage, as it was emitted");
SELECT count(*) FILTER (WHERE f IS NULL OR o IS NULL OR f->>'status' <> 'pending' OR f->'payload' <> o.payload
			OR f->>'saga_id' <> o.saga_id OR f->>'routing_key' IS DISTINCT FROM o.routing_key
			OR (f->>'created_at')::timestamptz <> o.created_at),
		count(*) = count(DISTINCT o.event_id)
	FROM sagaz.outbox o FULL JOIN sagaz.export_all('outbox', '$storage') f
		ON (f->>'event_id')::uuid = o.event_id
SQL
	}
}

for my $storage (sort keys %databases)
{
	my $host = $target->host =~ s{/}{%2F}gr;
	my $url = "postgresql://\@$host:" . $target->port . "/$databases{$storage}";

	$node->safe_psql('postgres', <<"SQL");
SELECT sagaz.create_outbox_storage('$storage', '$url');
SELECT sagaz.create_consumer_group('$storage');
SQL
}
emit(30);
$node->safe_psql('postgres', "SELECT sagaz.create_delivery('$_', '$_', '$_', batch_size => 10)")
  for sort keys %databases;
arrived('what waited');
emit(1);
arrived('one more, at commit');
is($target->safe_psql('library', q{SELECT count(*) FROM saga_outbox WHERE status = 'pending' AND headers = '{}'}),
	'31', 'in the tables of the library');

# It is an event there like any other: a worker there wakes and has it.
prepare_delivery($target, 'postgres');
$target->safe_psql('postgres', q{SELECT sagaz.create_consumer_group('onward')});
create_delivery($target, 'postgres', 'onward', group => 'onward');
exactly_once($target, 'postgres', 'delivered on', 'onward');
emit(1);
exactly_once($target, 'postgres', 'delivered on at commit', 'onward');
arrived('delivered on');

# A server that does not answer: no transaction meanwhile, and one release a try.
my $postmaster = (split /\n/, slurp_file($target->data_dir . '/postmaster.pid'))[0];
my @backends = split /\n/, $target->safe_psql('postgres',
	q{SELECT pid FROM pg_stat_activity WHERE application_name = 'sagaz'});
cmp_ok(scalar @backends, '>=', 2, 'the workers stay connected');
kill 'STOP', $postmaster, @backends;
emit(5);
query_is($node, 'postgres', <<'SQL', 't', 'no transaction, snapshot or lock while they wait');
SELECT count(*) = 2 AND bool_and(xact_start IS NULL AND backend_xmin IS NULL AND backend_xid IS NULL
		AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid))
	FROM pg_stat_activity a
	WHERE backend_type = 'sagaz worker' AND state = 'active' AND query LIKE '%delivering 5 events%'
SQL
query_is($node, 'postgres', 'SELECT bool_and(last_error LIKE \'%storage "\' || name || \'"%\') FROM sagaz.stat_delivery',
	't', 'the errors are told');
kill 'CONT', @backends, $postmaster;
arrived('awake');
is($node->safe_psql('postgres', 'SELECT count(*) FROM sagaz.outbox_retry'), '0', 'no retry rows');

# A server that is gone.
$target->stop('immediate');
my $released = $node->safe_psql('postgres', 'SELECT count(*) FROM sagaz.outbox_receipt WHERE kind = 2');
emit(20);
query_is($node, 'postgres', "SELECT bool_and(state = 'backing off') FROM sagaz.stat_delivery", 't', 'they wait for the server');
$target->start;
arrived('back');
cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM sagaz.outbox_receipt WHERE kind = 2') - $released,
	'<=', 16, 'one release a try, not one an event');

# Killed at random: a backend there, the other cluster, a worker, this cluster.
my $seed = $ENV{SAGAZ_SEED} // time;
srand $seed;
diag("seed $seed");
for my $round (1 .. 8)
{
	emit(200);
	usleep(int rand 30_000);
	if ($round % 4 == 0)
	{
		$target->stop('immediate');
		$target->start;
	}
	elsif ($round % 4 == 1)
	{
		$target->safe_psql('postgres',
			q{SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'sagaz'});
	}
	elsif ($round % 4 == 2)
	{
		my ($pid) = split /\n/, $node->safe_psql('postgres', 'SELECT pid FROM sagaz.stat_delivery WHERE pid IS NOT NULL');
		kill 'KILL', $pid if $pid;
		wait_until_up($node);
	}
	else
	{
		$node->stop('immediate');
		$node->start;
	}
}
arrived('killed and killed again');
exactly_once($target, 'postgres', 'and delivered on', 'onward');

$target->stop;
$node->stop;
done_testing();
