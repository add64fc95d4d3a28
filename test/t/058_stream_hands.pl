# An ordered delivery to a stream, where people have a hand in it: batches that
# are given back or marked by somebody, other writers, data that is lost while
# nothing is emitted, other targets.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use SagazDelivery;
use SagazRedis;
use SagazTest;
use Test::More;
use Time::HiRes qw(time usleep);

my $redis = SagazRedis->new->start;
my $node = new_node('stream_hands', conf => <<'CONF');
sagaz.max_crashes = 0
sagaz.poll_interval = 1h
sagaz.retry_backoff = 100ms
sagaz.command_timeout = 500ms
sagaz.connect_timeout = 500ms
restart_after_crash = on
CONF
my $err = '';
my $marked = '';

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

sub emit
{
	my ($count) = @_;

	sql(<<"SQL");
SELECT count(sagaz.insert_event('saga' || n % 7, 'created', jsonb_build_object('n', n)))
	FROM generate_series(1, $count) n
SQL
}

sub fails
{
	my ($query, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$node->psql('postgres', "\\set VERBOSITY sqlstate\n$query", stderr => \$err);
	like($err, qr/ERROR:  SZ009/, $name);
}

# The entries of the stream, [event id, saga], in order.
sub entries
{
	my ($stream) = @_;
	my @entries;
	my @lines = split /\n/, $redis->cli('XRANGE', $stream, '-', '+');

	for my $i (0 .. $#lines)
	{
		push @entries, [ $lines[ $i + 1 ] ] if $lines[$i] eq 'header:event_id';
		$entries[-1][1] = $lines[ $i + 1 ] if $lines[$i] eq 'header:saga_id';
	}
	return @entries;
}

# All of the log is in the stream, each event once, each saga in its order.
sub exactly
{
	my ($name, $stream) = @_;
	my $end = time + 20;
	my %place = map { split /\|/ } split /\n/, sql('SELECT event_id, seq FROM sagaz.outbox');
	delete $place{$marked};
	my (%seen, %last);
	my ($twice, $disorder) = (0, 0);

	$stream //= 'exact';
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	query_is($node, 'postgres', <<"SQL", 't', "$name: all is sent");
SELECT NOT EXISTS (SELECT FROM sagaz.get_outbox_statistics('ordered') WHERE pending + claimed + failed > 0)
SQL
	# what was lost may be on its way again
	usleep(20_000) until time > $end || (my @there = entries($stream)) >= keys %place;
	for my $entry (entries($stream))
	{
		my ($event, $saga) = @$entry;

		$twice++ if $seen{$event}++;
		$disorder++ if ($last{$saga} // 0) > $place{$event};
		$last{$saga} = $place{$event};
	}
	is_deeply([ scalar(keys %seen), $twice, $disorder ], [ scalar(keys %place), 0, 0 ],
		"$name: each event has one entry, in order");
}

sub kill_worker
{
	my $pid = sql(q{SELECT pid FROM sagaz.stat_delivery WHERE name = 'exact' AND pid IS NOT NULL});

	kill 'KILL', $pid if $pid;
	wait_until_up($node);
}

sub set_poll
{
	sql("ALTER SYSTEM SET sagaz.poll_interval = '$_[0]'");
	$node->reload;
}

# Open batches, with their workers.
my $open = <<'SQL';
(SELECT DISTINCT batch_id, worker_id FROM sagaz.outbox_batch b WHERE events > 0 AND NOT EXISTS (
	SELECT FROM sagaz.outbox_receipt r WHERE r.batch_id = b.batch_id AND kind <= 3)) AS b
SQL

# One writer
sql(<<SQL);
SELECT sagaz.create_storage('broker', '@{[ $redis->url ]}', options => '{"max_stream_length": "0", "stream": "exact"}');
SELECT sagaz.create_storage('other', '@{[ $redis->url ]}', options => '{"stream": "other"}');
SELECT sagaz.create_consumer_group('ordered', ordering => 'saga');
SELECT sagaz.create_consumer_group('second', ordering => 'saga');
SELECT sagaz.create_delivery('exact', 'broker', 'ordered', options => '{"as": "stream"}');
SELECT sagaz.create_delivery('loose', 'other', options => '{"as": "stream"}');
SQL
fails(q{SELECT sagaz.create_delivery('x', 'broker', options => '{"as": "stream"}')}, 'a second writer');
fails(q{SELECT sagaz.create_delivery('x', 'other', 'second', options => '{"as": "stream"}')}, 'an ordered one beside another');
fails(q{SELECT sagaz.create_delivery('x', 'other', 'ordered', options => '{"as": "stream"}')}, 'an ordered group twice');
sql(q{SELECT sagaz.drop_delivery('loose')});
emit(700);
exactly('many');

# A batch is on its way to a server that sleeps.  It stays the worker's.
sub sleep_with_batch
{
	my ($events) = @_;

	$redis->signal('STOP');
	emit($events);
	query_is($node, 'postgres', q{SELECT state FROM sagaz.stat_delivery}, 'backing off', 'a server that sleeps');
}

my $closed = sql('SELECT count(*) FROM sagaz.outbox_receipt WHERE kind IN (2, 3)');
sleep_with_batch(5);
query_is($node, 'postgres', <<'SQL', 't', 'no transaction, snapshot or lock while it waits');
SELECT count(*) > 0 AND bool_and(xact_start IS NULL AND backend_xmin IS NULL AND backend_xid IS NULL
		AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid))
	FROM pg_stat_activity a
	WHERE backend_type = 'sagaz worker' AND state = 'active' AND query LIKE '%comparing with the stream of broker'
SQL
is(sql('SELECT count(*) FROM sagaz.outbox_receipt WHERE kind IN (2, 3)'), $closed, 'the batch is not given back');
is(sql("SELECT count(*) FROM $open"), '1', 'nothing later is claimed');

# Somebody gives it back all the same, and what is on its way arrives.
sql("SELECT sagaz.release_batch(batch_id, worker_id, 'by hand') FROM $open");
kill_worker();
$redis->signal('CONT');
exactly('given back by hand');
sleep_with_batch(300);
sql("SELECT sagaz.release_batch(batch_id, worker_id, 'by hand') FROM $open");
$redis->signal('CONT');
exactly('given back by hand, the worker goes on');

# A lease that would have run out is extended.
sql(q{ALTER SYSTEM SET sagaz.claim_timeout = '3s'});
$node->reload;
sleep_with_batch(5);
query_is($node, 'postgres', <<"SQL", 't', 'the lease is extended');
SELECT count(*) > 0 FROM sagaz.outbox_receipt WHERE kind = 4
SQL
$redis->signal('CONT');
exactly('extended');
sql('ALTER SYSTEM RESET sagaz.claim_timeout');
$node->reload;

# Somebody says of an event that it is sent: it is not added any more.
$redis->stop;
emit(5);
query_is($node, 'postgres', q{SELECT state FROM sagaz.stat_delivery}, 'backing off', 'a server that is gone');
$marked = sql(<<"SQL");
SELECT event_id FROM sagaz.outbox ORDER BY seq DESC LIMIT 1
SQL
is(sql(<<"SQL"), '1', 'marked by hand');
SELECT sum(sagaz.mark_sent(ARRAY['$marked'::uuid], worker_id, 'ordered')) FROM $open
SQL
$redis->start(appendonly => 'yes');
query_is($node, 'postgres', <<"SQL", 't', 'the others are sent');
SELECT NOT EXISTS (SELECT FROM sagaz.get_outbox_statistics('ordered') WHERE pending + claimed + failed > 0)
SQL
is(scalar(grep { $_->[0] eq $marked } entries('exact')), 0, 'one that was marked is not added');

# Everything is lost while nothing is emitted.
exactly('what was lost with the server');
set_poll('100ms');
my $offset = -s $node->logfile;
$redis->cli('FLUSHALL');
exactly('emptied, and nothing was emitted');
log_says($node, qr/storage "broker" has lost entries of its stream/, $offset, 'the log tells');

# Others write to the stream.
for (1 .. 5)
{
	$redis->cli('XADD', 'exact', '*', 'a', 'b') for 1 .. 3;
	emit(10);
	exactly("beside others, $_");
}

# Paused, nothing arrives.
sql(q{SELECT sagaz.pause_delivery('exact')});
my $length = $redis->cli(qw(XLEN exact));
emit(30);
is($redis->cli(qw(XLEN exact)), $length, 'paused');
sql(q{SELECT sagaz.resume_delivery('exact')});
exactly('resumed');

# A delivery of the same name to another stream begins where that one was.
sql(q{SELECT sagaz.drop_delivery('exact')});
$redis->cli(qw(DEL other));
sql(q{SELECT sagaz.create_delivery('exact', 'other', 'ordered', options => '{"as": "stream"}')});
emit(3);
query_is($node, 'postgres', q{SELECT NOT EXISTS (SELECT FROM sagaz.get_outbox_statistics('ordered') WHERE pending + claimed + failed > 0)},
	't', 'another stream');
is($redis->cli(qw(XLEN other)), '3', 'what the other got is not sent there');

# Replaced in one transaction by one to another kind of target, and back: the
# process goes on, and takes nothing that it knew for something else.
my $done = q{SELECT NOT EXISTS (SELECT FROM sagaz.get_outbox_statistics('ordered') WHERE pending + claimed + failed > 0)};
for my $kind ('outbox', 'stream')
{
	sql(qq{BEGIN; SELECT sagaz.drop_delivery('exact');
		SELECT sagaz.create_delivery('exact', 'other', 'ordered', options => '{"as": "$kind"}'); COMMIT});
	emit(3);
	query_is($node, 'postgres', $done, 't', "now to a $kind");
}
is(sql(q{SELECT sagaz.count_records('outbox', 'other')}), '3', 'three are in its outbox');
is($redis->cli(qw(XLEN other)), '6', 'and three more in its stream');

# A stream that has no room for higher ids.
$redis->cli('XADD', 'other', '18446744073709551615-1', 'a', 'b');
emit(1);
query_is($node, 'postgres', q{SELECT last_error LIKE '%no room for more ids%' FROM sagaz.stat_delivery}, 't', 'ids at their end');

done_testing();
