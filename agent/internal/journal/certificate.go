package journal

import (
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Recover returns the response of Vault that issued a certificate, and when the
// certificate ends, from files that hold the certificate, its key and the authority that
// signed it. ok is false if one of the three is missing, or the certificate has ended.
func (c Certificate) Recover(files [][]byte, now time.Time) (data map[string]any, notAfter time.Time, ok bool) {
	found := set{serial: c.Serial}
	for _, content := range files {
		found.collect([]byte(unquoted.Replace(string(content))))
	}
	leaf := found.leaf
	if leaf == nil || now.Before(leaf.NotBefore) || !now.Before(leaf.NotAfter) || !c.Issued.Before(leaf.NotAfter) {
		return nil, time.Time{}, false
	}
	data, ok = found.data()
	return data, leaf.NotAfter, ok
}

// unquoted frees PEM from the quotes of JSON, where its line breaks are escaped.
var unquoted = strings.NewReplacer(`\n`, "\n", `"-----BEGIN`, "\n-----BEGIN", `-----"`, "-----\n")

// set is what belongs to one certificate.
type set struct {
	serial  string
	leaf    *x509.Certificate
	leafPEM *pem.Block
	keys    []*pem.Block
	others  []*x509.Certificate
}

func (s *set) collect(text []byte) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			s.keys = append(s.keys, block)
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		switch {
		case block.Type != "CERTIFICATE" || err != nil:
		case cert.SerialNumber.Text(16) == s.serial:
			s.leaf, s.leafPEM = cert, block
		case !slices.ContainsFunc(s.others, cert.Equal):
			s.others = append(s.others, cert)
		}
	}
}

// data is the answer that Vault has once given.
func (s *set) data() (map[string]any, bool) {
	key := s.key()
	issuer := slices.IndexFunc(s.others, func(ca *x509.Certificate) bool { return s.leaf.CheckSignatureFrom(ca) == nil })
	if key == nil || issuer < 0 {
		return nil, false
	}
	var chain []any
	for _, ca := range s.others {
		chain = append(chain, text(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw}))
	}
	return map[string]any{
		"certificate": text(s.leafPEM), "private_key": text(key), "issuing_ca": chain[issuer], "ca_chain": chain,
		"serial_number": s.serial, "expiration": json.Number(fmt.Sprint(s.leaf.NotAfter.Unix())),
	}, true
}

// key finds the private key of the certificate.
func (s *set) key() *pem.Block {
	for _, block := range s.keys {
		public, ok := s.leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
		if private := parseKey(block); ok && private != nil && public.Equal(private.Public()) {
			return block
		}
	}
	return nil
}

func parseKey(block *pem.Block) crypto.Signer {
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key
	}
	if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
		return key
	}
	key, _ := x509.ParsePKCS8PrivateKey(block.Bytes)
	signer, _ := key.(crypto.Signer)
	return signer
}

// text is PEM as Vault writes it, without a line break at the end.
func text(block *pem.Block) string { return strings.TrimSpace(string(pem.EncodeToMemory(block))) }
