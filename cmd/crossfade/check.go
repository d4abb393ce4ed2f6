package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"crossfade/cmd/crossfade/app"
	"crossfade/config"
	"crossfade/gateway/oidcauth"
	"crossfade/legacy"
	"crossfade/rollout/evidence"
)

// checkReport is what check found.
type checkReport struct {
	OK       bool             `json:"ok"`
	File     string           `json:"file,omitempty"`
	Mistakes []config.Mistake `json:"mistakes"`
	Warnings []config.Mistake `json:"warnings"`
	Summary  []string         `json:"summary"`
	// Connections is nil without --connect.
	Connections []app.Connection `json:"connections,omitempty"`
}

// checkFlags are the flags of check.
type checkFlags struct {
	connect     bool
	same        bool
	ignore      []string
	wouldRefuse string
	audit       []string
}

func (p *program) checkCommand() *cobra.Command {
	var f checkFlags
	c := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Validate the configuration, compare two, or say who mode enforce would refuse",
		Long: `Validate the configuration and every file that it names, and report all
mistakes at once. With --connect also try Redis, the issuers and the upstream,
say what was seen, and warn when the upstream answers on an address that goes
around the gateway.

Exit code 0 if the gateway would start and reach everything, 2 on mistakes,
1 if --connect could not reach something.

--same-rules FILE FILE compares two configurations, of staging and production for
instance, by what they mean: mode, authorization, limits, help, how tokens are
verified, who is which principal of which team, and what each role allows. A roles
file that is written differently and allows the same is the same. What must differ
is not compared: addresses, the upstream's URL, paths, Redis, secrets, where logs
go, and for whom is probed. Issuers are compared with the one of the same URL, else
of the same provider, in the order of the files: their URL, audiences and the
addresses of their keys may differ, and of clients and tenants it counts whether
they are limited. The files of teams with their percentages are not looked at, nor
which static credentials there are. Variables and flags have no say. Exit code 0 if
the rules are the same, 1 if they differ, 2 if a configuration does not load.

--would-refuse SPAN says who would be refused if mode observe became mode enforce
now: by the evidence that gateways have written to Redis in that time, the
percentages that teams stand at, and the authorization of the configuration.
Requests of nobody are told by reason; where they came from is in the audit trail,
if there is one. Days are whole days of UTC, and evidence is kept for 45. Exit code
0 if it is nobody, 3 if it is somebody, 5 if Redis cannot be reached, and 1 if
nothing was recorded, so that nobody knows.`,
		Example: `  crossfade check crossfade.yaml
  crossfade check --connect
  crossfade check crossfade.yaml -o github    # annotations on a pull request
  crossfade check --same-rules staging.yaml prod.yaml
  crossfade check --same-rules staging.yaml prod.yaml --ignore mode --ignore 'principals.*.oidc'
  crossfade check --would-refuse 7d
  crossfade check --would-refuse 14d prod.yaml --audit /var/log/crossfade/audit.jsonl -o markdown`,
		Args: cobra.MaximumNArgs(2),
	}
	flags := addConfigFlags(c)
	out := outputFlag(c, "table", "json", "yaml", "github", "markdown")
	c.Flags().Lookup("output").Usage = "table|json|yaml, and github, or markdown with --same-rules and --would-refuse"
	c.Flags().BoolVar(&f.connect, "connect", false, "try Redis, issuers and upstream")
	c.Flags().BoolVar(&f.same, "same-rules", false, "compare the rules of two configurations")
	c.Flags().StringArrayVar(&f.ignore, "ignore", nil, "with --same-rules: leave out a key and what is below it; * stands for any text")
	c.Flags().StringVar(&f.wouldRefuse, "would-refuse", "", "say who mode enforce would refuse, by the evidence of a time like 7d")
	c.Flags().StringArrayVar(&f.audit, "audit", nil, "with --would-refuse: a file of the audit trail, instead of the configured one")
	c.RunE = func(c *cobra.Command, args []string) error {
		set := flags()
		if err := f.check(c, out, args, set); err != nil {
			return err
		}
		if f.same {
			return p.runSameRules(out, [2]string{args[0], args[1]}, f.ignore)
		}
		source := p.source(set)
		if len(args) == 1 {
			if p.configFile != "" && p.configFile != args[0] {
				return usage("two files: %s and --config %s: name one", args[0], p.configFile)
			}
			source.File = args[0]
		}
		if f.wouldRefuse != "" {
			return p.runWouldRefuse(c.Context(), out, source, f)
		}
		report, err := p.check(c.Context(), source, f.connect)
		if err != nil {
			return err
		}
		if err := p.writeReport(out, report); err != nil {
			return err
		}
		switch {
		case len(report.Mistakes) > 0:
			return &exitError{exitUsage, errors.New("")}
		case !report.OK:
			return &exitError{exitFailure, errors.New("")}
		}
		return nil
	}
	return c
}

