# A SQLite file that is not there is not an empty one, and one that was replaced,
# renamed or removed is not written to any more, by sessions and by deliveries;
# what a URL says of a file; and a schema that others change.
use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Utils;
use SagazDelivery;
use SagazSession;
use SagazTest;
use Test::More;

my $node = new_node('places', conf => <<'CONF');
sagaz.retry_backoff = 100ms
CONF
my $dir = $node->basedir;
my $session = SagazSession->new($node, 'postgres');

# A file, asked by another program.
sub sqlite
{
	my ($file, $query) = @_;
	my ($out, $err);

	IPC::Run::run(['sqlite3', '-cmd', '.timeout 10000', "$dir/$file", $query], '<', \undef, '>', \$out, '2>', \$err)
	  or die "sqlite3: $err";
	chomp $out;
	return $out =~ s/\n/ /gr;
}

sub lock_file
{
	my ($file) = @_;
	my ($in, $out, $err) = ('', '', '');
	my $locker = IPC::Run::start(['sqlite3', "$dir/$file"], '<', \$in, '>', \$out, '2>', \$err);

	$in .= "BEGIN EXCLUSIVE;\nSELECT 'locked';\n";
	$locker->pump until $out =~ /locked/;
	return sub { $in .= "COMMIT;\n.quit\n"; $locker->finish; };
}

# What a statement gives, or its SQLSTATE.
sub outcome
{
	my ($statement) = @_;
	return $session->value_or_state($statement);
}

sub save
{
	my ($storage, $saga) = @_;
	return "SELECT sagaz.save_saga_state('$saga', 'S', 'executing', storage => '$storage') IS NOT NULL";
}

sub sagas
{
	my ($storage) = @_;
	return "SELECT string_agg(saga_id, ' ' ORDER BY saga_id) FROM sagaz.list_sagas(storage => '$storage')";
}

# A copy of a file takes the place of another, which may be open.
sub replace
{
	my ($copied, $file, $journal) = @_;

	sqlite($copied, "VACUUM INTO '$dir/new.db'");
	sqlite('new.db', "PRAGMA journal_mode = $journal");
	rename "$dir/new.db", "$dir/$file" or die $!;
	unlink map { "$dir/$file$_" } '-wal', '-shm';
}

sub remove
{
	my ($file) = @_;
	unlink map { "$dir/$file$_" } '', '-wal', '-shm';
}

# ----------------------------------------------------------------------
# Not there

my $id = '00000000-0000-4000-8000-000000000001';
$session->query("SELECT sagaz.create_storage('none', 'sqlite://$dir/none.db'); CREATE SCHEMA none; IMPORT FOREIGN SCHEMA sagaz FROM SERVER none INTO none");
my @reads = (
	"SELECT sagaz.load_saga_state('s', 'none')",
	"SELECT sagaz.delete_saga_state('s', 'none')",
	"SELECT sagaz.update_step_state('s', 'a', 'completed', storage => 'none')",
	"SELECT count(*) FROM sagaz.list_sagas(storage => 'none')",
	"SELECT count(*) FROM sagaz.get_saga_statistics('none')",
	"SELECT sagaz.cleanup_completed_sagas('1 day', storage => 'none')",
	"SELECT count(*) FROM sagaz.stuck_sagas('1 day', 'none')",
	"SELECT count(*) FROM sagaz.claim_batch('w', storage => 'none')",
	"SELECT sagaz.finish_batch(1, 'w', 'none')",
	"SELECT sagaz.mark_sent('{$id}', 'w', storage => 'none')",
	"SELECT count(*) FROM sagaz.get_event('$id', storage => 'none')",
	"SELECT count(*) FROM sagaz.get_events_by_saga('s', storage => 'none')",
	"SELECT sagaz.get_pending_count(storage => 'none')",
	"SELECT count(*) FROM sagaz.get_dead_letter_events(storage => 'none')",
	"SELECT count(*) FROM sagaz.get_outbox_statistics(storage => 'none')",
	"SELECT count(*) FROM sagaz.export_all('saga', 'none')",
	"SELECT sagaz.count_records('outbox', 'none')",
	"SELECT sagaz.checksum('saga', 'none')",
	'SELECT count(*) FROM none.sagas',
	"UPDATE none.sagas SET status = 'failed'",
	'DELETE FROM none.outbox_events',
	"CALL sagaz.transfer('none', 'native')",
	"CALL sagaz.migrate('none', 'native')");
