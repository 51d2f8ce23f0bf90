package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/smarteros/deaddrop/agent"
	"github.com/smarteros/deaddrop/agent/plural"
	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/printable"
)

// preview shows what a render would do.
type preview struct {
	to          io.Writer
	diff        bool
	showSecrets bool
}

// mask stands for a value. It does not tell how long that is.
const mask = "******"

func (p preview) files(files []agent.FilePreview) error {
	var out strings.Builder
	slices.SortFunc(files, func(a, b agent.FilePreview) int { return strings.Compare(a.Destination, b.Destination) })
	for _, f := range files {
		p.file(&out, f)
	}
	_, err := io.WriteString(p.to, out.String())
	return err
}

func (p preview) file(out *strings.Builder, f agent.FilePreview) {
	mode := ""
	if f.Old != nil && f.New != nil && f.OldMode != f.Mode {
		mode = fmt.Sprintf("; mode %04o becomes %04o", f.OldMode, f.Mode)
	}
	switch {
	case f.New == nil && f.Old == nil, bytes.Equal(f.Old, f.New) && f.Old != nil:
		fmt.Fprintf(out, "%s: unchanged%s\n", printable.Text(f.Destination), mode)
		return
	case f.New == nil:
		fmt.Fprintf(out, "%s: would be removed, as its secret or tenant is gone\n", printable.Text(f.Destination))
		return
	case f.Old == nil:
		fmt.Fprintf(out, "%s: would be created with mode %04o\n", printable.Text(f.Destination), f.Mode)
	default:
		fmt.Fprintf(out, "%s: would be changed%s\n", printable.Text(f.Destination), mode)
	}
	if p.diff {
		p.difference(out, f)
		return
	}
	p.content(out, f)
}

// content shows the whole of what would be written.
func (p preview) content(out *strings.Builder, f agent.FilePreview) {
	if p.showSecrets {
		for line := range strings.Lines(string(f.New)) {
			out.WriteString("  " + strings.TrimSuffix(line, "\n") + "\n")
		}
		return
	}
	entries, ok := render.Entries(f.Format, f.New)
	if !ok {
		fmt.Fprintf(out, "  %s, whose values cannot be masked one by one\n", plural.Of(bytes.Count(f.New, []byte("\n")), "line"))
		return
	}
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		fmt.Fprintf(out, "  %s=%s\n", printable.Text(name), mask)
	}
}

// difference shows what is not in both, key by key where there are keys.
func (p preview) difference(out *strings.Builder, f agent.FilePreview) {
	before, ok := map[string]string{}, true
	if f.Old != nil {
		before, ok = render.Entries(f.Format, f.Old)
	}
	after, alsoOK := render.Entries(f.Format, f.New)
	if !ok || !alsoOK {
		p.lines(out, f)
		return
	}
	all := maps.Clone(before)
	maps.Copy(all, after)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		old, was := before[name]
		now, is := after[name]
		name = printable.Text(name)
		switch {
		case !was:
			fmt.Fprintf(out, "  + %s=%s\n", name, p.value(now))
		case !is:
			fmt.Fprintf(out, "  - %s=%s\n", name, p.value(old))
		case old != now:
			fmt.Fprintf(out, "  ~ %s=%s -> %s\n", name, p.value(old), p.value(now))
		}
	}
}

func (p preview) value(text string) string {
	if p.showSecrets {
		return printable.Text(text) // A line break in it would fake a line.
	}
	return mask
}

// lines shows the lines between what both contents begin and end with.
func (p preview) lines(out *strings.Builder, f agent.FilePreview) {
	old, now := slices.Collect(strings.Lines(string(f.Old))), slices.Collect(strings.Lines(string(f.New)))
	for len(old) > 0 && len(now) > 0 && old[0] == now[0] {
		old, now = old[1:], now[1:]
	}
	for len(old) > 0 && len(now) > 0 && old[len(old)-1] == now[len(now)-1] {
		old, now = old[:len(old)-1], now[:len(now)-1]
	}
	if !p.showSecrets {
		fmt.Fprintf(out, "  %s in place of %d, without keys to show\n", plural.Of(len(now), "line"), len(old))
		return
	}
	for _, line := range old {
		out.WriteString("  - " + strings.TrimSuffix(line, "\n") + "\n")
	}
	for _, line := range now {
		out.WriteString("  + " + strings.TrimSuffix(line, "\n") + "\n")
	}
}
