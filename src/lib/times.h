/*
 * times.h
 *		Times as text in records; how long to wait.
 */
#ifndef SAGAZ_TIMES_H
#define SAGAZ_TIMES_H

#include "datatype/timestamp.h"

/* YYYY-MM-DDTHH:MM:SS.ffffff+00:00 and the terminating zero */
#define SAGAZ_TIME_SIZE 33

extern bool sagaz_parse_time(const char *text, int length, TimestampTz *time);
extern bool sagaz_parse_typed_time(const char *text, TimestampTz *time);
extern bool sagaz_time_in_range(TimestampTz time);
extern int	sagaz_format_time(TimestampTz time, char *buffer);
extern int64 sagaz_backoff(int first_ms, int longest_ms, int doublings);

extern const char *sagaz_time_text(TimestampTz at);

/*
 * Has the time yet to come?  Then the clock was set back since, and nobody knows
 * how long ago it was.  What is ahead by less than the slack is taken for a
 * clock that is corrected a little.
 */
#define SAGAZ_CLOCK_SLACK	USECS_PER_SEC

static inline bool
sagaz_time_is_ahead(TimestampTz time, TimestampTz now)
{
	return time > now + SAGAZ_CLOCK_SLACK;
}

#endif							/* SAGAZ_TIMES_H */
