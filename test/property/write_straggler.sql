-- A bulk that commits long after its places were drawn.
BEGIN;
SELECT load.emit('bulk', 600);
\sleep 2 s
SELECT load.emit('bulk', 200);
COMMIT;
