-- Consumer groups: independent readers with their own progress.
\set VERBOSITY terse
SELECT count(sagaz.insert_event('a', 'old' || i, '1')) FROM generate_series(1, 3) AS i;
SELECT sagaz.create_consumer_group('all');
SELECT sagaz.create_consumer_group('new', start_from => 'now');
SELECT sagaz.create_consumer_group('ordered', 'saga');
SELECT sagaz.insert_event('a', 'late', '1') IS NOT NULL AS inserted;
SELECT event_type FROM sagaz.claim_batch('w', consumer_group => 'all') ORDER BY 1;
SELECT event_type FROM sagaz.claim_batch('w', consumer_group => 'new') ORDER BY 1;
SELECT event_type, consumer_group FROM sagaz.claim_batch('w', consumer_group => 'ordered');
SELECT consumer_group, ordering, start_time, paused_at FROM sagaz.consumer_group ORDER BY 1;
-- from a time: without an offset it is UTC, whatever TimeZone says
SET TimeZone = 'Asia/Tokyo';
SELECT sagaz.create_consumer_group('t1', start_from => '2026-01-31T12:00:00');
SELECT sagaz.create_consumer_group('t2', start_from => '2026-01-31T12:00:00.5+01:00');
SET TimeZone = 'UTC';
SELECT consumer_group, start_time FROM sagaz.consumer_group
	WHERE start_time IS NOT NULL ORDER BY 1;
INSERT INTO sagaz.emit (saga_id, event_type, payload, created_at) VALUES
	('a', 'before', '1', '2026-01-31 11:59:59.999999Z'),
	('a', 'at', '1', '2026-01-31 12:00:00Z');
SELECT event_type FROM sagaz.claim_batch('w', consumer_group => 't1')
	WHERE created_at < '2026-02-01' ORDER BY 1;
SELECT event_type FROM sagaz.claim_batch('w', consumer_group => 't2')
	WHERE created_at < '2026-02-01' ORDER BY 1;
-- bad input makes no group
SELECT sagaz.create_consumer_group('');
SELECT sagaz.create_consumer_group(NULL);
SELECT sagaz.create_consumer_group('x', 'fifo');
SELECT sagaz.create_consumer_group('x', start_from => 'tomorrow');
SELECT sagaz.create_consumer_group('x', start_from => 'infinity');
SELECT sagaz.create_consumer_group('x', start_from => '');
SELECT sagaz.create_consumer_group('all');
SELECT count(*) FROM sagaz.consumer_group;
SELECT * FROM sagaz.claim_batch('w', consumer_group => 'x');

-- paused: claims get nothing, what is out can be finished
SELECT count(sagaz.insert_event('b', 'more' || i, '1')) FROM generate_series(1, 2) AS i;
SELECT batch_id FROM sagaz.claim_batch('w', 1, consumer_group => 'new') \gset
SELECT sagaz.pause_consumer_group('new');
SELECT sagaz.pause_consumer_group('new');
SELECT count(*) FROM sagaz.claim_batch('w', consumer_group => 'new');
SELECT sagaz.finish_batch(:batch_id, 'w');
SELECT sagaz.resume_consumer_group('new');
SELECT sagaz.resume_consumer_group('new');
SELECT count(*) FROM sagaz.claim_batch('w', consumer_group => 'new');
SELECT sagaz.pause_consumer_group('nobody');
SELECT sagaz.resume_consumer_group('nobody');

-- a batch in the hands of a worker keeps its group
SELECT sagaz.drop_consumer_group('nobody');
SELECT sagaz.drop_consumer_group(NULL);
SELECT sagaz.create_consumer_group('gone');
SELECT group_no FROM sagaz.consumer_group WHERE consumer_group = 'gone' \gset
SELECT batch_id, array_agg(event_id) AS ids
	FROM sagaz.claim_batch('w', 4, consumer_group => 'gone') GROUP BY 1 \gset
SELECT sagaz.drop_consumer_group('gone');
SELECT sagaz.mark_failed((:'ids'::uuid[])[1:2], 'w', 'no', 'gone');
SELECT sagaz.drop_consumer_group('gone');
SELECT sagaz.finish_batch(:batch_id, 'w');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT sagaz.drop_consumer_group('gone');
ROLLBACK;
SELECT sagaz.drop_consumer_group('gone');
SELECT count(*) FROM sagaz.outbox_batch WHERE group_no = :group_no;
SELECT count(*) FROM sagaz.outbox_receipt WHERE batch_id & 1023 = :group_no;
SELECT count(*) FROM sagaz.outbox_retry WHERE group_no = :group_no;
SELECT * FROM sagaz.claim_batch('w', consumer_group => 'gone');
SELECT sagaz.finish_batch(:batch_id, 'w');
-- nothing is left of it for another of the same name, nor of another group
SELECT sagaz.create_consumer_group('gone');
SELECT count(*) = (SELECT count(*) FROM sagaz.outbox) AS all_again
	FROM sagaz.claim_batch('w', consumer_group => 'gone');
SELECT count(*) FROM sagaz.claim_batch('w', consumer_group => 'all')
	WHERE event_type LIKE 'old%';
-- a lease that ran out does not keep its group
UPDATE sagaz.outbox_batch SET claimed_at = claimed_at - interval '1 hour';
SELECT sagaz.drop_consumer_group('gone');
-- the default group arises on first use, again too
SELECT count(*) > 0 AS got FROM sagaz.claim_batch('w');
SELECT sagaz.release_stuck_events('0') > 0 AS released;
SELECT sagaz.drop_consumer_group('sagaz-workers');
SELECT count(*) > 0 AS got FROM sagaz.claim_batch('w');
