# What is wrong with a Redis server that answers is found where one chooses it
# (create_storage), before a transfer and by health_check; and who keeps sagas
# only is healthy.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use SagazRedis;
use SagazTest;
use Test::More;

my $node = new_node('redis_health', conf => "fsync = off\nsagaz.connect_timeout = 2s\n");
my $redis = SagazRedis->new->start;
my $dir = PostgreSQL::Test::Utils::tempdir();
my ($rights) = slurp_file('doc/storages.md') =~ /^ACL SETUSER sagaz on >secret (.*)$/m;
my $count = 0;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# A fault is found in all the places.
sub is_found
{
	my ($url, $pattern, $name, %more) = @_;
	my $storage = 'x' . ++$count;
	my ($status, $out, $err) = $node->psql('postgres', "SELECT sagaz.create_storage('$storage', '$url')");

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($status, 0, "$name: the storage is made") or diag($err);
	like($err, qr/WARNING: .*$pattern/, "$name: create_storage warns") unless $more{later};
	like(sql("SELECT status || ': ' || message FROM sagaz.health_check('$storage')"), qr/^degraded: .*$pattern/, "$name: health_check tells");
	like(sql("SELECT compatible || ': ' || issues::text FROM sagaz.validate_transfer('memory://', '$storage')"),
		$more{stops} ? qr/^false.*$pattern/ : qr/^true.*$pattern.*"warning"/, "$name: validate_transfer lists it");
}

