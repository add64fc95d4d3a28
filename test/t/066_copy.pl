# Copies out of and into storages that are not ours alone: the order in which
# they are read, what a batch leaves in Redis, and what the Python library's
# tables have no place for.
use strict;
use warnings;

use List::Util qw(shuffle);
use SagazRedis;
use SagazSession;
use SagazTest;
use Test::More;

my $node = new_node('copy', conf => <<'CONF');
fsync = off
timezone = 'UTC'
CONF
my %built = map { $_ => 1 } split /\n/, $node->safe_psql('postgres', 'SELECT name FROM sagaz.backends()');
my $redis = $built{redis} ? SagazRedis->new->start : undef;
my $files = PostgreSQL::Test::Utils::tempdir();
my $host = $node->host =~ s{/}{%2F}gr;
my %url = (memory => 'memory://copy');

$node->safe_psql('postgres', 'CREATE DATABASE library');
$url{sqlite} = "sqlite://$files/copy.db" if $built{sqlite};
$url{redis} = $redis->url if $redis;
$url{library} = "postgresql://\@$host:" . $node->port . '/library' if $built{postgresql};

my $session = SagazSession->new($node, 'postgres');
$session->query('SET client_min_messages = warning');

sub import_all
{
	my ($storage, $type, @records) = @_;

	$session->query(sprintf q{SELECT count(*) FROM sagaz.import_records($j$[%s]$j$, '%s', 'replace', '%s')},
		join(',', @records), $type, $storage);
}

sub saga
{
	my ($id, $name, $status, $steps) = @_;

	return sprintf '{"saga_id": "%s", "saga_name": "%s", "status": "%s", "steps": %s, "context": {}}',
	  $id, $name, $status, $steps // '[]';
}

sub uuid { return sprintf '00000000-0000-4000-8000-%012d', shift }

sub event
{
	my ($id, $second, $status, $saga_id) = @_;

	return sprintf '{"event_id": "%s", "saga_id": "%s", "event_type": "E", "payload": {"at": %d}, "status": "%s",'
	  . ' "created_at": "2025-01-01T00:%02d:%02d+00:00"}',
	  $id, $saga_id // 's', $second, $status // 'pending', $second / 60, $second % 60;
}

# ----------------------------------------------------------------------
# Order

# Seven events have each time, and ids tell nothing of it; more than a page
# of any storage, in batches that end between events of one time.
srand 66;
my $count = 1300;
my @numbers = shuffle 1 .. $count;
my @events = map { { id => uuid($numbers[$_]), second => int($_ / 7) } } 0 .. $#numbers;
my @in_order = map { $_->{id} }
  sort { $a->{second} <=> $b->{second} || $a->{id} cmp $b->{id} } @events;

for my $storage (sort keys %url)
{
	import_all($url{$storage}, 'outbox', map { event($_->{id}, $_->{second}) } shuffle @events);
	$session->query("CALL sagaz.transfer('$url{$storage}', 'native', 'outbox', 50)");
	is($node->safe_psql('postgres', 'SELECT event_id FROM sagaz.outbox ORDER BY seq'),
		join("\n", @in_order), "$storage: events come oldest first");
	$session->query('TRUNCATE sagaz.outbox, sagaz.outbox_archive, sagaz.outbox_retry');
}

# ----------------------------------------------------------------------
# Batches into Redis

sub members
{
	my ($set) = @_;

	return join ' ', sort split /\n/, $redis->cli('SMEMBERS', "saga:index:$set");
}

SKIP:
{
	skip 'without Redis', 10 unless $redis;
	my @words = qw(pending executing completed compensating failed rolled_back partially_committed forward_recovery);
	my @sagas = map { saga("saga$_", 'name' . $_ % 20, $words[$_ % 8]) } 0 .. 79;

	$redis->cli('FLUSHALL');
	# left behind by the library, which only adds
	$redis->cli('SADD', 'saga:index:status:failed', 'saga0', 'saga4');
	import_all('memory://sagas', 'saga', @sagas);
	$session->query("CALL sagaz.transfer('memory://sagas', '$url{redis}', 'saga', 33)");
	for my $status (@words)
	{
		is(members("status:$status"), join(' ', sort map { "saga$_" } grep { $words[$_ % 8] eq $status } 0 .. 79),
			"sagas that are $status");
	}
	is(join(',', map { members("name:name$_") } 0 .. 19),
		join(',', map { my $name = $_; join ' ', sort map { 'saga' . ($name + 20 * $_) } 0 .. 3 } 0 .. 19), 'sagas by name');

	# places of events that somebody has deleted
	$redis->cli('FLUSHALL');
	$redis->cli('ZADD', 'sagaz:outbox:sagaz:due', 5, uuid(1), 6, uuid(3));
	$redis->cli('HSET', 'sagaz:outbox:processing', uuid(2), '1-1', uuid(3), '1-2');
	import_all($url{redis}, 'outbox', event(uuid(1), 1), event(uuid(2), 2, 'sent'));
	is(join('|', $redis->cli('ZRANGE', 'sagaz:outbox:sagaz:due', 0, -1), $redis->cli('HKEYS', 'sagaz:outbox:processing'),
			$redis->cli('XLEN', 'sagaz:outbox:events')),
		join('|', uuid(3), uuid(3), 1), 'new events are nowhere but in their place');
}

