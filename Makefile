# make deps check     all set-up and all tests, on a bare Debian 12 too
# make all install    build and install for the server of $(PG_CONFIG)

EXTENSION = sagaz
MODULE_big = sagaz
EXTVERSION = $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" sagaz.control)
DATA = sql/sagaz--$(EXTVERSION).sql $(wildcard sql/sagaz--*--*.sql)
# "make WITHOUT_SQLITE=1" leaves that backend out, and so do WITHOUT_REDIS=1 and
# WITHOUT_POSTGRES=1.
SQLITE = $(if $(WITHOUT_SQLITE),,1)
REDIS = $(if $(WITHOUT_REDIS),,1)
POSTGRES = $(if $(WITHOUT_POSTGRES),,1)
OBJS = $(patsubst %.c,%.o,$(filter-out src/cli/% $(if $(SQLITE),,backends/sqlite/%) \
	$(if $(REDIS),,backends/redis/%) $(if $(POSTGRES),,backends/postgres/%), \
	$(wildcard src/*.c src/*/*.c backends/*/*.c) $(FUZZ)))
LUA_HEADERS = $(patsubst %,%.h,$(wildcard backends/*/*.lua))

WARNINGS = -Wall -Wextra -Wno-unused-parameter $(STRICT)
# Those of them that the compiler knows.
MORE_WARNINGS := $(foreach warning,-Wshadow=compatible-local -Wmissing-variable-declarations, \
	$(shell $(or $(CC),cc) -Werror $(warning) -E -xc /dev/null >/dev/null 2>&1 && echo $(warning)))
PG_CPPFLAGS = -I$(srcdir) -I$(srcdir)/src \
	-DSAGAZ_VERSION='"$(EXTVERSION)"' \
	$(if $(SQLITE),,-DSAGAZ_WITHOUT_SQLITE) $(if $(REDIS),,-DSAGAZ_WITHOUT_REDIS) \
	$(if $(POSTGRES),-I$(libpq_srcdir),-DSAGAZ_WITHOUT_POSTGRES) \
	'-DPGDLLEXPORT=__attribute__((visibility("default")))'
# Only what the server looks up is seen from outside, as 16 and later have it.
PG_CFLAGS = $(WARNINGS) $(MORE_WARNINGS) -fvisibility=hidden -MMD -MP
SHLIB_LINK = $(LINK) $(if $(SQLITE),-lsqlite3) $(if $(REDIS),-lhiredis -lssl -lcrypto) $(if $(POSTGRES),$(libpq))
EXTRA_CLEAN = $(patsubst %.o,%.d,$(OBJS) $(CLI_OBJS)) $(patsubst %.o,%.bc.d,$(OBJS)) \
	$(LUA_HEADERS) $(CLI) $(CLI_OBJS) .flags

# The program; PGXS makes a module or a program, so it has rules of its own below.
CLI = $(if $(POSTGRES),src/cli/sagaz)
CLI_OBJS = $(patsubst %.c,%.o,$(wildcard src/cli/*.c))

REGRESS = $(patsubst test/sql/%.sql,%,$(wildcard test/sql/*.sql))
REGRESS_OPTS = --inputdir=test --load-extension=$(EXTENSION)
ISOLATION = $(patsubst test/specs/%.spec,%,$(wildcard test/specs/*.spec))
NO_INSTALLCHECK = yes

PG_CONFIG ?= pg_config
export PG_CONFIG

# What needs no PGXS works before PostgreSQL is there.
BARE = deps check demo bench check-mutants check-asan check-valgrind fuzz coverage
ifneq ($(filter-out $(BARE),$(or $(MAKECMDGOALS),all)),)
PGXS := $(shell $(PG_CONFIG) --pgxs)
ifeq ($(PGXS),)
$(error no server headers where $(PG_CONFIG) looks; "make deps" installs them)
endif
include $(PGXS)

override BITCODE_CFLAGS += $(WARNINGS) -Wmissing-variable-declarations -MMD -MP -MF $(@:=.d)
-include $(filter-out $(if $(filter no,$(with_llvm)),%.bc.d),$(wildcard src/*.d src/*/*.d backends/*/*.d))

all: META.json
META.json: sagaz.control
	sed -Ei 's/^( +"version": )"[^"]*"/\1"$(EXTVERSION).0"/; s/(sagaz--)[0-9.]+(\.sql)/\1$(EXTVERSION)\2/' $@
	touch $@

# The scripts for Redis, as C strings.
backends/redis/%.lua.h: backends/redis/%.lua
	sed 's/[\\"]/\\&/g; s/.*/"&\\n"/' $< >$@
backends/redis/redis_scripts.o backends/redis/redis_scripts.bc: $(LUA_HEADERS)

# Only what psql's own tables and prompts need is linked, no library that the
# server was built with.
all: $(CLI)
$(CLI_OBJS): override CPPFLAGS += -I$(libpq_srcdir)
src/cli/sagaz: $(CLI_OBJS)
	$(CC) $(CFLAGS) $(CLI_OBJS) $(LDFLAGS) $(LDFLAGS_EX) -L$(pkglibdir) -lpgfeutils -lpgcommon \
		-lpgport $(libpq) -lm -o $@

completionsdir = $(datadir)/bash-completion/completions
ifneq ($(CLI),)
install: install-cli
uninstall: uninstall-cli
endif
install-cli: all
	$(MKDIR_P) '$(DESTDIR)$(bindir)' '$(DESTDIR)$(mandir)/man1' '$(DESTDIR)$(completionsdir)'
	$(INSTALL_PROGRAM) $(CLI) '$(DESTDIR)$(bindir)/sagaz'
	$(INSTALL_DATA) $(srcdir)/doc/sagaz.1 '$(DESTDIR)$(mandir)/man1/sagaz.1'
	$(INSTALL_DATA) $(srcdir)/src/cli/completion.bash '$(DESTDIR)$(completionsdir)/sagaz'
uninstall-cli:
	rm -f '$(DESTDIR)$(bindir)/sagaz' '$(DESTDIR)$(mandir)/man1/sagaz.1' \
		'$(DESTDIR)$(completionsdir)/sagaz'

# Objects made with other flags are made again.
ifneq ($(file <.flags),$(PG_CONFIG) $(STRICT) $(COPT) $(SQLITE) $(REDIS) $(POSTGRES))
$(file >.flags,$(PG_CONFIG) $(STRICT) $(COPT) $(SQLITE) $(REDIS) $(POSTGRES))
endif
$(OBJS) $(OBJS:.o=.bc) $(CLI_OBJS): .flags

# Each test has a database of its own, as in "make check".
installcheck:
	@for t in $(REGRESS); do \
		$(pg_regress_installcheck) $(REGRESS_OPTS) --dbname=regress_$$t $$t || s=1; \
	done; \
	for t in $(ISOLATION); do \
		$(pg_isolation_regress_installcheck) $(REGRESS_OPTS) --outputdir=. \
			--dbname=isolation_$$t $$t || s=1; \
	done; exit $$s
endif

deps:
	@test/deps

ifneq ($(filter check,$(MAKECMDGOALS)),)
check: deps
	@test/run check $(TESTS)
endif

demo bench: deps
	@test/run $@

check-mutants: deps
	@test/run mutants

check-asan: deps
	@test/run asan $(TESTS)

# pg_regress, unless TESTS says something else
check-valgrind:
	@PACKAGES=valgrind test/deps
	@test/run valgrind $(or $(TESTS),test/t/001_regress.pl)

fuzz:
	@PACKAGES="clang libclang-rt-dev" test/deps
	@test/run fuzz

# "make coverage TESTS=test/t/001_regress.pl" and the like.
coverage:
	@PACKAGES=lcov test/deps
	@test/run coverage $(TESTS)

.PHONY: $(BARE) installcheck install-cli uninstall-cli
