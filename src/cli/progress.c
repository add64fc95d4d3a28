/*
 * progress.c
 *		What is shown of a transfer while it runs: on a terminal a bar that is
 *		drawn over and over in one line, elsewhere a line now and then.  All of
 *		it goes to stderr, so that stdout has results only.
 */
#include "cli.h"

#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "watch.h"

#define BAR_MILLISECONDS 200
#define LINE_SECONDS 5.0
#define LEAST_BAR 10

static bool on_terminal;
static bool drawn;				/* is there a bar to be wiped away? */
static char last_line[512];

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
cli_duration(char *text, size_t size, double seconds)
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

/* "4200/10000  1400/s  0:04 left", as far as it is known. */
static void
describe_rate(const PGresult *row, char *text, size_t size)
{
	char		left[32] = "";
	char		rate[32] = "";

	if (!PQgetisnull(row, 0, WATCH_RATE))
		snprintf(rate, sizeof(rate), "  %.0f/s", atof(PQgetvalue(row, 0, WATCH_RATE)));
	if (!PQgetisnull(row, 0, WATCH_LEFT))
	{
		strcpy(left, "  ");
		cli_duration(left + 2, sizeof(left) - 2, atof(PQgetvalue(row, 0, WATCH_LEFT)));
	}
	snprintf(text, size, "%s%s%s%s%s%s", PQgetvalue(row, 0, WATCH_DONE),
			 PQgetisnull(row, 0, WATCH_TOTAL) ? "" : "/",
			 PQgetvalue(row, 0, WATCH_TOTAL), rate, left, left[0] ? " left" : "");
}

/* Fill the terminal's width but for the last column, where some wrap. */
static void
draw_bar(const char *phase, double percent, const char *rate)
{
	int			width = Min(terminal_width() - 1, (int) sizeof(last_line) - 1);
	char		head[96];
	int			bar;

	snprintf(head, sizeof(head), "%s %5.1f%% ", phase, percent);
	bar = width - (int) strlen(head) - (int) strlen(rate) - 4;
	if (bar >= LEAST_BAR)
	{
		int			full = (int) (bar * percent / 100);

		snprintf(last_line, sizeof(last_line), "%s[%-*.*s]  %s", head, bar, 0, "", rate);
		memset(strchr(last_line, '[') + 1, '#', full);
	}
	else
		snprintf(last_line, sizeof(last_line), "%s %s", head, rate);
	if (width >= 0)
		last_line[width] = '\0';
	fprintf(stderr, "\r%s\033[K", last_line);
	drawn = true;
}

/* A line is not said twice. */
static void
write_line(const char *id, const char *phase, const char *percent, const char *rate)
{
	char		line[sizeof(last_line)];

	snprintf(line, sizeof(line), "transfer %s: %s: %s%s%s", id, phase, rate,
			 percent[0] ? "  " : "", percent);
	if (strcmp(line, last_line) == 0)
		return;
	strlcpy(last_line, line, sizeof(last_line));
	fprintf(stderr, "%s%s\n", line, percent[0] ? " %" : "");
}

/* Show how far a transfer is, from a row of WATCH_COLUMNS. */
void
cli_progress_show(const PGresult *row)
{
	char		phase[64];
	char		rate[128];
	double		percent = atof(PQgetvalue(row, 0, WATCH_PERCENT));

	if (cli.quiet)
		return;
	describe_phase(row, phase, sizeof(phase));
	describe_rate(row, rate, sizeof(rate));
	if (on_terminal)
		draw_bar(phase, Max(0, Min(percent, 100)), rate);
	else
		write_line(PQgetvalue(row, 0, WATCH_ID), phase,
				   PQgetvalue(row, 0, WATCH_PERCENT), rate);
	fflush(stderr);
}
