package main

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"crossfade/cmd/crossfade/onboard"
)

func (p *program) policyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "policy",
		Short:   "Write the roles file from what was seen",
		Example: "  crossfade policy suggest --observed 14d > roles.yaml",
	}
	c.AddCommand(p.policySuggest())
	return c
}

func (p *program) policySuggest() *cobra.Command {
	var o observing
	var fold int
	c := &cobra.Command{
		Use:   "suggest",
		Short: "Suggest the least roles that allow what ran",
		Long: `Write a roles file with the least roles that would have allowed what each account
did: its actions, on the task families that it was about. Accounts that need the
same share a role. The roles of each account, for the principals file, stand at the
end as comments.

Actions are known from the audit trail, and task families from the trail and from
the evidence in Redis. Of a family that only the evidence knows, an account that has
runs is taken to execute it, and one that has none to look at it. Requests that only
look are counted together in the trail, without their families: where one of them
needed a particular family, view is suggested for all ("*").

What ran before --observed is not in it: a monthly pipeline needs --observed 5w.`,
		Example: `  crossfade policy suggest > roles.yaml
  crossfade policy suggest --observed 5w --fold 3    # LoadA, LoadB, LoadC become Load*
  crossfade policy suggest --audit audit.jsonl -o table`,
		Args: cobra.NoArgs,
	}
	out := outputFlag(c, "yaml", "json", "table")
	o.addFlags(c, "14d", false)
	c.Flags().IntVar(&fold, "fold", 0, "make one pattern with a star of as many families that begin with the same words; 0 folds none")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := out.check(); err != nil {
			return err
		}
		if fold < 0 || fold == 1 {
			return usage("--fold %d: must be 2 or more, or 0 to fold nothing", fold)
		}
		b, from, err := p.basis(c, &o, false)
		if err != nil {
			return err
		}
		if b.Evidence == nil && b.Census == nil {
			return usage("there is nothing to look at: configure redis or audit.file, or name --redis or --audit")
		}
		if b.Census == nil {
			_, _ = fmt.Fprintln(p.stderr, "No audit trail is configured or named, so actions are not known: whoever has runs is taken to execute, and nobody else to do more than look.")
		}
		roles := onboard.SuggestRoles(b, fold)
		if len(roles.Roles) == 0 {
			return errors.New("nobody was seen to do anything since " + stamp(b.Since) + ": look back further with --observed, or name --audit")
		}
		switch out.format {
		case "json":
			return out.write(p.stdout, roles, nil)
		case "table":
			return out.write(p.stdout, nil, roleTable(roles))
		}
		what := "Suggested by `crossfade policy suggest`: the least roles that allow what ran"
		do := "What did not run then is denied: read it before you set authorization: enforce."
		return onboard.WriteRoles(p.stdout, o.head(what, from, b.Since, do), roles)
	}
	return c
}

func roleTable(r onboard.Roles) table {
	t := table{{"ACCOUNT", "TEAM", "ROLE", "EXECUTE", "VIEW", "ADMIN", "NOW"}}
	for _, a := range r.Accounts {
		role := r.Roles[a.Role]
		cell := func(families []string) string { return cmp.Or(strings.Join(families, " "), "-") }
		now := "no entry"
		if a.Entry {
			now = cell(a.Has)
		}
		t = append(t, []string{a.Account, a.Team, a.Role, cell(role.Execute), cell(role.View), cell(role.Admin), now})
	}
	return t
}
