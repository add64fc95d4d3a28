# Each storage, each operation, each fault: what comes of it is the right answer,
# or an error after which nothing has changed.
#
# Cases are drawn by a seed, which is shown, for SAGAZ_FAULT_SECONDS (20); 0 tries
# them all, each at every step.  SAGAZ_SEED repeats a run, SAGAZ_FAULT_ONLY is a
# pattern of the names of cases: storage, operation, fault.
use strict;
use warnings;

use IO::Socket::UNIX;
use IPC::Run;
use List::Util qw(shuffle);
use PostgreSQL::Test::Utils;
use SagazFault;
use SagazRedis;
use SagazSession;
use SagazTest;
use Test::More;
use Time::HiRes qw(time);

my $seed = $ENV{SAGAZ_SEED} // int rand 1e9;
my $seconds = $ENV{SAGAZ_FAULT_SECONDS} // 20;
diag "SAGAZ_SEED=$seed";
srand $seed;

my $node = new_node('near', conf => "fsync = off\nsagaz.command_timeout = 3s\nsagaz.connect_timeout = 3s");
my %has = map { $_ => 1 } split /\n/, $node->safe_psql('postgres', 'SELECT name FROM sagaz.backends()');
my $dir = $node->basedir . '/files';
mkdir $dir or die $!;

# ----------------------------------------------------------------------
# Storages: "d" leads to one as it is, "x" by way of the fault

my ($far, $other, $redis, $another);
if ($has{postgresql})
{
	$far = new_node('far', conf => 'fsync = off');
	$far->safe_psql('postgres', 'CREATE DATABASE library; CREATE ROLE nobody LOGIN');
	$far->safe_psql('postgres', "CREATE ROLE postgres SUPERUSER LOGIN") if $far->safe_psql('postgres', "SELECT count(*) FROM pg_roles WHERE rolname = 'postgres'") eq '0';
	$far->safe_psql('postgres', "CREATE DATABASE $_") for qw(other otherlibrary);
	$far->safe_psql('other', 'CREATE EXTENSION sagaz');
}
my $open;
if ($has{redis})
{
	$_ = SagazRedis->new for $redis, $another;
	$_->start for $redis, $another;
	$open = IO::Socket::UNIX->new(Peer => $redis->{socket}) or die $!;
}
# A command that answers with one text or word, without a program of its own.
sub of_redis
{
	print $open '*' . @_ . "\r\n" . join '', map { '$' . length($_) . "\r\n$_\r\n" } @_;
	$open->flush;
	my $answer = <$open> // die 'Redis has gone';
	$answer =~ /^-/ and die $answer;
	$answer =~ /^\$(\d+)/ or return $answer;
	read $open, my $text, $1 + 2;
	return substr $text, 0, -2;
}
sub far_socket { return $far->host . '/.s.PGSQL.' . $far->port }
sub far_url { return sprintf 'postgresql://postgres@%s:%d/%s', $far->host =~ s{/}{%2F}gr, $far->port, $_[0] }

my %stores = (
	sqlite => { url => "sqlite://$dir/f.db", faulty => "sqlite://$dir/f.db",
		empty => sub { unlink glob "$dir/f.db*" } });
$stores{redis} = { url => $redis->url, peer => SagazFault->new('redis', $redis->{socket}, $another->{socket}),
	empty => sub { of_redis('FLUSHALL') } } if $redis;
