package publish

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/output"
	"github.com/smarteros/deaddrop/render/drop"
	"github.com/smarteros/deaddrop/render/safefile"
)

// guard notices that files are not what was published. It looks at what the kernel knows of
// a file, which is cheap; if that differs, the content is compared when it is published
// again.
type guard map[string]*guarded // by the destination of the first file of a group

// guarded is a group of files as it was published. There may be thousands.
type guarded struct {
	set   string
	files []guardedFile // the side files come last, in the order of their units
	own   int           // how many of files are not side files
	print fingerprint
	// difference is what differs from the stamps; "" while nothing does.
	difference string
}

type guardedFile struct {
	path, place string
	isStrict    bool
	stamp       drop.Stamp
}

// fingerprint is that of units: hashes of what they say, and of their content.
type fingerprint struct {
	settings uint64
	content  [sha256.Size]byte
}

func fingerprintOf(units []drop.Unit) fingerprint {
	return fingerprint{settingsOf(units), sumOf(units)}
}

// seed makes hashes of settings.
var seed = maphash.MakeSeed()

// settingsOf is the hash of all that units say but for their content.
func settingsOf(units []drop.Unit) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	for _, unit := range units {
		for _, file := range unit.Files {
			uid, gid := idOf(file.UID), idOf(file.GID)
			file.Content, file.UID, file.GID = nil, nil, nil
			_, _ = fmt.Fprintf(&h, "%q %d %d %+v\n", unit.Set, uid, gid, file)
		}
	}
	return h.Sum64()
}

func idOf(id *int) int {
	if id == nil {
		return -1
	}
	return *id
}

// keyOf is the destination of the first file of a group.
func keyOf(r output.Rendered) string { return r.Files[0].Drop.Destination }

// sumOf is the hash of all content of units.
func sumOf(units []drop.Unit) [sha256.Size]byte {
	var contents [][]byte
	for _, unit := range units {
		for _, file := range unit.Files {
			contents = append(contents, file.Content)
		}
	}
	return sumOfContents(contents)
}

func sumOfContents(contents [][]byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, content := range contents {
		one := sha256.Sum256(content)
		h.Write(one[:])
	}
	h.Sum(sum[:0])
	return sum
}

// units are what the files were published as, but for content and settings.
func (is *guarded) units() []drop.Unit {
	all := []drop.Unit{{Set: is.set}}
	for i, f := range is.files {
		file := drop.File{Path: f.path, Place: f.place, Strict: f.isStrict}
		if i < is.own {
			all[0].Files = append(all[0].Files, file)
		} else {
			all = append(all, drop.Unit{Files: []drop.File{file}})
		}
	}
	return all
}

// note keeps what a group of files is like now.
func (g guard) note(j *job, units []drop.Unit, results [][]drop.Result) {
	is := &guarded{set: units[0].Set, own: len(units[0].Files), print: j.print}
	is.files = make([]guardedFile, 0, is.own+len(units)-1)
	for i, unit := range units {
		for j, file := range unit.Files {
			is.files = append(is.files, guardedFile{file.Path, file.Place, file.Strict, results[i][j].Stamp})
		}
	}
	g[keyOf(j.Rendered)] = is
}

// differenceOf returns the first difference of files from what they were; "" if there is none.
func (is *guarded) differenceOf(now []drop.Stamp) string {
	for i, stamp := range now {
		if difference := is.files[i].stamp.Difference(stamp); difference != "" {
			return difference
		}
	}
	return ""
}

// maxCompared is the most bytes of a file that are read to compare its content.
const maxCompared = 32 << 20

// hasOtherContent reports whether the content of a file differs. A file that cannot be read
// is no evidence.
func (is *guarded) hasOtherContent() bool {
	var contents [][]byte
	for _, f := range is.files {
		content, err := safefile.Read(f.path, maxCompared)
		if err != nil {
			return false
		}
		contents = append(contents, content)
	}
	return sumOfContents(contents) != is.print.content
}