is(outcome($_), 'SZ001', "not there: $_") for @reads;
like(error_of($node, $reads[0]), qr/file "\Q$dir\E\/none.db" of storage "none" does not exist/, 'not there: the file is named');
like(outcome("SELECT status, message FROM sagaz.health_check('none')"), qr/^unhealthy\|file "\Q$dir\E\/none.db"/, 'not there: not healthy');
is(outcome("SELECT compatible, issues->0->>'code' FROM sagaz.validate_transfer('none', 'native')"), 'f|unreachable', 'not there: not fit to be moved');
is(outcome("SELECT compatible, issues->0->>'code', issues->1 FROM sagaz.validate_transfer('native', 'none')"), 't|empty|', 'not there: but to be moved to');
like(outcome("SELECT compatible, issues->0->>'message' FROM sagaz.validate_transfer('native', 'sqlite://$dir/no/x.db')"), qr/^f\|target: .*unable to open/, 'unless it could not be made');
ok(!-e "$dir/none.db", 'not there: nor has any of that made it');
like(outcome("CALL sagaz.transfer('native', 'none')"), qr/^\d+$/, 'a target is made');
is(outcome(sagas('none')), '', 'and is empty as the source was');
remove('none.db');
is(outcome("SELECT sagaz.insert_event('s', 'E', '1', storage => 'none') IS NOT NULL"), 't', 'the first write makes it');
is(sqlite('none.db', 'SELECT count(*) FROM outbox_events'), '1', 'with what is written');
remove('none.db');
is(outcome('INSERT INTO none.sagas (saga_id, saga_name) VALUES (\'f\', \'F\')'), '', 'also through a foreign table');
is(outcome(sagas('none')), 'f', 'which is there');

# ----------------------------------------------------------------------
# Another one, under an open connection

$node->safe_psql('postgres', save("sqlite://$dir/first.db", 'old') . "; SELECT sagaz.insert_event('old', 'E', '1', storage => 'sqlite://$dir/first.db')");
$session->query("SELECT sagaz.create_storage('f', 'sqlite://$dir/f.db')");
for my $journal (qw(wal delete))
{
	replace('first.db', 'f.db', $journal);
	is(outcome(sagas('f')), 'old', "$journal: as it was");

	# replaced
	sqlite('first.db', "UPDATE sagas SET saga_id = 'other'");
	replace('first.db', 'f.db', $journal);
	sqlite('first.db', "UPDATE sagas SET saga_id = 'old'");
	is(outcome(save('f', 'after')), 't', "$journal: replaced, it is written");
	is(sqlite('f.db', 'SELECT saga_id FROM sagas ORDER BY 1'), 'after other', "$journal: where it is found");
	is(outcome(sagas('f')), 'after other', "$journal: and read there");

	# renamed: what was confirmed is in the file that was renamed
	rename "$dir/f.db", "$dir/renamed.db" or die $!;
	is(outcome(sagas('f')), 'SZ001', "$journal: renamed, it is not read");
	unlink map { "$dir/f.db$_" } '-wal', '-shm';
	is(sqlite('renamed.db', 'SELECT saga_id FROM sagas ORDER BY 1'), 'after other', "$journal: renamed, nothing is lost");
	rename "$dir/renamed.db", "$dir/f.db" or die $!;
	is(outcome(sagas('f')), 'after other', "$journal: renamed back, it is read");

	# removed
	remove('f.db');
	is(outcome("SELECT sagaz.load_saga_state('after', 'f')"), 'SZ001', "$journal: removed, it is not read");
	is(outcome(save('f', 'fresh')), 't', "$journal: removed, it is made again");
	is(sqlite('f.db', 'SELECT saga_id FROM sagas'), 'fresh', "$journal: with what was written");

	# replaced while a writer waits for its turn
	replace('first.db', 'f.db', $journal);
	is(outcome(sagas('f')), 'old', "$journal: another again");
	my $unlock = lock_file('f.db');
	$session->ask(save('f', 'waits') . ';');
	$node->poll_query_until('postgres', "SELECT wait_event = 'Extension' FROM pg_stat_activity WHERE pid = $session->{pid}");
	append_to_file("$dir/new.db", '');
	rename "$dir/new.db", "$dir/f.db" or die $!;
	$unlock->();
	# with a journal who waits has not begun as yet, and begins with the new one
	my $begun = $journal eq 'wal';
	like($session->answer, $begun ? qr/^ERROR SZ001/ : qr/^t/, "$journal: replaced meanwhile, only what is there is confirmed");
	unlink map { "$dir/f.db$_" } '-wal', '-shm' if $begun;
	is(outcome(save('f', 'again')), 't', "$journal: and the next call works");
	is(outcome(sagas('f')), $begun ? 'again' : 'again waits', "$journal: on what is there");
}

# A link that leads elsewhere
$session->query(save("sqlite://$dir/$_.db", $_)) for qw(one two);
symlink "$dir/one.db", "$dir/link.db";
is(outcome(sagas("sqlite://$dir/link.db")), 'one', 'a link is followed');
unlink "$dir/link.db";
symlink "$dir/two.db", "$dir/link.db";
is(outcome(sagas("sqlite://$dir/link.db")), 'two', 'and followed anew');
link "$dir/one.db", "$dir/hard.db" or die $!;
is(outcome("CALL sagaz.transfer('sqlite://$dir/one.db', 'sqlite://$dir/hard.db')"), 'SZ009', 'a hard link is the same file');

