# A SQLite file that is locked, unwritable, something else, broken or full:
# a clear error, the file as it was, and the session works afterwards.  Who may
# use which file; and that ten thousand failures leave nothing open.
use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Utils;
use SagazSession;
use SagazTest;
use Test::More;
use Time::HiRes qw(time);

my $node = new_node('sqlite', conf => "restart_after_crash = on\n");
my $dir = $node->basedir;

sub sqlite
{
	my ($file, $query) = @_;
	my ($out, $err);

	IPC::Run::run(['sqlite3', '-cmd', '.timeout 10000', $file, $query],
		'<', \undef, '>', \$out, '2>', \$err) or die "sqlite3: $err";
	chomp $out;
	return $out;
}

sub lock_file
{
	my ($file) = @_;
	my ($in, $out, $err) = ('', '', '');
	my $locker = IPC::Run::start(['sqlite3', $file], '<', \$in, '>', \$out, '2>', \$err);

	$in .= "BEGIN EXCLUSIVE;\nSELECT 'locked';\n";
	$locker->pump until $out =~ /locked/;
	return sub { $in .= "COMMIT;\n.quit\n"; $locker->finish; };
}

sub save
{
	my ($storage, $saga) = @_;
	return "SELECT sagaz.save_saga_state('$saga', 'S', 'executing', storage => '$storage');";
}

# The statements, the last of which fails so; what they take, in seconds.
sub fails
{
	my ($sql, $state, $name) = @_;
	my ($err, $start) = ('', time);

	$node->psql('postgres', "\\set VERBOSITY sqlstate\n$sql", stderr => \$err);
	like($err, qr/ERROR:  $state$/m, $name);
	return time - $start;
}

sub works
{
	my ($storage, $name) = @_;
	is($node->safe_psql('postgres', save($storage, "w$name") . " SELECT sagaz.load_saga_state('w$name', '$storage')->>'saga_id'"),
		"1\nw$name", "$name: works afterwards");
}

# Locked by somebody else
my $file = "$dir/locked.db";
$node->safe_psql('postgres', "SELECT sagaz.create_storage('f', 'sqlite://$file'); " . save('f', 's'));
my $unlock = lock_file($file);
my $took = fails("SET sagaz.command_timeout = '300ms'; " . save('f', 't'), 'SZ006', 'a locked file');
cmp_ok($took, '<', 5, 'is waited for as long as the setting says');
$took = fails("SET sagaz.command_timeout = '1h'; SET statement_timeout = '300ms'; " . save('f', 't'), '57014', 'a wait that is cancelled');
cmp_ok($took, '<', 5, 'ends at once');
$unlock->();
works('f', 'unlocked');
is($node->safe_psql('postgres', "SELECT sagaz.load_saga_state('t', 'f')"), '', 'nothing was written meanwhile');

# Not ours
my %other = (
	garbage => sub { append_to_file($_[0], 'This is no database. ' x 500) },
	'another database' => sub { sqlite($_[0], 'CREATE TABLE things (a); INSERT INTO things VALUES (1)') },
	'a table of other columns' => sub { sqlite($_[0], 'CREATE TABLE sagas (a); INSERT INTO sagas VALUES (1)') },
	'a truncated file' => sub
	{
		$node->safe_psql('postgres', "SELECT count(sagaz.save_saga_state('s' || i, repeat('x', 1000), 'pending', storage => 'sqlite://$_[0]')) FROM generate_series(1, 200) i");
		sqlite($_[0], 'PRAGMA wal_checkpoint(TRUNCATE); PRAGMA journal_mode = DELETE');
		truncate $_[0], 20000;
	});
for my $what (sort keys %other)
{
	my $path = "$dir/" . $what =~ tr/ /_/r . '.db';

	$other{$what}->($path);
	my $before = slurp_file($path);
	fails(save("sqlite://$path", 's'), 'SZ000', "$what: refused");
	fails("SELECT count(*) FROM sagaz.export_all('saga', 'sqlite://$path')", 'SZ000', "$what: refused to readers");
	ok(slurp_file($path) eq $before, "$what: untouched");
}
fails(save("sqlite://$dir", 's'), 'SZ001', 'a directory');
fails(save("sqlite://$dir/none/x.db", 's'), 'SZ001', 'a directory that is not there');
works('f', 'others');

# Read only
my $readonly = "$dir/readonly.db";
$node->safe_psql('postgres', save("sqlite://$readonly", 's'));
sqlite($readonly, 'PRAGMA wal_checkpoint(TRUNCATE); PRAGMA journal_mode = DELETE');
chmod 0444, $readonly;
is($node->safe_psql('postgres', "SELECT sagaz.count_records('saga', 'sqlite://$readonly')"), '1', 'a read-only file is read');
fails(save("sqlite://$readonly", 't'), 'SZ000', 'and not written');

