/*
 * filter.h
 *		Which records, and in which order.
 */
#ifndef SAGAZ_FILTER_H
#define SAGAZ_FILTER_H

#include "backends/record/record.h"

typedef enum SagazOrder
{
	SAGAZ_ANY_ORDER,
	SAGAZ_BY_KEY,				/* bytewise */
	SAGAZ_OLDEST_FIRST,			/* by created_at, then key */
	SAGAZ_NEWEST_FIRST,
	SAGAZ_FOR_COPY				/* sagas in any order; the events of a saga in
								 * that of their delivery, where that is
								 * settled, else oldest first */
} SagazOrder;

/* What is zero or NULL does not restrict. */
typedef struct SagazFilter
{
	const char *key;
	const char *const *keys;	/* any of these */
	int			nkeys;
	const char *const *statuses;
	int			nstatuses;
	const char *name_part;		/* sagas: in saga_name, in upper or lower case */
	const char *saga_id;		/* events */
	const char *event_type;		/* events */
	int64		batch_id;		/* events */
	TimestampTz updated_before; /* sagas */
	TimestampTz claimed_before; /* events: or in the future, by a clock that was
								 * set back since */
	TimestampTz sent_before;	/* events */
	TimestampTz claimable_at;	/* events: may be claimed at that time, if
								 * leases last for lease_us; their id is a
								 * UUID */
	int64		lease_us;
	SagazOrder	order;
	int64		limit;
	const char *position;		/* go on behind it, see read_position; with
								 * SAGAZ_FOR_COPY and nothing else */
	int			chunk;			/* bring so many in one round trip, if they
								 * come by round trips */
} SagazFilter;

/* a backend asks this of what it could not express itself */
extern bool sagaz_filter_matches(const SagazFilter *filter,
								 const SagazRecord *record);
extern bool sagaz_filter_is_uuid(const char *text);
extern bool sagaz_filter_is_own_uuid(const char *text);
extern TimestampTz sagaz_filter_lease_end(const SagazEvent *event, int64 lease_us,
										  TimestampTz now);
extern int	sagaz_filter_compare(const SagazRecord *a, const SagazRecord *b,
								 SagazOrder order);

#endif							/* SAGAZ_FILTER_H */
