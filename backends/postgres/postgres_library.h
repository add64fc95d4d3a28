/*
 * postgres_library.h
 *		What the files of the Python library's layout share.
 */
#ifndef SAGAZ_POSTGRES_LIBRARY_H
#define SAGAZ_POSTGRES_LIBRARY_H

#include "backends/postgres/postgres_store.h"

/* The steps of the saga in that row as an array of objects, after a SELECT. */
#define LIBRARY_STEPS_OF(row) \
	"coalesce(jsonb_agg(jsonb_build_object(" \
	"'name', p.step_name, 'status', p.status, 'result', p.result," \
	" 'error', p.error, 'executed_at', p.executed_at," \
	" 'compensated_at', p.compensated_at," \
	" 'retry_count', coalesce(p.retry_count, 0)) ORDER BY p.id), '[]') AS steps" \
	" FROM @.saga_steps AS p WHERE p.saga_id = " row ".saga_id"

/* postgres_library_sql.c: a statement's text, with the schema for each "@" */
extern char *library_sql(const PostgresStore *store, const char *sql);

/* See to it that all tables are there. */
extern void library_make_tables(PostgresStore *store);

/* postgres_library_read.c */
extern SagazRecord *library_record(const PostgresResult *rows, int row,
								   SagazKind kind, const SagazFilter *filter);
extern List *library_fetch(PostgresReader *reader);
extern int64 library_count(PostgresStore *store, SagazKind kind,
						   const SagazFilter *filter);
extern PostgresResult *library_lock(PostgresStore *store, SagazKind kind,
									const SagazFilter *filter);

/* postgres_library_fit.c */
extern char *library_unfit(PostgresStore *store, const SagazRecord *record);
extern void library_check_record(const PostgresStore *store,
								 SagazRecord *record);

/* postgres_library_edit.c */
extern int64 library_edit(PostgresStore *store, SagazKind kind,
						  const SagazFilter *filter, bool create,
						  SagazEdit edit, void *arg);

/* The result, after library_queue_fresh(), that has the keys that are there. */
#define LIBRARY_THERE 2

/*
 * postgres_library_write.c.  All queue statements.  The last result after
 * library_queue_main() with one record, which may not replace, has its key if
 * it was inserted.
 */
extern void library_queue_fresh(PostgresStore *store, SagazRecord *const *records,
								int count);
extern void library_queue_main(PostgresStore *store, SagazRecord *const *records,
							   int count, bool replace);
extern void library_queue_rest(PostgresStore *store, SagazRecord *const *records,
							   int count);
extern void library_queue_states(PostgresStore *store, SagazRecord *const *records,
								 int count);
extern void library_queue_removal(PostgresStore *store, SagazKind kind,
								  const char *const *keys, int count);

#endif							/* SAGAZ_POSTGRES_LIBRARY_H */
