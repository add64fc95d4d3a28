# Programs behind PgBouncer, which gives each transaction another connection: the
# worker of the README and the examples in Python lose nothing, do nothing twice
# and live on.
use strict;
use warnings;

use IPC::Run ();
use PostgreSQL::Test::Utils;
use SagazTest;
use Test::More;

plan skip_all => 'no PgBouncer here' unless grep { -x "$_/pgbouncer" } split(/:/, $ENV{PATH}), '/usr/sbin';
my ($python) = grep { IPC::Run::run([ $_, '-c', 'import psycopg' ], '>', '/dev/null', '2>', '/dev/null') } qw(python3 /usr/bin/python3);
plan skip_all => 'no psycopg here' unless $python;

my $patience = $PostgreSQL::Test::Utils::timeout_default;
my $node = new_node('behind', create => 0);
my $dir = PostgreSQL::Test::Utils::tempdir_short();
my $user = getpwuid($<);
my $sql = sub { return $node->safe_psql('postgres', $_[0]) };

$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-f', 'doc/examples/schema.sql',
		$node->connstr('postgres') ], 'the schema of the examples');
append_to_file("$dir/users", qq("$user" ""\n));
append_to_file("$dir/ini", <<"INI");
[databases]
postgres = host=${\ $node->host } port=${\ $node->port } user=$user
[pgbouncer]
pool_mode = transaction
default_pool_size = 5
max_client_conn = 100
auth_type = trust
auth_file = $dir/users
unix_socket_dir = $dir
listen_port = 6432
INI

local $ENV{PATH} = "$ENV{PATH}:/usr/sbin";
my %running;

sub begin
{
	my ($name, @command) = @_;
	my $program = { out => '', err => '' };

	$program->{run} = IPC::Run::start(\@command, '<', \undef, '>', \$program->{out}, '2>', \$program->{err}, IPC::Run::timeout($patience));
	$running{$name} = $program;
}

# None has ended or complained; what they have written comes in when they are asked.
sub they_live
{
	my @ill = grep {
		my $program = $running{$_};

		$program->{run}->pump_nb;
		!$program->{run}->pumpable || $_ ne 'pgbouncer' && $program->{err};
	} sort keys %running;

	diag "$_: $running{$_}{err}" for @ill;
	return !@ill;
}

begin('pgbouncer', 'pgbouncer', "$dir/ini");
local @ENV{qw(PGHOST PGPORT PGUSER PGDATABASE)} = ($dir, 6432, $user, 'postgres');
my $is_up = sub { IPC::Run::run([ 'psql', '-Xqc', 'SELECT 1' ], '>', '/dev/null', '2>', '/dev/null') };
$running{pgbouncer}{run}->pump_nb until $is_up->() || !$running{pgbouncer}{run}->pumpable;

# the worker of the README, which is given a publish() that refuses some events
my ($worker) = slurp_file('README.md') =~ /```python\n(.*?publish\(event\).*?)```/s;
ok($worker, 'the README has a worker');
$worker = <<"PYTHON" . $worker;
def publish(event):
    if event.event_type == "Refused":
        raise ValueError("nobody wants it")
    print(event.event_id, flush=True)

PYTHON
$node->append_conf('postgresql.conf', 'sagaz.max_retries = 0');
$node->reload;
$sql->(q{SELECT sagaz.create_consumer_group('sagaz-workers')});
$sql->(q{SELECT sagaz.insert_event('r', 'Refused', '{}')});

begin("consumer $_", $python, 'doc/examples/python/consumer.py') for 1, 2;
begin('worker', $python, '-c', $worker);
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM sagaz.get_dead_letter_events(10, 'sagaz-workers')"),
	'a batch of which nothing could be published');

# the sixth time a driver runs a statement is the one at which it would prepare it
my ($rounds, $at_once) = (8, 5);
for my $round (1 .. $rounds)
{
	my @producers = map {
		my %p = (out => '', err => '');
		$p{run} = IPC::Run::start([ $python, 'doc/examples/python/producer.py', "order-$round-$_", '5' ], '<', \undef, '>', \$p{out}, '2>', \$p{err}, IPC::Run::timeout($patience));
		\%p;
	} 1 .. $at_once;
	for my $p (@producers)
	{
		$p->{run}->finish or diag $p->{err};
	}
}
my $count = $rounds * $at_once;
is($sql->('SELECT count(*) FROM orders'), $count, 'each order is there');
ok(they_live() && $node->poll_query_until('postgres', "SELECT count(*) = $count FROM invoices"), 'each has its invoice');
ok( they_live() && $node->poll_query_until('postgres', <<'SQL'), 'all is marked');
SELECT sagaz.get_pending_count() = 0 AND sagaz.get_pending_count('invoices') = 0
	AND NOT EXISTS (SELECT FROM sagaz.get_stuck_events('0', 'invoices')) AND NOT EXISTS (SELECT FROM sagaz.get_stuck_events('0'))
SQL
is($sql->('SELECT count(DISTINCT order_id), count(*) FROM invoices'), "$count|$count", 'and one');
is($sql->(q{SELECT event_type, last_error FROM sagaz.get_dead_letter_events(10, 'sagaz-workers')}),
	q{Refused|ValueError('nobody wants it')}, 'the worker of the README says what it could not publish');

ok(they_live(), 'all live');
my @published = split /\n/, $running{worker}{out};
my %once = map { $_ => 1 } @published;
is(scalar @published, $count, 'the worker of the README has published each order once');
is(scalar keys %once, $count, 'and each of them');
$_->{run}->kill_kill(grace => 1) for values %running;
$node->stop;
done_testing();
