package backup

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/archive"
)

// What is done with something, as [Action.Do] says it.
const (
	Create    = "create"    // it is not in Vault
	Append    = "append"    // Vault has an older state of the same secret
	Update    = "update"    // it is another one in Vault
	Overwrite = "overwrite" // a new version is written, as --overwrite wants
	Unchanged = "unchanged"
	Skip      = "skip" // Vault has something newer, or something else
)

// placeholder is the content of versions that are destroyed at once: they are
// there so that the versions after them get their numbers. No reader of .env files
// takes its name, so that who looks in between does not take it for a secret.
const placeholderKey = "tenantctl placeholder"

var placeholder = archive.Content(`{"` + placeholderKey + `":"true"}`)

// found is a secret as it is in Vault; nil if it is not there.
type found struct {
	*metadata
	// data is what is in the versions, as far as it was read. What was deleted or
	// destroyed has none.
	data map[int]archive.Content
}

func (f *found) isThere() bool { return f != nil && f.Current > 0 }

// live tells whether a version can be read.
func (f *found) live(number int) bool { return f.data[number] != nil && !isPlaceholder(f.data[number]) }

func isPlaceholder(c archive.Content) bool { return bytes.Equal(c, placeholder) }

// strange tells whether a version in Vault is none that a restore of this backup has
// made: neither content nor a placeholder. These are destroyed where the backup has
// no content. What was only deleted is somebody's.
func (f *found) strange(number int, s *archive.Secret) bool {
	about, ok := f.version(number)
	if !ok || isPlaceholder(f.data[number]) {
		return false
	}
	i := slices.IndexFunc(s.Versions, func(v archive.Version) bool { return v.Number == number })
	switch {
	case i >= 0 && s.Versions[i].Created == about.Created: // It is the very same version.
		return false
	case about.Destroyed:
		return i >= 0 && s.Versions[i].Data != nil
	}
	return i < 0 || !bytes.Equal(s.Versions[i].Data, f.data[number]) || f.data[number] == nil
}

// hasStrange tells whether any version is.
func (f *found) hasStrange(s *archive.Secret) bool {
	return slices.ContainsFunc(f.numbers(), func(number int) bool { return f.strange(number, s) })
}

// step is what is to be done with a secret, and why.
type step struct {
	do     string
	why    string
	meta   bool // the settings and custom metadata are to be written
	data   archive.Content
	number int // of the version that comes, for overwrite
}

// decide compares a secret of the backup with what Vault has.
func decide(s *archive.Secret, f *found, overwrite bool) step {
	st := compare(s, f)
	sameMeta := f != nil && f.Settings == s.Settings && maps.Equal(f.Custom, s.Custom)
	switch {
	case st.do == Create:
		// A secret without versions is nothing but metadata.
		st.meta = f != nil && !sameMeta || f == nil && (s.Current == 0 || len(s.Custom) > 0 || !isDefault(s.Settings))
	case st.do == Append:
		st.meta = !sameMeta
	case overwrite && st.do == Skip:
		st = force(s, f, st)
		st.meta = st.do == Overwrite && !sameMeta
	case st.do == Unchanged && !sameMeta && overwrite:
		return step{do: Update, why: "its metadata is another one in Vault", meta: true}
	case st.do == Unchanged && !sameMeta:
		return step{do: Skip, why: "its metadata is another one in Vault"}
	}
	return st
}

func isDefault(s archive.Settings) bool {
	return s.MaxVersions == 0 && !s.CASRequired && (s.DeleteVersionAfter == "0s" || s.DeleteVersionAfter == "")
}

// compare finds out which of the two states, if any, comes after the other.
func compare(s *archive.Secret, f *found) step {
	newest := s.Newest()
	switch {
	case f != nil && f.Current == 0 && s.Current == 0:
		return step{do: Unchanged}
	case !f.isThere():
		return step{do: Create, why: fmt.Sprintf("versions up to %d", s.Current)}
	case newest != nil && newest.Data != nil && bytes.Equal(newest.Data, f.data[f.Current]) && f.Current >= s.Current:
		return step{do: Unchanged}
	}
	common, differs := 0, 0
	for _, v := range s.Versions {
		if about, ok := f.version(v.Number); ok && about.Created == v.Created {
			common++ // It is the very same version.
		} else if v.Data != nil && f.live(v.Number) {
			common++
			if !bytes.Equal(v.Data, f.data[v.Number]) {
				differs = v.Number
			}
		}
	}
	switch {
	case differs > 0:
		return step{do: Skip, why: fmt.Sprintf("version %d has another content in Vault", differs)}
	case f.Current > s.Current:
		return step{do: Skip, why: fmt.Sprintf("Vault has the newer version %d; the backup ends with %d", f.Current, s.Current)}
	case f.Current == s.Current && newest != nil && newest.Data != nil && !isPlaceholder(f.data[f.Current]):
		return step{do: Skip, why: fmt.Sprintf("version %d was deleted in Vault", f.Current)}
	case f.Current == s.Current:
		return step{do: Unchanged}
	case common == 0 && f.hasStrange(s) || f.strange(f.Current, s):
		return step{do: Skip, why: fmt.Sprintf("Vault has version %d, which has nothing in common with the backup", f.Current)}
	}
	return step{do: Append, why: fmt.Sprintf("versions %d to %d", f.Current+1, s.Current)}
}

// force makes what would be skipped a new version.
func force(s *archive.Secret, f *found, st step) step {
	newest := s.Newest()
	if newest == nil || newest.Data == nil {
		st.why += "; the backup has no content to write over it"
		return st
	}
	if bytes.Equal(newest.Data, f.data[f.Current]) {
		return step{do: Unchanged}
	}
	return step{do: Overwrite, why: fmt.Sprintf("as version %d; %s", f.Current+1, st.why), data: newest.Data, number: f.Current + 1}
}

// renumber takes the versions that have content, and counts them from 1.
func renumber(s *archive.Secret) *archive.Secret {
	out := *s
	out.Current, out.Versions = 0, nil
	for _, v := range s.Versions {
		if v.Data != nil {
			out.Current++
			v.Number = out.Current
			out.Versions = append(out.Versions, v)
		}
	}
	return &out
}
