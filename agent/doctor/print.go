package doctor

import (
	"fmt"
	"io"
	"strings"

	"github.com/smarteros/deaddrop/agent/plural"
	"github.com/smarteros/deaddrop/render/printable"
)

// Colours of a terminal.
const (
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	grey   = "\x1b[90m"
	plain  = "\x1b[0m"
)

// mark is how a line begins.
type mark struct{ sign, colour string }

func marks() map[Status]mark {
	return map[Status]mark{OK: {"✓", green}, Warning: {"!", yellow}, Failed: {"✗", red}, Skipped: {"-", grey}}
}

// alike is how many checks in a row are shown that have the same name and the same
// end: there may be a thousand tenants.
const alike = 10

// nameWidth is that of the longest name of a check.
const nameWidth = 11

// Print writes a line for each check, with what to do below it where that is needed.
func (r *Report) Print(w io.Writer, colours bool) error {
	var out strings.Builder
	run := 0
	for i, c := range r.Checks {
		if i > 0 && c.Name == r.Checks[i-1].Name && c.Status == r.Checks[i-1].Status {
			run++
		} else {
			run = 0
		}
		if run < alike {
			c.print(&out, colours)
			continue
		}
		if rest := r.more(i); run == alike {
			c.begin(&out, colours)
			fmt.Fprintf(&out, " … and %d more alike (-o json shows them)\n", rest)
		}
	}
	out.WriteString("\n" + r.summary() + "\n")
	_, err := io.WriteString(w, out.String())
	return err
}

// more is how many checks in a row are alike from one on.
func (r *Report) more(from int) int {
	n := 0
	for _, c := range r.Checks[from:] {
		if c.Name != r.Checks[from].Name || c.Status != r.Checks[from].Status {
			break
		}
		n++
	}
	return n
}

func (c Check) print(out *strings.Builder, colours bool) {
	c.begin(out, colours)
	switch {
	case c.Subject == "":
		out.WriteString(" " + printable.Text(c.Detail) + "\n")
	case c.Detail == "":
		out.WriteString(" " + printable.Text(c.Subject) + "\n")
	default:
		out.WriteString(" " + printable.Text(c.Subject) + ": " + printable.Text(c.Detail) + "\n")
	}
	for line := range strings.Lines(c.Fix) {
		out.WriteString("    " + printable.Text(strings.TrimRight(line, "\n")) + "\n")
	}
}

func (c Check) begin(out *strings.Builder, colours bool) {
	m := marks()[c.Status]
	if colours {
		m.sign = m.colour + m.sign + plain
	}
	fmt.Fprintf(out, "%s %-*s", m.sign, nameWidth, c.Name)
}

// summary is the last line.
func (r *Report) summary() string {
	count := map[Status]int{}
	for _, c := range r.Checks {
		count[c.Status]++
	}
	text := "All is well: "
	switch r.Overall {
	case Warning:
		text = "It works, but: "
	case Failed:
		text = "It does not work: "
	}
	var parts []string
	if n := count[Failed]; n > 0 {
		parts = append(parts, fmt.Sprintf("%d failed", n))
	}
	if n := count[Warning]; n > 0 {
		parts = append(parts, plural.Of(n, "warning"))
	}
	parts = append(parts, fmt.Sprintf("%d in order", count[OK]))
	if n := count[Skipped]; n > 0 {
		parts = append(parts, fmt.Sprintf("%d not looked at", n))
	}
	return text + strings.Join(parts, ", ") + "."
}