if ($far)
{
	my $library = SagazSession->new($far, 'library', 86_400);
	my $extension = SagazSession->new($far, 'postgres', 86_400);
	my $peer = SagazFault->new('postgresql', far_socket(), $node->host . '/.s.PGSQL.' . $node->port);
	$stores{extension} = { url => far_url('postgres'), peer => $peer, database => 'postgres',
		empty => sub { $far->safe_psql('postgres', 'DROP EXTENSION sagaz CASCADE; CREATE EXTENSION sagaz') } };
	$stores{library} = { url => far_url('library'), peer => $peer, database => 'library',
		empty => sub { $library->query('SET client_min_messages = error; DROP SCHEMA public CASCADE; CREATE SCHEMA public') } };
	$stores{extension}{more} = sub { $extension->query('SELECT count(*) FROM sagaz.outbox_archive') };
	$stores{extension}{clear} = sub { $extension->query('TRUNCATE sagaz.sagas, sagaz.saga_steps, sagaz.outbox, sagaz.outbox_batch, sagaz.outbox_receipt, sagaz.outbox_retry, sagaz.outbox_archive') };
}
for my $s (sort keys %stores)
{
	my $store = $stores{$s};

	$store->{faulty} //= $store->{peer}->url($store->{database});
	$node->safe_psql('postgres', <<"SQL");
SELECT sagaz.create_storage('d_$s', '$store->{url}'), sagaz.create_storage('x_$s', '$store->{faulty}');
CREATE SCHEMA d_$s; CREATE SCHEMA x_$s;
IMPORT FOREIGN SCHEMA sagaz FROM SERVER d_$s INTO d_$s;
IMPORT FOREIGN SCHEMA sagaz FROM SERVER x_$s INTO x_$s;
SQL
}

$redis->cli('ACL', 'SETUSER', 'reader', 'on', '>pw', '~*', '+@all', '-@write', '-@scripting') if $redis;
my %poor = (redis => $redis && "unix://reader:pw\@$redis->{socket}", extension => $far && far_url('postgres') =~ s/postgres@/nobody@/r,
	library => $far && far_url('library') =~ s/postgres@/nobody@/r);
for my $s (grep { $poor{$_} } sort keys %poor)
{
	$node->safe_psql('postgres', "SELECT sagaz.create_storage('n_$s', '$poor{$s}'); CREATE SCHEMA n_$s; IMPORT FOREIGN SCHEMA sagaz FROM SERVER n_$s INTO n_$s");
}

# all cases take hours
my $session = SagazSession->new($node, 'postgres', 86_400);    # by way of the fault
my $direct = SagazSession->new($node, 'postgres', 86_400);

# ----------------------------------------------------------------------
# Operations, of storage x, on what prepare() has put there; $b is a batch of w
# with the events 1 and 2

