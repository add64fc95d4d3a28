# SQLite files in which bytes have flipped: errors that say so, and no crash.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use SagazHostile;
use Test::More;

my $node = hostile_node('200ms');
my $file = PostgreSQL::Test::Utils::tempdir_short() . '/flipped.db';
my $seed = hostile_seed();

srand $seed;
open my $in, '<:raw', 'test/data/sqlite-clean.db' or die $!;
my $whole = do { local $/; <$in> };
hostile_rounds($node, $seed, sub {
		my $bytes = $whole;

		# the header, the schema and the pages, each now and then
		substr($bytes, rand(rand() < 0.3 ? 4096 : length $bytes), 1) = chr rand 256 for 1 .. 1 + rand 30;
		$bytes = substr $bytes, 0, rand length $bytes if rand() < 0.1;
		unlink glob "$file*";
		open my $out, '>:raw', $file or die $!;
		print $out $bytes;
		close $out;
		return "sqlite://$file";
	});

$node->stop;
done_testing();
