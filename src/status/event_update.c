/*
 * event_update.c
 *		The C part of update_event_status(): an operator says where an event
 *		stands.
 */
#include "lib/sagaz.h"

#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "lib/rows.h"
#include "lib/words.h"
#include "status/event_change.h"
#include "status/event_scan.h"
#include "outbox/event.h"
#include "outbox/outbox.h"
#include "outbox/retry.h"

PG_FUNCTION_INFO_V1(sagaz_change_event_status);

typedef struct Change
{
	SagazEventChange base;
	EventStatus from;
	EventStatus to;
	const char *error;
} Change;

static EventStatus
read_status_to_update(const char *name)
{
	EventStatus status = sagaz_event_status(name);

	if (status == EVENT_NONE)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("status \"%s\" is unknown", name),
				 errhint("Say 'pending', 'sent', 'failed' or 'dead_letter'.")));
	return status;
}

static char *
updated_id_text(Datum event_id)
{
	return DatumGetCString(DirectFunctionCall1(uuid_out, event_id));
}

static void
refuse_update(const Change *change, const char *from, const char *detail,
			  const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_TRANSITION),
			 errmsg("event %s cannot go from %s to %s",
					updated_id_text(change->base.event_id), from,
					sagaz_event_words[change->to]),
			 detail ? errdetail_internal("%s", detail) : 0,
			 hint ? errhint("%s", hint) : 0));
}

/* An event that is not in the log may be in the archive; there it stays. */
static void
refuse_archived_event(const Change *change)
{
	ScanKeyData key;
	SagazScan  *scan;

	sagaz_key_uuid(&key, 1, change->base.event_id);
	scan = sagaz_scan_begin("outbox_archive", "outbox_archive_pkey",
							change->base.snapshot, &key, 1, ForwardScanDirection);
	if (sagaz_scan_next(scan))
		refuse_update(change,
					  DatumGetCString(DirectFunctionCall1(enum_out,
														  sagaz_column(scan->slot, archive_column(event_status)))),
					  "It is in the archive.", NULL);
	sagaz_scan_end(scan);
	sagaz_event_no_such(change->base.event_id);
}

static void
check_update(const Change *change)
{
	const char *from = sagaz_event_words[change->from];

	if (change->from == EVENT_NONE)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_NOT_FOUND),
				 errmsg("event %s is none of consumer group \"%s\"",
						updated_id_text(change->base.event_id), change->base.group.name)));
	if (change->to == EVENT_CLAIMED)
		refuse_update(change, from, NULL, "Events are handed out by claim_batch().");
	if (!sagaz_event_status_may_follow(change->from, change->to))
		refuse_update(change, from, NULL, change->from == EVENT_DEAD_LETTER ?
					  "A dead letter can only be pending again." : NULL);
	if (change->base.group.ordered && change->base.state.where == WHERE_UNREAD &&
		change->to == EVENT_FAILED)
		refuse_update(change, from,
					  "In a group with ordering \"saga\" only an event that was handed out can fail.",
					  NULL);
}

/* Bring the new status into the writer's row. */
static void
update_status(const SagazEventChange *base, SagazWriter *writer, void *arg)
{
	const Change *change = arg;
	Datum		now = TimestampTzGetDatum(base->now);

	if (change->to == EVENT_FAILED)
	{
		sagaz_retry_failed(writer, change->base.now, change->error, FAILURE_COUNTS);
		sagaz_writer_clear(writer, retry_batch_id);
		return;
	}
	if (change->to == EVENT_SENT)
	{
		sagaz_retry_sent(writer, change->base.now);
		return;
	}
	sagaz_writer_clear(writer, retry_next_attempt_at);
	sagaz_writer_clear(writer, retry_batch_id);
	if (change->error)
		sagaz_writer_set(writer, retry_last_error,
						 CStringGetTextDatum(change->error));
	if (change->to == EVENT_DEAD_LETTER)
	{
		sagaz_writer_set(writer, retry_state, Int16GetDatum(RETRY_DEAD));
		sagaz_writer_set(writer, retry_failed_at, now);
	}
	else
		sagaz_retry_again(writer, change->base.now,
						  change->from == EVENT_DEAD_LETTER);
}

static void
read_update_arguments(FunctionCallInfo fcinfo, Change *change)
{
	change->base.event_id = sagaz_argument(fcinfo, 0, "event_id");
	change->to = read_status_to_update(sagaz_text_argument(fcinfo, 1, "status"));
	change->error = sagaz_text_argument_or_null(fcinfo, 2);
	if (change->error && change->to == EVENT_SENT)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("error must be null for status \"sent\"")));
	PreventCommandIfReadOnly("update_event_status()");
	sagaz_group_use(sagaz_group_argument(fcinfo, 3, SAGAZ_DEFAULT_GROUP),
					&change->base.group);
}

/* change_event_status(event_id, status, error, consumer_group, storage) */
Datum
sagaz_change_event_status(PG_FUNCTION_ARGS)
{
	Change		change = {0};

	sagaz_rows_begin(fcinfo);
	read_update_arguments(fcinfo, &change);
	if (!sagaz_event_change_look(&change.base) ||
		!sagaz_event_change_lock(&change.base))
		refuse_archived_event(&change);
	change.from = change.base.state.status;
	check_update(&change);
	sagaz_event_change(&change.base,
					   change.to == EVENT_SENT ? EVENT_IS_SENT :
					   change.to == EVENT_DEAD_LETTER ? EVENT_IS_DEAD : EVENT_GOES_ON,
					   false, update_status, &change);
	sagaz_event_change_end(&change.base);
	CommandCounterIncrement();
	sagaz_ask_event_now(fcinfo, sagaz_group_argument(fcinfo, 3, SAGAZ_DEFAULT_GROUP),
						change.base.event_id);
	return (Datum) 0;
}
