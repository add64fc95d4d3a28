# A delivery to another storage, here a SQLite file: each event arrives once,
# whoever is killed; nothing is held while the worker talks to the target; a
# target that is locked or gone costs one release a try and loses nothing.
use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Utils;
use SagazDelivery;
use SagazTest;
use Test::More;
use Time::HiRes qw(usleep);

my $node = new_node('forward', conf => <<'CONF');
sagaz.max_crashes = 0
sagaz.poll_interval = 1h
sagaz.retry_backoff = 100ms
sagaz.command_timeout = 300ms
restart_after_crash = on
CONF
my $dir = $node->basedir;
my $file = "$dir/target.db";

# Ask the file itself.
sub sqlite
{
	my ($query) = @_;
	my ($out, $err);

	IPC::Run::run(['sqlite3', '-cmd', '.timeout 10000', $file, $query], '<', \undef, '>', \$out, '2>', \$err)
	  or die "sqlite3: $err";
	chomp $out;
	return $out;
}

# A process that keeps everybody else from the file until it is told to end.
sub lock_file
{
	my ($in, $out, $err) = ('', '', '');
	my $locker = IPC::Run::start(['sqlite3', $file], '<', \$in, '>', \$out, '2>', \$err);

	$in .= "BEGIN EXCLUSIVE;\nSELECT 'locked';\n";
	$locker->pump until $out =~ /locked/;
	return sub { $in .= "COMMIT;\n.quit\n"; $locker->finish; };
}

sub emit
{
	my ($count) = @_;
	return $node->safe_psql('postgres', <<"SQL");
SELECT count(sagaz.insert_event('saga' || n % 7, 'created', jsonb_build_object('n', n), routing_key => 'r'))
	FROM generate_series(1, $count) n
SQL
}

# All that was emitted is in the file, each event once and whole.
sub arrived
{
	my ($name) = @_;

	query_is($node, 'postgres', 'SELECT (SELECT count(*) FROM sagaz.outbox) = '
		  . q{sagaz.count_records('outbox', 'file') AND sagaz.get_pending_count() = 0}, 't', "$name: all is there");
	is($node->safe_psql('postgres', <<'SQL'), '0', "$name: as it was emitted");
SELECT count(*) FROM sagaz.outbox o LEFT JOIN sagaz.export_all('outbox', 'file') f
	ON (f->>'event_id')::uuid = o.event_id
	WHERE f IS NULL OR f->>'status' <> 'pending' OR f->'payload' <> o.payload
		OR f->>'saga_id' <> o.saga_id OR f->>'routing_key' IS DISTINCT FROM o.routing_key
		OR (f->>'created_at')::timestamptz <> o.created_at
SQL
}

my ($out, $err) = ('', '');
sub fails
{
	my ($query, $state, $name) = @_;

	$node->psql('postgres', "\\set VERBOSITY sqlstate\n$query", stderr => \$err);
	like($err, qr/ERROR:  $state/, $name);
}

# Input
$node->safe_psql('postgres', "SELECT sagaz.create_storage('gone', 'memory://x')");
fails(q{SELECT sagaz.create_delivery('x', 'nowhere')}, 'SZ002', 'an unknown storage');
fails(qq{SELECT sagaz.create_delivery('x', 'sqlite://$file')}, 'SZ009', 'a URL');
fails(q{SELECT sagaz.create_delivery('x', 'native')}, 'SZ009', 'the native storage');
fails(q{SELECT sagaz.create_delivery('x', 'gone')}, 'SZ009', 'a storage of the session');
fails(q{SELECT sagaz.create_delivery('x', 'gone', options => '{"as": "stream"}')}, 'SZ009', 'other options');

$node->safe_psql('postgres', "SELECT sagaz.create_outbox_storage('file', 'sqlite://$file')");
emit(30);
$node->safe_psql('postgres', "SELECT sagaz.create_delivery('copy', 'file', batch_size => 10)");
arrived('what waited');
fails(q{SELECT sagaz.drop_storage('file')}, '2BP01', 'a target is not dropped');
emit(1);
arrived('one more, at commit');
is(sqlite(q{SELECT count(*) FROM outbox_events WHERE status = 'pending' AND headers = '{}'
	AND created_at LIKE '20__-__-__T__:__:__%+00:00'}), 31, 'in the words of the library');

# A locked file: the worker waits without a transaction, then gives the batch back.
my $unlock = lock_file();
emit(5);
query_is($node, 'postgres', <<'SQL', 't', 'no transaction, snapshot or lock while it waits for the file');
SELECT count(*) > 0 AND bool_and(xact_start IS NULL AND backend_xmin IS NULL AND backend_xid IS NULL
		AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid))
	FROM pg_stat_activity a
	WHERE backend_type = 'sagaz worker' AND state = 'active' AND query LIKE '%delivering 5 events%'
SQL
query_is($node, 'postgres', "SELECT last_error LIKE '%file%' FROM sagaz.stat_delivery", 't', 'the error is told');
query_is($node, 'postgres', 'SELECT count(*) >= 2 FROM sagaz.outbox_receipt WHERE kind = 2', 't', 'released, each time');
is($node->safe_psql('postgres', 'SELECT count(*) FROM sagaz.outbox_retry'), '0', 'no retry rows');
query_is($node, 'postgres', 'SELECT status FROM sagaz.health_check()', 'degraded', 'health tells');
$unlock->();
arrived('unlocked');

# Paused while a batch is on its way: it has arrived when the pause returns.
for my $round (1 .. 5)
{
	emit(20);
	$node->safe_psql('postgres', "SELECT sagaz.pause_delivery('copy')");
	my $there = sqlite('SELECT count(*) FROM outbox_events');
	emit(1);
	is(sqlite('SELECT count(*) FROM outbox_events'), $there, "paused, nothing arrives, $round");
	$node->safe_psql('postgres', "SELECT sagaz.resume_delivery('copy')");
}
arrived('resumed');

# Killed at random, the worker and the whole server.
my $seed = $ENV{SAGAZ_SEED} // time;
srand $seed;
diag("seed $seed");
for my $round (1 .. 6)
{
	emit(200);
	usleep(int rand 30_000);
	if ($round % 2)
	{
		my $pid = $node->safe_psql('postgres', "SELECT pid FROM sagaz.stat_delivery WHERE pid IS NOT NULL");
		kill 'KILL', $pid if $pid;
		wait_until_up($node);
	}
	else
	{
		$node->stop('immediate');
		$node->start;
	}
}
arrived('killed and killed again');
is(sqlite('PRAGMA integrity_check'), 'ok', 'the file is whole');

# Another path acts at once; the old file stays as it is.
$node->safe_psql('postgres', "ALTER SERVER file OPTIONS (SET path '$dir/other.db')");
emit(3);
query_is($node, 'postgres', q{SELECT sagaz.count_records('outbox', 'file')}, '3', 'the next batch goes to the other file');

done_testing();
