# doc/examples: each producer commits an order with its event or neither, each
# consumer writes one invoice for an event, whatever crashed before.
use strict;
use warnings;

use File::Path qw(make_path);
use IPC::Run ();
use PostgreSQL::Test::Utils;
use SagazSession;
use SagazTest;
use Test::More;

my $examples = 'doc/examples';
my $jar = '/usr/share/java/postgresql.jar';
my $bin = "$ENV{WORK}/examples";
my $tcp = can('java', '-version') && -e $jar;
my $node = new_node('examples', create => 0, conf => <<'CONF' . ($tcp ? "listen_addresses = '127.0.0.1'\n" : ''));
sagaz.max_retries = 0
CONF

# Does the command work?
sub can
{
	my @command = @_;
	my $works = eval { IPC::Run::run(\@command, '<', \undef, '>', \my $out, '2>', \my $err) };

	return $works ? 1 : 0;
}

# The first Python that has the driver.
sub python
{
	my ($found) = grep { can($_, '-c', 'import psycopg') } qw(python3 /usr/bin/python3);
	return $found;
}

sub go
{
	@ENV{qw(GO111MODULE GOPATH GOCACHE)} = ('off', '/usr/share/gocode', "$ENV{WORK}/gocache");
	return 0 unless can('go', 'version') && glob '/usr/share/gocode/src/github.com/jackc/pgx/*';
	make_path($bin);
	$node->command_ok([ 'go', 'build', '-o', "$bin/go_$_", "./$examples/go/$_" ], "go: the $_ compiles")
	  for qw(producer consumer);
	return 1;
}

sub java
{
	return 0 unless $tcp && can('javac', '-version');
	make_path($bin);
	$node->command_ok([ 'javac', '-Xlint:all', '-d', $bin, glob "$examples/java/*.java" ], 'java: they compile');
	return 1;
}

# The environment by which the programs find their database.
sub environment
{
	my ($db, $host) = @_;
	return (PGHOST => $host // $node->host, PGPORT => $node->port, PGUSER => scalar getpwuid($<), PGDATABASE => $db);
}

sub prepare
{
	my ($db) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null',
			'-d', $node->connstr($db), '-f', "$examples/schema.sql" ], "$db: the schema");
}

