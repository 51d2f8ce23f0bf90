package backup

import (
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/archive"
)

// versions reads "2:a 3:- 4:del": the numbers, and the content, - for what is destroyed,
// del for deleted, p for a placeholder. A + behind it says that it was written at another time, by another Vault.
func versions(text string) (all []archive.Version, current int) {
	for _, field := range strings.Fields(text) {
		number, what, _ := strings.Cut(field, ":")
		current, _ = strconv.Atoi(number)
		what, again := strings.CutSuffix(what, "+")
		v := archive.Version{Number: current, Created: "t" + number}
		if again {
			v.Created = "u" + number
		}
		switch what {
		case "-":
			v.Destroyed = true
		case "del":
			v.Deleted = "t"
		case "p":
			v.Data = placeholder
		default:
			v.Data = archive.Content(`{"v":"` + what + `"}`)
		}
		all = append(all, v)
	}
	return all, current
}

func backedUp(text string) *archive.Secret {
	s := &archive.Secret{Path: "tenant/a/b"}
	s.Versions, s.Current = versions(text)
	return s
}

func inVault(text string) *found {
	if text == "" {
		return nil
	}
	all, current := versions(text)
	f := &found{&metadata{Current: current, Versions: map[string]metadataVersions{}}, map[int]archive.Content{}}
	for _, v := range all {
		f.Versions[strconv.Itoa(v.Number)] = metadataVersions{Created: v.Created, Deleted: v.Deleted, Destroyed: v.Destroyed}
		if v.Data != nil {
			f.data[v.Number] = v.Data
		}
	}
	return f
}

func TestWhatIsDoneWithASecretDependsOnWhichStateIsNewer(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ backup, vault, want, overwrite, why string }{
		{"1:a 2:b", "", Create, Create, "versions up to 2"},
		{"2:b", "", Create, Create, ""},
		{"1:- 2:-", "", Create, Create, ""},
		{"1:a 2:b", "1:a 2:b", Unchanged, Unchanged, ""},
		{"1:a 2:b", "1:a+ 2:b+", Unchanged, Unchanged, ""},
		{"1:a 2:b", "2:b+", Unchanged, Unchanged, ""},
		{"1:a 2:b", "1:x 2:b+", Unchanged, Unchanged, ""}, // The content that counts is the same.
		{"1:a 2:-", "1:a+ 2:-+", Unchanged, Unchanged, ""},
		{"1:a 2:-", "1:a 2:b", Unchanged, Unchanged, ""}, // It was undeleted.
		{"1:a 2:b 3:c", "1:a 2:b", Append, Append, "versions 3 to 3"},
		{"1:a 2:b 3:c", "1:a+", Append, Append, "versions 2 to 3"},
		{"3:c 4:d", "1:-+ 2:-+", Append, Append, ""}, // Nothing that can be read is there.
		{"3:c 4:d", "1:-+ 2:p+", Append, Append, ""}, // A restore was interrupted.
		{"3:c 4:d", "1:a+ 2:b+", Skip, Overwrite, "nothing in common"},
		{"1:a 2:b", "1:del+", Skip, Overwrite, "nothing in common"}, // Another secret, which was deleted.
		{"1:a 2:b", "1:-+", Skip, Overwrite, "nothing in common"},   // No placeholder of this backup.
		{"1:del 2:del 3:c", "1:-+ 2:del+", Skip, Overwrite, "nothing in common"},
		{"1:a 2:b 3:c", "1:a+ 2:del+", Skip, Overwrite, "nothing in common"},
		{"1:a 2:b 3:c", "1:a 2:del", Append, Append, "versions 3 to 3"}, // The very version.
		{"1:a 2:- 4:d 5:e", "1:a+ 2:-+ 3:-+", Append, Append, "versions 4 to 5"},
		{"2:- 3:c", "1:a 2:b", Append, Append, ""}, // The same time stamp: it is the very version.
		{"2:- 3:c", "1:a 2:b+", Skip, Overwrite, "nothing in common"},
		{"1:a 2:b 3:c", "1:a 2:x+", Skip, Overwrite, "version 2 has another content"},
		{"1:a 2:b", "1:a 2:x+", Skip, Overwrite, "version 2 has another content"},
		{"1:a 2:b", "1:a 2:b 3:c", Skip, Overwrite, "the newer version 3; the backup ends with 2"},
		{"1:a 2:b", "1:a 2:x+ 3:c+", Skip, Overwrite, "version 2 has another content"},
		{"1:a 2:b", "1:a 2:b 3:c 4:b", Unchanged, Unchanged, ""}, // As after --overwrite.
		{"1:a 2:b", "1:a 2:b 3:-", Skip, Overwrite, "the newer version 3"},
		{"1:a 2:b", "1:a 2:-", Skip, Overwrite, "version 2 was deleted in Vault"},
		{"1:a 2:-", "1:a 2:- 3:c", Skip, Skip, "no content to write over it"},
		{"1:a 2:- 3:-", "1:a+ 2:p 3:p", Unchanged, Unchanged, ""}, // Placeholders go.
	} {
		st := decide(backedUp(test.backup), inVault(test.vault), false)
		assert.Equal(t, test.want, st.do, "%q onto %q", test.backup, test.vault)
		if test.want == test.overwrite || test.want == Skip && test.overwrite == Overwrite {
			assert.Contains(t, st.why+decide(backedUp(test.backup), inVault(test.vault), true).why, test.why)
		}
		assert.Equal(t, test.overwrite, decide(backedUp(test.backup), inVault(test.vault), true).do, "%q over %q", test.backup, test.vault)
	}
}

func TestOtherMetadataIsNotOverwrittenUnlessTold(t *testing.T) {
	t.Parallel()
	s := backedUp("1:a 2:b")
	s.Custom = map[string]string{"owner": "ops"}
	assert.Equal(t, Skip, decide(s, inVault("1:a 2:b"), false).do)
	st := decide(s, inVault("1:a 2:b"), true)
	assert.Equal(t, Update, st.do)
	assert.True(t, st.meta)
	st = decide(s, inVault("1:a"), false)
	assert.Equal(t, Append, st.do)
	assert.True(t, st.meta)
	assert.False(t, decide(s, inVault("1:x+"), false).meta)
	assert.True(t, decide(s, nil, false).meta)
	assert.False(t, decide(backedUp("1:a"), nil, false).meta)
}

func TestPlaceholdersAreCounted(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		backup, vault string
		want          int
	}{{"1:a 2:b", "", 0}, {"5:a", "", 4}, {"5:a 6:- 7:b 8:-", "", 6}, {"1:- 2:a 5:b", "2:a", 2}, {"1:a", "1:a", 0}} {
		s, f := backedUp(test.backup), inVault(test.vault)
		assert.Equal(t, test.want, placeholders(s, f, decide(s, f, false)), "%q onto %q", test.backup, test.vault)
	}
}
