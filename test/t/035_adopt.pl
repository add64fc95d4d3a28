# sagaz.adopt(): the tables that the Python library made, as they come out.
# test/data/pg-clean.sql was written by the library, and pg-clean.jsonl is what
# the library reads from it; JSON is compared as Perl values here.
use strict;
use warnings;

use JSON::PP;
use PostgreSQL::Test::Utils;
use SagazTest;
use Test::More;

my $node = new_node('adopt', conf => 'fsync = off');
my $json = JSON::PP->new->utf8->allow_bignum->allow_nonref->canonical;

my @tables =
  qw(sagas saga_steps saga_outbox saga_outbox_archive consumer_inbox);

# A database with the extension, and the library's tables in a schema there
# whose name needs quotes.
sub new_database
{
	my ($name) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $name");
	$node->safe_psql($name, 'CREATE EXTENSION sagaz');
	command_ok(
		[
			'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-f',
			'test/data/pg-clean.sql', $node->connstr($name)
		],
		"$name: the library's tables are loaded");
	$node->safe_psql($name, join ';', q{CREATE SCHEMA "Py ""lib"" %s"},
		map { qq{ALTER TABLE $_ SET SCHEMA "Py ""lib"" %s"} } @tables);
}

my $adopt = q{SELECT * FROM sagaz.adopt('Py "lib" %s')};

# A value in which numbers are equal if their values are, and nothing else is
# equal to a number.
sub normal_value
{
	my ($value) = @_;

	return $value if !defined $value || JSON::PP::is_bool($value);
	if (ref $value eq 'HASH')
	{
		return { map { $_ => normal_value($value->{$_}) } keys %$value };
	}
	return [ map { normal_value($_) } @$value ] if ref $value eq 'ARRAY';
	return { number => Math::BigFloat->new("$value")->bsstr }
	  if ref $value || JSON::PP->new->allow_nonref->encode($value) !~ /^"/;
	return $value;
}

