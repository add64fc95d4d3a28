-- Many places drawn for nothing.
\set count random(100, 1000)
\set fate random(0, 1)
BEGIN;
SELECT max(sagaz_internal.next_seq()) FROM generate_series(1, :count);
\if :fate
ROLLBACK;
\else
COMMIT;
\endif
