# The outbox in Redis: what is in the stream, who has it, when it leaves, what
# the library's workers leave behind, and how often the server is asked.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use SagazRedis;
use SagazSession;
use SagazTest;
use Test::More;
use Time::HiRes qw(time usleep);

my $node = new_node('redis_outbox', conf => <<'CONF');
fsync = off
timezone = 'UTC'
sagaz.max_retries = 1
sagaz.retry_backoff = 1ms
CONF
my %built = map { $_ => 1 } split /\n/,
  $node->safe_psql('postgres', 'SELECT name FROM sagaz.backends()');

plan skip_all => 'built without Redis' unless $built{redis};

my $redis = SagazRedis->new->start;
my $p = 'sagaz:outbox';

$node->safe_psql('postgres', "SELECT sagaz.create_storage('r', '" . $redis->url . "')");

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

sub state_of
{
	my ($query) = @_;
	my ($status, $out, $err) =
	  $node->psql('postgres', "\\set VERBOSITY verbose\n$query");
	return $err =~ /ERROR:  (\w+): / ? $1 : $out;
}

sub until_is
{
	my ($get, $wanted, $name) = @_;
	my $end = time + 60;
	my $got = $get->();

	while ($got ne $wanted && time < $end)
	{
		usleep(10_000);
		$got = $get->();
	}
	is($got, $wanted, $name);
}

sub id
{
	return sprintf '00000000-0000-4000-8000-%012d', $_[0];
}

