# Two deliveries, one of an ordered group, under a load of every kind of
# transaction, while their handlers fail at random, their workers are ended and
# the log is archived: in the end each event that was committed has had exactly
# one effect in each group, in the ordered one in the order of its saga.
#
#	SAGAZ_LOAD_SECONDS	length of the load, 20 if not set
#	SAGAZ_SEED			which events fail how often, and the writers' dice
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use SagazLoad;
use SagazTest;
use Test::More;
use Time::HiRes qw(time usleep);

my $seconds = $ENV{SAGAZ_LOAD_SECONDS} // 20;
my $seed = $ENV{SAGAZ_SEED} // int(rand(1_000_000));
my $node = new_node('load', conf => <<'CONF');
fsync = off
sagaz.retry_backoff = 50ms
sagaz.max_retries = 1000
sagaz.archive_after = 2s
sagaz.housekeeping_interval = 1s
CONF

diag("SAGAZ_SEED=$seed SAGAZ_LOAD_SECONDS=$seconds");

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

sub wait_for
{
	my ($query, $what) = @_;

	return ok($node->poll_query_until('postgres', "SELECT $query"), $what);
}

# A handler that acts on each event and then fails, when the dice say so, so
# that what it did must be undone.  The dice are thrown by the event and the
# number of its attempts; those for errors that pass are thrown by the call.
my $handler = <<'SQL';
CREATE SEQUENCE load.call;
CREATE TABLE load.batch (consumer_group text, events integer);
CREATE FUNCTION load.dice(what text, sides integer) RETURNS integer LANGUAGE sql AS
	$$ SELECT (abs(hashtextextended(what, SEED)) % sides)::integer $$;
