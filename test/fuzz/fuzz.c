/*
 * fuzz.c
 *		LLVM's fuzzer in a server that runs alone, as a function of SQL.
 *
 * An input may be refused by an error.  What is found is what a sanitizer or
 * an assertion stops, and an error that no user should get: an internal one.
 */
#include "fuzz.h"

#include "access/xact.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

PG_FUNCTION_INFO_V1(sagaz_fuzz);

extern int	LLVMFuzzerRunDriver(int *argc, char ***argv,
								int (*one) (const uint8_t *data, size_t size));

typedef void (*Target) (const uint8 *data, size_t size);

static Target target;
static MemoryContext context;

static void
report(const ErrorData *error)
{
	if (error->sqlerrcode != ERRCODE_INTERNAL_ERROR)
		return;
	write_stderr("internal error: %s\n", error->message);
	abort();
}

static int
one_input(const uint8_t *data, size_t size)
{
	MemoryContext outer = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	MemoryContextReset(context);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		target(data, size);
		MemoryContextSwitchTo(outer);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		report(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(outer);
	CurrentResourceOwner = owner;
	return 0;
}

/* sagaz_fuzz(target, options of the fuzzer, paths of two sockets, a directory) */
Datum
sagaz_fuzz(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *options = text_to_cstring(PG_GETARG_TEXT_PP(1));
	char	   *argv[64] = {"fuzz"};
	char	  **args = argv;
	int			argc = 1;

	for (char *word = strtok(options, " "); word && argc < 63; word = strtok(NULL, " "))
		argv[argc++] = word;
	context = AllocSetContextCreate(TopMemoryContext, "fuzz", ALLOCSET_DEFAULT_SIZES);
	target = strcmp(name, "redis") == 0 ? fuzz_redis : fuzz_record;
	if (target == fuzz_redis)
		fuzz_redis_begin(text_to_cstring(PG_GETARG_TEXT_PP(2)),
						 text_to_cstring(PG_GETARG_TEXT_PP(3)),
						 text_to_cstring(PG_GETARG_TEXT_PP(4)));
	PG_RETURN_INT32(LLVMFuzzerRunDriver(&argc, &args, one_input));
}
