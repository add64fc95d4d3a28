# Saving a saga to one storage after another: where it works, and where it
# fails as it should without showing the secret.
package SagazSaves;

use strict;
use warnings;
use Exporter 'import';

use Test::More;

our @EXPORT = qw(saves_on error_of save works fails);

my ($node, $secret);

# saves_on(node, secret): for all that follows.
sub saves_on
{
	($node, $secret) = @_;
	return;
}

# What the server says, with the SQLSTATE; empty where nothing is wrong.
sub error_of
{
	my ($query) = @_;
	my ($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$query");

	return $err // '';
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

# fails(statement or storage, pattern, name)
sub fails
{
	my ($query, $pattern, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $err = error_of($query =~ /^(SE|BEGIN)/ ? $query : save($query));
	like($err, qr/ERROR:  $pattern/s, $name);
	unlike($err, qr/\Q$secret\E/, "$name: no secret");
	return;
}

1;
