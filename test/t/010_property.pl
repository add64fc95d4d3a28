# Which events a claim hands out, and in which order.  First exact interleavings,
# one for each known mistake; then ten writers and sixteen claimers for a while,
# with crashes, and a look at what came of every event.
#	SAGAZ_SEED				seed of the load
#	SAGAZ_PROPERTY_SECONDS	how long the load lasts, 60 unless told
use strict;
use warnings;

use SagazLoad;
use SagazSession;
use SagazTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $lease_s = 2;
my $node = new_node('property', conf => <<'CONF');
sagaz.claim_timeout = '300s'
sagaz.retry_backoff = '2s'
max_prepared_transactions = 100
max_connections = 60
track_commit_timestamp = on
shared_buffers = 128MB
autovacuum_naptime = 5s
CONF
$node->safe_psql('postgres',
	'CREATE DATABASE fresh; ALTER DATABASE fresh IS_TEMPLATE true');
$node->safe_psql('fresh', 'CREATE EXTENSION sagaz');

# Run a scenario in a database where no event has ever been.
sub scenario
{
	my ($name, $sessions, $code) = @_;
	my $database = 'scenario_' . Test::More->builder->current_test;

	$node->safe_psql('postgres', "CREATE DATABASE $database TEMPLATE fresh");
	subtest $name => sub {
		my @sessions =
		  map { SagazSession->new($node, $database) } 1 .. $sessions;
		$code->(@sessions);
		$_->close for @sessions;
	};
	$node->safe_psql('postgres', "DROP DATABASE $database WITH (FORCE)");
}

# Emit an event that bears a name; all are of one saga unless told.
sub emit
{
	my ($name, $saga) = @_;
	$saga //= 'saga';
	return "INSERT INTO sagaz.emit (saga_id, event_type, payload) VALUES ('$saga', 'test', '\"$name\"')";
}

# Claim, with the arguments given: the names of the events, in their order.
sub claim
{
	my $arguments = join '', map { ", $_" } @_;
	return "SELECT payload #>> '{}' FROM sagaz.claim_batch('worker'$arguments)";
}

# Let a first claim make the default group, so that claims take no xid for it.
sub warm_up
{
	my ($session) = @_;
	$session->query(emit('first'));
	is($session->query(claim()), 'first', 'the first event of all');
}

