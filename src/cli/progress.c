/*
 * progress.c
 *		What is shown of a transfer while it runs: on a terminal a bar that is
 *		drawn over and over in one line, elsewhere a line now and then.  All of
 *		it goes to stderr, so that stdout has results only.
 */
#include "cli.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include "watch.h"

#define BAR_MILLISECONDS 200
#define LINE_SECONDS 5.0
#define LEAST_BAR 10

static bool on_terminal;
static bool drawn;				/* is there a bar to be wiped away? */
static char last_line[512];

/* Before the first look: finds out whether there is a terminal to draw on. */
void
cli_progress_begin(void)
{
	const char *term = getenv("TERM");

	on_terminal = isatty(STDERR_FILENO) && term != NULL && strcmp(term, "dumb") != 0;
}

/* Milliseconds from one look at the transfer to the next. */
int
cli_progress_interval(void)
{
	if (cli.interval > 0)
		return (int) (cli.interval * 1000);
	return on_terminal ? BAR_MILLISECONDS : (int) (LINE_SECONDS * 1000);
}

/* Before anything else is written to the terminal. */
void
cli_progress_clear(void)
{
	if (drawn)
		fputs("\r\033[K", stderr);
	drawn = false;
}

/* A time as a person says it: 8.2 s, 4:05, 1:02:03. */
void
cli_progress_duration(char *text, size_t size, double seconds)
{
	int64		whole = (int64) seconds;

	if (seconds < 60)
		snprintf(text, size, "%.1f s", seconds);
	else if (whole < 3600)
		snprintf(text, size, "%d:%02d", (int) (whole / 60), (int) (whole % 60));
	else
		snprintf(text, size, INT64_FORMAT ":%02d:%02d", whole / 3600,
				 (int) (whole / 60 % 60), (int) (whole % 60));
}

static int
terminal_width(void)
{
	struct winsize size;
	const char *columns = getenv("COLUMNS");

	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
		return size.ws_col;
	return columns && atoi(columns) > 0 ? atoi(columns) : 80;
}

/* "copy saga" or "pass 2 outbox", as far as it is known. */
static void
describe_phase(const PGresult *row, char *text, size_t size)
{
	const char *phase = PQgetvalue(row, 0, WATCH_PHASE);
	const char *type = PQgetvalue(row, 0, WATCH_TYPE);

	snprintf(text, size, "%s%s%s%s%s", phase,
			 strcmp(phase, "pass") == 0 ? " " : "",
			 strcmp(phase, "pass") == 0 ? PQgetvalue(row, 0, WATCH_PASS) : "",
			 type[0] ? " " : "", type);
}

/* "  4200/10000  1400/s  4.0 s left", as far as it is known. */
static void
describe_rate(const PGresult *row, char *text, size_t size, bool count)
{
	char		left[32] = "";
	size_t		used = 0;

	text[0] = '\0';
	if (atoll(PQgetvalue(row, 0, WATCH_TOTAL)) == 0)
		return;
	if (count)
		used = snprintf(text, size, "  %s/%s", PQgetvalue(row, 0, WATCH_DONE),
						PQgetvalue(row, 0, WATCH_TOTAL));
	if (!PQgetisnull(row, 0, WATCH_RATE))
		used += snprintf(text + used, size - used, "  %.0f/s",
						 atof(PQgetvalue(row, 0, WATCH_RATE)));
	if (PQgetisnull(row, 0, WATCH_LEFT))
		return;
	cli_progress_duration(left, sizeof(left), atof(PQgetvalue(row, 0, WATCH_LEFT)));
	snprintf(text + used, size - used, "  %s left", left);
}

/*
 * Fill the terminal's width but for the last column, where some wrap.  Where it
 * is narrow the counts are left out for the bar, then the bar.
 */
static void
draw_bar(const PGresult *row, const char *phase)
{
	double		percent = atof(PQgetvalue(row, 0, WATCH_PERCENT));
	int			width = Min(terminal_width() - 1, (int) sizeof(last_line) - 1);
	char		head[96];
	char		rate[128];
	int			room = 0;

	percent = Max(0, Min(percent, 100));
	snprintf(head, sizeof(head), "%s %5.1f%%", phase, percent);
	for (int count = 1; count >= 0 && room < LEAST_BAR; count--)
	{
		describe_rate(row, rate, sizeof(rate), count == 1);
		room = width - (int) strlen(head) - (int) strlen(rate) - (int) strlen(" []");
	}
	if (room >= LEAST_BAR)
	{
		snprintf(last_line, sizeof(last_line), "%s [%*s]%s", head, room, "", rate);
		memset(strchr(last_line, '[') + 1, '#', (int) (room * percent / 100));
	}
	else
		snprintf(last_line, sizeof(last_line), "%s%s", head, rate);
	last_line[Max(width, 0)] = '\0';
	fprintf(stderr, "\r%s\033[K", last_line);
	drawn = true;
}

/* A line is not said twice. */
static void
write_line(const PGresult *row, const char *phase)
{
	const char *id = PQgetvalue(row, 0, WATCH_ID);
	char		line[sizeof(last_line)];
	char		rate[128];

	describe_rate(row, rate, sizeof(rate), true);
	if (rate[0] == '\0')
		snprintf(line, sizeof(line), "transfer %s: %s", id, phase);
	else
		snprintf(line, sizeof(line), "transfer %s: %s  %s%%%s", id, phase,
				 PQgetvalue(row, 0, WATCH_PERCENT), rate);
	if (strcmp(line, last_line) == 0)
		return;
	strlcpy(last_line, line, sizeof(last_line));
	fprintf(stderr, "%s\n", line);
}

/* Show how far a transfer is, from a row of WATCH_COLUMNS. */
void
cli_progress_show(const PGresult *row)
{
	char		phase[64];

	if (cli.quiet)
		return;
	describe_phase(row, phase, sizeof(phase));
	if (on_terminal)
		draw_bar(row, phase);
	else
		write_line(row, phase);
	fflush(stderr);
}
