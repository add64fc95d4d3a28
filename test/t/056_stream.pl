# Deliveries to the stream of a broker: entries as the Python library's worker
# publishes them; of an ordered group each event gets one entry, whoever is
# killed and whatever the server has lost.
#
# SAGAZ_ROUNDS=100 kills the server, the worker and the cluster so often each.
use strict;
use warnings;

use File::Copy;
use JSON::PP;
use PostgreSQL::Test::Utils;
use SagazDelivery;
use SagazRedis;
use SagazTest;
use Test::More;
use Time::HiRes qw(usleep);

my $rounds = $ENV{SAGAZ_ROUNDS} // 3;
my $seed = $ENV{SAGAZ_SEED} // time;
srand $seed;
diag("seed $seed");

my $json = JSON::PP->new->utf8->canonical->allow_nonref;
my $redis = SagazRedis->new(appendonly => 'yes', appendfsync => 'always')->start;
my $node = new_node('stream', conf => <<'CONF');
sagaz.max_crashes = 0
sagaz.poll_interval = 1h
sagaz.retry_backoff = 100ms
sagaz.command_timeout = 2s
sagaz.connect_timeout = 2s
restart_after_crash = on
CONF
my $err;

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

sub fails
{
	my ($query, $state, $name) = @_;

	$node->psql('postgres', "\\set VERBOSITY sqlstate\n$query", stderr => \$err);
	like($err, qr/ERROR:  $state/, $name);
}

