# What becomes of events that the worker hands to a function, and when.  The
# net is so wide that nothing is found by polling unless a test says so.
use strict;
use warnings;

use SagazSession;
use SagazTest;
use Test::More;

# By so much may something come late that has a time.
my $late = '0.5 s';

my $node = new_node('delivery', conf => <<'CONF');
fsync = off
autovacuum = off
sagaz.poll_interval = 1h
sagaz.housekeeping_interval = 1h
sagaz.retry_backoff = 1h
sagaz.max_retries = 1000
CONF

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

# Change a setting, whose value is written as SHOW does.
sub set
{
	my ($name, $value) = @_;

	sql("ALTER SYSTEM SET sagaz.$name = '$value'");
	$node->reload;
	$node->poll_query_until('postgres',
		"SELECT current_setting('sagaz.$name') = '$value'")
	  or die "no reload of $name";
}

sub wait_for
{
	my ($query, $what) = @_;

	return ok($node->poll_query_until('postgres', "SELECT $query"), $what);
}

# What a handler has written, and what the events it gets ask it for.
sql(<<'SQL');
CREATE TABLE effect (n bigserial, consumer_group text, saga_id text,
	event_type text, event_id uuid, at timestamptz DEFAULT clock_timestamp(),
	call_time timestamptz, who text DEFAULT current_user,
	xact xid8 DEFAULT pg_current_xact_id());
