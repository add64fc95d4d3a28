/*
 * filter.c
 *		Which records are meant, and in which order.
 */
#include "backends/record/filter.h"

#include <ctype.h>

#include "catalog/pg_collation.h"
#include "utils/formatting.h"
#include "utils/timestamp.h"

#include "lib/times.h"

static bool
filter_has_word(const char *word, const char *const *words, int nwords)
{
	for (int i = 0; i < nwords; i++)
		if (strcmp(word, words[i]) == 0)
			return true;
	return false;
}

/* Is the part in the text, in upper or lower case? */
static bool
contains(const char *text, const char *part)
{
	char	   *lower_text = str_tolower(text, strlen(text), DEFAULT_COLLATION_OID);
	char	   *lower_part = str_tolower(part, strlen(part), DEFAULT_COLLATION_OID);
	bool		found = strstr(lower_text, lower_part) != NULL;

	pfree(lower_text);
	pfree(lower_part);
	return found;
}

static bool
filter_takes_saga(const SagazFilter *filter, const SagazSaga *saga)
{
	if (filter->nstatuses > 0 &&
		!filter_has_word(saga->status, filter->statuses, filter->nstatuses))
		return false;
	if (filter->updated_before != 0 && saga->updated_at >= filter->updated_before)
		return false;
	return filter->name_part == NULL ||
		contains(saga->saga_name, filter->name_part);
}

/* Only 8-4-4-4-12 hexadecimal digits, as everybody writes them. */
bool
sagaz_filter_is_uuid(const char *text)
{
	for (int i = 0; i < 36; i++)
	{
		bool		dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (dash ? text[i] != '-' : !isxdigit((unsigned char) text[i]))
			return false;
	}
	return text[36] == '\0';
}

/*
 * As PostgreSQL writes a UUID, in small letters: only such an id is found by
 * its bytes when it comes back as a UUID; in capitals it may be another's.
 */
bool
sagaz_filter_is_own_uuid(const char *text)
{
	return sagaz_filter_is_uuid(text) && strpbrk(text, "ABCDEF") == NULL;
}

/*
 * When the lease of a claimed event runs out, where leases last that long.  A
 * claim from before the clock was set back is over, unless it was extended.
 */
TimestampTz
sagaz_filter_lease_end(const SagazEvent *event, int64 lease_us, TimestampTz now)
{
	if (sagaz_time_is_ahead(event->claimed_at, now))
		return Max(now - SAGAZ_CLOCK_SLACK, event->lease_until);
	return Max(event->claimed_at + lease_us, event->lease_until);
}

/* May a claim hand the event out at that time? */
static bool
is_claimable(const SagazFilter *filter, const SagazEvent *event)
{
	if (!sagaz_filter_is_own_uuid(event->event_id))
		return false;
	if (strcmp(event->status, "claimed") == 0)
		return sagaz_filter_lease_end(event, filter->lease_us, filter->claimable_at) <=
			filter->claimable_at;
	return (strcmp(event->status, "pending") == 0 ||
			strcmp(event->status, "failed") == 0) &&
		event->next_attempt_at <= filter->claimable_at;
}

static bool
filter_takes_event(const SagazFilter *filter, const SagazEvent *event)
{
	if (filter->nstatuses > 0 &&
		!filter_has_word(event->status, filter->statuses, filter->nstatuses))
		return false;
	if (filter->saga_id && strcmp(event->saga_id, filter->saga_id) != 0)
		return false;
	if (filter->event_type && strcmp(event->event_type, filter->event_type) != 0)
		return false;
	if (filter->batch_id != 0 && event->batch_id != filter->batch_id)
		return false;
	if (filter->claimed_before != 0 &&
		(event->claimed_at == 0 || event->claimed_at >= filter->claimed_before) &&
		!sagaz_time_is_ahead(event->claimed_at, GetCurrentTimestamp()))
		return false;
	if (filter->sent_before != 0 &&
		(event->sent_at == 0 || event->sent_at >= filter->sent_before))
		return false;
	return filter->claimable_at == 0 || is_claimable(filter, event);
}

/*
 * Does the record match?  One that has a problem matches where only its key
 * is asked for.
 */
bool
sagaz_filter_matches(const SagazFilter *filter, const SagazRecord *record)
{
	if (filter->key && strcmp(sagaz_record_key(record), filter->key) != 0)
		return false;
	if (filter->nkeys > 0 &&
		!filter_has_word(sagaz_record_key(record), filter->keys, filter->nkeys))
		return false;
	if (record->problem)
		return filter->nstatuses == 0 && filter->name_part == NULL &&
			filter->saga_id == NULL && filter->event_type == NULL &&
			filter->batch_id == 0 && filter->updated_before == 0 &&
			filter->claimed_before == 0 && filter->sent_before == 0 &&
			filter->claimable_at == 0;
	return record->kind == SAGAZ_SAGA ? filter_takes_saga(filter, &record->saga) :
		filter_takes_event(filter, &record->event);
}

/* Which comes first, as qsort wants it. */
int
sagaz_filter_compare(const SagazRecord *a, const SagazRecord *b,
					 SagazOrder order)
{
	int			by_key = strcmp(sagaz_record_key(a), sagaz_record_key(b));
	TimestampTz x = sagaz_real_time(a->kind == SAGAZ_SAGA ? a->saga.created_at :
									a->event.created_at);
	TimestampTz y = sagaz_real_time(b->kind == SAGAZ_SAGA ? b->saga.created_at :
									b->event.created_at);

	if (order == SAGAZ_BY_KEY || order == SAGAZ_ANY_ORDER || x == y ||
		(order == SAGAZ_FOR_COPY && a->kind == SAGAZ_SAGA))
		return by_key;
	return ((x > y) - (x < y)) * (order == SAGAZ_NEWEST_FIRST ? -1 : 1);
}
