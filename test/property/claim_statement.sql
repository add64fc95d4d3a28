-- Claim, act and finish in one statement.
\set size random(1, 100)
WITH claimed AS MATERIALIZED (
	SELECT * FROM sagaz.claim_batch('all', :size, consumer_group => ':group')),
acted AS (
	INSERT INTO load.once (consumer_group, event_id, saga_id, n)
	SELECT consumer_group, event_id, saga_id, payload::integer FROM claimed)
SELECT sum(sagaz.finish_batch(batch_id, 'all'))
FROM (SELECT DISTINCT batch_id FROM claimed) AS batch;
