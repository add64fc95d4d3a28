# The isolation tests.
use strict;
use warnings;

use SagazTest;
use Test::More;

my $node = new_node('isolation', create => 0);

run_regress($ENV{PG_ISOLATION_REGRESS}, $node,
	test_files('SPECS', 'test/specs/*.spec'));
$node->stop;

done_testing();
