# A delivery whose process brings the server down is not tried again at once,
# and after three times within ten minutes it stands still, without anybody
# having to keep the server from starting it.  Who was at work beside it, and
# who ends because somebody stops the server, is not held to blame.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use SagazDelivery;
use SagazTest;
use Test::More;
use Time::HiRes qw(time usleep);

my $node = new_node('crash', conf => <<'CONF');
fsync = off
restart_after_crash = on
sagaz.poll_interval = 1h
sagaz.housekeeping_interval = 1h
CONF
my $at_work = qr/was at work when the server crashed(?=, \d+ in ten minutes)/;

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

# The file, as doc/internals.md has it: byte by byte, and of one version.
sub crash_file { return $node->data_dir . '/pg_stat_tmp/sagaz_crashes' }

sub crash_accounts
{
	my $bytes = slurp_file(crash_file()) . "\0" x (1 << 16);
	my ($magic, $version, $slots, $zero) = unpack 'L4', $bytes;
	my (%counts, %busy);

	is("$magic $version $zero", 0x53475a43 . ' 1 0', 'it begins as it should');
	for my $slot (0 .. $slots - 1)
	{
		my ($since, $last, @rest) = unpack 'q12 L l Z64', substr $bytes, 16 + $slot * 168;
		my ($database, $count, $name) = @rest[ 10 .. 12 ];
		$counts{$name} = $count if $database && $since && $last == $rest[ $count - 1 ];
		($since, $database, $name, my $busy) = unpack 'q L Z64 l', substr $bytes, 16 + $slots * 168 + $slot * 80;
		$busy{$name} = $busy if $database && $since;
	}
	return (\%counts, \%busy);
}
sub start_with
{
	my ($bytes) = @_;

	$node->stop('fast');
	open my $out, '>:raw', crash_file() or die $!;
	print $out $bytes;
	close $out;
	return $node->start;
}

# Once the server lets one in again.
sub patient_sql
{
	my ($sql) = @_;

	for (1 .. 600)
	{
		my ($status, $out, $err) = $node->psql('postgres', $sql);
		return $out if $status == 0;
		usleep(50_000);
	}
	die "the server does not answer: $sql";
}

sub wait_for
{
	my ($sql, $expected, $what) = @_;
	my $end = time + 90;
	my $got;

	while (($got = patient_sql($sql)) ne $expected && time < $end)
	{
		usleep(50_000);
	}
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is($got, $expected, $what);
}

sub state_of
{
	return "SELECT state FROM sagaz.stat_delivery WHERE name = '$_[0]'";
}

sub log_since
{
	return substr(slurp_file($node->logfile), $_[0]);
}

sub set
{
	my ($name, $value) = @_;

	sql("ALTER SYSTEM SET $name = '$value'");
	$node->reload;
	wait_for("SHOW $name", $value, "$name = $value");
}

# Kill the process of a delivery, and wait until the server is back.
sub crash
{
	my ($name, $signal) = @_;
	my $offset = -s $node->logfile;
	my $pid;

	wait_for(state_of($name), 'delivering', "$name is at work");
	$pid = patient_sql("SELECT pid FROM sagaz.stat_delivery WHERE name = '$name'");
	kill $signal, $pid;
	log_says($node, qr/ready to accept connections/, $offset, "SIG$signal, the server is back");
}

