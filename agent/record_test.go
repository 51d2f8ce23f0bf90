package agent

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/render"
)

func TestARecordIsKeptBesideItsFileAndHoldsNoSecret(t *testing.T) {
	destination := filepath.Join(t.TempDir(), "db.env")
	r := record{Leases: []string{"database/creds/app/1"}, Certificates: []certificate{{Request: "00", Serial: "a1", Issued: time.Unix(1, 0).UTC()}}}
	require.NoError(t, r.write(destination))
	assert.Equal(t, r, readRecord(destination))
	info, err := os.Stat(filepath.Join(filepath.Dir(destination), ".db.env.deaddrop"))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode())

	more := r.and(record{Leases: []string{"database/creds/app/2", "database/creds/app/1"}, Certificates: r.Certificates})
	assert.Equal(t, []string{"database/creds/app/1", "database/creds/app/2"}, more.Leases)
	assert.Len(t, more.Certificates, 1)

	require.NoError(t, record{}.write(destination))
	assert.NoFileExists(t, recordPath(destination))
	require.NoError(t, record{}.write(destination), "there is nothing to remove")
	require.NoError(t, os.WriteFile(recordPath(destination), []byte(`{"leases": [`), 0o600))
	assert.True(t, readRecord(destination).isEmpty(), "a broken one is none")
}

// authority signs certificates as Vault's PKI does.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return authority{cert, key}
}

func (a authority) pem() string { return text(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}) }

// issue returns a certificate with the serial number 161 (a1) and its key.
func (a authority) issue(t testing.TB, from, to time.Time) (cert, key string) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(0xa1), NotBefore: from, NotAfter: to}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, private.Public(), a.key)
	require.NoError(t, err)
	keyDER, err := x509.MarshalECPrivateKey(private)
	require.NoError(t, err)
	return text(&pem.Block{Type: "CERTIFICATE", Bytes: der}), text(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
}

func TestACertificateIsRecoveredOnlyAsAWholeAndValidSet(t *testing.T) {
	now := time.Now()
	root, other := newAuthority(t), newAuthority(t)
	cert, key := root.issue(t, now.Add(-time.Hour), now.Add(time.Hour))
	_, otherKey := root.issue(t, now.Add(-time.Hour), now.Add(time.Hour))
	over, overKey := root.issue(t, now.Add(-2*time.Hour), now.Add(-time.Hour))
	early, earlyKey := root.issue(t, now.Add(time.Hour), now.Add(2*time.Hour))
	known := certificate{Serial: "a1", Issued: now.Add(-time.Hour)}
	for name, tc := range map[string]struct {
		known certificate
		files []string
		found bool
	}{
		"in one file":                 {known, []string{key + "\n" + cert + "\n" + root.pem()}, true},
		"in three files":              {known, []string{cert, root.pem(), key}, true},
		"in JSON":                     {known, []string{`{"c": "` + strings.ReplaceAll(cert+"\n"+key+"\n"+root.pem(), "\n", `\n`) + `"}`}, true},
		"among others":                {known, []string{other.pem() + "\n" + otherKey, cert + "\n" + root.pem() + "\n" + key}, true},
		"without its key":             {known, []string{cert, root.pem()}, false},
		"with another key":            {known, []string{cert, root.pem(), otherKey}, false},
		"without its authority":       {known, []string{cert, key}, false},
		"with another authority":      {known, []string{cert, key, other.pem()}, false},
		"ended":                       {known, []string{over, overKey, root.pem()}, false},
		"not begun":                   {known, []string{early, earlyKey, root.pem()}, false},
		"with another serial number":  {certificate{Serial: "a2", Issued: known.Issued}, []string{cert, key, root.pem()}, false},
		"issued after its end":        {certificate{Serial: "a1", Issued: now.Add(3 * time.Hour)}, []string{cert, key, root.pem()}, false},
		"of files that hold nonsense": {known, []string{"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----", ""}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var files [][]byte
			for _, f := range tc.files {
				files = append(files, []byte(f))
			}
			reading, found := recoverCertificate(render.Read("pki/issue/web"), tc.known, files, now)
			require.Equal(t, tc.found, found)
			if found {
				data := reading.Secret.Data.Reveal()
				assert.Equal(t, cert, data["certificate"])
				assert.Equal(t, key, data["private_key"])
				assert.Equal(t, root.pem(), data["issuing_ca"])
			}
		})
	}
}

func FuzzRecoverCertificateNeverPanics(f *testing.F) {
	root := newAuthority(f)
	now := time.Now()
	cert, key := root.issue(f, now.Add(-time.Hour), now.Add(time.Hour))
	f.Add([]byte(cert+"\n"+key), []byte(root.pem()))
	f.Add([]byte(`{"leases": ["a"]}`), []byte(strings.ReplaceAll(cert, "\n", `\n`)))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		reading, found := recoverCertificate(render.Read("x"), certificate{Serial: "a1", Issued: now.Add(-time.Hour)}, [][]byte{one, two}, now)
		assert.Equal(t, found, reading.Secret != nil)
	})
}
