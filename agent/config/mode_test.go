package config

import (
	"io/fs"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func withPerms(perms string) string {
	return login + "drop \"n\" {\n  secret = \"secret/a\"\n  destination = \"n.env\"\n  perms = " + perms + "\n}\n"
}

func TestPerms_NumbersMeanWhatTheyMeanForVaultAgent(t *testing.T) {
	folder(t)
	t.Setenv("PERMS", "0640")
	for perms, want := range map[string]fs.FileMode{
		`416`: 0o640, `420`: 0o644, `288`: 0o440, `0640`: 0o640, `0440`: 0o440, `00600`: 0o600, `"0640"`: 0o640, `"640"`: 0o640, `"${384}"`: 0o600, `env("PERMS")`: 0o640,
	} {
		cfg, err := load(t, withPerms(perms))
		require.NoError(t, err, perms)
		assert.Equal(t, want, cfg.Drops[0].Mode, perms)
	}
	for perms, want := range map[string]fs.FileMode{`416`: 0o640, `288`: 0o440, `"0640"`: 0o640} {
		require.NoError(t, os.WriteFile("x.json", []byte(`{"auto_auth": {"method": {"type": "approle", "config": {"role_id_file_path": "role_id", "secret_id_file_path": "secret_id"}}, "sink": [{"type": "file", "config": {"path": "token", "mode": `+perms+`}}]},
			"template": [{"contents": "x", "destination": "x", "perms": `+perms+`}]}`), 0o600))
		cfg, err := Load("x.json")
		if assert.NoError(t, err, perms) {
			assert.Equal(t, []fs.FileMode{want, want}, []fs.FileMode{cfg.Drops[0].Mode, cfg.Sinks[0].Mode}, perms)
		}
	}
}

func TestPerms_SuggestWhatWasMeant(t *testing.T) {
	folder(t)
	for perms, want := range map[string]string{
		`0`:      `deaddrop.hcl:9:11: perms 0 lets nobody read the file; write "0600"`,
		`"0"`:    `perms "0" lets nobody read the file; write "0600"`,
		`"0777"`: `perms "0777" lets every user write to the file; write "0640"`,
		`0777`:   `perms "0777" lets every user write to the file; write "0640"`,
		`511`:    `perms 511, the decimal number for mode 0777, lets every user write to the file; write "0640"`,
		`640`:    `perms 640 is a decimal number, for mode 1200; write "0640"`,
		`440`:    `perms 440 is a decimal number, for mode 0670; write "0440"`,
		`"416"`:  `perms "416" is read as octal digits, but looks like the decimal number for mode 0640; write "0640"`,
		`"0040"`: `perms "0040" does not let the owner read the file; write "0440"`,
		`0680`:   `perms "0680" is not a file mode`,
		`41.6`:   `perms is not a file mode`,
		`-416`:   `perms -416 is not a file mode`,
		`[416]`:  `perms "" is not a file mode`,
		`true`:   `perms "true" is not a file mode`,
	} {
		_, err := load(t, withPerms(perms))
		require.ErrorContains(t, err, want, perms)
	}
}

func TestPerms_OctalNumberInJSONNamesTheWayOut(t *testing.T) {
	folder(t)
	writeAll(t, map[string]string{"x.json": `{"template": {"contents": "x", "destination": "x", "perms": 0640}}`})
	_, err := Load("x.json")
	require.ErrorContains(t, err, `JSON has no octal numbers: write a mode in quotes, "0640".`)
}

func TestSinkMode_IsReadLikePerms(t *testing.T) {
	folder(t)
	sink := func(mode string) string {
		return "auto_auth {\n  method \"approle\" {\n    config = { role_id_file_path = \"role_id\", secret_id_file_path = \"secret_id\" }\n  }\n  sink \"file\" {\n    config = { path = \"token\", mode = " + mode + " }\n  }\n}\n"
	}
	for mode, want := range map[string]fs.FileMode{`0600`: 0o600, `416`: 0o640, `"0640"`: 0o640} {
		cfg, err := load(t, sink(mode))
		require.NoError(t, err, mode)
		assert.Equal(t, want, cfg.Sinks[0].Mode, mode)
	}
	for mode, want := range map[string]string{
		`0666`:  `deaddrop.hcl:6:39: mode "0666" lets every user write to the file; write "0640"`,
		`0`:     `mode 0 lets nobody read the file; write "0600"`,
		`"416"`: `mode "416" is read as octal digits`,
	} {
		_, err := load(t, sink(mode))
		require.ErrorContains(t, err, want, mode)
	}
}

func TestSocketMode_IsReadLikePermsButMayBeOpenToAll(t *testing.T) {
	folder(t)
	socket := func(mode string) string {
		return login + oneDrop + "listener \"unix\" {\n  address = \"/run/s.sock\"\n  role = \"status\"\n  socket_mode = " + mode + "\n}\n"
	}
	for mode, want := range map[string]fs.FileMode{`0660`: 0o660, `432`: 0o660, `"660"`: 0o660, `"0666"`: 0o666} {
		cfg, err := load(t, socket(mode))
		require.NoError(t, err, mode)
		assert.Equal(t, want, cfg.Listeners[0].Mode, mode)
	}
	for mode, want := range map[string]string{
		`660`:    `socket_mode 660 is a decimal number, for mode 1224; write "0660"`,
		`"0060"`: `socket_mode "0060" does not let the owner connect; write "0660"`,
	} {
		_, err := load(t, socket(mode))
		require.ErrorContains(t, err, want, mode)
	}
}

func TestPermsOfTheCommandLine_AreOctalDigits(t *testing.T) {
	folder(t)
	t.Setenv("VAULT_TOKEN", marker)
	s := Simple{Secret: "secret/a", Destination: "x.env", Perms: "0440"}
	cfg, err := s.Build()
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o440), cfg.Drops[0].Mode)
	s.Perms = "416"
	_, err = s.Build()
	require.EqualError(t, err, `perms "416" is read as octal digits, but looks like the decimal number for mode 0640; write "0640"`)
}
