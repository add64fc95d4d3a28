BEGIN;
SELECT load.emit('long', 1);
\sleep 20 s
SELECT load.emit('long', 1);
COMMIT;
