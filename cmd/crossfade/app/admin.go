package app

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"time"

	"crossfade/config"
	"crossfade/gateway/console"
	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/effect"
	"crossfade/rollout/readiness"
)

// adminTimeout bounds the reading of a request to the admin API, and its reply.
const adminTimeout = 30 * time.Second

// listenAdmin opens the listener of the admin API, if there is to be one. It comes
// before the API is built, because who reaches the listener decides what is open.
func (a *App) listenAdmin(c *config.Config) error {
	if c.Admin.Address == "" {
		return nil
	}
	var err error
	if a.admin, err = net.Listen("tcp", c.Admin.Address); err != nil {
		return fmt.Errorf("admin.address: %w: choose another address, or \"off\"", err)
	}
	if a.adminTLS = c.Admin.TLS.Enabled(); a.adminTLS {
		a.admin = tlsListener(a.admin, &a.adminCert)
	}
	a.telemetry.AdminRoutes(console.Routes())
	if a.adminIsLocal() && a.options.Notices != nil {
		a.oneTime = identity.NewSecret(rand.Text())
	}
	return nil
}

// adminIsLocal reports whether only this machine reaches the admin API.
func (a *App) adminIsLocal() bool {
	tcp, ok := a.admin.Addr().(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// AdminAddr is where the admin API is; empty when it is disabled.
func (a *App) AdminAddr() string {
	if a.admin == nil {
		return ""
	}
	return a.admin.Addr().String()
}

// buildConsole builds the admin API of a configuration; nil without a listener.
func (a *App) buildConsole(c *config.Config, parts *Parts) (*console.Console, error) {
	if a.admin == nil {
		return nil, nil
	}
	ready := a.audit.Ready
	if a.auditor == nil {
		ready = nil // recording is no condition
	}
	return console.New(console.Options{
		Ready:  ready,
		Tokens: parts.Verifier, Table: a.table, History: a.store.Store, Store: a.store.Store, Self: a.name, Guard: a.assessor, Readiness: a.assessor, Open: a.files.open,
		Forecast: func(ctx context.Context, s rollout.State, step rollout.Step) (effect.Forecast, error) {
			return ForecastOf(ctx, a.store.Store, a.assessor, s, step, a.keying, time.Now())
		},
		InEffect: a.inEffect, Days: a.assessor.Days,
		Waivers: func() map[identity.Team][]readiness.Waiver { return a.settings.Load().waivers },
		Teams:   parts.Directory.Teams(), Files: a.fileStatus, Nearest: config.Nearest,
		Credentials: func(team identity.Team) []string { return (*a.credentials.Load())[team] },
		Observed:    a.telemetry.AdminRequest,
		Viewers:     accessOf(c.Admin.Viewers), Leads: accessOf(c.Admin.Leads), Operators: accessOf(c.Admin.Operators),
		Guide: c.Help.URL, Contact: c.Help.Contact,
		Loopback: a.adminIsLocal(), OneTime: a.oneTime,
		Changed: func(_ context.Context, d console.Done) { a.audit.Changed(d.Change, d.Was, d.Is, d.Token, d.Client) },
		Log:     a.log,
	})
}

func accessOf(c config.Access) console.Access {
	return console.Access{Groups: c.Groups, Principals: c.Principals}
}

// inEffect is how much of a team its percentage is in effect for, as far as that
// is known. The console is built before anything is looked at.
func (a *App) inEffect(s rollout.State) (effect.Share, bool) {
	if a.effect == nil {
		return effect.Share{}, false
	}
	return a.effect.Share(s)
}

// fileStatus is what is known of the teams' files.
func (a *App) fileStatus() map[identity.Team]console.File {
	status := a.reconciler.Status()
	files := make(map[identity.Team]console.File, len(status))
	for team, s := range status {
		files[team] = console.File{Management: s.Management.String(), Name: s.File, Warnings: s.Warnings}
	}
	return files
}

func (a *App) adminServer() *http.Server {
	s := a.server(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { a.console.Load().ServeHTTP(w, r) }))
	s.ReadTimeout, s.WriteTimeout = adminTimeout, adminTimeout
	return s
}

// printOneTime says where the admin API is and what opens it. It goes past the
// log, which may be sent to places where no secret belongs.
func (a *App) printOneTime() {
	if a.oneTime.Empty() {
		return
	}
	scheme := "http"
	if a.adminTLS {
		scheme = "https"
	}
	_, _ = fmt.Fprintf(a.options.Notices, "Console: %s://%s/\nAdmin API: %s://%s%s\nOne-time token, an operator's on this machine until this process ends: %s\n",
		scheme, a.AdminAddr(), scheme, a.AdminAddr(), console.Prefix, a.oneTime.Reveal())
}
