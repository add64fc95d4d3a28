/*
 * delivery.c
 *		Standing orders for the worker: the rows of sagaz.delivery, and the
 *		functions that make, drop, pause and resume them.
 *
 * Whoever pauses or drops a delivery waits for the batch that is under way,
 * so that nothing is delivered after the commit; locks.c has the lock.
 */
#include "lib/sagaz.h"

#include "access/stratnum.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "outbox/epoch.h"
#include "worker/binding.h"
#include "worker/delivery.h"
#include "worker/obstacle.h"
#include "outbox/group.h"
#include "outbox/locks.h"
#include "storage/secrets.h"
#include "storage/storage.h"
#include "wakeup/wake.h"
#include "wakeup/shared.h"

#define WORKER_POLL_MS 5
/* as the setting sagaz.batch_size */
#define MAX_BATCH_SIZE 100000

PG_FUNCTION_INFO_V1(sagaz_create_delivery);
PG_FUNCTION_INFO_V1(sagaz_create_delivery_to_storage);
PG_FUNCTION_INFO_V1(sagaz_drop_delivery);
PG_FUNCTION_INFO_V1(sagaz_pause_delivery);
PG_FUNCTION_INFO_V1(sagaz_resume_delivery);

/* Are these the options {"as": word}? */
static bool
delivery_has_form(Jsonb *options, const char *word)
{
	JsonbValue	value;

	return JB_ROOT_IS_OBJECT(options) && JB_ROOT_COUNT(options) == 1 &&
		getKeyJsonValueFromContainer(&options->root, "as", 2, &value) &&
		value.type == jbvString &&
		(size_t) value.val.string.len == strlen(word) &&
		memcmp(value.val.string.val, word, strlen(word)) == 0;
}

/* A row; what is pointed to lasts as long as the present memory context. */
void
sagaz_delivery_read(TupleTableSlot *slot, SagazDelivery *delivery)
{
	delivery->name = sagaz_column_text(slot, delivery_name);
	delivery->owner = sagaz_column_text(slot, delivery_owner);
	delivery->owner_id = DatumGetObjectId(sagaz_column(slot, delivery_owner_id));
	delivery->consumer_group = sagaz_column_text(slot, delivery_consumer_group);
	delivery->handler = sagaz_column_text(slot, delivery_handler);
	delivery->target = sagaz_column_text(slot, delivery_target);
	delivery->batch_size = sagaz_column_is_null(slot, delivery_batch_size) ? 0 :
		DatumGetInt32(sagaz_column(slot, delivery_batch_size));
	delivery->timeout_ms =
		sagaz_interval_in_ms(DatumGetIntervalP(sagaz_column(slot, delivery_timeout)));
	delivery->to_stream =
		delivery_has_form(DatumGetJsonbP(sagaz_column(slot, delivery_options)),
						  "stream");
	delivery->paused = !sagaz_column_is_null(slot, delivery_paused_at);
	if (delivery->paused)
		delivery->paused_at = DatumGetTimestampTz(sagaz_column(slot, delivery_paused_at));
	delivery->object_id =
		DatumGetObjectId(sagaz_column(slot, delivery_object_id));
	delivery->object_owner_id =
		DatumGetObjectId(sagaz_column(slot, delivery_object_owner_id));
	delivery->created_at =
		DatumGetTimestampTz(sagaz_column(slot, delivery_created_at));
	delivery->confirmed_at =
		DatumGetTimestampTz(sagaz_column(slot, delivery_confirmed_at));
}

/*
 * In a restored copy, owners are the roles that have their names here, and
 * what a delivery goes to is what has the name here, if it is trusted; else
 * the delivery's owner has to confirm it.
 */
static void
bind_delivery_again(SagazWriter *writer, TupleTableSlot *row, Oid role, Snapshot snapshot)
{
	SagazDelivery delivery;
	Oid			object;

	sagaz_delivery_read(row, &delivery);
	object = sagaz_binding_find(&delivery);
	sagaz_writer_copy(writer, row);
	sagaz_writer_set(writer, delivery_owner_id, ObjectIdGetDatum(role));
	sagaz_writer_set(writer, delivery_object_id, ObjectIdGetDatum(InvalidOid));
	if (!sagaz_binding_is_trusted(&delivery, object, role))
		object = InvalidOid;
	else
		sagaz_binding_write(writer, delivery.target != NULL, object);
	sagaz_writer_update(writer, row, snapshot);
	if (OidIsValid(object))
		sagaz_binding_tie(delivery.name, delivery.target != NULL, object);
	else
		sagaz_binding_untie(delivery.name);
}

