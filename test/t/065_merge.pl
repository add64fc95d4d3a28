# merge_records() and remove_records() on every kind of storage, pages of the
# native tables, and what becomes of events that are in the middle of something.
use strict;
use warnings;

use SagazRedis;
use SagazSession;
use SagazTest;
use Test::More;

my $node = new_node('merge', conf => <<'CONF');
fsync = off
timezone = 'UTC'
sagaz.retry_backoff = '5min'
CONF
my %built = map { $_ => 1 } split /\n/, $node->safe_psql('postgres', 'SELECT name FROM sagaz.backends()');
my $redis = $built{redis} ? SagazRedis->new->start : undef;
my $files = PostgreSQL::Test::Utils::tempdir();
my $host = $node->host =~ s{/}{%2F}gr;

$node->safe_psql('postgres', $_)
  for 'CREATE DATABASE with_sagaz', 'CREATE DATABASE library';
$node->safe_psql('with_sagaz', 'CREATE EXTENSION sagaz');

my @storages = ([ native => 'native' ], [ memory => 'memory://merge' ]);
push @storages, [ sqlite => "sqlite://$files/merge.db" ] if $built{sqlite};
push @storages, [ redis => $redis->url ] if $redis;
push @storages, map { [ $_->[0], "postgresql://\@$host:" . $node->port . "/$_->[1]" ] }
  [ pg_sagaz => 'with_sagaz' ], [ pg_library => 'library' ]
  if $built{postgresql};

my $session = SagazSession->new($node, 'postgres');
$session->query('SET client_min_messages = warning');

# The rows of a statement, or its SQLSTATE.
sub ask
{
	my ($sql) = @_;
	my $rows = $session->outcome("$sql;");

	$rows =~ s/\n\z//;
	return $rows;
}

# What a statement raises, in full.
sub complaint_of
{
	my $err = error_of($node, @_);
	my ($error) = $err =~ /ERROR:  (.*)/;
	my ($detail) = $err =~ /DETAIL:  (.*)/;
	return join ' | ', grep { defined } $error, $detail;
}

sub merge
{
	my ($storage, $type, $over_claims, @records) = @_;

	return ask(sprintf q{SELECT concat_ws(' ', added, changed, unchanged, kept) FROM sagaz_internal.merge_records($j$[%s]$j$, '%s', %s, '%s')},
		join(',', @records), $type, $over_claims ? 'true' : 'false', $storage);
}

sub saga
{
	my ($id, %fields) = @_;
	my %saga = (
		saga_name => '"Order"', status => '"executing"', context => '{"n": 1}', metadata => 'null',
		steps => '[{"name": "b", "status": "completed", "result": {"r": 1}, "executed_at": "2024-01-02T03:04:05.678901+00:00"}, {"name": "a", "more": [1]}]',
		created_at => '"2024-01-01T00:00:00+00:00"', updated_at => '"2024-01-02T00:00:00.5+00:00"', %fields);

	return sprintf '{"saga_id": "%s", %s}', $id, join ', ', map { qq("$_": $saga{$_}) } sort keys %saga;
}

sub uuid { return sprintf '00000000-0000-4000-8000-%012d', shift }

sub event
{
	my ($n, %fields) = @_;
	my %event = (
		saga_id => '"s"', event_type => '"E"', payload => qq({"n": $n}), status => '"pending"',
		created_at => sprintf('"2024-01-01T00:00:%02d+00:00"', $n), %fields);

	return sprintf '{"event_id": "%s", %s}', uuid($n), join ', ', map { qq("$_": $event{$_}) } sort keys %event;
}

