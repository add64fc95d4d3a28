# A streaming standby is promoted while the application runs: as of what it had
# replayed nothing is lost and nothing that was finished is delivered again.
use strict;
use warnings;

use SagazTest;
use SagazWork;
use Test::More;

my $primary = new_node('primary', conf => work_conf(),
	init => { allows_streaming => 1 });
my $standby = PostgreSQL::Test::Cluster->new('standby');

prepare_work($primary);
$primary->backup('base');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

my $work = start_work($primary, 8);
$standby->poll_query_until('postgres', is_busy()) or die 'no work';
my ($status, $out, $err) = $standby->psql('postgres',
	"\\set VERBOSITY sqlstate\nSELECT sagaz.claim_batch('w', 1, '0', 'free')");
like($err, qr/25006/, 'a standby hands out nothing');
($status, $out, $err) = $standby->psql('postgres',
	"\\set VERBOSITY sqlstate\nSELECT sagaz.create_consumer_group('late')");
like($err, qr/25006/, 'nor has it new groups');
$standby->promote;
ok( $standby->safe_psql('postgres', 'SELECT count(*) FROM handled') <
	  $primary->safe_psql('postgres', 'SELECT count(*) FROM handled'),
	'the application went on meanwhile');
ok($work->finish, 'the application saw no error');
$primary->stop;

$standby->safe_psql('postgres',
	q(SELECT sagaz.insert_event('fresh', 'created', jsonb_build_object('n', n)) FROM generate_series(1, 2) n));
check_delivery($standby, 'postgres', 'promoted');
$standby->stop;

done_testing();
