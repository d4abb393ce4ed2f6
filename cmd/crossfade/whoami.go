package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	agenttoken "crossfade/gateway/agent/token"
	"crossfade/gateway/identity"
	"crossfade/gateway/oidcauth"
)

// shownClaims are those that say whose a token is, for whom, and until when.
var shownClaims = []string{"iss", "sub", "aud", "azp", "client_id", "email", "preferred_username", "groups", "roles", "scope", "scp", "exp"}

// States of the token of a login.
const (
	tokenGood      = "good"
	tokenNone      = "none"
	tokenUnchecked = "unchecked"
)

// loginView is a login as it is shown. It holds no secret.
type loginView struct {
	Who      string     `json:"who"`
	Issuer   string     `json:"issuer"`
	ClientID string     `json:"client_id"`
	Audience string     `json:"audience,omitempty"`
	Resource string     `json:"resource,omitempty"`
	Scopes   []string   `json:"scopes"`
	Since    time.Time  `json:"since"`
	Until    *time.Time `json:"until,omitempty"`
	File     string     `json:"file"`
	KeyFile  string     `json:"key_file"`
	Token    *tokenView `json:"token,omitempty"`
}

// tokenView is what is told of a token.
type tokenView struct {
	State  string           `json:"state"`
	Expiry *time.Time       `json:"expiry,omitempty"`
	Error  string           `json:"error,omitempty"`
	Claims []oidcauth.Claim `json:"claims,omitempty"`
}

func viewOf(k agenttoken.Kept) loginView {
	s := k.Session
	return loginView{
		Who: s.Who, Issuer: s.Issuer, ClientID: s.ClientID, Audience: s.Request.Audience, Resource: s.Request.Resource,
		Scopes: append([]string{}, s.Request.Scopes...), Since: s.Since.UTC(), Until: known(s.Until), File: k.Store.Path(), KeyFile: k.Store.KeyPath(),
	}
}

// known is nil for a time that nobody knows.
func known(at time.Time) *time.Time {
	if at.IsZero() {
		return nil
	}
	at = at.UTC()
	return &at
}

func (p *program) whoamiCommand() *cobra.Command {
	var o loginFlags
	var offline bool
	c := &cobra.Command{
		Use:   "whoami",
		Short: "Say who is logged in, and whether that still yields tokens",
		Long: `Show every login, or those of --issuer and --client-id, and obtain a token of each to
see whether that works; --offline asks nobody. What the token says about you is shown,
the token never. ` + "`crossfade token inspect`" + ` says whether a gateway would accept one.

Exit code 0 if every login yields a token, 1 if one does not or nobody is logged in.`,
		Example: `  crossfade whoami
  crossfade whoami --offline -o json`,
		Args: cobra.NoArgs,
	}
	o.addLogin(c)
	c.Flags().BoolVar(&offline, "offline", false, "do not obtain a token")
	out := outputFlag(c, "table", "json", "yaml")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := out.check(); err != nil {
			return err
		}
		logins, err := p.logins()
		if err != nil {
			return err
		}
		kept, err := loginsFor(logins, o)
		if err != nil {
			return err
		}
		views, rows, errs := []loginView{}, table{}, []error{}
		for _, k := range kept {
			if k.Err != nil {
				errs = append(errs, k.Err)
				continue
			}
			v := viewOf(k)
			v.Token = &tokenView{State: tokenUnchecked}
			if !offline {
				if v.Token, err = o.tokenOf(c.Context(), k); err != nil {
					errs = append(errs, err)
				}
			}
			if len(views) > 0 {
				rows = append(rows, []string{""})
			}
			views, rows = append(views, v), append(rows, v.rows(time.Now())...)
		}
		return errors.Join(out.write(p.stdout, struct {
			Logins []loginView `json:"logins"`
		}{views}, rows), errors.Join(errs...))
	}
	return c
}

// tokenOf obtains a token of a login. The error is in the view too.
func (o loginFlags) tokenOf(ctx context.Context, k agenttoken.Kept) (*tokenView, error) {
	t, err := o.obtain(ctx, k)
	if err != nil {
		return &tokenView{State: tokenNone, Error: err.Error()}, err
	}
	v := &tokenView{State: tokenGood, Expiry: known(t.Expiry)}
	v.Claims, err = claimsOf(ctx, t.Value)
	return v, err
}

func (o loginFlags) obtain(ctx context.Context, k agenttoken.Kept) (agenttoken.Token, error) {
	device, err := o.device(k.Session.Issuer, k.Session.ClientID)
	if err != nil {
		return agenttoken.Token{}, err
	}
	source, err := agenttoken.NewLogin(device, k.Store)
	if err != nil {
		return agenttoken.Token{}, err
	}
	t, err := source.Token(ctx, agenttoken.Request{})
	if err == nil && !t.Expiry.IsZero() && !time.Now().Before(t.Expiry) {
		err = fmt.Errorf("the token that %s issued ended at %s: compare the clocks", k.Session.Issuer, t.Expiry.UTC().Format(time.RFC3339))
	}
	return t, err
}

// claimsOf reads of a token what may be shown; nothing of one that is no JWT.
func claimsOf(ctx context.Context, token identity.Secret) ([]oidcauth.Claim, error) {
	reader, err := oidcauth.New(oidcauth.Options{})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(reader.Inspect(ctx, token).Claims, func(c oidcauth.Claim) bool {
		return !slices.Contains(shownClaims, c.Name)
	}), nil
}

// rows is the view for people.
func (v loginView) rows(now time.Time) table {
	rows := table{{"who", v.Who}, {"issuer", v.Issuer}, {"client", v.ClientID}}
	for _, row := range [][]string{{"audience", v.Audience}, {"resource", v.Resource}, {"scopes", strings.Join(v.Scopes, " ")}} {
		if row[1] != "" {
			rows = append(rows, row)
		}
	}
	until := "the provider ends it; it does not say when"
	if v.Until != nil {
		until = v.Until.UTC().Format(time.RFC3339)
	}
	rows = append(rows, []string{"since", v.Since.UTC().Format(time.RFC3339)}, []string{"until", until}, []string{"kept in", v.File}, []string{"key in", v.KeyFile})
	if rows[0][1] == "" {
		rows[0][1] = "(the provider did not say)"
	}
	token := map[string]string{tokenGood: "good", tokenNone: "none: see below", tokenUnchecked: "not asked for"}[v.Token.State]
	if at := v.Token.Expiry; at != nil {
		token += fmt.Sprintf(" until %s, another %s", at.UTC().Format(time.RFC3339), at.Sub(now).Round(time.Second))
	}
	if v.Token.State == tokenGood && len(v.Token.Claims) == 0 {
		token += "; it shows nothing of what is in it"
	}
	rows = append(rows, []string{"token", token})
	for _, c := range v.Token.Claims {
		value := strings.Map(func(r rune) rune {
			if !unicode.IsPrint(r) {
				return ' ' // a terminal would obey it
			}
			return r
		}, string(c.Value))
		if c.Note != "" {
			value += "  (" + c.Note + ")"
		}
		rows = append(rows, []string{"  " + c.Name, value})
	}
	return rows
}
