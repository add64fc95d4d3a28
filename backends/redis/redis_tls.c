/*
 * redis_tls.c
 *		TLS over a socket to a Redis server, by OpenSSL.
 *
 * Nothing here waits: where OpenSSL would, it says for what, and the caller
 * waits for the socket.  Nothing is raised between OpenSSL's frames or with
 * errors in its queue; calls say that they failed and leave the words in the
 * struct.  What OpenSSL allocates hangs on the struct from the moment it is
 * there, and redis_tls_end, which the socket's closing calls, lets it go.
 *
 * The options are libpq's, and mean the same: an authority named with
 * "require" is looked at, and the system's authorities are good for
 * verify-full alone, as everybody has some certificate of theirs.
 */
#include "backends/redis/redis_tls.h"

#include <arpa/inet.h>
#include <sys/stat.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "storage/latch.h"

#include "backends/common/server_file.h"

#define SYSTEM_AUTHORITIES "system"

typedef enum TlsMode
{
	TLS_OFF,
	TLS_REQUIRED,				/* whoever the server is */
	TLS_AUTHORITY,				/* one that the authority knows */
	TLS_FULL					/* the one of that name */
} TlsMode;

/* ---------------------------------------------------------------------- */
/* Options */

static const char *const tls_modes[] = {
	[TLS_OFF] = "disable",[TLS_REQUIRED] = "require",
	[TLS_AUTHORITY] = "verify-ca",[TLS_FULL] = "verify-full"
};

/* The mode that the word stands for, -1 for none. */
static int
find_tls_mode(const char *word)
{
	for (int i = 0; i < (int) lengthof(tls_modes); i++)
		if (strcmp(tls_modes[i], word) == 0)
			return i;
	return -1;
}

/* The option sslmode; those of libpq's words that may end without TLS are none. */
void
redis_tls_check_mode(const char *value)
{
	if (find_tls_mode(value) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_SAGAZ_INPUT),
				 errmsg("sslmode is not valid"),
				 errhint("Say 'disable', 'require', 'verify-ca' or 'verify-full'.")));
}

/* Where no mode is said, whoever says anything about TLS wants the strictest. */
static TlsMode
tls_mode(const SagazStore *store)
{
	const char *word = sagaz_store_option(store, "sslmode");
	bool		has_authority = sagaz_store_option(store, "sslrootcert") != NULL;
	int			mode = word ? find_tls_mode(word) :
		has_authority || sagaz_store_option(store, "sslcert") ||
		sagaz_store_option(store, "sslkey") ? TLS_FULL : TLS_OFF;

	Assert(mode >= 0);
	return mode == TLS_REQUIRED && has_authority ? TLS_AUTHORITY : mode;
}

static const char *
tls_authorities(const SagazStore *store)
{
	const char *file = sagaz_store_option(store, "sslrootcert");

	return file ? file : SYSTEM_AUTHORITIES;
}

/* Never by itself: where sslmode wants TLS there is no way without it. */
bool
redis_tls_is_wanted(const SagazStore *store)
{
	return tls_mode(store) != TLS_OFF;
}

static void
refuse_tls_option(const SagazStore *store, const char *why, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_SAGAZ_INPUT),
			 errmsg("the TLS options of storage \"%s\" do not fit together", store->name),
			 errdetail_internal("%s", why),
			 errhint("%s", hint)));
}

/*
 * Do they fit together, and may the storage's owner name the files?  They are
 * read as the server's user, the key of a login among them.
 */
