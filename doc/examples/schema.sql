-- The shop of the examples: it takes orders and writes an invoice for each.
CREATE EXTENSION IF NOT EXISTS sagaz;

CREATE TABLE orders (
    order_id text PRIMARY KEY,
    total numeric NOT NULL CHECK (total >= 0)
);
CREATE TABLE invoices (
    invoice_no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id text NOT NULL,
    total numeric NOT NULL
);
SELECT sagaz.create_consumer_group('invoices');

-- for the saga
CREATE TABLE stock (
    item text PRIMARY KEY,
    pieces integer NOT NULL CHECK (pieces >= 0)
);
CREATE TABLE accounts (
    customer text PRIMARY KEY,
    balance numeric NOT NULL CHECK (balance >= 0)
);
INSERT INTO stock VALUES ('book', 10);
INSERT INTO accounts VALUES ('ada', 100);