# Rights that come back
replace('first.db', 'rights.db', 'delete');
chmod 0444, "$dir/rights.db" or die $!;
is(outcome(save("sqlite://$dir/rights.db", 'x')), 'SZ000', 'a file that may not be written');
chmod 0644, "$dir/rights.db" or die $!;
is(outcome(save("sqlite://$dir/rights.db", 'x')), 't', 'may be written when it may');

# ----------------------------------------------------------------------
# Deliveries

sub delivered
{
	my ($event, $file, $what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$node->safe_psql('postgres', "SELECT sagaz.insert_event('$event', 'E', '1')");
	query_is($node, 'postgres', "SELECT count(*) FROM sagaz.stat_delivery WHERE last_error IS NOT NULL OR lag_events > 0 OR state <> 'idle'", '0', "$what: is delivered");
	is(sqlite($file, "SELECT count(*) FROM outbox_events WHERE saga_id = '$event'"), '1', "$what: into the file that is there");
}

$node->safe_psql('postgres', "SELECT sagaz.create_storage('target', 'sqlite://$dir/target.db'); SELECT sagaz.create_consumer_group('g'); SELECT sagaz.create_delivery('d', 'target', 'g')");
for my $journal (qw(wal delete))
{
	replace('first.db', 'target.db', $journal);
	delivered("first $journal", 'target.db', "$journal: first");
	delivered("second $journal", 'target.db', "$journal: second");
	replace('target.db', 'target.db', $journal);
	delivered("replaced $journal", 'target.db', "$journal: replaced");
	is(sqlite('target.db', 'SELECT count(*) FROM outbox_events'), '4', "$journal: beside those before");
	remove('target.db');
	delivered("removed $journal", 'target.db', "$journal: removed");
	rename "$dir/target.db", "$dir/rotated.db" or die $!;
	delivered("rotated $journal", 'target.db', "$journal: rotated");
	is(sqlite('rotated.db', 'SELECT saga_id FROM outbox_events'), "removed $journal", "$journal: the one before has its own");
	unlink "$dir/rotated.db";
}

# ----------------------------------------------------------------------
# URLs

is(outcome(save("sqlite://$dir/with%20blank%3F%25.db", 's')), 't', 'a URL is decoded');
ok(-e "$dir/with blank?%.db", 'into the name');
my %bad = ('x.db%2' => 'two hexadecimal digits', 'x.db%00' => 'two hexadecimal digits', 'x.db?timeout=5' => 'no parameter "timeout=5"',
	'x.db?mode=memory' => 'mode "memory"', 'x.db?mode' => 'no parameter "mode"', 'x.db?' => 'no parameter ""');
for my $end (sort keys %bad)
{
	is(outcome(save("sqlite://$dir/$end", 's')), 'SZ009', "refused: $end");
	like(error_of($node, save("sqlite://$dir/$end", 's')), qr/$bad{$end}/, "$end: and why");
}
is(join(' ', glob "$dir/x.db*"), '', 'no file bears such a name');
is(outcome(sagas("sqlite://$dir/two.db?mode=ro")), 'two', 'mode=ro reads');
is(outcome(save("sqlite://$dir/two.db?mode=ro", 's')), 'SZ000', 'and does not write');
is(outcome(save("sqlite://$dir/absent.db?mode=rw", 's')), 'SZ001', 'mode=rw makes no file');
is(outcome(save("sqlite://$dir/two.db?mode=rw", 's')), 't', 'and writes to one that is there');
is(outcome("SELECT sagaz.create_storage('shared', 'sqlite://$dir/shared.db', options => '{\"file_mode\": \"0664\"}'), " . save('shared', 's') =~ s/^SELECT //r), '|t', 'a file that others share');
is(sprintf('%o', (stat "$dir/shared.db")[2] & 0777), '664', 'has the mode that was asked for');
is(sprintf('%o', (stat "$dir/two.db")[2] & 0777), '600', 'others are the server\'s own');
is(outcome("ALTER SERVER shared OPTIONS (SET file_mode '$_')"), 'SZ009', "file_mode $_ is refused") for qw(0444 1777 x 0066);

# ----------------------------------------------------------------------
# A schema that others change

$session->query("SELECT sagaz.create_storage('s', 'sqlite://$dir/s.db'); " . save('s', 'a') . '; ' . sagas('s'));
sqlite('s.db', 'ALTER TABLE sagas RENAME COLUMN context TO ctx');
is(outcome(sagas('s')), 'SZ000', 'a table of other columns is refused');
sqlite('s.db', 'ALTER TABLE sagas RENAME COLUMN ctx TO context; DROP TABLE sagaz_saga');
is(outcome(sagas('s')), 'a', 'as before, without a side table');
is(outcome(save('s', 'b')), 't', 'which the next write makes');
is(outcome(sagas('s')), 'a b', 'it is read');

$session->close;
done_testing();
