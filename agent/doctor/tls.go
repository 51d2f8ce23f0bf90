package doctor

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/smarteros/deaddrop/agent/plural"
	"github.com/smarteros/deaddrop/agent/session"
)

// A certificate that ends so soon is worth a warning; the second one is urgent.
const (
	endsSoon     = 30 * 24 * time.Hour
	endsVerySoon = 7 * 24 * time.Hour
)

// greet looks at the certificate of Vault. It goes on looking where the client
// would hang up, so as to say what the certificate has; nothing is sent there.
func (e *exam) greet(ctx context.Context) string {
	const stop = "not looked at, as there is no safe connection to Vault"
	switch {
	case e.address == nil:
		e.ok("tls", "", "not needed: a socket does not leave this machine")
		return ""
	case e.address.Scheme == "http":
		e.withoutTLS()
		return ""
	case e.proxy() != nil:
		e.skip("tls", e.address.Hostname(), "the proxy is in between; the next check tells whether the certificate is accepted")
		return ""
	}
	settings := e.transport().TLSClientConfig.Clone()
	name := cmp.Or(settings.ServerName, e.address.Hostname())
	skips := settings.InsecureSkipVerify
	settings.ServerName, settings.InsecureSkipVerify = name, true
	limit, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	conn, err := (&tls.Dialer{Config: settings}).DialContext(limit, "tcp", hostPort(e.address))
	if err != nil {
		e.fail("tls", e.address.Host, session.ErrUnreachable, noHandshake(err), e.handshakeFix(err))
		return stop
	}
	certs := conn.(*tls.Conn).ConnectionState().PeerCertificates
	_ = conn.Close()
	if skips {
		e.warn("tls", name, "the certificate is not verified (VAULT_SKIP_VERIFY or tls_skip_verify): whoever is between here and Vault can read every secret",
			"set VAULT_CACERT to the authority's certificate instead, and take VAULT_SKIP_VERIFY out")
		return ""
	}
	if e.verify(certs, name, settings.RootCAs, time.Now()) {
		return ""
	}
	return stop
}

// withoutTLS is fine on the machine itself.
func (e *exam) withoutTLS() {
	if proxy := e.proxy(); proxy != nil && !isLoopback(proxy.Hostname()) {
		variable := e.proxyVariable()
		without := "NO_PROXY=" + e.address.Hostname()
		if strings.HasPrefix(variable, "VAULT_") {
			without = "unset " + variable
		}
		e.warn("tls", e.address.Host, "plain HTTP through the proxy "+proxy.Redacted()+" ("+variable+"): it can read the secret id, the token and every secret, and so can whoever is in between",
			"use https:// in the address, which the proxy passes on unread, or leave the proxy out: "+without)
		return
	}
	if isLoopback(e.address.Hostname()) {
		e.ok("tls", e.address.Host, "plain HTTP, which does not leave this machine")
		return
	}
	e.warn("tls", e.address.Host, "plain HTTP: whoever is between here and Vault can read every secret",
		"give Vault's listener a certificate (tls_cert_file, tls_key_file) and use https:// in the address; within one Docker network of trusted containers it may do")
}

func noHandshake(err error) string {
	var notTLS tls.RecordHeaderError
	switch {
	case errors.As(err, &notTLS):
		return "what answers there does not speak TLS"
	case isTimeout(err):
		return "it connects, but does not answer to TLS in time"
	}
	return "no TLS connection: " + reason(err)
}

func (e *exam) handshakeFix(err error) string {
	var notTLS tls.RecordHeaderError
	if errors.As(err, &notTLS) {
		return "if Vault has no TLS (tls_disable), write http://" + e.address.Host + " as the address (" + e.source() + "); else it is another service's port"
	}
	return "is it Vault that listens there? Vault's own log says why it hangs up; where it wants a client certificate, set VAULT_CLIENT_CERT and VAULT_CLIENT_KEY"
}

