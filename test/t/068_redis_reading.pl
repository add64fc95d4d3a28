# What a Redis server does not let one read is never taken for "it is not
# there": each error that it can answer, in each way of reading, is an error
# here, and what is delivered, copied or counted by it stays.
use strict;
use warnings;

use FakeRedis;
use IPC::Run;
use PostgreSQL::Test::Utils;
use SagazRedis;
use SagazSession;
use SagazTest;
use Test::More;
use Time::HiRes qw(time usleep);

my $node = new_node('redis_reading', conf => "fsync = off\nsagaz.command_timeout = 5s\nsagaz.retry_backoff = 100ms\n");
my $redis = SagazRedis->new->start;
my $dir = PostgreSQL::Test::Utils::tempdir();
my $session = SagazSession->new($node, 'postgres');

sub sql { return $session->query(@_); }
sub outcome { return $session->outcome("$_[0];"); }

# A user with all rights but what follows.
sub user
{
	my ($name, @rights) = @_;

	$redis->cli('ACL', 'SETUSER', $name, 'reset', 'on', '>pw', '&*', '~*', '+@all', @rights);
	sql("SELECT sagaz.create_storage('$name', '" . $redis->url(user => $name, password => 'pw') . "')");
}

sql("SELECT sagaz.create_storage('all', '" . $redis->url . "')");
sql("SELECT sagaz.create_storage('wide', '" . $redis->url(db => 5) . "')");
sql("SELECT count(sagaz.save_saga_state('s' || i, 'N', 'executing', storage => 'all')) FROM generate_series(1, 20) i");
sql("SELECT count(sagaz.insert_event('s' || i, 'E', '{}', event_id => ('00000000-0000-4000-8000-0000000000' || i)::uuid, storage => 'all')) FROM generate_series(11, 30) i");
sql('CREATE SCHEMA f; SET client_min_messages = error');

# Each way to read sagas and events of a storage.
sub readings
{
	my ($storage) = @_;
	my $id = '00000000-0000-4000-8000-000000000011';

	sql("DROP SCHEMA f CASCADE; CREATE SCHEMA f; IMPORT FOREIGN SCHEMA sagaz FROM SERVER \"$storage\" INTO f");
	return map { s/STORAGE/storage => '$storage'/r }
	  "SELECT sagaz.load_saga_state('s1', STORAGE)", "SELECT sagaz.delete_saga_state('s1', STORAGE)",
	  "SELECT sagaz.save_saga_state('s1', 'N', 'failed', expected_version => 1, STORAGE)",
	  "SELECT count(*) FROM sagaz.list_sagas(STORAGE)", "SELECT count(*) FROM sagaz.list_sagas('executing', STORAGE)",
	  "SELECT count(*) FROM sagaz.get_saga_statistics(STORAGE)", "SELECT count(*) FROM sagaz.export_all('saga', STORAGE)",
	  "SELECT sagaz.checksum('saga', STORAGE)", "SELECT count(*) FROM f.sagas", "SELECT count(*) FROM f.sagas WHERE saga_id IN ('s1', 's2')",
	  "UPDATE f.sagas SET status = 'failed' WHERE saga_id = 's1'", "SELECT count(*) FROM sagaz.get_event('$id', STORAGE)",
	  "SELECT count(*) FROM sagaz.get_events_by_saga('s11', STORAGE)", "SELECT count(*) FROM sagaz.export_all('outbox', STORAGE)",
	  "SELECT pending FROM sagaz.get_outbox_statistics(STORAGE)", "SELECT sagaz.checksum('outbox', STORAGE)",
	  "SELECT count(*) FROM f.outbox_events", "SELECT sagaz.update_event_status('$id', 'sent', STORAGE)",
	  "SELECT count(*) FROM sagaz.claim_batch('w', STORAGE)";
}

# None of them succeeds, and nothing is changed by it.
sub all_fail
{
	my ($storage, $pattern, $name) = @_;
	my $before = $redis->try_cli('DEBUG', 'DIGEST');
	my @wrong;

	for my $reading (readings($storage))
	{
		my $outcome = outcome($reading);

		push @wrong, "$reading: $outcome" if $outcome !~ /^ERROR $pattern/;
	}
	is_deeply(\@wrong, [], $name);
	is($redis->try_cli('DEBUG', 'DIGEST'), $before, "$name: nothing is changed") if defined $before;
}

