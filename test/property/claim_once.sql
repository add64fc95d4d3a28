-- Claim, act and finish in one transaction, which may have an xid already, may
-- claim twice with a follow-up event in between, and may abort.
\set size random(1, 100)
\set early random(1, 3)
\set follow_up random(1, 10)
\set again random(1, 3)
\set patient random(1, 10)
\set fate random(1, 10)
\set wait random(0, 20)
BEGIN;
\if :early = 1
INSERT INTO load.noise VALUES (1);
\sleep 5 ms
\endif
SELECT load.handle_once(':group', :size, :patient = 1, :follow_up = 1, :again = 1);
\if :fate = 1
ROLLBACK;
\else
COMMIT;
\endif
\sleep :wait ms
