package doctor

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/harden"
	"github.com/smarteros/deaddrop/agent/internal/textfile"
	"github.com/smarteros/deaddrop/agent/plural"
	"github.com/smarteros/deaddrop/render/drop"
)

// misconfigured is all that there is to say where the configuration is wrong.
func (e *exam) misconfigured(wrong error) {
	const fix = `correct it; "deaddrop validate FILE" looks at the configuration alone`
	var all *config.Error
	if !errors.As(wrong, &all) {
		e.fail("config", "", wrong, wrong.Error(), "")
		return
	}
	for _, p := range all.Problems {
		what, how := cutFix(p.Text)
		if how == "" {
			how = fix
		}
		e.fail("config", placeOf(p), wrong, what, how)
	}
	e.skip("all else", "", "not looked at, as the configuration is wrong")
}

func placeOf(p config.Problem) string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// configuration tells what there is to do, and what of the files has no effect.
func (e *exam) configuration() {
	var parts []string
	if n := len(e.cfg.Drops); n > 0 {
		parts = append(parts, plural.Of(n, "drop"))
	}
	if n := len(e.cfg.Each); n > 0 {
		parts = append(parts, plural.Of(n, "block")+" for each tenant")
	}
	if e.cfg.Supervise != nil {
		parts = append(parts, "a command with "+plural.Of(len(e.cfg.Supervise.Env), "variable"))
	}
	e.ok("config", cmp.Or(strings.Join(e.ownFiles(), ", "), "command line"), "valid, with %s", strings.Join(parts, ", "))
	if e.cfg.LockMemory {
		e.lockMemory()
	}
	for _, w := range e.cfg.Warnings {
		detail, fix := cutFix(w.Text)
		e.warn("config", placeOf(w), detail, cmp.Or(fix, "take it out, or leave it for another agent"))
	}
	for _, open := range textfile.Exposed(e.cfg.Files) {
		e.warn("config", open.Path, open.Detail+", and so may change the configuration, which runs programs as user "+me(), open.Hint)
	}
}

// lockMemory does what the agent would do at its start. It ends with this process.
func (e *exam) lockMemory() {
	if err := harden.LockMemory(); err != nil {
		e.failBy("config", "mlock = true", err, "let it lock memory (Compose: ulimits: { memlock: -1 }; systemd: LimitMEMLOCK=infinity), or take mlock out")
		return
	}
	e.ok("config", "mlock = true", "memory can be locked")
}

// ownFiles are the files of the configuration, without folders and templates.
func (e *exam) ownFiles() []string {
	var own []string
	for _, file := range e.cfg.Files {
		switch filepath.Ext(file) {
		case ".hcl", ".json":
			if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
				own = append(own, file)
			}
		}
	}
	return own
}

// credentials looks at what the login needs: that it can be read, and by whom.
func (e *exam) credentials() {
	switch auth := e.cfg.Auth; auth.Method {
	case config.MethodAppRole:
		e.credential("role id", auth.RoleID, "VAULT_ROLE_ID", false)
		if auth.SecretID.IsSet() {
			e.credential("secret id", auth.SecretID, "VAULT_SECRET_ID", true)
		} else {
			e.ok("credentials", "secret id", "none: the login is with the role id alone")
		}
	case config.MethodToken:
		e.ok("credentials", "token", "from VAULT_TOKEN")
	case config.MethodTokenFile:
		e.credential("token", config.ID{File: auth.File}, "", true)
	case config.MethodJWT, config.MethodKubernetes:
		// In a pod everyone may read the token, as everyone is the service there.
		e.credential("token of the "+auth.Method+" login", config.ID{File: auth.File}, "", auth.Method == config.MethodJWT)
	case config.MethodCert:
		e.ok("credentials", "client certificate", "from the connection")
	}
	if key := e.cfg.Vault.ClientKey; key != "" {
		e.credential("key of the client certificate", config.ID{File: key}, "", true)
	}
}

// credential tells where an id comes from.
func (e *exam) credential(what string, id config.ID, variable string, isSecret bool) {
	if id.File != "" {
		e.credentialFile(what, id.File, isSecret)
		return
	}
	// The same text may stand there for something else, such as a service.
	setting := regexp.MustCompile(`\b` + strings.ReplaceAll(what, " ", "_") + `"?\s*[=:]\s*"` + regexp.QuoteMeta(id.Value.Reveal()) + `"`)
	for _, file := range e.ownFiles() {
		content, err := textfile.Read(file)
		if err != nil || !setting.Match(content) {
			continue
		}
		if isSecret && othersMayRead(file) {
			e.warn("credentials", what, "it stands in "+file+", which every user of this machine may read",
				fmt.Sprintf("chmod 0600 %s, or put it into a file of its own and name that: secret_id_file_path = \"/run/secrets/secret_id\"", file))
			return
		}
		e.ok("credentials", what, "from %s", file)
		return
	}
	e.ok("credentials", what, "from %s", variable)
}

// dockerSecrets are readable for all in a container, which is made so by Docker.
const dockerSecrets = "/run/secrets/"

func (e *exam) credentialFile(what, file string, isSecret bool) {
	_, err := config.ReadCredential(file)
	var access *textfile.AccessError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.fail("credentials", what, errCheck, file+" does not exist", "deliver the "+what+" there, readable for user "+me())
	case errors.As(err, &access):
		e.fail("credentials", what, errCheck, file+" cannot be read: "+access.Detail, letRead(file, access))
	case err != nil:
		detail, fix := cutFix(drop.Bare(err).Error())
		e.fail("credentials", what, errCheck, file+" cannot be read: "+detail, cmp.Or(fix, "deliver the "+what+" there anew"))
	case isSecret && othersMayRead(file) && !isDelivered(file):
		e.warn("credentials", what, "every user of this machine may read "+file, "chmod 0400 "+file)
	default:
		e.ok("credentials", what, "from %s", file)
	}
}

// isDelivered reports whether a file was mounted by itself, as Compose does with a secret.
// Its mode lets in the container's user; the folder outside keeps other users out.
func isDelivered(file string) bool {
	return strings.HasPrefix(file, dockerSecrets) || drop.IsMount(file)
}

// letRead is how to let this user read a file that it cannot read.
func letRead(file string, denied *textfile.AccessError) string {
	if isDelivered(file) {
		return "outside of the container: chmod 0700 the folder of " + filepath.Base(file) + ", so that only you get into it, and chmod 0444 the file"
	}
	return denied.Hint
}

// othersMayRead reports whether every user may read a file and enter its folder.
func othersMayRead(file string) bool {
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm()&0o004 == 0 {
		return false
	}
	folder, err := os.Stat(filepath.Dir(file))
	return err != nil || folder.Mode().Perm()&0o001 != 0
}

// me is the user that deaddrop runs as.
func me() string { return fmt.Sprint(os.Geteuid()) }