# ----------------------------------------------------------------------
# Rights

user('keyless', 'resetkeys', '~other:*');
all_fail('keyless', 'SZ000', 'a user without the keys');
user('hashless', '-hmget', '-hgetall', '-hget');
all_fail('hashless', 'SZ000', 'a user who may not read hashes');

my $target = "sqlite://$dir/copy.db";
is(sql("SELECT compatible FROM sagaz.validate_transfer('keyless', '$target')"), 'f', 'validate_transfer tells');
like(outcome("CALL sagaz.transfer('keyless', '$target')"), qr/^ERROR SZ004/, 'and a transfer fails');
like(outcome("CALL sagaz.migrate('keyless', 'native')"), qr/^ERROR SZ004/, 'as a move does');

# Rights that are taken while it runs: nothing of the target goes
user('fading');
sql("SELECT sagaz.create_storage('held', 'sqlite://$dir/held.db')");
sql("CALL sagaz.migrate('fading', 'held')");
$redis->cli('ACL', 'SETUSER', 'fading', 'resetkeys', '~other:*');
like(outcome("CALL sagaz.migrate('fading', 'held')"), qr/^ERROR SZ004/, 'a source that may not be read any more');
is(sql("SELECT sagaz.count_records('saga', 'held'), sagaz.count_records('outbox', 'held')"), '20|20', 'removes nothing from the target');

# A claim that may not ask which groups there are deletes nobody's entries
$redis->cli('XGROUP', 'CREATE', 'sagaz:outbox:events', 'others', '0');
user('groupless', '-xinfo');
like(outcome("SELECT count(*) FROM sagaz.claim_batch('w', storage => 'groupless')"), qr/^ERROR SZ000/, 'a claim without XINFO');
is($redis->cli('XLEN', 'sagaz:outbox:events'), '20', 'the entries stay');
is($redis->cli('XPENDING', 'sagaz:outbox:events', 'sagaz-workers') =~ /^0/ ? 'none' : 'some', 'none', 'and are handed to nobody');
$redis->cli('XGROUP', 'DESTROY', 'sagaz:outbox:events', 'others');

# ----------------------------------------------------------------------
# Keys of another type

$redis->cli('SET', 'saga:text', 'x');
$redis->cli('SET', 'sagaz:outbox:meta:00000000-0000-4000-8000-00000000ffff', 'x');
$redis->cli('XADD', 'sagaz:outbox:events', '*', 'event_id', '00000000-0000-4000-8000-00000000ffff', 'saga_id', 's', 'event_type', 'E');
is(sql("SELECT sagaz.count_records('saga', 'all'), count(*) FROM sagaz.list_sagas(storage => 'all')"), '20|20', 'a scan passes a string over');
like(outcome("SELECT sagaz.load_saga_state('text', storage => 'all')"), qr/^ERROR SZ000/, 'who names it is told');
like(outcome("SELECT sagaz.save_saga_state('text', 'N', 'failed', storage => 'all')"), qr/^ERROR SZ000/, 'and writes nothing');
is(sql("SELECT count(*) FROM sagaz.claim_batch('w', storage => 'all')"), '20', 'a claim passes such an event over');
is($redis->cli('XLEN', 'sagaz:outbox:events'), '21', 'and leaves its entry');
$redis->cli('DEL', 'saga:text', 'sagaz:outbox:meta:00000000-0000-4000-8000-00000000ffff');
sql("SELECT sagaz.release_stuck_events('0', storage => 'all')");
for my $key (qw(sagaz:outbox:processing sagaz:outbox:sagaz:due sagaz:outbox:dlq))
{
	$redis->cli('RENAMENX', $key, 'kept');
	$redis->cli('SET', $key, 'x');
	like(outcome("SELECT count(*) FROM sagaz.claim_batch('w', storage => 'all')"), qr/^ERROR SZ000/, "a claim with $key of another program");
	is(sql("SELECT count(*) FILTER (WHERE status = 'pending'), count(*) FROM sagaz.export_all('outbox', 'all') r, jsonb_to_record(r) AS e(status text)"), '20|20', 'nothing is claimed');
	$redis->cli('DEL', $key);
	$redis->try_cli('RENAMENX', 'kept', $key);
}