sub produces
{
	my ($name, $producer, $sql) = @_;
	my ($out, $err);

	ok(IPC::Run::run([ $producer->('order-1', '4.50') ], '<', \undef, '>', \$out, '2>', \$err),
		"$name: the producer ends well") or diag($err);
	my ($event_id) = $out =~ /\b([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b/;
	is( $sql->(q{SELECT order_id, o.total, event_id, event_type, aggregate_type, (payload->>'total')::numeric
			FROM orders o LEFT JOIN sagaz.outbox ON saga_id = order_id}),
		"order-1|4.50|$event_id|OrderPlaced|order|4.50", "$name: the order and its event");

	# the commit fails, after the event was emitted
	$sql->(q{ALTER TABLE orders DROP CONSTRAINT orders_pkey, ADD UNIQUE (order_id) DEFERRABLE INITIALLY DEFERRED});
	ok(!IPC::Run::run([ $producer->('order-1', '7') ], '<', \undef, '>', \$out, '2>', \$err),
		"$name: a producer whose commit fails ends badly");
	like($err, qr/duplicate key/, "$name: and says why");
	is($sql->('SELECT count(*) FROM sagaz.outbox'), '1', "$name: and leaves no event");

	# the event is refused, after the order was inserted
	ok(!IPC::Run::run([ $producer->('', '7') ], '<', \undef, '>', \$out, '2>', \$err),
		"$name: so does one whose event is refused");
	is($sql->('SELECT count(*) FROM orders'), '1', "$name: and leaves no order");
}

# What a consumer leaves that died after its work and before it said so.
sub leave_half_done
{
	my ($sql) = @_;

	$sql->(<<'SQL');
SELECT sagaz.insert_event('order-2', 'OrderPlaced', '{"total": 5}', 'order');
BEGIN;
CREATE TEMP TABLE mine AS SELECT * FROM sagaz.claim_batch('dead', consumer_group => 'invoices') WHERE saga_id = 'order-2';
SELECT sagaz.check_and_insert_inbox(event_id::text, 'invoices', aggregate_type, event_type, payload) FROM mine;
INSERT INTO invoices (order_id, total) SELECT saga_id, 5 FROM mine;
COMMIT;
SELECT sagaz.release_stuck_events('0', 'invoices');
SQL
}

sub consumes
{
	my ($name, $consumer, $producer, $sql, $db) = @_;
	my ($out, $err) = ('', '');
	my $with_inbox = $name ne 'psql';
	my $state = q{SELECT string_agg(e.saga_id || ' ' || e.status, ', ' ORDER BY e.saga_id)
		FROM sagaz.outbox o, sagaz.get_event(o.event_id, 'invoices') e};

	leave_half_done($sql) if $with_inbox;
	$sql->(q{SELECT sagaz.insert_event('order-3', 'OrderPlaced', '{}'), sagaz.insert_event('order-4', 'OrderSeen', '{}')});
	my $running = IPC::Run::start([ $consumer->() ], '<', \undef, '>', \$out, '2>', \$err,
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	ok( $node->poll_query_until($db, $state, 'order-1 sent, ' . ($with_inbox ? 'order-2 sent, ' : '')
			. 'order-3 dead_letter, order-4 sent'), "$name: the consumer says what became of each event");
	like( $sql->(q{SELECT last_error FROM sagaz.get_dead_letter_events(10, 'invoices')}),
		qr/total/, "$name: and why one failed");
	ok( $node->poll_query_until($db, <<"SQL"), "$name: it waits for more");
SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = '$db'
	AND query LIKE 'CALL sagaz.wait%' AND wait_event = 'Extension' AND backend_xmin IS NULL
SQL
	ok(IPC::Run::run([ $producer->('order-5', '6') ], '<', \undef, '>', \my $id, '2>', \my $error),
		"$name: an order comes");
	ok($node->poll_query_until($db, q{SELECT count(*) = 1 FROM invoices WHERE order_id = 'order-5'}),
		"$name: and is written down");
	is( $sql->(q{SELECT order_id, total::float, count(*) FROM invoices GROUP BY 1, 2 ORDER BY 1}),
		join("\n", 'order-1|4.5|1', $with_inbox ? 'order-2|5|1' : (), 'order-5|6|1'),
		"$name: one invoice for each order");
	$running->kill_kill(grace => 0);
	is($err, '', "$name: no complaints");
}

# Both programs of a language, in a database of its own.
sub check_language
{
	my ($name, $there, $producer, $consumer, $host) = @_;

	SKIP:
	{
		diag("skipped, no tools or no driver here: $name") unless $there;
		skip "$name: no tools or no driver here", 1 unless $there;
		my $db = "shop_$name";
		my $sql = sub { return $node->safe_psql($db, $_[0]) };

		prepare($db);
		local %ENV = (%ENV, environment($db, $host));
		produces($name, $producer, $sql);
		consumes($name, $consumer, $producer, $sql, $db);
	}
}

my $python = python();
$ENV{NODE_PATH} = join ':', grep { defined } $ENV{NODE_PATH}, '/usr/share/nodejs';
check_language('psql', 1,
	sub { ('psql', '-Xq', '-v', "order_id=$_[0]", '-v', "total=$_[1]", '-f', "$examples/psql/producer.sql") },
	sub { ('bash', '-c', "while psql -Xq -f $examples/psql/consumer.sql; do :; done") });
check_language('python', defined $python,
	sub { ($python, "$examples/python/producer.py", @_) },
	sub { ($python, "$examples/python/consumer.py") });
check_language('node', can('node', '-e', 'require("pg")'),
	sub { ('node', "$examples/node/producer.js", @_) },
	sub { ('node', "$examples/node/consumer.js") });
check_language('go', go(),
	sub { ("$bin/go_producer", @_) },
	sub { ("$bin/go_consumer") });
check_language('java', java(),
	sub { ('java', '-cp', "$jar:$bin", 'Producer', @_) },
	sub { ('java', '-cp', "$jar:$bin", 'Consumer') }, '127.0.0.1');

# The saga.
SKIP:
{
	skip 'saga: no driver for Python here', 1 unless defined $python;
	prepare('saga');
	local %ENV = (%ENV, environment('saga'));
	my $sql = sub { return $node->safe_psql('saga', $_[0]) };
	my $saga = sub {
		IPC::Run::run([ $python, "$examples/python/saga.py", @_ ], '<', \undef, '>', \my $out, '2>', \my $err);
		chomp($out, $err);
		return $out || $err;
	};
	my $all = q{SELECT pieces, balance, (SELECT count(*) FROM orders), (SELECT count(*) FROM sagaz.outbox) FROM stock, accounts};
	my $steps = sub { $sql->("SELECT string_agg(status::text, ' ' ORDER BY ordinal) FROM sagaz.saga_steps WHERE saga_id = '$_[0]'") };

	is($saga->('order-1', 'ada', 'book', 2, 30), 'completed', 'a saga completes');
	is($steps->('order-1'), 'completed completed completed', 'with all its steps');
	is($sql->($all), '8|70|1|1', 'each done once');
	is($saga->('order-1', 'ada', 'book', 2, 30), 'completed', 'a completed saga stays');
	is($saga->('order-2', 'ada', 'book', 2, 3000), 'rolled_back', 'a refused payment');
	is($steps->('order-2'), 'compensated failed pending', 'undoes what was before it');
	like($sql->(q{SELECT error FROM sagaz.saga_steps WHERE saga_id = 'order-2' AND step_name = 'pay'}),
		qr/accounts_balance_check/, 'and is named');
	is($saga->('order-3', 'bob', 'book', 2, 30), 'rolled_back', 'and so does an unknown customer');
	is($sql->($all), '8|70|1|1', 'nothing remains of either');

	# what a crash between two steps leaves, on the way there and on the way back
	my $left = q{SELECT sagaz.save_saga_state('%s', 'order', '%s', '[{"name": "reserve", "status": "completed"}, {"name": "pay", "status": "%s"},
		{"name": "place"}]', '{"order_id": "%1$s", "customer": "ada", "item": "book", "pieces": 1, "total": "20"}')};
	$sql->(sprintf $left, 'order-4', 'executing', 'pending');
	is($saga->('order-4', 'ada', 'book', 1, 20), 'completed', 'a saga that was cut off goes on');
	is($sql->($all), '8|50|2|2', 'behind the steps that were done');
	$sql->(sprintf $left, 'order-5', 'compensating', 'failed');
	is($saga->('order-5', 'ada', 'book', 1, 20), 'rolled_back', 'and so does its undoing');
	is($sql->($all), '9|50|2|2', 'of the steps that were done');

	# two at once
	$sql->(sprintf $left, 'order-6', 'executing', 'pending');
	my $other = SagazSession->new($node, 'saga');
	$other->query(q{SELECT pg_advisory_lock(hashtextextended('order-6', 0))});
	my ($out, $err) = ('', '');
	my $late = IPC::Run::start([ $python, "$examples/python/saga.py", 'order-6', 'ada', 'book', 1, 20 ],
		'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	ok($node->poll_query_until('saga', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'advisory'}),
		'a second one waits for the first');
	$other->query(q{SELECT sagaz.update_step_state('order-6', 'pay', 'completed')});
	$other->query(q{SELECT pg_advisory_unlock(hashtextextended('order-6', 0))});
	$late->finish;
	is($out . $err, "completed\n", 'and goes on where that stopped');
	is($sql->($all), '9|50|3|3', 'without a second payment');
	$other->close;
}
$node->stop;

done_testing();
