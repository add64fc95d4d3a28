# Servers that stop, crash, are copied, promoted, restored and upgraded while
# deliveries run: each event has one effect, and a copy that is not activated
# has none.
use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Utils;
use SagazDelivery;
use SagazTest;
use Test::More;
use Time::HiRes qw(usleep);

my $conf = <<'CONF';
sagaz.retry_backoff = 100ms
sagaz.poll_interval = 200ms
CONF

sub log_end
{
	return -s $_[0]->logfile;
}

# A pgbench that emits events, one a transaction, until it is killed or the
# server goes away.
sub start_load
{
	my ($node) = @_;
	my $file = $node->basedir . '/load.sql';

	unlink $file;
	append_to_file($file, "SELECT sagaz.insert_event('saga' || :client_id, 'created', '1');\n");
	return IPC::Run::start(
		[
			'pgbench', '--no-vacuum', '--client=2', '--time=60',
			"--file=$file", $node->connstr('postgres')
		],
		'<', \undef, '>', '/dev/null', '2>', '/dev/null');
}

# Wait until something was delivered after what there is now.
sub delivers
{
	my ($node) = @_;
	my $last = $node->safe_psql('postgres', 'SELECT coalesce(max(at), 0) FROM effects');

	$node->poll_query_until('postgres', "SELECT max(at) > $last FROM effects")
	  or die 'no delivery';
}

sub wait_for_server
{
	my ($node) = @_;

	for (1 .. 600)
	{
		my ($status) = $node->psql('postgres', 'SELECT 1');
		return if $status == 0;
		usleep(50_000);
	}
	die 'the server did not come back';
}

my $node = new_node('restart', init => { allows_streaming => 1 },
	conf => "$conf\nrestart_after_crash = on\n");
prepare_delivery($node, 'postgres');
create_delivery($node, 'postgres', 'd');
$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION handle_for_ever(events sagaz.outbox_event[]) RETURNS void LANGUAGE sql AS
	$$ SELECT public.handle(events);
	SELECT pg_sleep(25) $$;
SQL

# Crashes under load.
my $load = start_load($node);
delivers($node);
my $worker = worker_pid($node, 'postgres', 'd');
my $offset = log_end($node);
kill 'KILL', $worker;
log_says($node, qr/ready to accept connections/, $offset, 'the server restarts after a crash');
wait_for_server($node);
$load->finish;
isnt(worker_pid($node, 'postgres', 'd') || 0, $worker, 'the worker is another');
exactly_once($node, 'postgres', 'kill -9 of a worker under load');

$load = start_load($node);
delivers($node);
$node->stop('immediate');
$load->finish;
$node->start;
exactly_once($node, 'postgres', 'immediate stop under load');

# An orderly end with the load running, with a pause, and with no load.
$load = start_load($node);
delivers($node);
timed(2, 'fast shutdown under load', sub { $node->stop('fast') });
$load->finish;
$node->start;
exactly_once($node, 'postgres', 'fast shutdown under load');
emit_events($node, 'postgres', 1000);
timed(2, 'smart shutdown', sub { $node->stop('smart') });
$node->start;
exactly_once($node, 'postgres', 'smart shutdown');

$node->safe_psql('postgres', <<'SQL');
SELECT sagaz.drop_delivery('d');
SELECT sagaz.create_delivery('d', 'public.handle_for_ever(sagaz.outbox_event[])', timeout => '1 min');
SQL
for my $mode ('fast', 'smart')
{
	emit_events($node, 'postgres', 3);
	query_is($node, 'postgres', 'SELECT state FROM sagaz.stat_delivery',
		'delivering', 'a long handler runs');
	timed(2, "$mode shutdown within a handler", sub { $node->stop($mode) });
	$node->start;
}
$node->safe_psql('postgres', <<'SQL');
CREATE OR REPLACE FUNCTION handle_for_ever(events sagaz.outbox_event[]) RETURNS void LANGUAGE sql AS
	$$ SELECT public.handle(events) $$;
SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE backend_type = 'sagaz worker';
SQL
exactly_once($node, 'postgres', 'shutdown within a handler');

