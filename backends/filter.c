/*
 * filter.c
 *		Which records a scan gives, for stores that do not find out themselves;
 *		and looking up options.
 */
#include "sagaz.h"

#include "commands/defrem.h"

#include "backend.h"

void
sagaz_filter_init(SagazFilter *filter)
{
	memset(filter, 0, sizeof(SagazFilter));
	filter->updated_before = SAGAZ_NO_TIME;
	filter->created_until = SAGAZ_NO_TIME;
	filter->claimed_until = SAGAZ_NO_TIME;
	filter->sent_until = SAGAZ_NO_TIME;
	filter->claimable_at = SAGAZ_NO_TIME;
}

/* Whether a time is there and not after the limit, if there is a limit. */
static bool
until(TimestampTz time, TimestampTz limit)
{
	return limit == SAGAZ_NO_TIME ||
		(time != SAGAZ_NO_TIME && time <= limit);
}

static bool
same(const char *value, const char *wanted)
{
	return wanted == NULL || (value != NULL && strcmp(value, wanted) == 0);
}

/* A claimed event without a lease was claimed by others; nobody takes it. */
static bool
claimable(const SagazEventRecord *event, TimestampTz now)
{
	switch (sagaz_status_number(SAGAZ_EVENT, event->status))
	{
		case SAGAZ_PENDING:
		case SAGAZ_FAILED:
			return event->next_attempt_at == SAGAZ_NO_TIME ||
				event->next_attempt_at <= now;
		case SAGAZ_CLAIMED:
			return event->lease_until != SAGAZ_NO_TIME &&
				event->lease_until <= now;
		default:
			return false;
	}
}

static bool
event_matches(const SagazFilter *filter, const SagazEventRecord *event)
{
	return same(event->saga_id, filter->saga_id) &&
		same(event->event_type, filter->event_type) &&
		(filter->batch_id == 0 || event->batch_id == filter->batch_id) &&
		until(event->created_at, filter->created_until) &&
		until(event->claimed_at, filter->claimed_until) &&
		until(event->sent_at, filter->sent_until) &&
		(filter->claimable_at == SAGAZ_NO_TIME ||
		 claimable(event, filter->claimable_at));
}

/* Everything that a filter asks but order and limit. */
bool
sagaz_filter_matches(const SagazFilter *filter, SagazKind kind,
					 const SagazRecord *record)
{
	const char *status = kind == SAGAZ_SAGA ? record->saga.status :
		record->event.status;
	int			number = status ? sagaz_status_number(kind, status) : -1;

	if (filter->statuses != 0 &&
		(number < 0 || (filter->statuses & (1 << number)) == 0))
		return false;
	if (filter->after_key != NULL &&
		strcmp(sagaz_record_key(kind, record), filter->after_key) <= 0)
		return false;
	if (kind == SAGAZ_EVENT)
		return event_matches(filter, &record->event);
	return until(record->saga.created_at, filter->created_until) &&
		(filter->updated_before == SAGAZ_NO_TIME ||
		 record->saga.updated_at < filter->updated_before);
}

/* The value of an option, or NULL. */
const char *
sagaz_option(const List *options, const char *name)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *option = lfirst(cell);

		if (strcmp(option->defname, name) == 0)
			return defGetString(option);
	}
	return NULL;
}
