-- Facts that hold for every object of the extension.
BEGIN;
SELECT plan(6);

CREATE TEMP VIEW member AS
	SELECT classid, objid,
		pg_catalog.pg_describe_object(classid, objid, 0) AS name
	FROM pg_catalog.pg_depend
	WHERE deptype = 'e'
		AND refobjid = (SELECT oid FROM pg_catalog.pg_extension WHERE extname = 'sagaz');

SELECT is_empty($$
	SELECT name FROM member
	WHERE classid <> 'pg_catalog.pg_class'::regclass
		AND classid <> 'pg_catalog.pg_type'::regclass
		AND pg_catalog.obj_description(objid, classid::regclass::name) IS NULL
	$$, 'every schema and function has a comment');

SELECT is_empty($$
	SELECT c.relname FROM member JOIN pg_catalog.pg_class c ON c.oid = objid
	WHERE classid = 'pg_catalog.pg_class'::regclass AND c.relkind <> 'i'
		AND pg_catalog.obj_description(objid, 'pg_class') IS NULL
	$$, 'every table, view and sequence has a comment');

SELECT is_empty($$
	SELECT name FROM member
	WHERE classid = 'pg_catalog.pg_proc'::regclass
		AND pg_catalog.has_function_privilege('public', objid, 'EXECUTE')
	$$, 'PUBLIC may execute nothing');

SELECT is_empty($$
	SELECT name FROM member JOIN pg_catalog.pg_class c ON c.oid = objid
	WHERE classid = 'pg_catalog.pg_class'::regclass
		AND EXISTS (SELECT FROM pg_catalog.aclexplode(c.relacl) WHERE grantee = 0)
	$$, 'PUBLIC has no privilege on a relation');

SELECT set_eq($$
	SELECT n.nspname FROM member JOIN pg_catalog.pg_namespace n ON n.oid = objid
	WHERE classid = 'pg_catalog.pg_namespace'::regclass
	$$, ARRAY['sagaz', 'sagaz_internal'], 'two schemas are the extension''s');

SELECT is_empty($$
	SELECT relname FROM pg_catalog.pg_class
	WHERE relnamespace = 'sagaz_internal'::regnamespace
	UNION ALL
	SELECT proname FROM pg_catalog.pg_proc
	WHERE pronamespace = 'sagaz_internal'::regnamespace
		AND (proname IN (SELECT proname FROM pg_catalog.pg_proc
				WHERE pronamespace = 'sagaz'::regnamespace)
			OR to_regclass('sagaz.' || proname) IS NOT NULL)
	$$, 'sagaz_internal has functions alone, of names of their own');

SELECT * FROM finish();
ROLLBACK;
