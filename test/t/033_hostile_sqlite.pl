# SQLite files in which bytes have flipped: errors that say so, and no crash.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use SagazHostile;
use SagazTest;
use Test::More;
use Time::HiRes 'time';

my $node = new_node('flipped');
my $started = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');
my $file = PostgreSQL::Test::Utils::tempdir_short() . '/flipped.db';
my $seed = hostile_seed();

srand $seed;
open my $in, '<:raw', 'test/data/sqlite-clean.db' or die $!;
my $whole = do { local $/; <$in> };
my ($rounds, $errors) = (0, 0);
my $until = time + hostile_seconds();
while (time < $until)
{
	my $bytes = $whole;

	# the header, the schema and the pages, each now and then
	substr($bytes, rand(rand() < 0.3 ? 4096 : length $bytes), 1) = chr rand 256 for 1 .. 1 + rand 30;
	$bytes = substr $bytes, 0, rand length $bytes if rand() < 0.1;
	unlink glob "$file*";
	open my $out, '>:raw', $file or die $!;
	print $out $bytes;
	close $out;
	$node->psql('postgres', "SELECT sagaz.create_storage('x', 'sqlite://$file')");
	$errors += () = ask_all($node) =~ /ERROR/g;
	$node->psql('postgres', "SELECT sagaz.drop_storage('x')");
	last unless $node->poll_query_until('postgres', 'SELECT true');
	$rounds++;
}
cmp_ok($rounds, '>', 0, "$rounds files");
cmp_ok($errors, '>', 0, 'errors came of it');
stands($node, $started, "seed $seed");

$node->stop;
done_testing();
