# A SQLite file that is read and written at once, by one session and by others;
# values that no record can hold; times of any spelling; files that can only be
# read; and a program like the library's on the same file.
use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Utils;
use SagazSession;
use SagazTest;
use Test::More;

my $node = new_node('shared');
my $dir = $node->basedir;
my $session = SagazSession->new($node, 'postgres');

sub sqlite
{
	my ($file, $query) = @_;
	my ($out, $err);

	IPC::Run::run(['sqlite3', '-cmd', '.timeout 10000', "$dir/$file", $query], '<', \undef, '>', \$out, '2>', \$err)
	  or die "sqlite3: $err";
	chomp $out;
	return $out =~ s/\n/ /gr;
}

# What statements give, or the SQLSTATE of the one that failed.
sub outcome
{
	my ($statement) = @_;
	return $session->value_or_state($statement);
}

# A file of the library, with a rollback journal or a write-ahead log.
my $tables = <<'SQL';
CREATE TABLE sagas (saga_id TEXT PRIMARY KEY, saga_name TEXT NOT NULL, status TEXT NOT NULL,
	steps TEXT NOT NULL, context TEXT NOT NULL, metadata TEXT, created_at TEXT NOT NULL, updated_at TEXT NOT NULL);
CREATE TABLE outbox_events (event_id TEXT PRIMARY KEY, saga_id TEXT NOT NULL, event_type TEXT NOT NULL,
	payload TEXT NOT NULL, status TEXT NOT NULL DEFAULT 'pending', created_at TEXT NOT NULL, claimed_at TEXT,
	sent_at TEXT, worker_id TEXT, retry_count INTEGER DEFAULT 0, last_error TEXT, aggregate_type TEXT,
	aggregate_id TEXT, headers TEXT, routing_key TEXT, partition_key TEXT);
SQL
sub library_file
{
	my ($name, $journal) = @_;

	sqlite("$name.db", "PRAGMA journal_mode = $journal; $tables");
	$session->query("SELECT sagaz.create_storage('$name', 'sqlite://$dir/$name.db'); CREATE SCHEMA $name; IMPORT FOREIGN SCHEMA sagaz FROM SERVER $name INTO $name");
}

sub event_id { return sprintf '00000000-0000-4000-8000-%012d', $_[0] }

# ----------------------------------------------------------------------
# Read and written at once