CREATE FUNCTION load.handle(events sagaz.outbox_event[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	event sagaz.outbox_event;
	dice integer := load.dice(nextval('load.call')::text, 300);
BEGIN
	FOREACH event IN ARRAY events LOOP
		INSERT INTO load.once (consumer_group, event_id, saga_id, n)
			VALUES (event.consumer_group, event.event_id, event.saga_id,
				event.payload::integer);
		IF load.dice(concat_ws(' ', event.consumer_group, event.saga_id,
				event.payload, event.retry_count), 40) = 0 THEN
			RAISE 'no luck with % of %', event.payload, event.saga_id;
		END IF;
	END LOOP;
	INSERT INTO load.batch VALUES (event.consumer_group, cardinality(events));
	IF dice = 0 THEN
		RAISE SQLSTATE '40001' USING MESSAGE = 'it will pass';
	ELSIF dice = 1 THEN
		PERFORM pg_sleep(0.1);
	END IF;
END $$;
SQL
$handler =~ s/SEED/$seed/;

my %groups = (free => 'none', ordered => 'saga');

sub prepare
{
	sql(slurp_file('test/property/model.sql'));
	sql($handler);
	for my $group (sort keys %groups)
	{
		sql("SELECT sagaz.create_consumer_group('$group', '$groups{$group}')");
		sql("SELECT sagaz.create_delivery('$group', 'load.handle(sagaz.outbox_event[])', '$group')");
	}
}

# Scheduled events become due in any order, among others of their saga.
my $later = <<'SQL';
\set n random(1, 1000000000)
INSERT INTO load.truth SELECT sagaz.insert_event('later', 'test', to_jsonb(:n + i),
		available_at => CASE WHEN i < 4 THEN now() + random() * interval '1 s' END), 'later', :n + i
	FROM generate_series(1, 5) AS i;
SQL

my $long = <<"SQL";
BEGIN;
SELECT load.emit('long', 5);
\\sleep @{[ int($seconds / 2) ]} s
SELECT load.emit('long', 5);
COMMIT;
SQL

# Savepoints, aborts, two phases, scheduled events, bulks, and one transaction
# that is open for half of the time.
sub add_jobs
{
	my ($load) = @_;
	my $directory = $node->basedir;
	my %weights = (steps => 20, two_phase => 10, rows => 10, bulk => 1, storm => 1);

	append_to_file("$directory/later.sql", $later);
	append_to_file("$directory/long.sql", $long);
	$load->add('writers',
		[
			'--client=6', '--rate=100', "--file=$directory/later.sql\@5",
			map { "--file=test/property/write_$_.sql\@$weights{$_}" }
			  sort keys %weights
		]);
	$load->add('straggler', ['--file=test/property/write_straggler.sql']);
	$load->add('long', [ '--transactions=1', "--file=$directory/long.sql" ], times => 1);
}

# End, or cancel, the worker of a group as soon as it has delivered since it
# started; true unless the load ends before that.
sub disturb
{
	my ($load, $group, $how) = @_;

	while (time < $load->{end})
	{
		return 1 if sql(<<"SQL") eq 't';
SELECT $how(pid) FROM sagaz.stat_delivery
	WHERE name = '$group' AND last_delivery_at > started_at
SQL
		$load->tend;
		usleep(20_000);
	}
	return 0;
}

sub trouble
{
	my ($load) = @_;
	my @how = qw(pg_terminate_backend pg_cancel_backend pg_terminate_backend);
	my $count = 0;

	for my $part (1 .. 9)
	{
		$load->until_left($seconds * (1 - $part / 10));
		$count += disturb($load, (sort keys %groups)[ $part % 2 ],
			$how[ $part % 3 ]);
	}
	$load->until_left(0);
	cmp_ok($count, '>=', 5, 'workers were ended and cancelled');
}

# One check: the query must return no row.
sub none_of
{
	my ($name, $query) = @_;

	return is(sql("SET enable_nestloop = off; $query LIMIT 5"), '', $name);
}

sub check
{
	wait_for(<<'SQL', 'no event is left over');
count(*) FILTER (WHERE lag_events > 0) = 0
	AND NOT EXISTS (SELECT FROM sagaz.outbox_retry WHERE state <> 5)
	AND (SELECT count(*) FROM load.once) >= 2 * (SELECT count(*) FROM load.truth)
	FROM sagaz.stat_delivery
SQL
	none_of('each committed event has exactly one effect in each group', <<'SQL');
SELECT g, t.event_id, t.saga_id, t.n, count(o.h)
	FROM load.truth AS t CROSS JOIN unnest('{free,ordered}'::text[]) AS g
		LEFT JOIN load.once AS o ON o.consumer_group = g
			AND (o.event_id, o.saga_id, o.n) = (t.event_id, t.saga_id, t.n)
	GROUP BY 1, 2, 3, 4 HAVING count(o.h) <> 1
SQL
	is( sql('SELECT count(*) FROM load.once'),
		sql('SELECT 2 * count(*) FROM load.truth'), 'and there is no other');
	none_of('no effect of an event that was not committed',
		'SELECT event_id FROM load.once EXCEPT SELECT event_id FROM load.truth');
	none_of('causal order in the ordered group', <<'SQL');
SELECT * FROM (
	SELECT saga_id, n, h, row_number() OVER (PARTITION BY saga_id ORDER BY h) AS turn
	FROM load.once WHERE consumer_group = 'ordered' AND saga_id <> 'later') AS o
WHERE n <> turn
SQL
}

# The load was one that could have gone wrong.
sub check_load
{
	my ($load) = @_;
	my @errors = grep { /ERROR:/ } split /^(?=pgbench:)/m, $load->messages;
	my @crashes = grep { /PANIC|TRAP|by signal/ } split /\n/,
	  slurp_file($node->logfile);

	is_deeply(\@errors, [], 'no statement failed');
	is_deeply(\@crashes, [], 'no crash');
	is( sql(q{SELECT string_agg(name, ' ' ORDER BY name) FROM sagaz.stat_delivery
			WHERE failed > 0 AND last_error IS NOT NULL}),
		'free ordered', 'handlers failed in both groups');
	cmp_ok(sql(q{SELECT count(*) FROM load.truth}), '>', 50 * $seconds, 'a load');
	is(sql(q{SELECT count(*) FROM load.truth WHERE saga_id = 'long'}), '10', 'a long transaction');
	cmp_ok(sql('SELECT sum(archived) FROM sagaz.stat_delivery'), '>', 0, 'an archive');
	note(sql(q{SELECT format('%s events, %s failures', (SELECT count(*) FROM load.truth),
			(SELECT sum(failed) FROM sagaz.stat_delivery))}));
	note(sql(q{SELECT string_agg(format('%s %s calls, largest %s', consumer_group, n, m), '; ')
		FROM (SELECT consumer_group, count(*) AS n, max(events) AS m FROM load.batch GROUP BY 1) b}));
}

my $load = SagazLoad->new($node, $seed);

prepare();
add_jobs($load);
$load->begin($seconds);
trouble($load);
ok($load->finish(30), 'every client came to its end');
check();
check_load($load);
diag("again: SAGAZ_SEED=$seed SAGAZ_LOAD_SECONDS=$seconds make check TESTS=test/t/044_load.pl")
  unless Test::More->builder->is_passing;
$node->stop;

done_testing();
