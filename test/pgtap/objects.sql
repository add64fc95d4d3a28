-- Facts that hold for every object of the extension.
BEGIN;
SELECT plan(4);

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

SELECT * FROM finish();
ROLLBACK;
