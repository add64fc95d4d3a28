# What the Python library left in its PostgreSQL tables is read whole, goes
# through every kind of storage unchanged, and what cannot be kept there is
# refused.  Then an outbox in Redis, seen by redis-cli.  test/data/pg-clean.sql
# was written by the library, pg-clean.jsonl is what it reads from there.
use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Utils;
use SagazRecord;
use SagazRedis;
use SagazSession;
use SagazTest;
use Test::More;

my $node = new_node('library_data', conf => 'fsync = off');
my $other = new_node('library_other', conf => 'fsync = off');
my $session = SagazSession->new($node, 'postgres');
my %redis = map { $_ => SagazRedis->new->start } qw(clean copy);
my $files = PostgreSQL::Test::Utils::tempdir();

sub postgres_url
{
	my ($database) = @_;
	return sprintf 'postgresql://@%s:%d/%s', $other->host =~ s{/}{%2F}gr, $other->port, $database;
}

$redis{clean}->load('test/data/redis-clean.resp');
$other->safe_psql('postgres', "CREATE DATABASE $_") for qw(library copy copy_2 with_sagaz);
$other->safe_psql('with_sagaz', 'CREATE EXTENSION sagaz');
command_ok(
	[
		'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $other->connstr('library'), '-o', '/dev/null',
		'-f', 'test/data/pg-clean.sql'
	],
	'the tables of the library are loaded');

# ----------------------------------------------------------------------
# Reading

{
	my $wanted = listed('pg-clean');

	for my $kind (qw(saga outbox))
	{
		my ($found, $warnings) = exported($node, $kind, postgres_url('library'));

		# the library knows no NULL there
		$_->{metadata} //= {} for $kind eq 'saga' ? values %$found : ();
		same_records($found, $wanted->{$kind}, "pg-clean, $kind");
		is($warnings, '', "pg-clean, $kind: nothing is refused");
		is_deeply([ grep { !is_spelled_well($_) } values %$found ], [], "pg-clean, $kind: times are spelled in UTC");
	}
}
is($other->safe_psql('library', q{SELECT count(*) FROM pg_class WHERE relname LIKE 'sagaz%'}), '0',
	'reading makes no table');

# ----------------------------------------------------------------------
# A chain of copies through every kind of storage

$session->query('SET client_min_messages = error; SET sagaz.memory_limit = 65536');

sub copy_all
{
	my ($kind, $from, $to) = @_;

	return $session->query("SELECT sagaz.import_records(jsonb_agg(r), '$kind', 'replace', '$to') FROM sagaz.export_all('$kind', '$from') AS r");
}

sub checksum
{
	my ($kind, $storage) = @_;
	return $session->query("SELECT sagaz.checksum('$kind', '$storage')");
}

