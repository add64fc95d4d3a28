/*
 * postgres_store.h
 *		What the files of the PostgreSQL backend share.
 *
 * libpq is known to postgres_connection.c and postgres_connect.c alone.  Statements are queued, and
 * an exchange sends them in one pipeline and reads all their results, so that
 * it costs one round trip, however many there are.
 *
 * The folder has two kinds of storages in another database: one that has this
 * extension, whose functions are called there, and the Python library's
 * tables.  Words: the layout is which of the two it is.  It knows no other
 * backend.
 */
#ifndef SAGAZ_POSTGRES_STORE_H
#define SAGAZ_POSTGRES_STORE_H

#include "backends/common/backend.h"

typedef enum PostgresLayout
{
	LAYOUT_UNKNOWN,				/* not looked at yet */
	LAYOUT_EMPTY,				/* none of the two, and room for the second */
	LAYOUT_SAGAZ,				/* a database with this extension */
	LAYOUT_LIBRARY				/* the Python library's tables */
} PostgresLayout;

typedef struct PostgresConnection PostgresConnection;

typedef struct PostgresStore
{
	SagazStore	base;
	PostgresConnection *connection;
	PostgresLayout layout;
	TimestampTz cursors_since;	/* transaction whose readers may have any */
	char	   *schema;			/* of the library's tables, quoted */
	bool		has[SAGAZ_EVENT + 1];	/* they are there */
	bool		has_side[SAGAZ_EVENT + 1];	/* and so are those of sagaz */
	bool		copy_is_open;	/* the cursor of fetch_library_copy() */
} PostgresStore;

/*
 * What has been read and not been handed out; the cursor and the positions,
 * one a record, are of layout sagaz.
 */
typedef struct PostgresReader
{
	SagazReader base;
	MemoryContext chunk;		/* of the records */
	List	   *records;
	int			next;			/* of the list */
	int64		count;			/* handed out */
	char	   *last_key;			/* as it came */
	bool		at_end;			/* nothing is left to be read */
	bool		copies;			/* reads from the store's cursor for that */
	int			fetch_size;		/* records of the next round trip */
	char	   *cursor;			/* its name, NULL: none is open */
	List	   *positions;
	char	   *page_end;		/* the last position that was read */
	int			page_size;		/* records asked for, of the next page */
	uint64		request;		/* of the next page, 0: none */
	MemoryContextCallback give_up;	/* it goes with the reader */
	int			next_key;		/* of the filter's */
} PostgresReader;

/* In the memory context of the exchange; a value is text, NULL for null. */
typedef struct PostgresResult
{
	const PostgresStore *store; /* who answered */
	int			nrows;
	int			ncolumns;
	int64		affected;		/* rows, of INSERT, UPDATE, DELETE */
	char	  **values;			/* UTF-8 or what is there instead of it */
} PostgresResult;

/* postgres_result.c */
SAGAZ_NORETURN extern void postgres_refuse_result(const PostgresResult *result,
								   const char *why);
extern const char *postgres_bytes(const PostgresResult *result, int row, int column);
extern char *postgres_value(const PostgresResult *result, int row, int column);
extern char *postgres_text(const PostgresResult *result, int row, int column);
extern int64 postgres_number(const PostgresResult *result, int row, int column);
extern int64 postgres_number_or_zero(const PostgresResult *result, int row,
									 int column);
extern bool postgres_flag(const PostgresResult *result, int row, int column);
extern void postgres_expect_rows(const PostgresResult *result, int most);

/* postgres_session.c */
extern void postgres_check_session_options(const char *value);

/* postgres_connect.c */
extern void postgres_connect(PostgresStore *store);
extern void postgres_ready(PostgresStore *store);
extern int	postgres_encoding(const PostgresStore *store);
extern const char *postgres_client_version(void);
extern List *postgres_url_options(const char *url);

