-- Savepoints rolled back, aborts, and xids taken before another is waited for.
\set saga random(1, 20)
\set early random(0, 1)
\set undo random(1, 4)
\set fate random(1, 10)
\set wait random(0, 15)
\set linger random(0, 15)
BEGIN;
\if :early
INSERT INTO load.noise VALUES (1);
\endif
\sleep :wait ms
SELECT load.emit('s:saga', 1);
SAVEPOINT a;
SELECT load.emit('s:saga', 2);
\if :undo = 1
ROLLBACK TO a;
\endif
\sleep :linger ms
SELECT load.emit('s:saga', 1);
\if :fate = 1
ROLLBACK;
\else
COMMIT;
\endif
