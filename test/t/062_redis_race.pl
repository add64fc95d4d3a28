# Four workers and two writers at one outbox in Redis, whose server is killed
# now and then; and four sessions at one saga.
#
# SAGAZ_ROUNDS=2000 for longer, SAGAZ_SEED for the same again.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use SagazRedis;
use SagazSession;
use SagazTest;
use Test::More;
use Time::HiRes qw(time usleep);

my $rounds = $ENV{SAGAZ_ROUNDS} // 150;
my $seed = $ENV{SAGAZ_SEED} // int time;
srand $seed;
diag("seed $seed");

my $node = new_node('redis_race', conf => <<'CONF');
fsync = off
timezone = 'UTC'
sagaz.max_retries = 1000
sagaz.retry_backoff = 1ms
sagaz.claim_timeout = 1h
sagaz.command_timeout = 10s
CONF
my %built = map { $_ => 1 } split /\n/,
  $node->safe_psql('postgres', 'SELECT name FROM sagaz.backends()');

plan skip_all => 'built without Redis' unless $built{redis};

my $redis = SagazRedis->new(appendonly => 'yes', appendfsync => 'always')->start;
my @workers = map { SagazSession->new($node, 'postgres') } 1 .. 4;
my @writers = map { SagazSession->new($node, 'postgres') } 1 .. 2;

$node->safe_psql('postgres', "SELECT sagaz.create_storage('r', '" . $redis->url . "')");

# ----------------------------------------------------------------------
# The outbox

# held by a worker; sent; unsure: the server was killed when it was asked to
# change that; '': whoever claims it may have it
my %place;
my %batch_of;
my (%inserted, @wrong);
my ($last, $kills, $lost) = (0, 0, 0);

# The events in the hands of a worker, by batch.
sub batches
{
	my ($worker) = @_;
	my %batches;

	push @{ $batches{ $batch_of{$_} } }, $_
	  for grep { $place{$_} eq $worker } sort keys %place;
	return %batches;
}

sub set_place
{
	my ($place, @ids) = @_;
	$place{$_} = $place for @ids;
}

# A statement, and what is to be done with its answer.
sub claim_by
{
	my ($worker, $sure) = @_;
	my $sql = sprintf "SELECT event_id, batch_id FROM sagaz.claim_batch('%s', %d, storage => 'r');",
	  $worker, 1 + rand 8;

	return (
		$sql,
		sub {
			my ($answer) = @_;

			return $lost++ if $answer =~ /^ERROR/m;
			for (split /\n/, $answer)
			{
				my ($id, $batch) = split /\|/;
				my $place = $place{$id} // '';

				push @wrong, "$id: $place, claimed by $worker"
				  if $place eq 'sent' || ($place ne '' && $sure);
				($place{$id}, $batch_of{$id}) = ($worker, $batch);
			}
		});
}

sub work_of
{
	my ($worker) = @_;
	my %batches = batches($worker);
	my ($batch) = keys %batches;

	return claim_by($worker, 1) if !$batch || rand() < 0.4;

	my @all = @{ $batches{$batch} };
	my @ids = @all;
	my $sql = "sagaz.finish_batch($batch, '$worker', 'r')";
	my $finish = 0;

	if (rand() < 0.3)
	{
		$sql = "sagaz.release_batch($batch, '$worker', storage => 'r')";
	}
	elsif (rand() < 0.3)
	{
		@ids = grep { rand() < 0.5 } @all;
		$sql = "sagaz.mark_failed('{" . join(',', @ids) . "}', '$worker', 'no', storage => 'r')";
	}
	else
	{
		$finish = 1;
	}
	# another one may claim them before the answer is seen
	set_place('', @ids) unless $finish;
	return (
		"SELECT $sql;",
		sub {
			my ($answer) = @_;

			if ($answer =~ /^ERROR SZ001/m)
			{
				my @mine = grep { $place{$_} eq $worker && $batch_of{$_} == $batch } @all;
				return set_place($finish ? 'unsure' : '', @mine);
			}
			push @wrong, "$worker: $sql: $answer" if $answer ne @ids . "\n";
			set_place('sent', @ids) if $finish;
		});
}

sub insert_of
{
	my @ids = map { sprintf '00000000-0000-4000-8000-%012d', ++$last } 0 .. rand 4;
	my $events = join ', ',
	  map { qq({"event_id": "$_", "saga_id": "s", "event_type": "E", "payload": {}}) } @ids;

	return (
		"SELECT cardinality(sagaz.insert_events('[$events]', 'r'));",
		sub {
			my ($answer) = @_;

			return if $answer =~ /^ERROR SZ001/m;
			push @wrong, "insert: $answer" if $answer ne @ids . "\n";
			@inserted{@ids} = ();
		});
}