// check returns what is wrong with the flags together.
func (f checkFlags) check(c *cobra.Command, out *output, args []string, set map[string]any) error {
	changed := func(name string) bool { return c.Flags().Changed(name) }
	formats := []string{"table", "json", "yaml", "github"}
	if f.same || changed("would-refuse") {
		formats = []string{"table", "json", "yaml", "markdown"}
	}
	if err := (&output{out.format, formats}).check(); err != nil {
		return err
	}
	switch {
	case f.same && f.connect, f.same && changed("would-refuse"), f.connect && changed("would-refuse"):
		return usage("--connect, --same-rules and --would-refuse ask three questions: ask one")
	case f.same && len(args) != 2:
		return usage("--same-rules compares two configurations: crossfade check --same-rules staging.yaml prod.yaml")
	case f.same && (len(set) > 0 || changed("config")):
		return usage("--same-rules compares two files as they are: leave --config and the flags of keys out")
	case !f.same && len(args) > 1:
		return usage("two files: %s and %s: name one, or compare them by --same-rules", args[0], args[1])
	case !f.same && len(f.ignore) > 0:
		return usage("--ignore belongs to --same-rules")
	case !changed("would-refuse") && len(f.audit) > 0:
		return usage("--audit belongs to --would-refuse")
	case changed("would-refuse") && f.wouldRefuse == "":
		return usage("--would-refuse needs a time span like 7d")
	}
	return nil
}

func (p *program) runSameRules(out *output, files [2]string, ignore []string) error {
	report, err := p.sameRules(files, ignore)
	if err != nil {
		return err
	}
	if err := p.writeSame(out, report); err != nil {
		return err
	}
	if !report.Same {
		return &exitError{exitFailure, errors.New("")}
	}
	return nil
}

func (p *program) runWouldRefuse(ctx context.Context, out *output, source config.Source, f checkFlags) error {
	span, err := parseDays(f.wouldRefuse)
	if err != nil {
		return usage("--would-refuse %q: %w", f.wouldRefuse, err)
	}
	if span > evidence.RunRetention {
		return usage("--would-refuse %s: evidence is kept for %d days", f.wouldRefuse, int(evidence.RunRetention/(24*time.Hour)))
	}
	source.Partial = true
	report, err := p.wouldRefuse(ctx, source, span, f.audit)
	if err != nil {
		return err
	}
	if err := p.writeRefused(out, report); err != nil {
		return err
	}
	switch {
	case report.Seen == 0:
		return &exitError{exitFailure, errors.New("")}
	case len(report.Refused) > 0:
		return &exitError{exitRefused, errors.New("")}
	}
	return nil
}

func (p *program) check(ctx context.Context, source config.Source, connect bool) (checkReport, error) {
	report := checkReport{Mistakes: []config.Mistake{}, Warnings: []config.Mistake{}, Summary: []string{}}
	cfg, err := config.Load(source)
	if err != nil {
		var mistakes config.Errors
		if !errors.As(err, &mistakes) {
			return report, err
		}
		report.Mistakes = mistakes
		return report, nil
	}
	report.File = cfg.File
	report.Warnings = append(report.Warnings, cfg.Warnings()...)
	providers := oidcauth.NewProviders(oidcauth.ProviderOptions{})
	defer providers.Close()
	parts, err := app.Build(cfg, providers, app.Hooks{})
	if err != nil {
		report.Mistakes = mistakesOf(err, cfg.File)
		return report, nil
	}
	report.OK = true
	report.Summary = summaryOf(cfg, parts)
	if connect {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		defer transport.CloseIdleConnections()
		report.Connections = app.Connect(ctx, cfg, parts, transport, p.local())
		for _, conn := range report.Connections {
			report.OK = report.OK && conn.Err == ""
		}
	}
	return report, nil
}

// mistakesOf takes a joined error apart, so that each mistake stands alone.
func mistakesOf(err error, file string) []config.Mistake {
	switch e := err.(type) { //nolint:errorlint // a joined error is walked, not searched
	case *app.ConfigError:
		return mistakesOf(e.Err, file)
	case *legacy.Mistake:
		return []config.Mistake{{File: e.File, Line: e.Line, Message: e.What + ": " + e.Do}}
	case interface{ Unwrap() []error }:
		var all []config.Mistake
		for _, one := range e.Unwrap() {
			all = append(all, mistakesOf(one, file)...)
		}
		return all
	default:
		return []config.Mistake{{File: file, Message: err.Error()}}
	}
}

