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

func (p *program) checkCommand() *cobra.Command {
	var connect bool
	c := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Validate the configuration",
		Long: `Validate the configuration and every file that it names, and report all
mistakes at once. With --connect also try Redis, the issuers and the upstream,
say what was seen, and warn when the upstream answers on an address that goes
around the gateway.

Exit code 0 if the gateway would start and reach everything, 2 on mistakes,
1 if --connect could not reach something.`,
		Example: `  crossfade check crossfade.yaml
  crossfade check --connect
  crossfade check crossfade.yaml -o github    # annotations on a pull request`,
		Args: cobra.MaximumNArgs(1),
	}
	flags := addConfigFlags(c)
	out := outputFlag(c, "table", "json", "yaml", "github")
	c.Flags().BoolVar(&connect, "connect", false, "try Redis, issuers and upstream")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := out.check(); err != nil {
			return err
		}
		source := p.source(flags())
		if len(args) == 1 {
			if p.configFile != "" && p.configFile != args[0] {
				return usage("two files: %s and --config %s: name one", args[0], p.configFile)
			}
			source.File = args[0]
		}
		report, err := p.check(c.Context(), source, connect)
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
		fmt.Sprintf("mode %s, profile %s, listening on %s, upstream %s", c.Mode, c.Upstream.Profile, c.Listen.Address, c.Upstream.URL.Redacted()),
		fmt.Sprintf("legacy: %d users, %d API keys, %d static bearer tokens; %d expired, %d revoked, %d mapped to nobody",
			s.Users, s.APIKeys, s.Bearers, s.Expired, s.Revoked, s.Unassigned),
		fmt.Sprintf("OIDC: %d issuers; principals: %d in %d teams", len(c.OIDC.Issuers), len(parts.Directory.Entries()), len(parts.Directory.Teams())-1),
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