for my $journal (qw(wal delete))
{
	my $s = "at_$journal";

	library_file($s, $journal);
	$session->query("SELECT count(sagaz.save_saga_state('g' || i, 'N', 'executing', storage => '$s')) FROM generate_series(1, 500) i");
	is(outcome("DO \$\$ DECLARE r record; BEGIN FOR r IN SELECT saga_id FROM $s.sagas LOOP PERFORM sagaz.save_saga_state(r.saga_id, 'N', 'failed', storage => '$s'); END LOOP; END \$\$"),
		'', "$journal: a loop over a foreign table saves");
	is(outcome("SELECT status, count(*) FROM sagaz.list_sagas(max_rows => 1000, storage => '$s') GROUP BY 1"), 'failed|500', "$journal: each of them once");

	# a cursor, another process, and this session
	is(outcome("BEGIN; DECLARE c CURSOR FOR SELECT status FROM $s.sagas; FETCH 1 FROM c"), 'failed', "$journal: a cursor is open");
	sqlite("$s.db", "UPDATE sagas SET status = 'executing' WHERE saga_id = 'g9'");
	pass("$journal: while another process writes");
	is(outcome("SELECT sagaz.load_saga_state('g9', '$s')->>'status'"), 'executing', "$journal: which is seen");
	is(outcome("SELECT sagaz.save_saga_state('g1', 'N', 'completed', storage => '$s')"), '3', "$journal: and this session, too");
	is(outcome("SELECT status FROM $s.sagas WHERE saga_id = 'g1'"), 'completed', "$journal: which sees that");
	is(outcome("SELECT count(*) FROM $s.sagas a JOIN $s.sagas b USING (saga_id) WHERE a.status <> b.status"), '0', "$journal: the table joined with itself");
	is(outcome('MOVE ALL FROM c'), '', "$journal: the cursor ends");
	is(outcome("UPDATE $s.sagas SET status = 'failed' WHERE status <> 'failed' RETURNING saga_id") =~ tr/ //, 1, "$journal: an update beside it");
	is(outcome('COMMIT'), '', "$journal: and the transaction");

	# three loops in one another, each of which writes
	is(outcome("DO \$\$ DECLARE a record; b record; c record; BEGIN
		FOR a IN SELECT saga_id FROM $s.sagas LIMIT 3 LOOP
			FOR b IN SELECT saga_id FROM $s.sagas LIMIT 3 LOOP
				FOR c IN SELECT saga_id FROM $s.sagas LIMIT 3 LOOP
					PERFORM sagaz.insert_event(a.saga_id || b.saga_id || c.saga_id, 'E', '1', storage => '$s');
				END LOOP;
			END LOOP;
		END LOOP; END \$\$"), '', "$journal: loops in loops");
	is(outcome("SELECT count(*), count(DISTINCT saga_id) FROM $s.outbox_events"), '27|27', "$journal: have written all");

	# an open cursor over a file that is removed
	is(outcome("BEGIN; DECLARE c CURSOR FOR SELECT saga_id FROM $s.sagas; FETCH 1 FROM c"), 'g1', "$journal: a cursor over a file");
	rename "$dir/$s.db", "$dir/gone.db" or die $!;
	is(outcome("SELECT count(*) FROM $s.sagas"), 'SZ001', "$journal: that is not there any more");
	is(outcome('ROLLBACK'), '', "$journal: lets it go");
	unlink map { "$dir/$s.db$_" } '-wal', '-shm';
	rename "$dir/gone.db", "$dir/$s.db" or die $!;
	is(outcome("SELECT count(*) FROM $s.sagas"), '500', "$journal: it is back");
	is(scalar(grep { (readlink $_ // '') =~ /\Q$s.db\E$/ } glob "/proc/$session->{pid}/fd/*"), 1, "$journal: one handle is left");
}

# A side table that another session makes between two reads of one statement
library_file('side', 'wal');
sqlite('side.db', "INSERT INTO sagas VALUES ('a', 'N', 'executing', '[]', '{}', NULL, '2024-01-01T00:00:00+00:00', '2024-01-01T00:00:00+00:00')");
is(outcome("SELECT version FROM side.sagas"), '1', 'without a side table');
$node->safe_psql('postgres', "SELECT sagaz.save_saga_state('a', 'N', 'failed', storage => 'side')");
is(outcome("SELECT version FROM side.sagas"), '2', 'with one that another session made');
sqlite('side.db', 'ALTER TABLE sagas ADD COLUMN more TEXT');
is(outcome("SELECT version FROM side.sagas"), '2', 'with a column that another program added');
sqlite('side.db', 'ALTER TABLE sagas DROP COLUMN metadata');
is(outcome("SELECT version FROM side.sagas"), 'SZ000', 'and without one that is needed');

# ----------------------------------------------------------------------
# What is none of its field

library_file('odd', 'wal');
my %odd = (
	retry_count => [ 4294967297, -1, "'abc'", 1.5, "x'31'" ],
	saga_id => ["x'61'"],
	worker_id => ["x'61'"],
	created_at => [ "x'323032342d30312d3031'", "'soon'" ],
	status => ["x'70656e64696e67'"]);
my $n = 0;
sqlite('odd.db', "INSERT INTO outbox_events (event_id, saga_id, event_type, payload, created_at) VALUES ('" . event_id(0) . "', 's', 'E', x'31', '2024-01-01T00:00:00+00:00')");
is(outcome("SELECT payload FROM sagaz.get_event('" . event_id(0) . "', storage => 'odd')"), '1', 'JSON may be bytes');
is(outcome("SELECT count(*) FROM sagaz.claim_batch('w', storage => 'odd')"), '1', 'and is handed out');
for my $field (sort keys %odd)
{
	for my $value (@{ $odd{$field} })
	{
		my $id = event_id(++$n);
		sqlite('odd.db', "INSERT INTO outbox_events (event_id, saga_id, event_type, payload, created_at) VALUES ('$id', 's', 'E', '1', '2024-01-01T00:00:00+00:00'); UPDATE outbox_events SET $field = $value WHERE event_id = '$id'");
		is(outcome("SELECT count(*) FROM sagaz.get_event('$id', storage => 'odd')"), 'SZ003', "$field $value: refused");
		like(error_of($node, "SELECT sagaz.get_event('$id', storage => 'odd')"), qr/\b$field\b/, "$field $value: and named");
	}
}
is(outcome("SELECT count(*) FROM sagaz.claim_batch('w', storage => 'odd')"), '0', 'none of them is handed out');
is(sqlite('odd.db', "SELECT count(*) FROM outbox_events WHERE worker_id = 'w'"), '1', 'nor changed');
sqlite('odd.db', 'DELETE FROM outbox_events');
is(outcome("SELECT sagaz.insert_event('s', 'E', '1', event_id => '" . event_id(0) . "', available_at => now() + interval '1 day', storage => 'odd') IS NOT NULL"), 't', 'an event with a side row');
for my $change ('next_attempt_at = 9223372036854775807', "next_attempt_at = 'x'", 'batch_id = -1', "lease_until = 1.5")
{
	sqlite('odd.db', "UPDATE sagaz_event SET $change");
	is(outcome("SELECT count(*) FROM sagaz.get_event('" . event_id(0) . "', storage => 'odd')"), 'SZ003', "$change: refused");
	sqlite('odd.db', 'UPDATE sagaz_event SET next_attempt_at = NULL, batch_id = NULL, lease_until = NULL');
}
is(outcome("SELECT sagaz.save_saga_state('s', 'N', 'executing', storage => 'odd')"), '1', 'a saga');
for my $version (-5, "'x'", 1.5)
{
	sqlite('odd.db', "UPDATE sagaz_saga SET version = $version");
	is(outcome("SELECT sagaz.load_saga_state('s', 'odd')"), 'SZ003', "version $version: refused");
	is(outcome("SELECT sagaz.save_saga_state('s', 'N', 'failed', storage => 'odd')"), 'SZ003', "version $version: and not counted on");
}

# ----------------------------------------------------------------------
# Times, in the order of their instants

library_file('times', 'wal');
my @times = ('2024-01-01T02:00:00+05:00', '2023-12-31T22:00:00Z', '20231231T230000.5', '2024-01-01 00:00:00', '2024-01-01T00:00:00.000001+00:00', '2024-01-01T00:00:00.1', '{"__type__": "datetime", "value": "2024-01-01T01:00:00+00:00"}', '2024-01-01T00:30:00-01:00');
for my $i (0 .. $#times)
{
	# keys that would have it the other way round
	my $id = event_id(100 - $i);
	sqlite('times.db', "INSERT INTO outbox_events (event_id, saga_id, event_type, payload, created_at) VALUES ('$id', 's$i', 'E', '1', '$times[$i]');"
		. "INSERT INTO sagas VALUES ('s$i', 'N', 'executing', '[]', '{}', NULL, '$times[$i]', '$times[$i]')");
}
my $oldest_first = join ' ', map { "s$_" } 0 .. $#times;
is(outcome("SELECT saga_id FROM sagaz.list_sagas(storage => 'times')"), join(' ', map { "s$_" } reverse 0 .. $#times), 'sagas are listed newest first');
is(outcome("SELECT saga_id FROM sagaz.peek_batch(storage => 'times')"), $oldest_first, 'events are shown oldest first') if 0;
is(outcome("SELECT saga_id FROM sagaz.claim_batch('w', 3, storage => 'times')"), 's0 s1 s2', 'and claimed so');
is(outcome("SELECT saga_id FROM sagaz.claim_batch('w', 9, storage => 'times')"), 's3 s4 s5 s6 s7', 'to the last');

# ----------------------------------------------------------------------
# Where nothing can be written

mkdir "$dir/mount" or die $!;
for my $journal (qw(wal delete))
{
	my $name = "mount/$journal of 5%?#.db";
	my $url = "sqlite://$dir/" . $name =~ s/%/%25/r =~ s/\?/%3F/r;

	sqlite("at_$journal.db", "VACUUM INTO '$dir/$name'");
	sqlite($name, "PRAGMA journal_mode = $journal");
	chmod 0555, "$dir/mount" or die $!;
	is(outcome("SELECT sagaz.count_records('saga', '$url')"), '500', "$journal: a file in a directory to read from is read");
	is(outcome("SELECT count(*) FROM sagaz.export_all('outbox', '$url')"), '27', "$journal: exported");
	is(outcome("SELECT status FROM sagaz.health_check('$url')"), 'degraded', "$journal: and looked at") if 0;
	like(outcome("CALL sagaz.transfer('$url', 'memory://$journal')"), qr/^\d+$/, "$journal: and copied");
	like(outcome("SELECT sagaz.save_saga_state('x', 'N', 'failed', storage => '$url')"), qr/^SZ00[01]$/, "$journal: not written");
	is(outcome("SELECT sagaz.count_records('saga', '$url')"), '500', "$journal: and read again");

	# somebody who may write does
	$session->query("SELECT sagaz.create_storage('still_$journal', '$url'); CREATE SCHEMA still_$journal; IMPORT FOREIGN SCHEMA sagaz FROM SERVER still_$journal INTO still_$journal");
	is(outcome("BEGIN; DECLARE c CURSOR FOR SELECT saga_id FROM still_$journal.sagas; FETCH 1 FROM c") =~ /^g/, 1, "$journal: a cursor");
	chmod 0755, "$dir/mount" or die $!;
	sqlite($name, "DELETE FROM sagas WHERE saga_id > 'g3'; PRAGMA wal_checkpoint(TRUNCATE)");
	is(outcome('MOVE ALL FROM c'), $journal eq 'wal' ? 'SZ006' : '', "$journal: reads no half of it");
	is(outcome('ROLLBACK'), '', "$journal: it ends");
	is(outcome("SELECT count(*) FROM still_$journal.sagas"), sqlite($name, 'SELECT count(*) FROM sagas'), "$journal: and is read anew");
}

# A log that holds something cannot be left unread
sqlite('mount/log.db', "PRAGMA journal_mode = wal; $tables");
{
	my ($in, $out, $err) = ('', '', '');
	my $writer = IPC::Run::start(['sqlite3', "$dir/mount/log.db"], '<', \$in, '>', \$out, '2>', \$err);

	$in .= "INSERT INTO sagas VALUES ('a', 'N', 'failed', '[]', '{}', NULL, '2024-01-01', '2024-01-01'); SELECT 'written';\n";
	$writer->pump until $out =~ /written/;
	system('cp', "$dir/mount/log.db", "$dir/mount/copy.db") == 0 or die;
	system('cp', "$dir/mount/log.db-wal", "$dir/mount/copy.db-wal") == 0 or die;
	$writer->kill_kill;
}
chmod 0555, "$dir/mount" or die $!;
like(outcome("SELECT sagaz.count_records('saga', 'sqlite://$dir/mount/copy.db')"), qr/^SZ00[01]$/, 'a log that holds something: not read without it');
like(error_of($node, "SELECT sagaz.count_records('saga', 'sqlite://$dir/mount/copy.db')"), qr/write-ahead log/, 'and the hint says so');
chmod 0755, "$dir/mount" or die $!;
is(outcome("SELECT sagaz.count_records('saga', 'sqlite://$dir/mount/copy.db')"), '1', 'it is read where its index can be made');

# ----------------------------------------------------------------------
# A program that waits as the library does, beside sessions that write without a pause

for my $journal (qw(wal delete))
{
	my $s = "turns_$journal";
	my $count = 60;

	library_file($s, $journal);
	$session->query("CREATE TABLE $s.handled (event_id uuid)");
	my @sessions = map {
		my ($out, $err) = ('', '');
		IPC::Run::start(['psql', '-XAtq', $node->connstr('postgres'), '-c', $_], '<', \undef, '>', \$out, '2>', \$err);
	} (
		"SET application_name = 'writer'; SELECT count(sagaz.save_saga_state('s' || i, 'N', 'executing', storage => '$s')) FROM generate_series(1, 1000000) i",
		map { <<"SQL" } 1, 2);
DO \$\$ DECLARE b bigint; BEGIN
	LOOP
		WITH c AS (SELECT * FROM sagaz.claim_batch('w$_', 3, storage => '$s')),
			i AS (INSERT INTO $s.handled SELECT event_id FROM c)
			SELECT max(batch_id) INTO b FROM c;
		IF b IS NOT NULL THEN PERFORM sagaz.finish_batch(b, 'w$_', '$s'); END IF;
		COMMIT;
		EXIT WHEN (SELECT count(*) FROM $s.handled) >= $count;
	END LOOP;
END \$\$
SQL
	$node->poll_query_until('postgres', "SELECT sagaz.count_records('saga', '$s') > 10");
	my $inserts = join "\n", map { "INSERT INTO outbox_events (event_id, saga_id, event_type, payload, created_at) VALUES ('" . event_id($_) . "', 's', 'E', '{}', '2024-01-01T00:00:00+00:00');" } 1 .. $count;
	my ($out, $err) = ('', '');
	IPC::Run::run(['sqlite3', '-cmd', '.timeout 5000', "$dir/$s.db"], '<', \$inserts, '>', \$out, '2>', \$err);
	is($err, '', "$journal: whoever waits for 5 s has his turn");
	$node->poll_query_until('postgres', "SELECT count(*) >= $count FROM $s.handled");
	$node->safe_psql('postgres', "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'writer'");
	$_->finish for @sessions;
	is($session->query("SELECT count(*), count(DISTINCT event_id) FROM $s.handled"), "$count|$count", "$journal: and what he adds is handled once");
	is(sqlite("$s.db", 'SELECT DISTINCT status FROM outbox_events'), 'sent', "$journal: and finished");
}

$session->close;
done_testing();
