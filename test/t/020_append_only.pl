# Log, batches and receipts are only ever inserted into: 100,000 events through
# every way that an event takes, then the server's own counts.
use strict;
use warnings;

use SagazTest;
use Test::More;

my $node = new_node('append_only', conf => <<'CONF');
sagaz.retry_backoff = 0
autovacuum = off
fsync = off
CONF

# Emit 90,000 events by insert_events(), 10,000 by the view.
$node->safe_psql('postgres', <<'SQL');
SELECT count(*) FROM (
	SELECT sagaz.insert_events(jsonb_agg(jsonb_build_object(
		'saga_id', 's' || n % 500, 'event_type', 'created', 'payload', n)))
	FROM generate_series(1, 90000) n GROUP BY n / 1000) x;
INSERT INTO sagaz.emit (saga_id, event_type, payload)
	SELECT 's' || n % 500, 'created', to_jsonb(n)
	FROM generate_series(1, 10000) n;
SQL

# Drain them; returns how many claims it took.
my $claims = $node->safe_psql('postgres', <<'SQL');
CREATE TABLE claims (n integer);
DO $$
DECLARE
	n integer := 0;
	batch bigint;
	ids uuid[];
BEGIN
	LOOP
		SELECT max(batch_id), array_agg(event_id) INTO batch, ids
			FROM sagaz.claim_batch('w', 500);
		EXIT WHEN batch IS NULL;
		n := n + 1;
		CASE
			WHEN n % 5 = 1 THEN
				PERFORM sagaz.release_batch(batch, 'w', 'down');
			WHEN n % 5 = 2 AND cardinality(ids) = 500 THEN
				PERFORM sagaz.mark_failed(ids[11:12], 'w', 'broken');
				PERFORM sagaz.mark_sent(ids[1:10], 'w');
				PERFORM sagaz.finish_batch(batch, 'w');
			WHEN n % 5 = 3 THEN
				PERFORM sagaz.mark_sent(ids, 'w');
			WHEN n % 5 = 4 THEN
				PERFORM sagaz.extend_batch(batch, 'w', '1 hour');
				PERFORM sagaz.finish_batch(batch, 'w');
			ELSE
				PERFORM sagaz.finish_batch(batch, 'w');
		END CASE;
		COMMIT;
	END LOOP;
	INSERT INTO claims VALUES (n);
END $$;
SELECT n FROM claims;
SQL

my $stat = 'SELECT %s FROM pg_stat_user_tables WHERE schemaname = \'sagaz\''
  . ' AND relname = \'%s\'';

is( $node->safe_psql('postgres', sprintf($stat, 'n_tup_ins', 'outbox')),
	100000, 'all events are in the log');
for my $table ('outbox', 'outbox_batch', 'outbox_receipt')
{
	is( $node->safe_psql('postgres', sprintf($stat,
			'n_tup_upd, n_tup_del, n_dead_tup', $table)),
		'0|0|0', "$table: no row changed, none dead");
}
is( $node->safe_psql('postgres',
		'SELECT count(*) FILTER (WHERE state <> 5) FROM sagaz.outbox_retry'),
	0, 'all retries were sent');

# a lane takes one row a claim, a claim ends with at most four receipts
cmp_ok($claims, '>', 200, 'it took many claims');
cmp_ok(
	$node->safe_psql('postgres', sprintf($stat, 'n_tup_ins', 'outbox_batch')),
	'<=', 4 * $claims, 'at most one batch row for a claim and lane');
cmp_ok(
	$node->safe_psql('postgres',
		sprintf($stat, 'n_tup_ins', 'outbox_receipt')),
	'<=', 4 * $claims, 'a constant number of receipts for a claim');
$node->stop;

done_testing();