CREATE TABLE broken (event_type text);
CREATE TABLE parent (id integer PRIMARY KEY);
CREATE TABLE child (id integer REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
CREATE SEQUENCE tries;
CREATE FUNCTION act(event sagaz.outbox_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	CASE event.payload->>'do'
		WHEN 'fail' THEN
			RAISE 'bad %', event.event_type;
		WHEN 'count' THEN
			RAISE 'try %', nextval('public.tries');
		WHEN 'break' THEN
			IF EXISTS (SELECT FROM public.broken) THEN
				RAISE 'broken %', event.event_type;
			END IF;
		WHEN 'orphan' THEN
			INSERT INTO public.child VALUES (1);
		WHEN 'hang' THEN
			PERFORM pg_sleep(1000);
		WHEN 'loop' THEN
			LOOP
			END LOOP;
		WHEN 'wait' THEN
			PERFORM pg_advisory_xact_lock_shared(1);
		WHEN 'deadlock' THEN
			IF nextval('public.tries') <= 3 THEN
				RAISE SQLSTATE '40P01' USING MESSAGE = 'passing';
			END IF;
		WHEN 'serialization' THEN
			IF nextval('public.tries') <= 3 THEN
				RAISE SQLSTATE '40001' USING MESSAGE = 'passing';
			END IF;
		WHEN 'emit' THEN
			PERFORM sagaz.insert_event(event.saga_id, 'follow-up', '{}');
		ELSE
			NULL;
	END CASE;
END $$;
CREATE FUNCTION handle(events sagaz.outbox_event[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	event sagaz.outbox_event;
	call_time timestamptz := clock_timestamp();
BEGIN
	FOREACH event IN ARRAY events LOOP
		INSERT INTO public.effect (consumer_group, saga_id, event_type, event_id, call_time)
			VALUES (event.consumer_group, event.saga_id, event.event_type,
				event.event_id, call_time);
		PERFORM public.act(event);
	END LOOP;
END $$;
SQL

# A group from now on and its delivery, both of that name.
sub deliver
{
	my ($name, %options) = @_;
	my $handler = $options{handler} // 'public.handle';
	my $ordering = $options{ordering} // 'none';
	my $more = join '',
	  map { ", $_ => '$options{$_}'" } grep { exists $options{$_} } qw(batch_size timeout);

	sql("SELECT sagaz.create_consumer_group('$name', '$ordering', 'now')");
	sql("SELECT sagaz.create_delivery('$name', '$handler(sagaz.outbox_event[])', '$name'$more)");
}

# Events 'saga/type' or 'saga/type=what to do' of one transaction.
sub events
{
	my @events = map {
		m{(.*?)/([^=]*)=?(.*)} or die $_;
		qq({"saga_id": "$1", "event_type": "$2", "payload": {"do": "$3"}})
	} split ' ', $_[0];

	return "SELECT count(*) FROM unnest(sagaz.insert_events('[" . join(',', @events) . "]'))";
}

sub emit
{
	sql(events($_[0]));
}

# The types of the events that were handled for a group, in their order.
sub handled
{
	my ($group) = @_;

	return "(SELECT coalesce(string_agg(event_type, ' ' ORDER BY n), '') FROM effect"
	  . " WHERE consumer_group = '$group')";
}

sub stat_is
{
	my ($group, $columns, $expected, $what) = @_;

	return is(sql("SELECT $columns FROM sagaz.stat_delivery WHERE name = '$group'"),
		$expected, $what);
}

# The retry rows of a group: event, state and count.
sub retries
{
	my ($group) = @_;

	return sql(qq{SELECT coalesce(string_agg(o.event_type || ' ' || r.state || ' ' || r.retry_count,
			', ' ORDER BY r.seq), '')
		FROM sagaz.outbox_retry r JOIN sagaz.consumer_group g USING (group_no)
			JOIN sagaz.outbox o USING (seq)
		WHERE consumer_group = '$group' AND r.state <> 5});
}

sub drop
{
	sql("SELECT sagaz.drop_delivery('$_')") for @_;
}

sub plain_delivery
{
	deliver('plain');
	deliver('second');
	wait_for(q{count(*) = 2 FROM pg_stat_activity WHERE backend_type = 'sagaz worker'
			AND application_name IN ('sagaz delivery plain', 'sagaz delivery second')
			AND usename = current_user AND datname = 'postgres' AND state = 'idle'
			AND backend_xid IS NULL AND backend_xmin IS NULL},
		'a worker each, that sleeps');
	wait_for(q{count(*) = 2 FROM sagaz.stat_delivery WHERE state = 'idle' AND pid IS NOT NULL
			AND started_at <= now() AND delivered = 0 AND last_delivery_at IS NULL
			AND lag_events = 0}, 'and stat_delivery shows it');
	emit(join ' ', map { "s$_/e$_" } 1 .. 20);
	wait_for(q{count(*) = 40 FROM effect}, 'every event is delivered');
	is( sql(q{SELECT consumer_group, count(DISTINCT event_id), bool_and(at >= now() - interval '1 min')
			FROM effect GROUP BY 1 ORDER BY 1}),
		"plain|20|t\nsecond|20|t", 'once to each');
	wait_for(q{delivered = 20 AND batches >= 1 AND failed = 0 AND dead = 0 AND lag_events = 0
			AND last_delivery_at >= now() - interval '1 min' AND last_error IS NULL
			FROM sagaz.stat_delivery WHERE name = 'plain'}, 'and counted');
	is( sql(q{SELECT count(*) FROM effect JOIN sagaz.outbox_batch
			ON consumer_group = 'plain' AND outbox_batch.xmin::text = xact::text
			JOIN sagaz.outbox_receipt r USING (batch_id)
			WHERE outbox_batch.worker_id = 'sagaz delivery plain'
				AND r.xmin = outbox_batch.xmin AND kind = 1 AND outbox_batch.events > 0}) > 0,
		1, 'claim, effect and finish are of one transaction');
	drop('second');
	wait_for(q{count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'sagaz worker'},
		'a delivery that is dropped has no worker');
	emit('s1/last');
	wait_for(handled('plain') . q{ LIKE '%last'}, 'the other goes on');
	is(sql(q{SELECT count(*) FROM effect WHERE consumer_group = 'second'}), '20', 'it does not');
	drop('plain');
}

sub failures
{
	deliver('split');
	emit('s1/a s2/b s3/c=fail s4/d s5/e s6/f s7/g=fail s8/h s9/i s10/j s11/k=orphan s12/l');
	wait_for(q{count(*) = 9 FROM effect WHERE consumer_group = 'split'},
		'a batch is split until what fails is alone');
	is( sql(q{SELECT string_agg(event_type, '' ORDER BY event_type) FROM effect
			WHERE consumer_group = 'split'}), 'abdefhijl', 'all others are delivered, once');
	is(retries('split'), 'c 1 1, g 1 1, k 1 1', 'those wait for a retry');
	is( sql(q{SELECT string_agg(last_error, ', ' ORDER BY seq) FROM sagaz.outbox_retry}) =~
		  /^bad c, bad g, .*violates foreign key/,
		1, 'with their errors, that of a deferred constraint too');
	is(sql('SELECT count(*) FROM child'), '0', 'and none of their effects');
	stat_is('split', q{delivered, failed, dead, lag_events, regexp_replace(last_error, '^event [-0-9a-f]{36}: ', ''), last_error_at IS NOT NULL},
		'9|3|0|0|bad c|t', 'they are counted');
	drop('split');

	set('retry_backoff', '50ms');
	set('max_retries', 2);
	deliver('dead', ordering => 'saga');
	emit('s1/a=count s1/b s2/c');
	wait_for(q{count(*) = 2 FROM effect WHERE consumer_group = 'dead'},
		'what is behind a dead letter goes on');
	is(sql('SELECT ' . handled('dead')), 'c b', 'but not before it is one');
	is(retries('dead'), 'a 4 3', 'after as many retries as the setting says');
	stat_is('dead', 'delivered, failed, dead', '2|2|1', 'and so it is counted');
	is(sql(q{SELECT event_type, retry_count, last_error LIKE 'try %'
			FROM sagaz.get_dead_letter_events(consumer_group => 'dead')}), 'a|3|t', 'a dead letter');
	drop('dead');
	set('max_retries', 1000);
}

sub order_of_a_saga
{
	deliver('ordered', ordering => 'saga');
	sql(q{INSERT INTO broken VALUES ('x')});
	emit('a/a1 a/a2=break a/a3 b/b1 a/a4 b/b2');
	wait_for(q{count(*) = 3 FROM effect WHERE consumer_group = 'ordered'}, 'other sagas go on');
	emit('a/a5 c/c1');
	wait_for(q{count(*) = 4 FROM effect WHERE consumer_group = 'ordered'}, 'later ones, too');
	is( sql(q{SELECT string_agg(event_type, ' ' ORDER BY event_type) FROM effect
			WHERE consumer_group = 'ordered'}),
		'a1 b1 b2 c1', 'what is behind the failure waits');
	is(retries('ordered') =~ s/2 1 \d+/2 1 n/r, 'a2 1 n, a3 2 0, a4 2 0, a5 2 0',
		'and counts as no failure');
	sql('DELETE FROM broken');
	wait_for(q{count(*) = 8 FROM effect WHERE consumer_group = 'ordered'}, 'until it succeeds');
	is( sql(q{SELECT string_agg(event_type, ' ' ORDER BY n) FROM effect
			WHERE consumer_group = 'ordered' AND saga_id = 'a'}),
		'a1 a2 a3 a4 a5', 'then all come in order');
	drop('ordered');
}

sub slow_handlers
{
	set('retry_backoff', '1h');
	for my $way ('hang', 'loop')
	{
		deliver($way, timeout => '200 ms');
		emit("s1/a s2/b s3/c=$way s4/d s5/e");
		wait_for(qq{count(*) = 4 FROM effect WHERE consumer_group = '$way'},
			"$way: the timeout stops it, and the others are delivered");
		is(retries($way), 'c 1 1', "$way: it waits for a retry");
		stat_is($way, q{delivered, failed, regexp_replace(last_error, '^event [-0-9a-f]{36}: ', '')},
			'4|1|the handler did not end within 200 ms', "$way: with its error");
		emit('s1/f');
		wait_for(handled($way) . q{ LIKE '% f'}, "$way: and the delivery goes on");
		drop($way);
	}
}

# Errors that no event is to blame for.
sub passing_errors
{
	set('retry_backoff', '10ms');
	for my $error ('serialization', 'deadlock')
	{
		sql('ALTER SEQUENCE tries RESTART');
		deliver($error);
		emit("s1/a s2/b=$error s3/c");
		wait_for(qq{count(*) = 3 FROM effect WHERE consumer_group = '$error'},
			"$error: tried again");
		is(retries($error), '', "$error: no failure");
		stat_is($error, 'delivered, failed, last_error', '3|0|passing', "$error: but seen");
		is(sql('SELECT last_value FROM tries'), '4', "$error: tried as it was, no part alone");
		drop($error);
	}

	deliver('cancel');
	my $locker = SagazSession->new($node, 'postgres');
	$locker->query('SELECT pg_advisory_lock(1)');
	emit('s1/a s2/b=wait');
	wait_for(q{count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'advisory'
			AND query LIKE 'sagaz: delivering % events of batch % to public.handle(sagaz.outbox_event[])'},
		'a handler at work');
	stat_is('cancel', 'state', 'delivering', 'is shown');
	my $cancel = q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity
		WHERE application_name = 'sagaz delivery cancel'};
	sql($cancel);
	wait_for(q{last_error LIKE 'canceling%' FROM sagaz.stat_delivery WHERE name = 'cancel'},
		'it can be cancelled');
	$locker->query('SELECT pg_advisory_unlock(1)');
	wait_for(q{count(*) = 2 FROM effect WHERE consumer_group = 'cancel'}, 'and is tried again');
	is(retries('cancel'), '', 'that was no failure');
	my $pid = sql(q{SELECT pid FROM sagaz.stat_delivery WHERE name = 'cancel'});
	wait_for(q{state = 'idle' FROM sagaz.stat_delivery WHERE name = 'cancel'}, 'it sleeps');
	sql($cancel);
	emit('s3/c');
	wait_for(q{count(*) = 3 FROM effect WHERE consumer_group = 'cancel'},
		'a cancel of one that sleeps does nothing');
	stat_is('cancel', 'pid', $pid, 'not even end it');
	$locker->close;
	drop('cancel');
}

sub follow_up
{
	deliver('emit');
	emit('s1/a=emit');
	wait_for(handled('emit') . q{ = 'a follow-up'}, 'an event that the handler emitted is delivered');
	is(sql(q{SELECT count(DISTINCT xact) FROM effect WHERE consumer_group = 'emit'}),
		'2', 'once its transaction has committed');
	drop('emit');
}

# What wakes a worker, and what doesn't.
sub wakes
{
	my $session = SagazSession->new($node, 'postgres');
	my $changed = q{SELECT state_change FROM pg_stat_activity
		WHERE application_name = 'sagaz delivery wake'};

	deliver('wake');
	$session->query("BEGIN; SAVEPOINT a; " . events('s1/no') . "; ROLLBACK TO a; "
		  . events('s1/a') . "; SAVEPOINT b; " . events('s1/b') . "; RELEASE b; COMMIT");
	wait_for(handled('wake') . q{ = 'a b'}, 'savepoints');
	$session->query("DO \$\$ BEGIN PERFORM sagaz.insert_event('s1', 'no', '1');
		RAISE 'x'; EXCEPTION WHEN OTHERS THEN PERFORM sagaz.insert_event('s1', 'c', '{}'); END \$\$");
	wait_for(handled('wake') . q{ = 'a b c'}, 'a block with an exception');

	wait_for(q{state = 'idle' FROM sagaz.stat_delivery WHERE name = 'wake'}, 'it sleeps');
	my $before = sql($changed);
	for (1 .. 20)
	{
		$session->query('BEGIN');
		$session->query(events('s1/no'));
		$session->query('ROLLBACK');
		$session->query('INSERT INTO parent VALUES (0)');
		$session->query('DELETE FROM parent');
	}
	is(sql($changed), $before, 'a transaction undone wakes nobody, nor does the next one');
	$session->query('BEGIN; ' . events('s1/d') . q{; PREPARE TRANSACTION 'p'});
	$session->query('INSERT INTO parent VALUES (0)');
	is(sql($changed), $before, 'one that is prepared neither');
	sql(q{COMMIT PREPARED 'p'});
	wait_for(handled('wake') . q{ = 'a b c d'}, 'but when it is committed');

	my (undef, undef, $err) = $node->psql('postgres', q{BEGIN;
		SELECT sagaz.create_delivery('prepared', 'public.handle(sagaz.outbox_event[])');
		PREPARE TRANSACTION 'd'}, extra_params => [ '-v', 'VERBOSITY=sqlstate' ]);
	like($err, qr/0A000/, 'a delivery cannot be made in two phases');

	# while a change is under way nothing is delivered, and then all
	$session->query(q{BEGIN; SELECT sagaz.pause_delivery('wake')});
	emit('s1/e');
	$session->query('ROLLBACK');
	wait_for(handled('wake') . q{ = 'a b c d e'}, 'a pause that is undone');
	$session->close;
	drop('wake');
}

# Was the event handled at the time that the query tells?
sub in_time
{
	my ($group, $event, $query, $what) = @_;
	my $due = sql($query);

	wait_for(qq{count(*) = 1 FROM effect
			WHERE consumer_group = '$group' AND event_type = '$event'}, "$what: delivered");
	is( sql(qq{SELECT CASE WHEN at < '$due' THEN 'early' WHEN at > '$due'::timestamptz + '$late'
			THEN (at - '$due')::text ELSE 'in time' END FROM effect
		WHERE consumer_group = '$group' AND event_type = '$event'}),
		'in time', "$what: in time");
}

sub due_times
{
	set('retry_backoff', '2s');
	deliver('times');
	sql(q{INSERT INTO broken VALUES ('x')});
	emit('s1/a=break');
	wait_for(q{count(*) = 1 FROM sagaz.outbox_retry WHERE last_error = 'broken a'}, 'a failure');
	sql('DELETE FROM broken');
	in_time('times', 'a', q{SELECT next_attempt_at FROM sagaz.outbox_retry
		WHERE last_error = 'broken a'}, 'a retry');
	sql(q{SELECT sagaz.insert_event('s1', 'b', '{}', available_at => now() + '1 s')});
	in_time('times', 'b', q{SELECT available_at FROM sagaz.outbox WHERE event_type = 'b'
		ORDER BY seq DESC LIMIT 1}, 'a scheduled event');
	sql(q{SELECT sagaz.pause_delivery('times')});
	my $claim = q{FROM sagaz.claim_batch('other', consumer_group => 'times')};
	emit('s1/c');
	sql("SELECT sagaz.release_batch(batch_id, 'other', 'x', '1 s') $claim");
	sql(q{SELECT sagaz.resume_delivery('times')});
	in_time('times', 'c', q{SELECT max(until) FROM sagaz.outbox_receipt}, 'a batch given back');
	sql(q{SELECT sagaz.pause_delivery('times')});
	set('claim_timeout', '1500ms');
	emit('s1/d');
	sql("SELECT event_id $claim");
	sql(q{SELECT sagaz.resume_delivery('times')});
	in_time('times', 'd', q{SELECT max(claimed_at) + interval '1500 ms' FROM sagaz.outbox_batch
		WHERE worker_id = 'other'}, 'a lease that ran out');
	sql('ALTER SYSTEM RESET sagaz.claim_timeout');
	$node->reload;
	drop('times');
}

sub pauses
{
	my ($locker, $other) = map { SagazSession->new($node, 'postgres') } 1 .. 2;

	deliver('held');
	$locker->query('SELECT pg_advisory_lock(1)');
	emit('s1/a=wait');
	wait_for(q{count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'advisory'}, 'a batch under way');
	$other->send(q{SELECT sagaz.pause_delivery('held')});
	wait_for("wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $other->{pid}",
		'who pauses waits for it');
	$locker->query('SELECT pg_advisory_unlock(1)');
	$other->result;
	is($other->query('SELECT ' . handled('held')), 'a', 'then it is done');
	$_->close for $locker, $other;
	drop('held');

	sql(q{CREATE TABLE stop (); CREATE PROCEDURE flood() LANGUAGE plpgsql AS $$
		DECLARE i integer := 0;
		BEGIN
			WHILE NOT EXISTS (SELECT FROM stop) LOOP
				i := i + 1;
				PERFORM sagaz.insert_event('s' || i % 20, 'flood', '{}'), pg_sleep(0.001);
				COMMIT;
			END LOOP;
		END $$});
	deliver($_) for 'paused', 'control';
	$other = SagazSession->new($node, 'postgres');
	$other->send('CALL flood()');
	for my $turn (1 .. 3)
	{
		wait_for(qq{count(*) > 100 * $turn FROM effect WHERE consumer_group = 'paused'}, 'a flood');
		sql(q{SELECT sagaz.pause_delivery('paused')});
		my ($after, $count) = split /\|/, sql(q{SELECT clock_timestamp(), count(*) FROM effect
			WHERE consumer_group = 'paused'});
		wait_for(qq{count(*) > 100 FROM effect JOIN sagaz.outbox USING (event_id)
				WHERE effect.consumer_group = 'control' AND created_at > '$after'},
			'another delivery goes on');
		is( sql(qq{SELECT count(*), count(*) FILTER (WHERE at > '$after') FROM effect
				WHERE consumer_group = 'paused'}),
			"$count|0", 'one that is paused does not');
		stat_is('paused', 'state, pid', 'paused|', 'as is shown');
		sql(q{SELECT sagaz.resume_delivery('paused')});
	}
	sql('INSERT INTO stop DEFAULT VALUES');
	$other->result;
	$other->close;
	wait_for(q{bool_and(n = (SELECT count(*) FROM sagaz.outbox WHERE event_type = 'flood'))
			FROM (SELECT count(*) FROM effect WHERE event_type = 'flood' GROUP BY consumer_group) g (n)},
		'in the end both have all');
	is(sql(q{SELECT count(*) - count(DISTINCT (consumer_group, event_id)) FROM effect
			WHERE event_type = 'flood'}), '0', 'and nothing twice');
	drop('paused', 'control');
}

# Settings that the owner has, or that a handler leaves behind.
sub other_settings
{
	sql(<<'SQL');
CREATE ROLE clerk LOGIN;
CREATE ROLE someone;
SELECT sagaz.grant_access('clerk', 'operator');
GRANT INSERT ON effect TO clerk;
GRANT USAGE ON SEQUENCE effect_n_seq TO clerk;
ALTER ROLE clerk SET default_transaction_isolation = 'serializable';
ALTER ROLE clerk SET default_transaction_read_only = on;
ALTER ROLE clerk SET default_transaction_deferrable = on;
ALTER ROLE clerk SET search_path = nowhere;
ALTER ROLE clerk SET application_name = 'clerk';
ALTER DATABASE postgres SET default_transaction_isolation = 'repeatable read';
CREATE TABLE seen (event_type text, settings text);
CREATE FUNCTION leave(events sagaz.outbox_event[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.seen SELECT events[1].event_type, concat_ws(' ',
		current_user, session_user, current_setting('work_mem'),
		current_setting('search_path'), current_setting('transaction_isolation'),
		current_setting('transaction_read_only'), current_setting('lock_timeout'));
	PERFORM set_config('lock_timeout', '5s', true), set_config('work_mem', '77MB', false),
		set_config('search_path', 'nowhere', false),
		set_config('default_transaction_isolation', 'serializable', false),
		set_config('default_transaction_read_only', 'on', false),
		set_config('role', 'someone', false);
END $$;
SQL
	sql(q{SELECT sagaz.create_consumer_group('clerk', start_from => 'now')});
	sql(q{SET ROLE clerk; SELECT sagaz.create_delivery('clerk', 'public.handle(sagaz.outbox_event[])', 'clerk')});
	emit('s1/a');
	wait_for(q{count(*) = 1 FROM effect WHERE consumer_group = 'clerk' AND who = 'clerk'},
		'settings of the owner do no harm');
	emit('s1/b');
	wait_for(q{count(*) = 2 FROM effect WHERE consumer_group = 'clerk' AND who = 'clerk'},
		'and go on doing none');
	is( sql(q{SELECT application_name FROM pg_stat_activity WHERE usename = 'clerk'}),
		'sagaz delivery clerk', 'nor to the name');
	drop('clerk');

	my (undef, undef, $err) = $node->psql('postgres', q{SELECT sagaz.grant_access('someone', 'operator'); SET ROLE someone;
		SELECT sagaz.create_delivery('x', 'public.handle(sagaz.outbox_event[])')});
	like($err, qr/role "someone" cannot own a delivery/, 'a role that may not log in owns none')
	  if sql('SHOW server_version_num') < 170000;
	drop('x') if sql(q{SELECT count(*) FROM sagaz.delivery});

	deliver('leave', handler => 'public.leave', batch_size => 1);
	emit('s1/a s1/b s1/c s1/d');
	wait_for(q{count(*) = 4 FROM seen}, 'a handler that changes settings');
	emit("s1/$_") for 'e' .. 'h';
	wait_for(q{count(*) = 8 FROM seen}, 'goes on');
	is(sql(q{SELECT count(*), min(settings) LIKE '% read committed off 0' FROM seen GROUP BY settings}),
		'8|t', 'none is left for the next batch');
	drop('leave');
	sql('ALTER DATABASE postgres RESET ALL');
}

# Some seconds without anything to do.
sub idleness
{
	my $seconds = 3;
	my $session = SagazSession->new($node, 'postgres');

	# How often processes went to sleep; what is faster than the eye is missed.
	sql(<<'SQL');
CREATE FUNCTION looks(seconds integer) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	seen text[];
BEGIN
	WHILE clock_timestamp() < now() + seconds * interval '1 s' LOOP
		seen := seen || ARRAY(SELECT pid::text || state_change FROM pg_stat_activity
			WHERE backend_type LIKE 'sagaz%');
		PERFORM pg_sleep(0.01), pg_stat_clear_snapshot();
	END LOOP;
	-- the first of each process was before
	RETURN (SELECT count(DISTINCT t) - 3 FROM unnest(seen) AS t);
END $$;
SQL
	deliver($_) for 'idle1', 'idle2';
	emit('s1/a');
	wait_for(q{count(*) = 2 FROM effect WHERE consumer_group LIKE 'idle_'}, 'once busy');
	# who reads a catalog prunes it
	sql('VACUUM');
	for my $polls (0, 2)
	{
		set('poll_interval', $polls ? 1000 / $polls . 'ms' : '1h');
		wait_for(q{count(*) = 2 FROM sagaz.stat_delivery WHERE state = 'idle'}, 'then idle');
		my $lsn = $session->query('SELECT pg_current_wal_insert_lsn()');
		my $looks = $session->query("SELECT looks($seconds)");
		is($session->query('SELECT pg_current_wal_insert_lsn()'), $lsn, "$polls polls: no WAL");
		note("$looks looks in $seconds seconds");
		cmp_ok($looks, '<=', 2 * ($polls * $seconds + ($polls > 0)),
			"$polls polls a second: no look beyond");
		cmp_ok($looks, '>=', $polls * ($seconds - 1), "$polls polls: none left out");
		is($session->query(q{SELECT count(*) FROM pg_stat_activity
				WHERE backend_type LIKE 'sagaz%' AND (state <> 'idle' OR xact_start IS NOT NULL
					OR backend_xid IS NOT NULL OR backend_xmin IS NOT NULL
					OR query !~ '^(sagaz: .*)?$')}), '0', "$polls polls: no query, no transaction");
	}
	$session->close;
	drop('idle1', 'idle2');
}

plain_delivery();
failures();
order_of_a_saga();
slow_handlers();
passing_errors();
follow_up();
wakes();
due_times();
pauses();
other_settings();
idleness();
is(sql(q{SELECT count(*) FROM sagaz.stat_delivery}), '0', 'nothing is left');
wait_for(q{count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'sagaz worker'}, 'no process');
$node->stop;

done_testing();