sub exact_scenarios
{
	scenario 'a transaction at the snapshot\'s xmax', 2, sub {
		my ($writer, $other) = @_;
		warm_up($other);
		$other->query(emit('before'));
		$writer->query('BEGIN');
		$writer->query(emit('open'));
		is($other->query(claim()), 'before', 'others do not wait');
		$writer->query('COMMIT');
		is($other->query(claim()), 'open', 'it comes when it has committed');
		is($other->query(claim()), '', 'and once');
	};

	scenario 'a claimer with an old xid', 3, sub {
		my ($writer, $other, $claimer) = @_;
		warm_up($other);
		$other->query(emit('before'));
		$claimer->query('BEGIN');
		$claimer->query('SELECT pg_current_xact_id() IS NULL');
		$writer->query('BEGIN');
		$writer->query(emit('open'));
		is($claimer->query(claim()), 'before', 'others do not wait');
		$claimer->query('COMMIT');
		$writer->query('COMMIT');
		is($other->query(claim()), 'open', 'a younger transaction is not lost');
	};

	scenario 'claim, emit, claim in one transaction', 2, sub {
		my ($claimer, $other) = @_;
		warm_up($other);
		$other->query(emit('before'));
		$claimer->query('BEGIN');
		is($claimer->query(claim()), 'before', 'claim');
		$claimer->query(emit('follow-up'));
		is($claimer->query(claim()), '', 'not one\'s own event');
		$other->query(emit('after'));
		is($claimer->query(claim()), 'after', 'claim again');
		is($claimer->query(claim()), '', 'still not one\'s own event');
		$claimer->query(emit('last'));
		$claimer->query('COMMIT');
		is($other->query(claim()), 'follow-up last', 'each once, after commit');
		is($other->query(claim()), '', 'and no more');
	};

	scenario 'the first event after a claim', 1, sub {
		my ($session) = @_;
		$session->query(
			"SELECT sagaz.create_consumer_group('now', start_from => 'now')");
		$session->query(emit('first'));
		is($session->query(claim("consumer_group => 'now'")), 'first',
			'the sequence had never been used');
	};

	scenario 'an xid taken early', 3, sub {
		my ($early, $late, $claimer) = @_;
		warm_up($claimer);
		$early->query('BEGIN');
		$early->query('SELECT pg_current_xact_id() IS NULL');
		$late->query(emit('cause'));
		$early->query(emit('effect'));
		$early->query('COMMIT');
		is($claimer->query(claim()), 'cause effect', 'causal order');
	};

	scenario 'a claim that waits for another', 3, sub {
		my ($first, $second, $writer) = @_;
		warm_up($writer);
		$writer->query(emit('one'));
		$first->query('BEGIN');
		is($first->query(claim()), 'one', 'a claim holds the lane');
		$writer->query(emit('two'));
		$second->send("SELECT payload #>> '{}' FROM generate_series(1, 300) AS g,"
			  . " sagaz.claim_batch('other', 100 + g)");
		ok( $node->poll_query_until(
				'postgres',
				"SELECT wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = $second->{pid}"),
			'the next one waits');
		$first->query('COMMIT');
		is($second->result, 'two', 'it sees what the first one took');
	};

	scenario 'a place drawn early', 3, sub {
		my ($writer, $other, $owner) = @_;
		warm_up($other);
		$owner->query('SELECT pg_advisory_lock(1)');
		$writer->send("INSERT INTO sagaz.outbox (seq, saga_id, event_type, payload)"
			  . " VALUES (DEFAULT, 'saga', (SELECT 'test' || pg_advisory_lock_shared(1)), '\"open\"'),"
			  . " (DEFAULT, 'saga', 'test', '\"second\"')");
		ok( $node->poll_query_until(
				'postgres',
				"SELECT wait_event = 'advisory' FROM pg_stat_activity WHERE pid = $writer->{pid}"),
			'a place is drawn');
		$other->query(emit('before'));
		is($other->query(claim()), 'before', 'others do not wait');
		$owner->query('SELECT pg_advisory_unlock(1)');
		$writer->result;
		is($other->query(claim()), 'open second', 'none is lost');
		is( $other->query(
				'BEGIN; SELECT sagaz_internal.next_seq() > 0, pg_current_xact_id_if_assigned() IS NOT NULL; ROLLBACK'
			),
			't|t', 'who draws a place has an xid');
	};

	scenario 'a retry in an ordered group', 1, sub {
		my ($session) = @_;
		my $claim = claim("consumer_group => 'ordered'");
		$session->query(
			"SELECT sagaz.create_consumer_group('ordered', 'saga')");
		$session->query(emit('one'));
		is($session->query($claim), 'one', 'claim');
		$session->query("SELECT sagaz.mark_failed(array_agg(event_id), 'worker', 'no luck', 'ordered') FROM sagaz.emit");
		$session->query(emit('two'));
		$session->query(emit('other',
			$session->query("SELECT 'other ' || g FROM generate_series(1, 100) AS g WHERE sagaz_internal.lane('other ' || g) = sagaz_internal.lane('saga') LIMIT 1")
		));
		is($session->query($claim), 'other', 'its saga waits, others do not')
		  or return;
		$session->query("SELECT sagaz.finish_batch(max(batch_id), 'worker') FROM sagaz.outbox_batch");
		my ($got, $deadline) = ('', time + 30);
		while ($got eq '' && time < $deadline)
		{
			usleep(20_000);
			$got = $session->query($claim);
		}
		like($got, qr/^one( two)?$/, 'the retry comes first');
	};

	scenario 'older_than', 1, sub {
		my ($session) = @_;
		warm_up($session);
		$session->query(emit('young'));
		$session->query(
			emit('old') =~ s/\(saga_id/(created_at, saga_id/r
			  =~ s/\('/(now() - interval '1 hour', '/r);
		is($session->query(claim("older_than => '1 minute'")), '',
			'an old event behind a young one waits');
		is($session->query(claim()), 'young old', 'none was skipped');
	};

	scenario 'stragglers, one by one', 3, sub {
		my ($one, $two, $claimer) = @_;
		warm_up($claimer);
		$_->query('BEGIN') for $one, $two;
		$one->query(emit('1')), $two->query(emit('2')),
		  $two->query(emit('3')), $one->query(emit('4'));
		$claimer->query(emit('before'));
		is($claimer->query(claim()), 'before', 'others do not wait');
		$claimer->query(emit('5'));
		$two->query('COMMIT');
		$one->query('COMMIT');
		is($claimer->query(claim('1')), $_, "event $_") for 1 .. 5;
		is($claimer->query(claim('1')), '', 'no more');
	};

	scenario 'stragglers of many transactions', 1, sub {
		my ($session) = @_;
		warm_up($session);
		for (1 .. 80)
		{
			$session->query('BEGIN');
			$session->query(emit($_));
			$session->query("PREPARE TRANSACTION 'p$_'");
		}
		$session->query(emit('before'));
		is($session->query(claim()), 'before', 'others do not wait');
		$session->query("COMMIT PREPARED 'p$_'") for reverse 1 .. 80;
		is($session->query(claim('30')), join(' ', 1 .. 30), 'in order');
		is($session->query(claim()), join(' ', 31 .. 80), 'and the rest');
	};

	scenario 'an event that kills its worker', 1, sub {
		my ($session) = @_;
		my $claims = 0;
		warm_up($session);
		$session->query('SELECT sagaz.finish_batch(max(batch_id), \'worker\') FROM sagaz.outbox_batch');
		$session->query(emit($_ == 6 ? 'kill' : $_)) for 1 .. 8;
		while ($claims < 40 && (my $events = $session->query(claim())) ne '')
		{
			$claims++;
			$session->query($events =~ /kill/ ? q{SELECT sagaz.release_stuck_events('0')} :
				  q{SELECT sagaz.finish_batch(max(batch_id), 'worker') FROM sagaz.outbox_batch});
		}
		cmp_ok($claims, '<', 20, 'it stands alone soon, and not for ever');
		is($session->query(q{SELECT payload #>> '{}' || ' ' || retry_count FROM sagaz.outbox_events WHERE status <> 'sent'}),
			'kill 11', 'a dead letter, and no other');
	};

	scenario 'claims undone', 1, sub {
		my ($session) = @_;
		warm_up($session);
		$session->query(emit('one'));
		$session->query('BEGIN');
		is($session->query(claim()), 'one', 'claim');
		$session->query('ROLLBACK');
		$session->query('BEGIN; SAVEPOINT a');
		is($session->query(claim()), 'one', 'a claim rolled back never was');
		$session->query('ROLLBACK TO a');
		is($session->query(claim()), 'one', 'nor one to a savepoint');
		$session->query('COMMIT');
		is($session->query(claim()), '', 'and then it was');
	};
}

# Numbers of updates and deletes in the tables that are only inserted into.
my @changes;

sub note_changes
{
	push @changes, split /\n/, $node->safe_psql('postgres', <<'SQL');
SELECT relname, n_tup_upd, n_tup_del FROM pg_stat_user_tables
WHERE schemaname = 'sagaz' AND relname IN ('outbox', 'outbox_batch', 'outbox_receipt')
	AND (n_tup_upd > 0 OR n_tup_del > 0)
SQL
}

# Times during which the server or the claimers were away, and a little more.
my @away;

# Do something that makes all clients lose their connections, and look after
# what they left prepared.
sub crash
{
	my ($load, $code) = @_;
	my $began = time;

	note_changes();
	$load->pause;
	$code->();
	$node->poll_query_until('postgres', 'SELECT true')
	  or die 'the server did not come back';
	my @prepared = split /\n/,
	  $node->safe_psql('postgres', 'SELECT gid FROM pg_prepared_xacts');
	for my $i (0 .. $#prepared)
	{
		my $what = $i % 2 ? 'ROLLBACK' : 'COMMIT';
		$node->safe_psql('postgres', "$what PREPARED '$prepared[$i]'");
	}
	$load->resume;
	push @away, [ $began, time + 2 ];
}

# The writers' sessions last, so the process is still there when it is shot.
sub kill_backend
{
	my $pid = $node->safe_psql('postgres',
		"SELECT pid FROM pg_stat_activity WHERE application_name = 'writers' LIMIT 1");

	kill('KILL', $pid) == 1 or die "no process $pid";
	$node->poll_query_until('postgres',
		"SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid");
}

# Half a minute: the long writer, clients that die, and then the server twice.
sub trouble
{
	my ($load, $seconds, $length, $cycle) = @_;
	my $wait = sub {
		$load->until_left($seconds - $length * ($cycle + $_[0] / 30));
	};

	$load->once_more('long');
	for my $i (1 .. 8)
	{
		$wait->(2 * $i);
		$load->kill_client('lease_' . ($i % 2 ? 'none ' : 'saga ') . (1 + $i % 4));
	}
	$wait->(22);
	crash($load, \&kill_backend);
	$wait->(26);
	crash($load, sub { $node->stop('immediate'); $node->start });
	$wait->(30);
}

sub add_jobs
{
	my ($load) = @_;
	my $directory = 'test/property';
	my %weights = (
		steps => 20, two_phase => 15, rows => 10, later => 1,
		bulk => 1, storm => 1);

	$load->add('writers',
		[
			'--client=8', '--rate=120',
			map { "--file=$directory/write_$_.sql\@$weights{$_}" }
			  sort keys %weights
		]);
	$load->add('straggler', ["--file=$directory/write_straggler.sql"]);
	$load->add('long',
		[ '--transactions=1', "--file=$directory/write_long.sql" ],
		times => 0);
	for my $ordering ('none', 'saga')
	{
		for my $i (1 .. 4)
		{
			$load->add("once_$ordering $i",
				[
					"--define=group=once_$ordering",
					"--file=$directory/claim_once.sql\@5",
					"--file=$directory/claim_statement.sql\@1"
				]);
			$load->add("lease_$ordering $i",
				[
					"--define=group=lease_$ordering",
					"--file=$directory/claim_lease.sql"
				]);
		}
	}
}

# Hand out what is left, until every event that committed was acted upon, or
# until nothing has come for longer than any lease or retry takes.
sub drain
{
	my $left = <<'SQL';
SELECT count(*) FROM load.truth AS t, unnest('{once_none,once_saga,lease_none,lease_saga}'::text[]) AS g
WHERE NOT EXISTS (SELECT FROM load.once AS o WHERE o.event_id = t.event_id AND o.consumer_group = g)
	AND NOT EXISTS (SELECT FROM load.effect AS e JOIN load.lease AS l USING (batch_id, event_id)
		WHERE e.event_id = t.event_id AND l.consumer_group = g AND outcome IN ('done', 'sent'))
SQL
	my $deadline = time + 20;
	my $session = SagazSession->new($node, 'postgres');

	$session->query('ANALYZE');
	while (time < $deadline)
	{
		my $got = 0;
		for my $ordering ('none', 'saga')
		{
			$got += $session->query(
				"SELECT load.handle_once('once_$ordering', 1000, false, false, false)");
			my $batch = $session->query(
				"SELECT load.take('lease_$ordering', 1000, false)");
			$session->query("SELECT load.work($batch, 'finish', 0)")
			  if $batch;
			$got += $batch;
		}
		$deadline = time + 20, next if $got;
		last if $session->query($left) == 0;
		usleep(50_000);
	}
	is($session->query($left), 0, 'nothing is lost');
	$session->query('ANALYZE');
	$session->close;
}

# One check: the query must return no row.
sub none_of
{
	my ($name, $sql) = @_;
	my ($status, $rows, $err) =
	  $node->psql('postgres', "SET enable_nestloop = off; $sql");
	is("$rows$err", '', $name);
}

sub check_deliveries
{
	none_of('nothing of an aborted transaction was handed out', <<'SQL');
SELECT event_id FROM load.once EXCEPT SELECT event_id FROM load.truth
UNION ALL (SELECT event_id FROM load.lease EXCEPT SELECT event_id FROM load.truth) LIMIT 5
SQL
	none_of('nothing is handed out twice where claim and finish are one', <<'SQL');
SELECT consumer_group, event_id, saga_id, n, array_agg(h)
FROM load.once GROUP BY 1, 2, 3, 4 HAVING count(*) > 1 LIMIT 5
SQL
	none_of('causal order in the ordered group', <<'SQL');
SELECT * FROM (
	SELECT saga_id, n, h, row_number() OVER (PARTITION BY saga_id ORDER BY h) AS turn
	FROM load.once WHERE consumer_group = 'once_saga' AND saga_id <> 'later') AS o
WHERE n <> turn LIMIT 5
SQL
	none_of('no event was tried before those it must follow were done', <<'SQL');
SELECT * FROM (
	SELECT saga_id, n, h, outcome,
		coalesce(max(n) FILTER (WHERE outcome IN ('done', 'sent'))
			OVER (PARTITION BY saga_id ORDER BY h ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS done
	FROM load.effect AS e
	WHERE saga_id <> 'later' AND batch_id IN (SELECT batch_id FROM load.lease WHERE consumer_group = 'lease_saga')) AS e
WHERE outcome <> 'held' AND n > done + 1 LIMIT 5
SQL
	none_of('who gets an event again has a reason', <<"SQL");
SELECT * FROM (
	SELECT l.batch_id, l.consumer_group, l.saga_id, l.n, e.outcome, e.at,
		l.claimed_at, s.extended, s.released, s.finished,
		lead(l.claimed_at) OVER w AS claimed_again_at, lead(l.batch_id) OVER w AS in_batch
	FROM load.lease AS l
	LEFT JOIN load.effect AS e USING (batch_id, event_id)
	LEFT JOIN (
		SELECT batch_id, max(until) FILTER (WHERE what = 'extended') AS extended,
			max(until) FILTER (WHERE what = 'released') AS released,
			bool_or(what = 'finished') AS finished
		FROM load.said GROUP BY batch_id) AS s USING (batch_id)
	WINDOW w AS (PARTITION BY l.consumer_group, l.event_id ORDER BY l.batch_id)) AS l
WHERE claimed_again_at IS NOT NULL
	AND CASE WHEN outcome = 'sent' THEN true
		WHEN outcome IN ('failed', 'held') THEN claimed_again_at < at
		WHEN finished THEN true
		WHEN released IS NOT NULL THEN claimed_again_at < released
		ELSE claimed_again_at < greatest(claimed_at + interval '$lease_s s', extended) END
LIMIT 5
SQL
	note($node->safe_psql('postgres', <<'SQL'));
SELECT format('%s events, %s batches with a lease, %s events handed out again, %s failures, %s releases, %s lost leases',
	(SELECT count(*) FROM load.truth), count(DISTINCT batch_id),
	count(*) - count(DISTINCT (consumer_group, event_id)),
	(SELECT count(*) FROM load.effect WHERE outcome = 'failed'),
	(SELECT count(*) FROM load.said WHERE what = 'released'),
	(SELECT count(*) FROM sagaz.outbox_receipt WHERE kind = 3)) FROM load.lease
SQL
}

# From commit to hand-out, in the group whose claimers are always well.
sub check_delay
{
	my $away = join ' OR ', 'false',
	  map { "(committed < to_timestamp($_->[1]) AND at > to_timestamp($_->[0]))" } @away;
	my ($count, $worst) = split /\|/, $node->safe_psql('postgres', <<"SQL");
SELECT count(*), max(extract(epoch FROM at - committed)) FROM (
	SELECT o.at, pg_xact_commit_timestamp(t.xmin) AS committed
	FROM load.once AS o JOIN load.truth AS t USING (event_id)
	WHERE o.consumer_group = 'once_none' AND o.saga_id <> 'later') AS o
WHERE NOT ($away)
SQL
	note("worst delay of $count events: $worst s");
	cmp_ok($count, '>', 1000, 'enough was handed out between the crashes');
	cmp_ok($worst, '<', 4, 'nobody waited for the 20 seconds\' transaction');
}

sub check_server
{
	my ($load) = @_;
	# a slow machine may need longer for a transaction than its lease lasts
	my @errors = grep { /ERROR:/ && !/lease ran out/ }
	  split /^(?=pgbench:)/m, $load->messages;
	my @crashes = grep { /PANIC|TRAP|by signal/ && !/signal 9/ } split /\n/,
	  slurp_file($node->logfile);

	note_changes();
	is_deeply(\@errors, [], 'no statement failed');
	is_deeply(\@crashes, [], 'the server crashed only when it was shot');
	is_deeply(\@changes, [], 'no update, no delete in log, batch and receipt');
	is($node->safe_psql('postgres', <<'SQL'), '0', 'nor a row lock');
SELECT sum(c) FROM (
	SELECT count(*) FROM sagaz.outbox WHERE xmax <> 0 UNION ALL
	SELECT count(*) FROM sagaz.outbox_batch WHERE xmax <> 0 UNION ALL
	SELECT count(*) FROM sagaz.outbox_receipt WHERE xmax <> 0) AS t (c)
SQL
}

sub random_load
{
	my $seconds = $ENV{SAGAZ_PROPERTY_SECONDS} // 60;
	my $seed = $ENV{SAGAZ_SEED} // int(rand(1_000_000));
	my $load = SagazLoad->new($node, $seed);

	diag("SAGAZ_SEED=$seed");
	$node->append_conf('postgresql.conf', <<"CONF");
sagaz.claim_timeout = '${lease_s}s'
sagaz.retry_backoff = '50ms'
sagaz.max_retries = 1000
restart_after_crash = on
CONF
	$node->reload;
	$node->safe_psql('postgres', slurp_file('test/property/model.sql'));
	$node->safe_psql('postgres',
		"SELECT sagaz.create_consumer_group('${_}_none'), sagaz.create_consumer_group('${_}_saga', 'saga')")
	  for 'once', 'lease';
	add_jobs($load);
	$load->begin($seconds);

	my $cycles = int($seconds / 30) || 1;
	trouble($load, $seconds, $seconds / $cycles, $_) for 0 .. $cycles - 1;
	$load->until_left(0);
	push @away, [ time - 1, time + 600 ];
	ok($load->finish(30), 'every client came to its end');

	drain();
	check_deliveries();
	check_delay();
	check_server($load);
}

exact_scenarios();
if (Test::More->builder->is_passing)
{
	random_load();
}
else
{
	diag('The load is left out, for it could tell no more.');
}
$node->stop;

done_testing();
