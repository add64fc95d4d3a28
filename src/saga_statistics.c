/*
 * saga_statistics.c
 *		get_saga_statistics(): how many sagas there are.
 */
#include "sagaz.h"

#include "executor/spi.h"
#include "funcapi.h"
#include "utils/tuplestore.h"

#include "owner.h"
#include "rows.h"

PG_FUNCTION_INFO_V1(sagaz_get_saga_statistics);

/*
 * get_saga_statistics(storage)
 */
Datum
sagaz_get_saga_statistics(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	SagazUser	user;

	sagaz_rows_begin(fcinfo);
	sagaz_become_owner(&user);
	if (SPI_connect() != SPI_OK_CONNECT ||
		SPI_execute("SELECT saga_name, status, pg_catalog.count(*)"
					" FROM sagaz.sagas GROUP BY 1, 2 ORDER BY 1, 2",
					true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not count sagas");
	for (uint64 i = 0; i < SPI_processed; i++)
		tuplestore_puttuple(result->setResult, SPI_tuptable->vals[i]);
	SPI_finish();
	sagaz_become(&user);
	return (Datum) 0;
}
