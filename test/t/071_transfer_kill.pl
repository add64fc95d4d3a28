# A transfer is killed at any moment, with any of the servers that take part in
# it, and resumed, until it is over: then both sides are the same, and each
# event is handed out once.
#
# SAGAZ_ROUNDS=50 kills so often; SAGAZ_KILLS=100 kills so often for each pair of
# storages, or for those whose names, as in "redis to sqlite", match SAGAZ_PAIRS.
# SAGAZ_SEED repeats a run.
use strict;
use warnings;

use IPC::Run;
use List::Util qw(shuffle);
use PostgreSQL::Test::Utils;
use SagazTest;
use SagazTransfer;
use Test::More;
use Time::HiRes qw(time usleep);

my $rounds = $ENV{SAGAZ_ROUNDS} // 8;
my $seed = $ENV{SAGAZ_SEED} // time;
srand $seed;
diag("seed $seed");

my $conf = "restart_after_crash = on\nsagaz.command_timeout = 5s\nsagaz.connect_timeout = 2s\n";
my $places = SagazTransfer->new(
	conf => $conf, other_conf => $conf,
	redis => { appendonly => 'yes', appendfsync => 'always' });
my ($node, $other) = @$places{qw(node other)};
$_->close for values %{ $places->{session} };

# Statements in one session each, since a session may be killed.
package Statements
{
	sub query { return $node->safe_psql($_[0]{database}, $_[1]) }
}

my %database = map { $_ => bless { database => $_ }, 'Statements' } qw(filled empty);

# ----------------------------------------------------------------------
# Sources

my %events = (pending => 0, sent => 0, dead_letter => 0);
my (@sagas, @log);

for my $n (1 .. 300)
{
	push @sagas, sprintf '{"saga_id": "s%d", "saga_name": "S", "status": "executing", "steps": [%s], "context": {"n": %d, "text": "%s"}, "created_at": "2025-01-01T00:00:00.%06dZ"}',
	  $n, join(', ', map { qq({"name": "step $_", "status": "completed", "retry_count": $_}) } 1 .. $n % 4), $n, 'x' x $n, $n;
}
for my $n (1 .. 700)
{
	my $status = (qw(pending sent pending dead_letter pending))[ $n % 5 ];

	$events{$status}++;
	push @log, sprintf '{"event_id": "%s", "saga_id": "s%d", "event_type": "E", "payload": {"n": %d}, "status": "%s", "created_at": "2025-01-01T00:00:%02d.%06dZ"%s}',
	  event_id($n), $n % 30, $n, $status, $n / 20, $n, $status eq 'sent' ? ', "sent_at": "2025-02-01T00:00:00Z"' : '';
}

my @kinds = qw(native sqlite redis library sagaz);
for my $kind (@kinds)
{
	my $session = $database{ $kind eq 'native' ? 'filled' : 'empty' };

	import_into($session, 'saga', SagazTransfer::name($kind, 'filled'), @sagas);
	import_into($session, 'outbox', SagazTransfer::name($kind, 'filled'), @log);
}

# ----------------------------------------------------------------------
# Killing

# The process that serves a session, if there is one.
sub backend
{
	my ($server, $condition) = @_;
	my $pid = '';

	$server->psql('postgres', "SELECT pid FROM pg_stat_activity WHERE $condition LIMIT 1", stdout => \$pid);
	return $pid;
}

my %kill = (
	backend => sub {
		my $pid = backend($node, q{query LIKE 'CALL sagaz.%' AND state = 'active'}) or return 0;
		return kill 'KILL', $pid;
	},
	cluster => sub {
		$node->stop('immediate');
		$node->start;
		return 1;
	},
	redis => sub {
		my $redis = $places->{redis}{ $_[0] };
		$redis->stop;
		$redis->start;
		return 1;
	},
	peer => sub {
		my $pid = backend($other, q{application_name = 'sagaz' AND datname LIKE '%\_} . $_[0] . q{'}) or return 0;
		return kill 'KILL', $pid;
	},
	peer_cluster => sub {
		$other->stop('immediate');
		$other->start;
		return 1;
	});

# Who may be killed when a storage takes part in the place.
my %victims = (
	native => [], sqlite => [],
	redis => ['redis'], library => [qw(peer peer_cluster)], sagaz => [qw(peer peer_cluster)]);

my %killed;

sub kill_one
{
	my ($from, $to) = @_;
	my @victims = (
		[ 'backend', '' ], [ 'cluster', '' ],
		(map { [ $_, 'filled' ] } @{ $victims{$from} }), (map { [ $_, 'empty' ] } @{ $victims{$to} }));
	my ($who, $where) = @{ $victims[ rand @victims ] };

	note("killing $who $where");
	my $count = $kill{$who}->($where);
	$killed{$who} += $count;
	return $count;
}

