/*
 * calls.h
 *		The functions of sagas and events on storages other than the native
 *		tables.  Arguments are those of the SQL functions.
 */
#ifndef SAGAZ_CALLS_H
#define SAGAZ_CALLS_H

#include "fmgr.h"

#include "backends/common/backend.h"

/* Every function that takes a storage, but those of insert.c. */
#define SAGAZ_SAGA_FUNCTIONS(f) \
	f(save_saga_state) f(load_saga_state) f(delete_saga_state) \
	f(update_step_state) f(list_sagas) f(stuck_sagas) \
	f(get_saga_statistics) f(cleanup_completed_sagas)

#define SAGAZ_EVENT_FUNCTIONS(f) \
	f(claim_batch) f(finish_batch) f(release_batch) f(extend_batch) \
	f(mark_sent) f(mark_failed) f(change_event_status) \
	f(get_event) f(get_events_by_saga) f(get_stuck_events) \
	f(release_stuck_events) f(get_pending_count) \
	f(get_dead_letter_events) f(requeue_dead_letters) \
	f(archive_sent_events) f(get_outbox_statistics)

#define DECLARE(name) \
	extern Datum sagaz_call_##name(FunctionCallInfo fcinfo, SagazStore *store);
SAGAZ_SAGA_FUNCTIONS(DECLARE)
SAGAZ_EVENT_FUNCTIONS(DECLARE)
#undef DECLARE

/* remote_call.c */
extern bool sagaz_remote_call(FunctionCallInfo fcinfo, SagazStore *store,
							  Datum *value);

extern void sagaz_call_check_readable(const SagazStore *store,
									  const SagazRecord *record);

#endif							/* SAGAZ_CALLS_H */
