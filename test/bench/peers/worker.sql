DROP SCHEMA IF EXISTS bench_worker CASCADE;
DROP EXTENSION IF EXISTS sagaz CASCADE;
CREATE EXTENSION sagaz;
CREATE SCHEMA bench_worker;
CREATE TABLE bench_worker.ledger (event_id uuid);

CREATE FUNCTION bench_worker.to_ledger(sagaz.outbox_event[]) RETURNS void
	LANGUAGE sql AS $$
	INSERT INTO bench_worker.ledger SELECT event_id FROM unnest($1)
	$$;

-- what a client does in one round trip, in one transaction
CREATE FUNCTION bench_worker.client_work() RETURNS integer
	LANGUAGE plpgsql AS $$
DECLARE
	batch sagaz.outbox_event[];
BEGIN
	SELECT array_agg(e) INTO batch FROM sagaz.claim_batch('client') AS e;
	IF batch IS NULL THEN
		RETURN 0;
	END IF;
	PERFORM bench_worker.to_ledger(batch);
	RETURN sagaz.finish_batch(batch[1].batch_id, 'client');
END
$$;
