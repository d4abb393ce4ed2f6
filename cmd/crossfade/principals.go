package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"crossfade/cmd/crossfade/app"
	"crossfade/cmd/crossfade/onboard"
	"crossfade/config"
	"crossfade/gateway/identity"
)

func (p *program) principalsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "principals",
		Short: "Write the principals file from what was seen, and check it",
		Example: `  crossfade principals suggest --observed 7d > principals.yaml
  crossfade principals lint principals.yaml`,
	}
	c.AddCommand(p.principalsSuggest(), p.principalsLint())
	return c
}

func (p *program) principalsSuggest() *cobra.Command {
	var o observing
	var all bool
	c := &cobra.Command{
		Use:   "suggest",
		Short: "Suggest an entry for each legacy user that has none",
		Long: `Write a principals file with an entry for each legacy user that was seen, or has a
static credential, and that no entry of the configured principals file names: the
busiest first, those never seen last. What is known of each stands above it as
comments: requests, runs, task families and the addresses of its clients.

It reads the files of credentials, the evidence in Redis and the audit trail, as
far as they are configured or named; of requests and addresses only the trail
knows. Where one subject's tokens alone were sent with a password, it is suggested
as the entry's oidc.

Every team is left to fill in: it stands as ` + onboard.Placeholder + `, which changes nothing when it
is deployed and of which ` + "`crossfade principals lint`" + ` says that it is not done.`,
		Example: `  crossfade principals suggest > principals.yaml
  crossfade principals suggest --observed 30d --audit audit.jsonl --htpasswd /etc/nginx/luigi.htpasswd
  crossfade principals suggest --all -o table`,
		Args: cobra.NoArgs,
	}
	out := outputFlag(c, "yaml", "json", "table")
	o.addFlags(c, "7d", true)
	c.Flags().BoolVar(&all, "all", false, "with the entries that the principals file has")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := out.check(); err != nil {
			return err
		}
		b, from, err := p.basis(c, &o, true)
		if err != nil {
			return err
		}
		if len(from) == 0 {
			return usage("there is nothing to look at: configure legacy, redis or audit.file, or name --htpasswd, --redis or --audit")
		}
		b.All = all
		entries := onboard.Principals(b)
		if b.Evidence == nil && b.Census == nil {
			_, _ = fmt.Fprintln(p.stderr, "Neither a Redis nor an audit trail is configured or named, so who was seen is not known.")
		}
		switch out.format {
		case "json":
			if entries == nil {
				entries = []onboard.Entry{} // a list, for programs
			}
			return out.write(p.stdout, entries, nil)
		case "table":
			return out.write(p.stdout, nil, entryTable(entries))
		}
		what := "Suggested by `crossfade principals suggest` from what was seen"
		do := "Fill in each team, then: crossfade principals lint FILE"
		return onboard.WritePrincipals(p.stdout, o.head(what, from, b.Since, do), entries)
	}
	return c
}

func entryTable(entries []onboard.Entry) table {
	t := table{{"ACCOUNT", "TEAM", "SEEN", "REQUESTS", "RUNS", "FAMILIES", "HOSTS", "OIDC"}}
	for _, e := range entries {
		requests, seen, oidc := "-", string(e.Seen), "-"
		if e.Requests != nil {
			requests = strconv.FormatInt(*e.Requests, 10)
		}
		if !e.Last.IsZero() {
			seen = stamp(e.Last)
		}
		switch {
		case len(e.OIDC) == 1 && e.OIDC[0].Subject != "":
			oidc = e.OIDC[0].Subject
		case len(e.OIDC) > 0:
			oidc = plural(len(e.OIDC), "rule")
		case len(e.Subjects) > 0:
			oidc = plural(len(e.Subjects), "subject") + "?"
		}
		t = append(t, []string{
			e.Name, e.Team, seen, requests, strconv.Itoa(e.Runs), strconv.Itoa(len(e.Families)), strconv.Itoa(len(e.Hosts)), oidc,
		})
	}
	return t
}