// verify says all that is wrong with a certificate.
func (e *exam) verify(certs []*x509.Certificate, name string, roots *x509.CertPool, now time.Time) bool {
	leaf := certs[0]
	sound := true
	bad := func(detail, fix string) {
		e.fail("tls", name, session.ErrUnreachable, detail, fix)
		sound = false
	}
	at := now
	switch {
	case now.After(leaf.NotAfter):
		bad("Vault's certificate has expired: it was valid until "+date(leaf.NotAfter),
			"renew it on Vault's side (tls_cert_file in its configuration), and make Vault read it: \"kill -HUP\", or restart the container. If it is not expired, set this machine's clock")
		at = leaf.NotAfter
	case now.Before(leaf.NotBefore):
		bad("Vault's certificate is not valid yet: it begins at "+date(leaf.NotBefore), "set the clock of this machine, or of the one that made the certificate")
		at = leaf.NotBefore
	}
	if leaf.VerifyHostname(name) != nil {
		bad("Vault's certificate is not for "+name+"; it is for "+namesOf(leaf), e.nameFix(leaf))
	}
	if err := chain(certs, roots, at); err != nil {
		bad(untrusted(leaf, err), authorityFix(leaf))
	}
	if !sound {
		return false
	}
	left := leaf.NotAfter.Sub(now)
	if left > leaf.NotAfter.Sub(leaf.NotBefore)/3 {
		left = endsSoon // One with a short life is renewed by itself, later than this.
	}
	detail := fmt.Sprintf("Vault's certificate is valid until %s, for %s", date(leaf.NotAfter), namesOf(leaf))
	switch {
	case left < endsVerySoon:
		e.warn("tls", name, fmt.Sprintf("Vault's certificate ends in %s, at %s", days(left), date(leaf.NotAfter)), "renew it now: from then on, nothing can be read")
	case left < endsSoon:
		e.warn("tls", name, fmt.Sprintf("Vault's certificate ends in %s, at %s", days(left), date(leaf.NotAfter)), "renew it before: from then on, nothing can be read")
	default:
		e.ok("tls", name, "%s", detail)
	}
	return true
}

// chain tells why no authority vouches for a certificate.
func chain(certs []*x509.Certificate, roots *x509.CertPool, at time.Time) error {
	between := x509.NewCertPool()
	for _, c := range certs[1:] {
		between.AddCert(c)
	}
	_, err := certs[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: at})
	return err
}

func untrusted(leaf *x509.Certificate, err error) string {
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &unknown):
		return "the authority that signed Vault's certificate is not known here: " + leaf.Issuer.String()
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != leaf:
		return "the certificate of an authority has expired: " + invalid.Cert.Subject.String() + ", valid until " + date(invalid.Cert.NotAfter)
	}
	return "Vault's certificate is not accepted: " + strings.TrimPrefix(err.Error(), "x509: ")
}

func authorityFix(leaf *x509.Certificate) string {
	for _, name := range []string{"VAULT_CACERT_BYTES", "VAULT_CACERT", "VAULT_CAPATH"} {
		if value := os.Getenv(name); value != "" {
			if name == "VAULT_CACERT_BYTES" {
				value = "a text"
			}
			return name + " is " + value + ", which does not have it: put the PEM certificate of " + leaf.Issuer.String() + " there"
		}
	}
	return "get the PEM certificate of that authority from whoever runs Vault, and set VAULT_CACERT=/path/to/ca.pem (or ca_cert in the \"vault\" block); in a container, mount it"
}

func (e *exam) nameFix(leaf *x509.Certificate) string {
	names := append([]string{}, leaf.DNSNames...)
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return "make a certificate that has " + e.address.Hostname() + " among its names"
	}
	return fmt.Sprintf("use one of its names in the address (%s), or set VAULT_TLS_SERVER_NAME=%s, or make a certificate for %s", e.source(), names[0], e.address.Hostname())
}

func namesOf(c *x509.Certificate) string {
	names := append([]string{}, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return "no name at all"
	}
	return strings.Join(names, ", ")
}

func date(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }

func days(d time.Duration) string {
	if d < 48*time.Hour {
		return plural.Of(int(d.Hours()), "hour")
	}
	return plural.Of(int(d.Hours()/24), "day")
}