sub test_chain
{
	my ($kind, @stores) = @_;
	my $sum = checksum($kind, $stores[0]);
	my $count = $session->query("SELECT count(*) FROM sagaz.export_all('$kind', '$stores[0]')");

	cmp_ok($count, '>', 5, "$kind: there is something to copy");
	for my $i (1 .. $#stores)
	{
		my $name = "$kind, copy $i to " . ($stores[$i] =~ s{://.*/}{ }r);

		is(copy_all($kind, @stores[ $i - 1, $i ]), $count, "$name: all are written");
		is($session->query("SELECT sagaz.count_records('$kind', '$stores[$i]')"), $count, "$name: all are there");
		is(checksum($kind, $stores[$i]), $sum, "$name: the same checksum");
	}
}

my @chain = (
	'memory://chain', "sqlite://$files/chain.db", $redis{copy}->url,
	postgres_url('copy'), 'native', postgres_url('with_sagaz'), "sqlite://$files/last.db");
test_chain($_, postgres_url('library'), @chain) for qw(saga outbox);
$redis{copy}->cli('FLUSHALL');
test_chain('outbox', $redis{clean}->url, 'memory://clean', postgres_url('copy_2'), $redis{copy}->url);

# What a library's table cannot hold is refused, with the field, and nothing of it stays.
for my $case (
	[ saga => '{"saga_id": "x", "saga_name": "' . 'n' x 256 . '", "status": "pending"}', 'saga_name' ],
	[ saga => '{"saga_id": "x", "saga_name": "n", "status": "pending", "steps": [{"name": "a"}, {"name": "a"}]}', 'same name' ],
	[ saga => '{"saga_id": "x", "saga_name": "n", "status": "pending", "steps": [{"status": "a"}]}', 'no name' ],
	[ saga => '{"saga_id": "x", "saga_name": "n", "status": "pending", "steps": [{"name": "a", "executed_at": "soon"}]}', 'executed_at' ],
	[ saga => '{"saga_id": "x", "saga_name": "n", "status": "pending", "steps": null}', 'steps' ],
	[ outbox => '{"event_id": "x", "saga_id": "s", "event_type": "t", "payload": 1, "status": "pending"}', 'UUID' ])
{
	my ($kind, $record, $word) = @$case;
	my ($status, $out, $err) = $node->psql('postgres',
		"\\set VERBOSITY verbose\nSELECT sagaz.import_record('$record', '$kind', '" . postgres_url('copy') . "')");

	like($err, qr/ERROR:  SZ003: .*DETAIL:  [^\n]*$word/s, "refused: $word");
}
is($other->safe_psql('copy', q{SELECT count(*) FROM sagas WHERE saga_id = 'x'}), '0', 'and nothing is there');

# ----------------------------------------------------------------------
# An outbox in Redis, seen by redis-cli

my $redis = $redis{copy};
$redis->cli('FLUSHALL');
my $url = $redis->url;

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

sql(qq{SELECT sagaz.create_storage('short', '$url', options => '{"saga_ttl": "100", "event_ttl": "200", "max_stream_length": "3"}')});
sql(q{SELECT sagaz.save_saga_state('t', 'T', 'completed', storage => 'short')});
cmp_ok($redis->cli('TTL', 'saga:t'), '>', 90, 'a finished saga expires where that is asked for');
sql(q{SELECT sagaz.save_saga_state('t', 'T', 'executing', storage => 'short')});
is($redis->cli('TTL', 'saga:t'), '-1', 'one that goes on does not');

# Events
my $id = '00000000-0000-4000-8000-000000000001';
sql(qq{SELECT sagaz.insert_event('s1', 'Paid', '{"a": "é"}', headers => '{"h": "v"}', event_id => '$id', storage => 'short')});
my $key = "sagaz:outbox:meta:$id";
my @words = split /\n/, $redis->cli('--raw', 'HGETALL', $key), -1;
is(join(' ', map { $words[ 2 * $_ ] } 0 .. 15),
	'event_id saga_id aggregate_type aggregate_id event_type payload headers status retry_count created_at claimed_at sent_at last_error worker_id routing_key partition_key',
	'the 16 fields, in the order of the library');
my %hash = (@words, '') x 1;
is_deeply([ @hash{qw(payload headers aggregate_type aggregate_id status retry_count claimed_at last_error routing_key)} ],
	[ '{"a": "é"}', '{"h": "v"}', 'saga', 's1', 'pending', '0', '', '', '' ], 'as the library writes them');
is($redis->cli('TTL', $key), '-1', 'what is not sent does not expire');
like($redis->cli('XRANGE', 'sagaz:outbox:events', '-', '+'), qr/^\d+-\d+\nevent_id\n$id\nsaga_id\ns1\nevent_type\nPaid\z/, 'one entry with three fields');
like($redis->cli('XINFO', 'GROUPS', 'sagaz:outbox:events'), qr/name\nsagaz-workers\n/, 'the group is there');

# A second group that the stream has keeps its entries until it has acknowledged them.
$redis->cli('XGROUP', 'CREATE', 'sagaz:outbox:events', 'others', '0');
my $batch = sql(q{SELECT batch_id FROM sagaz.claim_batch('w 1', storage => 'short')});
is($redis->cli('HGET', $key, 'status'), 'claimed', 'claimed');
like($redis->cli('HGET', 'sagaz:outbox:processing', $id), qr/^\d+-\d+$/, 'and noted as the library does');
is(sql("SELECT sagaz.finish_batch($batch, 'w 1', 'short')"), '1', 'finished');
is($redis->cli('XPENDING', 'sagaz:outbox:events', 'sagaz-workers'), "0\n\n\n", 'the group has acknowledged it');
is($redis->cli('XLEN', 'sagaz:outbox:events'), '1', 'another has not read it yet');
is($redis->cli('HLEN', 'sagaz:outbox:processing'), '0', 'nothing is in work');
cmp_ok($redis->cli('TTL', $key), '>', 190, 'what is sent expires');
my $entry = $redis->cli('XREADGROUP', 'GROUP', 'others', 'me', 'STREAMS', 'sagaz:outbox:events', '>') =~ /(\d+-\d+)/ ? $1 : '';
sql(qq{SELECT sagaz.create_storage('others', '$url', options => '{"consumer_group": "others"}')});
$redis->cli('XACK', 'sagaz:outbox:events', 'others', $entry);
sql(q{SELECT sagaz.insert_event('s1', 'Next', '1', storage => 'short')});
$batch = sql(q{SELECT batch_id FROM sagaz.claim_batch('w', storage => 'short')});
$redis->cli('XGROUP', 'DESTROY', 'sagaz:outbox:events', 'others');
sql("SELECT sagaz.finish_batch($batch, 'w', 'short')");
is($redis->cli('XLEN', 'sagaz:outbox:events'), '1', 'the last group takes the entry out');

# Retries, dead letters, what is full
sql(q{SELECT sagaz.insert_event('s2', 'Fails', '1', storage => 'short')});
my ($event) = split /\|/, sql(q{SELECT event_id FROM sagaz.claim_batch('w', storage => 'short')});
sql(qq{SELECT sagaz.mark_failed('{$event}', 'w', 'no', storage => 'short')});
is(sql(q{SELECT count(*) FROM sagaz.claim_batch('w', storage => 'short')}), '0', 'one that failed waits');
is($redis->cli('ZCARD', 'sagaz:outbox:sagaz:due'), '1', 'until it is due');
$redis->cli('ZADD', 'sagaz:outbox:sagaz:due', '0', $event);
$redis->cli('HSET', "sagaz:outbox:meta:$event", 'sagaz:next', '1');
is(sql(q{SELECT event_id, retry_count FROM sagaz.claim_batch('w 2', storage => 'short')}), "$event|1", 'and is handed out again');
sql(qq{SELECT sagaz.update_event_status('$event', 'dead_letter', 'given up', storage => 'short')});
like($redis->cli('XRANGE', 'sagaz:outbox:dlq', '-', '+'), qr/event_id\n$event\n/, 'a dead letter is in the stream of these');
is(sql(q{SELECT sagaz.requeue_dead_letters(storage => 'short')}), '1', 'requeued');
is($redis->cli('XLEN', 'sagaz:outbox:dlq'), '0', 'it leaves that stream');
is(sql(q{SELECT event_id FROM sagaz.claim_batch('w', storage => 'short')}), $event, 'and is claimed');
my ($status, $out, $err) = $node->psql('postgres',
	q{\set VERBOSITY verbose} . "\nSELECT sagaz.insert_events((SELECT jsonb_agg(jsonb_build_object('saga_id', 's', 'event_type', 't', 'payload', i)) FROM generate_series(1, 5) i), 'short')");
like($err, qr/ERROR:  SZ007: .*max_stream_length/s, 'a full stream takes no more');

# One round trip a batch
$redis->cli('FLUSHALL');
sql("DO \$\$ BEGIN PERFORM sagaz.insert_event('s', 'warm', '1', storage => '$url'); END \$\$");
my $steps = SagazSession->new($node, 'postgres');
$steps->query("SELECT sagaz.insert_event('s', 'warm', '1', storage => '$url')");
$steps->query("SELECT max(batch_id) FROM sagaz.claim_batch('w', storage => '$url')");
for my $case (
	[ 'insert_events', "SELECT cardinality(sagaz.insert_events((SELECT jsonb_agg(jsonb_build_object('saga_id', 's', 'event_type', 't', 'payload', i)) FROM generate_series(1, 100) i), '$url'))" ],
	[ 'claim_batch', "SELECT max(batch_id) FROM sagaz.claim_batch('w', 100, storage => '$url')" ])
{
	$redis->cli('CONFIG', 'RESETSTAT');
	$batch = $steps->query($case->[1]);
	my $counts = $redis->command_counts;
	is($counts->{evalsha}, 1, "$case->[0]: one script");
	is_deeply([ grep { !/^(evalsha|xadd|hset|hdel|zrem|sadd|hgetall|persist|exists|hmget|xlen|zcard|xinfo\|groups|xreadgroup|xautoclaim|xgroup\|create|zrangebyscore|hget|xrange|hlen|scard|zadd|xpending|config\|resetstat|info|command\|docs|command)$/ } keys %$counts ],
		[], "$case->[0]: and nothing else was sent");
}
$steps->query("SELECT sagaz.finish_batch($batch, 'w', '$url')");
$redis->cli('CONFIG', 'RESETSTAT');
$batch = $steps->query("SELECT sagaz.insert_event('s', 't', '1', storage => '$url')") && $steps->query("SELECT max(batch_id) FROM sagaz.claim_batch('w', 100, storage => '$url')");
$redis->cli('CONFIG', 'RESETSTAT');
$steps->query("SELECT sagaz.finish_batch($batch, 'w', '$url')");
is($redis->command_counts->{evalsha}, 1, 'finish_batch: one script');

$_->close for $session, $steps;
done_testing();