func (p *program) principalsLint() *cobra.Command {
	var o observing
	c := &cobra.Command{
		Use:   "lint [FILE]",
		Short: "Say what is suspicious in a principals file that loads",
		Long: `Say, with file, line and key, what is suspicious in a principals file (FILE, else the
configured one) beyond what keeps it from loading: credentials without an entry,
legacy users without a credential, entries without a team, oidc or roles, two
entries of one subject, teams of one account, and files of the rollout directory
whose team nobody is of. What is configured beside it is looked at, too.

Exit code 0 if nothing is, 1 if something is, 2 if it cannot be read.`,
		Example: `  crossfade principals lint
  crossfade principals lint principals.yaml --htpasswd /etc/nginx/luigi.htpasswd
  crossfade principals lint -o markdown`,
		Args: cobra.MaximumNArgs(1),
	}
	out := outputFlag(c, "table", "json", "yaml", "markdown")
	o.credentialFlags(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := out.check(); err != nil {
			return err
		}
		flags := map[string]any{}
		if len(args) == 1 {
			flags["principals"] = args[0]
		}
		cfg, err := o.load(p, c, flags)
		if err != nil {
			return err
		}
		if cfg.PrincipalsFile == "" {
			return usage("there is no principals file: name one, or set principals in the configuration (crossfade principals suggest writes a first one)")
		}
		findings, err := p.lint(cfg)
		if err != nil {
			return err
		}
		if err := p.writeFindings(out, cfg, findings); err != nil {
			return err
		}
		if len(findings) > 0 {
			return &exitError{exitFailure, errors.New("")}
		}
		return nil
	}
	return c
}

// lint gathers what stands beside the principals file and looks at all of it.
func (p *program) lint(cfg *config.Config) ([]config.Finding, error) {
	var o config.LintOptions
	var err error
	if cfg.Legacy.Configured() {
		keyring, err := app.NewKeyring(cfg)
		if err != nil {
			return nil, err
		}
		o.Owners = []config.Owner{}
		for _, c := range keyring.Credentials() {
			o.Owners = append(o.Owners, config.Owner{Name: c.Owner, Credential: c.ID, File: fileOf(cfg, c.Scheme), Line: c.Line})
		}
	} else {
		_, _ = fmt.Fprintln(p.stderr, "No file of credentials is configured or named, so legacy users are not compared with any.")
	}
	if cfg.Rollout.Dir != "" {
		if o.TeamFiles, err = config.TeamFileNames(string(cfg.Rollout.Dir)); err != nil {
			return nil, usage("%w", err)
		}
	}
	findings, err := cfg.LintPrincipals(o)
	if err != nil {
		return nil, usage("%w", err)
	}
	return findings, nil
}

// fileOf is the file of a kind of static credentials.
func fileOf(cfg *config.Config, scheme identity.Scheme) string {
	switch scheme {
	case identity.SchemeBasic:
		return string(cfg.Legacy.Htpasswd)
	case identity.SchemeAPIKey:
		return string(cfg.Legacy.APIKeys.File)
	default:
		return string(cfg.Legacy.Bearer.File)
	}
}

func (p *program) writeFindings(out *output, cfg *config.Config, findings []config.Finding) error {
	if out.format != "table" {
		t := table{{"WHERE", "KEY", "CHECK", "WHAT"}}
		for _, f := range findings {
			where := f.File
			if f.Line > 0 {
				where += ":" + strconv.Itoa(f.Line)
			}
			what := f.Message
			if f.Suggestion != "" {
				what += fmt.Sprintf(" (did you mean %q?)", f.Suggestion)
			}
			t = append(t, []string{where, f.Key, string(f.Check), what})
		}
		if findings == nil {
			findings = []config.Finding{} // a list, for programs
		}
		return out.write(p.stdout, findings, t)
	}
	if len(findings) == 0 {
		_, err := fmt.Fprintf(p.stderr, "%s: nothing is suspicious.\n", cfg.PrincipalsFile)
		return err
	}
	var b strings.Builder
	for _, f := range findings {
		b.WriteString(f.Error() + "\n")
	}
	if _, err := fmt.Fprint(p.stdout, b.String()); err != nil {
		return err
	}
	_, err := fmt.Fprintf(p.stderr, "%s.\n", plural(len(findings), "finding"))
	return err
}
