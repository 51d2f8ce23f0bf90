package render

import "strings"

// certificate is what the function "pkiCert" gives to a template. As for
// consul-template each text ends in a line break, so that they can be written
// one after the other; Vault Agent's templates find them under Data as well.
type certificate struct {
	Cert, Key, CA string
	CAChain       []string
	Data          *certificate
}

func certificateOf(s *Secret) (*certificate, error) {
	data := s.Data.Reveal()
	cert := &certificate{Cert: pemText(data["certificate"]), Key: pemText(data["private_key"]), CA: pemText(data["issuing_ca"])}
	if cert.Cert == "" {
		return nil, problem("the answer of Vault holds no certificate")
	}
	chain, _ := data["ca_chain"].([]any)
	for _, ca := range chain {
		cert.CAChain = append(cert.CAChain, pemText(ca))
	}
	cert.Data = cert
	return cert, nil
}

func pemText(v any) string {
	text, _ := v.(string)
	if text = strings.TrimSpace(text); text == "" {
		return ""
	}
	return text + "\n"
}
