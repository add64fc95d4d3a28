/*
 * times.c
 *		Times as text in records: what the Python library writes and reads.
 *
 * The server's own input function will not do: without an offset it counts a
 * time in the session's zone, and it takes words that are no fixed time (now,
 * tomorrow, infinity).  Here a time without an offset is UTC, and only ISO
 * 8601 with digits is taken: date and time in the extended or the compact
 * form, 'T', 't' or a space between them, any number of digits of a fraction
 * (those after the sixth are cut off), 'Z' or an offset of hours, minutes and
 * seconds.  Years are 1 to 9999, in UTC too.
 */
#include "lib/sagaz.h"

#include "utils/datetime.h"
#include "utils/timestamp.h"

#include "lib/times.h"

/* the part of the text that is still to be read */
typedef struct Reader
{
	const char *next;
	const char *end;
} Reader;

static bool
take_time_char(Reader *reader, const char *choices)
{
	if (reader->next == reader->end || *reader->next == '\0' ||
		strchr(choices, *reader->next) == NULL)
		return false;
	reader->next++;
	return true;
}

static bool
take_time_digits(Reader *reader, int count, int *value)
{
	*value = 0;
	for (int i = 0; i < count; i++)
	{
		if (reader->next == reader->end ||
			*reader->next < '0' || *reader->next > '9')
			return false;
		*value = *value * 10 + (*reader->next++ - '0');
	}
	return true;
}

/* YYYY-MM-DD or YYYYMMDD */
static bool
take_time_date(Reader *reader, struct pg_tm *tm)
{
	bool		extended;

	if (!take_time_digits(reader, 4, &tm->tm_year))
		return false;
	extended = take_time_char(reader, "-");
	if (!take_time_digits(reader, 2, &tm->tm_mon) ||
		take_time_char(reader, "-") != extended ||
		!take_time_digits(reader, 2, &tm->tm_mday))
		return false;
	return tm->tm_year >= 1 &&
		tm->tm_mon >= 1 && tm->tm_mon <= MONTHS_PER_YEAR &&
		tm->tm_mday >= 1 &&
		tm->tm_mday <= day_tab[isleap(tm->tm_year)][tm->tm_mon - 1];
}

/* What follows a point or comma, as microseconds. */
static bool
take_time_fraction(Reader *reader, int *fsec)
{
	int			digits = 0;
	int			digit;

	*fsec = 0;
	while (reader->next < reader->end && take_time_digits(reader, 1, &digit))
		if (digits++ < 6)
			*fsec = *fsec * 10 + digit;
	for (int i = digits; i < 6; i++)
		*fsec *= 10;
	return digits > 0;
}

/*
 * HH[:MM[:SS[.f]]] or HH[MM[SS[.f]]], of a time or of an offset.  What it ends
 * at is left to the caller.
 */
static bool
take_time_clock(Reader *reader, struct pg_tm *tm, int *fsec)
{
	bool		extended;

	tm->tm_min = tm->tm_sec = *fsec = 0;
	if (!take_time_digits(reader, 2, &tm->tm_hour) ||
		tm->tm_hour >= HOURS_PER_DAY)
		return false;
	extended = take_time_char(reader, ":");
	if (!extended && (reader->next == reader->end ||
					  *reader->next < '0' || *reader->next > '9'))
		return true;
	if (!take_time_digits(reader, 2, &tm->tm_min) ||
		tm->tm_min >= MINS_PER_HOUR)
		return false;
	if (extended ? !take_time_char(reader, ":") :
		(reader->next == reader->end ||
		 *reader->next < '0' || *reader->next > '9'))
		return true;
	if (!take_time_digits(reader, 2, &tm->tm_sec) ||
		tm->tm_sec >= SECS_PER_MINUTE)
		return false;
	return !take_time_char(reader, ".,") || take_time_fraction(reader, fsec);
}

