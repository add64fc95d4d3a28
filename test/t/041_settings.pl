# Every setting of the worker acts, and acts anew after a reload.
use strict;
use warnings;

use SagazTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('worker', conf => <<'CONF');
fsync = off
autovacuum = off
sagaz.poll_interval = 1h
sagaz.housekeeping_interval = 1h
sagaz.archive_after = -1
sagaz.inbox_after = -1
sagaz.claim_timeout = 1h
CONF

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

# Change settings, whose values are written as SHOW does.
sub set
{
	my %settings = @_;
	my $all = join ' AND ',
	  map { "current_setting('sagaz.$_') = '$settings{$_}'" } sort keys %settings;

	sql("ALTER SYSTEM SET sagaz.$_ = '$settings{$_}'") for sort keys %settings;
	$node->reload;
	$node->poll_query_until('postgres', "SELECT $all") or die 'no reload';
}

sub wait_for
{
	my ($query, $what) = @_;

	return ok($node->poll_query_until('postgres', "SELECT $query"), $what);
}

sub deliver
{
	my ($name, $more) = @_;

	sql("SELECT sagaz.create_consumer_group('$name', start_from => 'now')");
	sql("SELECT sagaz.create_delivery('$name', 'public.handle(sagaz.outbox_event[])', '$name'$more)");
}

sub emit
{
	my ($type, $count) = @_;

	sql(qq{SELECT sagaz.insert_event('s', '$type', '{}') FROM generate_series(1, $count)});
}

sub drop
{
	sql("SELECT sagaz.drop_delivery('$_'), sagaz.drop_consumer_group('$_')") for @_;
}

sql(<<'SQL');
CREATE TABLE call (consumer_group text, event_type text, events integer,
	at timestamptz DEFAULT clock_timestamp());
