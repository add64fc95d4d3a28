# Authorities and certificates of a test's own, made by openssl.
package SagazTls;

use strict;
use warnings;

use PostgreSQL::Test::Utils;

# new(authority, ...): a directory with NAME.crt and NAME.key of each.
sub new
{
	my ($class, @authorities) = @_;
	my $self = bless { dir => PostgreSQL::Test::Utils::tempdir(), days => 2 }, $class;

	for my $name (@authorities)
	{
		$self->openssl(qw(req -x509 -nodes -days 2), new_key(), '-keyout', $self->key($name),
			'-out', $self->crt($name), '-subj', "/CN=$name");
	}
	return $self;
}

sub is_there
{
	return !system('command -v openssl >/dev/null 2>&1');
}

sub new_key
{
	return qw(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1);
}

sub crt { return "$_[0]{dir}/$_[1].crt" }
sub key { return "$_[0]{dir}/$_[1].key" }

sub openssl
{
	my ($self, @words) = @_;

	run_log([ 'openssl', @words ]) or die "openssl @words";
}

# A certificate NAME.crt with NAME.key, good for these names as openssl has them
# ("DNS:localhost"); with days => 0 it has expired.
sub issue
{
	my ($self, $name, $authority, $good_for, %options) = @_;

	$self->openssl(qw(req -nodes), new_key(), '-keyout', $self->key($name), '-out', "$self->{dir}/$name.csr", '-subj', "/CN=$name");
	append_to_file("$self->{dir}/$name.names", "subjectAltName=$good_for\n");
	$self->openssl(qw(x509 -req -CAcreateserial -days), $options{days} // 2, '-in', "$self->{dir}/$name.csr", '-CA', $self->crt($authority),
		'-CAkey', $self->key($authority), '-extfile', "$self->{dir}/$name.names", '-out', $self->crt($name));
	chmod 0600, $self->key($name);
	return $self;
}

# The settings of a Redis server that has this certificate.
sub redis_settings
{
	my ($self, $name, $authority) = @_;

	return (
		'tls-cert-file' => $self->crt($name),
		'tls-key-file' => $self->key($name),
		'tls-ca-cert-file' => $self->crt($authority),
		'tls-auth-clients' => 'no',
		bind => '127.0.0.1');
}

1;