for my $round (1 .. $rounds)
{
	my @asked;

	for my $i (0 .. $#workers)
	{
		my ($sql, $then) = work_of("w$i");
		push @asked, [ $workers[$i], $sql, $then ];
	}
	push @asked, [ $_, insert_of() ] for @writers;
	$_->[0]->ask($_->[1]) for @asked;
	if ($round % 20 == 0)
	{
		usleep(rand 3000);
		$redis->stop;
		$redis->start;
		$kills++;
	}
	$_->[2]->($_->[0]->answer) for @asked;
}
is_deeply(\@wrong, [], "no event in two hands, none twice; $kills kills, $lost claims lost");
cmp_ok(scalar keys %inserted, '>', $rounds, 'there were events');

# What is in nobody's hands any more comes when its lease is over.
$node->append_conf('postgresql.conf', 'sagaz.claim_timeout = 20ms');
$node->reload;
for my $i (0 .. $#workers)
{
	my %batches = batches("w$i");

	for my $batch (sort keys %batches)
	{
		is($workers[$i]->outcome("SELECT sagaz.finish_batch($batch, 'w$i', 'r');"),
			@{ $batches{$batch} } . "\n", "w$i finishes what it holds");
		set_place('sent', @{ $batches{$batch} });
	}
}
my $end = time + 60;
my $open = "SELECT count(*) FROM sagaz.export_all('outbox', 'r') r WHERE r->>'status' <> 'sent';";
while (time < $end && $workers[0]->outcome($open) ne "0\n")
{
	my ($sql, $then) = claim_by('last', 0);
	$then->($workers[0]->outcome($sql));
	my %batches = batches('last');
	for my $batch (keys %batches)
	{
		my $sent = $workers[0]->outcome("SELECT sagaz.finish_batch($batch, 'last', 'r');");
		push @wrong, $sent if $sent ne @{ $batches{$batch} } . "\n";
		set_place('sent', @{ $batches{$batch} });
	}
}
is_deeply(\@wrong, [], 'nothing sent is claimed again');
is($workers[0]->outcome($open), "0\n", 'all are sent in the end');
my %there = map { $_ => 1 } split /\n/,
  $workers[0]->outcome("SELECT r->>'event_id' FROM sagaz.export_all('outbox', 'r') r;");
is_deeply([ grep { !$there{$_} } sort keys %inserted ], [], 'none is lost');
is(join(' ', map { $redis->cli(@$_) } [ 'XLEN', 'sagaz:outbox:events' ],
		[ 'HLEN', 'sagaz:outbox:processing' ], [ 'ZCARD', 'sagaz:outbox:sagaz:due' ]),
	'0 0 0', 'nothing is left beside the records');
is($redis->cli('XPENDING', 'sagaz:outbox:events', 'sagaz-workers') =~ /^(\d+)/ ? $1 : '', 0,
	'nor pending in the group');

# ----------------------------------------------------------------------
# A saga

$workers[0]->outcome(q{SELECT sagaz.save_saga_state('s', 'S', 'executing', '[{"name": "0"}, {"name": "1"}, {"name": "2"}, {"name": "3"}]', storage => 'r');});
my @answers;
for my $n (1 .. 25)
{
	$workers[$_]->ask("SELECT sagaz.update_step_state('s', '$_', 'executing', '$n', storage => 'r');") for 0 .. 3;
	push @answers, grep { /ERROR/ } map { $_->answer } @workers;
}
is_deeply(\@answers, [], 'four sessions update steps of one saga');
is($workers[0]->outcome(
		q{SELECT r->'version', jsonb_path_query_array(r, '$.steps[*].result') FROM sagaz.load_saga_state('s', 'r') r;}),
	"101|[25, 25, 25, 25]\n", 'and no update is lost');

my @won;
for my $version (101 .. 120)
{
	my $sql = "SELECT sagaz.save_saga_state('s', 'S', 'executing', context => '{\"by\": \"%d %d\"}', expected_version => %d, storage => 'r');";

	$workers[$_]->ask(sprintf $sql, $version, $_, $version) for 0 .. 3;
	my %answers;
	$answers{ $_->answer }++ for @workers;
	push @won, "$version: " . join ' ', %answers
	  unless ($answers{ $version + 1 . "\n" } // 0) == 1 && ($answers{"ERROR SZ006\n"} // 0) == 3;
}
is_deeply(\@won, [], 'of those that expect one version one wins');

$_->close for @workers, @writers;
$node->stop;
done_testing();
