/*
 * sagaz.h
 *		What every file of the extension shares: SQLSTATEs, settings, and the
 *		way to the extension's own tables.
 *
 * The folder has what any extension in C would need: relations, rows,
 * arguments, times, words, ids, numbers in bytes.  It knows nothing of sagas
 * or events but the names of their tables and settings, and calls the server
 * alone.
 */
#ifndef SAGAZ_H
#define SAGAZ_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "fmgr.h"
#include "utils/elog.h"
#include "utils/rel.h"
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#else
/* 15 declares a SQL function without exporting it, which is otherwise the same. */
#undef PG_FUNCTION_INFO_V1
#define PG_FUNCTION_INFO_V1(name) \
	extern PGDLLEXPORT Datum name(PG_FUNCTION_ARGS); \
	extern PGDLLEXPORT const Pg_finfo_record *CppConcat(pg_finfo_, name) (void); \
	const Pg_finfo_record * \
	CppConcat(pg_finfo_, name) (void) \
	{ \
		static const Pg_finfo_record info = {1}; \
		return &info; \
	} \
	extern int	no_such_variable
#endif

#if PG_VERSION_NUM >= 180000
#define SAGAZ_NORETURN pg_noreturn
#else
#define SAGAZ_NORETURN pg_attribute_noreturn()
#endif

#define SAGAZ_SCHEMA "sagaz"

/* class SZ, see doc/reference.md */
#define ERRCODE_SAGAZ_STORAGE			MAKE_SQLSTATE('S', 'Z', '0', '0', '0')
#define ERRCODE_SAGAZ_CONNECTION		MAKE_SQLSTATE('S', 'Z', '0', '0', '1')
#define ERRCODE_SAGAZ_NOT_FOUND			MAKE_SQLSTATE('S', 'Z', '0', '0', '2')
#define ERRCODE_SAGAZ_SERIALIZATION		MAKE_SQLSTATE('S', 'Z', '0', '0', '3')
#define ERRCODE_SAGAZ_TRANSFER			MAKE_SQLSTATE('S', 'Z', '0', '0', '4')
#define ERRCODE_SAGAZ_TRANSACTION		MAKE_SQLSTATE('S', 'Z', '0', '0', '5')
#define ERRCODE_SAGAZ_CONCURRENCY		MAKE_SQLSTATE('S', 'Z', '0', '0', '6')
#define ERRCODE_SAGAZ_CAPACITY			MAKE_SQLSTATE('S', 'Z', '0', '0', '7')
#define ERRCODE_SAGAZ_TRANSITION		MAKE_SQLSTATE('S', 'Z', '0', '0', '8')
#define ERRCODE_SAGAZ_INPUT				MAKE_SQLSTATE('S', 'Z', '0', '0', '9')

#define SAGAZ_SAGA_STORAGE "sagaz.saga_storage"
#define SAGAZ_OUTBOX_STORAGE "sagaz.outbox_storage"

/* settings.c; times in milliseconds unless the name says otherwise */
extern char *sagaz_saga_storage;
extern char *sagaz_outbox_storage;
extern int	sagaz_poll_interval;
extern int	sagaz_claim_timeout;
extern int	sagaz_max_retries;
extern int	sagaz_retry_backoff;
extern int	sagaz_batch_size;
extern int	sagaz_archive_after;	/* seconds; -1: never */
extern int	sagaz_inbox_after;	/* seconds; -1: never */
extern int	sagaz_housekeeping_interval;
extern char *sagaz_databases;
extern int	sagaz_max_deliveries;
extern int	sagaz_max_crashes;
extern int	sagaz_max_deliveries_per_database;	/* -1: no limit */
extern int	sagaz_max_deliveries_per_role;	/* -1: no limit */
extern int	sagaz_spare_processes;
extern int	sagaz_memory_limit;
extern char *sagaz_sqlite_directory;
extern int	sagaz_idle_timeout;
extern int	sagaz_connect_timeout;
extern int	sagaz_command_timeout;
extern int	sagaz_max_reply;	/* kilobytes */
extern int	sagaz_max_payload_size; /* kilobytes */

extern void sagaz_settings_define(bool with_worker);
extern bool sagaz_settings_may_set(const char *setting, Oid role);

/* relations.c */
extern Oid	sagaz_schema_find(void);
extern Oid	sagaz_schema_id(void);
extern Oid	sagaz_relation_id(const char *name);
extern Relation sagaz_relation_open(const char *name, LOCKMODE lockmode);
extern void sagaz_relations_keep_begin(void);
extern void sagaz_relations_keep_end(void);
extern Relation sagaz_relation_hold(const char *name, LOCKMODE lockmode);
extern void sagaz_relation_let_go(Relation rel, LOCKMODE lockmode);

/* arguments.c */
extern Datum sagaz_argument(FunctionCallInfo fcinfo, int argno, const char *field);
extern char *sagaz_text_argument(FunctionCallInfo fcinfo, int argno,
								 const char *field);
extern char *sagaz_text_argument_or_null(FunctionCallInfo fcinfo, int argno);
extern int64 sagaz_interval_argument(FunctionCallInfo fcinfo, int argno,
									 const char *field);
extern int	sagaz_interval_in_ms(const Interval *value);
extern int	sagaz_rows_argument(FunctionCallInfo fcinfo, int argno, const char *field);
extern int64 sagaz_max_rows_argument(FunctionCallInfo fcinfo, int argno, int64 all);
extern Datum *sagaz_ids_argument(FunctionCallInfo fcinfo, int argno,
								 const char *field, int *count);

/* text_array.c */
extern Datum sagaz_text_array(const char *const *texts, int count);
extern char **sagaz_text_array_argument(FunctionCallInfo fcinfo, int argno,
										const char *field, int *count);

/* error_text.c */
extern char *sagaz_error_text(const ErrorData *error);

#endif							/* SAGAZ_H */
