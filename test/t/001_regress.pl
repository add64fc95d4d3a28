# The pg_regress tests, with and without shared_preload_libraries.
use strict;
use warnings;

use SagazTest;
use Test::More;

for my $name ('preloaded', 'plain')
{
	my $node = new_node($name, preload => $name eq 'preloaded', create => 0);

	run_regress($ENV{PG_REGRESS}, $node,
		test_files('REGRESS', 'test/sql/*.sql'));
	$node->stop;
}

done_testing();
