# Saving a saga to one storage after another: where it works, and where it
# fails as it should without showing the secret.
package SagazSaves;

use strict;
use warnings;
use Exporter 'import';

use SagazTest;
use Test::More;
use Time::HiRes qw(time);

our @EXPORT = qw(saves_on save works fails);

my ($node, $secret);

# saves_on(node, secret): for all that follows.
sub saves_on
{
	($node, $secret) = @_;
	return;
}

sub save
{
	my ($storage) = @_;
	return "SELECT sagaz.save_saga_state('s', 'N', 'pending', storage => '$storage')";
}

sub works
{
	my ($storage, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($status, $out, $err) = $node->psql('postgres', save($storage));
	like($out, qr/^\d+$/, $name) or diag($err);
	return;
}

# fails(statement or storage, pattern, name): how many seconds it took.
sub fails
{
	my ($query, $pattern, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $start = time;
	my $err = error_of($node, $query =~ /^(SE|BEGIN)/ ? $query : save($query));
	my $took = time - $start;
	like($err, qr/ERROR:  $pattern/s, $name);
	unlike($err, qr/\Q$secret\E/, "$name: no secret");
	return $took;
}

1;