func summaryOf(c *config.Config, parts *app.Parts) []string {
	s := parts.Keyring.Summary()
	lines := []string{
		fmt.Sprintf("mode %s, profile %s, listening on %s, upstream %s", c.Mode, c.Upstream.Profile, c.Listen.Address, app.UpstreamOf(c)),
		fmt.Sprintf("legacy: %d users, %d API keys, %d static bearer tokens; %d expired, %d revoked, %d mapped to nobody",
			s.Users, s.APIKeys, s.Bearers, s.Expired, s.Revoked, s.Unassigned),
		fmt.Sprintf("OIDC: %d issuers; principals: %d in %d teams", len(c.OIDC.Issuers), len(parts.Directory.Entries()), len(parts.Directory.Teams())-1),
	}
	if c.Listen.ForwardAuth != "" {
		lines = append(lines, fmt.Sprintf("proxies at %s may ask at %s about requests that they forward themselves",
			strings.Trim(fmt.Sprint(c.Listen.TrustedProxies), "[]"), c.Listen.ForwardAuth))
	}
	if n := len(parts.Probes.Accounts); n > 0 {
		lines = append(lines, fmt.Sprintf("probes: %s, each every %s, at most %d a minute", count(n, "account"), c.Probe.Every, c.Probe.PerMinute))
	}
	return append(lines, "configuration "+c.Hash())
}

func (p *program) writeReport(out *output, r checkReport) error {
	switch out.format {
	case "github":
		return p.annotate(r)
	case "table":
		_, err := fmt.Fprint(p.stdout, reportText(r))
		return err
	default:
		return out.write(p.stdout, r, nil)
	}
}

// annotate writes workflow commands, which GitHub shows beside the lines of a
// pull request (docs.github.com, "Workflow commands for GitHub Actions").
func (p *program) annotate(r checkReport) error {
	for _, group := range []struct {
		level string
		list  []config.Mistake
	}{{"error", r.Mistakes}, {"warning", r.Warnings}} {
		for _, m := range group.list {
			line := "::" + group.level + " file=" + escapeProperty(m.File)
			if m.Line > 0 {
				line += fmt.Sprintf(",line=%d", m.Line)
			}
			if m.Column > 0 {
				line += fmt.Sprintf(",col=%d", m.Column)
			}
			m.File, m.Line = "", 0
			if _, err := fmt.Fprintln(p.stdout, line+"::"+escapeData(m.Error())); err != nil {
				return err
			}
		}
	}
	for _, c := range r.Connections {
		level, text := "notice", c.Seen
		if c.Err != "" {
			level, text = "error", c.Err
		}
		lines := fmt.Sprintf("::%s::%s\n", level, escapeData(c.To+": "+text))
		for _, w := range c.Warnings {
			lines += fmt.Sprintf("::warning::%s\n", escapeData(c.To+": "+w))
		}
		if _, err := fmt.Fprint(p.stdout, lines); err != nil {
			return err
		}
	}
	return nil
}

func escapeData(s string) string {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A").Replace(s)
}

func escapeProperty(s string) string {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C").Replace(s)
}

func reportText(r checkReport) string {
	var b strings.Builder
	switch {
	case len(r.Mistakes) > 0:
		fmt.Fprintf(&b, "NO. %s must be mended before the gateway can start:\n\n", count(len(r.Mistakes), "mistake"))
		for _, m := range r.Mistakes {
			fmt.Fprintf(&b, "  %s\n", m.Error())
		}
	case r.OK:
		b.WriteString("OK. The configuration is valid.\n")
	default:
		b.WriteString("NO. The configuration is valid, but something it names cannot be reached.\n")
	}
	for _, line := range r.Summary {
		fmt.Fprintf(&b, "  %s\n", line)
	}
	if len(r.Warnings) > 0 {
		b.WriteString("\nWorth a look:\n")
		for _, m := range r.Warnings {
			fmt.Fprintf(&b, "  %s\n", m.Error())
		}
	}
	if len(r.Connections) > 0 {
		b.WriteString("\nConnections:\n")
		for _, c := range r.Connections {
			state, text := "ok  ", c.Seen
			if c.Err != "" {
				state, text = "FAIL", c.Err
			}
			fmt.Fprintf(&b, "  %s  %-9s %s  (%s)\n        %s\n", state, c.Kind, c.To, c.Took.Round(time.Millisecond/10), text)
			for _, w := range c.Warnings {
				fmt.Fprintf(&b, "        warning: %s\n", w)
			}
		}
	}
	return b.String()
}

func count(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}
