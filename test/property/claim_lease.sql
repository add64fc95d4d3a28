-- Claim in one transaction, and then one of the things that workers do.
\set size random(1, 200)
\set patient random(1, 10)
\set fate random(1, 15)
\set what random(1, 100)
\set dice random(0, 1000000)
\set early random(1, 3)
\set wait random(0, 20)
BEGIN;
\if :early = 1
INSERT INTO load.noise VALUES (1);
\endif
SELECT load.take(':group', :size, :patient = 1) AS batch \gset
\if :fate = 1
ROLLBACK;
\else
COMMIT;
\if :batch > 0
\if :what <= 50
SELECT load.work(:batch, 'finish', 0);
\elif :what <= 70
SELECT load.work(:batch, 'fail', :dice);
SELECT load.work(:batch, 'finish rest', 0);
\elif :what <= 80
SELECT load.work(:batch, 'release', :dice);
\elif :what <= 85
SELECT load.work(:batch, 'send each', 0);
\elif :what <= 95
SELECT load.work(:batch, 'act', 0);
SELECT load.work(:batch, 'finish rest', 0);
\elif :what <= 96
SELECT load.work(:batch, 'act', 0);
\elif :what <= 97
SELECT load.work(:batch, 'fail', :dice);
\elif :what <= 99
SELECT 'drops it';
\else
SELECT pg_terminate_backend(pg_backend_pid());
\endif
\endif
\endif
\sleep :wait ms
