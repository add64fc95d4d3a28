/*
 * native_record.c
 *		Rows of the native tables as records.
 *
 * A record is made of the columns directly; its documents are as they are
 * stored.
 */
#include "lib/sagaz.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "outbox/batch.h"
#include "outbox/event.h"
#include "backends/native/native_store.h"
#include "outbox/outbox.h"
#include "backends/record/record.h"
#include "lib/words.h"

/* ---------------------------------------------------------------------- */
/* Sagas */

static Jsonb *
record_json_null(void)
{
	JsonbValue	null = {.type = jbvNull};

	return JsonbValueToJsonb(&null);
}

static TimestampTz
record_time_of(const SagaRow *row, int attnum)
{
	return sagaz_record_time(DatumGetTimestampTz(saga_get(row, attnum)));
}

/*
 * The steps are put in order.  Text is the present memory context's; the
 * documents may be the steps' and the row's own.
 */
void
native_saga_of_row(const SagaRow *row, const SagaSteps *steps, SagazSaga *saga)
{
	saga->saga_id = TextDatumGetCString(saga_get(row, saga_saga_id));
	saga->saga_name = TextDatumGetCString(saga_get(row, saga_saga_name));
	saga->status = unconstify(char *, saga_status_word(DatumGetObjectId(saga_get(row, saga_status))));
	saga->steps = steps->count == 0 ? sagaz_record_empty_array() : saga_steps_to_json(steps);
	saga->context = saga_is_null(row, saga_context) ? record_json_null() :
		DatumGetJsonbPCopy(saga_get(row, saga_context));
	saga->metadata = saga_is_null(row, saga_metadata) ? NULL :
		DatumGetJsonbPCopy(saga_get(row, saga_metadata));
	saga->version = DatumGetInt64(saga_get(row, saga_version));
	saga->created_at = record_time_of(row, saga_created_at);
	saga->updated_at = record_time_of(row, saga_updated_at);
}

/* ---------------------------------------------------------------------- */
/* Events */

/* When the lease of a claimed event ends, if it was extended. */
static TimestampTz
record_lease_until(const SagazStates *states, const SagazEventState *state)
{
	TimestampTz end = sagaz_state_lease_end(states, state);

	return end > sagaz_batch_lease_end(sagaz_real_time(state->claimed_at), 0,
									   GetCurrentTimestamp()) ? end : 0;
}

/* The event's state into its record. */
static void
set_record_state(const SagazStates *states, const SagazEventState *state,
				 SagazEvent *event)
{
	event->status = unconstify(char *, sagaz_event_words[state->status]);
	event->claimed_at = state->claimed_at;
	event->sent_at = state->sent_at;
	event->retry_count = state->retry_count;
	event->last_error = state->last_error ? pstrdup(state->last_error) : NULL;
	event->worker_id = state->worker_id ? pstrdup(state->worker_id) : NULL;
	if (state->status == EVENT_CLAIMED)
		event->lease_until = record_lease_until(states, state);
	else if (state->status != EVENT_SENT)
		event->next_attempt_at = state->next_attempt_at;
}

/* The record owns all of it. */
void
native_event_of(const SagazStates *states, const SagazFoundEvent *found,
				SagazEvent *event)
{
	Datum		values[event_columns];
	bool		nulls[event_columns];

	if (found->archived)
	{
		sagaz_event_row(states, found, values, nulls);
		sagaz_event_of_row(values, nulls, event);
		return;
	}
	sagaz_event_of_log(found->slot, event);
	set_record_state(states, &found->state, event);
}

static bool
native_same_text(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static bool
native_same_json(const Jsonb *a, const Jsonb *b)
{
	return VARSIZE(a) == VARSIZE(b) && memcmp(a, b, VARSIZE(a)) == 0;
}

/*
 * Are they the same byte by byte?  Then they are so in normal form, too,
 * which costs more to find out.
 */
bool
native_event_same(const SagazEvent *a, const SagazEvent *b)
{
	return native_same_text(a->status, b->status) &&
		native_same_text(a->saga_id, b->saga_id) &&
		native_same_text(a->event_id, b->event_id) &&
		native_same_text(a->aggregate_type, b->aggregate_type) &&
		native_same_text(a->aggregate_id, b->aggregate_id) &&
		native_same_text(a->event_type, b->event_type) &&
		a->created_at == b->created_at && a->claimed_at == b->claimed_at &&
		a->sent_at == b->sent_at && a->retry_count == b->retry_count &&
		native_same_text(a->last_error, b->last_error) &&
		native_same_text(a->worker_id, b->worker_id) &&
		native_same_text(a->routing_key, b->routing_key) &&
		native_same_text(a->partition_key, b->partition_key) &&
		native_same_json(a->payload, b->payload) && native_same_json(a->headers, b->headers);
}

void
native_refuse_twin(const SagazRecord *record)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNIQUE_VIOLATION),
			 errmsg("a record with such a key is there already"),
			 errdetail("Key \"%s\" exists.", sagaz_record_key(record))));
}
