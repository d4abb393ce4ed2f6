package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"crossfade/cmd/crossfade/demo"
	agenttoken "crossfade/gateway/agent/token"
)

// exitInterrupted is the exit code of a command that a person broke off: the
// one of shells for SIGINT.
const exitInterrupted = 130

// loginFlags name a provider and what is asked of it.
type loginFlags struct {
	issuer, clientID, audience, resource, caFile string
	scopes                                       []string
}

// addLogin adds the flags that say which login is meant.
func (o *loginFlags) addLogin(c *cobra.Command) {
	c.Flags().StringVar(&o.issuer, "issuer", "", "the identity provider's URL, as it stands in iss")
	c.Flags().StringVar(&o.clientID, "client-id", "", "the name of the client there: a public one, for programs that people run")
	c.Flags().StringVar(&o.caFile, "ca-file", "", "PEM file of the authorities that are trusted for the provider; default: the system's")
}

// device speaks to the provider of a login.
func (o loginFlags) device(issuer, clientID string) (*agenttoken.Device, error) {
	d, err := agenttoken.NewDevice(agenttoken.Params{Issuer: issuer, ClientID: clientID, CAFile: o.caFile})
	if err != nil {
		return nil, usage("%w", err)
	}
	return d, nil
}

func (p *program) loginCommand() *cobra.Command {
	o := loginFlags{}
	c := &cobra.Command{
		Use:   "login",
		Short: "Log in as a person, for workers that you run by hand",
		Long: `Show an address and a code, and wait until you have entered it in a browser on any
device (RFC 8628). From then on ` + "`crossfade agent --source login`" + ` has tokens in your
name, and renews them by itself, until ` + "`crossfade logout`" + ` or the provider ends it.

The client must be a public one with the device grant and refresh tokens. Without
--scope, openid and offline_access are asked for, which makes most providers issue one.

There is one login for each issuer and client; others stay as they are. Without
--issuer and --client-id you log in again where you are logged in already, for the same
audience, scopes and resource.

A login is kept in $XDG_STATE_HOME/crossfade/login (~/.local/state), encrypted under a
key in $XDG_CONFIG_HOME/crossfade/login (~/.config), both readable to you alone: a copy
of one of the two directories is worth nothing.`,
		Example: `  crossfade login --issuer https://acme.okta.com/oauth2/luigi --client-id crossfade-cli --audience luigi
  crossfade agent exec --source login -- luigi --module pipelines LoadUsers
  crossfade login`,
		Args: cobra.NoArgs,
	}
	o.addLogin(c)
	c.Flags().StringVar(&o.audience, "audience", "", "the gateway's name at the issuer")
	c.Flags().StringSliceVar(&o.scopes, "scope", nil, "scopes to ask for, and no others (default openid,offline_access)")
	c.Flags().StringVar(&o.resource, "resource", "", "the target service of RFC 8707, a URI")
	out := outputFlag(c, "table", "json", "yaml")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := out.check(); err != nil {
			return err
		}
		kept, err := p.login(c.Context(), o, c.Flags().Changed)
		if err != nil {
			return err
		}
		if out.format != "table" {
			return out.write(p.stdout, viewOf(kept), nil)
		}
		_, err = fmt.Fprint(p.stdout, loggedInText(kept))
		return err
	}
	return c
}

