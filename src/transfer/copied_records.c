/*
 * copied_records.c
 *		Which records were copied, and what they were like: the rows of
 *		sagaz.transfer_record.
 */
#include "lib/sagaz.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "backends/record/record.h"
#include "transfer/transfer.h"

#define DIGEST_VERSION 1

static Datum
copied_keys(const SagazTransfer *transfer)
{
	const char **keys = palloc((transfer->nrecords + 1) * sizeof(char *));

	for (int i = 0; i < transfer->nrecords; i++)
		keys[i] = sagaz_record_key(&transfer->records[i]);
	return sagaz_text_array(keys, transfer->nrecords);
}

/*
 * Column "digest" of transfer_record: version 1, then the 32 bytes of the
 * record's digest.  What has another version by now counts as changed.
 */
static Datum
copied_digests(const SagazTransfer *transfer)
{
	Datum	   *values = palloc((transfer->nrecords + 1) * sizeof(Datum));

	for (int i = 0; i < transfer->nrecords; i++)
	{
		bytea	   *bytes = palloc(VARHDRSZ + 1 + SAGAZ_DIGEST_SIZE);

		SET_VARSIZE(bytes, VARHDRSZ + 1 + SAGAZ_DIGEST_SIZE);
		*VARDATA(bytes) = DIGEST_VERSION;
		memcpy(VARDATA(bytes) + 1, transfer->digests[i].bytes, SAGAZ_DIGEST_SIZE);
		values[i] = PointerGetDatum(bytes);
	}
	return PointerGetDatum(construct_array(values, transfer->nrecords, BYTEAOID,
										   -1, false, TYPALIGN_INT));
}

/* Of the batch: transfer_id, record_type, keys and digests. */
static Oid	copied_types[] = {INT8OID, TEXTOID, TEXTARRAYOID, BYTEAARRAYOID};

static void
make_copied_values(const SagazTransfer *transfer, Datum *values)
{
	values[0] = Int64GetDatum(transfer->id);
	values[1] = CStringGetTextDatum(sagaz_type_words[transfer->kind]);
	values[2] = copied_keys(transfer);
	values[3] = copied_digests(transfer);
}

/* As hashtextextended() has it. */
static void
see_copied_record(SagazTransfer *transfer, const char *key)
{
	transfer->seen++;
	transfer->seen_keys ^=
		DatumGetUInt64(hash_any_extended((const unsigned char *) key, strlen(key), 0));
}

/*
 * Leave those of the batch that are not known like that.  Makes the digests
 * of those that are left, in the batch's context, and adds all to what was
 * seen.
 */
void
sagaz_copied_choose(SagazTransfer *transfer)
{
	MemoryContext outer = MemoryContextSwitchTo(transfer->batch);
	Datum		values[lengthof(copied_types)];
	bool	   *is_known = palloc0((transfer->nrecords + 1) * sizeof(bool));
	int			left = 0;

	transfer->digests = palloc((transfer->nrecords + 1) * sizeof(SagazDigest));
	for (int i = 0; i < transfer->nrecords; i++)
		sagaz_digest(&transfer->records[i], &transfer->digests[i]);
	make_copied_values(transfer, values);
	sagaz_transfer_as_owner("SELECT u.place::pg_catalog.int4 FROM ROWS FROM (pg_catalog.unnest($3),"
							" pg_catalog.unnest($4)) WITH ORDINALITY AS u (record_key, digest, place)"
							" JOIN sagaz.transfer_record AS r"
							" ON r.record_key OPERATOR(pg_catalog.=) u.record_key"
							" AND r.digest OPERATOR(pg_catalog.=) u.digest"
							" WHERE r.transfer_id OPERATOR(pg_catalog.=) $1"
							" AND r.record_type OPERATOR(pg_catalog.=) $2",
							lengthof(copied_types), copied_types, values, NULL, SPI_OK_SELECT);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;

		is_known[DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[i],
											 SPI_tuptable->tupdesc, 1, &isnull)) - 1] = true;
	}
	SPI_finish();
	for (int i = 0; i < transfer->nrecords; i++)
	{
		see_copied_record(transfer, sagaz_record_key(&transfer->records[i]));
		if (is_known[i])
			continue;
		transfer->records[left] = transfer->records[i];
		transfer->digests[left++] = transfer->digests[i];
	}
	transfer->nrecords = left;
	MemoryContextSwitchTo(outer);
}

/* Those that are left of the batch have been copied, or refused. */
void
sagaz_copied_note(SagazTransfer *transfer)
{
	Datum		values[lengthof(copied_types)];

	transfer->changes += transfer->nrecords;
	if (transfer->nrecords == 0)
		return;
	make_copied_values(transfer, values);
	sagaz_transfer_as_owner("INSERT INTO sagaz.transfer_record (transfer_id, record_type, record_key, digest)"
							" SELECT $1, $2, u.record_key, u.digest"
							" FROM ROWS FROM (pg_catalog.unnest($3), pg_catalog.unnest($4)) AS u (record_key, digest)"
							" ON CONFLICT (transfer_id, record_type, record_key) DO UPDATE"
							" SET digest = excluded.digest",
							lengthof(copied_types), copied_types, values, NULL, SPI_OK_INSERT);
	SPI_finish();
}

/* Forget that these were copied. */
void
sagaz_copied_forget(SagazTransfer *transfer, SagazKind kind,
					const char *const *keys, int nkeys)
{
	Oid			types[] = {INT8OID, TEXTOID, TEXTARRAYOID};
	Datum		values[] = {
		Int64GetDatum(transfer->id),
		CStringGetTextDatum(sagaz_type_words[kind]),
		sagaz_text_array(keys, nkeys)
	};

	sagaz_transfer_as_owner("DELETE FROM sagaz.transfer_record"
							" WHERE transfer_id OPERATOR(pg_catalog.=) $1"
							" AND record_type OPERATOR(pg_catalog.=) $2"
							" AND record_key OPERATOR(pg_catalog.=) ANY ($3)",
							lengthof(types), types, values, NULL, SPI_OK_DELETE);
	SPI_finish();
}
