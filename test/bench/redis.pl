#
# Deliveries to a broker's stream in Redis, against redis-benchmark, which adds
# the same entry to a stream as fast as one connection can.
#
use strict;
use warnings;

use IO::Socket::UNIX;
use Time::HiRes qw(time usleep);

our (%title, %schema, %peer, @rows, $trials, $scale, $work);

$title{benchmark} = 'redis-benchmark -P 64 -c 1';
$title{ordered} = 'in order, exactly once';
$peer{stream} = 'sagaz';

my $socket = "$work/redis.socket";
my $redis;

sub redis
{
	return run_program('redis-cli', '-s', $socket, @_);
}

sub start_redis
{
	$redis = fork() // die "could not fork: $!\n";
	if ($redis == 0)
	{
		open(STDOUT, '>', '/dev/null');
		exec(qw(redis-server --port 0 --save), '', '--dir', $work, '--unixsocket', $socket)
		  or die "could not run redis-server: $!\n";
	}
	usleep(10_000) until -S $socket;
}

END
{
	my $status = $?;

	kill 'KILL', $redis if $redis;
	$? = $status;
}

# A backlog of events, and nothing in the stream.
sub prepare_stream
{
	my ($ordering) = @_;

	reset_peer('stream');
	redis('FLUSHALL');
	query("SELECT sagaz.create_storage('broker', 'unix://$socket')",
		"SELECT sagaz.create_consumer_group('stream', ordering => '$ordering')");
}

sub create_stream_delivery
{
	query(q{SELECT sagaz.create_delivery('stream', 'broker', 'stream', options => '{"as": "stream"}')});
}

# Events a second out of a backlog.
sub stream_backlog
{
	my ($ordering) = @_;
	my $events = 1000 * max(10, 200 * $scale);

	prepare_stream($ordering);
	fill('stream', $events);
	query('CHECKPOINT');
	my $start = time;
	create_stream_delivery();
	wait_for('delivery of the backlog',
		"(SELECT coalesce(sum(delivered), 0) FROM sagaz_internal.worker_statistics()) >= $events");
	my $rate = $events / (time - $start);
	my ($added) = redis(qw(XINFO STREAM sage.outbox)) =~ /entries-added\n(\d+)/;
	die "$added entries for $events events\n" if $added != $events;
	query(q{SELECT sagaz.drop_delivery('stream')});
	return $rate;
}

# An entry as the delivery adds it.
sub sample_entry
{
	my @words = split /\n/, redis(qw(XREVRANGE sage.outbox + - COUNT 1));

	shift @words;
	return @words;
}

sub benchmark_rate
{
	my @entry = @_;
	my $count = 100_000 * max(1, 10 * $scale);

	redis('FLUSHALL');
	my $text = run_program('redis-benchmark', '-s', $socket, qw(-P 64 -c 1 --csv -n), $count,
		qw(XADD sage.outbox MAXLEN ~ 10000 *), @entry);
	my ($rate) = $text =~ /^"XADD[^\n]*?","([\d.]+)"/m;
	return $rate // die "no rate from redis-benchmark: $text\n";
}

# A client that reads the stream from now on; for each entry the event's id
# and the time.
sub read_stream
{
	my ($count, $file) = @_;
	my $client = IO::Socket::UNIX->new(Peer => $socket) or die "$socket: $!\n";
	my ($seen, $buffer, $id) = (0, '', '$');

	open(my $out, '>', $file) or die "$file: $!\n";
	while ($seen < $count)
	{
		print $client "XREAD BLOCK 0 STREAMS sage.outbox $id\r\n";
		$client->flush;
		until ($buffer =~ /header:content_type\r\n\$16\r\napplication\/json\r\n\z/)
		{
			sysread($client, $buffer, 65536, length $buffer) or die "Redis went away\n";
		}
		my $now = time;
		while ($buffer =~ /header:event_id\r\n\$36\r\n(\S{36})/g)
		{
			printf $out "%s\t%.6f\n", $1, $now;
			$seen++;
		}
		$id = $1 while $buffer =~ /\$\d+\r\n(\d+-\d+)\r\n/g;
		$buffer = '';
	}
	close($out) or die "$file: $!\n";
}

# Milliseconds from the commit to the entry at a reader: p50 and p99.
sub stream_latency
{
	my $count = max(50, 1000 * $scale);
	my $file = "$work/seen";
	local $ENV{PGOPTIONS} = '-c synchronous_commit=on';

	prepare_stream('none');
	create_stream_delivery();
	wait_for('start of the worker', q{EXISTS (SELECT FROM sagaz.stat_delivery WHERE state = 'idle')});
	my $reader = fork() // die "could not fork: $!\n";
	if ($reader == 0)
	{
		undef $redis;
		read_stream($count, $file);
		POSIX::_exit(0);
	}
	usleep(1000) until redis(qw(CLIENT LIST)) =~ /cmd=xread/;
	transactions_per_second(pgbench($main::single{function}, qw(-c 1 -R 50 -t), $count));
	waitpid($reader, 0);
	my %committed = split /[|\n]/, query('SELECT event_id,'
		  . ' extract(epoch FROM pg_xact_commit_timestamp(pos::xid)) FROM sagaz.outbox');
	open(my $seen, '<', $file) or die "$file: $!\n";
	my @took = sort { $a <=> $b }
	  map { my ($id, $at) = split; 1000 * ($at - $committed{$id}) } <$seen>;
	query(q{SELECT sagaz.drop_delivery('stream')});
	return map { $took[int($_ * $#took)] } 0.5, 0.99;
}

sub stream_latency_row
{
	my (@p50, @p99);

	keep_commit_times('on');
	for my $trial (1 .. $trials)
	{
		my ($p50, $p99) = stream_latency();

		push @p50, $p50;
		push @p99, $p99;
		record('commit to entry read', 'stream', $trial, sprintf('%.3f %.3f', $p50, $p99), 'ms');
	}
	keep_commit_times('off');
	push @rows, ['commit to entry read from the stream, idle, p50', figure(\@p50, ' ms'),
		'p99 ' . figure(\@p99, ' ms'), '', '≤ 2 ms', median(@p50) <= 2 ? 'yes' : 'no'];
}

sub group_redis
{
	start_redis();
	stream_latency_row();
	stream_backlog('none');
	my @entry = sample_entry();
	my $values = measure('delivery to a stream', '/s',
		stream => sub { stream_backlog('none') },
		ordered => sub { stream_backlog('saga') },
		benchmark => sub { benchmark_rate(@entry) });
	compare('sustained delivery to a stream, 1 worker', $values, 'stream',
		'≥ 0.2 × redis-benchmark', benchmark => 0.2);
	compare('the same, ordered group, exactly once', $values, 'ordered',
		'≥ 0.2 × redis-benchmark', benchmark => 0.2);
}

1;