# The entries of a stream: [id, {field => value}, [fields in order]].
sub entries
{
	my ($stream) = @_;
	my @entries;
	my $reply = $redis->cli('--json', 'XRANGE', $stream, '-', '+');

	for my $entry (@{ $json->decode($reply) })
	{
		my ($id, $words) = @$entry;
		push @entries, [ $id, {@$words}, [ map { $words->[ 2 * $_ ] } 0 .. $#$words / 2 ] ];
	}
	return @entries;
}

sql("SELECT sagaz.create_storage('broker', '" . $redis->url . "', options => '{\"max_stream_length\": 0}')");
sql("SELECT sagaz.create_storage('memory', 'memory://')");

# ----------------------------------------------------------------------
# Input

fails(qq{SELECT sagaz.create_delivery('x', 'broker', options => '$_')}, 'SZ009', "options $_")
  for '{"as": "topic"}', '{"as": 1}', '{}', '[]', '{"as": "stream", "more": 1}';
fails(q{SELECT sagaz.create_delivery('x', 'memory', options => '{"as": "stream"}')}, 'SZ009', 'a storage of the session');

# ----------------------------------------------------------------------
# An entry, field by field

sql(<<'SQL');
SELECT sagaz.create_consumer_group('plain');
SELECT sagaz.create_delivery('plain', 'broker', 'plain', options => '{"as": "stream"}');
SELECT sagaz.insert_event('saga 1', 'OrderPlaced', '{"n": 1, "text": "é \" ☃ 😀 / \u007f", "list": [1.0, null, true]}',
	'order', 'ORD:1', '{"trace_id": "t-1", "n": 1.50, "flag": true, "none": null, "deep": {"a": [1, "it''s"]}, "event_type": "mine"}',
	event_id => '00000000-0000-4000-8000-000000000001');
SELECT sagaz.insert_event('saga 2', 'OrderPaid', 'null', event_id => '00000000-0000-4000-8000-000000000002');
SQL
query_is($node, 'postgres', q{SELECT delivered FROM sagaz.stat_delivery WHERE name = 'plain'}, '2', 'published');
my $created = sql(q{SELECT to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"')
	FROM sagaz.outbox WHERE event_type = 'OrderPlaced'}) =~ s/\.000000//r;
my @got = sort { $a->[1]{topic} cmp $b->[1]{topic} } entries('sage.outbox');
@got = reverse @got;
is(scalar @got, 2, 'an entry an event');
is_deeply($got[0][2],
	[qw(topic payload key header:event_id header:saga_id header:event_type header:content_type
		  header:n header:deep header:flag header:none header:trace_id)],
	'the fields, in the order of the library');
is($got[0][1]{topic}, 'OrderPlaced', 'topic is the type');
is($got[0][1]{key}, 'ORD:1', 'key is the aggregate');
is($got[0][1]{payload},
	'{"event_id": "00000000-0000-4000-8000-000000000001", "saga_id": "saga 1", "aggregate_type": "order", '
	  . '"aggregate_id": "ORD:1", "event_type": "OrderPlaced", "payload": {"n": 1, "list": [1.0, null, true], '
	  . '"text": "\u00e9 \" \u2603 \ud83d\ude00 / \u007f"}, "timestamp": "' . $created . '"}',
	'payload, as Python spells JSON');
is($got[0][1]{'header:content_type'}, 'application/json', 'content type');
is($got[0][1]{'header:event_type'}, 'mine', q(the event's own headers win));
is_deeply([ @{ $got[0][1] }{qw(header:trace_id header:n header:flag header:none header:deep)} ],
	[ 't-1', '1.5', 'True', 'None', q({'a': [1, "it's"]}) ], 'headers as Python turns them into text');
is($got[1][1]{key}, 'saga 2', 'an aggregate that is not named is the saga');
like($got[1][1]{payload}, qr/"payload": null, /, 'a payload of null');
sql("SELECT sagaz.drop_delivery('plain')");

# As the library: about so many entries, and another stream.
sql("ALTER SERVER broker OPTIONS (SET max_stream_length '1000', ADD stream 'other')");
sql("SELECT sagaz.create_delivery('plain', 'broker', 'plain', options => '{\"as\": \"stream\"}')");
sql("SELECT count(sagaz.insert_event('s', 'Many', '{}')) FROM generate_series(1, 3000)");
query_is($node, 'postgres', q{SELECT delivered FROM sagaz.stat_delivery WHERE name = 'plain'}, '3000', 'many');
my $length = $redis->cli(qw(XLEN other));
ok($length >= 1000 && $length < 1200, "the stream is cut to about 1000 entries: $length");
sql("SELECT sagaz.drop_delivery('plain')");
sql("ALTER SERVER broker OPTIONS (SET max_stream_length '0', SET stream 'exact')");

# ----------------------------------------------------------------------
# Each event gets one entry

sql(<<'SQL');
SELECT sagaz.create_consumer_group('exact', 'saga', 'now');
SELECT sagaz.create_delivery('exact', 'broker', 'exact', batch_size => 50, options => '{"as": "stream"}');
CREATE TABLE emitted (n bigserial, saga_id text, event_id uuid);
CREATE PROCEDURE emit(count integer) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. count LOOP
		INSERT INTO public.emitted (saga_id, event_id)
			SELECT s, sagaz.insert_event(s, 'E', jsonb_build_object('i', i), available_at =>
				CASE WHEN random() < 0.02 THEN clock_timestamp() + interval '20 ms' END)
				FROM (SELECT 'saga' || (random() * 6)::int AS s FROM generate_series(1, (1 + random() * 5)::int)) AS x;
		COMMIT;
	END LOOP;
END $$;
SQL

# Compare the stream with the log.
sub exact
{
	my ($name) = @_;
	my (%count, %place);
	my $i = 0;

	query_is($node, 'postgres', q{SELECT NOT EXISTS (SELECT FROM sagaz.get_outbox_statistics('exact')
		WHERE pending + claimed + failed > 0)}, 't', "$name: all is sent");
	for my $entry (entries('exact'))
	{
		my $id = $entry->[1]{'header:event_id'};

		$count{$id}++;
		$place{$id} = $i++;
	}
	my @log = map { [ split /\|/ ] }
	  split /\n/, sql('SELECT event_id, saga_id FROM emitted ORDER BY n');
	my @missing = grep { !$count{$_} } map { $_->[0] } @log;
	my @twice = grep { $count{$_} > 1 } sort keys %count;

	is_deeply([ \@missing, \@twice, scalar(keys %count) ], [ [], [], scalar @log ],
		"$name: each event has one entry, and there is no other");
	# scheduled events take their place when they are due
	my %scheduled = map { $_ => 1 } split /\n/, sql('SELECT event_id FROM sagaz.outbox WHERE available_at IS NOT NULL');
	my (%last, @wrong);
	for my $event (grep { !$scheduled{ $_->[0] } } @log)
	{
		my ($id, $saga) = @$event;

		push @wrong, $id if ($last{$saga} // -1) > ($place{$id} // 0);
		$last{$saga} = $place{$id};
	}
	is_deeply(\@wrong, [], "$name: in the order of each saga");
}

# A process that emits; it goes on when the cluster is back.
sub start_load
{
	my ($transactions) = @_;
	my $pid = fork // die "fork: $!";

	return $pid if $pid;
	$ENV{PGCONNECT_TIMEOUT} = 1;
	open STDERR, '>', '/dev/null';
	for (1 .. $transactions / 20)
	{
		system(qw(psql -XqAt -h), $node->host, '-p', $node->port, '-U', getpwuid($<) // 'postgres', 'postgres', '-c', 'CALL emit(20)');
		usleep(1000);
	}
	POSIX::_exit(0);
}

sub kill_worker
{
	my $pid = sql(q{SELECT pid FROM sagaz.stat_delivery WHERE name = 'exact'});

	kill 'KILL', $pid if $pid;
	wait_until_up($node);
}

my %kill = (
	worker => \&kill_worker,
	cluster => sub { $node->stop('immediate'); $node->start; },
	redis => sub { $redis->stop; $redis->start; });

require POSIX;
sql('CALL emit(20)');
exact('without trouble');
for my $fsync (qw(always everysec))
{
	$redis->cli('CONFIG', 'SET', 'appendfsync', $fsync);
	$redis->{settings}{appendfsync} = $fsync;
	my $load = start_load(40 * $rounds * 3);
	my @victims = map { ($_) x $rounds } sort keys %kill;
	while (@victims)
	{
		my $victim = splice @victims, int rand @victims, 1;

		usleep(int rand 80_000);
		$kill{$victim}->();
	}
	waitpid $load, 0;
	exact("appendfsync $fsync, $rounds kills each");
}

# A script that is on its way when its sender dies: the server sleeps meanwhile.
for (1 .. 3)
{
	$redis->signal('STOP');
	sql('CALL emit(3)');
	query_is($node, 'postgres', q{SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'sagaz: delivering % to broker'}, '1', 'sending');
	kill_worker();
	$redis->signal('CONT');
	exact('killed while the server slept');
}

# The server refuses, and takes nothing of the batch.
$redis->cli(qw(CONFIG SET maxmemory 1));
sql('CALL emit(10)');
query_is($node, 'postgres', q{SELECT last_error LIKE '%failed%' FROM sagaz.stat_delivery WHERE name = 'exact'}, 't', 'full');
$redis->cli(qw(CONFIG SET maxmemory 0));
exact('after it was full');

# A consumer that deletes what it has read, and a worker that starts anew.
$redis->cli(qw(XGROUP CREATE exact reader 0));
my @all = map { $_->[0] } entries('exact');
my %gone = map { $_->[1]{'header:event_id'} => 1 } entries('exact');
$redis->cli('XDEL', 'exact', splice @all, 0, 100) while @all;
$kill{cluster}->();
query_is($node, 'postgres', q{SELECT state FROM sagaz.stat_delivery WHERE name = 'exact'}, 'idle', 'it is back');
is($redis->cli(qw(XLEN exact)), '0', 'nothing that was deleted is sent again');
sql('DELETE FROM emitted');
sql('CALL emit(10)');
exact('after the deletion');

# An older copy of the server's data: what it lacks is sent again, once.
$redis->cli('CONFIG', 'SET', 'appendonly', 'no');
$redis->{settings}{appendonly} = 'no';
$redis->cli('SAVE');
copy("$redis->{dir}/dump.rdb", "$redis->{dir}/old.rdb") or die $!;
sql('CALL emit(60)');
exact('before the loss');
my @before = map { [ $_->[0], $_->[1]{'header:event_id'} ] } entries('exact');
$redis->stop;
copy("$redis->{dir}/old.rdb", "$redis->{dir}/dump.rdb") or die $!;
$redis->start;
sql('CALL emit(5)');
exact('after the loss');
is_deeply([ map { [ $_->[0], $_->[1]{'header:event_id'} ] } (entries('exact'))[ 0 .. $#before ] ], \@before,
	'what was lost is back, under its old ids');

# A server without any data.
$redis->stop;
unlink "$redis->{dir}/dump.rdb";
$redis->start;
sql('CALL emit(5)');
query_is($node, 'postgres', q{SELECT NOT EXISTS (SELECT FROM sagaz.get_outbox_statistics('exact') WHERE pending + claimed + failed > 0)}, 't', 'empty: all is sent');
my %there;
$there{ $_->[1]{'header:event_id'} }++ for entries('exact');
is_deeply([ grep { !$there{$_} } split /\n/, sql('SELECT event_id FROM emitted') ], [], 'empty: nothing is missing');
is_deeply([ grep { $there{$_} > 1 } keys %there ], [], 'empty: nothing is there twice');

# Another writer: told, and in the end each event has one entry nevertheless.
$redis->cli(qw(XADD exact * payload foreign));
sql('CALL emit(5)');
query_is($node, 'postgres', q{SELECT last_error LIKE 'somebody else adds to the stream%' FROM sagaz.stat_delivery WHERE name = 'exact'}, 't', 'another writer is told of');
query_is($node, 'postgres', q{SELECT NOT EXISTS (SELECT FROM sagaz.get_outbox_statistics('exact') WHERE pending + claimed + failed > 0)}, 't', 'another writer: all is sent');
%there = ();
$there{ $_->[1]{'header:event_id'} // 'foreign' }++ for entries('exact');
is_deeply([ grep { ($there{$_} // 0) != 1 } split /\n/, sql('SELECT event_id FROM emitted') ], [], 'another writer: each event once');

# Rows of a version that we do not know: told, not guessed at.
is(sql('SELECT DISTINCT get_byte(stream_places, 0) FROM sagaz.outbox_batch WHERE stream_ms IS NOT NULL'), '1', 'the places begin with their version');
sql('UPDATE sagaz.outbox_batch SET stream_places = set_byte(stream_places, 0, 2) WHERE stream_ms IS NOT NULL');
kill_worker();
query_is($node, 'postgres', q{SELECT last_error LIKE '%was written by a newer version of sagaz%' FROM sagaz.stat_delivery WHERE name = 'exact'}, 't', 'places of a newer version');

done_testing();