/*
 * Called by activate().  anew: positions begin anew, as this is a copy; else
 * nothing is to change but for owners that were not there before.
 */
void
sagaz_deliveries_activate(bool anew)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SagazScan  *scan = sagaz_scan_begin("delivery", "delivery_pkey", snapshot,
										NULL, 0, ForwardScanDirection);
	SagazWriter *writer = sagaz_writer_begin("delivery");

	while (sagaz_scan_next(scan))
	{
		SagazDelivery delivery;
		Oid			role;

		sagaz_delivery_read(scan->slot, &delivery);
		role = get_role_oid(delivery.owner, true);
		if (OidIsValid(role) &&
			(anew || (superuser() && role != delivery.owner_id)))
			bind_delivery_again(writer, scan->slot, role, snapshot);
	}
	sagaz_writer_end(writer);
	sagaz_scan_end(scan);
	UnregisterSnapshot(snapshot);
	CommandCounterIncrement();
}

static SagazScan *
scan_deliveries_by_name(const char *name, Snapshot snapshot)
{
	ScanKeyData key;

	sagaz_key_text(&key, 1, CStringGetTextDatum(name));
	return sagaz_scan_begin("delivery", "delivery_pkey", snapshot, &key, 1,
							ForwardScanDirection);
}

/*
 * What the delivery goes to was renamed: keep its name of now, which a dump
 * takes along.  The caller holds the delivery's lock.
 */
void
sagaz_delivery_rename(SagazDelivery *delivery)
{
	bool		to_storage = delivery->target != NULL;
	char	   *name = sagaz_binding_name(to_storage, delivery->object_id);
	char	  **kept = to_storage ? &delivery->target : &delivery->handler;
	Snapshot	snapshot;
	SagazScan  *scan;
	SagazWriter *writer;

	if (name == NULL || strcmp(name, *kept) == 0)
		return;
	*kept = name;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan = scan_deliveries_by_name(delivery->name, snapshot);
	writer = sagaz_writer_begin("delivery");
	if (sagaz_scan_next(scan))
	{
		sagaz_writer_copy(writer, scan->slot);
		sagaz_writer_set(writer, to_storage ? delivery_target : delivery_handler,
						 CStringGetTextDatum(name));
		sagaz_writer_update(writer, scan->slot, snapshot);
	}
	sagaz_writer_end(writer);
	sagaz_scan_end(scan);
	UnregisterSnapshot(snapshot);
}

/* The strings lie in the present memory context; the row is not locked. */
bool
sagaz_delivery_find(const char *name, Snapshot snapshot,
					SagazDelivery *delivery)
{
	SagazScan  *scan = scan_deliveries_by_name(name, snapshot);
	bool		found = sagaz_scan_next(scan);

	if (found)
		sagaz_delivery_read(scan->slot, delivery);
	sagaz_scan_end(scan);
	return found;
}

/* Is it a function of an array of events, and nothing else? */
static void
check_delivery_handler(Oid function, Oid owner)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc proc;
	Oid			event_type;
	bool		fits;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("handler does not exist")));
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	event_type = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid,
								 CStringGetDatum("outbox_event"),
								 ObjectIdGetDatum(sagaz_schema_id()));
	fits = proc->prokind == PROKIND_FUNCTION && !proc->proretset &&
		proc->pronargs == 1 &&
		proc->proargtypes.values[0] == get_array_type(event_type);
	ReleaseSysCache(tuple);
	if (!fits)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("handler %s cannot take events",
						format_procedure_qualified(function)),
				 errhint("A handler is a function with one argument of type %s.outbox_event[] that returns no set.",
						 SAGAZ_SCHEMA)));
	if (!sagaz_role_may_use(owner, false, function))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for function %s",
						format_procedure_qualified(function))));
}

