-- What a shop changes when an order comes in; the event goes beside it.
DROP SCHEMA IF EXISTS bench_business CASCADE;
CREATE SCHEMA bench_business;
CREATE TABLE bench_business.account (
	id integer PRIMARY KEY,
	balance numeric NOT NULL
) WITH (fillfactor = 80);
INSERT INTO bench_business.account SELECT i, 1000 FROM generate_series(1, 100000) i;
CREATE TABLE bench_business.customer_order (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	account integer NOT NULL REFERENCES bench_business.account,
	total numeric NOT NULL,
	created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE bench_business.item (
	customer_order bigint NOT NULL REFERENCES bench_business.customer_order,
	line integer NOT NULL,
	sku text NOT NULL,
	PRIMARY KEY (customer_order, line)
);
VACUUM ANALYZE bench_business.account;
