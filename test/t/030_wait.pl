# wait_for_events(): what wakes it, what it holds meanwhile, and how it ends.
use strict;
use warnings;

use IPC::Run ();
use PostgreSQL::Test::Utils;
use SagazTest;
use Test::More;

my $node;

# psql on its own, running one statement
sub start_session
{
	my ($sql, %options) = @_;
	my $session = { out => '', err => '' };

	$session->{harness} = IPC::Run::start(
		[
			'psql', '-XAtq', '-v', 'ON_ERROR_STOP=0',
			'-v', 'VERBOSITY=sqlstate',
			'-d', $node->connstr('postgres') . ' application_name=sleeper',
			map { ('-c', $_) } ref $sql ? @$sql : $sql
		],
		'<', \undef, '>', \$session->{out}, '2>', \$session->{err},
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return $session;
}

sub result_of
{
	my ($session) = @_;

	$session->{harness}->finish;
	chomp(my $result = $session->{out} . $session->{err});
	return $result;
}

# Until the session sleeps, holding nothing back.
sub sleeps
{
	my ($what) = @_;

	return ok( $node->poll_query_until(
			'postgres', q{
		SELECT count(*) = 1 FROM pg_stat_activity
			WHERE application_name = 'sleeper' AND wait_event = 'Extension'
				AND backend_xmin IS NULL AND backend_xid IS NULL}),
		$what);
}

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

sub sqlstate_of
{
	my ($statement) = @_;
	my (undef, undef, $err) = $node->psql('postgres', $statement,
		extra_params => [ '-v', 'VERBOSITY=sqlstate' ]);

	return $err =~ /ERROR:\s+(\w{5})/ ? $1 : "no error: $err";
}

sub set_up
{
	my ($name, $preload, $conf) = @_;

	$node = new_node($name, preload => $preload, conf => $conf);
	sql(q{SELECT sagaz.create_consumer_group('g')});
}

# Claim and finish whatever there is.
sub drain
{
	sql(q{SELECT sagaz.finish_batch(batch_id, 'w') FROM
		(SELECT DISTINCT batch_id FROM sagaz.claim_batch('w', 1000, '0', 'g')) b});
}

my $insert = q{SELECT sagaz.insert_event('a', 'b', '1')};
my $wait = q{CALL sagaz.wait_for_events('100 s', 'g')};
my $session;

# A commit wakes: the net is too wide to be it.
set_up('preloaded', 1, 'sagaz.poll_interval = 1h');
is(sql(q{CALL sagaz.wait_for_events('0', 'g')}), 'f', 'nothing yet');
is(sql(q{CALL sagaz.wait_for_events('100 ms', 'g')}), 'f', 'the timeout comes');
$session = start_session($wait);
sleeps('sleeps without snapshot and xid');
is( sql(q{SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
		WHERE application_name = 'sleeper' AND locktype <> 'virtualxid'}),
	'0', 'and without a lock');
sql("BEGIN; $insert; ROLLBACK");
sleeps('a rollback is no event');
sql($insert);
is(result_of($session), 't', 'a commit of an event wakes');
is(sql($wait), 't', 'what is there needs no sleep');
drain();

$session = start_session($wait);
sleeps('sleeps again');
sql(q{INSERT INTO sagaz.emit (saga_id, event_type, payload) VALUES ('a', 'b', '1')});
is(result_of($session), 't', 'an insert into emit wakes');

sql(q{SELECT sagaz.pause_consumer_group('g')});
$session = start_session($wait);
sleeps('a paused group has nothing to claim');
sql(q{SELECT sagaz.resume_consumer_group('g')});
is(result_of($session), 't', 'until it is resumed');
drain();

# The clock wakes.
sql(q{SELECT sagaz.insert_event('a', 'b', '1', available_at => now() + '2 s')});
$session = start_session($wait);
is(result_of($session), 't', 'a scheduled event wakes when its time has come');
is( sql(q{SELECT now() >= available_at FROM sagaz.outbox
		WHERE available_at IS NOT NULL}), 't', 'not before');
drain();

sql($insert);
sql(q{SELECT sagaz.release_batch(batch_id, 'w', NULL, '1 s')
	FROM sagaz.claim_batch('w', consumer_group => 'g')});
is(result_of(start_session($wait)), 't', 'a released batch wakes');
is( sql(q{SELECT clock_timestamp() >= until FROM sagaz.outbox_receipt
		WHERE until IS NOT NULL}), 't', 'not before');
is(sql(q{SELECT count(*) FROM sagaz.claim_batch('w', consumer_group => 'g')}),
	'1', 'and can be claimed');
$session = start_session($wait);
sleeps('what is out is not there');
sql(q{SELECT sagaz.release_stuck_events('0', 'g')});
is(result_of($session), 't', 'until it is released as stuck');
sql(q{SELECT sagaz.mark_failed(array_agg(event_id), 'w', 'x', 'g')
	FROM sagaz.claim_batch('w', consumer_group => 'g')});
is(result_of(start_session($wait)), 't', 'a retry wakes when it is due');
is( sql(q{SELECT clock_timestamp() >= next_attempt_at FROM sagaz.outbox_retry
		WHERE state = 1}), 't', 'not before');
is(sql(q{SELECT count(*) FROM sagaz.claim_batch('w', consumer_group => 'g')}),
	'1', 'and can be claimed');
sql(q{ALTER SYSTEM SET sagaz.claim_timeout = '3s'});
$node->reload;
is(result_of(start_session($wait)), 't', 'a lease wakes when it has run out');
is(sql(q{SELECT count(*) FROM sagaz.claim_batch('w', consumer_group => 'g')}),
	'1', 'and can be claimed');
sql(q{ALTER SYSTEM RESET sagaz.claim_timeout});
$node->reload;

# In an ordered group what is behind a batch that is out is not there.
sql(q{SELECT sagaz.create_consumer_group('o', 'saga', 'now')});
sql("$insert; $insert");
my $batch = sql(q{SELECT batch_id FROM sagaz.claim_batch('w', 1, '0', 'o')});
$session = start_session(q{CALL sagaz.wait_for_events('100 s', 'o')});
sleeps('an ordered lane is busy');
sql("SELECT sagaz.finish_batch($batch, 'w')");
is(result_of($session), 't', 'until its batch is finished');
drain();

# What others give back is seen at once, not when the lease would have ended.
sql($insert);
$batch = sql(q{SELECT batch_id FROM sagaz.claim_batch('w', consumer_group => 'g')});
$session = start_session($wait);
sleeps('another has it');
sql("SELECT sagaz.release_batch($batch, 'w')");
is(result_of($session), 't', 'a release wakes');
sql(q{SELECT count(*) FROM sagaz.claim_batch('w', consumer_group => 'g')});
$session = start_session($wait);
sleeps('another has it again');
sql(q{SELECT sagaz.mark_failed(ARRAY[event_id], 'w', 'x', 'g') FROM sagaz.outbox
	ORDER BY seq DESC LIMIT 1});
is(result_of($session), 't', 'so does the retry of a failure');
drain();

# Every way out.
$session = start_session([ $wait, q{SELECT 'alive'} ]);
sleeps('sleeps before a cancel');
sql(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity
	WHERE application_name = 'sleeper'});
