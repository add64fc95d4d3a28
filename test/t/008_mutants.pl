# The mistakes of test/mutants, which "make check-mutants" builds in, fit the code
# as it is.
use strict;
use warnings FATAL => 'all';
use Test::More;

my @patches = sort glob 'test/mutants/*.patch';

cmp_ok(@patches, '>=', 9, 'there are mistakes to build in');
is(system('git', 'apply', '--check', $_), 0, "$_ applies") for @patches;

done_testing();
