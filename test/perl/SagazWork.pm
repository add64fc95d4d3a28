# An application that runs while its database is copied: writers, workers of a
# group of each ordering that finish, fail, release and abandon batches, and
# retention.
# What was handled is written down in the transaction that finishes it, so a
# copy of the database tells by itself what must come again in the copy.
package SagazWork;

use strict;
use warnings;

use Exporter 'import';
use IPC::Run;
use PostgreSQL::Test::Utils;
use SagazTest;
use Test::More;

our @EXPORT = qw(work_conf prepare_work start_work is_busy contents
  check_inert check_delivery);

# Lines for postgresql.conf that the work needs.
sub work_conf
{
	return <<'CONF';
fsync = off
synchronous_commit = off
sagaz.claim_timeout = 300ms
sagaz.max_retries = 2
sagaz.retry_backoff = 50ms
CONF
}

# Events of a saga are numbered in causal order: the counter's row is locked
# until the commit.  An event whose number is divisible by 17 always fails.
my $objects = <<'SQL';
CREATE TABLE counters (saga_id text PRIMARY KEY, n bigint NOT NULL);
INSERT INTO counters SELECT 's' || n, 0 FROM generate_series(1, 20) n;
CREATE TABLE handled (consumer_group text, event_id uuid,
	PRIMARY KEY (consumer_group, event_id));
CREATE TABLE drained (consumer_group text, turn bigserial, event_id uuid);
CREATE VIEW events AS
	SELECT event_id, saga_id, (payload->>'n')::bigint AS n FROM sagaz.outbox
	UNION ALL
	SELECT event_id, saga_id, (payload->>'n')::bigint FROM sagaz.outbox_archive;
SELECT sagaz.create_consumer_group('free'),
	sagaz.create_consumer_group('ordered', 'saga');

CREATE PROCEDURE emit() LANGUAGE plpgsql AS $$
DECLARE
	saga text := 's' || 1 + floor(random() * 20)::integer;
	number bigint;
BEGIN
	UPDATE counters SET n = n + 1 WHERE saga_id = saga
		RETURNING n INTO number;
	PERFORM sagaz.insert_event(saga, 'created',
		jsonb_build_object('n', number));
	IF random() < 0.05 THEN
		PERFORM sagaz.insert_event('later', 'reminder', '{"n": 1}',
			available_at => now() + random() * interval '1 hour');
	END IF;
	IF random() < 0.1 THEN
		ROLLBACK;
	END IF;
END $$;

