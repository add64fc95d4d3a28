# What goes out to a client is in the log after a crash, also where sessions
# commit asynchronously.  The WAL writer is stopped, so nothing but the claim
# itself brings the WAL of such a commit to the disk.
use strict;
use warnings;

use SagazTest;
use Test::More;

my $node = new_node('flush', conf => <<'CONF');
autovacuum = off
bgwriter_lru_maxpages = 0
checkpoint_timeout = 1h
restart_after_crash = on
synchronous_commit = off
wal_writer_delay = 10s
CONF

# Crash the server by killing its WAL writer, and wait until it is back.
sub crash
{
	my ($walwriter) = @_;

	kill 'KILL', $walwriter;
	$node->poll_query_until('postgres', <<"SQL") or die 'no restart';
SELECT pid <> $walwriter FROM pg_stat_activity WHERE backend_type = 'walwriter'
SQL
}

sub stop_walwriter
{
	my $pid = $node->safe_psql('postgres',
		q(SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'));

	kill 'STOP', $pid;
	return $pid;
}

sub in_log
{
	return $node->safe_psql('postgres',
		'SELECT event_type FROM sagaz.outbox ORDER BY 1') =~ s/\n/ /gr;
}

sub insert
{
	my (@types) = @_;

	$node->safe_psql('postgres',
		"SELECT sagaz.insert_event('a', '$_', '1')") for @types;
}

$node->safe_psql('postgres', <<'SQL');
SELECT sagaz.create_consumer_group('sagaz-workers');
SET synchronous_commit = on;
SELECT sagaz.insert_event('a', 'synchronous', '1');
SQL
$node->safe_psql('postgres', 'CHECKPOINT');

# without a claim such commits are lost: the test can see it
my $walwriter = stop_walwriter();
insert('lost');
crash($walwriter);
is(in_log(), 'synchronous', 'a crash loses an asynchronous commit');

# a claim that commits asynchronously
$walwriter = stop_walwriter();
insert('one', 'two');
is( $node->safe_psql('postgres',
		q(SELECT event_type FROM sagaz.claim_batch('w'))),
	"synchronous\none\ntwo", 'three events go out');
insert('lost');
crash($walwriter);
is(in_log(), 'one synchronous two', 'what went out is still there');

# a claim whose transaction does not even commit
$node->safe_psql('postgres', 'CHECKPOINT');
$walwriter = stop_walwriter();
insert('three');
like(
	$node->safe_psql('postgres',
		q(BEGIN; SELECT event_type FROM sagaz.claim_batch('w'); ROLLBACK)),
	qr/three/, 'an event goes out in a transaction that is rolled back');
crash($walwriter);
is(in_log(), 'one synchronous three two', 'what went out is still there');

# a retry
$node->safe_psql('postgres', 'CHECKPOINT');
$walwriter = stop_walwriter();
insert('four');
$node->safe_psql('postgres', <<'SQL');
SELECT sagaz.mark_failed(array_agg(event_id), 'w', 'broken')
	FROM sagaz.claim_batch('w');
UPDATE sagaz.outbox_retry SET next_attempt_at = now();
SQL
like(
	$node->safe_psql('postgres',
		q(SELECT event_type FROM sagaz.claim_batch('w'))),
	qr/four/, 'a retry goes out');
crash($walwriter);
like(in_log(), qr/four/, 'it is still there');

# nothing is lost by it: all can still be delivered
like(
	$node->safe_psql('postgres', <<'SQL'),
SELECT count(*) FROM sagaz.outbox
	WHERE event_type IN ('one', 'two', 'three', 'four', 'synchronous')
SQL
	qr/^5$/, 'all events are there in the end');
$node->stop;

done_testing();