static void
check_delivery_owner_can_log_in(Oid role)
{
	if (!sagaz_role_can_run(role))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("role \"%s\" cannot own a delivery",
						GetUserNameFromId(role, false)),
				 errdetail("The worker connects as the owner, and this role is not permitted to log in.")));
}

static void
check_delivery_no_options(Jsonb *options)
{
	if (JB_ROOT_IS_OBJECT(options) && JB_ROOT_COUNT(options) == 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_INPUT),
			 errmsg("options must be an empty object"),
			 errhint("A delivery to a function has no options.")));
}

/*
 * A target takes events as those of an outbox, or as entries of a stream.
 * True if as entries.
 */
static bool
check_delivery_target_options(Jsonb *options, const char *target)
{
	SagazStorage storage;

	if (delivery_has_form(options, "outbox"))
		return false;
	if (!delivery_has_form(options, "stream"))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("options of a delivery to a storage must be {\"as\": \"outbox\"} or {\"as\": \"stream\"}")));
	sagaz_storage_find(target, &storage);
	if ((storage.backend->capabilities & SAGAZ_HAS_STREAMS) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("options must be {\"as\": \"outbox\"} here"),
				 errdetail("Storage \"%s\" has no streams.", target)));
	return true;
}

/*
 * Ids in a stream only rise, so an ordered delivery to one needs it for
 * itself.  The caller holds a lock against others that create deliveries.
 */
static void
check_delivery_one_writer(const char *target, const char *consumer_group)
{
	SagazGroup	group;
	bool		ordered = sagaz_group_find(consumer_group, &group) && group.ordered;
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SagazScan  *scan = sagaz_scan_begin("delivery", "delivery_pkey", snapshot,
										NULL, 0, ForwardScanDirection);

	while (sagaz_scan_next(scan))
	{
		SagazDelivery other;
		bool		other_ordered;

		sagaz_delivery_read(scan->slot, &other);
		if (!other.to_stream)
			continue;
		other_ordered = sagaz_group_find(other.consumer_group, &group) && group.ordered;
		if ((strcmp(other.target, target) == 0 && (ordered || other_ordered)) ||
			(ordered && strcmp(other.consumer_group, consumer_group) == 0))
			ereport(ERROR,
					(errcode(ERRCODE_SAGAZ_INPUT),
					 errmsg("consumer_group or target of delivery \"%s\" cannot be shared", other.name),
					 errdetail("A stream to which an ordered group is delivered has one writer.")));
	}
	sagaz_scan_end(scan);
	UnregisterSnapshot(snapshot);
}

/*
 * A storage with a name, which keeps events; a URL could hold a secret.
 * Returns its foreign server.
 */
static Oid
check_delivery_target(const char *target)
{
	SagazStorage storage;

	if (strstr(target, "://"))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("target must be the name of a storage, not a URL"),
				 errhint("Give the storage a name with SELECT %s.create_storage(name, url).",
						 SAGAZ_SCHEMA)));
	if (strcmp(target, "native") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("target must be another storage than the native one")));
	sagaz_storage_find(target, &storage);
	if ((storage.backend->capabilities & SAGAZ_OUTLIVES_SESSION) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("target \"%s\" holds nothing beyond a session", target)));
	return storage.server;
}

static void
warn_without_worker(void)
{
	if (sagaz_workers != NULL)
		return;
	ereport(WARNING,
			(errmsg("no worker runs in this server, so nothing will be delivered"),
			 errhint("Set shared_preload_libraries = 'sagaz' and restart the server.")));
}

static char *
delivery_name_argument(FunctionCallInfo fcinfo)
{
	char	   *name = sagaz_text_argument(fcinfo, 0, "name");

	if (strlen(name) >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("name must be shorter than %d bytes", NAMEDATALEN)));
	return name;
}

static Oid
set_delivery_handler(SagazWriter *writer, Oid handler)
{
	check_delivery_handler(handler, GetUserId());
	sagaz_binding_write(writer, false, handler);
	return handler;
}

/*
 * Write argument 1, a text, into a row: a function, if it has parentheses,
 * else a storage.  Returns its OID.
 */
