/*
 * delivery.h
 *		Standing orders for the worker: hand the events of a group to a target.
 */
#ifndef SAGAZ_DELIVERY_H
#define SAGAZ_DELIVERY_H

#include "datatype/timestamp.h"
#include "utils/snapshot.h"

#include "lib/tuples.h"

enum delivery_column
{
	delivery_name = 1,
	delivery_owner,
	delivery_consumer_group,
	delivery_handler,
	delivery_target,
	delivery_batch_size,
	delivery_timeout,
	delivery_options,
	delivery_paused_at,
	delivery_created_at,
	delivery_owner_id,
	delivery_object_id,
	delivery_object_owner_id,
	delivery_confirmed_at
};

typedef struct SagazDelivery
{
	char	   *name;
	char	   *owner;			/* name of a role */
	Oid			owner_id;		/* and its OID when the delivery was made */
	char	   *consumer_group;
	char	   *handler;		/* signature of a function, or NULL */
	char	   *target;			/* name of a storage, or NULL */
	Oid			object_id;		/* of the function or the foreign server */
	Oid			object_owner_id;	/* and the role that had it, see binding.c */
	int			batch_size;		/* 0: as the setting says */
	int			timeout_ms;
	bool		to_stream;		/* entries of the target's stream, not events */
	bool		paused;
	TimestampTz paused_at;		/* if it is */
	TimestampTz created_at;
	TimestampTz confirmed_at;	/* made, or resumed for the last time */
} SagazDelivery;

extern void sagaz_deliveries_activate(bool anew);
extern void sagaz_delivery_rename(SagazDelivery *delivery);
extern void sagaz_delivery_read(TupleTableSlot *slot, SagazDelivery *delivery);
extern bool sagaz_delivery_find(const char *name, Snapshot snapshot,
								SagazDelivery *delivery);

#endif							/* SAGAZ_DELIVERY_H */
