/*
 * complaint.c
 *		What health_check() complains of, in one message.
 */
#include "lib/sagaz.h"

#include "admin/health.h"

/* Say what is wrong; grade is the health's unhealthy or degraded. */
void
sagaz_health_complain(SagazHealth *health, bool *grade, const char *complaint)
{
	*grade = true;
	if (health->message.len > 0)
		appendStringInfoString(&health->message, "; ");
	appendStringInfoString(&health->message, complaint);
}