static Oid
set_delivery_target(FunctionCallInfo fcinfo, SagazWriter *writer, bool *to_storage)
{
	char	   *target = sagaz_text_argument(fcinfo, 1, "target");
	Oid			server;

	*to_storage = strchr(target, '(') == NULL || sagaz_may_hold_secret(target);
	if (!*to_storage)
		return set_delivery_handler(writer,
									DatumGetObjectId(DirectFunctionCall1(regprocedurein,
																		 CStringGetDatum(target))));
	server = check_delivery_target(target);
	sagaz_binding_write(writer, true, server);
	return server;
}

/* Write argument 5, NULL for what fits, into a row. */
static void
set_delivery_options(FunctionCallInfo fcinfo, SagazWriter *writer, bool to_storage)
{
	Datum		options = PG_ARGISNULL(5) ?
		DirectFunctionCall1(jsonb_in, CStringGetDatum(to_storage ?
													  "{\"as\": \"outbox\"}" : "{}")) :
		PG_GETARG_DATUM(5);

	if (!to_storage)
		check_delivery_no_options(DatumGetJsonbP(options));
	else if (check_delivery_target_options(DatumGetJsonbP(options),
										   sagaz_text_argument(fcinfo, 1, "target")))
		check_delivery_one_writer(sagaz_text_argument(fcinfo, 1, "target"),
								  sagaz_text_argument(fcinfo, 2, "consumer_group"));
	sagaz_writer_set(writer, delivery_options, options);
}

/* Write arguments 2 to 4, checked, into a row. */
static void
set_delivery_columns(FunctionCallInfo fcinfo, SagazWriter *writer)
{
	SagazGroup	group;
	int64		timeout = sagaz_interval_argument(fcinfo, 4, "timeout");

	group.name = sagaz_text_argument(fcinfo, 2, "consumer_group");
	if (strcmp(group.name, SAGAZ_DEFAULT_GROUP) != 0)
		sagaz_group_get(group.name, &group);
	if (!PG_ARGISNULL(3) && PG_GETARG_INT32(3) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("batch_size must be at least 1")));
	if (!PG_ARGISNULL(3) && PG_GETARG_INT32(3) > MAX_BATCH_SIZE)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("batch_size must not be larger than %d", MAX_BATCH_SIZE)));
	if (timeout < 1000)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("timeout must be at least one millisecond")));

	sagaz_writer_set(writer, delivery_consumer_group,
					 CStringGetTextDatum(group.name));
	if (!PG_ARGISNULL(3))
		sagaz_writer_set(writer, delivery_batch_size, PG_GETARG_DATUM(3));
	sagaz_writer_set(writer, delivery_timeout, PG_GETARG_DATUM(4));
}

/* Make a delivery; argument 1 is a text, or else a function's OID. */
static void
create_delivery(FunctionCallInfo fcinfo, bool by_text)
{
	bool		to_storage = false;
	char	   *name = delivery_name_argument(fcinfo);
	Oid			owner = GetUserId();
	Datum		now = TimestampTzGetDatum(GetCurrentTimestamp());
	Oid			object;
	SagazWriter *writer;

	PreventCommandIfReadOnly("create_delivery()");
	PreventCommandDuringRecovery("create_delivery()");
	check_delivery_owner_can_log_in(owner);
	/* so that a copy of this database can be told from it */
	sagaz_epoch_note_first_use();
	if (by_text)
		LockRelationOid(sagaz_relation_id("delivery"), ShareRowExclusiveLock);
	writer = sagaz_writer_begin("delivery");
	sagaz_writer_row(writer);
	if (by_text)
		object = set_delivery_target(fcinfo, writer, &to_storage);
	else
		object = set_delivery_handler(writer, DatumGetObjectId(sagaz_argument(fcinfo, 1, "handler")));
	set_delivery_columns(fcinfo, writer);
	set_delivery_options(fcinfo, writer, to_storage);
	sagaz_writer_set(writer, delivery_name, CStringGetTextDatum(name));
	sagaz_writer_set(writer, delivery_owner,
					 CStringGetTextDatum(GetUserNameFromId(owner, false)));
	sagaz_writer_set(writer, delivery_owner_id, ObjectIdGetDatum(owner));
	sagaz_writer_set(writer, delivery_created_at, now);
	sagaz_writer_set(writer, delivery_confirmed_at, now);
	if (!sagaz_writer_try_insert(writer))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("delivery \"%s\" exists already", name)));
	sagaz_writer_end(writer);
	sagaz_binding_tie(name, to_storage, object);
	CommandCounterIncrement();
	sagaz_wake_for_deliveries();
	warn_without_worker();
}

