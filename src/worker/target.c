/*
 * target.c
 *		Which targets there are.
 */
#include "lib/sagaz.h"

#include "worker/target.h"

static const SagazTarget *const targets[] = {
	&sagaz_handler_target,
	&sagaz_stream_target,
	&sagaz_forward_target
};

/* What takes the batches of a delivery: the first that says so. */
const SagazTarget *
sagaz_target_of(const SagazDelivery *delivery)
{
	for (int i = 0; i < (int) lengthof(targets); i++)
		if (targets[i]->serves(delivery))
			return targets[i];
	elog(ERROR, "delivery \"%s\" has no target", delivery->name);
	return NULL;				/* keep compiler quiet */
}
