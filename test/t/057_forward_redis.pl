# A delivery to a Redis outbox: each event is there once, whoever is killed,
# and no other delivery notices that the target is down.
use strict;
use warnings;

use SagazDelivery;
use SagazRedis;
use SagazTest;
use Test::More;
use Time::HiRes qw(usleep);

my $redis = SagazRedis->new(appendonly => 'yes', appendfsync => 'always')->start;
my $node = new_node('forward_redis', conf => <<'CONF');
sagaz.max_crashes = 0
sagaz.poll_interval = 1h
sagaz.retry_backoff = 100ms
sagaz.command_timeout = 500ms
sagaz.connect_timeout = 500ms
restart_after_crash = on
CONF

sub emit
{
	my ($count) = @_;
	return $node->safe_psql('postgres', <<"SQL");
SELECT count(sagaz.insert_event('saga' || n % 7, 'created', jsonb_build_object('n', n), routing_key => 'r'))
	FROM generate_series(1, $count) n
SQL
}

# All that was emitted is there, each event once, whole and claimable.
sub arrived
{
	my ($name) = @_;

	query_is($node, 'postgres', 'SELECT (SELECT count(*) FROM sagaz.outbox) = '
		  . q{sagaz.count_records('outbox', 'cache') AND sagaz.get_pending_count() = 0}, 't', "$name: all is there");
	is($node->safe_psql('postgres', <<'SQL'), '0', "$name: as it was emitted");
SELECT count(*) FROM sagaz.outbox o LEFT JOIN sagaz.export_all('outbox', 'cache') f
	ON (f->>'event_id')::uuid = o.event_id
	WHERE f IS NULL OR f->>'status' <> 'pending' OR f->'payload' <> o.payload
		OR f->>'saga_id' <> o.saga_id OR f->>'routing_key' IS DISTINCT FROM o.routing_key
		OR (f->>'created_at')::timestamptz <> o.created_at
SQL
	return if $redis->has_torn_log;
	is($redis->cli(qw(XLEN sagaz:outbox:events)), $node->safe_psql('postgres', 'SELECT count(*) FROM sagaz.outbox'),
		"$name: one entry in the stream for each");
}

sub other_delivery_goes_on
{
	my ($name) = @_;

	query_is($node, 'postgres', "SELECT lag_events = 0 AND last_error IS NULL FROM sagaz.stat_delivery WHERE name = 'ledger'",
		't', "$name: the other delivery goes on");
}

$node->safe_psql('postgres', <<SQL);
CREATE TABLE ledger (event_id uuid PRIMARY KEY);
CREATE FUNCTION to_ledger(sagaz.outbox_event[]) RETURNS void LANGUAGE sql AS
	'INSERT INTO public.ledger SELECT event_id FROM unnest(\$1)';
SELECT sagaz.create_outbox_storage('cache', '@{[ $redis->url ]}');
SELECT sagaz.create_consumer_group('ledger');
SELECT sagaz.create_delivery('ledger', 'public.to_ledger(sagaz.outbox_event[])', 'ledger');
SQL
emit(30);
$node->safe_psql('postgres', "SELECT sagaz.create_delivery('copy', 'cache', batch_size => 10)");
arrived('what waited');
emit(1);
arrived('one more, at commit');

# A server that does not answer: the worker waits without a transaction, then
# gives the batch back, once a try.
$redis->signal('STOP');
emit(5);
query_is($node, 'postgres', <<'SQL', 't', 'no transaction, snapshot or lock while it waits');
SELECT count(*) > 0 AND bool_and(xact_start IS NULL AND backend_xmin IS NULL AND backend_xid IS NULL
		AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid))
	FROM pg_stat_activity a
	WHERE backend_type = 'sagaz worker' AND state = 'active' AND query LIKE '%delivering 5 events%'