# A save is all or nothing also where an index is another program's
for my $set (qw(index:status:completed index:name:New))
{
	$redis->cli('SET', "saga:$set", 'x');
	my $digest = $redis->cli('DEBUG', 'DIGEST');
	like(outcome("SELECT sagaz.save_saga_state('s1', 'New', 'completed', storage => 'all')"), qr/^ERROR SZ000/, "a save that meets $set");
	like(outcome("SELECT sagaz.save_saga_state('fresh', 'New', 'completed', storage => 'all')"), qr/^ERROR SZ000/, 'and one of a new saga');
	like(outcome("SELECT sagaz.import_record(jsonb_set(r, '{saga_name}', '\"New\"') || '{\"status\": \"completed\"}', 'saga', 'all') FROM sagaz.export_all('saga', 'all') r LIMIT 1"), qr/^ERROR SZ000/, 'and an import');
	is($redis->cli('DEBUG', 'DIGEST'), $digest, 'write nothing');
	$redis->cli('DEL', "saga:$set");
}

# Hashes of others under the prefix are no sagas
$redis->cli('HSET', 'saga:lock', 'owner', 'me');
is(sql("SELECT sagaz.count_records('saga', 'all'), sagaz.count_records('outbox', 'all')"), '20|20', 'what has no saga in it is not counted');
$redis->cli('DEL', 'saga:lock');

# What is no event, with an entry: it is left as it was, and no other key arises
$redis->cli('HSET', 'sagaz:outbox:meta:00000000-0000-4000-8000-00000000eeee', 'status', 'failed');
$redis->cli('XADD', 'sagaz:outbox:events', '*', 'event_id', '00000000-0000-4000-8000-00000000eeee', 'saga_id', 's', 'event_type', 'E');
is(sql("SELECT count(*) FROM sagaz.claim_batch('w', storage => 'all')"), '20', 'a hash that is no event is not handed out');
is($redis->cli('EXISTS', 'sagaz:outbox:meta:'), '0', 'no other hash arises');
is($redis->cli('HGET', 'sagaz:outbox:meta:00000000-0000-4000-8000-00000000eeee', 'status'), 'failed', 'it is as it was');
$redis->cli('DEL', 'sagaz:outbox:meta:00000000-0000-4000-8000-00000000eeee');
sql("SELECT sagaz.release_stuck_events('0', storage => 'all')");

# Very many at once: no step of it takes longer than a command may
my $start = time;
is(sql("SELECT sagaz.import_records((SELECT jsonb_agg(jsonb_build_object('saga_id', 'm' || i, 'saga_name', 'N', 'status', 'completed', 'steps', '[]'::jsonb, 'context', '{}'::jsonb, 'created_at', '2024-01-01T00:00:00Z', 'updated_at', '2024-01-01T00:00:00Z')) FROM generate_series(1, 40000) i), 'saga', storage => 'wide')"), '40000', '40,000 sagas in one call');
diag(sprintf 'took %.1f s', time - $start);
is(sql("SELECT sagaz.count_records('saga', 'wide')"), '40000', 'all are there');

# ----------------------------------------------------------------------
# A server that is busy