// login logs a person in and keeps what comes of it.
func (p *program) login(ctx context.Context, o loginFlags, set func(flag string) bool) (agenttoken.Kept, error) {
	logins, err := p.logins()
	if err != nil {
		return agenttoken.Kept{}, err
	}
	request := agenttoken.Request{Audience: o.audience, Scopes: []string{"openid", "offline_access"}, Resource: o.resource}
	if o.issuer == "" || o.clientID == "" {
		before, err := onlyLogin(logins, o)
		if errors.Is(err, agenttoken.ErrNoLogin) {
			return agenttoken.Kept{}, usage("login: give the provider by --issuer and your client there by --client-id\nRun `crossfade login --help`.")
		} else if err == nil && before.Err != nil {
			err = usage("login: where you were logged in cannot be read, so give --issuer and --client-id: %w", before.Err)
		}
		if err != nil {
			return agenttoken.Kept{}, err
		}
		o.issuer, o.clientID = before.Session.Issuer, before.Session.ClientID
		request = before.Session.Request
		if set("audience") {
			request.Audience = o.audience
		}
		if set("resource") {
			request.Resource = o.resource
		}
	}
	if set("scope") {
		request.Scopes = strings.Fields(strings.Join(o.scopes, " "))
	}
	device, err := o.device(o.issuer, o.clientID)
	if err != nil {
		return agenttoken.Kept{}, err
	}
	var stop func()
	session, err := device.Login(ctx, request, func(prompt agenttoken.Prompt) { stop = p.prompt(prompt) })
	if stop != nil {
		stop()
	}
	if err != nil && ctx.Err() != nil {
		return agenttoken.Kept{}, &exitError{exitInterrupted, errors.New("login: interrupted, so nothing has changed")}
	}
	if err != nil {
		return agenttoken.Kept{}, err
	}
	store := logins.Of(o.issuer, o.clientID)
	// The one before is not revoked: to some providers that would mean the new
	// one too. Nobody holds it any more.
	before, err := store.Load(ctx)
	switch {
	case err == nil:
		_, _ = fmt.Fprintf(p.stderr, "This takes the place of the login of %s of %s.\n", somebody(before), before.Since.UTC().Format(time.RFC3339))
	case !errors.Is(err, agenttoken.ErrNoLogin):
		_, _ = fmt.Fprintf(p.stderr, "This takes the place of a login that could not be used any more: %s\n", err)
		if err := store.Delete(ctx); err != nil { // a key that is none would stay
			return agenttoken.Kept{}, err
		}
	}
	return agenttoken.Kept{Store: store, Session: session}, store.Save(ctx, session)
}

// prompt shows a person what to do, and how long there is: counted down on a
// terminal until stop is called.
func (p *program) prompt(prompt agenttoken.Prompt) (stop func()) {
	f, ok := p.stderr.(*os.File)
	terminal := false
	if ok {
		terminal, _ = demo.TerminalOf(f, p.getenv)
	}
	text := promptText(prompt)
	if terminal {
		_, _ = fmt.Fprint(p.stderr, text)
		return countdown(p.stderr, prompt.Expires)
	}
	if !prompt.Expires.IsZero() {
		text += "Waiting until " + prompt.Expires.UTC().Format(time.RFC3339) + ".\n"
	}
	_, _ = fmt.Fprint(p.stderr, text)
	return func() {}
}

func promptText(prompt agenttoken.Prompt) string {
	text := fmt.Sprintf("To log in, open this address on any device:\n\n    %s\n\nand enter the code\n\n    %s\n\n", prompt.URL, prompt.Code)
	if prompt.URLWithCode != "" {
		text += fmt.Sprintf("or open %s\nand compare the code.\n\n", prompt.URLWithCode)
	}
	return text
}

// countdown says every second, in place on the line of a terminal, how long
// there is until; stop empties the line and waits.
func countdown(w io.Writer, until time.Time) (stop func()) {
	const empty = "\r\x1b[K"
	end := make(chan struct{})
	var drawing sync.WaitGroup
	drawing.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			line := "Waiting for you. Ctrl-C gives up."
			if !until.IsZero() {
				left := max(time.Until(until), 0).Round(time.Second)
				line = fmt.Sprintf("Waiting for you, another %d:%02d. Ctrl-C gives up.", left/time.Minute, left%time.Minute/time.Second)
			}
			_, _ = io.WriteString(w, empty+line)
			select {
			case <-tick.C:
			case <-end:
				_, _ = io.WriteString(w, empty)
				return
			}
		}
	})
	return func() {
		close(end)
		drawing.Wait()
	}
}