SQL
query_is($node, 'postgres', "SELECT last_error LIKE '%cache%' FROM sagaz.stat_delivery WHERE name = 'copy'", 't', 'the error is told');
other_delivery_goes_on('stopped');
$redis->signal('CONT');
arrived('awake');
is($node->safe_psql('postgres', 'SELECT count(*) FROM sagaz.outbox_retry'), '0', 'no retry rows');

# A server that is gone.
$redis->stop;
my $released = $node->safe_psql('postgres', 'SELECT count(*) FROM sagaz.outbox_receipt WHERE kind = 2');
emit(20);
query_is($node, 'postgres', "SELECT state FROM sagaz.stat_delivery WHERE name = 'copy'", 'backing off', 'it waits for the server');
other_delivery_goes_on('gone');
$redis->start;
arrived('back');
cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM sagaz.outbox_receipt WHERE kind = 2') - $released,
	'<=', 8, 'one release a try, not one an event');

# A server that is full: nothing of the batch is there, and nothing is lost.
$redis->cli(qw(CONFIG SET maxmemory 1));
emit(15);
query_is($node, 'postgres', "SELECT last_error LIKE '%failed%' FROM sagaz.stat_delivery WHERE name = 'copy'", 't', 'full: told');
$redis->cli(qw(CONFIG SET maxmemory 0));
arrived('there is room again');

# Killed at random: the server, the worker, the cluster.
my $seed = $ENV{SAGAZ_SEED} // time;
srand $seed;
diag("seed $seed");
for my $round (1 .. 9)
{
	emit(200);
	usleep(int rand 20_000);
	if ($round % 3 == 0)
	{
		$redis->stop;
		$redis->start;
	}
	elsif ($round % 3 == 1)
	{
		my $pid = $node->safe_psql('postgres', "SELECT pid FROM sagaz.stat_delivery WHERE name = 'copy' AND pid IS NOT NULL");
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
is($node->safe_psql('postgres', 'SELECT count(*) = (SELECT count(*) FROM sagaz.outbox) FROM ledger'), 't',
	'the other delivery has delivered all, too');
is($node->safe_psql('postgres', <<'SQL'), '0', 'claims hand out each of them once');
SET sagaz.command_timeout = '1min';
CREATE TABLE claimed AS SELECT event_id FROM sagaz.claim_batch('w', 10000, storage => 'cache');
SELECT count(*) FROM sagaz.outbox o
	WHERE (SELECT count(*) FROM claimed c WHERE c.event_id = o.event_id) <> 1
SQL

# The log of a server that was killed while it wrote ends within a transaction.
# Redis 7.0 cuts off the last command and leaves the others, which it runs with
# the next transaction when it starts once more: their entries are there twice.
my $torn = SagazRedis->new(appendonly => 'yes', appendfsync => 'always')->start;
my $put = <<'SQL';
SELECT sagaz.import_records(jsonb_agg(r || '{"status": "pending"}'), 'outbox', 'skip', 'torn')
	FROM (SELECT r FROM sagaz.export_all('outbox') r ORDER BY r->>'event_id' LIMIT 40) r
SQL

$node->safe_psql('postgres', "SELECT sagaz.create_outbox_storage('torn', '" . $torn->url . "')");
$node->safe_psql('postgres', "SELECT FROM sagaz.claim_batch('w', 1, storage => 'torn')");
is($node->safe_psql('postgres', $put), '40', 'put');
$torn->stop;
$torn->tear_log(300);
$torn->start;
ok($torn->has_torn_log, 'its log was torn');
is($node->safe_psql('postgres', $put), '40', 'nothing of what was torn is there, and all is put again');
$torn->stop;
$torn->start;
is($node->safe_psql('postgres', <<'SQL'), '40|40', 'claims hand out each once');
SELECT count(*), count(DISTINCT event_id) FROM sagaz.claim_batch('w', 100, storage => 'torn')
SQL
is($torn->cli(qw(XLEN sagaz:outbox:events)), '40', 'and drop what is there twice');

done_testing();