/* Z, or a sign and a clock, in microseconds east of Greenwich; or nothing. */
static bool
take_time_offset(Reader *reader, int64 *offset)
{
	struct pg_tm tm;
	int			fsec;
	bool		west;

	*offset = 0;
	if (reader->next == reader->end || take_time_char(reader, "Zz"))
		return true;
	west = *reader->next == '-';
	if (!take_time_char(reader, "+-") || !take_time_clock(reader, &tm, &fsec))
		return false;
	*offset = ((tm.tm_hour * MINS_PER_HOUR + tm.tm_min) * SECS_PER_MINUTE +
			   tm.tm_sec) * USECS_PER_SEC + fsec;
	if (west)
		*offset = -*offset;
	return true;
}

/* Whether a time has a year of four digits, in UTC. */
bool
sagaz_time_in_range(TimestampTz time)
{
	struct pg_tm tm;
	fsec_t		fsec;

	return !TIMESTAMP_NOT_FINITE(time) &&
		timestamp2tm(time, NULL, &tm, &fsec, NULL, NULL) == 0 &&
		tm.tm_year >= 1 && tm.tm_year <= 9999;
}

/* Read a time; false if the text is none of those we take. */
bool
sagaz_parse_time(const char *text, int length, TimestampTz *time)
{
	Reader		reader = {text, text + length};
	struct pg_tm tm = {0};
	int			fsec = 0;
	int64		offset = 0;
	Timestamp	local;

	if (!take_time_date(&reader, &tm))
		return false;
	if (take_time_char(&reader, "Tt ") &&
		!(take_time_clock(&reader, &tm, &fsec) && take_time_offset(&reader, &offset)))
		return false;
	if (reader.next != reader.end ||
		tm2timestamp(&tm, fsec, NULL, &local) != 0)
		return false;
	*time = local - offset;
	return sagaz_time_in_range(*time);
}

/* The same in the Python library's typed object, as JSON text. */
bool
sagaz_parse_typed_time(const char *text, TimestampTz *time)
{
	static const char *const prefix = "{\"__type__\": \"datetime\", \"value\": \"";
	size_t		length = strlen(text);

	return strncmp(text, prefix, strlen(prefix)) == 0 &&
		length > strlen(prefix) + 2 && strcmp(text + length - 2, "\"}") == 0 &&
		sagaz_parse_time(text + strlen(prefix), length - strlen(prefix) - 2, time);
}

/*
 * Write a time as UTC, without a fraction where that is zero; buffer has
 * SAGAZ_TIME_SIZE bytes.  Returns the length.  An error for times that
 * sagaz_time_in_range() does not let pass.
 */
int
sagaz_format_time(TimestampTz time, char *buffer)
{
	struct pg_tm tm;
	fsec_t		fsec;
	int			length;

	if (!sagaz_time_in_range(time) ||
		timestamp2tm(time, NULL, &tm, &fsec, NULL, NULL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_SERIALIZATION),
				 errmsg("time cannot be written in ISO 8601"),
				 errdetail("Its year is not between 1 and 9999.")));
	length = snprintf(buffer, SAGAZ_TIME_SIZE, "%04d-%02d-%02dT%02d:%02d:%02d",
					  tm.tm_year, tm.tm_mon, tm.tm_mday,
					  tm.tm_hour, tm.tm_min, tm.tm_sec);
	if (fsec != 0)
		length += snprintf(buffer + length, SAGAZ_TIME_SIZE - length, ".%06d",
						   (int) fsec);
	strlcpy(buffer + length, "+00:00", SAGAZ_TIME_SIZE - length);
	return length + 6;
}

/* The wait before the next try, in microseconds, doubled so many times. */
int64
sagaz_backoff(int first_ms, int longest_ms, int doublings)
{
	int64		wait_ms = first_ms;

	for (int i = 0; i < doublings && wait_ms < longest_ms; i++)
		wait_ms *= 2;
	return Min(wait_ms, longest_ms) * 1000;
}

/* The time for people, in the present memory context. */
const char *
sagaz_time_text(TimestampTz at)
{
	char	   *text = palloc(SAGAZ_TIME_SIZE);

	if (!sagaz_time_in_range(at))
		return "a time beyond the year 9999";
	(void) sagaz_format_time(at, text);
	return text;
}