/* create_delivery(name, handler, consumer_group, batch_size, timeout, options) */
Datum
sagaz_create_delivery(PG_FUNCTION_ARGS)
{
	create_delivery(fcinfo, false);
	PG_RETURN_VOID();
}

static Datum
create_delivery_to_storage(FunctionCallInfo fcinfo)
{
	create_delivery(fcinfo, true);
	PG_RETURN_VOID();
}

/* create_delivery(name, target, consumer_group, batch_size, timeout, options) */
Datum
sagaz_create_delivery_to_storage(PG_FUNCTION_ARGS)
{
	return sagaz_secrets_hide_argument(fcinfo, 1, create_delivery_to_storage);
}

/* The owner of a delivery may change it, and the owner of the extension. */
static void
check_may_change_delivery(const SagazDelivery *delivery)
{
	Oid			owner = sagaz_delivery_owner(delivery);
	Oid			extension = get_extension_oid("sagaz", false);
	bool		may = OidIsValid(owner) && has_privs_of_role(GetUserId(), owner);

#if PG_VERSION_NUM >= 160000
	may = may || object_ownercheck(ExtensionRelationId, extension, GetUserId());
#else
	may = may || pg_extension_ownercheck(extension, GetUserId());
#endif
	if (!may)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of delivery \"%s\"", delivery->name)));
}

/*
 * A worker that talks to a storage holds no lock; but it begins no batch while
 * we hold ours.
 */
static void
wait_for_worker(const char *name)
{
	bool		busy = sagaz_workers != NULL;

	while (busy)
	{
		SagazWorkerSlot *slot;

		LWLockAcquire(sagaz_workers_lock, LW_EXCLUSIVE);
		slot = sagaz_shared_worker_slot(MyDatabaseId, name);
		busy = slot && slot->state == WORKER_DELIVERING &&
			slot->pid != 0 && slot->pid != MyProcPid;
		if (busy)
			slot->is_awaited = true;
		LWLockRelease(sagaz_workers_lock);
		if (!busy)
			break;
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 WORKER_POLL_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * Find a delivery that is to be changed, once no batch of it is under way.
 * The scan is at its row.
 */
static SagazScan *
open_delivery_for_change(FunctionCallInfo fcinfo, const char *function, Snapshot *snapshot)
{
	char	   *name = sagaz_text_argument(fcinfo, 0, "name");
	SagazDelivery delivery;
	SagazScan  *scan;

	PreventCommandIfReadOnly(function);
	PreventCommandDuringRecovery(function);
	(void) sagaz_lock_delivery(name, true, true);
	*snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan = scan_deliveries_by_name(name, *snapshot);
	if (!sagaz_scan_next(scan))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_NOT_FOUND),
				 errmsg("delivery \"%s\" does not exist", name)));
	sagaz_delivery_read(scan->slot, &delivery);
	check_may_change_delivery(&delivery);
	if (delivery.target)
		wait_for_worker(name);
	sagaz_wake_for_deliveries();
	return scan;
}

static void
close_changed_delivery(SagazScan *scan, SagazWriter *writer, Snapshot snapshot)
{
	sagaz_writer_end(writer);
	sagaz_scan_end(scan);
	UnregisterSnapshot(snapshot);
	CommandCounterIncrement();
}

/* A delivery that was resumed may not run all the same: say so at once. */
static void
warn_of_obstacle(const char *name)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SagazDelivery delivery;
	char	   *obstacle = NULL;

	if (sagaz_delivery_find(name, snapshot, &delivery))
		obstacle = sagaz_delivery_obstacle(&delivery);
	UnregisterSnapshot(snapshot);
	if (obstacle)
		ereport(WARNING,
				(errmsg("delivery \"%s\" stands still: %s", name, obstacle)));
}

