/*
 * health.c
 *		health_check(): is the outbox fit, and if not, why.
 *
 * The findings are gathered as complaints of two grades and as details in
 * JSON.  What is counted is counted up to a limit, so that the check takes
 * the same short time however bad things are.
 */
#include "lib/sagaz.h"

#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/transam.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "status/event_scan.h"
#include "admin/health.h"
#include "admin/lane_holder.h"
#include "outbox/outbox.h"
#include "lib/owner.h"

/* Events of a group in one status are counted up to so many. */
#define MAX_COUNTED 10000
/* A transaction open for so long keeps old rows from being removed. */
#define LONG_TRANSACTION_S 3600
/* A client that holds a lane and has sent nothing for so long may be gone. */
#define IDLE_HOLDER_MS 10000

PG_FUNCTION_INFO_V1(sagaz_health_check);

/* What the count of a group's events in some statuses found. */
typedef struct Tally
{
	int			count;
	int			expired;		/* claimed, and the lease ran out */
	TimestampTz oldest;			/* of those that could be handed out; or 0 */
} Tally;

static void
look_at_health_event(const SagazHealth *health, const SagazFoundEvent *event, Tally *tally)
{
	TimestampTz created_at;

	tally->count++;
	if (event->state.where == WHERE_OUT && event->state.lease_end <= health->now)
		tally->expired++;
	if (event->state.status != EVENT_PENDING ||
		event->state.next_attempt_at > health->now)
		return;
	created_at = DatumGetTimestampTz(sagaz_column(event->slot, outbox_created_at));
	if (tally->oldest == 0 || created_at < tally->oldest)
		tally->oldest = created_at;
}

static Tally
count_health_events(const SagazHealth *health, SagazStates *states, EventStatus status)
{
	SagazEventScan *scan = sagaz_scan_by_status(states, status_bit(status));
	const SagazFoundEvent *event;
	Tally		tally = {0};

	while (tally.count < MAX_COUNTED &&
		   (event = sagaz_event_scan_next(scan)) != NULL)
		if (!event->archived)
			look_at_health_event(health, event, &tally);
	sagaz_event_scan_end(scan);
	return tally;
}

/* Complain of what is wrong with one group. */
static void
judge_health_of_group(SagazHealth *health, const SagazStates *states, const Tally *pending,
					  const Tally *claimed, const Tally *dead)
{
	const char *name = states->group.name;

	if (states->group.paused)
		sagaz_health_complain(health, &health->degraded,
				 psprintf("consumer group \"%s\" is paused", name));
	else if (pending->oldest != 0 &&
			 pending->oldest + (int64) sagaz_claim_timeout * 1000 < health->now)
		sagaz_health_complain(health, &health->degraded,
				 psprintf("consumer group \"%s\" has an event that waits for " INT64_FORMAT " s",
						  name, (health->now - pending->oldest) / USECS_PER_SEC));
	if (claimed->expired > 0)
		sagaz_health_complain(health, &health->degraded,
				 psprintf("consumer group \"%s\" has events whose lease ran out",
						  name));
	if (dead->count > 0)
		sagaz_health_complain(health, &health->degraded,
				 psprintf("consumer group \"%s\" has dead letters: %s%d", name,
						  dead->count == MAX_COUNTED ? "at least " : "",
						  dead->count));
}

static void
check_health_of_group(SagazHealth *health, const char *name)
{
	SagazStates *states = sagaz_states_open(name, health->snapshot);
	Tally		pending = count_health_events(health, states, EVENT_PENDING);
	Tally		claimed = count_health_events(health, states, EVENT_CLAIMED);
	Tally		failed = count_health_events(health, states, EVENT_FAILED);
	Tally		dead = count_health_events(health, states, EVENT_DEAD_LETTER);

	judge_health_of_group(health, states, &pending, &claimed, &dead);
	appendStringInfoString(&health->details, "{\"consumer_group\": ");
	escape_json(&health->details, name);
	appendStringInfo(&health->details,
					 ", \"paused\": %s, \"pending\": %d, \"claimed\": %d, \"failed\": %d, \"dead_letter\": %d, \"expired\": %d, \"oldest_pending_seconds\": ",
					 states->group.paused ? "true" : "false", pending.count,
					 claimed.count, failed.count, dead.count, claimed.expired);
	if (pending.oldest == 0)
		appendStringInfoString(&health->details, "null}");
	else
		appendStringInfo(&health->details, "%.3f}",
						 (double) Max(health->now - pending.oldest, 0) / USECS_PER_SEC);
	sagaz_states_close(states);
}

static void
check_health_of_groups(SagazHealth *health)
{
	SagazScan  *groups = sagaz_scan_begin("consumer_group",
										  "consumer_group_pkey",
										  health->snapshot, NULL, 0,
										  ForwardScanDirection);
	const char *comma = "";

	appendStringInfoString(&health->details, ", \"counted_up_to\": "
						   CppAsString2(MAX_COUNTED) ", \"groups\": [");
	while (sagaz_scan_next(groups))
	{
		appendStringInfoString(&health->details, comma);
		check_health_of_group(health, TextDatumGetCString(sagaz_column(groups->slot, 2)));
		comma = ", ";
	}
	sagaz_scan_end(groups);
	appendStringInfoChar(&health->details, ']');
}

