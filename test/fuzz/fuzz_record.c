/*
 * fuzz_record.c
 *		Records out of JSON, as an import and another sagaz give them, and
 *		fields as foreign stores hold them.
 *
 * What was read must be written and read again as the same.
 */
#include "fuzz.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"

#include "backends/record/digest.h"
#include "backends/record/record.h"

static bool
same_digest(const SagazRecord *a, const SagazRecord *b)
{
	SagazDigest one;
	SagazDigest two;

	sagaz_digest(a, &one);
	sagaz_digest(b, &two);
	return memcmp(&one, &two, sizeof(SagazDigest)) == 0;
}

static void
write_and_read(const SagazRecord *record)
{
	SagazRecord again = {.kind = record->kind};
	StringInfoData text;

	initStringInfo(&text);
	sagaz_record_to_wire(record, &text);
	sagaz_record_from_wire(record->kind,
						   DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
															  CStringGetDatum(text.data))),
						   &again);
	if (!same_digest(record, &again))
		abort();
	memset(&again, 0, sizeof(again));
	again.kind = record->kind;
	sagaz_record_from_json(record->kind, sagaz_record_to_json(record), &again);
	if (!same_digest(record, &again))
		abort();
}

static void
fuzz_read_record(SagazKind kind, bool wire, const char *text, size_t size)
{
	SagazRecord record = {.kind = kind};
	char	   *problem;
	Jsonb	   *json = sagaz_field_parse_json(text, size, &problem);

	if (json == NULL)
		return;
	if (wire)
		sagaz_record_from_wire(kind, json, &record);
	else
		sagaz_record_from_json(kind, json, &record);
	sagaz_record_check(&record);
	if (record.problem == NULL && sagaz_fit_problem(&record) == NULL)
		write_and_read(&record);
}

static void
read_field(const char *bytes, size_t size)
{
	SagazRecord record = {.kind = SAGAZ_EVENT};
	char	   *text = sagaz_field_text(bytes, size, "field", &record);

	if (text == NULL)
		return;
	(void) sagaz_field_time(text, "time", &record);
	(void) sagaz_field_json(text, "json", &record);
}

/* The first byte says what the others are. */
void
fuzz_record(const uint8 *data, size_t size)
{
	if (size == 0)
		return;
	if (data[0] % 5 == 4)
		read_field((const char *) data + 1, size - 1);
	else
		fuzz_read_record(data[0] % 2 ? SAGAZ_EVENT : SAGAZ_SAGA, data[0] % 4 >= 2,
					(const char *) data + 1, size - 1);
}