CREATE FUNCTION handle(events sagaz.outbox_event[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF events[1].event_type LIKE 'bad%' THEN
		RAISE 'bad';
	END IF;
	INSERT INTO public.call
		SELECT events[1].consumer_group, events[1].event_type, cardinality(events);
END $$;
SQL

sub sizes
{
	my ($group, $type, $expected, $what) = @_;

	wait_for("sum(events) = 7 FROM call WHERE consumer_group = '$group' AND event_type = '$type'",
		$what);
	is(sql("SELECT string_agg(events::text, ' ' ORDER BY events) FROM call"
			  . " WHERE consumer_group = '$group' AND event_type = '$type'"),
		$expected, 'no batch is larger');
}

sub batch_size
{
	set(batch_size => 3);
	deliver('size', '');
	deliver('own_size', ', batch_size => 5');
	emit('three', 7);
	sizes('size', 'three', '1 3 3', 'batch_size');
	sizes('own_size', 'three', '2 5', 'a delivery may have a size of its own');
	set(batch_size => 6);
	emit('six', 7);
	sizes('size', 'six', '1 6', 'batch_size is reloaded');
	drop('size', 'own_size');
}

# Retries that become due unannounced.
sub poll_interval
{
	my $make_due = q{UPDATE sagaz.outbox_retry SET next_attempt_at = now() WHERE state = 1};
	my $tries = q{max(retry_count) FROM sagaz.outbox_retry WHERE state = 1};

	set(retry_backoff => '1h');
	deliver('poll', '');
	emit('bad', 1);
	wait_for('1 = ' . $tries, 'a retry far away');
	set(poll_interval => '100ms');
	for my $n (1 .. 3)
	{
		sql($make_due);
		wait_for(1 + $n . " = $tries", 'poll_interval is reloaded, and finds it');
	}
	set(poll_interval => '1h');
	my $looked = q{SELECT state_change FROM pg_stat_activity WHERE backend_type = 'sagaz worker'};
	wait_for(q{state = 'idle' AND state_change > pg_conf_load_time() FROM pg_stat_activity
			WHERE backend_type = 'sagaz worker'}, 'it sleeps');
	my ($before, $after) =
	  split /\n/, sql("$looked; SELECT FROM pg_sleep(1); $looked");
	is($after, $before, 'poll_interval is reloaded, and longer');
	drop('poll');
}

sub claim_timeout
{
	deliver('lease', '');
	sql(q{SELECT sagaz.pause_delivery('lease')});
	emit('taken', 1);
	sql(q{SELECT count(*) FROM sagaz.claim_batch('other', consumer_group => 'lease')});
	sql(q{SELECT sagaz.resume_delivery('lease')});
	emit('free', 1);
	wait_for(q{count(*) = 1 FROM call WHERE event_type = 'free'}, 'claim_timeout: others go on');
	is(sql(q{SELECT count(*) FROM call WHERE event_type = 'taken'}), '0', 'who has it, has it');
	set(claim_timeout => '300ms');
	wait_for(q{count(*) = 1 FROM call WHERE event_type = 'taken'},
		'claim_timeout is reloaded, and the lease taken over');
	is( sql(q{SELECT min(at) >= (SELECT max(claimed_at) + interval '300 ms' FROM sagaz.outbox_batch
			WHERE worker_id = 'other') FROM call WHERE event_type = 'taken'}),
		't', 'not before');
	drop('lease');
}

sub retries
{
	my $dead = q{string_agg(retry_count::text, ' ' ORDER BY seq) FROM sagaz.outbox_retry r
		JOIN sagaz.consumer_group USING (group_no) WHERE consumer_group = 'retry' AND state = 4};

	set(max_retries => 0);
	deliver('retry', '');
	emit('bad', 1);
	wait_for("'0' < $dead", 'max_retries: none');
	is(sql("SELECT $dead"), '1', 'so the first failure is the last');
	set(max_retries => 2, retry_backoff => '10ms');
	emit('bad', 1);
	wait_for("'1 3' = $dead", 'max_retries is reloaded');
	set(max_retries => 10, retry_backoff => '20min');
	emit('bad', 1);
	wait_for(q{count(*) = 1 FROM sagaz.outbox_retry WHERE state = 1}, 'a failure');
	# a wait is at least half as long as the setting says
	is( sql(q{SELECT next_attempt_at - clock_timestamp() BETWEEN '9 min' AND '20 min'
			FROM sagaz.outbox_retry WHERE state = 1}),
		't', 'retry_backoff is reloaded');
	drop('retry');
}

# What house-keeping has done, all deliveries together.
sub done
{
	return "sum($_[0]) FROM sagaz.stat_delivery";
}

sub housekeeping
{
	my $kept = q{last_housekeeping_at > pg_conf_load_time() FROM sagaz.stat_delivery};
	my $rows = q{SELECT (SELECT count(*) FROM sagaz.outbox), (SELECT count(*) > 0 FROM
		sagaz.outbox_batch WHERE events > 0), (SELECT count(*) > 0 FROM sagaz.outbox_receipt),
		(SELECT count(*) FROM sagaz.outbox_archive)};

	sql(q{SELECT sagaz.drop_consumer_group(consumer_group) FROM sagaz.consumer_group});
	sql(q{DELETE FROM sagaz.outbox; DELETE FROM sagaz.outbox_archive});
	deliver('keep', ', batch_size => 2');
	emit('old', 600);
	wait_for(q{sum(events) = 600 FROM call WHERE consumer_group = 'keep'}, 'all delivered');
	sql(q{INSERT INTO sagaz.consumer_inbox (event_id, consumer_name, source_topic, event_type, payload, consumed_at)
		SELECT 'e' || n, 'c', 't', 'e', '1', now() - n * interval '1 h' FROM generate_series(1, 600) n});
	set(archive_after => '1h', inbox_after => -1);
	wait_for($kept, 'a reload has the house kept at once');
	is(sql($rows), '600|t|t|0', 'archive_after: what is younger stays');
	is(sql('SELECT ' . done('archived + inbox_removed')), '0', 'nothing is removed');
	is(sql('SELECT count(*) FROM sagaz.consumer_inbox'), '600', 'inbox_after: -1 turns it off');

	set(archive_after => -1, inbox_after => '10d');
	wait_for('count(*) = 239 FROM sagaz.consumer_inbox', 'inbox_after is reloaded');
	is(sql('SELECT max(consumed_at) < now() FROM sagaz.consumer_inbox'), 't', 'the young stay');
	wait_for('361 = ' . done('inbox_removed'), 'and shown');
	is(sql($rows), '600|t|t|0', 'archive_after: -1 turns it off');

	cmp_ok(sql('SELECT count(*) FROM sagaz.outbox_batch'), '>', 20, 'many batches');
	set(archive_after => 0);
	wait_for(q{count(*) = 0 FROM sagaz.outbox}, 'archive_after is reloaded');
	wait_for('600 = ' . done('archived'), 'and shown');
	# of each lane two rows may stay
	emit('new', 1);
	set(housekeeping_interval => '100ms');
	wait_for(q{count(*) = 601 FROM sagaz.outbox_archive}, 'housekeeping_interval is reloaded');
	wait_for(q{count(*) <= 8 FROM sagaz.outbox_batch}, 'batches go with their events');
	wait_for(q{count(*) = 0 FROM sagaz.outbox_receipt r WHERE NOT EXISTS
		(SELECT FROM sagaz.outbox_batch b WHERE b.batch_id = r.batch_id)}, 'and receipts');
	is(sql(q{SELECT count(DISTINCT event_id), bool_and(status = 'sent') FROM sagaz.outbox_archive}),
		'601|t', 'the archive has each event, sent');
	my $last = sql('SELECT max(last_housekeeping_at) FROM sagaz.stat_delivery');
	wait_for("last_housekeeping_at > timestamptz '$last' + interval '200 ms' FROM sagaz.stat_delivery",
		'and again and again');
	set(housekeeping_interval => '1h', archive_after => -1, inbox_after => -1);
	drop('keep');
}

sub databases
{
	my $running = q{(SELECT coalesce(string_agg(datname, ' ' ORDER BY datname), '') FROM pg_stat_activity
		WHERE backend_type = 'sagaz worker')};

	sql('CREATE DATABASE "Other, one"');
	$node->safe_psql('Other, one', $_)
	  for ('CREATE EXTENSION sagaz',
		q{CREATE FUNCTION handle(sagaz.outbox_event[]) RETURNS void LANGUAGE sql AS ''},
		q{SELECT sagaz.create_delivery('d', 'public.handle(sagaz.outbox_event[])')});
	deliver('here', '');
	wait_for("$running = 'Other, one postgres'", 'databases: all');
	for (
		[ '"Other, one"', 'Other, one' ], [ 'postgres, nowhere', 'postgres' ],
		[ '', '' ], [ 'postgres,"Other, one"', 'Other, one postgres' ],
		[ 'nowhere', '' ], [ '*', 'Other, one postgres' ])
	{
		my ($value, $expected) = @$_;

		# a list is not what ALTER SYSTEM makes of one string
		$node->append_conf('postgresql.conf', "sagaz.databases = '$value'");
		$node->reload;
		wait_for("$running = '$expected'", "databases = '$value'");
	}
	emit('here', 1);
	wait_for(q{count(*) = 1 FROM call WHERE event_type = 'here'}, 'and they deliver');
	$node->append_conf('postgresql.conf', q{sagaz.databases = 'a b'});
	$node->reload;
	ok( $node->poll_query_until('postgres',
			q{SELECT count(*) = 1 FROM pg_file_settings WHERE error IS NOT NULL AND name = 'sagaz.databases'}),
		'what is no list is refused');
	is(sql('SHOW sagaz.databases'), '*', 'and changes nothing');
	$node->append_conf('postgresql.conf', q{sagaz.databases = '*'});
	$node->reload;
	sql('DROP DATABASE "Other, one"');
	drop('here');
}

# More deliveries than there is room for.
sub max_deliveries
{
	$node->append_conf('postgresql.conf', 'sagaz.max_deliveries = 2');
	$node->restart;
	my $from = -s $node->logfile;
	deliver($_, '') for 'a', 'b', 'c';
	wait_for(q{string_agg(state, ' ' ORDER BY name) = 'idle idle waiting for a process' FROM sagaz.stat_delivery},
		'max_deliveries: one must wait');
	ok($node->wait_for_log(qr/there are more deliveries than sagaz.max_deliveries/, $from),
		'the log says so');
	is(sql(q{SELECT status, message ~ 'max_deliveries' FROM sagaz.health_check()}),
		'degraded|t', 'and the health check');
	drop('c');
	wait_for(q{message !~ 'max_deliveries' FROM sagaz.health_check()},
		'which is content when it is gone');
	deliver('d', '');
	wait_for(q{message ~ 'max_deliveries' FROM sagaz.health_check()}, 'one too many again');
	drop('a');
	wait_for(q{string_agg(state, ' ' ORDER BY name) = 'idle idle' FROM sagaz.stat_delivery},
		'until there is room');
	emit('room', 1);
	wait_for(q{count(*) = 2 FROM call WHERE event_type = 'room'}, 'and it delivers');
	drop('b', 'd');
	is(sql('SHOW sagaz.max_deliveries'), '2', 'as it was set');
}

sub bad_values
{
	for (
		'batch_size = 0', 'batch_size = 100001', "poll_interval = '9ms'",
		"claim_timeout = '0'", 'max_retries = -1', "retry_backoff = '-1'",
		'archive_after = -2', 'inbox_after = -2', "housekeeping_interval = '99ms'",
		'max_deliveries = 0', "databases = 'a b'")
	{
		my (undef, undef, $err) = $node->psql('postgres', "ALTER SYSTEM SET sagaz.$_",
			extra_params => [ '-v', 'VERBOSITY=sqlstate' ]);
		like($err, qr/ERROR:  22023/, "$_ is refused");
	}
	is( sql(q{SELECT string_agg(substr(name, 7) || ' ' || boot_val || coalesce(unit, ''), ', '
			ORDER BY name) FROM pg_settings WHERE name LIKE 'sagaz.%' AND context <> 'user'
			AND substr(name, 7) IN ('batch_size', 'poll_interval', 'claim_timeout', 'max_retries',
				'archive_after', 'retry_backoff', 'databases')}),
		'archive_after 604800s, batch_size 100, claim_timeout 300000ms, databases *,'
		  . ' max_retries 10, poll_interval 1000ms, retry_backoff 1000ms',
		'the defaults are the library\'s');
}

# In a server without the worker.
sub without_preload
{
	my $plain = new_node('plain_worker', preload => 0);
	my (undef, $out, $err) = $plain->psql('postgres', <<'SQL');
CREATE FUNCTION handle(sagaz.outbox_event[]) RETURNS void LANGUAGE sql AS '';
SELECT sagaz.create_delivery('d', 'public.handle(sagaz.outbox_event[])');
SELECT state, pid, delivered FROM sagaz.stat_delivery;
SQL
	like($err, qr/WARNING:  no worker runs.*\n.*HINT: .*shared_preload_libraries = 'sagaz'/,
		'who asks for the worker is told what to set');
	is($out, "\nstopped||0", 'and it does not run');
	(undef, $out, $err) = $plain->psql('postgres', q{SELECT sagaz.resume_delivery('d')});
	like($err, qr/WARNING:  no worker runs/, 'who resumes, too');
	$plain->append_conf('postgresql.conf', q{shared_preload_libraries = 'sagaz'});
	$plain->restart;
	ok($plain->poll_query_until('postgres',
			q{SELECT state = 'idle' FROM sagaz.stat_delivery}), 'after that it runs');
	$plain->stop;
}

batch_size();
poll_interval();
claim_timeout();
retries();
housekeeping();
databases();
max_deliveries();
bad_values();
$node->stop;
without_preload();

done_testing();
