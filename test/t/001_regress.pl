# The pg_regress tests, with and without shared_preload_libraries.
use strict;
use warnings;

use SagazTest;
use Test::More;

for my $preload (1, 0)
{
	my $node = new_node("preload_$preload", preload => $preload, create => 0);

	note $preload ? 'preloaded' : 'not preloaded';
	run_regress($ENV{PG_REGRESS}, $node,
		test_files('REGRESS', 'test/sql/*.sql'));
	$node->stop;
}

done_testing();