# A standby has no worker until it is promoted.
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
$load = start_load($node);
delivers($node);
$node->wait_for_catchup($standby);
is( $standby->safe_psql('postgres',
		q(SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'sagaz%')),
	'0', 'a standby has no process of ours');
$standby->promote;
$node->stop('immediate');
$load->finish;
has_worker($standby, 'postgres', 'd', 'its worker comes at promotion');
emit_events($standby, 'postgres', 50);
exactly_once($standby, 'postgres', 'promoted');

# Let workers run in these databases only.
sub restrict_to
{
	my ($node, $databases) = @_;

	$node->append_conf('postgresql.conf', "sagaz.databases = '$databases'");
	$node->reload;
}

# A database with events that are delivered and others that wait.
sub half_delivered
{
	my ($node, $db) = @_;

	prepare_delivery($node, $db);
	create_delivery($node, $db, 'd');
	emit_events($node, $db, 40);
	exactly_once($node, $db, "$db, at first");
	restrict_to($node, '');
	has_no_worker($node, $db, 'd', "no worker in $db");
	emit_events($node, $db, 30);
}

# A copy that has the effects of the original delivers nothing, and once it is
# activated exactly what was left.
sub check_copy
{
	my ($node, $db, $name) = @_;
	my $offset = log_end($node);

	$node->reload;
	log_says($node, qr/outbox of database "$db" is not active/, $offset,
		"$name: the log says that it is inert");
	emit_events($node, $db, 5);
	is($node->safe_psql($db, 'SELECT count(*) FROM effects'), '40',
		"$name: nothing is delivered");
	$node->safe_psql($db, 'SELECT sagaz.activate()');
	exactly_once($node, $db, "$name, activated");
	is($node->safe_psql($db, 'SELECT count(*) FROM effects'), '75',
		"$name: what was left has come");
}

# A dump restored while the launcher runs, into another database and into the
# same, where identity and xids are those of the original.
half_delivered($standby, 'original');
my $dump = $standby->basedir . '/original.dump';
$standby->command_ok(
	[ 'pg_dump', '--format=custom', "--file=$dump", $standby->connstr('original') ],
	'pg_dump');
restrict_to($standby, '*');
exactly_once($standby, 'original', 'original');
$standby->safe_psql('original',
	'DROP EXTENSION sagaz CASCADE; DROP TABLE effects');
$standby->safe_psql('postgres', 'CREATE DATABASE other');
for my $db ('other', 'original')
{
	$standby->command_ok(
		[ 'pg_restore', '--exit-on-error', '--dbname=' . $standby->connstr($db), $dump ],
		"restored into $db");
	check_copy($standby, $db, "restored into $db");
}
$standby->stop;

# pg_upgrade with the worker preloaded and events that wait.
my $old = new_node('old', conf => $conf);
my $new = new_node('new', conf => $conf, start => 0);
half_delivered($old, 'upgraded');
$old->append_conf('postgresql.conf', "sagaz.databases = '*'");
$old->stop;
my $bindir = $old->config_data('--bindir');
chdir $new->basedir or die $!;
command_ok(
	[
		"$bindir/pg_upgrade", '--no-sync', '--retain',
		'--old-bindir', $bindir, '--new-bindir', $bindir,
		'--old-datadir', $old->data_dir, '--new-datadir', $new->data_dir,
		'--old-port', $old->port, '--new-port', $new->port,
		'--socketdir', $new->host
	],
	'pg_upgrade');
my @logs = glob($new->data_dir . '/pg_upgrade_output.d/*/log/pg_upgrade_server.log');
is(scalar @logs, 1, 'the servers of pg_upgrade have a log');
my $log = join '', map { slurp_file($_) } @logs;
like($log, qr/ready to accept connections/, 'which tells what they did');
unlike($log, qr/delivery|outbox|sagaz (?:launcher|look|worker)/, 'no process of ours ran under pg_upgrade');
$new->start;
check_copy($new, 'upgraded', 'upgraded');
$new->stop;

done_testing();