void
redis_tls_check_options(const SagazStore *store)
{
	static const char *const files[] = {"sslrootcert", "sslcert", "sslkey"};
	bool		is_system = strcmp(tls_authorities(store), SYSTEM_AUTHORITIES) == 0;

	if (sagaz_store_option(store, "path"))
		refuse_tls_option(store, "Redis has no TLS on a socket of this machine.",
						  "Name a host, or leave out the options that begin with ssl.");
	if ((sagaz_store_option(store, "sslcert") == NULL) !=
		(sagaz_store_option(store, "sslkey") == NULL))
		refuse_tls_option(store, "There is one of sslcert and sslkey without the other.",
						  "Name a file for each; it may be the same.");
	if (tls_mode(store) == TLS_AUTHORITY && is_system)
		refuse_tls_option(store, "Everybody has a certificate of one of the system's authorities.",
						  "Say verify-full, or name the file of an authority in sslrootcert.");
	for (int i = 0; i < (int) lengthof(files); i++)
		if (sagaz_store_option(store, files[i]) && !(i == 0 && is_system))
			sagaz_check_server_file(store, files[i], false);
}

/* ---------------------------------------------------------------------- */
/* Errors */

static const char *
certificate_problem(const RedisTls *tls, const char *host)
{
	long		problem = SSL_get_verify_result(tls->ssl);

	if (problem == X509_V_ERR_HOSTNAME_MISMATCH || problem == X509_V_ERR_IP_ADDRESS_MISMATCH)
		return psprintf("The server's certificate is not one of \"%s\"", host);
	return psprintf("The server's certificate is refused: %s",
					X509_verify_cert_error_string(problem));
}

/* The newest error in OpenSSL's queue in words; the queue is empty then. */
static const char *
newest_tls_error(void)
{
	unsigned long code = ERR_peek_last_error();
	const char *words = ERR_reason_error_string(code);

	ERR_clear_error();
	if (ERR_SYSTEM_ERROR(code))
		return pg_strerror(ERR_GET_REASON(code));
	return words ? words : "unknown error";
}

/* What failed in talking to the server, in words; host while shaking hands. */
static const char *
tls_problem(const RedisTls *tls, int kind, int error, const char *host)
{
	int			reason = ERR_GET_REASON(ERR_peek_last_error());

	if (kind == SSL_ERROR_ZERO_RETURN ||
		(kind == SSL_ERROR_SYSCALL && error == 0))
		return "The server closed it";
	if (kind == SSL_ERROR_SYSCALL)
		return pg_strerror(error);
	if (ERR_GET_LIB(ERR_peek_last_error()) != ERR_LIB_SSL)
		return newest_tls_error();
	switch (reason)
	{
		case SSL_R_UNEXPECTED_EOF_WHILE_READING:
			return "The server closed it";
		case SSL_R_CERTIFICATE_VERIFY_FAILED:
			return host ? certificate_problem(tls, host) : newest_tls_error();
		case SSL_R_WRONG_VERSION_NUMBER:
			return "The server does not speak TLS there";
		case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
			return "The server wants a client certificate, sslcert and sslkey";
	}
	return reason >= SSL_AD_REASON_OFFSET ?
		psprintf("The server ends it: %s", newest_tls_error()) :
		newest_tls_error();
}

/*
 * What a call of OpenSSL came to: 0, and what is to be waited for, or -1 and
 * the error.  error is errno as it was then.
 */
static int
note_tls_result(RedisTls *tls, int result, int error, int *waits_for, const char *host)
{
	int			kind = SSL_get_error(tls->ssl, result);

	if (kind == SSL_ERROR_WANT_READ || kind == SSL_ERROR_WANT_WRITE)
	{
		*waits_for = kind == SSL_ERROR_WANT_READ ? WL_SOCKET_READABLE : WL_SOCKET_WRITEABLE;
		ERR_clear_error();
		return 0;
	}
	tls->has_failed = true;
	strlcpy(tls->error, tls_problem(tls, kind, error, host), sizeof(tls->error));
	ERR_clear_error();
	return -1;
}

/* A file, or what is in it, is not as it must be; false. */
static bool
blame_tls_file(RedisTls *tls, const char *option, const char *why)
{
	tls->has_failed = true;
	snprintf(tls->error, sizeof(tls->error), "%s: %s", option, why);
	ERR_clear_error();
	return false;
}