my $id = '00000000-0000-4000-8000-00000000000';
my %operations = (
	load => "SELECT sagaz.load_saga_state('s1', 'x')->>'status'",
	'load none' => "SELECT sagaz.load_saga_state('none', 'x')",
	'save new' => "SELECT sagaz.save_saga_state('new', 'N', 'executing', '[{\"name\": \"a\"}]', '{}', storage => 'x')",
	'save' => "SELECT sagaz.save_saga_state('s1', 'N', 'completed', expected_version => 1, storage => 'x')",
	'delete' => "SELECT sagaz.delete_saga_state('s2', 'x')",
	'step' => "SELECT sagaz.update_step_state('s3', 'a', 'completed', storage => 'x')",
	list => "SELECT saga_id, status FROM sagaz.list_sagas(storage => 'x') ORDER BY 1",
	'list some' => "SELECT saga_id FROM sagaz.list_sagas('executing', 'N', storage => 'x') ORDER BY 1",
	'saga statistics' => "SELECT saga_name, status, count FROM sagaz.get_saga_statistics('x') ORDER BY 1, 2",
	'stuck sagas' => "SELECT saga_id FROM sagaz.stuck_sagas('0', 'x') ORDER BY 1",
	'clean up' => "SELECT sagaz.cleanup_completed_sagas('0', storage => 'x')",
	insert => "SELECT sagaz.insert_event('s1', 'E', '1', event_id => '${id}8', storage => 'x')",
	'insert many' => "SELECT sagaz.insert_events('[{\"saga_id\": \"s1\", \"event_type\": \"E\", \"payload\": 1, \"event_id\": \"${id}8\"}, {\"saga_id\": \"s2\", \"event_type\": \"E\", \"payload\": 2, \"event_id\": \"${id}9\"}]', 'x')",
	'insert again' => "SELECT sagaz.insert_event('s1', 'E', '1', event_id => '${id}1', storage => 'x')",
	claim => "SELECT event_id FROM sagaz.claim_batch('v', 3, storage => 'x') ORDER BY 1",
	finish => "SELECT sagaz.finish_batch(:b, 'w', 'x')",
	'finish of another' => "SELECT sagaz.finish_batch(:b, 'v', 'x')",
	release => "SELECT sagaz.release_batch(:b, 'w', 'no', storage => 'x')",
	extend => "SELECT sagaz.extend_batch(:b, 'w', '1 min', 'x') IS NOT NULL",
	'mark sent' => "SELECT sagaz.mark_sent('{${id}1,${id}2}', 'w', storage => 'x')",
	'mark failed' => "SELECT sagaz.mark_failed('{${id}1,${id}2}', 'w', 'no', storage => 'x')",
	status => "SELECT status FROM sagaz.update_event_status('${id}3', 'dead_letter', 'no', storage => 'x')",
	event => "SELECT status FROM sagaz.get_event('${id}1', storage => 'x')",
	'event none' => "SELECT count(*) FROM sagaz.get_event('${id}f', storage => 'x')",
	'events of a saga' => "SELECT event_id FROM sagaz.get_events_by_saga('s1', storage => 'x') ORDER BY 1",
	'stuck events' => "SELECT event_id FROM sagaz.get_stuck_events('0', storage => 'x') ORDER BY 1",
	'release stuck' => "SELECT sagaz.release_stuck_events('0', storage => 'x')",
	pending => "SELECT sagaz.get_pending_count(storage => 'x')",
	'dead letters' => "SELECT event_id, last_error FROM sagaz.get_dead_letter_events(storage => 'x')",
	requeue => "SELECT sagaz.requeue_dead_letters(storage => 'x')",
	archive => "SELECT sagaz.archive_sent_events('0', storage => 'x')",
	'outbox statistics' => "SELECT total, pending, claimed, sent, dead_letter FROM sagaz.get_outbox_statistics(storage => 'x')",
	count => "SELECT sagaz.count_records('saga', 'x'), sagaz.count_records('outbox', 'x')",
	'export' => "SELECT r->>'saga_id', r->>'status' FROM sagaz.export_all('saga', 'x') r ORDER BY 1",
	'export events' => "SELECT r->>'event_id', r->>'status' FROM sagaz.export_all('outbox', 'x') r ORDER BY 1",
	import => "SELECT sagaz.import_record('{\"saga_id\": \"s1\", \"saga_name\": \"other\", \"status\": \"pending\", \"created_at\": \"2024-01-01T00:00:00Z\", \"updated_at\": \"2024-01-01T00:00:00Z\"}', 'saga', storage => 'x')",
	'import many' => "SELECT sagaz.import_records('[{\"saga_id\": \"i1\", \"saga_name\": \"N\", \"status\": \"pending\"}, {\"saga_id\": \"s2\", \"saga_name\": \"other\", \"status\": \"failed\"}]', 'saga', 'replace', 'x')",
	'import events' => "SELECT sagaz.import_records('[{\"event_id\": \"${id}a\", \"saga_id\": \"s1\", \"event_type\": \"E\", \"payload\": 1}, {\"event_id\": \"${id}b\", \"saga_id\": \"s1\", \"event_type\": \"E\", \"payload\": 1}]', 'outbox', 'skip', 'x')",
	checksum => "SELECT sagaz.checksum('saga', 'x')",
	'foreign table' => "SELECT saga_id, status FROM x.sagas ORDER BY 1",
	'foreign key' => "SELECT status FROM x.sagas WHERE saga_id IN ('s1', 'none')",
	'foreign events' => "SELECT event_id, status FROM x.outbox_events ORDER BY 1",
	'foreign insert' => "INSERT INTO x.sagas (saga_id, saga_name) VALUES ('f1', 'N'), ('f2', 'N')",
	'foreign update' => "UPDATE x.sagas SET status = 'failed' WHERE status = 'executing'",
	'foreign delete' => "DELETE FROM x.outbox_events WHERE event_id IN ('${id}3', '${id}4')",
	health => "SELECT count(*) FROM sagaz.health_check('x')");
# the time of a change is in this one
my %unequal = (checksum => 1);

sub of_store
{
	my ($s, $sql, $by) = @_;
	$by //= 'x';
	return $sql =~ s/'x'/'${by}_$s'/gr =~ s/\bx\./${by}_$s./gr;
}