# Are the records there just like that, as the server compares them?
sub same
{
	my ($storage, $type, $name, @records) = @_;
	my $key = $type eq 'saga' ? 'saga_id' : 'event_id';
	my $keys = join ',', map { /"$key": ("[^"]*")/ } @records;

	$session->query(sprintf q{SELECT sagaz.import_records($j$[%s]$j$, '%s', 'replace', 'memory://wanted')}, join(',', @records), $type);
	is( ask(sprintf q{SELECT count(*), count(*) FILTER (WHERE w = t) FROM sagaz.export_all('%s', 'memory://wanted') AS w
		FULL JOIN (SELECT * FROM sagaz.export_all('%s', '%s') AS t WHERE $j$[%s]$j$ @> (t->'%s')) AS t ON t->'%s' = w->'%s'
		WHERE $j$[%s]$j$ @> (coalesce(t, w)->'%s')}, $type, $type, $storage, $keys, $key, $key, $key, $keys, $key),
		@records . '|' . @records, $name);
}

sub claimed
{
	my ($storage, $worker) = @_;

	return ask("SELECT string_agg((payload->>'n'), ' ' ORDER BY payload->>'n') FROM sagaz.claim_batch('$worker', storage => '$storage')");
}

# ----------------------------------------------------------------------
# What every storage does

sub test_sagas
{
	my ($name, $storage) = @_;
	my $version = sub { ask("SELECT sagaz.load_saga_state('$_[0]', '$storage')->>'version'") };
	my @sagas = (saga('one'), saga('two', version => 7), saga("three ☃", metadata => '{}', steps => '[]'));

	is(merge($storage, 'saga', 0, @sagas), '3 0 0 0', "$name: sagas are added");
	same($storage, 'saga', "$name: as they are, with their times", @sagas);
	is($version->('two'), 7, "$name: a version is kept");
	is(merge($storage, 'saga', 0, @sagas, saga('four')), '1 0 3 0', "$name: sagas that are there like that are left");
	is(merge($storage, 'saga', 0, saga('one', context => '{"n": 1.00}')), '0 0 1 0', "$name: what is equal is not changed");
	is($version->('one'), 1, "$name: nor is its version");
	$sagas[1] = saga('two', status => '"completed"', version => 3,
		steps => '[{"name": "a", "status": "failed", "error": "x", "retry_count": 2}, {"name": "c"}]');
	is(merge($storage, 'saga', 0, @sagas), '0 1 2 0', "$name: a saga that differs is changed");
	same($storage, 'saga', "$name: all of it", @sagas);
	is($version->('two'), 8, "$name: its version rises");
	is(merge($storage, 'saga', 0, saga('two', version => 20)), '0 1 0 0', "$name: it is changed back");
	is($version->('two'), 20, "$name: to ours where that is higher");
	is(ask("SELECT sagaz_internal.remove_records('{two,four,none}', 'saga', '$storage')"), 2, "$name: sagas are removed");
	is(ask("SELECT sagaz.count_records('saga', '$storage')"), 2, "$name: and gone");
	is(merge($storage, 'saga', 0, saga('five'), saga('five')), 'ERROR SZ009', "$name: no key twice");
	is(merge($storage, 'saga', 0), '0 0 0 0', "$name: nothing is merged of nothing");
}

sub test_events
{
	my ($name, $storage) = @_;
	my @events = (
		event(1, headers => '{"h": "v"}', routing_key => '"r"', partition_key => '"p"', aggregate_type => '"order"', aggregate_id => '"o"'),
		event(2, status => '"sent"', sent_at => '"2024-01-03T00:00:00+00:00"', claimed_at => '"2024-01-02T00:00:00+00:00"',
			worker_id => '"w"', retry_count => 1, last_error => '"once"'),
		event(3, status => '"failed"', retry_count => 2, last_error => '"x"', next_attempt_at => '"2100-01-01T00:00:00+00:00"'),
		event(4, status => '"dead_letter"', retry_count => 11, last_error => '"y"', worker_id => '"w"'),
		event(5, status => '"pending"', last_error => '"z"', next_attempt_at => '"2100-01-01T00:00:00+00:00"'),
		event(6, payload => 'null'));

	is(merge($storage, 'outbox', 0, @events), '6 0 0 0', "$name: events are added");
	same($storage, 'outbox', "$name: as they are", @events);
	is(merge($storage, 'outbox', 0, @events), '0 0 6 0', "$name: events that are there like that are left");
	is(merge($storage, 'outbox', 1, event(2), event(1, headers => '{"h": "w"}')), '0 1 0 1',
		"$name: what is sent is kept, what differs is changed");
	$events[0] = event(1, headers => '{"h": "w"}');
	same($storage, 'outbox', "$name: all of it", @events);
	is(ask("SELECT sagaz_internal.remove_records(ARRAY['" . join("','", uuid(6), uuid(99)) . "'], 'outbox', '$storage')"), 1,
		"$name: an event is removed");
	is(claimed($storage, 'early'), 1, "$name: what is due is handed out, and nothing else");
	is(ask("SELECT sagaz.finish_batch(batch_id, 'early', '$storage') FROM sagaz.get_event('" . uuid(1) . "', storage => '$storage')"),
		1, "$name: and finished");
	is(merge($storage, 'outbox', 1, $events[0]), '0 0 0 1', "$name: it stays so");
}

# Events that are somewhere on their way there.
sub test_on_the_way
{
	my ($name, $storage) = @_;
	my @as_sent = (status => '"sent"', sent_at => '"2024-05-01T00:00:00+00:00"', retry_count => 3, last_error => '"late"');
	my @fresh = map { event($_, saga_id => qq("way $_")) } 11 .. 16;
	my $same = sub { same($storage, 'outbox', "$name: $_[0]", @_[ 1 .. $#_ ]) };

	merge($storage, 'outbox', 0, @fresh);
	is(claimed($storage, 'worker'), '11 12 13 14 15 16', "$name: all are claimed");
	is(merge($storage, 'outbox', 0, @fresh[ 0, 1 ]), '0 0 0 2', "$name: what a worker has is kept");

	my $ours = event(11, saga_id => '"way 11"', @as_sent);
	is(merge($storage, 'outbox', 0, $ours), '0 1 0 0', "$name: unless ours is sent");
	$same->('it is then, with what we know of it', $ours);
	is(merge($storage, 'outbox', 1, $fresh[1]), '0 1 0 0', "$name: or we are told to");
	$same->('it is pending then', $fresh[1]);
	my $failed = event(13, saga_id => '"way 13"', status => '"failed"', retry_count => 1, last_error => '"e"');
	my $dead = event(14, saga_id => '"way 14"', status => '"dead_letter"', retry_count => 5);
	is(merge($storage, 'outbox', 1, $failed, $dead), '0 2 0 0', "$name: any state");
	$same->('is taken over', $failed, $dead);
	is(ask("SELECT sagaz_internal.remove_records('{" . uuid(15) . "}', 'outbox', '$storage')"), 1, "$name: and one is removed");
	is(ask("SELECT sagaz.finish_batch(batch_id, 'worker', '$storage') FROM sagaz.get_event('" . uuid(16) . "', storage => '$storage')"),
		1, "$name: the worker finishes what it still has");
	is(merge($storage, 'outbox', 0, event(14, saga_id => '"way 14"', last_error => '"again"')), '0 1 0 0', "$name: a dead letter that is pending here");
	is(claimed($storage, 'next'), '12 13 14', "$name: is handed out like the others that are due");
	is(merge($storage, 'outbox', 0, map { event($_, saga_id => qq("way $_"), @as_sent) } 12 .. 14), '0 3 0 0', "$name: all of them sent");
	is(claimed($storage, 'last'), '', "$name: nothing is left");
}

for (@storages)
{
	test_sagas(@$_);
	test_events(@$_);
	test_on_the_way(@$_);
}

# ----------------------------------------------------------------------
# The native tables

sub clear
{
	$session->query('TRUNCATE sagaz.outbox, sagaz.outbox_retry, sagaz.outbox_archive, sagaz.outbox_batch, sagaz.outbox_receipt');
}

sub of_event { return ask("SELECT concat_ws(' ', status, retry_count, sent_at, last_error) FROM sagaz.get_event('" . uuid($_[0]) . "')") }

# By so many claims: what a worker was lost with goes with nothing else.
sub claimed_apart
{
	my ($worker, $claims) = @_;
	return join ' ', sort { $a <=> $b } map { split / /, claimed('native', $worker) } 1 .. $claims;
}

# In the order of the records, whatever their times say; what was claimed
# elsewhere is as if a worker here had it.
clear();
is(merge('native', 'outbox', 0, map { event($_) } 9, 3, 7, 5), '4 0 0 0', 'events in some order');
is(ask(q{SELECT string_agg(payload->>'n', ' ' ORDER BY seq) FROM sagaz.outbox}), '9 3 7 5', 'have that order in the log');
is(merge('native', 'outbox', 0, event(21, saga_id => '"x"', status => '"claimed"', worker_id => '"w"', claimed_at => '"2024-01-01T00:00:00+00:00"'),
		event(22, saga_id => '"y"', status => '"claimed"', worker_id => '"v"', claimed_at => '"2025-01-01T00:00:00+00:00"')),
	'2 0 0 0', 'events claimed elsewhere');
is(of_event(22), 'claimed 0', 'are claimed here');
is(ask('SELECT count(*) FROM sagaz.get_stuck_events()'), 2, 'by somebody who is late');
is(claimed_apart('w1', 3), '3 5 7 9 21 22', 'and are handed out again');

# A batch ends when the last event of it is taken away, and not before.
is(merge('native', 'outbox', 1, map { event($_) } 9, 3, 7), '0 3 0 0', 'three of them are taken back');
is(ask("SELECT count(*) FROM sagaz.outbox_receipt WHERE kind <= 3 AND batch_id = (SELECT batch_id FROM sagaz.get_event('" . uuid(5) . "'))"), 0,
	'the batch goes on');
my $batch = ask("SELECT batch_id FROM sagaz.get_event('" . uuid(5) . "')");
is(merge('native', 'outbox', 1, event(5), map { event($_, saga_id => $_ == 21 ? '"x"' : '"y"', status => '"sent"') } 21, 22), '0 3 0 0', 'then the others');
is(ask("SELECT kind FROM sagaz.outbox_receipt WHERE kind <= 3 AND batch_id = $batch"), 1, 'and it ends');
is(ask("SELECT sagaz.finish_batch($batch, 'w1')"), 'ERROR SZ006', 'for the worker too');
is(claimed('native', 'w2'), '3 5 7 9', 'what was taken back is handed out');

# To be claimed, from every state.
clear();
merge('native', 'outbox', 0, event(1), event(2, status => '"failed"', last_error => '"e"'), event(3, status => '"dead_letter"'));
my @claimed = map { event($_, status => '"claimed"', worker_id => '"there"', claimed_at => '"2024-01-01T00:00:00+00:00"') } 1 .. 3;
is(merge('native', 'outbox', 0, @claimed), '0 3 0 0', 'events that were claimed since');
same('native', 'outbox', 'are so here', @claimed);
is(claimed_apart('w', 4), '1 2 3', 'until their leases are over');

# Later, and changed in place.
clear();
merge('native', 'outbox', 0, event(1, next_attempt_at => '"2100-01-01T00:00:00+00:00"'), event(2));
my $seq = ask('SELECT max(seq) FROM sagaz.outbox');
is(merge('native', 'outbox', 0, event(2, payload => '{"n": "new"}', event_type => '"F"', created_at => '"2023-01-01T00:00:00+00:00"')), '0 1 0 0',
	'an event with another content');
is(ask("SELECT concat_ws(' ', seq = $seq, event_type, created_at) FROM sagaz.outbox WHERE event_id = '" . uuid(2) . "'"),
	't F 2023-01-01 00:00:00+00', 'keeps its place');
is(complaint_of("SELECT sagaz_internal.merge_records('[" . event(2, saga_id => '"other"') . "]', 'outbox')"),
	'SZ003: record "' . uuid(2) . '" is refused | The native outbox has it with another saga_id.', 'but not for another saga');
is(claimed('native', 'w'), 'new', 'an event that is to wait waits');
is(merge('native', 'outbox', 0, event(1)), '0 0 1 0', 'which is no part of it');

# In the archive.
clear();
merge('native', 'outbox', 0, event(1, status => '"sent"', sent_at => '"2024-01-01T00:00:00+00:00"'));
is(ask("SELECT count(*) FROM sagaz.outbox_archive"), 1, 'what is sent goes into the archive');
$session->query("UPDATE sagaz.outbox_archive SET status = 'dead_letter', sent_at = NULL");
is(merge('native', 'outbox', 0, event(1)), '0 1 0 0', 'a dead letter of the archive that is pending here');
is(ask("SELECT count(*) FROM sagaz.outbox_archive") . claimed('native', 'w'), '01', 'is handed out');
merge('native', 'outbox', 0, event(2, status => '"sent"'));
is(ask("SELECT sagaz_internal.remove_records('{" . uuid(2) . ',' . uuid(1) . "}', 'outbox')"), 2, 'events of the log and the archive are removed');
is(ask("SELECT count(*) FROM sagaz.outbox_archive"), 0, 'from the archive');
like(of_event(1), qr/^sent/, 'and sent in the log');

# An ordered group.
clear();
$session->query("UPDATE sagaz.consumer_group SET ordering = 'saga'");
merge('native', 'outbox', 0, map { event($_) } 1 .. 3);
is(claimed('native', 'w'), '1 2 3', 'an ordered group has a batch');
is(merge('native', 'outbox', 1, event(1, status => '"failed"', next_attempt_at => '"2100-01-01T00:00:00+00:00"')), '0 1 0 0', 'whose first event has failed elsewhere');
is(claimed('native', 'w'), '', 'the others are held back');
is(merge('native', 'outbox', 0, event(2, payload => '{"n": "two"}')), '0 1 0 0', 'and stay so when they change');
is(claimed('native', 'w'), '', 'as before');
is(merge('native', 'outbox', 0, event(1, status => '"sent"')), '0 1 0 0', 'until it is sent');
is(claimed('native', 'w'), '3 two', 'then they go on');
$session->query("UPDATE sagaz.consumer_group SET ordering = 'none'");

# A group that begins later gets what is merged all the same.
clear();
$session->query("UPDATE sagaz.consumer_group SET start_time = '2025-01-01'");
merge('native', 'outbox', 0, event(1), event(2, created_at => '"2026-01-01T00:00:00+00:00"'));
is(ask("SELECT sagaz.count_records('outbox')"), 2, 'events from before a group began');
is(claimed('native', 'w'), '1 2', 'are its, too');
$session->query('UPDATE sagaz.consumer_group SET start_time = NULL');

# ----------------------------------------------------------------------
# What does not fit

sub unfit
{
	my ($type, $record) = @_;

	return complaint_of("SELECT sagaz_internal.merge_records(\$j\$[$record]\$j\$, '$type')") =~ s/.*cannot hold it: //r;
}

my $long = 'x' x 2601;
my %unfit = (
	q{event_id is not a UUID} => [ outbox => event(1) =~ s/0{8}/evt/r ],
	q{saga_id is empty} => [ outbox => event(1, saga_id => '""') ],
	q{saga_id is too long: it has 2601 bytes; the limit is 2600} => [ outbox => event(1, saga_id => qq("$long")) ],
	q{status is not a status: "done"} => [ saga => saga('u', status => '"done"') ],
	q{saga_name is too long: it has 2601 bytes; the limit is 2600} => [ saga => saga('u', saga_name => qq("$long")) ],
	q{steps must be an array of objects} => [ saga => saga('u', steps => '{}') ],
	q{steps[0].name must be given} => [ saga => saga('u', steps => '[{}]') ],
	q{steps[1].name occurs twice: "a"} => [ saga => saga('u', steps => '[{"name": "a"}, {"name": "a"}]') ],
	q{steps[0].name must not be empty} => [ saga => saga('u', steps => '[{"name": ""}]') ],
	q{steps[0].name is too long: It has 1025 bytes; the limit is 1024} => [ saga => saga('u', steps => '[{"name": "' . 'x' x 1025 . '"}]') ],
	q{steps[0].status is not a status: "odd"} => [ saga => saga('u', steps => '[{"name": "a", "status": "odd"}]') ],
	q{steps[0].executed_at is not a time: "soon"} => [ saga => saga('u', steps => '[{"name": "a", "executed_at": "soon"}]') ],
	q{steps[0].retry_count must be a whole number} => [ saga => saga('u', steps => '[{"name": "a", "retry_count": 0.5}]') ],
	q{saga_id with steps[0].name is too long: it has 2606 bytes; the limit is 2600} =>
	  [ saga => saga('u' x 2600, steps => '[{"name": "step 1"}]') ]);

is(unfit(@{ $unfit{$_} }), "$_.", "unfit: $_") for sort keys %unfit;
my $widest = join '', map { chr(97 + int rand 26) } 1 .. 2600;
is(merge('native', 'saga', 0, saga($widest, steps => '[]', saga_name => qq("$widest"))), '1 0 0 0', 'what just fits');
is(merge('native', 'outbox', 0, event(58, saga_id => qq("$widest"), status => '"sent"'), event(57, saga_id => qq("$widest"), status => '"failed"')),
	'2 0 0 0', 'fits');

# ----------------------------------------------------------------------
# Pages

sub pages
{
	my ($type, $max_rows) = @_;
	my $after = 'NULL';
	my @keys;

	while (1)
	{
		my @rows = split /\n/, ask("SELECT record->>0, position FROM sagaz_internal.export_page('$type', $after, $max_rows)");
		last if !@rows;
		is(scalar @rows, $max_rows, "a page of $max_rows is full") if @rows > $max_rows;
		push @keys, map { s/\|.*//r } @rows;
		$after = '$p$' . ($rows[-1] =~ s/.*?\|//r) . '$p$';
	}
	return join ' ', @keys;
}

clear();
$session->query('TRUNCATE sagaz.sagas CASCADE');
merge('native', 'saga', 0, map { saga("saga $_", $_ % 2 ? () : (steps => '[]')) } 1 .. 9);
merge('native', 'outbox', 0, map { event($_, saga_id => qq("saga $_"), $_ % 3 ? () : (status => '"sent"')) } 1 .. 20);
for my $type (qw(saga outbox))
{
	my $all = pages($type, 1000);

	is(scalar(split / (?=saga|0000)/, $all), $type eq 'saga' ? 9 : 20, "$type: a page with all records");
	is(pages($type, $_), $all, "$type: pages of $_") for 1, 3;
}
is(ask(q{SELECT bool_and(seq > before) FROM (SELECT o.seq, lag(o.seq, 1, 0::bigint) OVER (PARTITION BY o.lane ORDER BY p.place) AS before
	FROM sagaz_internal.export_page('outbox') WITH ORDINALITY AS p (record, position, place) JOIN sagaz.outbox AS o ON o.event_id::text = p.record->>0) AS l}),
	't', 'the log comes in its order');
is(ask("SELECT string_agg(record->>0, ',') FROM sagaz_internal.export_page('saga', keys => '{saga 7,none,saga 2}')"), 'saga 7,saga 2', 'records of some keys');
is(ask("SELECT count(*) FROM sagaz_internal.export_page('saga', keys => '{}')"), 0, 'of none');
is(ask(q{SELECT record->8 FROM sagaz_internal.export_page('saga', keys => '{saga 7}')}), 1, 'a page has versions');
is(ask("SELECT sagaz_internal.export_page('outbox', '$_')"), 'ERROR SZ009', "\"$_\" is no position")
  for '', 'log', 'log 4 1', 'log -1 1', 'log 1 1x', 'archive x', 'archive';
is(ask("SELECT sagaz_internal.export_page('saga', max_rows => $_)"), 'ERROR SZ009', "no page of $_") for 0, 'NULL';
is(ask("SELECT sagaz_internal.merge_records('[{\"saga_id\": \"a\", \"saga_name\": \"b\", \"status\": \"failed\", \"version\": $_}]', 'saga')"), 'ERROR SZ003', "no version $_")
  for 0, -1, 1.5, '"1"', '10000000000000000000';
is(ask($_), 'ERROR SZ009', $_)
  for "SELECT sagaz_internal.merge_records(NULL, 'saga')", "SELECT sagaz_internal.merge_records('{}', 'saga')", "SELECT sagaz_internal.merge_records('[]', 'sagas')",
  "SELECT sagaz_internal.merge_records('[]', 'saga', NULL)", "SELECT sagaz_internal.remove_records(NULL, 'saga')", "SELECT sagaz_internal.remove_records('{NULL}', 'saga')";

# In the order of the keys' bytes, and page by page in that of the database.
$node->safe_psql('postgres', q{CREATE DATABASE other_order TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'en' LOCALE 'C.UTF-8'});
$node->safe_psql('other_order', 'CREATE EXTENSION sagaz');
my $first = $session;
$session = SagazSession->new($node, 'other_order');
merge('native', 'saga', 0, map { saga($_) } qw(b A a B ä Z z));
merge('native', 'outbox', 0, map { event($_, $_ % 2 ? () : (status => '"sent"')) } 5, 2, 4, 1, 3);
is(ask(q{SELECT string_agg(e->>'saga_id', '') FROM sagaz.export_all('saga') AS e}), 'ABZabzä', 'sagas by key');
is(ask(q{SELECT string_agg(right(e->>'event_id', 1), '') FROM sagaz.export_all('outbox') AS e}), '12345', 'events by key');
is(ask(q{SELECT string_agg(saga_id, '' ORDER BY saga_id) FROM sagaz.sagas}), 'aAäbBzZ', 'which is not the order there');
is(pages('saga', 1) =~ tr/ //dr, 'aAäbBzZ', 'pages do not care');
is(ask(q{SELECT sum(jsonb_array_length((record->3)::jsonb)) FROM sagaz_internal.export_page('saga')}), 14, 'and each has its steps');
$session->close;
$session = $first;

# ----------------------------------------------------------------------
# Two at once

my $second = SagazSession->new($node, 'postgres');
for my $isolation ('read committed', 'repeatable read')
{
	my $id = "both $isolation";

	$session->query('BEGIN');
	is(merge('native', 'saga', 0, saga($id, status => '"failed"')), '1 0 0 0', 'one adds a saga');
	$second->query("BEGIN ISOLATION LEVEL $isolation; SELECT 1");
	$second->ask("SELECT changed FROM sagaz_internal.merge_records(\$j\$[" . saga($id) . "]\$j\$, 'saga');");
	ok( $node->poll_query_until('postgres', "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $second->{pid} AND wait_event_type = 'Lock')"),
		'another waits for it');
	$session->query('COMMIT');
	is($second->answer, $isolation eq 'read committed' ? "1\n" : "ERROR 40001\n", "$isolation: and looks again");
	$second->query('COMMIT');
	is(ask("SELECT load_saga_state->>'status' FROM sagaz.load_saga_state('$id')"), $isolation eq 'read committed' ? 'executing' : 'failed', 'what came last counts');
}
$second->close;

$session->close;
$node->stop;
done_testing();