# A script that runs on until it is killed; the server says BUSY meanwhile.
sub while_busy
{
	my ($do) = @_;
	my $script = IPC::Run::start([ 'redis-cli', '-s', $redis->{socket}, 'EVAL', 'while true do end', '0' ], '<', \undef, '>', \my $out, '2>', \my $err);
	my $end = time + 30;

	usleep(5_000) until ($redis->try_cli('PING') // '') =~ /BUSY/ or time > $end;
	$do->();
	$redis->cli('SCRIPT', 'KILL');
	$script->finish;
}

$redis->cli('CONFIG', 'SET', 'busy-reply-threshold', '50');
sql("SELECT count(sagaz.save_saga_state('many' || i, 'N', 'executing', storage => 'all')) FROM generate_series(1, 1500) i");
while_busy(sub { all_fail('all', 'SZ00[016]', 'a server that is busy'); });
sql("DROP SCHEMA f CASCADE; CREATE SCHEMA f; IMPORT FOREIGN SCHEMA sagaz FROM SERVER \"all\" INTO f");
sql('BEGIN; DECLARE c CURSOR FOR SELECT saga_id FROM f.sagas; FETCH 1 FROM c');
while_busy(sub { like(outcome('MOVE ALL FROM c'), qr/^ERROR SZ006/, 'a cursor that is halfway'); });
sql('ROLLBACK');
is(sql('SELECT count(*) FROM f.sagas'), '1520', 'afterwards all are there');

# ----------------------------------------------------------------------
# What a server may answer to any command

for my $reply ('LOADING Redis is loading', 'MASTERDOWN Link with MASTER is down', 'CLUSTERDOWN Hash slot not served', 'NOAUTH Authentication required.',
	'NOPERM this user has no permissions', 'BUSY Redis is busy', 'UNKNOWN what is this',
	'ERR Error running script (call to f_0): @user_script:26: @user_script: 26: -READONLY You can\'t write against a read only replica.')
{
	my $fake = FakeRedis->new(sub {
			my ($client) = @_;

			FakeRedis::swallow($client);
			print $client FakeRedis::greeting();
			while (FakeRedis::swallow($client) ne '') { print $client "-$reply\r\n" x 20; }
		});
	my ($word) = $reply =~ /^(\w+)/;

	sql("SELECT sagaz.create_storage('says $word', '" . $fake->url . "')");
	all_fail("says $word", 'SZ00[016]', "a server that says $word");
	like(outcome("SELECT sagaz.load_saga_state('s', 'says $word')"), qr/^ERROR SZ001/, 'a code within an error of a script') if $word eq 'ERR';
}

# ----------------------------------------------------------------------
# What the server is

for my $case ([ { mode => 'cluster' }, 'node of a Redis Cluster' ], [ { mode => 'sentinel' }, 'Sentinel' ], [ { version => '6.0.16' }, 'older than Redis 6.2' ])
{
	my ($is, $pattern) = @$case;
	my $fake = FakeRedis->new(sub {
			my ($client) = @_;

			FakeRedis::swallow($client);
			print $client FakeRedis::greeting(%$is);
			FakeRedis::swallow($client);
		});

	like(outcome("SELECT count(*) FROM sagaz.list_sagas(storage => '" . $fake->url . "')"), qr/^ERROR SZ000/, $pattern);
	like(sql("SELECT message FROM sagaz.health_check('" . $fake->url . "')"), qr/$pattern/, 'health_check says so');
}
my $cluster = SagazRedis->new('cluster-enabled' => 'yes')->start;
like(outcome("SELECT sagaz.load_saga_state('s', '" . $cluster->url . "')"), qr/^ERROR SZ000/, 'a real node of a cluster');
$cluster->stop;

# ----------------------------------------------------------------------
# Only another connection cures it: the delivery makes one

# Two servers change their parts behind one address; the old one lives on as a
# replica and would answer for ever.
my ($old, $new) = map { SagazRedis->new->start } 1 .. 2;
my $address = "$dir/primary";
symlink $old->{socket}, $address or die $!;
$session->query("SELECT sagaz.create_storage('pair', 'unix://$address')");
$session->query("SELECT sagaz.create_consumer_group('g'), sagaz.create_delivery('d', 'pair', 'g')");
$session->query("SELECT sagaz.insert_event('a', 'before', '{}')");
$node->poll_query_until('postgres', "SELECT delivered = 1 FROM sagaz.stat_delivery WHERE name = 'd'") or die 'not delivered';
is(sql("SELECT sagaz.load_saga_state('none', 'pair') IS NULL"), 't', 'a session has a connection, too');
$old->cli('REPLICAOF', $new->{socket}, '0');
unlink $address;
symlink $new->{socket}, $address or die $!;
$session->query("SELECT sagaz.insert_event('a', 'after', '{}')");
$node->poll_query_until('postgres', "SELECT delivered = 2 FROM sagaz.stat_delivery WHERE name = 'd'") or diag(sql('TABLE sagaz.stat_delivery'));
is($new->cli('XLEN', 'sagaz:outbox:events'), '1', 'it is at the new primary');
like(sql("SELECT last_error FROM sagaz.stat_delivery WHERE name = 'd'"), qr/Redis says: READONLY [^.]*[^.]$|Redis says: READONLY.*\w\.$/, 'the last error says what was wrong');
unlike(sql("SELECT last_error FROM sagaz.stat_delivery WHERE name = 'd'"), qr/\.\./, 'with one full stop');
like(outcome("SELECT sagaz.save_saga_state('s', 'N', 'failed', storage => 'pair')"), qr/^ERROR SZ001/, 'the session is told once');
is(sql("SELECT sagaz.save_saga_state('s', 'N', 'failed', storage => 'pair')"), '1', 'and then writes to the new one, too');

$session->close;
$node->stop('fast');
done_testing();
