/*
 * library_tables.h
 *		Whose code would run when the Python library's tables are used?
 *
 * A view, a trigger, a default or an index of somebody else's runs his
 * functions as whoever reads or writes the table.  So before either, here or
 * at the other end, this is asked of the catalog, with a search_path of
 * pg_catalog alone: $1 the schema, $2 a further role that is trusted, or NULL,
 * $3 the names of the tables.  It gives what is wrong: an object's name and a
 * clause that tells.  Trusted are the present user, superusers and the owner of
 * the database; the schema must be theirs, too, as its owner can put another
 * table in a table's place.
 */
#ifndef SAGAZ_LIBRARY_TABLES_H
#define SAGAZ_LIBRARY_TABLES_H

#define LIBRARY_TABLES_CHECK \
	"WITH RECURSIVE trusted (role) AS (SELECT oid FROM pg_catalog.pg_roles" \
	" WHERE rolsuper OR rolname IN (current_user, 'pg_database_owner', $2)" \
	" OR oid = (SELECT datdba FROM pg_catalog.pg_database" \
	" WHERE datname = pg_catalog.current_database()))," \
	" used (oid) AS (SELECT c.oid FROM pg_catalog.pg_class AS c" \
	" JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace" \
	" WHERE n.nspname = $1 AND c.relname = ANY ($3::pg_catalog.text[])" \
	" UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits AS i" \
	" JOIN used AS u ON u.oid = i.inhparent)," \
	" part (classid, objid, oid) AS (SELECT d.classid, d.objid, u.oid" \
	" FROM used AS u JOIN pg_catalog.pg_depend AS d" \
	" ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = u.oid" \
	" WHERE d.classid IN ('pg_catalog.pg_attrdef'::pg_catalog.regclass," \
	" 'pg_catalog.pg_constraint'::pg_catalog.regclass, 'pg_catalog.pg_trigger'::pg_catalog.regclass," \
	" 'pg_catalog.pg_policy'::pg_catalog.regclass, 'pg_catalog.pg_class'::pg_catalog.regclass)" \
	" AND NOT EXISTS (SELECT FROM used AS o WHERE d.classid = d.refclassid AND o.oid = d.objid))," \
	" called (oid, owner) AS (SELECT p.oid," \
	" coalesce((SELECT proowner FROM pg_catalog.pg_proc AS f WHERE f.oid = d.refobjid" \
	" AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass)," \
	" (SELECT oprowner FROM pg_catalog.pg_operator AS f WHERE f.oid = d.refobjid" \
	" AND d.refclassid = 'pg_catalog.pg_operator'::pg_catalog.regclass)," \
	" (SELECT opcowner FROM pg_catalog.pg_opclass AS f WHERE f.oid = d.refobjid" \
	" AND d.refclassid = 'pg_catalog.pg_opclass'::pg_catalog.regclass))" \
	" FROM part AS p JOIN pg_catalog.pg_depend AS d" \
	" ON d.classid = p.classid AND d.objid = p.objid)" \
	" SELECT 'schema ' || pg_catalog.quote_ident(nspname)," \
	" 'belongs to role ' || pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(nspowner))" \
	" FROM pg_catalog.pg_namespace WHERE nspname = $1 AND nspowner NOT IN (SELECT role FROM trusted)" \
	" UNION ALL SELECT * FROM (SELECT c.oid::pg_catalog.regclass::text, CASE" \
	" WHEN c.relkind NOT IN ('r', 'p') THEN 'is no table'" \
	" WHEN c.relowner NOT IN (SELECT role FROM trusted)" \
	" THEN 'belongs to role ' || pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(c.relowner))" \
	" WHEN c.relhasrules THEN 'has rules'" \
	" WHEN pg_catalog.row_security_active(c.oid) THEN 'hides rows by row level security'" \
	" WHEN EXISTS (SELECT FROM pg_catalog.pg_attribute AS a" \
	" JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid" \
	" WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped" \
	" AND t.typnamespace <> 'pg_catalog'::pg_catalog.regnamespace" \
	" AND t.typowner NOT IN (SELECT role FROM trusted)) THEN 'has a column of somebody else''s type'" \
	" WHEN EXISTS (SELECT FROM called AS f WHERE f.oid = c.oid" \
	" AND f.owner NOT IN (SELECT role FROM trusted)) THEN 'runs somebody else''s function'" \
	" END AS problem FROM used AS u JOIN pg_catalog.pg_class AS c ON c.oid = u.oid) AS r" \
	" WHERE problem IS NOT NULL"

#endif							/* SAGAZ_LIBRARY_TABLES_H */
