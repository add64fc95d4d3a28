-- archive_sent_events(): what every group has finished goes, nothing else.
CREATE FUNCTION pg_temp.try(command text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE command;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	RETURN sqlstate || ': ' || sqlerrm;
END $$;
CREATE FUNCTION pg_temp.insert(names text[]) RETURNS bigint LANGUAGE sql AS
	$$ SELECT count(sagaz.insert_event('a', name, '1')) FROM unnest(names) name $$;
CREATE FUNCTION pg_temp.ids(names text[]) RETURNS uuid[] LANGUAGE sql AS
	$$ SELECT array(SELECT event_id FROM sagaz.outbox WHERE event_type = ANY (names) ORDER BY seq) $$;
CREATE FUNCTION pg_temp.log() RETURNS text LANGUAGE sql AS
	$$ SELECT string_agg(event_type, ' ' ORDER BY seq) FROM sagaz.outbox $$;
CREATE FUNCTION pg_temp.finish(worker text) RETURNS integer LANGUAGE sql AS
	$$ SELECT sagaz.finish_batch(max(batch_id), worker) FROM sagaz.outbox_batch WHERE worker_id = worker $$;

-- nothing is there; nothing was ever claimed; a batch is out
SELECT sagaz.archive_sent_events('0');
SELECT pg_temp.insert('{a1,a2,a3,a4}');
SELECT sagaz.archive_sent_events('0');
SELECT event_type FROM sagaz.claim_batch('w', 3);
SELECT sagaz.archive_sent_events('0');
-- finished by the only group there is, except what is not handed out yet
SELECT pg_temp.finish('w');
SELECT sagaz.archive_sent_events('1 hour');
SELECT sagaz.archive_sent_events('0', 1);
SELECT pg_temp.log();
SELECT sagaz.archive_sent_events('0');
SELECT pg_temp.log();
SELECT event_type, status, aggregate_id, retry_count, worker_id, sent_at >= claimed_at AS times FROM sagaz.outbox_archive ORDER BY 1;
-- the claim goes on where it was
SELECT event_type FROM sagaz.claim_batch('w');
SELECT pg_temp.finish('w');
SELECT sagaz.archive_sent_events('0');
SELECT count(*) FROM sagaz.claim_batch('w');

-- a second group must have finished, too; one that begins later need not
SELECT sagaz.create_consumer_group('second', start_from => 'now');
SELECT pg_temp.insert('{b1,b2}');
SELECT count(*) FROM sagaz.claim_batch('w');
SELECT pg_temp.finish('w');
SELECT sagaz.archive_sent_events('0');
SELECT event_type FROM sagaz.claim_batch('v', 1, '0', 'second');
SELECT sagaz.archive_sent_events('0');
SELECT pg_temp.finish('v');
SELECT sagaz.create_consumer_group('late', start_from => 'now');
SELECT sagaz.archive_sent_events('0');
SELECT pg_temp.log();
SELECT event_type FROM sagaz.claim_batch('v', 1, '0', 'second');
SELECT pg_temp.finish('v');
SELECT sagaz.archive_sent_events('0');
SELECT pg_temp.log();
SELECT sagaz.drop_consumer_group('second'), sagaz.drop_consumer_group('late');

-- waiting, dead, scheduled, released and open: all stay, and can still be delivered
SELECT pg_temp.insert('{sent,failed,dead,marked,open}');
SELECT sagaz.insert_event('a', 'scheduled', '1', available_at => now() + interval '1 hour') IS NOT NULL AS inserted;
SELECT count(*) FROM sagaz.claim_batch('w');
SELECT sagaz.mark_failed(pg_temp.ids('{failed,dead}'), 'w', 'bad');
SELECT status FROM sagaz.update_event_status((pg_temp.ids('{dead}'))[1], 'dead_letter', 'given up');
SELECT sagaz.mark_sent(pg_temp.ids('{sent,marked}'), 'w');
SELECT sagaz.archive_sent_events('0');
SELECT pg_temp.log();
SELECT sagaz.release_batch(max(batch_id), 'w') FROM sagaz.outbox_batch;
SELECT sagaz.archive_sent_events('0');
SELECT event_type, status FROM sagaz.outbox_events WHERE event_type IN ('sent', 'failed', 'dead', 'marked', 'open', 'scheduled') ORDER BY 1;
UPDATE sagaz.outbox_retry SET next_attempt_at = now() WHERE next_attempt_at IS NOT NULL;
SELECT event_type, retry_count FROM sagaz.claim_batch('w') ORDER BY 1;
SELECT pg_temp.finish('w');
SELECT sagaz.archive_sent_events('0');
SELECT pg_temp.log();
SELECT event_type, retry_count, last_error FROM sagaz.outbox_archive WHERE event_type IN ('failed', 'open', 'scheduled') ORDER BY 1;
SELECT event_type, state FROM sagaz.outbox_retry;
SELECT sagaz.requeue_dead_letters();
SELECT event_type FROM sagaz.claim_batch('w');
SELECT pg_temp.finish('w');

-- without the archive
SELECT sagaz.archive_sent_events('0', keep => false);
SELECT pg_temp.log();
SELECT count(*) FROM sagaz.outbox_archive WHERE event_type = 'dead';
SELECT count(*) FROM sagaz.outbox_retry;

-- batches and receipts go with their events; the cursors stay
SELECT count(sagaz.insert_event('s' || n % 50, 'many', '1')) FROM generate_series(1, 1000) n;
DO $$ BEGIN
	FOR i IN 1 .. 100 LOOP
		PERFORM sagaz.finish_batch(max(batch_id), 'w') FROM sagaz.claim_batch('w', 10);
	END LOOP;
END $$;
SELECT sagaz.archive_sent_events('0', 700);
SELECT sagaz.archive_sent_events('0', 700);
SELECT count(*) < 30 AS few_batches, count(*) >= 4 AS cursors FROM sagaz.outbox_batch;
SELECT count(*) < 30 AS few_receipts FROM sagaz.outbox_receipt;
SELECT count(*) FROM sagaz.claim_batch('w');
SELECT pg_temp.insert('{last}');
SELECT event_type FROM sagaz.claim_batch('w');
SELECT count(*), count(DISTINCT event_id) FROM sagaz.outbox_archive WHERE event_type = 'many';

-- bad input
SELECT pg_temp.try(command) FROM unnest(ARRAY[
	$$SELECT sagaz.archive_sent_events('-1 day')$$,
	$$SELECT sagaz.archive_sent_events(NULL)$$,
	$$SELECT sagaz.archive_sent_events('0', 0)$$,
	$$SELECT sagaz.archive_sent_events('0', storage => 'elsewhere')$$]) command;
