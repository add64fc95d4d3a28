/*
 * postgres_result.c
 *		What another server answers, for all who read results.
 *
 * Nothing of it is believed: a server may be another version, or somebody
 * else's.  A row, a column or a value that must be there and is not, and a
 * number that is none, is an error here, so that nobody else needs to look.
 */
#include "backends/postgres/postgres_store.h"

#include "utils/builtins.h"

#include "lib/encoding.h"

/* The answer is not what was asked for; why is a clause. */
void
postgres_refuse_result(const PostgresResult *result, const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_STORAGE),
			 errmsg("storage \"%s\" answers what was not asked for",
					result->store->base.name),
			 errdetail_internal("%s.", why),
			 errhint("See whether its server is the one that is meant, and that nobody has replaced functions of sagaz there.")));
}

/* A value as it came, NULL for null. */
const char *
postgres_bytes(const PostgresResult *result, int row, int column)
{
	if (row < 0 || row >= result->nrows)
		postgres_refuse_result(result, "It has too few rows");
	if (column >= result->ncolumns)
		postgres_refuse_result(result, "It has too few columns");
	return result->values[(Size) row * result->ncolumns + column];
}

/* A value in the database's encoding, NULL for null. */
char *
postgres_value(const PostgresResult *result, int row, int column)
{
	const char *bytes = postgres_bytes(result, row, column);
	char	   *text = bytes ? sagaz_from_utf8(bytes, strlen(bytes)) : NULL;

	if (bytes && text == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_SERIALIZATION),
				 errmsg("storage \"%s\" answers with text that the database has no place for",
						result->store->base.name)));
	return text;
}

/* A value that is never null. */
char *
postgres_text(const PostgresResult *result, int row, int column)
{
	char	   *value = postgres_value(result, row, column);

	if (value == NULL)
		postgres_refuse_result(result, "A value is null");
	return value;
}

static int64
read_number(const PostgresResult *result, const char *text)
{
	int64		number;
	char	   *end;

	errno = 0;
	number = strtoll(text, &end, 10);
	if (errno != 0 || end == text || *end != '\0')
		postgres_refuse_result(result, "A number is none");
	return number;
}

/* A null is an error, as in postgres_text(). */
int64
postgres_number(const PostgresResult *result, int row, int column)
{
	return read_number(result, postgres_text(result, row, column));
}

/* A number, 0 for null. */
int64
postgres_number_or_zero(const PostgresResult *result, int row, int column)
{
	char	   *value = postgres_value(result, row, column);

	return value ? read_number(result, value) : 0;
}

/* Anything but "t" is false; a null is an error. */
bool
postgres_flag(const PostgresResult *result, int row, int column)
{
	return strcmp(postgres_text(result, row, column), "t") == 0;
}

/* At most so many rows were asked for. */
void
postgres_expect_rows(const PostgresResult *result, int most)
{
	if (result->nrows > most)
		postgres_refuse_result(result, "It has too many rows");
}
