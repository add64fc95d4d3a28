/*
 * bounds.c
 *		How large the parts of an event may be, whichever way it comes in.
 *
 * What is accepted here must fit wherever an event goes later: into the keys
 * of retries and of the archive, into a worker's memory, into ISO 8601.  Each
 * function returns what is wrong, in the present memory context, or NULL.
 */
#include "lib/sagaz.h"

#include "utils/builtins.h"
#include "utils/numeric.h"

#include "backends/record/bounds.h"
#include "lib/times.h"

/*
 * Text of a number, at most, and bytes of JSON that hold one at least.  Binary
 * JSON that is this much smaller than the limit needs no counting.
 */
#define LONGEST_NUMBER	(131072 + 16383 + 3)
#define SMALLEST_NUMBER	8

/* Bytes that one of a string takes at most, as \u0001. */
#define ESCAPED			6

/* Why a key of so many bytes is too long for the index; NULL if it is not. */
char *
sagaz_bounds_of_text(const char *field, size_t bytes)
{
	if (bytes <= SAGAZ_KEY_LENGTH)
		return NULL;
	return psprintf("%s is too long: it has %zu bytes; the limit is %d", field, bytes,
					SAGAZ_KEY_LENGTH);
}

/* 0 is none. */
char *
sagaz_bounds_of_time(const char *field, TimestampTz time)
{
	if (time == 0 || sagaz_time_in_range(time))
		return NULL;
	return psprintf("%s must be between the years 1 and 9999", field);
}

/* Bytes of JSON as text: at least, without any escape, and at most. */
static void
count_json_text(const Jsonb *json, int64 *least, int64 *most)
{
	JsonbIterator *iterator = JsonbIteratorInit(unconstify(JsonbContainer *, &json->root));
	JsonbValue	value;
	JsonbIteratorToken token;

	*least = *most = 0;
	while ((token = JsonbIteratorNext(&iterator, &value, false)) != WJB_DONE)
	{
		int			bytes = 0;

		if (token == WJB_KEY || token == WJB_VALUE || token == WJB_ELEM)
		{
			if (value.type == jbvString)
				bytes = value.val.string.len;
			else if (value.type == jbvNumeric)
			{
				char	   *number = DatumGetCString(DirectFunctionCall1(numeric_out,
																		 NumericGetDatum(value.val.numeric)));

				bytes = strlen(number);
				pfree(number);
			}
		}
		*least += bytes;
		*most += ESCAPED * (int64) bytes + ESCAPED;
	}
}

/* Has it more text than that? */
static bool
json_is_longer(const Jsonb *json, int64 limit)
{
	int64		least;
	int64		most;

	if (VARSIZE(json) / SMALLEST_NUMBER * (int64) LONGEST_NUMBER <= limit)
		return false;
	count_json_text(json, &least, &most);
	if (least > limit || most <= limit)
		return least > limit;
	return (int64) strlen(JsonbToCString(NULL, unconstify(JsonbContainer *, &json->root),
								 VARSIZE(json))) > limit;
}

/* By its text: a number of few digits and a large exponent has a long one. */
char *
sagaz_bounds_of_json(const char *field, const Jsonb *json)
{
	if (!json_is_longer(json, sagaz_max_payload_size * INT64CONST(1024)))
		return NULL;
	return psprintf("%s is too large: sagaz.max_payload_size allows %d kB of text", field,
					sagaz_max_payload_size);
}

/* The texts and documents of an event; its times were read by who read it. */
char *
sagaz_bounds_of_event(const SagazEvent *event)
{
	const struct
	{
		const char *field;
		const char *value;
	}			texts[] = {
		{"saga_id", event->saga_id},
		{"event_type", event->event_type},
		{"aggregate_type", event->aggregate_type},
		{"aggregate_id", event->aggregate_id},
		{"routing_key", event->routing_key},
		{"partition_key", event->partition_key}
	};
	char	   *why = sagaz_bounds_of_json("payload", event->payload);

	if (why == NULL)
		why = sagaz_bounds_of_json("headers", event->headers);
	for (int i = 0; why == NULL && i < (int) lengthof(texts); i++)
		if (texts[i].value)
			why = sagaz_bounds_of_text(texts[i].field, strlen(texts[i].value));
	return why;
}
