/*
 * crash.c
 *		Which deliveries were at work when the server crashed.
 *
 * A handler whose process dies of it (a bug of a C function, the kernel's OOM
 * killer) takes all processes of the server and the shared memory along, and
 * is the first to be called when the server is back.  What tells is a small
 * file: the worker of a slot writes there that it is busy when it begins to
 * look for events after a sleep, and that it is not before it sleeps again.
 * Nothing is synced, and under load nothing is written: the file need survive
 * the server's processes, not the machine.  Whoever makes new shared memory,
 * after a crash or at a start, finds in it who was busy at the end.
 *
 * When one process dies so, the postmaster ends all others with SIGQUIT.  That
 * signal is how a worker knows that it is not the one, and it takes its mark
 * back; unless a parallel query runs for it, whose worker may be.  An orderly
 * end of any kind, and an immediate shutdown, leave no mark.
 *
 * The directory is the one that base backups and pg_rewind leave out.
 */
#include "lib/sagaz.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/parallel.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"

#include "wakeup/crash.h"

#define FILE_NAME PG_STAT_TMP_DIR "/sagaz_crashes"
#define MAGIC 0x53475a43		/* "SGZC" */
#define VERSION 1

/* Crashes count together for so long. */
#define WINDOW_US (600 * USECS_PER_SEC)
/* The wait after the first one; four times as long after each further one. */
#define FIRST_WAIT_S 4
#define MAX_WAIT_S 300

/*
 * The file: a head, for each slot what a delivery has on its account, and for
 * each slot a mark.  Numbers are in the server's byte order.  In bytes:
 *
 * head			0 MAGIC, 4 VERSION, 8 how many slots, 12 zero
 * account		0 confirmed_at, 8 last, 16 ten times, 96 database, 100 count,
 *				104 delivery, 64 bytes
 * mark			0 confirmed_at, 8 database, 12 delivery, 64 bytes, 76 busy
 *
 * Times are timestamps of 64 bits, all else has 32.  The structs are laid out
 * so that no compiler puts anything between.  The file belongs to one server:
 * one of another version, or with another number of slots, is made anew.
 */
typedef struct Head
{
	uint32		magic;
	uint32		version;
	int32		nslots;
	int32		zero;
} Head;

StaticAssertDecl(sizeof(Head) == 16 &&
				 offsetof(SagazCrashes, database) == 96 &&
				 offsetof(SagazCrashes, delivery) == 104 &&
				 sizeof(SagazCrashes) == 104 + NAMEDATALEN &&
				 offsetof(SagazCrashMark, delivery) == 12 &&
				 offsetof(SagazCrashMark, busy) == 12 + NAMEDATALEN &&
				 sizeof(SagazCrashMark) == 16 + NAMEDATALEN,
				 "the file of crashes has another layout");

/* In shared memory; whoever changes it writes it to the file, too. */
static SagazCrashes *all = NULL;
static int	nall = 0;

/* In a worker. */
static int	file = -1;
static off_t place;
static bool is_busy = false;

static off_t
crashes_at(int i)
{
	return sizeof(Head) + i * sizeof(SagazCrashes);
}

static off_t
mark_at(int i)
{
	return crashes_at(nall) + i * sizeof(SagazCrashMark);
}

/* Asked before shared memory is there, by the hook that requests it. */
Size
sagaz_crashes_size(int nslots)
{
	return mul_size(nslots, sizeof(SagazCrashes));
}

/* Without the file the server runs as well: nobody is told. */
static int
open_crash_file(int flags)
{
	int			opened = BasicOpenFile(FILE_NAME, O_RDWR | PG_BINARY | flags);

	if (opened < 0 && errno != ENOENT)
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not open file \"%s\": %m", FILE_NAME)));
	return opened;
}

static void
write_crashes(int fd, int i)
{
	if (pg_pwrite(fd, &all[i], sizeof(SagazCrashes), crashes_at(i)) < 0)
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", FILE_NAME)));
}