/* May events be handed out in this database at all? */
static void
check_health_active(SagazHealth *health)
{
	bool		active = sagaz_cluster_is_active(health->snapshot);

	appendStringInfo(&health->details, "\"active\": %s", active ? "true" : "false");
	if (!active)
		sagaz_health_complain(health, &health->unhealthy,
				 "the outbox is not active in this database, see sagaz.activate()");
}

/*
 * What the catalogs and the statistics of activity tell.  This runs
 * as the extension's owner, who sees all sessions.
 */
static void
check_health_of_server(SagazHealth *health)
{
	static const char *const query =
		"SELECT s.seqcache <> 1, coalesce(x.seconds, 0),"
		" pg_catalog.jsonb_build_object('sequence_cache', s.seqcache,"
		" 'log_bytes', pg_catalog.pg_total_relation_size('sagaz.outbox'),"
		" 'log_rows_estimated', greatest(c.reltuples, 0),"
		" 'in_recovery', pg_catalog.pg_is_in_recovery(),"
		" 'oldest_transaction_seconds', x.seconds, 'oldest_xmin_age', x.xmin_age)::text"
		" FROM pg_catalog.pg_sequence s, pg_catalog.pg_class c,"
		" (SELECT pg_catalog.max(extract(epoch FROM pg_catalog.clock_timestamp() - t.began))::float8 AS seconds,"
		" pg_catalog.max(t.age) AS xmin_age"
		" FROM (SELECT xact_start AS began, pg_catalog.age(backend_xmin) AS age"
		" FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend'"
		" UNION ALL SELECT prepared, pg_catalog.age(transaction)"
		" FROM pg_catalog.pg_prepared_xacts) t) x"
		" WHERE s.seqrelid = 'sagaz.outbox_seq'::pg_catalog.regclass"
		" AND c.oid = 'sagaz.outbox'::pg_catalog.regclass";
	SagazUser	user;
	HeapTuple	row;
	bool		isnull;
	char	   *json;

	sagaz_become_owner(&user);
	if (SPI_connect() != SPI_OK_CONNECT ||
		SPI_execute(query, true, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "cannot read the catalogs");
	row = SPI_tuptable->vals[0];
	if (DatumGetBool(SPI_getbinval(row, SPI_tuptable->tupdesc, 1, &isnull)))
		sagaz_health_complain(health, &health->unhealthy,
				 "sequence sagaz.outbox_seq has a cache, claims refuse");
	if (DatumGetFloat8(SPI_getbinval(row, SPI_tuptable->tupdesc, 2, &isnull)) >
		LONG_TRANSACTION_S)
		sagaz_health_complain(health, &health->degraded,
				 "a transaction is open for more than an hour");
	json = SPI_getvalue(row, SPI_tuptable->tupdesc, 3);
	appendStringInfo(&health->details, ", %.*s", (int) strlen(json) - 2, json + 1);
	SPI_finish();
	sagaz_owner_restore(&user);
}

/* A lane that somebody keeps for long stops the group, and nothing else tells. */
static void
check_health_of_lanes(SagazHealth *health)
{
	ListCell   *cell;

	foreach(cell, sagaz_lane_holders())
	{
		const SagazLaneHolder *holder = lfirst(cell);
		SagazGroup	group;

		if (!holder->is_client ||
			holder->seconds * 1000 < (holder->is_idle ? IDLE_HOLDER_MS : sagaz_claim_timeout))
			continue;
		/* one that is made in that transaction stops nobody else */
		if (sagaz_group_find_by_no(holder->group_no, &group))
			sagaz_health_complain(health, &health->degraded,
								  psprintf("lane %d of consumer group \"%s\" is held by %s",
										   holder->lane, group.name, holder->text));
	}
}

static void
check_health_of_all(SagazHealth *health)
{
	appendStringInfoChar(&health->details, '{');
	check_health_active(health);
	check_health_of_server(health);
	check_health_of_groups(health);
	check_health_of_lanes(health);
	sagaz_health_workers(health);
	appendStringInfoChar(&health->details, '}');
}

/* health_check(storage): status, latency_ms, message, details */
Datum
sagaz_health_check(PG_FUNCTION_ARGS)
{
	SagazHealth		health = {0};
	TupleDesc	row_type;
	Datum		values[4];
	bool		nulls[4] = {false};
	instr_time	start;
	instr_time	end;

	if (get_call_result_type(fcinfo, NULL, &row_type) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	INSTR_TIME_SET_CURRENT(start);
	health.snapshot = GetActiveSnapshot();
	health.now = GetCurrentTimestamp();
	initStringInfo(&health.message);
	initStringInfo(&health.details);
	check_health_of_all(&health);
	INSTR_TIME_SET_CURRENT(end);
	INSTR_TIME_SUBTRACT(end, start);

	values[0] = CStringGetTextDatum(health.unhealthy ? "unhealthy" :
									health.degraded ? "degraded" : "healthy");
	values[1] = Float8GetDatum(INSTR_TIME_GET_MILLISEC(end));
	values[2] = CStringGetTextDatum(health.message.len > 0 ?
									health.message.data : "the outbox is fit");
	values[3] = DirectFunctionCall1(jsonb_in,
									CStringGetDatum(health.details.data));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(row_type),
													  values, nulls)));
}
