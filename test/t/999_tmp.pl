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

my $offset; my $start;
# Another delivery of that name has nothing on its account.
sql(q{SELECT sagaz.drop_delivery('busy'), sagaz.create_delivery('busy', 'public.handle(sagaz.outbox_event[])', 'busy', timeout => '10 min')});
wait_for(state_of('busy'), 'delivering', 'made anew, it works');

# The process that dies may be a parallel worker of the handler's query.
my $force = sql('SHOW server_version_num') >= 160000 ? 'debug_parallel_query' : 'force_parallel_mode';
sql(<<"SQL");
CREATE OR REPLACE FUNCTION handle(events sagaz.outbox_event[]) RETURNS void LANGUAGE plpgsql SET $force = on AS
	\$\$ DECLARE n text; BEGIN SELECT pg_sleep(1000) INTO n FROM public.parallel; END \$\$;
CREATE TABLE parallel AS SELECT 1;
SELECT pg_cancel_backend(pid) FROM sagaz.stat_delivery;
SELECT sagaz.resume_delivery('busy');
SQL
sleep 4; diag(sql('select backend_type, state, wait_event, query from pg_stat_activity'), sql('select * from sagaz.stat_delivery'), sql('\sf handle'));
$offset = -s $node->logfile;
kill 'KILL', sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'parallel worker'});
log_says($node, qr/delivery "busy" .*$at_work, 1 in ten minutes/, $offset, 'the delivery is to blame for its death');

# Off: it goes on as often as it likes.
patient_sql('SELECT 1');
set('sagaz.max_crashes', 0);
$start = time;
crash('busy', 'KILL') for 1 .. 3;
wait_for(state_of('busy'), 'delivering', 'without a limit it works on');
cmp_ok(time - $start, '<', 30, 'and at once');
$node->stop('immediate');

# A copy of the data directory is another server.
ok(-e $node->data_dir . '/pg_stat_tmp/sagaz_crashes', 'it is kept where a base backup does not look');

done_testing();
