package agent

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/smarteros/deaddrop/agent/watch"
	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/drop"
	"github.com/smarteros/deaddrop/render/secret"
)

// record is kept beside a file whose content Vault has issued, or that services
// are still to be told of. The next agent learns from it which leases to revoke
// once it has dropped new content, which certificates it need not have issued
// again, and whom to tell. It holds no secret.
type record struct {
	// Leases are the ids of those that the file holds, or held just before.
	Leases       []string      `json:"leases,omitempty"`
	Certificates []certificate `json:"certificates,omitempty"`
	// Untold says that services may not have been told of the file yet.
	Untold bool `json:"untold,omitempty"`
}

// certificate is one that stands in the file.
type certificate struct {
	// Request is the hash of the question that it answers.
	Request string `json:"request"`
	// Serial is the serial number in hexadecimal.
	Serial string    `json:"serial"`
	Issued time.Time `json:"issued"`
}

// recordPath is hidden, so that no service takes it for configuration of its own.
func recordPath(destination string) string {
	return filepath.Join(filepath.Dir(destination), "."+filepath.Base(destination)+".deaddrop")
}

// readRecord returns an empty record where there is none, or none of use: what
// is lost then is a lease until it ends by itself.
func readRecord(destination string) record {
	var r record
	if content, err := os.ReadFile(recordPath(destination)); err == nil && json.Unmarshal(content, &r) != nil {
		return record{}
	}
	return r
}

// write saves the record, and removes the file of an empty one.
func (r record) write(destination string) error {
	path := recordPath(destination)
	if r.isEmpty() {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("removing the record of leases: %w", err)
		}
		return nil
	}
	if err := drop.Write([]drop.File{r.file(destination)})[0].Err; err != nil {
		return fmt.Errorf("writing the record of leases: %w", err)
	}
	return nil
}

// file is the record as it is written. Its folder is made for the drop's file, whose
// readers it has to let in.
func (r record) file(destination string) drop.File {
	content, _ := json.Marshal(r) // It has nothing that could fail.
	return drop.File{Path: recordPath(destination), Content: append(content, '\n'), Mode: 0o600}
}

func (r record) isEmpty() bool { return len(r.Leases)+len(r.Certificates) == 0 && !r.Untold }

// and joins two records.
func (r record) and(other record) record {
	joined := record{Leases: slices.Clone(r.Leases), Certificates: slices.Clone(r.Certificates), Untold: r.Untold || other.Untold}
	for _, id := range other.Leases {
		if !slices.Contains(joined.Leases, id) {
			joined.Leases = append(joined.Leases, id)
		}
	}
	for _, c := range other.Certificates {
		if !slices.ContainsFunc(joined.Certificates, func(x certificate) bool { return x.Serial == c.Serial }) {
			joined.Certificates = append(joined.Certificates, c)
		}
	}
	return joined
}

// note adds the answer to a request.
func (r *record) note(request render.Request, answer watch.Reading) {
	switch life := answer.Life; {
	case answer.Secret == nil:
	case life.Lease != nil && life.Lease.ID != "":
		r.Leases = append(r.Leases, life.Lease.ID)
	case !life.NotAfter.IsZero():
		serial, _ := answer.Secret.Data.Reveal()["serial_number"].(string)
		r.Certificates = append(r.Certificates, certificate{Request: hashOf(request), Serial: plainSerial(serial), Issued: life.Issued})
	}
}

func hashOf(r render.Request) string {
	sum := sha256.Sum256([]byte(r.Fingerprint()))
	return hex.EncodeToString(sum[:])
}

// plainSerial turns Vault's 0a:1b into a1b.
func plainSerial(text string) string {
	return strings.TrimLeft(strings.ReplaceAll(text, ":", ""), "0")
}

// recoverCertificate makes an answer of what stands in files: a certificate, the
// key that fits it and the authority that has signed it. It returns none where
// one of the three is missing, or the certificate has ended.
func recoverCertificate(request render.Request, known certificate, files [][]byte, now time.Time) (watch.Reading, bool) {
	found := set{serial: known.Serial}
	for _, content := range files {
		found.collect([]byte(unquoted.Replace(string(content))))
	}
	leaf := found.leaf
	if leaf == nil || now.Before(leaf.NotBefore) || !now.Before(leaf.NotAfter) || !known.Issued.Before(leaf.NotAfter) {
		return watch.Reading{}, false
	}
	data, ok := found.data()
	if !ok {
		return watch.Reading{}, false
	}
	return watch.Reading{
		Secret: &render.Secret{Path: request.Path, Data: secret.Of(data)},
		Life:   watch.Life{Issued: known.Issued, NotAfter: leaf.NotAfter, TTL: leaf.NotAfter.Sub(known.Issued)},
	}, true
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