# ----------------------------------------------------------------------
# What the library's tables have no place for

SKIP:
{
	skip 'without libpq', 3 unless $url{library};
	my $long = 'x' x 256;
	my $wide = "\x{c3}\x{a9}" x 255;
	my %saga = (
		"$long" => [ 'saga_id has more than 255 characters', saga($long, 'n', 'pending') ],
		name => [ 'saga_name has more than 255 characters', saga('name', $long, 'pending') ],
		status => [ 'status has more than 50 characters', saga('status', 'n', 'x' x 51) ],
		none => [ 'steps is not an array', saga('none', 'n', 'pending', '{}') ],
		text => [ 'step 2 is not an object', saga('text', 'n', 'pending', '[{"name": "a"}, "b"]') ],
		nameless => [ 'step 1 has no name', saga('nameless', 'n', 'pending', '[{"status": "failed"}]') ],
		number => [ 'name of step 1 is not a string', saga('number', 'n', 'pending', '[{"name": 1}]') ],
		step => [ 'name of step 1 has more than 255 characters', saga('step', 'n', 'pending', qq([{"name": "$long"}])) ],
		step_status => [ 'status of step 1 has more than 50 characters', saga('step_status', 'n', 'pending', '[{"name": "a", "status": "' . 'x' x 51 . '"}]') ],
		error => [ 'error of step 1 is not a string', saga('error', 'n', 'pending', '[{"name": "a", "error": [1]}]') ],
		time => [ 'executed_at of step 1 is not a time', saga('time', 'n', 'pending', '[{"name": "a", "executed_at": "soon"}]') ],
		retries => [ 'retry_count of step 1 is not a count', saga('retries', 'n', 'pending', '[{"name": "a", "retry_count": 0.5}]') ],
		twice => [ 'two steps have the same name', saga('twice', 'n', 'pending', '[{"name": "a"}, {"name": "a"}]') ]);
	my %event = (
		'event-1' => [ 'event_id is not a UUID', event('event-1', 1) ],
		'0000000A-0000-4000-8000-000000000001' => [ 'event_id is not in lower case', event('0000000A-0000-4000-8000-000000000001', 1) ],
		uuid(1) => [ 'saga_id has more than 255 characters', event(uuid(1), 1, 'pending', $long) ]);

	$session->query("SELECT sagaz.delete_saga_state(saga_id, '$url{library}') FROM sagaz.list_sagas(max_rows => 1000, storage => '$url{library}')");
	import_all('memory://awkward', 'saga', saga($wide, $wide, 'x' x 50), map { $_->[1] } values %saga);
	import_all('memory://awkward', 'outbox', event(uuid(9999), 1, 'pending', $wide), map { $_->[1] } values %event);
	$session->query("CALL sagaz.transfer('memory://awkward', '$url{library}', on_error => 'skip', validate => false)");
	is($session->query('SELECT transferred, skipped FROM sagaz.transfers ORDER BY transfer_id DESC LIMIT 1'),
		'2|' . (keys(%saga) + keys(%event)), 'all but what fits is refused');
	for my $case ([ saga => \%saga ], [ outbox => \%event ])
	{
		my ($type, $wanted) = @$case;
		my %message = map { split /=/, $_, 2 } split /\n/,
		  $node->safe_psql('postgres', "SELECT record_key || '=' || message FROM sagaz.transfer_error WHERE record_type = '$type'");

		is_deeply(\%message, { map { $_ => $wanted->{$_}[0] } keys %$wanted }, "$type: why");
	}
}

done_testing;