sub is_fit
{
	my ($url, $name, $type) = @_;
	my $storage = 'x' . ++$count;
	my ($status, $out, $err) = $node->psql('postgres', "SELECT sagaz.create_storage('$storage', '$url', '" . ($type // 'both') . "')");

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($err, '', "$name: no warning");
	return sql("SELECT status, message, details->'checked' FROM sagaz.health_check('$storage')");
}

# ----------------------------------------------------------------------
# Fit

my @all = ('sagas can be read', 'sagas can be written', 'events can be read', 'events can be written');
sub checked { return 'healthy|the storage is fit|[' . join(', ', map { qq{"$_"} } @_) . ']'; }
for my $url ($redis->url, "sqlite://$dir/a.db", 'memory://m')
{
	my ($what) = $url =~ /^(\w+)/;

	sql("SELECT sagaz.save_saga_state('s', 'N', 'pending', storage => '$url'), sagaz.insert_event('s', 'E', '{}', storage => '$url')");
	is(is_fit($url, $what), checked(@all), "$what: what was tried");
	is(is_fit($url, $what, 'saga'), checked(@all[ 0, 1 ]), "$what: of sagas only");
	is(is_fit($url, $what, 'outbox'), checked(@all[ 2, 3 ]), "$what: of events only");
}
is($redis->cli('DBSIZE'), '5', 'nothing else was left on the server');
$redis->cli('ACL', 'SETUSER', 'exact', 'reset', 'on', '>pw', split / /, $rights);
is(is_fit($redis->url(user => 'exact', password => 'pw'), 'documented rights'), checked(@all), 'the documented rights suffice');
$redis->cli('ACL', 'SETUSER', 'exact', '~none:*', 'resetkeys', '~saga:*');
is(is_fit($redis->url(user => 'exact', password => 'pw'), 'keys of sagas', 'saga'), checked(@all[ 0, 1 ]), 'the keys of sagas for sagas');

# ----------------------------------------------------------------------
# Rights, one after the other

for my $command (qw(hset del sadd hmget scan watch evalsha script|load xautoclaim xgroup|create zadd))
{
	my $shown = uc($command =~ s/\|/ /r);

	$redis->cli('ACL', 'SETUSER', 'lacks', 'reset', 'on', '>pw', split(/ /, $rights), "-$command");
	is_found($redis->url(user => 'lacks', password => 'pw'), $shown, "without $shown", stops => 1)
	  if $command !~ /hmget|scan|watch/;
	like($node->safe_psql('postgres', "SELECT status FROM sagaz.health_check('" . $redis->url(user => 'lacks', password => 'pw') . "')"), qr/^(degraded|unhealthy)$/, "without $shown it is not healthy");
}
$redis->cli('ACL', 'SETUSER', 'lacks', 'reset', 'on', '>pw', split(/ /, $rights), '-info');
is_found($redis->url(user => 'lacks', password => 'pw'), 'INFO', 'without INFO');

# ----------------------------------------------------------------------
# Role, memory, room

$redis->cli('CONFIG', 'SET', 'maxmemory-policy', 'allkeys-lru');
is_found($redis->url, 'maxmemory-policy allkeys-lru', 'a policy that throws away');
$redis->cli('CONFIG', 'SET', 'maxmemory-policy', 'volatile-lru');
is(is_fit($redis->url, 'volatile-lru'), checked(@all), 'another policy is fit');
my ($used) = $redis->cli('INFO', 'memory') =~ /^used_memory:(\d+)/m;
$redis->cli('CONFIG', 'SET', 'maxmemory', int($used * 1.08));
is_found($redis->url, 'less than a tenth', 'little memory');
$redis->cli('CONFIG', 'SET', 'maxmemory', '1');
is_found($redis->url, 'OOM', 'no memory', stops => 1);
$redis->cli('CONFIG', 'SET', 'maxmemory', '0');
my $replica = SagazRedis->new->start;
$replica->cli('REPLICAOF', 'localhost', '1');
is_found($replica->url, 'replica', 'a replica', stops => 1);
$replica->stop;
my ($status, $out, $err) = $node->psql('postgres', "SELECT sagaz.create_storage('gone', '" . $replica->url . "')");
like($err, qr/WARNING: .*cannot be used as things are/, 'a server that is not there: create_storage warns');
is(sql("SELECT status FROM sagaz.health_check('gone')"), 'unhealthy', 'and it is unhealthy');

# ----------------------------------------------------------------------
# What no claim would find

sql("SELECT count(sagaz.insert_event('s', 'E', '{}', storage => '" . $redis->url . "')) FROM generate_series(1, 9)");
$redis->cli('XTRIM', 'sagaz:outbox:events', 'MAXLEN', 3);
is_found($redis->url, '7 events wait and have no entry', 'trimmed');
is(sql("SELECT count(*) FROM sagaz.claim_batch('w', 100, storage => '" . $redis->url . "')"), '10', 'claims bring them back');
is(is_fit($redis->url, 'afterwards'), checked(@all), 'and all is well');
$redis->cli('HSET', 'sagaz:outbox:meta:EVENT-1', event_id => 'EVENT-1', saga_id => 's', event_type => 'E', status => 'pending');
is_found($redis->url, '1 events have an id', 'an id that is never handed out', later => 1);
$redis->cli('DEL', 'sagaz:outbox:meta:EVENT-1');
sql("SELECT sagaz.create_storage('small', '" . $redis->url . "', options => '{\"max_stream_length\": 10}')");
like(sql("SELECT message FROM sagaz.health_check('small')"), qr/10 of at most 10 events/, 'a full stream');

# ----------------------------------------------------------------------
# Prefixes

sub warning_of
{
	my ($options) = @_;
	my ($result, $stdout, $stderr) = $node->psql('postgres', "SELECT sagaz.create_storage('p" . ++$count . "', '" . $redis->url(db => 7) . "', options => '$options')");

	return $stderr;
}

is(warning_of('{"saga_prefix": "app:", "outbox_prefix": "box"}'), '', 'prefixes of its own');
is(warning_of('{"saga_prefix": "app:", "outbox_prefix": "box"}'), '', 'another name for the same place');
is(warning_of('{"saga_prefix": "other:", "outbox_prefix": "boxes"}'), '', 'boxes do not begin with box and a colon');
like(warning_of('{"saga_prefix": "app:eu:", "outbox_prefix": "eu"}'), qr/WARNING: .*"p\d+" and "p\d+" take each other's records/, 'a prefix that begins with that of another');
like(warning_of('{"saga_prefix": "own:", "outbox_prefix": "own:outbox"}'), qr/WARNING: .*take each other's/, 'and with its own other one');

$node->stop('fast');
done_testing();