/* Write what is in memory, and no marks. */
static void
write_crash_file(void)
{
	Head		head = {MAGIC, VERSION, nall, 0};
	int			fd = open_crash_file(O_CREAT | O_TRUNC);

	if (fd < 0)
		return;
	if (pg_pwrite(fd, &head, sizeof(head), 0) < 0)
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", FILE_NAME)));
	for (int i = 0; i < nall; i++)
		if (OidIsValid(all[i].database))
			write_crashes(fd, i);
	close(fd);
}

static SagazCrashes *
find_crashes(Oid database, const char *delivery)
{
	for (int i = 0; i < nall; i++)
		if (all[i].database == database &&
			strcmp(NameStr(all[i].delivery), delivery) == 0)
			return &all[i];
	return NULL;
}

/* A free place, or that of the delivery whose last crash is the oldest. */
static SagazCrashes *
find_crash_room(void)
{
	SagazCrashes *oldest = &all[0];

	for (int i = 0; i < nall; i++)
	{
		if (!OidIsValid(all[i].database))
			return &all[i];
		if (all[i].last < oldest->last)
			oldest = &all[i];
	}
	return oldest;
}

/* Leave those out that are too long ago; a clock may have been set back. */
static void
age_crashes(SagazCrashes *crashes, TimestampTz now)
{
	int			kept = 0;

	for (int i = 0; i < crashes->count; i++)
		if (Max(now - crashes->times[i], crashes->times[i] - now) < WINDOW_US)
			crashes->times[kept++] = crashes->times[i];
	crashes->count = kept;
}

/* The delivery's process was at work when the server ended, and not told to. */
static void
note_crash(const SagazCrashMark *mark, TimestampTz now)
{
	SagazCrashes *crashes = find_crashes(mark->database, NameStr(mark->delivery));

	if (crashes == NULL)
		crashes = find_crash_room();
	if (crashes->database != mark->database ||
		crashes->confirmed_at != mark->confirmed_at ||
		strcmp(NameStr(crashes->delivery), NameStr(mark->delivery)) != 0)
	{
		memset(crashes, 0, sizeof(SagazCrashes));
		crashes->database = mark->database;
		crashes->delivery = mark->delivery;
		crashes->confirmed_at = mark->confirmed_at;
	}
	/* what stands still must not be forgotten by the time */
	if (!sagaz_crashes_are_too_many(crashes))
		age_crashes(crashes, now);
	if (crashes->count == SAGAZ_CRASHES)
		memmove(crashes->times, crashes->times + 1,
				--crashes->count * sizeof(TimestampTz));
	crashes->times[crashes->count++] = crashes->last = now;
	ereport(LOG,
			(errmsg("delivery \"%s\" of database %u was at work when the server crashed, %d in ten minutes",
					NameStr(mark->delivery), mark->database, crashes->count)));
}

/* A count that is none would lead out of the array; nor must names have no end. */
static bool
crashes_are_sound(SagazCrashes *crashes)
{
	NameStr(crashes->delivery)[NAMEDATALEN - 1] = '\0';
	return crashes->count >= 0 && crashes->count <= SAGAZ_CRASHES;
}

/* Take over what the file has, unless another number of slots wrote it. */
static void
read_crash_file(void)
{
	TimestampTz now = GetCurrentTimestamp();
	int			fd = open_crash_file(0);
	Head		head;
	SagazCrashMark mark;

	if (fd < 0)
		return;
	if (pg_pread(fd, &head, sizeof(head), 0) == sizeof(head) &&
		head.magic == MAGIC && head.version == VERSION && head.nslots == nall)
	{
		for (int i = 0; i < nall; i++)
			if (pg_pread(fd, &all[i], sizeof(SagazCrashes), crashes_at(i)) !=
				sizeof(SagazCrashes) || !crashes_are_sound(&all[i]))
				memset(&all[i], 0, sizeof(SagazCrashes));
		for (int i = 0; i < nall; i++)
		{
			if (pg_pread(fd, &mark, sizeof(mark), mark_at(i)) != sizeof(mark))
				break;
			NameStr(mark.delivery)[NAMEDATALEN - 1] = '\0';
			if (mark.busy)
				note_crash(&mark, now);
		}
	}
	close(fd);
}

