package session

import (
	"regexp"

	"github.com/smarteros/deaddrop/render/secret"
)

// tokenForm is the form of a token: hvs. (service and wrapping tokens), hvb. (batch)
// and hvr. (recovery) on Vault since 1.10; s., b. and r. before, and on OpenBao. The id
// of a namespace may follow.
var tokenForm = regexp.MustCompile(`^(hv[sbr]\.[A-Za-z0-9_-]{20,}|[sbr]\.[A-Za-z0-9_-]{24,})(\.[A-Za-z0-9]+)?$`)

// LooksLikeToken reports whether a text has the form of a token of Vault or OpenBao,
// be it a service, batch or wrapping token.
func LooksLikeToken(text secret.Value[string]) bool { return tokenForm.MatchString(text.Reveal()) }

// tokenHint is the hint where the last login was refused with a secret id that looks
// like a token, or "". It does not show the token.
func (m *appRole) tokenHint() string {
	switch {
	case m.auth.WrappingPath != "" || !LooksLikeToken(m.read):
		return ""
	case m.auth.SecretID.File != "":
		return "the secret id in " + m.auth.SecretID.File + ` looks like a token; if it is a wrapping token, set ` +
			`secret_id_response_wrapping_path = "auth/` + m.auth.MountPath + `/role/ROLE/secret-id", the path that it was made at`
	}
	return `the secret id looks like a token; if it is a wrapping token, unwrap it first ("VAULT_TOKEN=… vault unwrap -field=secret_id"), ` +
		"or write it into a file for secret_id_file_path and set secret_id_response_wrapping_path"
}