/* ---------------------------------------------------------------------- */
/* Files */

/*
 * Nothing that could keep us waiting is opened, and no key that others can
 * read, by libpq's rule: nobody but its owner, or the group of one of root's.
 */
static bool
check_tls_file(RedisTls *tls, const char *option, const char *path, bool is_key)
{
	struct stat status;
	int			too_many;

	if (stat(path, &status) != 0)
		return blame_tls_file(tls, option, pg_strerror(errno));
	if (!S_ISREG(status.st_mode))
		return blame_tls_file(tls, option, "It is not a regular file");
	too_many = status.st_uid == 0 ? S_IWGRP | S_IXGRP | S_IRWXO : S_IRWXG | S_IRWXO;
	if (is_key && (status.st_mode & too_many) != 0)
		return blame_tls_file(tls, option, "Others have access to it; its mode must be 0600, or 0640 if it is root's");
	return true;
}

/* Nobody is asked for the pass phrase of a key. */
static int
no_pass_phrase(char *buffer, int size, int writes, void *arg)
{
	return 0;
}

static bool
read_tls_authorities(RedisTls *tls, const SagazStore *store)
{
	const char *file = tls_authorities(store);

	if (strcmp(file, SYSTEM_AUTHORITIES) == 0)
		return SSL_CTX_set_default_verify_paths(tls->context) == 1 ||
			blame_tls_file(tls, "sslrootcert", newest_tls_error());
	if (!check_tls_file(tls, "sslrootcert", file, false))
		return false;
	return SSL_CTX_load_verify_locations(tls->context, file, NULL) == 1 ||
		blame_tls_file(tls, "sslrootcert", newest_tls_error());
}

static bool
read_tls_login(RedisTls *tls, const SagazStore *store)
{
	const char *certificate = sagaz_store_option(store, "sslcert");
	const char *key = sagaz_store_option(store, "sslkey");

	if (certificate == NULL)
		return true;
	if (!check_tls_file(tls, "sslcert", certificate, false) ||
		!check_tls_file(tls, "sslkey", key, true))
		return false;
	if (SSL_CTX_use_certificate_chain_file(tls->context, certificate) != 1)
		return blame_tls_file(tls, "sslcert", newest_tls_error());
	if (SSL_CTX_use_PrivateKey_file(tls->context, key, SSL_FILETYPE_PEM) != 1 ||
		SSL_CTX_check_private_key(tls->context) != 1)
		return blame_tls_file(tls, "sslkey", newest_tls_error());
	return true;
}

