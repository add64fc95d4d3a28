-- psql -v order_id=order-1 -v total=42 -f producer.sql
\set ON_ERROR_STOP 1

BEGIN;
INSERT INTO orders (order_id, total) VALUES (:'order_id', :'total');
INSERT INTO sagaz.emit (saga_id, event_type, payload, aggregate_type)
    VALUES (:'order_id', 'OrderPlaced', jsonb_build_object('total', :'total'::numeric), 'order')
    RETURNING event_id;
COMMIT;
