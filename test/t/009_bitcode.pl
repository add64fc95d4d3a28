# The bitcode of the module, which servers with LLVM are installed with: all of
# it is there, and a query into which our functions may go has the result that
# it has without.
use strict;
use warnings;

use SagazTest;
use Test::More;

my $bitcode = "$ENV{PKGLIBDIR}/bitcode/sagaz";
plan skip_all => 'a server, or a build, without LLVM'
  unless -e "$ENV{PKGLIBDIR}/llvmjit.so" && -e "$bitcode.index.bc";

my @objects = grep { !m{^src/cli/} } glob 'src/*.o src/*/*.o backends/*/*.o';
cmp_ok(@objects, '>', 100, 'there are objects');
is_deeply([ grep { !-s "$bitcode/" . s/o$/bc/r } @objects ], [], 'each has its bitcode');

my $node = new_node('bitcode', conf => "fsync = off\n");
my $always = join '; ', map { "SET $_" } 'jit = on', 'jit_above_cost = 0',
  'jit_inline_above_cost = 0', 'jit_optimize_above_cost = 0';
my $lanes = q{SELECT sum(sagaz_internal.lane('s' || n) * n) FROM generate_series(1, 1000) AS n};

like($node->safe_psql('postgres', "$always; EXPLAIN (ANALYZE) $lanes"), qr/Inlining true/, 'functions may go into a query');
is($node->safe_psql('postgres', "$always; $lanes"), $node->safe_psql('postgres', "SET jit = off; $lanes"), 'which has the same result');

# Of a function that goes there, all that it calls must be found.
for my $call (
	"sagaz.save_saga_state('s' || n, 'N', 'pending')",
	"sagaz.load_saga_state('s' || n)",
	"sagaz.delete_saga_state('s' || n)",
	"sagaz.insert_event('s' || n, 'E', '{}')",
	'sagaz.get_pending_count()',
	'sagaz.checksum(\'outbox\', \'native\')',
	'sagaz.uuidv7()',
	'sagaz_internal.next_seq()')
{
	is($node->safe_psql('postgres', "$always; SELECT count($call) FROM generate_series(1, 10) AS n"), 10, $call);
}
is($node->safe_psql('postgres', "$always; INSERT INTO sagaz.emit (saga_id, event_type, payload) SELECT 's' || n, 'E', '1' FROM generate_series(1, 10) AS n; SELECT count(*) FROM sagaz.outbox_events"),
	20, 'an INSERT into emit');

$node->stop;
done_testing();