# Full, as the limit on a file's size says
{
	my ($in, $out, $err) = ('', '', '');
	my $session = IPC::Run::start(
		['psql', '-XAtq', '-v', 'VERBOSITY=sqlstate', $node->connstr('postgres')],
		'<', \$in, '>', \$out, '2>', \$err);
	$in .= "SELECT sagaz.create_storage('full', 'sqlite://$dir/full.db'); " . save('full', 'first')
	  . " SELECT 'pid', pg_backend_pid();\n";
	$session->pump until $out =~ /pid\|(\d+)/;
	my $pid = $1;
	system_or_bail('prlimit', "--pid=$pid", '--fsize=200000');
	$in .= "SELECT sagaz.save_saga_state('big', repeat('x', 400), 'pending', context => to_jsonb(repeat('y', 1000000)), storage => 'full');\n\\echo done\n";
	$session->pump until $out =~ /done/;
	like($err, qr/ERROR:  SZ007/, 'a file that may not grow');
	$in .= "SELECT 'there', count(*) FROM sagaz.export_all('saga', 'full');\n" . save('full', 'small') . "\\echo end\n";
	$session->pump until $out =~ /end/;
	like($out, qr/there\|1/, 'what was there is there');
	$in .= "\\q\n";
	$session->finish;
}
is(sqlite("$dir/full.db", 'PRAGMA integrity_check'), 'ok', 'the file is whole');
works('full', 'full');

# Two claim at once
$node->safe_psql('postgres', "SELECT sagaz.create_storage('q', 'sqlite://$dir/queue.db'); "
	  . q{SELECT cardinality(sagaz.insert_events((SELECT jsonb_agg(jsonb_build_object('saga_id', 's' || i,}
	  . q{ 'event_type', 'T', 'payload', i)) FROM generate_series(1, 400) i), 'q'))});
$node->safe_psql('postgres', 'CREATE TABLE handled (event_id uuid, worker text)');
my @claimers = map {
	my $worker = "w$_";
	my ($out, $err);
	IPC::Run::start(
		['psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', $node->connstr('postgres'), '-c', <<"SQL"],
DO \$\$
DECLARE b bigint; n int;
BEGIN
	LOOP
		WITH c AS (SELECT * FROM sagaz.claim_batch('$worker', 7, storage => 'q')),
			i AS (INSERT INTO handled SELECT event_id, '$worker' FROM c)
			SELECT max(batch_id), count(*) INTO b, n FROM c;
		EXIT WHEN n = 0;
		PERFORM sagaz.finish_batch(b, '$worker', 'q');
		COMMIT;
	END LOOP;
END \$\$
SQL
		'<', \undef, '>', \$out, '2>', \$err);
} 1 .. 3;
$_->finish for @claimers;
is($node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT event_id) FROM handled'), '400|400', 'claimers share the events');
is($node->safe_psql('postgres', q{SELECT sent, pending, claimed FROM sagaz.get_outbox_statistics(storage => 'q')}), '400|0|0', 'and finish them all');

# An id in capitals is another than the one in small letters
my ($small, $large) = ('abcdef01-2345-4789-8bcd-ef0123456789', 'ABCDEF01-2345-4789-8BCD-EF0123456789');
$node->safe_psql('postgres', "SELECT sagaz.create_storage('ids', 'sqlite://$dir/ids.db'), sagaz.insert_event('s', 'E', '{}', event_id => '$small', storage => 'ids')");
sqlite("$dir/ids.db", "INSERT INTO outbox_events (event_id, saga_id, event_type, payload, created_at) VALUES ('$large', 's', 'E', '{}', '2024-01-01T00:00:00+00:00')");
is($node->safe_psql('postgres', "SELECT string_agg(event_id::text, ' ') FROM sagaz.claim_batch('w', storage => 'ids')"), $small, 'an id in capitals is passed over');
is($node->safe_psql('postgres', "SELECT sagaz.mark_sent(ARRAY['$large']::uuid[], 'w', storage => 'ids')"), '1', 'what was handed out is marked');
is(sqlite("$dir/ids.db", 'SELECT status FROM outbox_events ORDER BY event_id'), "pending\nsent", 'and the other waits');

# Killed while it writes
for my $round (1 .. 3)
{
	my $busy = IPC::Run::start(
		['psql', '-XAtq', $node->connstr('postgres'), '-c',
			"SET application_name = 'victim'; SELECT count(sagaz.save_saga_state('k' || i, 'S', 'pending', storage => 'f')) FROM generate_series(1, 1000000) i"],
		'<', \undef, '>', '/dev/null', '2>', '/dev/null');
	$node->poll_query_until('postgres', "SELECT sagaz.count_records('saga', 'f') > 100 * $round");
	my $pid = $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE application_name = 'victim'");
	kill 'KILL', $pid;
	$busy->finish;
	wait_until_up($node);
}
is(sqlite($file, 'PRAGMA integrity_check'), 'ok', 'killed while it writes: the file is whole');
works('f', 'killed');

