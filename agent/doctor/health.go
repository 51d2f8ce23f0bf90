package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/smarteros/deaddrop/agent/session"
)

// healthAnswer is what sys/health says. OpenBao leaves out "enterprise", and all that
// has to do with replication.
type healthAnswer struct {
	Initialized        bool   `json:"initialized"`
	Sealed             bool   `json:"sealed"`
	Standby            bool   `json:"standby"`
	PerformanceStandby bool   `json:"performance_standby"`
	DRMode             string `json:"replication_dr_mode"`
	Version            string `json:"version"`
	Enterprise         *bool  `json:"enterprise"`
}

// isOpenBao reports whether the server is OpenBao, whose versions begin with 2. Vault
// has said whether it is Enterprise since before its own version 2.
func (h healthAnswer) isOpenBao() bool {
	return h.Enterprise == nil && strings.HasPrefix(h.Version, "2.")
}

// server names the program that answers, and its version.
func (h healthAnswer) server() string {
	switch {
	case h.isOpenBao():
		return "OpenBao " + h.Version
	case h.Enterprise != nil && *h.Enterprise:
		return "Vault Enterprise " + h.Version
	}
	return "Vault " + h.Version
}

// health asks Vault how it is, which needs no login.
func (e *exam) health(ctx context.Context) string {
	const stop = "not looked at, as Vault does not serve"
	asked := time.Now()
	h, header, err := e.askHealth(ctx)
	if err != nil {
		fix := "is it Vault that listens there, and is what is between it and here healthy?"
		if strings.Contains(err.Error(), "certificate required") {
			fix = "set VAULT_CLIENT_CERT and VAULT_CLIENT_KEY: Vault's listener wants a certificate of its clients"
		}
		e.failBy("vault", e.shown, err, fix)
		return stop
	}
	subject := h.server()
	e.isOpenBao = h.isOpenBao()
	switch {
	case !h.Initialized:
		e.fail("vault", subject, session.ErrSealed, "it is not initialised: it has never been set up",
			"tenantctl setup --init --keys-file vault-keys.json   (or \"vault operator init\", and unseal it then)")
		return stop
	case h.Sealed:
		e.fail("vault", subject, session.ErrSealed, "it is sealed, and can serve nothing",
			"unseal it: \"vault operator unseal\", once for each of the keys that are needed, or \"tenantctl setup --unseal --keys-file vault-keys.json\"")
		return stop
	case h.DRMode == "secondary":
		e.fail("vault", subject, session.ErrUnreachable, "it is a secondary for disaster recovery, and serves nobody", "set VAULT_ADDR to the primary cluster")
		return stop
	}
	e.ok("vault", subject, "initialised, unsealed, %s", roleIn(h))
	e.clock(header, asked)
	return ""
}

func roleIn(h healthAnswer) string {
	switch {
	case h.PerformanceStandby:
		return "a performance standby"
	case h.Standby:
		return "a standby, which hands requests on to the active one"
	}
	return "active"
}

// askHealth asks for an answer of 2xx whatever the state is.
func (e *exam) askHealth(ctx context.Context) (h healthAnswer, header http.Header, err error) {
	const fine = "299"
	query := map[string][]string{}
	for _, code := range []string{"uninitcode", "sealedcode", "standbycode", "drsecondarycode", "performancestandbycode", "removedcode", "haunhealthycode"} {
		query[code] = []string{fine}
	}
	limit, cancel := context.WithTimeout(ctx, 2*stepTimeout)
	defer cancel()
	answer, err := e.client.Logical().ReadRawWithDataWithContext(limit, "sys/health", query)
	if err != nil {
		return h, nil, session.Explain("asking how Vault is", e.shown, err)
	}
	defer func() { _ = answer.Body.Close() }()
	if err := json.NewDecoder(answer.Body).Decode(&h); err != nil || h.Version == "" {
		return h, nil, &session.Fault{Op: "asking how Vault is", Kind: session.ErrUnreachable, Detail: "what answers there is not Vault", Hint: "is the address right? (" + e.source() + ")"}
	}
	return h, answer.Header, nil
}

// mostSkew is how far clocks may differ: tokens and certificates are judged by
// minutes.
const mostSkew = time.Minute

// clock compares clocks. Vault tells whole seconds.
func (e *exam) clock(header http.Header, asked time.Time) {
	theirs, err := http.ParseTime(header.Get("Date"))
	if err != nil {
		return
	}
	ours := asked.Add(time.Since(asked) / 2)
	skew := theirs.Sub(ours).Round(time.Second)
	if skew.Abs() <= mostSkew {
		e.ok("clock", "", "as Vault's, to %v", max(skew.Abs(), time.Second))
		return
	}
	which := "behind"
	if skew < 0 {
		which = "ahead of"
	}
	e.warn("clock", "", fmt.Sprintf("this machine's clock is %v %s Vault's", skew.Abs(), which), "set both by NTP: \"timedatectl set-ntp true\"")
}
