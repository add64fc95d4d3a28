/*
 * redis_scripts.c
 *		The scripts' texts; the Makefile turns each .lua into the literal that
 *		is included here.
 */
#include "backends/redis/redis_scripts.h"

static const char write_text[] =
#include "backends/redis/redis_common.lua.h"
#include "backends/redis/redis_write.lua.h"
	;
static const char claim_text[] =
#include "backends/redis/redis_common.lua.h"
#include "backends/redis/redis_lost.lua.h"
#include "backends/redis/redis_claim.lua.h"
	;
static const char look_text[] =
#include "backends/redis/redis_common.lua.h"
#include "backends/redis/redis_lost.lua.h"
#include "backends/redis/redis_look.lua.h"
	;
static const char finish_text[] =
#include "backends/redis/redis_common.lua.h"
#include "backends/redis/redis_finish.lua.h"
	;
static const char append_text[] =
#include "backends/redis/redis_append.lua.h"
	;

const RedisScript redis_write_script = {write_text, 0};
const RedisScript redis_claim_script = {claim_text, 1};
const RedisScript redis_finish_script = {finish_text, 2};
const RedisScript redis_append_script = {append_text, 3};
const RedisScript redis_look_script = {look_text, 4};
