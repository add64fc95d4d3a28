#
# The background worker against the usual client, which listens for a
# notification that each emitting transaction sends.  Both put what they get
# into the same ledger table, in the transaction that finishes the batch.
#
use strict;
use warnings;

our (%single, %title, %peer, %schema, @rows, $trials, $scale, $work);

$title{without} = 'nobody delivers';
$title{listen} = 'NOTIFY and a LISTEN client';
$title{client} = 'client, one call a batch';
$peer{worker} = 'worker';
$schema{worker} = 'bench_worker';

my @clients;
my $notified = "WITH e AS ($single{function} AS id) SELECT id, pg_notify('bench', '') FROM e";
my $delivery = "SELECT sagaz.create_delivery('bench',"
  . " 'bench_worker.to_ledger(sagaz.outbox_event[])'::regprocedure)";

sub wait_for
{
	my ($what, $condition) = @_;

	for (1 .. 6000)
	{
		return if query("SELECT $condition") eq 't';
		select(undef, undef, undef, 0.01);
	}
	die "$what did not happen\n";
}

sub wait_for_delivery
{
	wait_for('delivery', '(SELECT events FROM sagaz_internal.group_lag($$sagaz-workers$$)) = 0');
}

# A worker or a client that is ready; the pid of the client.
sub begin_delivery
{
	my ($name) = @_;

	reset_peer('worker');
	if ($name eq 'worker')
	{
		query($delivery);
		wait_for('start of the worker',
			q{EXISTS (SELECT FROM sagaz.stat_delivery WHERE state = 'idle')});
	}
	return undef unless $name eq 'listen';
	my $pid = open(my $client, '-|', "$work/listen", 'bench',
		'SELECT bench_worker.client_work()') or die "could not run listen: $!\n";
	push @clients, $pid;
	<$client>;
	return [$pid, $client];
}

# A client that outlives us would have us wait for it.
END { kill 'TERM', @clients }

sub end_delivery
{
	my ($name, $client) = @_;

	query(q{SELECT sagaz.drop_delivery('bench')}) if $name eq 'worker';
	kill 'TERM', $client->[0] if $client;
}

# Milliseconds from the emitting commit to the delivering one: p50 and p99.
# The events come one by one, fifty a second, so nothing is ever under way.
sub latency
{
	my ($name) = @_;
	my $count = max(50, 1000 * $scale);
	my $client = begin_delivery($name);
	local $ENV{PGOPTIONS} = '-c synchronous_commit=on';

	transactions_per_second(pgbench($name eq 'listen' ? $notified : $single{function},
			qw(-c 1 -R 50 -t), $count));
	wait_for_delivery();
	end_delivery($name, $client);
	my $figures = query('SELECT percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY'
		  . ' extract(epoch FROM pg_xact_commit_timestamp(l.xmin)'
		  . ' - pg_xact_commit_timestamp(o.pos::xid)) * 1000)'
		  . ' FROM sagaz.outbox o JOIN bench_worker.ledger l USING (event_id)');
	return $figures =~ /([\d.]+),([\d.]+)/;
}

# Commit times are kept for this group alone.
sub keep_commit_times
{
	my ($on) = @_;

	query("ALTER SYSTEM SET track_commit_timestamp = $on");
	run_program('pg_ctl', '-D', $ENV{PGDATA}, qw(-w -s -l), "$work/server.log", 'restart');
}

sub latency_rows
{
	my %got;

	keep_commit_times('on');
	for my $trial (1 .. $trials)
	{
		for my $name (qw(worker listen))
		{
			my ($p50, $p99) = latency($name);

			push @{ $got{$name}{50} }, $p50;
			push @{ $got{$name}{99} }, $p99;
			record('commit to delivered', $name, $trial, sprintf('%.3f %.3f', $p50, $p99), 'ms');
		}
	}
	keep_commit_times('off');
	for my $p (50, 99)
	{
		my ($own, $other) = map { $got{$_}{$p} } qw(worker listen);
		my $limit = $p == 50 ? 1 : 3;

		push @rows, ["commit to handler done, idle, p$p", figure($own, ' ms'),
			"$title{listen} " . figure($other, ' ms'),
			sprintf('%.2f', median(@$own) / median(@$other)), "≤ $limit ms",
			median(@$own) <= $limit ? 'yes' : 'no'];
	}
}

# Inserts a second while somebody, or nobody, delivers.
sub insert_beside
{
	my ($name) = @_;
	my $client = begin_delivery($name);
	my $rate = transactions_per_second(pgbench($name eq 'listen' ? $notified : $single{function},
			qw(-c 8 -j 2 -T), max(1, 8 * $scale)));

	wait_for_delivery() unless $name eq 'without';
	end_delivery($name, $client);
	return $rate;
}

# Events a second out of a backlog.
sub deliver_backlog
{
	my ($name) = @_;
	my $events = 1000 * max(10, 200 * $scale);

	reset_peer('worker');
	fill('view', $events);
	query('CHECKPOINT');
	my $start = [Time::HiRes::gettimeofday()];
	if ($name eq 'worker')
	{
		query($delivery);
		wait_for('delivery of the backlog',
			"(SELECT coalesce(sum(delivered), 0) FROM sagaz_internal.worker_statistics()) >= $events");
	}
	else
	{
		run_program("$work/listen", '-', 'SELECT bench_worker.client_work()');
	}
	my $rate = $events / Time::HiRes::tv_interval($start);
	my $got = query('SELECT count(DISTINCT event_id) FROM bench_worker.ledger');
	die "$name delivered $got of $events events\n" if $got != $events;
	end_delivery($name);
	return $rate;
}

sub group_worker
{
	require Time::HiRes;
	latency_rows();
	my $values = measure('insert beside delivery', '/s',
		map { my $name = $_; ($name => sub { insert_beside($name) }) } qw(worker without listen));
	compare('single insert, 8 clients, while the worker delivers', $values, 'worker',
		'≥ 0.9 × without', without => 0.9, listen => undef);
	$values = measure('sustained delivery', '/s',
		map { my $name = $_; ($name => sub { deliver_backlog($name) }) } qw(worker client));
	compare('sustained delivery to a ledger, 1 worker', $values, 'worker',
		'≥ client', client => 1);
}

1;
