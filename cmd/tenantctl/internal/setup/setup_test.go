package setup

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/tenant"
	"github.com/smarteros/deaddrop/templates"
)

func TestTextsAreComparedByLines(t *testing.T) {
	for name, tc := range map[string]struct {
		old, new string
		want     []Difference
	}{
		"same but for the end": {"a\nb\n\n", "a\nb", nil},
		"added":                {"a\nc", "a\nb\nc", []Difference{{"line 2", "", "b"}}},
		"taken":                {"a\nb\nc", "a\nc", []Difference{{"line 2", "b", ""}}},
		"another":              {"a\nb", "a\nx", []Difference{{"line 2", "b", ""}, {"line 2", "", "x"}}},
		"all":                  {"", "a", []Difference{{"line 1", "", "a"}}},
	} {
		assert.Equal(t, tc.want, lines(tc.old, tc.new), name)
	}
}

func TestSettingsAreComparedAsVaultGivesThem(t *testing.T) {
	all := []setting{
		{"ttl", time.Hour}, {"uses", 0}, {"on", true}, {"names", []string{"a", "b"}}, {"kind", "default"}, {"none", time.Duration(0)},
	}
	assert.Empty(t, compare(map[string]any{
		"ttl": json.Number("3600"), "uses": json.Number("0"), "on": true, "names": []any{"b", "a"}, "kind": "default",
	}, all))
	assert.Equal(t, []Difference{
		{"ttl", "1m30s", "1h"}, {"uses", "3", "0"}, {"on", "false", "true"}, {"names", "[]", "[a, b]"}, {"kind", "", "default"}, {"none", "24h", "0s"},
	}, compare(map[string]any{"ttl": json.Number("90"), "uses": json.Number("3"), "none": json.Number("86400")}, all))
}

func TestPasswordsThatAreTriedFirstAreRefused(t *testing.T) {
	for _, bad := range []string{"", "changeme123", "changeme1234", "ChangeMe-1234", "Password1234!", "aaaaaaaaaaaaaaaaaa", "abababababab", "anna123anna123", "a b c d e f g\nh"} {
		err := CheckPassword("anna", bad)
		require.Error(t, err, bad)
		if bad != "" {
			assert.NotContains(t, err.Error(), bad)
		}
	}
	assert.NoError(t, CheckPassword("anna", "correct horse battery staple"))
}

func TestUsersAreOneSegmentOfAPath(t *testing.T) {
	for _, good := range []string{"admin", "a", "anna.b", "a-b_c", "A1"} {
		assert.True(t, IsUser(good), good)
	}
	for _, bad := range []string{"", ".", "..", "a/b", "../x", "-a", ".a", "a.", "a b", "a\n", "ä", "a%2f"} {
		assert.False(t, IsUser(bad), bad)
	}
}

// A name that a template asks for stands behind a dot in it.
func TestTheExamplesHaveWhatTheTemplatesAskFor(t *testing.T) {
	assert.ElementsMatch(t, tenant.Services(), slices.Collect(maps.Keys(examples())))
	asked := regexp.MustCompile(`"[A-Z_]+" \.([a-z_]+)`)
	for service, values := range examples() {
		text, ok := templates.Read(service + ".env")
		require.True(t, ok, service)
		optional := regexp.MustCompile(`sprig_hasKey \. "([a-z_]+)"`).FindAllStringSubmatch(text, -1)
		for _, m := range asked.FindAllStringSubmatch(text, -1) {
			isOptional := slices.ContainsFunc(optional, func(o []string) bool { return o[1] == m[1] })
			assert.True(t, isOptional || values[m[1]] != nil, "%s of %s", m[1], service)
		}
	}
}