/*
 * postgres_connection.c.  What is sent is in the database's encoding, but for
 * parameters in binary form, which are UTF-8, and those of
 * postgres_queue_bytes(), which are as they came.  types may be
 * NULL: the other server finds out.  A statement that is run again and again
 * is prepared, with a result of its own, and stays so until the next one; its
 * parameters are in binary form.  An exchange is one implicit transaction
 * unless BEGIN is among its statements; when it raises an error nothing that
 * it began is left open.  What the other server raised is raised again with
 * its SQLSTATE; postgres_exchange_unless() returns NULL instead where it is
 * that one.
 */
extern void postgres_queue(PostgresStore *store, const char *sql, int nparams,
						   const Oid *types, const char *const *values);
extern void postgres_queue_bytes(PostgresStore *store, const char *sql, int nparams,
								 const Oid *types, const char *const *values);
extern void postgres_prepare(PostgresStore *store, const char *sql, int nparams,
							 const Oid *types);
extern void postgres_queue_prepared(PostgresStore *store, int nparams,
									const char *const *values, const int *lengths);
extern void postgres_send_ahead(PostgresStore *store);
extern PostgresResult **postgres_exchange(PostgresStore *store, int *count);
extern PostgresResult **postgres_exchange_unless(PostgresStore *store, int sqlstate,
												 int *count);
extern bool postgres_can_request(void);
extern uint64 postgres_request(PostgresStore *store);
extern void postgres_give_up_request(uint64 request);
extern PostgresResult **postgres_collect(PostgresStore *store, uint64 request, int *count);
extern PostgresResult *postgres_query(PostgresStore *store, const char *sql,
									  int nparams, const Oid *types,
									  const char *const *values);
extern void postgres_roll_back(PostgresStore *store);	/* in a PG_CATCH block */

/* postgres_examine.c */
extern List *postgres_examine(SagazStore *base, SagazKind kind);

/* postgres_layout.c */
#define POSTGRES_DEFAULT_SCHEMA "public"

extern void postgres_look_for_layout(PostgresStore *store);
extern PostgresLayout postgres_layout(PostgresStore *store);
extern bool postgres_reads_by_key(SagazKind kind, const SagazFilter *filter);

/*
 * The operations of backend.h in each layout.  fetch returns the next records
 * of a reader, SagazRecord, some fetch_size of them, in the present memory
 * context, and says in at_end whether they are the last.
 */
typedef struct PostgresOperations
{
	int64		(*put) (PostgresStore *store, SagazRecord *records, int count,
						SagazPutMode mode);
	int64		(*edit) (PostgresStore *store, SagazKind kind,
						 const SagazFilter *filter, bool create,
						 SagazEdit edit, void *arg);
	List	   *(*fetch) (PostgresReader *reader);
	int64		(*count) (PostgresStore *store, SagazKind kind,
						  const SagazFilter *filter);
	void		(*merge) (PostgresStore *store, SagazRecord *records, int count,
						  bool over_claims, SagazMerged *merged);
	int64		(*remove) (PostgresStore *store, SagazKind kind,
						   const char *const *keys, int nkeys);
	char	   *(*unfit) (PostgresStore *store, const SagazRecord *record);
} PostgresOperations;

extern const PostgresOperations postgres_sagaz_operations;	/* postgres_sagaz.c */
extern const PostgresOperations postgres_library_operations;	/* postgres_library.c */

/* merge.c, by these operations */
static inline void
postgres_merge_by_edit(PostgresStore *store, SagazRecord *records, int count,
					   bool over_claims, SagazMerged *merged)
{
	sagaz_merge_by_edit(&store->base, records, count, over_claims, merged);
}

static inline int64
postgres_remove_by_edit(PostgresStore *store, SagazKind kind,
						const char *const *keys, int nkeys)
{
	return sagaz_remove_by_edit(&store->base, kind, keys, nkeys);
}

/* postgres_sagaz.c */
extern bool postgres_sagaz_call(PostgresStore *store, const SagazCall *call);
extern void postgres_sagaz_close(PostgresReader *reader);

#endif							/* SAGAZ_POSTGRES_STORE_H */