/* The memory is there; fresh: nobody has used it. */
void
sagaz_crashes_start(SagazCrashes *memory, int nslots, bool fresh)
{
	all = memory;
	nall = nslots;
	if (!fresh)
		return;
	memset(all, 0, sagaz_crashes_size(nall));
	read_crash_file();
	write_crash_file();
}

/*
 * What the delivery has on its account since it was made or resumed; false if
 * nothing.  The caller holds the lock.
 */
bool
sagaz_crashes_read(Oid database, const char *delivery,
				   TimestampTz confirmed_at, SagazCrashes *crashes)
{
	SagazCrashes *found = find_crashes(database, delivery);

	if (found == NULL || found->confirmed_at != confirmed_at ||
		sagaz_max_crashes == 0)
		return false;
	*crashes = *found;
	return true;
}

/* The delivery was resumed, or dropped.  The caller holds the lock. */
void
sagaz_crashes_forget(Oid database, const char *delivery)
{
	SagazCrashes *found = find_crashes(database, delivery);
	int			fd;

	if (found == NULL)
		return;
	memset(found, 0, sizeof(SagazCrashes));
	fd = open_crash_file(0);
	if (fd < 0)
		return;
	write_crashes(fd, found - all);
	close(fd);
}

/* When it may be tried again. */
TimestampTz
sagaz_crashes_not_before(const SagazCrashes *crashes)
{
	int			wait_s = FIRST_WAIT_S;

	for (int i = 1; i < crashes->count && wait_s < MAX_WAIT_S; i++)
		wait_s *= 4;
	return crashes->last + Min(wait_s, MAX_WAIT_S) * USECS_PER_SEC;
}

/* So many that it is not to be tried again. */
bool
sagaz_crashes_are_too_many(const SagazCrashes *crashes)
{
	return sagaz_max_crashes > 0 && crashes->count >= sagaz_max_crashes;
}

/* Can be called by a signal handler; a mark that cannot be made is none. */
static void
write_busy(int32 busy)
{
	int			save_errno = errno;

	if (file >= 0 &&
		pg_pwrite(file, &busy, sizeof(busy),
				  place + offsetof(SagazCrashMark, busy)) < 0)
		file = -1;
	errno = save_errno;
}

/* Another process has died, so it was not this one. */
static void
crash_quit(SIGNAL_ARGS)
{
	if (!ParallelContextActive())
		write_busy(false);
	SignalHandlerForCrashExit(postgres_signal_arg);
}

/* An end that the postmaster takes for a crash leaves the mark. */
static void
crash_detach(int code, Datum arg)
{
	if (code == 0 || code == 1)
		write_busy(false);
}

/* This process works for the slot from here on. */
void
sagaz_crash_attach(int slot, const SagazCrashMark *mark)
{
	file = open_crash_file(0);
	if (file < 0)
		return;
	ReserveExternalFD();
	place = mark_at(slot);
	if (pg_pwrite(file, mark, sizeof(*mark), place) != sizeof(*mark))
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", FILE_NAME)));
	pqsignal(SIGQUIT, crash_quit);
	before_shmem_exit(crash_detach, 0);
}

/*
 * It works, or is about to sleep.  A write to the file without a flush, as
 * the server's crash leaves what the system has; only the machine's loses
 * it.
 */
void
sagaz_crash_busy(bool busy)
{
	if (busy == is_busy)
		return;
	is_busy = busy;
	write_busy(busy);
}