/* Read what the options name, before the server is asked; false: see error. */
bool
redis_tls_read_files(RedisTls *tls, const SagazStore *store)
{
	Assert(tls->context == NULL);
	ERR_clear_error();
	tls->context = SSL_CTX_new(TLS_client_method());
	if (tls->context == NULL ||
		SSL_CTX_set_min_proto_version(tls->context, TLS1_2_VERSION) != 1)
		return blame_tls_file(tls, "TLS", newest_tls_error());
	SSL_CTX_set_default_passwd_cb(tls->context, no_pass_phrase);
	(void) SSL_CTX_set_options(tls->context, SSL_OP_NO_RENEGOTIATION);
	(void) SSL_CTX_set_mode(tls->context, SSL_MODE_ENABLE_PARTIAL_WRITE |
							SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	(void) SSL_CTX_set_session_cache_mode(tls->context, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_read_ahead(tls->context, 1);
	if (tls_mode(store) > TLS_REQUIRED)
	{
		SSL_CTX_set_verify(tls->context, SSL_VERIFY_PEER, NULL);
		if (!read_tls_authorities(tls, store))
			return false;
	}
	return read_tls_login(tls, store);
}

/* ---------------------------------------------------------------------- */
/* Shaking hands */

static bool
is_ip_address(const char *host)
{
	char		bytes[sizeof(struct in6_addr)];

	return inet_pton(AF_INET, host, bytes) == 1 || inet_pton(AF_INET6, host, bytes) == 1;
}

/* Whom we want to talk to: told to the server, and looked for in its certificate. */
static bool
set_tls_host(RedisTls *tls, const char *host, bool verify)
{
	X509_VERIFY_PARAM *wanted = SSL_get0_param(tls->ssl);

	if (is_ip_address(host))
		return !verify || X509_VERIFY_PARAM_set1_ip_asc(wanted, host) == 1;
	X509_VERIFY_PARAM_set_hostflags(wanted, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	return SSL_set_tlsext_host_name(tls->ssl, host) == 1 &&
		(!verify || X509_VERIFY_PARAM_set1_host(wanted, host, 0) == 1);
}

/* Begin to talk over a socket that is connected; false: see error. */
bool
redis_tls_begin(RedisTls *tls, const SagazStore *store, int fd, const char *host)
{
	ERR_clear_error();
	tls->ssl = SSL_new(tls->context);
	if (tls->ssl == NULL || SSL_set_fd(tls->ssl, fd) != 1 ||
		!set_tls_host(tls, host, tls_mode(store) == TLS_FULL))
		return blame_tls_file(tls, "TLS", newest_tls_error());
	tls->reads_after = WL_SOCKET_READABLE;
	tls->writes_after = WL_SOCKET_WRITEABLE;
	return true;
}

/* Go on; returns the event to wait for, 0 when it is done, or -1: see error. */
int
redis_tls_shake_hands(RedisTls *tls, const char *host)
{
	int			waits_for = 0;
	int			result;

	ERR_clear_error();
	errno = 0;
	result = SSL_connect(tls->ssl);
	if (result == 1)
		return 0;
	return note_tls_result(tls, result, errno, &waits_for, host) < 0 ? -1 : waits_for;
}

/* ---------------------------------------------------------------------- */
/* Moving bytes */

/* As redis_socket_read. */
ssize_t
redis_tls_read(RedisTls *tls, char *bytes, size_t size)
{
	int			got;

	ERR_clear_error();
	errno = 0;
	tls->reads_after = WL_SOCKET_READABLE;
	got = SSL_read(tls->ssl, bytes, (int) Min(size, INT_MAX));
	tls->has_more = got > 0 && SSL_has_pending(tls->ssl);
	return got > 0 ? got : note_tls_result(tls, got, errno, &tls->reads_after, NULL);
}

/* How many bytes the other end took, 0 for none now, -1 and an error. */
ssize_t
redis_tls_write(RedisTls *tls, const char *bytes, size_t size)
{
	int			sent;

	ERR_clear_error();
	errno = 0;
	tls->writes_after = WL_SOCKET_WRITEABLE;
	sent = SSL_write(tls->ssl, bytes, (int) Min(size, INT_MAX));
	return sent > 0 ? sent : note_tls_result(tls, sent, errno, &tls->writes_after, NULL);
}

/* There is something to be read: is it of TLS itself, and nothing for us? */
bool
redis_tls_is_quiet(RedisTls *tls)
{
	char		byte;
	int			got;

	ERR_clear_error();
	errno = 0;
	got = SSL_peek(tls->ssl, &byte, 1);
	tls->has_more = false;
	return got <= 0 && note_tls_result(tls, got, errno, &tls->reads_after, NULL) == 0;
}

/* Let go of everything; it may be called by a close callback. */
void
redis_tls_end(RedisTls *tls)
{
	if (tls->ssl && !tls->has_failed && SSL_is_init_finished(tls->ssl))
		(void) SSL_shutdown(tls->ssl);
	SSL_free(tls->ssl);
	SSL_CTX_free(tls->context);
	ERR_clear_error();
	memset(tls, 0, sizeof(RedisTls));
}
