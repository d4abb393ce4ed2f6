package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
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
