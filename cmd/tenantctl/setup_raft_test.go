package main

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/status"
	"github.com/smarteros/deaddrop/compose/vaulttest"
)

func TestANodeOfAClusterIsSetUpAsSoonAsItLeads(t *testing.T) {
	t.Parallel()
	s := newSiteOf(t, vaulttest.Uninitialised(t, fmt.Sprintf(`
		storage "raft" {
			path    = %q
			node_id = "one"
		}
		listener "tcp" {
			address         = "127.0.0.1:0"
			cluster_address = "127.0.0.1:0"
			tls_disable     = true
		}
		api_addr      = "http://127.0.0.1:1"
		cluster_addr  = "https://127.0.0.1:1"
		disable_mlock = true
		log_level     = "off"
	`, t.TempDir())))
	s.ready()
	s.s.Stop()
	s.s.Restart(t)
	s.must(s.setup("--unseal", "--keys-file", "keys.json")...)
	r := s.look(exitOK)
	assert.Equal(t, &status.HA{Enabled: true, Mode: "active", Leader: "http://127.0.0.1:1"}, r.HA)
	assert.Equal(t, "raft", r.Storage)
}
