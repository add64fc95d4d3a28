/*
 * secrets.c
 *		What a caller wrote in place of a storage's name may be a URL, and a
 *		URL may hold a password.
 *
 * PostgreSQL puts the statement of an error into the server's log, and
 * PL/pgSQL, SPI and DO put theirs into its context, which the client gets,
 * too.  Functions that take a storage are called by way of this file: then an
 * error raised in them has neither.
 */
#include "lib/sagaz.h"

#include "fmgr.h"

#include "storage/secrets.h"
#include "storage/storage.h"

PG_FUNCTION_INFO_V1(sagaz_storage_refuse_unknown);

/* Is it more than a plain name, so that errors must not show it? */
bool
sagaz_may_hold_secret(const char *name)
{
	return strpbrk(name, ":/@?=") != NULL;
}

static void
hide_secret_statement(void *arg)
{
	errhidestmt(true);
}

/*
 * Call a function whose statement may hold a secret.  Until it returns, or an
 * error leaves it, the contexts of its callers are out of reach of messages;
 * whoever catches an error brings them back.
 */
Datum
sagaz_secrets_hide_statement(FunctionCallInfo fcinfo, PGFunction function)
{
	ErrorContextCallback hide = {NULL, hide_secret_statement, NULL};
	ErrorContextCallback *outer = error_context_stack;
	Datum		result;

	error_context_stack = &hide;
	result = function(fcinfo);
	error_context_stack = outer;
	return result;
}

/* Call a function one of whose arguments is a storage, which may be a URL. */
Datum
sagaz_secrets_hide_argument(FunctionCallInfo fcinfo, int argno, PGFunction function)
{
	char	   *name = sagaz_text_argument_or_null(fcinfo, argno);

	return name && sagaz_may_hold_secret(name) ?
		sagaz_secrets_hide_statement(fcinfo, function) : function(fcinfo);
}

/* The same for the functions whose last argument it is. */
Datum
sagaz_secrets_hide_storage(FunctionCallInfo fcinfo, PGFunction function)
{
	return sagaz_secrets_hide_argument(fcinfo, PG_NARGS() - 1, function);
}

/* Raise that there is no storage of that name. */
void
sagaz_storage_unknown(const char *name)
{
	bool		is_shown = !sagaz_may_hold_secret(name);

	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_NOT_FOUND),
			 is_shown ? errmsg("storage \"%s\" does not exist", name) :
			 errmsg("the storage does not exist"),
			 is_shown ? 0 :
			 errdetail("Its name is not shown, as it may be a URL with a password. A URL begins with a backend's name and \"://\"."),
			 errhint("Make one with SELECT %s.create_storage(name, url); 'native' are the tables of this database.",
					 SAGAZ_SCHEMA)));
}

static Datum
refuse_unknown(FunctionCallInfo fcinfo)
{
	char	   *name = sagaz_text_argument_or_null(fcinfo, 0);

	sagaz_storage_unknown(name ? name : "");
	PG_RETURN_VOID();
}

/* storage_refuse_unknown(name): the error for functions in SQL */
Datum
sagaz_storage_refuse_unknown(PG_FUNCTION_ARGS)
{
	return sagaz_secrets_hide_storage(fcinfo, refuse_unknown);
}