CREATE FUNCTION settle(batch bigint, ids uuid[], bad uuid[], name text,
	worker text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF random() < 0.1 THEN
		PERFORM sagaz.release_batch(batch, worker, 'down', '10 ms');
		RETURN;
	END IF;
	INSERT INTO handled SELECT name, unnest(ids);
	IF bad IS NOT NULL THEN
		PERFORM sagaz.mark_failed(bad, worker, 'bad', name);
	END IF;
	IF ids IS NOT NULL AND (name = 'ordered' OR random() < 0.3) THEN
		PERFORM sagaz.mark_sent(ids, worker, name);
	ELSIF ids IS NOT NULL THEN
		PERFORM sagaz.finish_batch(batch, worker);
	END IF;
EXCEPTION WHEN SQLSTATE 'SZ006' THEN
	NULL;	-- the lease ran out meanwhile
END $$;

CREATE PROCEDURE work(name text, worker text) LANGUAGE plpgsql AS $$
DECLARE
	batch bigint;
	ids uuid[];
	bad uuid[];
BEGIN
	-- after a failure an ordered worker leaves the rest of the saga alone
	SELECT max(batch_id), array_agg(event_id) FILTER (WHERE failures = 0),
			array_agg(event_id) FILTER (WHERE failures = 1 AND is_bad)
		INTO batch, ids, bad
		FROM (SELECT *, count(*) FILTER (WHERE is_bad) OVER (PARTITION BY
					CASE WHEN name = 'ordered' THEN saga_id ELSE turn::text END
					ORDER BY turn) AS failures
				FROM (SELECT *, (payload->>'n')::bigint % 17 = 0
							OR random() < 0.05 AS is_bad
						FROM sagaz.claim_batch(worker, 1 + (random() * 20)::integer,
							'0', name) WITH ORDINALITY AS e (event_id, saga_id,
							aggregate_type, aggregate_id, event_type, payload,
							headers, status, created_at, claimed_at, sent_at,
							retry_count, last_error, worker_id, routing_key,
							partition_key, batch_id, consumer_group, turn)) x) y;
	COMMIT;
	IF batch IS NOT NULL AND random() < 0.95 THEN	-- else the worker dies
		PERFORM settle(batch, ids, bad, name, worker);
	END IF;
END $$;

-- Hand out all there is; what waits for a time need not.
CREATE PROCEDURE drain(name text) LANGUAGE plpgsql AS $$
DECLARE
	batch bigint;
BEGIN
	LOOP
		UPDATE sagaz.outbox_retry SET next_attempt_at = now()
			WHERE next_attempt_at > now();
		UPDATE sagaz.outbox_receipt SET until = at WHERE until > at;
		COMMIT;
		WITH claimed AS (
			SELECT * FROM sagaz.claim_batch('drain', 100, '0', name)
				WITH ORDINALITY AS e (event_id, saga_id, aggregate_type,
					aggregate_id, event_type, payload, headers, status,
					created_at, claimed_at, sent_at, retry_count, last_error,
					worker_id, routing_key, partition_key, batch_id,
					consumer_group, turn)
		), written AS (
			INSERT INTO drained (consumer_group, event_id)
				SELECT name, event_id FROM claimed ORDER BY turn
		)
		SELECT max(batch_id) INTO batch FROM claimed;
		EXIT WHEN batch IS NULL;
		PERFORM sagaz.finish_batch(batch, 'drain');
		COMMIT;
	END LOOP;
END $$;
SQL
sub prepare_work
{
	my ($node) = @_;

	$node->safe_psql('postgres', $objects);
}

# Start the application for so many seconds; finish() what is returned.
sub start_work
{
	my ($node, $seconds) = @_;
	my @files;

	for my $statement (
		'CALL emit()@20',
		"CALL work('free', 'w' || :client_id)\@10",
		"CALL work('ordered', 'w' || :client_id)\@10",
		"SELECT sagaz.archive_sent_events('500 ms')\@1")
	{
		my ($sql, $weight) = split /@/, $statement;
		my $file = $node->basedir . '/work' . @files . '.sql';

		append_to_file($file, "$sql;\n");
		push @files, "--file=$file\@$weight";
	}
	return IPC::Run::start(
		[
			'pgbench', '--no-vacuum', '--client=6', "--time=$seconds",
			@files, $node->connstr('postgres')
		],
		'<', \undef, '>', '/dev/null', '2>',
		$node->basedir . '/pgbench.log');
}

# A query that is true when something of everything is there.
sub is_busy
{
	return <<'SQL';
SELECT (SELECT count(*) FROM handled WHERE consumer_group = 'free') > 200
	AND (SELECT count(*) FROM handled WHERE consumer_group = 'ordered') > 200
	AND (SELECT count(DISTINCT (group_no, state)) FROM sagaz.outbox_retry
		WHERE state IN (1, 4, 6)) >= 5
	AND EXISTS (SELECT FROM sagaz.outbox_retry WHERE state = 2)
	AND EXISTS (SELECT FROM sagaz.outbox_archive)
	AND EXISTS (SELECT FROM sagaz.outbox_batch b WHERE events > 0
		AND NOT EXISTS (SELECT FROM sagaz.outbox_receipt r
			WHERE r.batch_id = b.batch_id AND kind <= 3))
SQL
}

# One line that is the same where the data are the same.
sub contents
{
	return 'SELECT ' . join " || ' ' || ", map {
		"(SELECT count(*) || md5(string_agg(t::text, ' ' ORDER BY t::text)) FROM $_ t)"
	} qw(handled sagaz.outbox sagaz.outbox_batch sagaz.outbox_receipt
	  sagaz.outbox_retry sagaz.outbox_archive sagaz.consumer_group sagaz.cluster);
}

my $activity = q(SELECT status, details->>'active' FROM sagaz.health_check());

# A copy does nothing by itself; the application may insert.
sub check_inert
{
	my ($node, $db, $name) = @_;

	for my $group ('free', 'ordered')
	{
		my ($status, $out, $err) = $node->psql($db,
			"\\set VERBOSITY sqlstate\nSELECT sagaz.claim_batch('w', 1, '0', '$group')");
		like($err, qr/SZ000/, "$name: group $group gets nothing");
	}
	is($node->safe_psql($db, $activity), 'unhealthy|false',
		"$name: the health check says so");
	$node->safe_psql($db, <<'SQL');
BEGIN; SELECT sagaz.insert_event('fresh', 'created', '{"n": 1}'); ROLLBACK;
SELECT sagaz.insert_event('fresh', 'created', '{"n": 1}');
SELECT sagaz.insert_event('fresh', 'created', '{"n": 2}');
SQL
	my ($status, $out, $err) = $node->psql($db,
		"\\set VERBOSITY sqlstate\nSELECT sagaz.claim_batch('w', 1, '0', 'free')");
	like($err, qr/SZ000/, "$name: nor after the application has inserted");
}

# Deliver everything that is left and compare with what had been handled.
sub check_delivery
{
	my ($node, $db, $name) = @_;
	my $bad = sub {
		my ($query, $what) = @_;
		is($node->safe_psql($db, $query), '0', "$name: $what");
	};

	$node->safe_psql('postgres', 'ALTER SYSTEM SET sagaz.claim_timeout = 1');
	$node->reload;
	$node->poll_query_until('postgres', 'SHOW sagaz.claim_timeout', '1ms')
	  or die 'no reload';
	$node->safe_psql($db, "SELECT sagaz.insert_event('fresh', 'created', '{\"n\": 3}')");
	$node->safe_psql($db, "CALL drain('$_')") for 'free', 'ordered';
	$node->safe_psql($db, "SELECT sagaz.insert_event('fresh', 'created', '{\"n\": 4}')");
	$node->safe_psql($db, "CALL drain('$_')") for 'free', 'ordered';

	$bad->(<<'SQL', 'no event is lost');
SELECT count(*) FROM sagaz.outbox o, sagaz.consumer_group g
	WHERE consumer_group IN ('free', 'ordered')
		AND NOT EXISTS (SELECT FROM handled h
			WHERE (h.consumer_group, h.event_id) = (g.consumer_group, o.event_id))
		AND NOT EXISTS (SELECT FROM drained d
			WHERE (d.consumer_group, d.event_id) = (g.consumer_group, o.event_id))
		AND NOT EXISTS (SELECT FROM sagaz.outbox_retry r
			WHERE (r.group_no, r.seq, r.state) = (g.group_no, o.seq, 4))
SQL
	$bad->(<<'SQL', 'nothing went to the archive that was not finished');
SELECT count(*) FROM sagaz.outbox_archive o, sagaz.consumer_group g
	WHERE NOT EXISTS (SELECT FROM handled h
		WHERE (h.consumer_group, h.event_id) = (g.consumer_group, o.event_id))
SQL
	$bad->(<<'SQL', 'what was finished is not delivered again');
SELECT count(*) FROM drained JOIN handled USING (consumer_group, event_id)
SQL
	$bad->(<<'SQL', 'nothing is delivered twice');
SELECT count(*) - count(DISTINCT (consumer_group, event_id)) FROM drained
SQL
	$bad->(<<'SQL', 'the ordered group keeps the order of each saga');
SELECT count(*) FROM (
	SELECT number < lag(number) OVER (PARTITION BY saga_id ORDER BY turn)
			OR number < handled_to AS wrong
		FROM (SELECT turn, saga_id, n AS number,
				(SELECT max(p.n) FROM handled h JOIN events p USING (event_id)
					WHERE p.saga_id = o.saga_id
						AND consumer_group = 'ordered') AS handled_to
			FROM drained JOIN events o USING (event_id)
			WHERE consumer_group = 'ordered' AND saga_id <> 'later') x) y
	WHERE wrong
SQL
	cmp_ok(
		$node->safe_psql($db, <<'SQL'), '>', 0, "$name: there was something left");
SELECT min(n) FROM (SELECT count(*) - 4 AS n FROM drained GROUP BY consumer_group) x
SQL
	like($node->safe_psql($db, $activity), qr/true/,
		"$name: the health check knows that the outbox is active");
	is( $node->safe_psql($db, <<'SQL'), 8, "$name: new events are delivered");
SELECT count(*) FROM drained JOIN sagaz.outbox USING (event_id)
	WHERE saga_id = 'fresh'
SQL
}

1;
