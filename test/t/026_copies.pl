# Copies of the data that lack their sequences, numbers of batches that are
# given once, and a clock that is set back.
use strict;
use warnings;

use SagazTest;
use Test::More;

my $node = new_node('copies', conf => <<'CONF');
synchronous_commit = off
wal_writer_delay = 10s
sagaz.claim_timeout = 5min
CONF

sub sql
{
	my ($db, $query) = @_;
	return $node->safe_psql($db, $query);
}

# What the claims of a worker return until there is nothing: types and numbers.
sub drain
{
	my ($db) = @_;
	return sql($db, <<'SQL');
SELECT event_type, count(*) FROM sagaz.claim_batch('drain', 1000) GROUP BY 1 ORDER BY 1
SQL
}

sub insert
{
	my ($db, $type, $count) = @_;
	sql($db, "SELECT count(sagaz.insert_event('s' || n, '$type', '{}')) FROM generate_series(1, $count) n");
}

sub batch_of_claim
{
	my ($db, $worker) = @_;
	return sql($db, "SELECT batch_id FROM sagaz.claim_batch('$worker', 1)");
}

# A crash forgets a claim that nobody flushed, but not its number.  A sequence
# logs 32 numbers ahead, so it is the 34th that might be forgotten.
insert('postgres', 'first', 40);
my @given = split /\n/, sql('postgres', q(SELECT batch_id FROM sagaz.claim_batch('w', 1);) x 34);
$node->stop('immediate');
$node->start;
my $next = batch_of_claim('postgres', 'w');
cmp_ok($next, '>', $given[-1], 'a batch after the crash has a new number');

# Restored without the sequences, as a subscriber is filled.
sql('postgres', 'SET synchronous_commit = on; SELECT sagaz.finish_batch(b, worker_id) FROM (SELECT DISTINCT batch_id b, worker_id FROM sagaz.get_stuck_events(\'0\')) x');
insert('postgres', 'old', 5);
drain('postgres');
sql('postgres', 'SELECT sagaz.finish_batch(b, worker_id) FROM (SELECT DISTINCT batch_id b, worker_id FROM sagaz.get_stuck_events(\'0\')) x');
sql('postgres', 'SELECT sagaz.archive_sent_events(\'0\', keep => false)');
insert('postgres', 'undelivered', 3);
my $held = batch_of_claim('postgres', 'stale');
sql('postgres', "SELECT sagaz.release_batch($held, 'stale')");
my $dump = $node->basedir . '/dump.sql';
$node->command_ok([ 'pg_dump', '--exclude-table=sagaz.*_seq', "--file=$dump", $node->connstr('postgres') ], 'dumped');

sub copy_to
{
	my ($db) = @_;
	sql('postgres', "CREATE DATABASE $db");
	$node->command_ok([ 'psql', '-Xq', '--set=ON_ERROR_STOP=1', "--file=$dump", $node->connstr($db) ], "$db: restored");
}

copy_to('later');
is(sql('later', 'SELECT last_value FROM sagaz.outbox_seq'), '1', 'the sequence was not carried along');
sql('later', 'SELECT sagaz.activate()');
insert('later', 'new', 20);
is(drain('later'), "new|20\nundelivered|3", 'activated, then written to: all are handed out');

copy_to('before');
insert('before', 'early', 20);
sql('before', 'SELECT sagaz.activate()');
insert('before', 'new', 20);
is(drain('before'), "early|20\nnew|20\nundelivered|3", 'written to, then activated: all are handed out');

# A worker of the original comes to the copy with a batch that it claimed there.
$held = batch_of_claim('postgres', 'stale');
my $in_copy = sql('later', 'SELECT max(batch_id) FROM sagaz.outbox_batch');
cmp_ok($in_copy, '>', $held + 1024 * 1_000_000_000, 'the copy numbers its batches otherwise');
cmp_ok($in_copy, '<', 2**53, 'and so that a double holds the number');
is(sql('later', "SELECT count(*) FROM sagaz.outbox_batch WHERE batch_id IN (SELECT batch_id FROM sagaz.outbox_batch WHERE batch_id = $held)"),
	'0', 'a number of the original is none of the copy');
copy_to('again');
sql('again', 'SELECT sagaz.activate()');
cmp_ok(batch_of_claim('again', 'w'), '>', $in_copy, 'nor are those of two copies of one dump the same');

# The clock was set back by a day since the claim.
sub claim_in_the_future
{
	my ($worker, $more) = @_;

	sql('again', "SELECT sagaz.finish_batch(b, w) FROM (SELECT DISTINCT batch_id b, worker_id w FROM sagaz.get_stuck_events('0')) x");
	insert('again', $worker, 1);
	my $batch = batch_of_claim('again', $worker);
	sql('again', sprintf $more, $batch) if $more;
	sql('again', "UPDATE sagaz.outbox_batch SET claimed_at = claimed_at + interval '1 day' WHERE batch_id = $batch");
}

sql('again', 'SELECT count(*) FROM sagaz.claim_batch(\'all\', 1000)');
claim_in_the_future('gone');
is(sql('again', "SELECT count(*) FROM sagaz.get_stuck_events('1 hour')"), '1', 'what was claimed in the future is stuck');
like(sql('again', "SELECT reason FROM sagaz.get_stuck_events('1 hour') s, sagaz.explain_event(s.event_id)"),
	qr/the lease ran out/, 'and is explained so');
is(sql('again', "SELECT event_type FROM sagaz.claim_batch('next', 1000)"), 'gone', 'the next claim takes it over');
claim_in_the_future('lost');
is(sql('again', "SELECT sagaz.release_stuck_events('1 hour')"), '1', 'it can be released');
is(sql('again', "SELECT event_type FROM sagaz.claim_batch('next', 1000)"), 'lost', 'and claimed then');
claim_in_the_future('careful', q(SELECT sagaz.extend_batch(%s, 'careful', '10 min')));
is(sql('again', "SELECT count(*) FROM sagaz.claim_batch('next', 1000)"), '0', 'an extension lasts as long as it says');

done_testing();
