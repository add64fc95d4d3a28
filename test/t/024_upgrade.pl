# pg_upgrade with events in every state: the new cluster hands out nothing until
# it is activated, and then what was left, once.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use SagazTest;
use SagazWork;
use Test::More;

my $old = new_node('old', conf => work_conf());
my $new = new_node('new', conf => work_conf(), start => 0);

prepare_work($old);
my $work = start_work($old, 6);
$old->poll_query_until('postgres', is_busy()) or die 'no work';
ok($work->finish, 'the application saw no error');
my $contents = $old->safe_psql('postgres', contents());
$old->stop;

my $bindir = $old->config_data('--bindir');
chdir $new->basedir or die $!;
command_ok(
	[
		"$bindir/pg_upgrade", '--no-sync',
		'--old-bindir', $bindir, '--new-bindir', $bindir,
		'--old-datadir', $old->data_dir, '--new-datadir', $new->data_dir,
		'--old-port', $old->port, '--new-port', $new->port,
		'--socketdir', $new->host
	],
	'pg_upgrade');
$new->start;
is($new->safe_psql('postgres', contents()), $contents,
	'the data are the old ones');
check_inert($new, 'postgres', 'upgraded');
$new->safe_psql('postgres', 'SELECT sagaz.activate()');
check_delivery($new, 'postgres', 'upgraded');
$new->stop;

done_testing();