sub insert
{
	my ($n, $more) = @_;
	return sql("SELECT sagaz.insert_event('s', 'E', '{}', event_id => '"
		  . id($n) . "', storage => 'r'" . ($more // '') . ')');
}

# The numbers of the events claimed, and their batch in $batch.
my $batch;
sub claim
{
	my ($worker, $more) = @_;
	my @rows = map { [ split /\|/ ] } split /\n/,
	  sql("SELECT event_id, batch_id FROM sagaz.claim_batch('$worker', storage => 'r'" . ($more // '') . ')');

	$batch = @rows ? $rows[0][1] : undef;
	return join ' ', sort { $a <=> $b } map { $_->[0] =~ s/.*-0*//r } @rows;
}

sub field
{
	my ($n, $field) = @_;
	return $redis->cli('HGET', "$p:meta:" . id($n), $field);
}

sub entries
{
	return scalar grep { /^event_id$/ } split /\n/, $redis->cli('XRANGE', "$p:events", '-', '+');
}

sub pending
{
	return (split /\n/, $redis->cli('XPENDING', "$p:events", 'sagaz-workers'))[0];
}

sub place
{
	return join ' ', entries(), pending(), map { $redis->cli(@$_) }
	  [ 'HLEN', "$p:processing" ], [ 'ZCARD', "$p:sagaz:due" ], [ 'XLEN', "$p:dlq" ];
}

sub fresh
{
	$redis->cli('FLUSHALL');
}

# ----------------------------------------------------------------------
# Acknowledged and removed

insert($_) for 1 .. 3;
is(place(), '3 0 0 0 0', 'three entries');
is(claim('w'), '1 2 3', 'claimed');
is(place(), '3 3 3 3 0', 'they are pending in the group, noted as processed, and come back in time');
is(sql("SELECT sagaz.finish_batch($batch, 'w', 'r')"), 3, 'finished');
is(place(), '0 0 0 0 0', 'acknowledged and removed, as nobody else reads the stream');
is(field(1, 'status'), 'sent', 'their records stay');

$redis->cli('XGROUP', 'CREATE', "$p:events", 'others', '0');
insert(4);
claim('w');
sql("SELECT sagaz.finish_batch($batch, 'w', 'r')");
is(place(), '1 0 0 0 0', 'what another group has not read stays in the stream');
$redis->cli('XREADGROUP', 'GROUP', 'others', 'x', 'STREAMS', "$p:events", '>');
insert(5);
$redis->cli('XREADGROUP', 'GROUP', 'others', 'x', 'STREAMS', "$p:events", '>');
claim('w');
sql("SELECT sagaz.finish_batch($batch, 'w', 'r')");
is(entries(), 2, 'nor is taken out what it has read and not acknowledged');
$redis->cli('XACK', "$p:events", 'others',
	map { /^(\d+-\d+)$/ } split /\n/, $redis->cli('XRANGE', "$p:events", '-', '+'));
insert(6);
$redis->cli('XACK', "$p:events", 'others',
	map { /^(\d+-\d+)$/ } split /\n/,
	$redis->cli('XREADGROUP', 'GROUP', 'others', 'x', 'STREAMS', "$p:events", '>'));
claim('w');
sql("SELECT sagaz.finish_batch($batch, 'w', 'r')");
is(entries(), 2, 'the last group that is done with an entry takes it out');

# ----------------------------------------------------------------------
# Taken over

fresh();
insert($_) for 1, 2;
is(claim('dead'), '1 2', 'a worker claims and dies');
my $dead = $batch;
is(claim('w'), '', 'its events are not handed out');
is(sql("SELECT sagaz.extend_batch($dead, 'dead', '1 day', 'r') > now() + interval '23 hours'"),
	't', 'its lease is extended');
$node->append_conf('postgresql.conf', 'sagaz.claim_timeout = 100ms');
$node->reload;
insert(3);
until_is(sub { sql("SHOW sagaz.claim_timeout") }, '100ms', 'the timeout is short');
is(claim('w'), '3', 'what is new is claimed, what is held for longer is not');
sql("SELECT sagaz.finish_batch($batch, 'w', 'r')");
insert(4);
is(claim('dead'), '4', 'another one, without an extension');
my $second = $batch;
until_is(sub { claim('w') }, '4', 'is taken over when the lease is over');
is(field(4, 'worker_id'), 'w', 'the record tells by whom');
is(state_of("SELECT sagaz.finish_batch($second, 'dead', 'r')"), 'SZ006', 'the dead one has lost it');
is(sql("SELECT sagaz.finish_batch($batch, 'w', 'r')"), 1, 'the living one has it');
is(sql("SELECT sagaz.finish_batch($dead, 'dead', 'r')"), 2, 'what was extended is finished by its worker');
is(place(), '0 0 0 0 0', 'all is empty');

# What a worker of the library has read: the hash as the library leaves it.
insert($_) for 5 .. 7;
$redis->cli('XREADGROUP', 'GROUP', 'sagaz-workers', 'library', 'STREAMS', "$p:events", '>');
$redis->cli('HSET', "$p:meta:" . id($_), status => 'claimed',
	claimed_at => '2025-03-01T08:00:09.239579+00:00', worker_id => 'library')
  for 5, 6, 7;
$redis->cli('HSET', "$p:meta:" . id(6), status => 'sent', sent_at => '2025-03-01T08:00:10+00:00');
$redis->cli('HSET', "$p:meta:" . id(7), status => 'pending', last_error => 'broker');
my %got;
until_is(sub { $got{$_}++ for split / /, claim('w'); join ' ', sort keys %got },
	'5 7', 'what the library left claimed or failed is taken over');
is(entries(), 2, 'what it sent leaves the stream');
$node->append_conf('postgresql.conf', 'sagaz.claim_timeout = 1h');
$node->reload;
until_is(sub { sql("SHOW sagaz.claim_timeout") }, '1h', 'the timeout is long');

# ----------------------------------------------------------------------
# Failures

fresh();
insert(1);
claim('w');
is(sql("SELECT sagaz.mark_failed(ARRAY['@{[id(1)]}'::uuid], 'w', 'no', storage => 'r')"), 1, 'it fails');
is(join(' ', map { field(1, $_) } qw(status retry_count last_error)), 'failed 1 no', 'the record says so');
until_is(sub { claim('w') }, '1', 'after the backoff it is claimed again');
sql("SELECT sagaz.mark_failed(ARRAY['@{[id(1)]}'::uuid], 'w', 'no', storage => 'r')");
is(field(1, 'status'), 'dead_letter', 'at last it is a dead letter');
is(place(), '0 0 0 0 1', 'only in the stream of these');
like($redis->cli('XRANGE', "$p:dlq", '-', '+'), qr/event_id\n${\id(1)}\nsaga_id\ns\nevent_type\nE\z/,
	'with three fields');
is(claim('w'), '', 'it is not handed out');
is(sql("SELECT sagaz.requeue_dead_letters(storage => 'r')"), 1, 'it is requeued');
is($redis->cli('XLEN', "$p:dlq"), 0, 'and no dead letter any more');
until_is(sub { claim('w') }, '1', 'it is claimed');
sql("SELECT sagaz.release_batch($batch, 'w', storage => 'r')");
is($redis->cli('HLEN', "$p:processing"), 0, 'released it is not processed');
is(claim('w'), '1', 'but claimed at once');

# ----------------------------------------------------------------------
# Later

fresh();
insert(1, ", available_at => now() + interval '1 hour'");
is(claim('w'), '', 'scheduled');
is($redis->cli('ZCARD', "$p:sagaz:due"), 1, 'it waits outside of the stream');
$redis->cli('HSET', "$p:meta:" . id(1), 'sagaz:next', 1);
$redis->cli('ZADD', "$p:sagaz:due", 1, id(1));
is(claim('w'), '1', 'when its time has come it is claimed');

fresh();
insert(99);
insert($_) for 1 .. 30;
is(claim('w', ", batch_size => 5, older_than => '1 hour'"), '', 'all are too young');
is($redis->cli('ZCARD', "$p:sagaz:due"), 31, 'they are put aside');
$redis->cli('HSET', "$p:meta:" . id(99), created_at => '2025-03-01T08:00:09.239579+00:00');
is(claim('w', ", batch_size => 5, older_than => '1 hour'"), '99',
	'many young ones do not hide the old one');
sql("SELECT sagaz.release_batch($batch, 'w', storage => 'r')");
is(claim('w', ', batch_size => 100'), join(' ', 1 .. 30, 99), 'without an age all are claimed');

# ----------------------------------------------------------------------
# Full, and trimmed

fresh();
$node->safe_psql('postgres', "ALTER SERVER r OPTIONS (ADD max_stream_length '3')");
insert($_) for 1 .. 2;
is(state_of(q{SELECT sagaz.insert_events('[{"saga_id": "s", "event_type": "E", "payload": 1}, {"saga_id": "s", "event_type": "E", "payload": 1}]', 'r')}),
	'SZ007', 'a full stream takes no events');
is(sql("SELECT sagaz.count_records('outbox', 'r')"), 2, 'and none of them is there');
insert(3);
is(state_of("SELECT sagaz.insert_event('s', 'E', '{}', storage => 'r')"), 'SZ007', 'not one more');
is(claim('w'), '1 2 3', 'nothing was cut off');
sql("SELECT sagaz.finish_batch($batch, 'w', 'r')");
insert(4);
is(entries(), 1, 'and there is room again');
fresh();
insert($_) for 1, 2;
claim('w');
sql("SELECT sagaz.mark_failed(ARRAY['@{[id(1)]}', '@{[id(2)]}']::uuid[], 'w', 'no', storage => 'r')");
is(state_of("SELECT sagaz.insert_event('s', 'E', '{}', storage => 'r') IS NULL"), 'f',
	'two that failed take two places');
is(state_of("SELECT sagaz.insert_event('s', 'E', '{}', storage => 'r')"), 'SZ007', 'one is left');
fresh();
insert($_, ", available_at => now() + interval '1 hour'") for 1 .. 3;
is(state_of("SELECT sagaz.insert_event('s', 'E', '{}', storage => 'r')"), 'SZ007',
	'what is scheduled takes a place');
$node->safe_psql('postgres', 'ALTER SERVER r OPTIONS (DROP max_stream_length)');

fresh();
insert($_) for 1 .. 3;
claim('w');
$redis->cli('XTRIM', "$p:events", 'MAXLEN', 0);
is(sql("SELECT sagaz.finish_batch($batch, 'w', 'r')"), 3, 'entries that the library trimmed are finished');
insert(4);
claim('w');
$redis->cli('XTRIM', "$p:events", 'MAXLEN', 0);
sql("SELECT sagaz.release_batch($batch, 'w', storage => 'r')");
is(claim('w'), '4', 'or handed out again');

# Lost entries: what waits and is in no stream comes back by itself
for my $case (
	[ 'trimmed', sub { $redis->cli('XTRIM', "$p:events", 'MAXLEN', 0) } ],
	[ 'deleted with the stream', sub { $redis->cli('DEL', "$p:events") } ],
	[ 'deleted with all side keys', sub { $redis->cli('DEL', "$p:events", "$p:sagaz:due", "$p:processing", "$p:sagaz:cursor") } ])
{
	my ($how, $do) = @$case;

	fresh();
	insert($_) for 1 .. 6;
	claim('w', ', batch_size => 3');
	my $before = $batch;
	$do->();
	is(claim('v'), '4 5 6', "$how: those that wait are handed out");
	is(claim('v'), '', "$how: those of the other worker stay his");
	sql("SELECT sagaz.finish_batch($before, 'w', 'r')") if $how ne 'trimmed';
	$node->safe_psql('postgres', "ALTER SYSTEM SET sagaz.claim_timeout = '100ms'; SELECT pg_reload_conf()");
	until_is(sub { sql('SHOW sagaz.claim_timeout') }, '100ms', 'leases are short');
	usleep(150_000);
	# those of the worker that is gone at once, or with the next claim
	my $all = '';
	my $finished = 0;
	while ((my $got = claim('u')) ne '')
	{
		$all .= "$got ";
		$finished += sql("SELECT sagaz.finish_batch($batch, 'u', 'r')");
	}
	is(join(' ', sort split ' ', $all), $how eq 'trimmed' ? '1 2 3 4 5 6' : '4 5 6', "$how: and come back when the lease has run out");
	is($finished, $how eq 'trimmed' ? 6 : 3, "$how: they can be finished");
	is(place() =~ s/ \d+$//r, '0 0 0 0', "$how: and then nothing is left");
	$node->safe_psql('postgres', "ALTER SYSTEM RESET sagaz.claim_timeout; SELECT pg_reload_conf()");
	until_is(sub { sql('SHOW sagaz.claim_timeout') }, '1h', 'leases are long');
}
fresh();
insert(1);
claim('w');
sql("SELECT sagaz.extend_batch($batch, 'w', '1 hour', 'r')");
$redis->cli('XTRIM', "$p:events", 'MAXLEN', 0);
$node->safe_psql('postgres', "ALTER SYSTEM SET sagaz.claim_timeout = '1ms'; SELECT pg_reload_conf()");
until_is(sub { sql('SHOW sagaz.claim_timeout') }, '1ms', 'leases are very short');
is(claim('v'), '', 'a lease that was extended holds without its entry, too');
insert(2);
is(claim('v', ', batch_size => 1'), '2', 'another is claimed');
is(sql("SELECT sagaz.finish_batch($batch, 'v', 'r')"), 1, 'and finished');
claim('z');
usleep(5_000);
claim('y');
is($redis->cli('XINFO', 'CONSUMERS', "$p:events", 'sagaz-workers') =~ s/\n/ /gr =~ /name (?:v|z) /, '', 'workers that come no more are forgotten');
$node->safe_psql('postgres', "ALTER SYSTEM RESET sagaz.claim_timeout; SELECT pg_reload_conf()");
until_is(sub { sql('SHOW sagaz.claim_timeout') }, '1h', 'leases are long again');

# An id in capitals is another than the one in small letters
fresh();
my ($small, $large) = ('abcdef01-2345-4789-8bcd-ef0123456789', 'ABCDEF01-2345-4789-8BCD-EF0123456789');
for my $id ($small, $large)
{
	$redis->cli('HSET', "$p:meta:$id", event_id => $id, saga_id => 's', event_type => 'E', payload => '{}', headers => '{}', status => 'pending', retry_count => 0, created_at => '2024-01-01T00:00:00+00:00');
	$redis->cli('XADD', "$p:events", '*', event_id => $id, saga_id => 's', event_type => 'E');
}
is(sql("SELECT string_agg(event_id::text, ' ') FROM sagaz.claim_batch('w', storage => 'r')"), $small, 'an id in capitals is passed over');
sql("SELECT sagaz.mark_sent(ARRAY['$large']::uuid[], 'w', storage => 'r')");
is($redis->cli('HGET', "$p:meta:$small", 'status'), 'sent', 'the one that was handed out is marked');
is($redis->cli('HGET', "$p:meta:$large", 'status'), 'pending', 'the other waits');

# What is no event, or none that a row can hold
fresh();
insert(1);
$redis->cli('SET', "$p:meta:text", 'x');
$redis->cli('HSET', "$p:meta:" . id(2), event_id => id(2), saga_id => 's', event_type => 'E', payload => 'NaN');
$redis->cli('XADD', "$p:events", '*', @$_)
  for [ other => 'field' ], [ event_id => 'gone' ], [ event_id => 'text' ], [ event_id => id(2) ];
insert(3);
is(claim('w'), '1 3', 'around what is none events are claimed');
is(field(2, 'status'), '', 'what no row can hold stays as it was');
sql("SELECT sagaz.finish_batch($batch, 'w', 'r')");
is(entries(), 2, 'entries without a record are dropped, not those of one that cannot be read');

$redis->cli('SET', 'saga:text', 'x');
$redis->cli('HSET', $_, 'data',
	'{"saga_id": "old", "saga_name": "n", "status": "completed", "steps": [], "context": {}, "metadata": {},'
	. ' "created_at": "2020-01-01T00:00:00+00:00", "updated_at": "2020-01-01T00:00:00+00:00"}')
  for 'saga:old', "saga:\xff";
$redis->cli('SADD', 'saga:index:status:completed', 'old', 'gone', 'text', "\xff");
is(sql("SELECT sagaz.cleanup_completed_sagas('1 day', storage => 'r')"), 1,
	'around what is no saga old ones are removed');
is(join(' ', map { $redis->cli('EXISTS', "saga:$_") } 'old', 'text', "\xff"), '0 1 1', 'and nothing else');

# ----------------------------------------------------------------------
# How often the server is asked

fresh();
sub script_calls
{
	my $counts = $redis->command_counts;
	return ($counts->{evalsha} // 0) + ($counts->{eval} // 0);
}
# Round trips, and those of redis-cli.
sub reads
{
	return $redis->cli('INFO', 'stats') =~ /total_reads_processed:(\d+)/ && $1;
}

for my $query (
	[ 'insert_events', "SELECT cardinality(sagaz.insert_events((SELECT jsonb_agg(jsonb_build_object('saga_id', 's', 'event_type', 'E', 'payload', n)) FROM generate_series(1, 100) n), 'r'))" ],
	[ 'claim_batch', "SELECT count(*) FROM sagaz.claim_batch('w', storage => 'r')" ],
	[ 'finish_batch', "SELECT sagaz.finish_batch(%s, 'w', 'r')" ])
{
	my ($name, $sql) = @$query;

	$sql = sprintf $sql, $redis->cli('HGET', (split /\n/, $redis->cli('KEYS', "$p:meta:*"))[0], 'sagaz:batch')
	  if $sql =~ /%s/;
	my ($before, $reads) = (script_calls(), reads());
	is(sql($sql), 100, "$name of 100");
	cmp_ok(reads() - $reads, '<', 10, "$name: a few round trips");
	is(script_calls() - $before, 1, "$name: one script");
}
sql("SELECT sagaz.insert_events((SELECT jsonb_agg(jsonb_build_object('saga_id', 's', 'event_type', 'E', 'payload', n)) FROM generate_series(1, 100) n), 'r')");
sql("SELECT count(*) FROM sagaz.claim_batch('w', storage => 'r')");
my $ids = sql("SELECT array_agg(r->>'event_id') FROM sagaz.export_all('outbox', 'r') r WHERE r->>'status' = 'claimed'");
my ($scripts, $reads) = (script_calls(), reads());
is(sql("SELECT sagaz.mark_failed('$ids', 'w', 'no', storage => 'r')"), 100, 'mark_failed of 100');
cmp_ok(reads() - $reads, '<', 15, 'mark_failed: a few round trips');
is(script_calls() - $scripts, 1, 'mark_failed: one script');

# A save looks at the saga while it watches it, begins, and writes.
sql("SELECT sagaz.save_saga_state('saga', 'S', 'pending', storage => 'r')");
$reads = reads();
sql(join ';', map { "SELECT sagaz.save_saga_state('saga', 'S', 'executing', context => '$_', storage => 'r')" } 1 .. 20);
cmp_ok(reads() - $reads, '<=', 70, 'a save of a saga: three round trips');

# A copy of many goes in several scripts; the server may forget these meanwhile.
my $session = SagazSession->new($node, 'postgres');
$session->query("SELECT cardinality(sagaz.insert_events((SELECT jsonb_agg(jsonb_build_object('saga_id', 's', 'event_type', 'E', 'payload', n)) FROM generate_series(1, 950) n)))");
for my $forgets (0, 1)
{
	$redis->cli('FLUSHDB');
	$redis->cli('SCRIPT', 'FLUSH') if $forgets;
	$scripts = script_calls();
	$session->query("CALL sagaz.transfer('native', 'r', 'outbox', batch_size => 450)");
	is($session->query('SELECT state, transferred FROM sagaz.transfers ORDER BY transfer_id DESC LIMIT 1'), 'completed|950', 'a copy' . ($forgets ? ' by scripts that were forgotten' : ''));
	is($redis->cli('XLEN', "$p:events"), 950, 'and each has its entry');
	# five parts, five and one; the first five are sent again, and one of them
	# once more, as only then the script is there again
	is(script_calls() - $scripts, $forgets ? 17 : 11, 'in parts of 100');
}
$session->close;

$node->stop;
done_testing();