# Three sagas; events 1 and 2 claimed by w, 3 and 4 pending, 5 dead, 6 sent.
my %batch;
sub prepare
{
	my ($s) = @_;
	my $d = "d_$s";

	($stores{$s}{clear} // $stores{$s}{empty})->();
	$direct->query('\\c -');
	$batch{$s} = $direct->query(<<"SQL") =~ s/.* //r;
SELECT sagaz.import_records(jsonb_agg(jsonb_build_object('saga_id', 's' || i, 'saga_name', 'N', 'status', CASE i WHEN 3 THEN 'executing' WHEN 2 THEN 'completed' ELSE 'executing' END,
	'steps', '[{"name": "a"}, {"name": "b"}]'::jsonb, 'created_at', '2024-01-01T00:00:00Z', 'updated_at', '2024-01-01T00:00:00Z')), 'saga', storage => '$d') FROM generate_series(1, 3) i;
SELECT count(sagaz.insert_event('s' || (i % 3 + 1), 'E', '1', event_id => ('$id' || i)::uuid, storage => '$d')) FROM generate_series(5, 6) i;
SELECT count(sagaz.update_event_status('${id}5', 'dead_letter', 'old', storage => '$d'));
SELECT count(sagaz.update_event_status('${id}6', 'sent', storage => '$d'));
SELECT count(sagaz.insert_event('s1', 'E', '1', event_id => ('$id' || i)::uuid, storage => '$d')) FROM generate_series(1, 2) i;
SELECT max(batch_id) AS b FROM sagaz.claim_batch('w', 2, storage => '$d') \\gset
SELECT count(sagaz.insert_event('s1', 'E', '1', event_id => ('$id' || i)::uuid, storage => '$d')) FROM generate_series(3, 4) i;
SELECT :b
SQL
	$batch{$s} =~ /^\d+$/ or die "$s: no batch: $batch{$s}";
}

# What is in the storage, but for times and numbers of batches.
sub state
{
	my ($s) = @_;
	my $d = "d_$s";
	my $state = $direct->outcome(<<"SQL");
SELECT saga_id, saga_name, status, version, steps, context FROM $d.sagas ORDER BY saga_id;
SELECT event_id, saga_id, status, retry_count, last_error, worker_id FROM $d.outbox_events ORDER BY event_id;
SQL
	$state .= "\n" . $stores{$s}{more}->() if $stores{$s}{more};
	$state .= "\n" . of_redis('EVAL', <<'LUA', 0) if $s eq 'redis';
local all = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
	local members = string.find(key, ':index:') and redis.call('SMEMBERS', key) or {}
	table.sort(members)
	table.insert(all, (string.gsub(key, 'batch:%d+', 'batch')) .. ' ' .. table.concat(members, ','))
end
table.sort(all)
return table.concat(all, '\n') .. '\n' .. redis.call('XLEN', 'sagaz:outbox:events')
LUA
	return $state;
}

# What an operation gives: rows, or the SQLSTATE.
sub outcome
{
	my ($s, $operation, %how) = @_;
	my $out = $session->outcome(($how{goes_on} ? '' : "\\c -\n") . "SET client_min_messages = error; \\set b $batch{$s}\n"
		  . ($how{before} // '') . of_store($s, $operations{$operation}, $how{by}) . ';');

	return $out =~ /ERROR (\w+)/ ? "ERROR $1" : $out =~ s/\s+/ /gr;
}

my (%dirty, %count);

# ----------------------------------------------------------------------
# What is right: with the storage as it was prepared, and with an empty one

my (%before, %right, %after, %steps);

sub learn
{
	my ($s, $operation) = @_;
	my $case = "$s $operation";

	return if exists $right{$case};
	prepare($s) if $dirty{$s} // 1;
	$before{$s} //= state($s);
	$stores{$s}{peer}->set('none') if $stores{$s}{peer};
	$right{$case} = outcome($s, $operation);
	$after{$case} = state($s);
	$dirty{$s} = $after{$case} ne $before{$s};
	$steps{$case} = $stores{$s}{peer} ? $stores{$s}{peer}->requests : 0;
}

# ----------------------------------------------------------------------
# Faults.  Each is a sub that gets storage, operation and step, lets the operation
# run and returns its outcome; whole says whether an error may come after all is done.

my @wire = map {
	my $kind = $_;
	[ $kind, 1, $kind eq 'lost', sub {
		my ($s, $operation, $n) = @_;
		$stores{$s}{peer}->set($kind, $n);
		my $outcome = outcome($s, $operation, before => $kind eq 'mute' ? "SET sagaz.command_timeout = '300ms'; SET sagaz.connect_timeout = '300ms';\n" : '');
		$stores{$s}{peer}->set('none');
		# what is mute stays until the session lets go of it
		$session->query('\\c -') if $kind eq 'mute';
		$stores{$s}{peer}->settle;
		return $outcome;
	} ]
} qw(bad cut lost mute refuse other);
$_->[1] = 0 for grep { $_->[0] =~ /refuse|other/ } @wire;

# A login that may read and nothing else, or not even that
my @no_right = ([ 'no right', 0, 0, sub { outcome(@_[ 0, 1 ], by => 'n') } ]);
my @replica = ([ 'read-only', 0, 0, sub {
	$redis->cli('REPLICAOF', '127.0.0.1', '1');
	my $outcome = outcome(@_[ 0, 1 ]);
	$redis->cli('REPLICAOF', 'NO', 'ONE');
	return $outcome;
} ]);

# Emptied under an open connection: as on a new one, or an error and the next
# call is as on a new one.
sub try_emptied
{
	my ($s, $operation) = @_;
	my $sql = of_store($s, $operations{$operation});

	prepare($s);
	$session->query("\\c -\nSET client_min_messages = error; " . of_store($s, "SELECT sagaz.count_records('saga', 'x'), sagaz.count_records('outbox', 'x')"));
	$stores{$s}{empty}->();
	$direct->query('\\c -');
	my $outcome = outcome($s, $operation, goes_on => 1);
	my $again = $outcome =~ /^ERROR/ ? outcome($s, $operation, goes_on => 1) : $outcome;
	my $state = state($s);
	$stores{$s}{empty}->();
	$direct->query('\\c -');
	my $fresh = outcome($s, $operation);
	$count{emptied}++;
	is($unequal{$operation} ? '' : "$again\n" . $state, $unequal{$operation} ? '' : "$fresh\n" . state($s), "$s $operation, emptied under an open connection");
	$dirty{$s} = 1;
}

sub file_fault
{
	my ($name, $begin, $end) = @_;
	return [ $name, 0, 0, sub {
		my ($s, $operation) = @_;
		$direct->query('\\c -');
		IPC::Run::run([ 'sqlite3', "$dir/f.db", 'PRAGMA wal_checkpoint(TRUNCATE)' ], '>', '/dev/null');
		my $kept = $begin->();
		my $outcome = outcome($s, $operation, before => "SET sagaz.command_timeout = '200ms';\n");
		$end->($kept);
		# what SQLite makes beside a file gets the file's mode, and keeps it
		chmod 0644, glob "$dir/f.db*";
		return $outcome;
	} ];
}
sub aside { rename "$dir/$_", "$dir/kept.$_" for map { s{.*/}{}r } glob "$dir/f.db*" }
sub back { unlink glob "$dir/f.db*"; rename "$dir/$_", "$dir/" . s/^kept\.//r for map { s{.*/}{}r } glob "$dir/kept.*" }
sub copied { aside(); system('cp', "$dir/kept.f.db", "$dir/f.db") == 0 or die }
my @file = (
	file_fault('read-only file', sub { chmod 0444, "$dir/f.db" }, sub { chmod 0644, "$dir/f.db" }),
	file_fault('no right', sub { chmod 0, "$dir/f.db" }, sub { chmod 0644, "$dir/f.db" }),
	file_fault('read-only directory', sub { chmod 0555, $dir }, sub { chmod 0755, $dir }),
	file_fault('locked', sub {
			my ($in, $out) = ("BEGIN EXCLUSIVE; SELECT 'locked';\n", '');
			my $locker = IPC::Run::start([ 'sqlite3', '-cmd', '.timeout 10000', "$dir/f.db" ], '<', \$in, '>', \$out, IPC::Run::timeout(60));
			$locker->pump until $out =~ /locked/;
			return sub { $in .= "COMMIT;\n.quit\n"; $locker->finish };
		}, sub { $_[0]->() }),
	file_fault('truncated', sub { copied(); truncate "$dir/f.db", 5000 }, \&back),
	file_fault('garbage', sub { aside(); append_to_file("$dir/f.db", 'no database ' x 1000) }, \&back),
	file_fault('another program\'s', sub { aside(); IPC::Run::run([ 'sqlite3', "$dir/f.db", 'CREATE TABLE x (y)' ]) }, \&back),
	(map { my $limit = $_; [ "no room for $limit", 0, 0, sub {
		my ($s, $operation) = @_;
		my $pid = $session->query("\\c -\nSELECT pg_backend_pid()");
		my $out = '';
		system('prlimit', "--pid=$pid", "--fsize=$limit") == 0 or die;
		$session->ask("SET client_min_messages = error; \\set b $batch{$s}\n" . of_store($s, $operations{$operation}) . ';');
		$out = $session->answer;
		return $out =~ /ERROR (\w+)/ ? "ERROR $1" : $out =~ s/\s+/ /gr;
	} ] } 0, 100, 5000, 12000, 30000));
my %faults = (sqlite => \@file, redis => [ @wire, @no_right, @replica ], map { $_ => [ @wire, @no_right ] } qw(extension library));

# ----------------------------------------------------------------------

sub try
{
	my ($s, $operation, $fault, $n) = @_;
	my ($name, $stepwise, $whole, $run) = @$fault;
	# PostgreSQL's last message is the Sync behind the one that commits
	$whole = 1 if $n == $steps{"$s $operation"} && $s =~ /extension|library/;
	my $case = "$s $operation";
	prepare($s) if $dirty{$s};
	my $what = "$case, $name" . ($stepwise ? " at $n of $steps{$case}" : '');

	note $what;
	my $outcome = $run->($s, $operation, $n);
	my $state = state($s);
	my $failed = $outcome =~ /^ERROR/ && $outcome ne $right{$case};
	my $changed = $state ne $before{$s};
	# what another server answers is its own affair
	my $ok = $name eq 'other' ? !$changed
	  : !$failed ? ($unequal{$operation} || $outcome eq $right{$case}) && $state eq $after{$case}
	  : !$changed || $whole && $state eq $after{$case};

	$count{ $failed ? 'errors' : 'answers' }++;
	is("$outcome\n$state", ($failed ? $outcome : $right{$case}) . "\n" . ($failed ? $before{$s} : $after{$case}), $what) unless $ok;
	unlike($outcome, qr/ERROR (XX|57014|08P)/, "$what: an error of its own") if $outcome =~ /ERROR (XX|57014|08P)/;
	$dirty{$s} = $changed;
}

my $only = $ENV{SAGAZ_FAULT_ONLY} // '';
my $until = time + $seconds;
for my $pair (shuffle map { my $s = $_; map { [ $s, $_ ] } sort keys %operations } sort keys %stores)
{
	my ($s, $operation) = @$pair;
	my @faults = grep { "$s $operation, $_->[0]" =~ /(?:$only)/ } @{ $faults{$s} };

	last if $seconds && time > $until;
	next unless @faults;
	learn($s, $operation);
	for my $fault (shuffle @faults)
	{
		my $steps = $steps{"$s $operation"};
		my @at = !$fault->[1] ? 0 : $seconds || $fault->[0] eq 'mute' ? 1 + int rand $steps : 1 .. $steps;

		last if $seconds && time > $until;
		try($s, $operation, $fault, $_) for @at;
	}
	try_emptied($s, $operation) if "$s $operation, emptied" =~ /(?:$only)/;
}
ok(($count{errors} // 0) > 5 || $only, 'there were errors');
diag join ', ', map { "$_: $count{$_}" } sort keys %count;
is($node->safe_psql('postgres', 'SELECT 1'), '1', 'the server stands');
$session->close;
$direct->close;
done_testing();