// changed returns the groups whose files seem to have changed, by their first destination.
func (g guard) changed(comparesContent bool) []string {
	var units []drop.Unit
	keys := slices.Sorted(maps.Keys(g))
	for _, key := range keys {
		units = append(units, g[key].units()...)
	}
	stamps, errs := drop.Stamps(units)
	var changed []string
	for _, key := range keys {
		is := g[key]
		n := 1 + len(is.files) - is.own
		difference := ""
		if errors.Join(errs[:n]...) == nil { // A failed look is no evidence.
			difference = is.differenceOf(slices.Concat(stamps[:n]...))
		}
		if difference == "" && comparesContent && is.hasOtherContent() {
			difference = "content"
		}
		if difference != "" {
			is.difference = difference
			changed = append(changed, key)
		}
		stamps, errs = stamps[n:], errs[n:]
	}
	return changed
}

// accept takes files as they are now for what was published, if they are known to differ.
func (g guard) accept(key string) {
	is := g[key]
	if is == nil || is.difference == "" {
		return
	}
	stamps, errs := drop.Stamps(is.units())
	if errors.Join(errs...) != nil {
		return
	}
	for i, stamp := range slices.Concat(stamps...) {
		is.files[i].stamp = stamp
	}
}

// refusal returns a [*output.TamperError] if the files of a group have changed that the operator
// edits on purpose. Files with new content or other settings are not refused.
func (g guard) refusal(j *job, units []drop.Unit) error {
	is := g[keyOf(j.Rendered)]
	if is == nil || !mayBeEdited(j.Rendered) || is.print != j.print {
		return nil
	}
	for _, unit := range units {
		isCurrent, err := drop.IsCurrent(unit)
		if err != nil || isCurrent {
			continue // A failed look is no evidence.
		}
		if is.difference == "" {
			is.difference = "content"
		}
		g.accept(keyOf(j.Rendered)) // It is said once.
		return &output.TamperError{Difference: is.difference}
	}
	return nil
}

// restored returns how files had been changed that have just got back what they had before;
// "" if they had not. It counts as a change of the files where only their owner or
// permissions had changed. An owner that no [config.Drop] names may be any.
func (g guard) restored(j *job, results [][]drop.Result) string {
	is := g[keyOf(j.Rendered)]
	if is == nil || mayBeEdited(j.Rendered) || is.print.settings != j.print.settings {
		return "" // They are written for the first time, or the configuration has changed.
	}
	if is.difference == "owner" || is.difference == "permissions" {
		if is.differenceOf(stampsOf(results)) == is.difference {
			return ""
		}
		for i := range j.Outcomes {
			if j.Outcomes[i] == drop.Unchanged {
				j.Outcomes[i] = drop.Changed
			}
		}
		return is.difference
	}
	isWritten := slices.ContainsFunc(j.Outcomes, func(o drop.Outcome) bool { return o != drop.Unchanged })
	switch {
	case !isWritten:
		return ""
	case is.difference == "" && is.print == j.print:
		return "content"
	}
	return is.difference
}

func stampsOf(results [][]drop.Result) []drop.Stamp {
	var stamps []drop.Stamp
	for _, result := range slices.Concat(results...) {
		stamps = append(stamps, result.Stamp)
	}
	return stamps
}

// mayBeEdited reports whether the operator edits a file of a group on purpose.
func mayBeEdited(r output.Rendered) bool {
	return slices.ContainsFunc(r.Files, func(f output.RenderedFile) bool { return f.Drop.OnTamper == config.WarnOnly })
}

// FindChanged looks at all published files, and returns the destinations of those that seem
// to have changed since; the first of a set stands for all. They are to be published again.
// The kernel knows of most changes; the others show if the content is compared.
func (p *Publisher) FindChanged(comparesContent bool) []string {
	return p.guard.changed(comparesContent)
}

// Forget does not look at the file of a destination any more.
func (p *Publisher) Forget(destination string) {
	delete(p.guard, destination)
	delete(p.warned, destination)
}
