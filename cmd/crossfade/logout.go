package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	agenttoken "crossfade/gateway/agent/token"
)

func (p *program) logoutCommand() *cobra.Command {
	var o loginFlags
	var all bool
	c := &cobra.Command{
		Use:   "logout",
		Short: "End a login, at the provider and here",
		Long: `Revoke the refresh token at the provider (RFC 7009) and forget the login. It is
forgotten here whatever the provider says. Tokens that were issued already are good
until they expire, some minutes as a rule.

Exit code 0 if nobody is logged in any more and the provider revoked all it could; 1 if
it should have and did not.`,
		Example: `  crossfade logout
  crossfade logout --issuer https://acme.okta.com/oauth2/luigi
  crossfade logout --all`,
		Args: cobra.NoArgs,
	}
	o.addLogin(c)
	c.Flags().BoolVar(&all, "all", false, "end all logins")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if all && (o.issuer != "" || o.clientID != "") {
			return usage("--all ends every login: leave it out, or --issuer and --client-id")
		}
		logins, err := p.logins()
		if err != nil {
			return err
		}
		var end []agenttoken.Kept
		if all {
			end, err = logins.All()
		} else {
			var one agenttoken.Kept
			if one, err = onlyLogin(logins, o); err == nil {
				end = append(end, one)
			} else if errors.Is(err, agenttoken.ErrNoLogin) && o.issuer == "" && o.clientID == "" {
				err = nil
			}
		}
		if err != nil {
			return err
		}
		if len(end) == 0 {
			_, err := fmt.Fprintln(p.stdout, "Nobody is logged in.")
			return err
		}
		var errs []error
		for _, k := range end {
			errs = append(errs, p.logout(c.Context(), o, k))
		}
		return errors.Join(errs...)
	}
	return c
}

// logout ends one login. It is an error if the provider still knows it although
// it offers to forget.
func (p *program) logout(ctx context.Context, o loginFlags, k agenttoken.Kept) error {
	var who string
	err := k.Store.End(ctx, func(s agenttoken.Session) error {
		who = fmt.Sprintf("%s at %s (client %s)", somebody(s), s.Issuer, s.ClientID)
		device, err := o.device(s.Issuer, s.ClientID)
		if err != nil {
			return err
		}
		return device.Revoke(ctx, s)
	})
	text, kept := "Logged out "+who+": the provider has revoked the login.\n", ""
	if _, gone := os.Stat(k.Store.Path()); !errors.Is(gone, os.ErrNotExist) {
		kept = k.Store.Path()
	}
	switch {
	case kept != "":
		return fmt.Errorf("logout: %s is still there: remove it: %w", kept, err)
	case errors.Is(err, agenttoken.ErrNoLogin): // it was ended in the meantime
		text = "Nobody is logged in.\n"
	case errors.Is(err, agenttoken.ErrNoRevocation):
		text = "Logged out " + who + ", here alone: " + agenttoken.ErrNoRevocation.Error() + ".\n"
	case err != nil && who == "":
		return fmt.Errorf("logout: the login was forgotten here but not revoked, since it could not be read: end it in your account at the provider: %w", err)
	case err != nil:
		return fmt.Errorf("logout: the login of %s was forgotten here but not revoked: end it in your account at the provider: %w", who, err)
	}
	_, err = fmt.Fprint(p.stdout, text)
	return err
}
