EXTENSION = sagaz
MODULE_big = sagaz
OBJS = $(patsubst %.c,%.o,$(wildcard src/*.c))
DATA = sql/sagaz--0.1.sql
PG_CPPFLAGS = -I$(srcdir)/src
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers -Wno-sign-compare
PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)
