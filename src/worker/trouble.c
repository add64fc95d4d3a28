/*
 * trouble.c
 *		What keeps a delivery from delivering at present, in words that follow
 *		its name: for all who say so.
 */
#include "lib/sagaz.h"

#include "lib/times.h"
#include "worker/obstacle.h"
#include "worker/shares.h"
#include "worker/trouble.h"

static char *
with_time(const char *text, TimestampTz at, bool with_times)
{
	return with_times ? psprintf("%s %s", text, sagaz_time_text(at)) : NULL;
}

static char *
trouble_of_failure(const SagazWorkerSlot *slot, bool with_times)
{
	const char *error = slot->done.last_error;
	char	   *until = with_time(", and is tried again at", slot->resting_until, with_times);

	return psprintf("fails%s%s%s", until ? until : "", error[0] ? ": " : "", error);
}

/*
 * NULL if nothing is wrong.  The slot is the delivery's, as sagaz_shares_read()
 * has it.  In a transaction.
 */
char *
sagaz_delivery_trouble(const SagazDelivery *delivery, const SagazWorkerSlot *slot,
					   bool with_times)
{
	char	   *text;

	if (delivery->paused)
	{
		text = with_time("is paused since", delivery->paused_at, with_times);
		return text ? text : pstrdup("is paused");
	}
	text = sagaz_delivery_obstacle(delivery);
	if (text)
		return psprintf("stands still: %s", text);
	if (sagaz_workers == NULL)
		return NULL;
	text = sagaz_shares_reason(slot);
	if (slot->pid == 0 && text)
		return psprintf("waits for a process: %s", text);
	if (slot->state == WORKER_BACKING_OFF)
		return trouble_of_failure(slot, with_times);
	if (slot->pid == 0)
		return psprintf("has no worker%s", slot->wanted ? "" : " and gets none");
	return NULL;
}

/* What it is doing, if it is delivering; else NULL. */
char *
sagaz_delivery_at_work(const SagazDelivery *delivery, const SagazWorkerSlot *slot)
{
	if (slot->state != WORKER_DELIVERING)
		return NULL;
	return psprintf("is %s since %s",
					delivery->handler ? "in its handler" : "sending to its target",
					sagaz_time_text(slot->state_since));
}
