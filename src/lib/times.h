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

#endif							/* SAGAZ_TIMES_H */
