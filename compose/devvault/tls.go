package devvault

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// certificates are the files of a TLS folder.
type certificates struct{ ca, cert, key string }

// certify finds or makes the certificates of a folder, and sets the file to trust.
func (s *Server) certify(dir string) (*tls.Config, error) {
	var err error
	if dir == "" {
		dir, err = os.MkdirTemp("", "devvault-")
		s.tempDir = dir
	} else {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("making the TLS folder: %w", err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, fmt.Errorf("making the TLS folder: %w", err)
	}
	files := certificates{filepath.Join(dir, "ca.pem"), filepath.Join(dir, "server.pem"), filepath.Join(dir, "server-key.pem")}
	if !files.usable() {
		if err := files.make(); err != nil {
			return nil, fmt.Errorf("making certificates in %s: %w", dir, err)
		}
	}
	pair, err := tls.LoadX509KeyPair(files.cert, files.key)
	if err != nil {
		return nil, fmt.Errorf("loading the certificate: %w", err)
	}
	s.CAFile = files.ca
	return &tls.Config{
		Certificates: []tls.Certificate{pair},
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{"h2", "http/1.1"},
		// Asked for, so that the cert auth method can be used.
		ClientAuth: tls.RequestClientCert,
	}, nil
}

// usable says whether certificates of an earlier run are there and last for a
// day, so that who trusts them need not be told anew after a restart.
func (c certificates) usable() bool {
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return false
	}
	ca, err := os.ReadFile(c.ca)
	if err != nil {
		return false
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	_, err = pair.Leaf.Verify(x509.VerifyOptions{
		Roots: roots, DNSName: "localhost", CurrentTime: time.Now().Add(24 * time.Hour),
	})
	return err == nil
}

// make writes an authority and a server certificate. The key of the authority
// is forgotten, so that it signs nothing else.
func (c certificates) make() error {
	ca, caKey, err := issue(nil, nil)
	if err != nil {
		return err
	}
	cert, key, err := issue(ca, caKey)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		writePEM(c.key, "PRIVATE KEY", der, 0o600),
		writePEM(c.cert, "CERTIFICATE", cert.Raw, 0o644),
		writePEM(c.ca, "CERTIFICATE", ca.Raw, 0o644),
	)
}

func writePEM(file, kind string, der []byte, mode os.FileMode) error {
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode)
}

// issue makes a server certificate, or an authority where there is none yet.
func issue(ca *x509.Certificate, caKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "devvault server"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(30 * 24 * time.Hour),
	}
	if ca == nil {
		ca, caKey = template, key
		// Two certificates of one name would look like one that signed itself.
		template.Subject.CommonName = "devvault CA"
		template.IsCA, template.BasicConstraintsValid = true, true
		template.KeyUsage = x509.KeyUsageCertSign
	} else {
		template.KeyUsage = x509.KeyUsageDigitalSignature
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		template.DNSNames = []string{"localhost"}
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, &key.PublicKey, caKey)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return cert, key, err
}
