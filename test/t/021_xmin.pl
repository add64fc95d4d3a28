# An old snapshot that is held open lets nothing pile up: no dead tuple in log,
# batches and receipts, and a claim looks at as many pages as before.
# SAGAZ_XMIN_SECONDS says how long the load lasts.
use strict;
use warnings;

use SagazSession;
use SagazTest;
use Test::More;

my $seconds = $ENV{SAGAZ_XMIN_SECONDS} // 60;
my $node = new_node('xmin', conf => <<'CONF');
autovacuum_naptime = 1
synchronous_commit = off
CONF

# Empty the outbox.
sub drain
{
	$node->safe_psql('postgres', <<'SQL');
DO $$
DECLARE
	batch bigint;
BEGIN
	LOOP
		SELECT max(batch_id) INTO batch FROM sagaz.claim_batch('w', 1000);
		EXIT WHEN batch IS NULL;
		PERFORM sagaz.finish_batch(batch, 'w');
		COMMIT;
	END LOOP;
END $$;
SQL
}

# Autovacuum looks at pages, too, which are counted with those of the claims.
sub autovacuum
{
	my ($on) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET autovacuum = $on");
	$node->reload;
	return if $on eq 'on';
	$node->poll_query_until('postgres', q{SELECT current_setting('autovacuum') = 'off' AND NOT EXISTS (
		SELECT FROM pg_stat_activity WHERE backend_type IN ('autovacuum worker', 'autovacuum launcher'))})
	  or die 'autovacuum did not end';
}

# Pages that 200 rounds of insert, claim and finish look at.
sub pages_of_200_rounds
{
	autovacuum('off');
	my $count = <<'SQL';
SELECT sum(heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read)
	FROM pg_statio_user_tables WHERE schemaname = 'sagaz'
SQL
	my $before = $node->safe_psql('postgres', $count);

	$node->safe_psql('postgres', <<'SQL');
DO $$
BEGIN
	FOR i IN 1 .. 200 LOOP
		PERFORM sagaz.insert_event('s' || n, 'created', '{}')
			FROM generate_series(1, 10) n;
		COMMIT;
		PERFORM sagaz.finish_batch(max(batch_id), 'w')
			FROM sagaz.claim_batch('w');
		COMMIT;
	END LOOP;
END $$;
SQL
	my $pages = $node->safe_psql('postgres', $count) - $before;
	autovacuum('on');
	return $pages;
}

my $load = $node->basedir . '/load.sql';
PostgreSQL::Test::Utils::append_to_file($load, <<'SQL');
SELECT sagaz.insert_event('s' || n, 'created', '{"n": 1}') FROM generate_series(1, 20) n;
SELECT sagaz.finish_batch(max(batch_id), 'w' || :client_id)
	FROM sagaz.claim_batch('w' || :client_id) HAVING count(*) > 0;
SQL

pages_of_200_rounds();
drain();
my $holder = SagazSession->new($node, 'postgres');
$holder->query('BEGIN ISOLATION LEVEL REPEATABLE READ');
$holder->query('SELECT count(*) FROM sagaz.outbox');

my $before = pages_of_200_rounds();
drain();
$node->command_ok(
	[
		'pgbench', '--no-vacuum', '--client=2', "--time=$seconds",
		"--file=$load", $node->connstr('postgres')
	],
	"load for $seconds seconds");
drain();
my $after = pages_of_200_rounds();
note "pages for 200 rounds: $before, then $after";
cmp_ok($after, '<', 1.3 * $before, 'a claim costs as much as before');

my $events = $node->safe_psql('postgres', 'SELECT count(*) FROM sagaz.outbox');
cmp_ok($events, '>', 10000, "there was load ($events events)");
is( $node->safe_psql('postgres', <<'SQL'), '0', 'no dead tuple');
SELECT sum(n_dead_tup) FROM pg_stat_user_tables
	WHERE schemaname = 'sagaz'
		AND relname IN ('outbox', 'outbox_batch', 'outbox_receipt')
SQL
is($holder->query("SELECT age(backend_xmin) > 1000 FROM pg_stat_activity
	WHERE pid = pg_backend_pid()"), 't', 'the old snapshot was held');
$holder->close;
$node->stop;

done_testing();