# One event each for groups of the same name: "wait" keeps a handler busy.
sql(<<'SQL');
CREATE TABLE handled (consumer_group text, event_type text, at timestamptz DEFAULT clock_timestamp());
CREATE TABLE gate ();
CREATE FUNCTION handle(events sagaz.outbox_event[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	WHILE EXISTS (SELECT FROM public.gate) LOOP
		PERFORM pg_sleep(0.05);
	END LOOP;
	INSERT INTO public.handled SELECT consumer_group, event_type FROM unnest(events);
END $$;
-- what a bug of a function in C does, or the kernel when there is no memory
CREATE FUNCTION poisoned(events sagaz.outbox_event[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('COPY (SELECT 1) TO PROGRAM %L', 'kill -9 ' || pg_backend_pid());
	PERFORM pg_sleep(60);
END $$;
SELECT sagaz.create_consumer_group(g) FROM unnest('{poisoned,busy,idle}'::text[]) g;
SELECT sagaz.create_delivery('busy', 'public.handle(sagaz.outbox_event[])', 'busy', timeout => '10 min');
INSERT INTO gate DEFAULT VALUES;
SELECT sagaz.insert_event('s', 'one', '{}');
SQL
wait_for(state_of('busy'), 'delivering', 'a delivery is at work');

my $offset = -s $node->logfile;
my $start = time;
sql(q{SELECT sagaz.create_delivery('poisoned', 'public.poisoned(sagaz.outbox_event[])', 'poisoned')});
wait_for(state_of('poisoned'), 'halted', 'three crashes, and the delivery stands still');
my $took = time - $start;
my @deaths = log_since($offset) =~ /"sagaz worker" \(PID \d+\) was terminated by signal 9/g;
is(scalar @deaths, 3, 'the server crashed three times');
cmp_ok($took, '>', 4 + 16, 'with a wait after each that grows');
my $reason = qr/it was at work when the server crashed, 3 times within ten minutes, last at 20/;
like(sql(q{SELECT last_error FROM sagaz.stat_delivery WHERE name = 'poisoned'}), $reason, 'it says so');
like(sql('SELECT message FROM sagaz.health_check()'), qr/delivery "poisoned" stands still: $reason/,
	'health_check says so');
log_says($node, qr/delivery "poisoned" of database "postgres" stands still: $reason/, $offset, 'the log says so');
unlike(log_since($offset), qr/delivery "busy" .*$at_work/, 'the one beside it has no part in that');
wait_for(state_of('busy'), 'delivering', 'and works');

$offset = -s $node->logfile;
$node->restart;
wait_for(state_of('busy'), 'delivering', 'after a restart');
is(sql(state_of('poisoned')), 'halted', 'it stands still');
$node->stop('immediate');
$node->start;
wait_for(state_of('busy'), 'delivering', 'after an immediate stop');
is(sql(state_of('poisoned')), 'halted', 'it stands still');
unlike(log_since($offset), $at_work, 'neither is a crash');

sql(<<'SQL');
DELETE FROM gate;
CREATE OR REPLACE FUNCTION poisoned(events sagaz.outbox_event[]) RETURNS void LANGUAGE sql AS 'SELECT public.handle(events)';
SELECT sagaz.resume_delivery('poisoned');
SQL
wait_for(q{SELECT string_agg(consumer_group, ' ' ORDER BY consumer_group) FROM handled}, 'busy poisoned',
	'resumed, it delivers, and nothing was lost');
sql(q{SELECT sagaz.drop_delivery('poisoned')});

# Who was not at work.
$offset = -s $node->logfile;
wait_for(state_of('busy'), 'idle', 'a delivery that sleeps');
kill 'KILL', sql('SELECT pid FROM sagaz.stat_delivery');
log_says($node, qr/ready to accept connections/, $offset, 'is killed');
patient_sql(q{INSERT INTO gate DEFAULT VALUES; SELECT sagaz.insert_event('s', 'two', '{}')});
wait_for(state_of('busy'), 'delivering', 'it works at once');
my ($status, $pid) = $node->psql('postgres',
	q{COPY (SELECT 1) TO PROGRAM 'kill -9 `ps -o ppid= $$`'});
isnt($status, 0, 'a client is killed');
wait_for(state_of('busy'), 'delivering', 'the delivery works at once');
unlike(log_since($offset), $at_work, 'neither counts');

# Signal 11; a lower limit; a server that does not start again by itself.
set('sagaz.max_crashes', 2);
$offset = -s $node->logfile;
crash('busy', 'SEGV');
log_says($node, qr/delivery "busy" .*$at_work, 1 in ten minutes/, $offset, 'it counts');
wait_for(q{SELECT state, last_error FROM sagaz.stat_delivery},
	'backing off|it was at work when the server crashed', 'it waits, and says so');
set('restart_after_crash', 'off');
wait_for(state_of('busy'), 'delivering', 'it is tried again');
kill 'SEGV', patient_sql('SELECT pid FROM sagaz.stat_delivery');
log_says($node, qr/shutting down because "?restart_after_crash"? is off/, $offset, 'the server ends');
usleep(50_000) while -e $node->data_dir . '/postmaster.pid';
$node->_update_pid(0);
$node->start;
wait_for(state_of('busy'), 'halted', 'started again, it knows');
set('restart_after_crash', 'on');
my $bytes = slurp_file(crash_file());
my ($counts, $busy) = crash_accounts();
is_deeply($counts, { busy => 2 }, 'the file has its crashes');
start_with(substr($bytes, 0, 4) . pack('L', 2) . substr($bytes, 8));
wait_for(state_of('busy'), 'delivering', 'what another version wrote is not believed');
($counts, $busy) = crash_accounts();
is_deeply($counts, {}, 'but made anew');
is($busy->{busy}, 1, 'and it is at work');
start_with($bytes);
wait_for(state_of('busy'), 'halted', 'with its own file it knows again');

# Another delivery of that name has nothing on its account.
sql(q{SELECT sagaz.drop_delivery('busy'), sagaz.create_delivery('busy', 'public.handle(sagaz.outbox_event[])', 'busy', timeout => '10 min')});
wait_for(state_of('busy'), 'delivering', 'made anew, it works');

# The process that dies may be a parallel worker of the handler's query.
my $force = sql('SHOW server_version_num') >= 160000 ? 'debug_parallel_query' : 'force_parallel_mode';
sql(<<"SQL");
CREATE TABLE parallel AS SELECT 1;
CREATE FUNCTION parallel(events sagaz.outbox_event[]) RETURNS void LANGUAGE plpgsql SET $force = on AS
	\$\$ BEGIN PERFORM pg_sleep(1000) FROM public.parallel; END \$\$;
SELECT sagaz.create_consumer_group('parallel', start_from => 'now');
SELECT sagaz.create_delivery('parallel', 'public.parallel(sagaz.outbox_event[])', 'parallel', timeout => '10 min');
SELECT sagaz.insert_event('s', 'three', '{}');
SQL
wait_for(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'parallel worker'}, '1', 'a parallel query');
$offset = -s $node->logfile;
kill 'KILL', sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'parallel worker'});
log_says($node, qr/delivery "parallel" .*$at_work, 1 in ten minutes/, $offset, 'the delivery is to blame for its death');
unlike(log_since($offset), qr/delivery "busy" .*$at_work/, 'and that one only');

# Off: it goes on as often as it likes.
patient_sql('SELECT 1');
set('sagaz.max_crashes', 0);
$start = time;
crash('busy', 'KILL') for 1 .. 3;
wait_for(state_of('busy'), 'delivering', 'without a limit it works on');
cmp_ok(time - $start, '<', 30, 'and at once');
$node->stop('immediate');

# A copy of the data directory is another server.
ok(-e crash_file(), 'it is kept where a base backup does not look');

done_testing();
