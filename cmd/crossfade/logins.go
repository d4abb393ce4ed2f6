package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	agenttoken "crossfade/gateway/agent/token"
)

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
	all, err := logins.All()
	if err != nil {
		return nil, err
	}
	exactly := "" // found by its name even if it cannot be read
	if o.issuer != "" && o.clientID != "" {
		exactly = logins.Of(o.issuer, o.clientID).Path()
	}
	all = slices.DeleteFunc(all, func(k agenttoken.Kept) bool {
		if exactly != "" {
			return k.Store.Path() != exactly
		}
		return o.issuer != "" && k.Session.Issuer != o.issuer || o.clientID != "" && k.Session.ClientID != o.clientID
	})
	if len(all) > 0 {
		return all, nil
	}
	where := ""
	if o.issuer != "" {
		where += " at " + o.issuer
	}
	if o.clientID != "" {
		where += " with client " + o.clientID
	}
	if where == "" {
		return nil, agenttoken.ErrNoLogin
	}
	return nil, fmt.Errorf("of logins%s: %w; `crossfade whoami` shows where you are", where, agenttoken.ErrNoLogin)
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

// loggedIn reports whether there is a login that could be used.
func (p *program) loggedIn() bool {
	logins, err := p.logins()
	if err != nil {
		return false
	}
	all, _ := logins.All()
	return len(all) > 0
}

// loginSource obtains tokens of a login: of the one that is named, which may be
// made later, or of the only one there is.
func (p *program) loginSource(o loginFlags) (agenttoken.Source, error) {
	logins, err := p.logins()
	if err != nil {
		return nil, err
	}
	if o.issuer == "" || o.clientID == "" {
		only, err := onlyLogin(logins, o)
		if err == nil {
			err = only.Err
		}
		if err != nil {
			return nil, usage("--source login: %w", err)
		}
		o.issuer, o.clientID = only.Session.Issuer, only.Session.ClientID
	}
	device, err := o.device(o.issuer, o.clientID)
	if err != nil {
		return nil, err
	}
	return agenttoken.NewLogin(device, logins.Of(o.issuer, o.clientID))
}