func loggedInText(k agenttoken.Kept) string {
	s := k.Session
	text := fmt.Sprintf("Logged in as %s at %s (client %s).\n", somebody(s), s.Issuer, s.ClientID)
	if s.Until.IsZero() {
		text += "The login holds until the provider ends it; it does not say when.\n"
	} else {
		text += fmt.Sprintf("The login holds until %s unless it is used before then.\n", s.Until.UTC().Format(time.RFC3339))
	}
	return text + fmt.Sprintf("It is kept, encrypted, in %s, its key in %s.\n", k.Store.Path(), k.Store.KeyPath())
}

func somebody(s agenttoken.Session) string { return cmp.Or(s.Who, "somebody without a name") }

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

// logins are the person's.
func (p *program) logins() (*agenttoken.Logins, error) {
	state, ok := p.xdg("XDG_STATE_HOME", ".local/state")
	keys, alsoOK := p.xdg("XDG_CONFIG_HOME", ".config")
	if !ok || !alsoOK {
		return nil, usage("there is no place for a login: set HOME, or XDG_STATE_HOME and XDG_CONFIG_HOME, to absolute paths")
	}
	const name = "crossfade/login"
	logins, err := agenttoken.NewLogins(agenttoken.LoginsOptions{Dir: filepath.Join(state, name), KeyDir: filepath.Join(keys, name)})
	if err != nil {
		return nil, usage("XDG_STATE_HOME and XDG_CONFIG_HOME: %w", err)
	}
	return logins, nil
}

// xdg returns a directory of the XDG Base Directory Specification, by which
// unset, empty and relative ones mean the one below $HOME.
func (p *program) xdg(variable, below string) (dir string, ok bool) {
	if dir := p.getenv(variable); filepath.IsAbs(dir) {
		return dir, true
	}
	home := p.getenv("HOME")
	return filepath.Join(home, below), filepath.IsAbs(home)
}

// loginsFor returns the logins that are meant: all but those of other issuers
// and clients than the ones named. It is ErrNoLogin if there is none.
func loginsFor(logins *agenttoken.Logins, o loginFlags) ([]agenttoken.Kept, error) {
	if o.issuer != "" && o.clientID != "" {
		// Found by its name even if it cannot be read.
		only := logins.Of(o.issuer, o.clientID).Path()
		all, err := logins.All()
		all = slices.DeleteFunc(all, func(k agenttoken.Kept) bool { return k.Store.Path() != only })
		return some(all, o, err)
	}
	all, err := logins.All()
	return some(slices.DeleteFunc(all, func(k agenttoken.Kept) bool {
		return o.issuer != "" && k.Session.Issuer != o.issuer || o.clientID != "" && k.Session.ClientID != o.clientID
	}), o, err)
}

func some(all []agenttoken.Kept, o loginFlags, err error) ([]agenttoken.Kept, error) {
	switch {
	case err != nil:
		return nil, err
	case len(all) > 0:
		return all, nil
	case o.issuer == "" && o.clientID == "":
		return nil, agenttoken.ErrNoLogin
	}
	where := ""
	if o.issuer != "" {
		where += " at " + o.issuer
	}
	if o.clientID != "" {
		where += " with client " + o.clientID
	}
	return nil, &exitError{exitFailure, fmt.Errorf("of logins%s: %w; `crossfade whoami` shows where you are", where, agenttoken.ErrNoLogin)}
}

// onlyLogin returns the one login that is meant.
func onlyLogin(logins *agenttoken.Logins, o loginFlags) (agenttoken.Kept, error) {
	all, err := loginsFor(logins, o)
	if err != nil {
		return agenttoken.Kept{}, err
	}
	if len(all) == 1 {
		return all[0], nil
	}
	var b strings.Builder
	for _, k := range all {
		if k.Err != nil {
			fmt.Fprintf(&b, "\n  %s", k.Err)
			continue
		}
		fmt.Fprintf(&b, "\n  --issuer %s --client-id %s   (%s)", k.Session.Issuer, k.Session.ClientID, somebody(k.Session))
	}
	return agenttoken.Kept{}, usage("there are %d logins: say which one is meant%s", len(all), b.String())
}