# ----------------------------------------------------------------------
# A transfer that is killed so often, to its end

my %seconds;
my $interrupted = 0;

sub run_once
{
	my ($database, $call, $then) = @_;
	my ($out, $err) = ('', '');
	my $start = time;
	my $job = IPC::Run::start(
		[ 'psql', '-XAtq', '-d', $node->connstr($database), '-c', $call ],
		'<', \undef, '>', \$out, '2>', \$err);

	$then->();
	$interrupted++ unless IPC::Run::finish($job);
	wait_until_up($_) for $node, $other;
	return time - $start;
}

sub transfer
{
	my ($from, $to, $kills) = @_;
	my $database = $from eq 'native' ? 'filled' : 'empty';
	my ($source, $target) = (SagazTransfer::name($from, 'filled'), SagazTransfer::name($to, 'empty'));
	my $before = $node->safe_psql($database, 'SELECT coalesce(max(transfer_id), 0) FROM sagaz.transfer');
	my $size = (3, 20, 100)[ rand 3 ];
	my $name = "$source to $target by $size";
	my $left = $kills;
	my $state = '';

	for (1 .. 10 + 2 * $kills)
	{
		my ($id) = $state eq '' ? () : (split /\|/, $state)[0];
		my $call = $id ? "CALL sagaz.resume_transfer($id)" : "CALL sagaz.transfer('$source', '$target', batch_size => $size)";
		my $wait = $left ? 0.7 * rand($seconds{$name} // 0.3) : 0;
		my $seconds = run_once($database, $call, sub {
			return unless $left;
			usleep($wait * 1e6);
			$left -= kill_one($from, $to);
		});

		$seconds{$name} //= $seconds if $left == 0;
		$state = $node->safe_psql($database, "SELECT transfer_id, state FROM sagaz.transfers WHERE transfer_id > $before");
		last if $state =~ /completed/;
	}
	like($state, qr/^\d+\|completed\z/, "$name, $kills kills: one transfer, and it is completed");
	return $kills - $left;
}

sub check
{
	my ($from, $to) = @_;
	my $database = $database{ $from eq 'native' ? 'filled' : 'empty' };
	my ($source, $target) = (SagazTransfer::name($from, 'filled'), SagazTransfer::name($to, 'empty'));
	my $name = "$source to $target";

	for my $type (qw(saga outbox))
	{
		my $sum = "SELECT sagaz.count_records('$type', '%s'), sagaz.checksum('$type', '%s')";
		is($database->query($sum =~ s/%s/$target/gr), $database->query($sum =~ s/%s/$source/gr), "$name: the same: $type");
	}
	is($database->query("SELECT count(*), count(DISTINCT event_id), bool_and((payload->>'n')::integer % 5 IN (0, 2, 4))
		FROM sagaz.claim_batch('w', 10000, storage => '$target')"), "$events{pending}|$events{pending}|t", "$name: each event that waits is handed out once");
	is($database->query("SELECT count(*) FROM sagaz.claim_batch('w', 10000, storage => '$target')"), '0', "$name: and no more");
}

my $each = $ENV{SAGAZ_KILLS};
my $some = $ENV{SAGAZ_PAIRS} // '';
my @pairs = grep { "$_->[0] to $_->[1]" =~ /$some/ } shuffle(map { my $from = $_; map { [ $from, $_ ] } grep { $_ ne $from } @kinds } @kinds);
my $kills = 0;
my %of_pair;
while ($each ? @pairs : $kills < $rounds)
{
	my ($from, $to) = @{ $pairs[0] };
	my $database = $database{ $from eq 'native' ? 'filled' : 'empty' };

	$places->clear($to, 'empty', $database);
	my $done = transfer($from, $to, 1 + int rand 3);
	check($from, $to);
	$kills += $done;
	$of_pair{"$from to $to"} += $done;
	push @pairs, $pairs[0] unless $each && $of_pair{"$from to $to"} >= $each;
	shift @pairs;
}
diag(join(', ', map { "$_: $of_pair{$_} kills" } sort keys %of_pair)) if $each;
diag(join(', ', map { "$_ killed $killed{$_} times" } grep { $killed{$_} } sort keys %killed) . "; $interrupted calls ended early");
cmp_ok($kills, '>=', $rounds, 'as often as asked for') unless $each;

$node->stop;
$other->stop;
done_testing();