# Nothing stays open, nor in memory
my $session = SagazSession->new($node, 'postgres');

sub open_databases
{
	return scalar grep { (readlink $_ // '') =~ /\.db/ } glob "/proc/$session->{pid}/fd/*";
}

sub attempt
{
	my ($call, $times) = @_;
	$session->query("SELECT count(attempt(\$\$SELECT sagaz.$call\$\$)) FROM generate_series(1, $times)");
}

sub attempt_all
{
	my ($times) = @_;

	attempt("load_saga_state('s', 'sqlite://$dir/garbage.db')", $times);
	attempt("load_saga_state('s', 'sqlite://$dir/none/x.db')", $times);
	attempt("mark_sent('{00000000-0000-0000-0000-000000000000}', 'w', storage => 'q')", $times);
	attempt("save_saga_state('s', 'S', 'pending', storage => 'sqlite://$readonly')", $times);
	return $session->query(q{SELECT sum(total_bytes) FROM pg_backend_memory_contexts
		WHERE name LIKE 'sagaz%' OR name = 'TopMemoryContext'});
}
$session->query('CREATE FUNCTION attempt(command text) RETURNS void LANGUAGE plpgsql AS'
	  . ' $$ BEGIN EXECUTE command; EXCEPTION WHEN OTHERS THEN NULL; END $$');
my $bytes = attempt_all(200);
my $files = open_databases();
cmp_ok($files, '>', 0, 'files are open');
my $more = attempt_all(2500) - $bytes;
cmp_ok($more, '<', 100_000, '10,000 failures leave no memory');
is(open_databases(), $files, 'and no descriptor');

# Idle stores are closed, and the path that ALTER SERVER sets counts.
append_to_file("$dir/new.db", '');
$session->query('SET sagaz.idle_timeout = 0');
$session->query('SELECT pg_sleep(0.01)');
$session->query("SELECT sagaz.count_records('saga', 'memory://x')");
is(open_databases(), 0, 'idle files are closed');
is($node->safe_psql('postgres', "SELECT sagaz.count_records('saga', 'full') > 0; ALTER SERVER \"full\" OPTIONS (SET path '$dir/new.db'); SELECT sagaz.count_records('saga', 'full')"),
	"t\n0", 'ALTER SERVER acts on the next call');

# Who may use which file
mkdir "$dir/free";
mkdir "$dir/other";
symlink "$dir/other", "$dir/free/link";
symlink "$dir/other/l.db", "$dir/free/l.db";
$node->safe_psql('postgres', <<"SQL");
ALTER SYSTEM SET sagaz.sqlite_directory = '$dir/free';
SELECT pg_reload_conf();
CREATE ROLE app LOGIN;
SELECT sagaz.grant_access('app', 'operator');
SELECT sagaz.grant_access('app', 'producer');
SQL
my $as = 'SET SESSION AUTHORIZATION app; ';
fails($as . save("sqlite://$dir/free/a.db", 's'), '42501', 'no URL without USAGE on the wrapper');
fails($as . "SELECT sagaz.create_storage('mine', 'sqlite://$dir/free/a.db')", '42501', 'nor a storage');
fails($as . save('f', 's'), '42501', 'no storage of others without USAGE on the server');
$node->safe_psql('postgres', 'GRANT USAGE ON FOREIGN DATA WRAPPER sagaz_sqlite TO app; GRANT USAGE ON FOREIGN SERVER f TO app');
is($node->safe_psql('postgres', $as . save('f', 'granted')), '1', 'with it, as its owner may');
is($node->safe_psql('postgres', $as . save("sqlite://$dir/free/a.db", 's')), '1', 'a file in the free directory');
for my $path ("$dir/other/a.db", "$dir/free/../other/a.db", "$dir/free/link/a.db", "$dir/free/l.db")
{
	fails($as . save("sqlite://$path", 's'), '42501', 'not outside of it: ' . substr($path, length $dir));
}
ok(!-e "$dir/other/a.db" && !-e "$dir/other/l.db", 'nothing was made there');
$node->safe_psql('postgres', 'GRANT pg_read_server_files TO app');
fails($as . save("sqlite://$dir/other/a.db", 's'), 'SZ00[01]', 'who may read may not write');
$node->safe_psql('postgres', 'GRANT pg_write_server_files TO app');
is($node->safe_psql('postgres', $as . save("sqlite://$dir/other/a.db", 's')), '1', 'who may write may');

done_testing();