# The same of a record: its times without trailing zeros, its steps with all
# keys, without what the library does not know.
sub normal_record
{
	my ($record) = @_;

	for my $step (@{ $record->{steps} // [] })
	{
		$step->{$_} //= undef for qw(result executed_at compensated_at);
	}
	for my $part ($record, @{ $record->{steps} // [] })
	{
		defined and s/(\.\d*?)0*\+00:00$/$1+00:00/ and s/\.\+/+/
		  for @$part{ grep { /_at$/ } keys %$part };
	}
	delete $record->{version};
	return normal_value($record);
}

# Records by key, from lines of JSON.
sub records
{
	my ($key, @lines) = @_;
	return map {
		my $record = $json->decode($_);
		$record->{$key} => normal_record($record)
	} @lines;
}

sub listed
{
	my ($kind, $key) = @_;
	return map {
		my $line = $json->decode($_);
		$line->{kind} eq $kind
		  ? ($line->{record}{$key} => normal_record($line->{record}))
		  : ()
	} split /\n/, slurp_file('test/data/pg-clean.jsonl');
}

sub query_records
{
	my ($database, $key, $query) = @_;
	return records($key, split /\n/,
		$node->safe_psql($database, "SET timezone = 'UTC'; $query"));
}

sub compare_records
{
	my ($what, $found, $expected) = @_;

	is_deeply([ sort keys %$found ],
		[ sort keys %$expected ], "every $what is there, and no other");
	my @different = grep {
		!is_same($found->{$_}, $expected->{$_})
	} sort keys %$expected;
	is_deeply(\@different, [], "every field of every $what is as listed")
	  or is_deeply($found->{ $different[0] }, $expected->{ $different[0] });
}

sub is_same
{
	return $json->encode($_[0]) eq $json->encode($_[1]);
}

# All that adopt() may write, as one text.
sub contents
{
	my ($database) = @_;
	return $node->safe_psql($database, join ';',
		map({ "SELECT '$_', x.xmin, x.ctid, x::text FROM sagaz.$_ x ORDER BY 3" }
			qw(sagas saga_steps outbox outbox_retry outbox_batch outbox_archive
			  consumer_inbox consumer_group cluster)),
		map({ "SELECT '$_', last_value, is_called FROM sagaz.$_" }
			qw(outbox_seq batch_seq)));
}

sub is_error
{
	my ($database, $query, $state, $pattern, $name) = @_;
	my ($status, $out, $err) =
	  $node->psql($database, "\\set VERBOSITY verbose\n$query");
	like($err, qr/ERROR:  $state: $pattern/, $name);
}

# Claims and finishes until nothing comes; id, retry_count and last_error of
# each event.
sub claim_all
{
	my ($database, $group) = @_;
	my @events;

	while (1)
	{
		my @rows = map { $json->decode($_) } split /\n/,
		  $node->safe_psql($database, <<SQL);
SELECT jsonb_build_array(batch_id::text, event_id, retry_count::text, last_error)
FROM sagaz.claim_batch('w', 20, consumer_group => '$group')
SQL
		return @events unless @rows;
		my %batches = map { shift @$_ => 1 } @rows;
		$node->safe_psql($database, "SELECT sagaz.finish_batch($_, 'w')")
		  for keys %batches;
		push @events, @rows;
	}
}

new_database('adopted');
is($node->safe_psql('adopted', $adopt), <<'ROWS' =~ s/\n$//r, 'all rows are adopted');
sagas|57|0|0|[]
saga_steps|204|0|0|[]
saga_outbox_archive|10|0|0|[]
saga_outbox|190|0|0|[]
consumer_inbox|1|0|0|[]
ROWS

compare_records(
	'saga',
	{
		query_records('adopted', 'saga_id',
			'SELECT sagaz.load_saga_state(saga_id) FROM sagaz.sagas')
	},
	{ listed('saga', 'saga_id') });
compare_records(
	'event',
	{
		query_records('adopted', 'event_id', <<'SQL')
SELECT to_jsonb(e) FROM (
	SELECT event_id, saga_id, aggregate_type, aggregate_id, event_type, payload,
		headers, status, created_at, claimed_at, sent_at, retry_count,
		last_error, worker_id, routing_key, partition_key
	FROM sagaz.outbox_events) e
WHERE event_id NOT IN (SELECT event_id FROM "Py ""lib"" %s".saga_outbox_archive)
SQL
	},
	{ listed('outbox', 'event_id') });
is($node->safe_psql('adopted', <<'SQL'), '10|10', 'archived events are the same');
SELECT count(*), count(*) FILTER (WHERE to_jsonb(a) - 'archived_at' =
	to_jsonb(s) || '{"routing_key": null, "partition_key": null}')
FROM "Py ""lib"" %s".saga_outbox_archive s JOIN sagaz.outbox_archive a USING (event_id)
SQL
is($node->safe_psql('adopted', <<'SQL'), '1|1', 'the inbox is the same');
SELECT count(*), count(*) FILTER (WHERE to_jsonb(a) = to_jsonb(s))
FROM "Py ""lib"" %s".consumer_inbox s FULL JOIN sagaz.consumer_inbox a
	ON a.event_id = s.event_id::text
SQL

my $before = contents('adopted');
is($node->safe_psql('adopted', $adopt), <<'ROWS' =~ s/\n$//r, 'a second run adopts nothing');
sagas|0|57|0|[]
saga_steps|0|204|0|[]
saga_outbox_archive|0|10|0|[]
saga_outbox|0|190|0|[]
consumer_inbox|0|1|0|[]
ROWS
ok($before eq contents('adopted'), 'a second run changes nothing');

$node->safe_psql('adopted', "SELECT sagaz.create_consumer_group('other')");
is_deeply(
	[ sort map { $_->[0] } claim_all('adopted', 'other') ],
	[
		split /\n/,
		$node->safe_psql('adopted', <<'SQL')
SELECT event_id FROM "Py ""lib"" %s".saga_outbox
WHERE status = 'pending' AND retry_count = 0 ORDER BY event_id::text
SQL
	],
	'another group gets the events that are plain pending, once');
is_deeply(
	[
		sort { $a->[0] cmp $b->[0] } claim_all('adopted', 'sagaz-workers')
	],
	[
		map { $json->decode($_) } split /\n/,
		$node->safe_psql('adopted', <<'SQL')
SELECT jsonb_build_array(event_id, retry_count::text, last_error)
FROM "Py ""lib"" %s".saga_outbox
WHERE status IN ('pending', 'claimed', 'failed') ORDER BY event_id::text
SQL
	],
	'the default group gets all that is neither sent nor dead, once');
$before = contents('adopted');
is($node->safe_psql('adopted', "$adopt WHERE adopted + refused > 0"),
	'', 'a run after delivery adopts nothing');
ok($before eq contents('adopted'), 'a run after delivery changes nothing');

# What the library's users go on writing meanwhile
$node->safe_psql('adopted', <<'SQL');
SET search_path = "Py ""lib"" %s";
UPDATE sagas SET status = 'failed', updated_at = now() WHERE saga_id = '0';
INSERT INTO sagas (saga_id, saga_name, status) VALUES ('late', 'Late', 'executing');
INSERT INTO saga_steps (saga_id, step_name, status) VALUES
	('late', 'b', 'completed'), ('late', 'a', 'pending');
INSERT INTO saga_outbox (event_id, saga_id, aggregate_id, event_type, payload, status, claimed_at) VALUES
	('00000000-0000-0000-0000-000000000001', 'late', 'late', 'Late', '1', 'pending', NULL),
	('00000000-0000-0000-0000-000000000002', 'late', 'late', 'Late', '2', 'claimed', now());
SQL
is($node->safe_psql('adopted', "$adopt WHERE adopted > 0"), <<'ROWS' =~ s/\n$//r, 'new rows are adopted');
sagas|1|57|0|[]
saga_steps|2|204|0|[]
saga_outbox|2|190|0|[]
ROWS
is($node->safe_psql('adopted', <<'SQL'), <<'ROWS' =~ s/\n$//r, 'and those that were there stay as they are');
SELECT saga_id, status, context, metadata FROM sagaz.sagas WHERE saga_id IN ('0', 'late') ORDER BY 1;
SELECT step_name FROM sagaz.saga_steps WHERE saga_id = 'late' ORDER BY ordinal;
SQL
0|executing|{"qty": 3, "note": null, "amount": 99.95, "express": true, "order_id": "ORD-1"}|{"tags": ["a", "ü"], "version": "1.2.0"}
late|executing|{}|
b
a
ROWS

# A claim that is not old yet keeps its lease.
is_deeply([ map { substr $_->[0], -1 } claim_all('adopted', 'sagaz-workers') ],
	['1'], 'an event that was claimed just now stays with its worker');
$node->safe_psql('postgres', "ALTER SYSTEM SET sagaz.claim_timeout = '1ms'");
$node->reload;
ok($node->poll_query_until('adopted', <<'SQL', '00000000-0000-0000-0000-000000000002'),
SELECT event_id FROM sagaz.claim_batch('w')
SQL
	'and is handed out when its lease has run out');
$node->safe_psql('postgres', 'ALTER SYSTEM RESET sagaz.claim_timeout');
$node->reload;

# A writer who is not done yet is waited for.
my $writer = $node->background_psql('adopted');
$writer->query_safe(<<'SQL');
BEGIN;
INSERT INTO "Py ""lib"" %s".saga_outbox (event_id, saga_id, aggregate_id, event_type, payload)
VALUES ('00000000-0000-0000-0000-000000000003', 'late', 'late', 'Late', '3');
SQL
is_error('adopted', "SET lock_timeout = '10ms'; $adopt",
	'55P03', 'canceling statement due to lock timeout',
	'a transaction that writes keeps adopt() waiting');
$writer->query_safe('COMMIT');
$writer->quit;
is($node->safe_psql('adopted', "$adopt WHERE adopted > 0"),
	'saga_outbox|1|192|0|[]', 'and its event is adopted');

# Tables in which much is wrong
$node->safe_psql('adopted', <<'SQL');
CREATE SCHEMA broken;
CREATE TABLE broken.sagas AS TABLE "Py ""lib"" %s".sagas WITH NO DATA;
CREATE TABLE broken.saga_steps AS TABLE "Py ""lib"" %s".saga_steps WITH NO DATA;
CREATE TABLE broken.saga_outbox AS TABLE "Py ""lib"" %s".saga_outbox WITH NO DATA;
CREATE TABLE broken.saga_outbox_archive AS TABLE "Py ""lib"" %s".saga_outbox WITH NO DATA;
CREATE TABLE broken.consumer_inbox AS TABLE "Py ""lib"" %s".consumer_inbox WITH NO DATA;
ALTER TABLE broken.saga_outbox ADD routing_key text;
INSERT INTO broken.sagas (saga_id, saga_name, status, created_at) VALUES
	('good', 'S', 'pending', NULL), ('', 'S', 'pending', now()),
	('no name', '', 'pending', now()), ('status', 'S', 'PENDING', now()),
	('time', 'S', 'pending', 'infinity'), ('step', 'S', 'pending', now());
INSERT INTO broken.saga_steps (id, saga_id, step_name, status, retry_count) VALUES
	(1, 'good', 'a', 'pending', NULL), (2, 'step', 'a', 'pending', 0),
	(3, 'step', 'b', 'done', 0), (4, 'nobody', 'a', 'pending', 0),
	(5, NULL, 'a', 'pending', 0), (6, 'time', 'a', 'pending', 0);
INSERT INTO broken.saga_outbox (event_id, saga_id, aggregate_type, aggregate_id, event_type,
	payload, headers, status, created_at, claimed_at, retry_count, routing_key)
SELECT ('00000000-0000-0000-0001-' || lpad(row_number() OVER () || '', 12, '0'))::uuid, v.*
FROM (VALUES
	('good', 'saga', 'good', 'E', jsonb 'null', jsonb '{}', 'pending', timestamptz '2025-01-01 00:00+00', NULL::timestamptz, 0, 'key'),
	('', 'saga', '', 'E', '1', '{}', 'pending', '2025-01-01 00:00+00', NULL, 0, NULL),
	('good', 'saga', '', '', '1', '{}', 'pending', '2025-01-01 00:00+00', NULL, 0, NULL),
	('good', 'saga', '', 'E', NULL, '{}', 'pending', '2025-01-01 00:00+00', NULL, 0, NULL),
	('good', 'saga', '', 'E', '1', '[]', 'pending', '2025-01-01 00:00+00', NULL, 0, NULL),
	('good', 'saga', '', 'E', '1', '{}', 'SENT', '2025-01-01 00:00+00', NULL, 0, NULL),
	('good', 'saga', '', 'E', '1', '{}', 'failed', '2025-01-01 00:00+00', NULL, -1, NULL),
	('good', 'saga', '', 'E', '1', '{}', 'claimed', '2025-01-01 00:00+00', '-infinity', 0, NULL),
	('good', 'saga', '', 'E', '1', '{}', 'pending', NULL, NULL, 0, NULL),
	('good', 'saga', '', 'E', '1', '{}', 'pending', '2025-01-01 00:00+00', NULL, 0, NULL)) AS v;
INSERT INTO broken.saga_outbox_archive
SELECT event_id, saga_id, aggregate_type, aggregate_id, event_type, payload, headers, 'sent', created_at
FROM broken.saga_outbox WHERE event_id::text LIKE '%10';
INSERT INTO broken.consumer_inbox (event_id, consumer_name, source_topic, event_type, payload, consumed_at) VALUES
	('00000000-0000-0000-0001-000000000001', '', 't', 'E', '1', now());
SQL
my $refused = <<'ROWS' =~ s/\n$//r;
sagas|5|[{"id": "", "reason": "saga_id is empty"}, {"id": "no name", "reason": "saga_name is empty"}, {"id": "status", "reason": "status 'PENDING' is unknown"}, {"id": "step", "reason": "step 'b': status 'done' is unknown"}, {"id": "time", "reason": "created_at is not in the years 1 to 9999"}]
saga_steps|5|[{"id": "nobody / a", "reason": "saga 'nobody' does not exist"}, {"id": "step / a", "reason": "saga 'step' is refused"}, {"id": "step / b", "reason": "status 'done' is unknown"}, {"id": "step 5", "reason": "saga_id is null"}, {"id": "time / a", "reason": "saga 'time' is refused"}]
saga_outbox|9|[{"id": "00000000-0000-0000-0001-000000000002", "reason": "saga_id is empty"}, {"id": "00000000-0000-0000-0001-000000000003", "reason": "event_type is empty"}, {"id": "00000000-0000-0000-0001-000000000004", "reason": "payload is null"}, {"id": "00000000-0000-0000-0001-000000000005", "reason": "headers is not an object"}, {"id": "00000000-0000-0000-0001-000000000006", "reason": "status 'SENT' is unknown"}, {"id": "00000000-0000-0000-0001-000000000007", "reason": "retry_count is negative"}, {"id": "00000000-0000-0000-0001-000000000008", "reason": "claimed_at is not in the years 1 to 9999"}, {"id": "00000000-0000-0000-0001-000000000009", "reason": "created_at is null"}, {"id": "00000000-0000-0000-0001-000000000010", "reason": "an archived event has this event_id"}]
consumer_inbox|1|[{"id": "00000000-0000-0000-0001-000000000001 / ", "reason": "consumer_name is empty"}]
ROWS
my $refusals = q{SELECT table_name, refused, problems FROM result WHERE refused > 0};
is($node->safe_psql('adopted', <<SQL), "1,1,1,1,0\n$refused", 'what is wrong is refused, and why');
CREATE TEMP TABLE result AS SELECT * FROM sagaz.adopt('broken');
SELECT string_agg(adopted::text, ',') FROM result;
$refusals
SQL
is($node->safe_psql('adopted', <<'SQL'), "good|1|1\n|key", 'a saga that is refused leaves no step');
SELECT saga_id, count(*), sum((created_at = updated_at)::int)
FROM sagaz.sagas LEFT JOIN sagaz.saga_steps USING (saga_id)
WHERE saga_id IN ('good', 'no name', 'status', 'time', 'step', '', 'nobody') GROUP BY 1;
SELECT aggregate_id, routing_key FROM sagaz.outbox WHERE event_id::text LIKE '00000000-0000-0000-0001-%'
SQL
is($node->safe_psql('adopted', <<SQL), "0,0,0,0,0\n$refused", 'and is refused again');
CREATE TEMP TABLE result AS SELECT * FROM sagaz.adopt('broken');
SELECT string_agg(adopted::text, ',') FROM result;
$refusals
SQL

# What adopt() does not even begin with
$node->safe_psql('adopted', <<'SQL');
CREATE SCHEMA bare;
CREATE SCHEMA partial;
CREATE TABLE partial.sagas AS TABLE broken.sagas;
CREATE SCHEMA foreign_one;
CREATE TABLE foreign_one.saga_outbox (event_id uuid, "Status" text);
CREATE ROLE stranger LOGIN;
GRANT ALL ON SCHEMA broken TO stranger;
GRANT ALL ON ALL TABLES IN SCHEMA broken TO stranger;
SQL
$before = contents('adopted');
is_error('adopted', 'SELECT sagaz.adopt(NULL)', 'SZ009', 'schema must be',
	'schema null');
is_error('adopted', "SELECT sagaz.adopt('nowhere')",
	'SZ009', 'schema must be', 'a schema that is not there');
is_error('adopted', "SELECT sagaz.adopt('sagaz')",
	'SZ009', 'schema must be', 'the own schema');
is_error('adopted', "SELECT sagaz.adopt('bare')",
	'SZ009', 'schema bare does not hold', 'a schema without such tables');
is_error('adopted', "SELECT sagaz.adopt('partial')",
	'SZ009', 'schema partial does not hold', 'sagas without steps');
is_error('adopted', "SELECT sagaz.adopt('foreign_one')",
	'SZ009', 'table foreign_one.saga_outbox is not', 'another table of that name');
is_error('adopted', "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT sagaz.adopt('broken')",
	'SZ005', 'adopt.. works in READ COMMITTED', 'a snapshot from before');
is_error('adopted', "SET ROLE stranger; SELECT sagaz.adopt('broken')",
	'42501', 'permission denied', 'a stranger');
ok($before eq contents('adopted'), 'and nothing is changed by that');

# Groups that are there before, one of them ordered
new_database('ordered');
$node->safe_psql('ordered', <<"SQL");
SELECT sagaz.create_consumer_group('sagaz-workers', 'saga');
SELECT sagaz.create_consumer_group('other');
SELECT sagaz.insert_event('order-0001', 'Native', '{}');
$adopt
SQL
my @delivered = map { $_->[0] } claim_all('ordered', 'sagaz-workers');
my %delivered = map { $_ => 1 } @delivered;
is(@delivered . ' ' . keys %delivered,
	'111 111', 'an ordered group gets each event once');
is(scalar claim_all('ordered', 'other'),
	43, 'a group that was there before gets what is plain pending');

$node->stop;
done_testing();
