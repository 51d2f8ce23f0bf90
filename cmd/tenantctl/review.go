package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/smarteros/deaddrop/agent/plural"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/backup"
)

// errUnconfirmed is the error where nobody can be asked and --yes is missing.
var errUnconfirmed = errors.New("rights or settings change, and there is no terminal to ask on")

// maxNames is how many secrets are named that get the same settings.
const maxNames = 5

// consented are the actions that need consent, since they create or change rights or
// settings, in order.
func (s *restoreSummary) consented() []backup.Action {
	return slices.DeleteFunc(slices.Clone(s.Actions), func(a backup.Action) bool { return len(a.Changes) == 0 })
}

// confirm shows the rights and settings that a restore would create or change, and asks.
// Whoever knows the public key of a backup can make one that gives rights to others, or
// that makes Vault delete what is written later.
func (r *restoreCommand) confirm(cmd *cobra.Command, plan *restoreSummary) error {
	plan.sort()
	actions := plan.consented()
	if len(actions) == 0 {
		return nil
	}
	note(cmd, "The backup creates or changes rights or settings:\n\n%s", changesText(actions))
	if r.yes {
		return nil
	}
	counts := plan.Counts["secret"]
	note(cmd, "Besides, it creates %s and changes %d.", plural.Of(counts[backup.Create], "secret"), counts[backup.Append]+counts[backup.Update]+counts[backup.Overwrite])
	if !onTerminal(cmd.InOrStdin()) {
		hint := "look at them, and add --yes"
		if slices.ContainsFunc(actions, func(a backup.Action) bool { return a.Kind != "secret" }) {
			hint += ", or restore secrets only with --secrets-only"
		}
		return fmt.Errorf("nothing was restored: %w: %s", errUnconfirmed, hint)
	}
	answer, err := askLine(cmd, "Type yes to go on: ")
	if err != nil {
		return err
	}
	if answer != "yes" {
		return errors.New("that is not yes; nothing was restored")
	}
	return nil
}

// changesText shows rights and settings with what they were and what they become.
func changesText(actions []backup.Action) string {
	var text strings.Builder
	var order []string // of the changes of secrets, with the secrets that have them
	secrets := map[string][]string{}
	for _, a := range actions {
		if a.Kind == "secret" {
			change := fieldsText(a)
			if secrets[change] == nil {
				order = append(order, change)
			}
			secrets[change] = append(secrets[change], a.Name)
			continue
		}
		fmt.Fprintf(&text, "%s %s: %s\n%s", a.Kind, visible(a.Name), verb(a), fieldsText(a))
	}
	// Thousands of secrets may get the same settings. Each other change is shown, so that
	// none hides among them.
	for _, change := range order {
		names := secrets[change]
		fmt.Fprintf(&text, "settings of %s:\n%s", plural.Of(len(names), "secret"), change)
		for _, name := range names[:min(maxNames, len(names))] {
			fmt.Fprintf(&text, "    in %s\n", visible(name))
		}
		if more := len(names) - maxNames; more > 0 {
			fmt.Fprintf(&text, "    in %d more\n", more)
		}
	}
	return text.String()
}

func fieldsText(a backup.Action) string {
	var text strings.Builder
	for _, c := range a.Changes {
		switch {
		case a.Kind == "policy":
			writeDiff(&text, c.Old, c.New)
		case c.Old == "":
			fmt.Fprintf(&text, "    %s: %s\n", visible(c.Field), value(c))
		default:
			fmt.Fprintf(&text, "    %s: %s → %s\n", visible(c.Field), visible(c.Old), value(c))
		}
	}
	return text.String()
}

// verb says what is done. An action is skipped as a whole where a part of it is.
func verb(a backup.Action) string {
	if a.Do == backup.Skip {
		return "partly"
	}
	return a.Do
}

func value(c backup.Change) string {
	switch {
	case c.New == "":
		return "(none)"
	case c.Field == "bind_secret_id" && c.New == "false":
		return "false (a login needs no secret id)"
	}
	return visible(c.New)
}

// writeDiff writes the lines that differ, and leaves out those at the beginning and the
// end that do not.
func writeDiff(text *strings.Builder, before, after string) {
	old, is := lines(before), lines(after)
	head, tail := 0, 0
	for head < min(len(old), len(is)) && old[head] == is[head] {
		head++
	}
	for tail < min(len(old), len(is))-head && old[len(old)-1-tail] == is[len(is)-1-tail] {
		tail++
	}
	for _, line := range old[head : len(old)-tail] {
		fmt.Fprintf(text, "    - %s\n", visible(line))
	}
	for _, line := range is[head : len(is)-tail] {
		fmt.Fprintf(text, "    + %s\n", visible(line))
	}
}

func lines(text string) []string {
	if text = strings.TrimSuffix(text, "\n"); text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// visible shows every character, so that none hides or moves others.
func visible(text string) string {
	var out strings.Builder
	for _, c := range text {
		if c == '\t' || unicode.IsPrint(c) {
			out.WriteRune(c)
		} else {
			fmt.Fprintf(&out, "\\u%04x", c)
		}
	}
	return out.String()
}
