/*
 * event_row.c
 *		The record of an event: the log's row and the derived state together.
 */
#include "lib/sagaz.h"

#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "outbox/event.h"
#include "outbox/outbox.h"
#include "status/event_scan.h"

/*
 * Fill in event_columns values; what is not copied from the event's slot is
 * palloc'd.
 */
void
sagaz_event_row(const SagazStates *states, const SagazFoundEvent *event,
				Datum *values, bool *nulls)
{
	const SagazEventState *state = &event->state;

	if (event->archived)
	{
		memcpy(values, event->slot->tts_values, event_record_columns * sizeof(Datum));
		memcpy(nulls, event->slot->tts_isnull, event_record_columns * sizeof(bool));
	}
	else
	{
		sagaz_event_row_of_log(event->slot, values, nulls);
		sagaz_event_row_set_state(state, values, nulls);
	}
	values[event_batch_id] = Int64GetDatum(state->batch_id);
	nulls[event_batch_id] = event->archived || state->batch_id == 0 ||
		(state->status != EVENT_CLAIMED && state->status != EVENT_SENT);
	values[event_consumer_group] = CStringGetTextDatum(states->group.name);
	nulls[event_consumer_group] = false;
}
