# A delivery whose handler writes down what it gets, so that a test can tell
# whether each event had exactly one effect.
package SagazDelivery;

use strict;
use warnings;

use Exporter 'import';
use SagazTest;
use Test::More;
use Time::HiRes qw(time);

our @EXPORT = qw(prepare_delivery create_delivery emit_events query_is
  has_worker has_no_worker worker_pid exactly_once log_says timed);

my $objects = <<'SQL';
CREATE TABLE effects (consumer text, event_id uuid, at bigserial);
CREATE FUNCTION handle(events sagaz.outbox_event[]) RETURNS void LANGUAGE sql AS $$
	INSERT INTO public.effects (consumer, event_id)
		SELECT consumer_group, event_id FROM unnest(events)
$$;
-- one that takes its time, a tenth of a second a batch
CREATE FUNCTION handle_slowly(events sagaz.outbox_event[]) RETURNS void LANGUAGE sql AS $$
	SELECT pg_sleep(0.1);
	SELECT public.handle(events);
$$;
SQL

# The extension and a handler, in a database of its own if that is not postgres.
sub prepare_delivery
{
	my ($node, $db) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $db") if $db ne 'postgres';
	$node->safe_psql($db, "CREATE EXTENSION IF NOT EXISTS sagaz; $objects");
}

sub create_delivery
{
	my ($node, $db, $name, %options) = @_;
	my $handler = $options{handler} // 'handle';
	my $group = $options{group} // 'sagaz-workers';
	my $size = $options{batch_size} // 'NULL';

	$node->safe_psql($db, <<"SQL");
SELECT sagaz.create_delivery('$name', 'public.$handler(sagaz.outbox_event[])', '$group', $size)
SQL
}

sub emit_events
{
	my ($node, $db, $count) = @_;

	$node->safe_psql($db, <<"SQL");
SELECT count(sagaz.insert_event('saga' || n % 10, 'created', jsonb_build_object('n', n)))
	FROM generate_series(1, $count) n
SQL
}

# Wait until the query gives what is expected.
sub query_is
{
	my ($node, $db, $query, $expected, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($node->poll_query_until($db, $query, $expected), $name)
	  or diag('log: ', log_tail($node));
}

sub log_tail
{
	my ($node) = @_;
	my @lines = split /^/, PostgreSQL::Test::Utils::slurp_file($node->logfile);

	return join '', @lines > 30 ? @lines[-30 .. -1] : @lines;
}

sub workers
{
	my ($db, $name) = @_;
	return <<"SQL";
SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'sagaz worker'
	AND datname = '$db' AND application_name = 'sagaz delivery $name'
SQL
}

# Wait for the worker of a delivery to be there, or to be gone.
sub has_worker
{
	my ($node, $db, $delivery, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	query_is($node, 'postgres', workers($db, $delivery), '1', $name);
}

sub has_no_worker
{
	my ($node, $db, $delivery, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	query_is($node, 'postgres', workers($db, $delivery), '0', $name);
}

sub worker_pid
{
	my ($node, $db, $delivery) = @_;

	return $node->safe_psql('postgres',
		workers($db, $delivery) =~ s/count\(\*\)/pid/r);
}

# Wait until each event of the log had an effect, and see that none had two.
sub exactly_once
{
	my ($node, $db, $name, $consumer) = @_;
	$consumer //= 'sagaz-workers';

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	query_is($node, $db, <<"SQL", '0', "$name: each event has an effect");
SELECT count(*) FROM sagaz.outbox o WHERE NOT EXISTS (
	SELECT FROM effects e WHERE e.event_id = o.event_id AND consumer = '$consumer')
SQL
	is( $node->safe_psql($db, <<"SQL"), '0', "$name: none has two");
SELECT count(*) - count(DISTINCT event_id) FROM effects WHERE consumer = '$consumer'
SQL
}

# Wait for a line of the server's log after an offset.
sub log_says
{
	my ($node, $pattern, $offset, $name) = @_;
	my $end = time + 30;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	Time::HiRes::usleep(20_000)
	  until time > $end
	  || substr(PostgreSQL::Test::Utils::slurp_file($node->logfile), $offset)
	  =~ $pattern;
	like(substr(PostgreSQL::Test::Utils::slurp_file($node->logfile), $offset),
		$pattern, $name);
}

# Run the code, see that it took less than the limit, and tell how long.
sub timed
{
	my ($limit, $name, $code) = @_;
	my $start = time;

	$code->();
	my $seconds = time - $start;
	note(sprintf '%s took %.2f s', $name, $seconds);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	cmp_ok($seconds, '<', $limit, "$name is fast");
}

1;
