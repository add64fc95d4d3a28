\set saga random(1, 20)
\set id random(1, 1000000000000)
\set fate random(1, 4)
\set wait random(0, 15)
BEGIN;
SELECT load.emit('s:saga', 2);
PREPARE TRANSACTION 'p:id';
\sleep :wait ms
\if :fate = 1
ROLLBACK PREPARED 'p:id';
\else
COMMIT PREPARED 'p:id';
\endif
