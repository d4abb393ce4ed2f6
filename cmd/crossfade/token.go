package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"crossfade/cmd/crossfade/app"
	"crossfade/config"
	"crossfade/gateway/oidcauth"
)

func (p *program) tokenCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "token",
		Short:   "Look into OIDC tokens",
		Example: "  crossfade token inspect - < token.txt",
	}
	c.AddCommand(p.tokenInspect())
	return c
}

func (p *program) tokenInspect() *cobra.Command {
	var offline bool
	c := &cobra.Command{
		Use:   "inspect -",
		Short: "Say every reason why a token would fail",
		Long: `Read a token from stdin and say everything that is wrong with it: against the
configured issuers and principals, or with --offline without asking the issuer
for its keys. The token is never an argument, where other users of the machine
could read it, and is never printed; its claims are.

Exit code 0 if the token would be accepted, 1 if not.`,
		Example: `  crossfade token inspect - < /var/run/luigi/token
  printf %s "$TOKEN" | crossfade token inspect - --issuer https://acme.okta.com/oauth2/luigi --audience api://luigi
  crossfade token inspect - --offline -o json < token.txt`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 || len(args) == 1 && args[0] != "-" {
				return fmt.Errorf("the token is read from stdin, never from an argument: `crossfade token inspect - < FILE` " +
					"(and consider a token that stood on a command line leaked)")
			}
			return nil
		},
	}
	c.Flags().BoolVar(&offline, "offline", false, "do not ask the issuer for its keys")
	c.Flags().String("issuer", "", "check against this issuer instead of the configured ones")
	c.Flags().StringSlice("audience", nil, "audiences that are accepted from --issuer")
	c.Flags().String("preset", "", "the provider's kind: "+strings.Join(oidcauth.Presets(), ", "))
	out := outputFlag(c, "table", "json", "yaml")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := out.check(); err != nil {
			return err
		}
		verifier, done, err := p.inspector(c, offline)
		if err != nil {
			return err
		}
		defer done()
		secret, err := p.readSecret("Token: ")
		if err != nil {
			return err
		}
		in := verifier.Inspect(c.Context(), secret)
		if out.format != "table" {
			err = out.write(p.stdout, in, nil)
		} else {
			_, err = fmt.Fprint(p.stdout, inspectionText(in))
		}
		if err == nil && len(in.Findings) > 0 {
			err = &exitError{exitFailure, fmt.Errorf("the token would not be accepted: %s", in.Findings[0].Reason)}
		}
		return err
	}
	return c
}

// inspector builds a verifier from the flags or the configuration.
func (p *program) inspector(c *cobra.Command, offline bool) (*oidcauth.Verifier, func(), error) {
	var issuer oidcauth.Issuer
	issuer.URL, _ = c.Flags().GetString("issuer")
	issuer.Audiences, _ = c.Flags().GetStringSlice("audience")
	issuer.Preset, _ = c.Flags().GetString("preset")

	var o oidcauth.Options
	done := func() {}
	if !offline {
		o.Providers = oidcauth.NewProviders(oidcauth.ProviderOptions{})
		done = o.Providers.Close
	}
	if issuer.URL != "" {
		o.Issuers = []oidcauth.Issuer{issuer}
		v, err := oidcauth.New(o)
		if err != nil {
			return nil, done, usage("%w", err)
		}
		return v, done, nil
	}
	if len(issuer.Audiences) > 0 || issuer.Preset != "" {
		return nil, done, usage("--audience and --preset belong to --issuer: without it the configured issuers judge")
	}
	source := p.source(nil)
	source.Partial = true
	cfg, err := config.Load(source)
	if err != nil {
		return nil, done, err
	}
	v, err := app.NewVerifier(cfg, o)
	return v, done, err
}

// inspectionText is the answer first, then why, then what the token says.
func inspectionText(in oidcauth.Inspection) string {
	var b strings.Builder
	switch {
	case len(in.Findings) > 0:
		fmt.Fprintf(&b, "NO. The token would not be accepted: %s.\n\n", in.Findings[0].Reason)
		for i, f := range in.Findings {
			fmt.Fprintf(&b, "%3d  %-22s %s\n", i+1, f.Reason, f.Means)
			if f.Detail != "" {
				fmt.Fprintf(&b, "     %s\n", f.Detail)
			}
			fmt.Fprintf(&b, "     Who acts: %s\n", f.Owner)
		}
	case in.SignatureVerified:
		b.WriteString("YES. The token would be accepted.\n")
	default:
		b.WriteString("So far so good: nothing is wrong that could be checked.\n")
	}
	for _, u := range in.Unchecked {
		fmt.Fprintf(&b, "     %s\n", u)
	}
	if pr := in.Principal; pr != nil {
		fmt.Fprintf(&b, "\nprincipal  %s, team %s", pr.Name, pr.Team)
		if len(pr.Roles) > 0 {
			fmt.Fprintf(&b, ", roles %v", pr.Roles)
		}
		b.WriteString("\n")
	}
	if in.Issuer != "" {
		fmt.Fprintf(&b, "issuer     %s (preset %s)\n", in.Issuer, in.Preset)
	}
	for _, part := range []struct {
		title  string
		claims []oidcauth.Claim
	}{{"header", in.Header}, {"claims", in.Claims}} {
		if len(part.claims) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n%s\n", part.title)
		for _, c := range part.claims {
			fmt.Fprintf(&b, "  %-18s %s", c.Name, c.Value)
			if c.Note != "" {
				fmt.Fprintf(&b, "  (%s)", c.Note)
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}