like(result_of($session), qr/alive\n.*57014/s, 'it can be cancelled, the session lives');
$session = start_session($wait);
sleeps('sleeps before its end');
sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity
	WHERE application_name = 'sleeper'});
like(result_of($session), qr/57P01|terminating/, 'it can be terminated');
is(sqlstate_of("SET statement_timeout = '200ms';\n$wait"), '57014',
	'statement_timeout ends it');
like(result_of(start_session("SELECT 1; $wait")), qr/SZ005/,
	'several statements in one are a transaction block');
is(sqlstate_of("BEGIN; $wait"), 'SZ005', 'not in a transaction block');
sql(q{CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS
	$$ DECLARE a boolean; BEGIN CALL sagaz.wait_for_events('0', 'g', a); END $$});
is(sqlstate_of('SELECT f()'), 'SZ005', 'not in a function');
is( sqlstate_of(q{DO $$ DECLARE a boolean; BEGIN
		BEGIN CALL sagaz.wait_for_events('0', 'g', a); EXCEPTION WHEN division_by_zero THEN END;
	END $$}), 'SZ005', 'not in a subtransaction');
is( sql(q{DO $$ DECLARE a boolean; BEGIN CALL sagaz.wait_for_events('0', 'g', a);
		IF a THEN RAISE 'there is nothing'; END IF; END $$}),
	'', 'in a DO block');
is(sqlstate_of(q{CALL sagaz.wait_for_events('0', 'nobody')}), 'SZ002', 'no such group');
is(sqlstate_of(q{CALL sagaz.wait_for_events(NULL)}), 'SZ009', 'no timeout');
is(sqlstate_of(q{CALL sagaz.wait_for_events('-1 s')}), 'SZ009', 'a negative timeout');
is(sqlstate_of(q{CALL sagaz.wait_for_events('0', '')}), 'SZ009', 'no name');
is(sql(q{CALL sagaz.wait_for_events('0')}), 't',
	'the default group need not exist to have something');
is(sql(q{SELECT count(*) FROM sagaz.consumer_group
	WHERE consumer_group = 'sagaz-workers'}), '0', 'and is not made');
sql(q{SELECT FROM sagaz.claim_batch('w', 1000)});
is(sql(q{CALL sagaz.wait_for_events('0')}), 'f', 'all is handed out');
sql(q{INSERT INTO sagaz.outbox (created_at, saga_id, event_type, payload)
	VALUES ('1999-12-31', 'a', 'old', '1')});
is(sql(q{CALL sagaz.wait_for_events('0')}), 't',
	'an event is never too old for a group that gets all');
is(sql(q{SELECT (sagaz.update_event_status(event_id, 'sent')).status
	FROM sagaz.outbox WHERE event_type = 'old'}), 'sent', 'nor for an operator');
$node->stop;

# The net: COMMIT PREPARED tells nobody, and without preload no commit does.
for my $preload (1, 0)
{
	my $name = $preload ? 'preloaded' : 'plain';

	set_up("net_$name", $preload, 'sagaz.poll_interval = 100ms');
	$session = start_session($wait);
	sleeps("$name: sleeps");
	sql("BEGIN; $insert; PREPARE TRANSACTION 'p'");
	sleeps("$name: a prepared transaction is no commit");
	sql(q{COMMIT PREPARED 'p'});
	is(result_of($session), 't', "$name: finds what nothing announced");
	drain();
	$session = start_session([ $wait, q{SELECT 'alive'} ]);
	sleeps("$name: sleeps again");
	sql(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity
		WHERE application_name = 'sleeper'});
	like(result_of($session), qr/alive\n.*57014/s, "$name: can be cancelled");
	$node->stop;
}

done_testing();
