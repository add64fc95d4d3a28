-- Scheduled events: available_at in the future.
CREATE FUNCTION pg_temp.due() RETURNS void LANGUAGE sql AS
	$$ UPDATE sagaz.outbox_retry SET next_attempt_at = now() WHERE next_attempt_at IS NOT NULL $$;
SELECT sagaz.create_consumer_group('ordered', 'saga');

-- one holds back nothing, not of its saga either, in neither kind of group
SELECT sagaz.insert_event('a', 'later', '1', available_at => now() + interval '1 hour') IS NOT NULL AS inserted;
SELECT sagaz.insert_event('a', 'past', '1', available_at => now() - interval '1 hour') IS NOT NULL AS inserted;
SELECT sagaz.insert_event('a', 'now', '1') IS NOT NULL AS inserted;
SELECT event_type FROM sagaz.claim_batch('w');
SELECT event_type FROM sagaz.claim_batch('w', consumer_group => 'ordered');
SELECT event_type, state, retry_count, next_attempt_at - now() > '59 minutes' AS waits FROM sagaz.outbox_retry ORDER BY group_no;
SELECT sagaz.finish_batch(batch_id, 'w') FROM sagaz.outbox_batch;
SELECT count(*) FROM sagaz.claim_batch('w');

-- its time has come: it goes out once in each group, as a first attempt
SELECT pg_temp.due();
SELECT event_type, retry_count, last_error FROM sagaz.claim_batch('w');
SELECT event_type, retry_count, last_error FROM sagaz.claim_batch('w', consumer_group => 'ordered');
SELECT count(*) FROM sagaz.claim_batch('w');
SELECT sagaz.finish_batch(batch_id, 'w') FROM (SELECT DISTINCT batch_id FROM sagaz.outbox_retry WHERE state = 3) x;
SELECT state, sent_at IS NOT NULL AS sent FROM sagaz.outbox_retry;
SELECT count(*) FROM sagaz.claim_batch('w');

-- a batch that had only scheduled events in one lane can be finished
SELECT sagaz.insert_event('a', 'later', '1', available_at => now() + interval '1 hour') IS NOT NULL AS inserted;
SELECT sagaz.insert_event('b', 'now', '1') IS NOT NULL AS inserted;
SELECT sagaz.finish_batch(max(batch_id), 'w') FROM sagaz.claim_batch('w');
SELECT count(*) FROM sagaz.claim_batch('w');

-- they come in the order of their times, before what is new
SELECT count(sagaz.insert_event('a', 'in ' || h || ' hours', '1', available_at => now() + h * interval '1 hour'))
	FROM unnest('{3,1,2}'::int[]) h;
SELECT count(*) FROM sagaz.claim_batch('w');
SELECT sagaz.insert_event('a', 'new', '1') IS NOT NULL AS inserted;
UPDATE sagaz.outbox_retry SET next_attempt_at = next_attempt_at - interval '4 hours' WHERE event_type ~ '^in';
SELECT event_type FROM sagaz.claim_batch('w');

-- released, it comes again; failed, it is a retry
SELECT max(batch_id) AS b FROM sagaz.outbox_batch \gset
SELECT sagaz.mark_failed(array(SELECT event_id FROM sagaz.outbox WHERE event_type = 'in 2 hours'), 'w', 'broken');
SELECT sagaz.release_batch(:b, 'w');
SELECT event_type, state, retry_count FROM sagaz.outbox_retry WHERE event_type ~ '^in' ORDER BY 1;
SELECT event_type, retry_count FROM sagaz.claim_batch('w') ORDER BY 1;
