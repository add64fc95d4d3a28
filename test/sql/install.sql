-- The extension is made, dropped and made again.
SELECT extname, extrelocatable, extnamespace::regnamespace FROM pg_extension
	WHERE extname = 'sagaz';
DROP EXTENSION sagaz;
SELECT count(*) FROM pg_namespace WHERE nspname = 'sagaz';
CREATE EXTENSION sagaz;
-- its version is that of the file
SELECT extversion = default_version AS is_default
	FROM pg_extension JOIN pg_available_extensions ON extname = name
	WHERE extname = 'sagaz';
-- it can neither be put elsewhere nor moved
DROP EXTENSION sagaz;
CREATE EXTENSION sagaz SCHEMA public;
CREATE EXTENSION sagaz;
ALTER EXTENSION sagaz SET SCHEMA public;
