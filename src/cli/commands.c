/*
 * commands.c
 *		The table of the program's commands.
 */
#include "cli.h"

const CliCommand cli_commands[] = {
	{CLI_TRANSFER, "storage", "transfer", "", 0, 0, cli_storage_transfer,
	"copy sagas and events from one storage to another"},
	{CLI_MIGRATE, "storage", "migrate", "", 0, 0, cli_storage_migrate,
	"move sagas and events to another storage while writers go on"},
	{CLI_VALIDATE, "storage", "validate", "", 0, 0, cli_storage_validate,
	"tell whether a transfer can work, changing nothing"},
	{CLI_LIST_STORAGES, "storage", "list", "", 0, 0, cli_storage_list,
	"list the storages that have a name"},
	{CLI_ADD, "storage", "add", " NAME [URL]", 1, 2, cli_storage_add,
	"give a storage a name"},
	{CLI_DROP, "storage", "drop", " NAME", 1, 1, cli_storage_drop,
	"forget the name of a storage; what it holds stays"},
	{CLI_HEALTH, "storage", "health", " [NAME|URL]...", 0, -1, cli_storage_health,
	"tell whether storages answer"},
	{CLI_STATS, "storage", "stats", " [NAME|URL]", 0, 1, cli_storage_stats,
	"count sagas and events by status"},
	{CLI_LIST_SAGAS, "saga", "list", "", 0, 0, cli_saga_list,
	"list sagas, the newest first"},
	{CLI_SHOW, "saga", "show", " SAGA_ID", 1, 1, cli_saga_show,
	"show one saga with its steps"},
	{CLI_STUCK, "saga", "stuck", "", 0, 0, cli_saga_stuck,
	"list unfinished sagas that nobody changed for long"},
	{CLI_STATUS, "outbox", "status", "", 0, 0, cli_outbox_status,
	"count the events of each consumer group by status"},
	{CLI_TAIL, "outbox", "tail", "", 0, 0, cli_outbox_tail,
	"show the last events, and new ones as they are committed"},
	{CLI_DEAD_LETTERS, "outbox", "dead-letters", "", 0, 0, cli_outbox_dead_letters,
	"list the dead letters of a consumer group"},
	{CLI_REQUEUE, "outbox", "requeue", " [EVENT_ID]...", 0, -1, cli_outbox_requeue,
	"let dead letters be tried again"},
	{CLI_EXPLAIN, "outbox", "explain", " EVENT_ID", 1, 1, cli_outbox_explain,
	"tell where an event stands, and why"},
	{CLI_LIST_DELIVERIES, "delivery", "list", "", 0, 0, cli_delivery_list,
	"list deliveries and what their workers do"},
	{CLI_SHOW_DELIVERY, "delivery", "show", " NAME", 1, 1, cli_delivery_show,
	"show one delivery with what its worker does and its last error"},
	{CLI_PAUSE, "delivery", "pause", " NAME...", 1, -1, cli_delivery_pause,
	"pause deliveries"},
	{CLI_RESUME, "delivery", "resume", " NAME...", 1, -1, cli_delivery_resume,
	"let paused deliveries go on"},
	{0, NULL, NULL, NULL, 0, 0, NULL, NULL}
};
