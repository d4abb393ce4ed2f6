package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"crossfade/cmd/crossfade/app"
	"crossfade/config"
	"crossfade/gateway/oidcauth"
	"crossfade/gateway/probe"
)

func (p *program) probeCommand() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "probe PRINCIPAL",
		Short: "See what the identity provider would give to an account",
		Long: `Obtain a token as the account would, judge it as the gateway judges requests,
and compare it with what the account's legacy credential does today. This shows
that the identity provider's side is ready before any client has changed; it is
no evidence of what clients send.

How a token is obtained stands under probe.principals in the configuration. The
gateway itself probes the same accounts, at the rate that stands there. This
command asks nobody but the provider: it leaves no line in the gateway's audit
trail, and the token is neither printed nor sent anywhere.

Exit code 0 if all is well, 3 if the account would break, 1 if that could not be
judged because the provider, its keys or the probe's own credential cannot be
had.`,
		Example: `  crossfade probe svc-etl
  crossfade probe --all --config /etc/crossfade/crossfade.yaml
  crossfade probe svc-etl -o json`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case all && len(args) > 0:
				return errors.New("--all is every account that is configured: leave the name out")
			case !all && len(args) != 1:
				return errors.New("name one account, as it stands in the principals file, or use --all")
			}
			return nil
		},
	}
	c.Flags().BoolVar(&all, "all", false, "probe every account of probe.principals, one after the other")
	out := outputFlag(c, "table", "json", "yaml", "markdown")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := out.check(); err != nil {
			return err
		}
		source := p.source(nil)
		source.Partial = true
		cfg, err := config.Load(source)
		if err != nil {
			return err
		}
		providers := oidcauth.NewProviders(oidcauth.ProviderOptions{})
		defer providers.Close()
		plan, err := app.NewProbes(cfg, providers)
		if err != nil {
			return err
		}
		accounts, err := chosenProbes(cfg, plan, args)
		if err != nil {
			return err
		}
		var reports []probeReport
		for _, a := range accounts {
			r := plan.Prober.Probe(c.Context(), a)
			if err := c.Context().Err(); err != nil {
				return fmt.Errorf("the probe of %s was broken off: %w", a.Principal.Name, err)
			}
			reports = append(reports, reportOf(cfg, r, time.Now()))
		}
		if err := p.writeProbes(out, all, reports); err != nil {
			return err
		}
		return probeExit(reports)
	}
	return c
}

// chosenProbes are the accounts that a command line names: all without a name.
func chosenProbes(c *config.Config, plan probe.Plan, names []string) ([]probe.Account, error) {
	if len(names) == 0 {
		if len(plan.Accounts) == 0 {
			return nil, usage("no account is configured to be probed. %s", probeLines(c, "NAME"))
		}
		return plan.Accounts, nil
	}
	name := names[0]
	for _, a := range plan.Accounts {
		if a.Principal.Name == name {
			return []probe.Account{a}, nil
		}
	}
	var known []string
	for _, entry := range c.Principals {
		known = append(known, entry.Name)
	}
	if slices.Contains(known, name) {
		return nil, usage("%s has an entry in %s, but nothing says how to obtain a token for it. %s", name, c.PrincipalsFile, probeLines(c, name))
	}
	if c.PrincipalsFile == "" {
		return nil, usage("no principals file is configured, so nothing says whom the token of %q should mean: set principals, and see `crossfade check`", name)
	}
	hint := ""
	if near := config.Nearest(name, known); near != "" {
		hint = fmt.Sprintf(" (did you mean %q?)", near)
	}
	return nil, usage("%q has no entry in %s%s", name, c.PrincipalsFile, hint)
}

// probeLines are the lines that configure a probe.
func probeLines(c *config.Config, name string) string {
	return fmt.Sprintf(`Add to %s:

probe:
  principals:
    %s: { client_id: ITS-CLIENT, client_secret_file: /path/to/its.secret, audience: THE-GATEWAY }

or, to exchange a token that the account has (RFC 8693):

    %s: { subject_token_file: /path/to/its.token, audience: THE-GATEWAY }`, cmp.Or(c.File, "crossfade.yaml"), name, name)
}

// probeExit is how the command ends: what would break is worse than what could
// not be judged.
func probeExit(reports []probeReport) error {
	var broken, unjudged []string
	for _, r := range reports {
		switch r.Result {
		case probe.OK:
		case probe.WouldBreak, probe.Refused:
			broken = append(broken, r.Account)
		default:
			unjudged = append(unjudged, r.Account)
		}
	}
	switch {
	case len(broken) > 0:
		return &exitError{exitRefused, fmt.Errorf("would break: %s", strings.Join(broken, ", "))}
	case len(unjudged) > 0:
		return &exitError{exitFailure, fmt.Errorf("could not be judged: %s", strings.Join(unjudged, ", "))}
	default:
		return nil
	}
}

func (p *program) writeProbes(out *output, all bool, reports []probeReport) error {
	switch {
	case out.format == "markdown":
		return out.write(p.stdout, reports, probeTable(reports))
	case out.format != "table" && all:
		return out.write(p.stdout, reports, nil)
	case out.format != "table":
		return out.write(p.stdout, reports[0], nil)
	case !all:
		_, err := fmt.Fprint(p.stdout, probeText(reports[0]))
		return err
	}
	if _, err := fmt.Fprintf(p.stdout, "%s\n\n", probeSummary(reports)); err != nil {
		return err
	}
	if err := out.write(p.stdout, reports, probeTable(reports)); err != nil {
		return err
	}
	for _, r := range reports {
		if r.Result == probe.OK {
			continue
		}
		if _, err := fmt.Fprintf(p.stdout, "\n%s", probeText(r)); err != nil {
			return err
		}
	}
	return nil
}
