# Settings are reloaded, and a wrong one is refused.
use strict;
use warnings;

use SagazTest;
use Test::More;

my $node = new_node('settings');

is($node->safe_psql('postgres', 'SHOW sagaz.max_retries'),
	'10', 'a default is shown');
$node->safe_psql('postgres', 'ALTER SYSTEM SET sagaz.max_retries = 3');
$node->reload;
ok( $node->poll_query_until(
		'postgres', 'SHOW sagaz.max_retries', '3'),
	'a setting is reloaded');
my ($status, $out, $err) = $node->psql('postgres',
	'ALTER SYSTEM SET sagaz.max_retries = -1');
like($err, qr/outside the valid range/, 'a wrong setting is refused');
$node->stop;

done_testing();
