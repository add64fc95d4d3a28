-- One batch of events; for all that come: while psql -f consumer.sql; do :; done
--
-- Claim, work and mark are one transaction: it happens once, or not at all.
\set ON_ERROR_STOP 1

CALL sagaz.wait_for_events('10 s', 'invoices');

DO $$
DECLARE
    worker text := 'psql-' || pg_backend_pid();
    event sagaz.outbox_event;
BEGIN
    FOR event IN
        SELECT * FROM sagaz.claim_batch(worker, 100, consumer_group => 'invoices')
    LOOP
        BEGIN
            IF event.event_type = 'OrderPlaced' THEN
                INSERT INTO invoices (order_id, total)
                    VALUES (event.saga_id, (event.payload ->> 'total')::numeric);
            END IF;
            PERFORM sagaz.mark_sent(ARRAY[event.event_id], worker, 'invoices');
        EXCEPTION WHEN OTHERS THEN
            PERFORM sagaz.mark_failed(ARRAY[event.event_id], worker, SQLERRM, 'invoices');
        END;
    END LOOP;
END
$$;
