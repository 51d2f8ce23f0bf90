package journal

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

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

func TestCertificate_IsRecoveredOnlyAsAWholeAndValidSet(t *testing.T) {
	now := time.Now()
	root, other := newAuthority(t), newAuthority(t)
	cert, key := root.issue(t, now.Add(-time.Hour), now.Add(time.Hour))
	_, otherKey := root.issue(t, now.Add(-time.Hour), now.Add(time.Hour))
	over, overKey := root.issue(t, now.Add(-2*time.Hour), now.Add(-time.Hour))
	early, earlyKey := root.issue(t, now.Add(time.Hour), now.Add(2*time.Hour))
	known := Certificate{Serial: "a1", Issued: now.Add(-time.Hour)}
	for name, tc := range map[string]struct {
		known Certificate
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
		"with another serial number":  {Certificate{Serial: "a2", Issued: known.Issued}, []string{cert, key, root.pem()}, false},
		"issued after its end":        {Certificate{Serial: "a1", Issued: now.Add(3 * time.Hour)}, []string{cert, key, root.pem()}, false},
		"of files that hold nonsense": {known, []string{"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----", ""}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var files [][]byte
			for _, f := range tc.files {
				files = append(files, []byte(f))
			}
			data, _, found := tc.known.Recover(files, now)
			require.Equal(t, tc.found, found)
			if found {
				assert.Equal(t, cert, data["certificate"])
				assert.Equal(t, key, data["private_key"])
				assert.Equal(t, root.pem(), data["issuing_ca"])
			}
		})
	}
}

func FuzzCertificate_RecoverNeverPanics(f *testing.F) {
	root := newAuthority(f)
	now := time.Now()
	cert, key := root.issue(f, now.Add(-time.Hour), now.Add(time.Hour))
	f.Add([]byte(cert+"\n"+key), []byte(root.pem()))
	f.Add([]byte(`{"leases": ["a"]}`), []byte(strings.ReplaceAll(cert, "\n", `\n`)))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		data, _, found := Certificate{Serial: "a1", Issued: now.Add(-time.Hour)}.Recover([][]byte{one, two}, now)
		assert.Equal(t, found, data != nil)
	})
}
