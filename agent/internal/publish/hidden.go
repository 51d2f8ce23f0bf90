package publish

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/output"
	"github.com/smarteros/deaddrop/agent/internal/redact"
	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/safefile"
)

// hidden are the texts of a group that no output of a program may show: all values of its
// secrets, and all that its files hold, now and before.
func hidden(r output.Rendered) []string {
	values := slices.Clone(r.Secrets)
	for _, f := range r.Files {
		values = append(values, valuesIn(f.Drop, f.Content)...)
		// Somebody else may have put any file there. A much larger one is none of ours.
		old, _ := safefile.Read(f.Drop.Destination, max(minOldContent, 4*int64(len(f.Content))))
		values = append(values, valuesIn(f.Drop, old)...)
	}
	slices.Sort(values)
	return slices.Compact(values)
}

// minOldContent is how many bytes an old file may have at least to be searched for values.
const minOldContent = 256 << 10

// valuesIn are the values in the content of a file: those of its keys, if there are any,
// and its lines, without a name in front of them.
func valuesIn(of *config.Drop, content []byte) []string {
	format := of.Format
	if format == render.FormatTemplate {
		format = cmp.Or(render.FormatOf(of.Destination), format)
	}
	var values []string
	entries, _ := render.Entries(format, content)
	for _, value := range entries {
		values = append(values, redact.Forms(value)...)
	}
	for line := range strings.Lines(string(content)) {
		value := line
		if name := nameInFront.FindString(line); len(strings.TrimSpace(line[len(name):])) >= minValue {
			value = line[len(name):]
		}
		values = append(values, strings.TrimRight(strings.TrimSpace(value), ",;"))
	}
	return values
}

// nameInFront is the name of a line that gives it a value. It is not hidden.
var nameInFront = regexp.MustCompile(`^\s*(export\s+)?["']?[A-Za-z_][A-Za-z0-9_.-]*["']?\s*[=:]`)

// minValue is how many bytes the rest of a line must have to be the value of a name: else
// the line may be one of base64.
const minValue = 3