/*
 * The delivery is not paused but stands still for what it goes to: use what is
 * there now.  Only who has the rights of the delivery's owner may say so, as
 * it will run with these.  Returns the object.
 */
static Oid
confirm_delivery_object(SagazWriter *writer, const SagazDelivery *delivery)
{
	bool		to_storage = delivery->target != NULL;
	Oid			object = delivery->object_id;

	if (!has_privs_of_role(GetUserId(), delivery->owner_id))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of delivery \"%s\"", delivery->name),
				 errdetail("Resuming it confirms what it goes to: %s.",
						   sagaz_binding_obstacle(delivery))));
	if (sagaz_binding_name(to_storage, object) == NULL)
		object = sagaz_binding_find(delivery);
	if (!OidIsValid(object))
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_NOT_FOUND),
				 errmsg("%s %s does not exist", to_storage ? "storage" : "function",
						to_storage ? delivery->target : delivery->handler),
				 errhint("Create it anew, or drop the delivery.")));
	if (to_storage)
		(void) check_delivery_target(sagaz_binding_name(true, object));
	else
		check_delivery_handler(object, delivery->owner_id);
	sagaz_binding_write(writer, to_storage, object);
	return object;
}

/* pause_delivery(name): write the time from which it is paused */
Datum
sagaz_pause_delivery(PG_FUNCTION_ARGS)
{
	Snapshot	snapshot;
	SagazScan  *scan = open_delivery_for_change(fcinfo, "pause_delivery()", &snapshot);
	SagazWriter *writer = sagaz_writer_begin("delivery");

	if (sagaz_column_is_null(scan->slot, delivery_paused_at))
	{
		sagaz_writer_copy(writer, scan->slot);
		sagaz_writer_set(writer, delivery_paused_at,
						 TimestampTzGetDatum(GetCurrentTimestamp()));
		sagaz_writer_update(writer, scan->slot, snapshot);
	}
	close_changed_delivery(scan, writer, snapshot);
	PG_RETURN_VOID();
}

/*
 * resume_delivery(name): a pause is lifted; else what stands in the way is
 * taken as known to the owner.  Not both at once: who lifts a pause need not
 * have looked at the function meanwhile.
 */
Datum
sagaz_resume_delivery(PG_FUNCTION_ARGS)
{
	Snapshot	snapshot;
	SagazScan  *scan = open_delivery_for_change(fcinfo, "resume_delivery()", &snapshot);
	SagazWriter *writer = sagaz_writer_begin("delivery");
	SagazDelivery delivery;
	Oid			object = InvalidOid;

	sagaz_delivery_read(scan->slot, &delivery);
	sagaz_writer_copy(writer, scan->slot);
	sagaz_writer_clear(writer, delivery_paused_at);
	sagaz_writer_set(writer, delivery_confirmed_at,
					 TimestampTzGetDatum(GetCurrentTimestamp()));
	if (!delivery.paused && sagaz_binding_obstacle(&delivery))
		object = confirm_delivery_object(writer, &delivery);
	sagaz_writer_update(writer, scan->slot, snapshot);
	close_changed_delivery(scan, writer, snapshot);
	if (OidIsValid(object))
		sagaz_binding_tie(delivery.name, delivery.target != NULL, object);
	else
		warn_of_obstacle(delivery.name);
	warn_without_worker();
	PG_RETURN_VOID();
}

/* drop_delivery(name): the group and its progress stay */
Datum
sagaz_drop_delivery(PG_FUNCTION_ARGS)
{
	Snapshot	snapshot;
	SagazScan  *scan = open_delivery_for_change(fcinfo, "drop_delivery()", &snapshot);
	SagazWriter *writer = sagaz_writer_begin("delivery");

	if (sagaz_writer_try_delete(writer, &scan->slot->tts_tid, snapshot) != TM_Ok)
		elog(ERROR, "row of a delivery changed under its lock");
	sagaz_binding_untie(sagaz_column_text(scan->slot, delivery_name));
	close_changed_delivery(scan, writer, snapshot);
	PG_RETURN_VOID();
}
