package app

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"crossfade/config"
	"crossfade/gateway/console"
	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/effect"
	"crossfade/rollout/evidence"
)

// adminTimeout bounds the reading of a request to the admin API, and its reply.
const adminTimeout = 30 * time.Second

// listenAdmin opens the listener of the admin API, if there is to be one. It comes
// before the API is built, because who reaches the listener decides what is open.
func (a *App) listenAdmin(c *config.Config) error {
	a.hours = &hours{app: a, dir: string(c.Rollout.Dir)}
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
	guard, err := evidence.NewGuard(a.store.Store, nil)
	if err != nil {
		return nil, err
	}
	ready := a.audit.Ready
	if a.auditor == nil {
		ready = nil // recording is no condition
	}
	return console.New(console.Options{
		Ready:  ready,
		Tokens: parts.Verifier, Table: a.table, History: a.store.Store, Store: a.store.Store, Self: a.name, Guard: guard, Open: a.hours.open,
		Forecast: func(ctx context.Context, s rollout.State, step rollout.Step) (effect.Forecast, error) {
			return ForecastOf(ctx, a.store.Store, s, step, a.keying, time.Now())
		},
		InEffect: a.inEffect,
		Teams:    parts.Directory.Teams(), Files: a.files, Nearest: config.Nearest,
		Credentials: func(team identity.Team) []string { return (*a.credentials.Load())[team] },
		Observed:    a.telemetry.AdminRequest,
		Viewers:     accessOf(c.Admin.Viewers), Leads: accessOf(c.Admin.Leads), Operators: accessOf(c.Admin.Operators),
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

// files is what is known of the teams' files.
func (a *App) files() map[identity.Team]console.File {
	status := a.reconciler.Status()
	files := make(map[identity.Team]console.File, len(status))
	for team, s := range status {
		files[team] = console.File{Management: s.Management.String(), Name: s.File}
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
	_, _ = fmt.Fprintf(a.options.Notices, "Admin API: %s://%s%s\nOne-time token, an operator's on this machine until this process ends: %s\n",
		scheme, a.AdminAddr(), console.Prefix, a.oneTime.Reveal())
}

// hoursFor is how long it is remembered what the teams' files say of their hours.
const hoursFor = time.Second

// hours is when the raises of each team are applied, as its file says. It is safe
// for concurrent use.
type hours struct {
	app *App
	dir string

	mu   sync.Mutex
	at   time.Time
	by   map[identity.Team]func(time.Time) bool
	fail bool
}

// open reports whether a team's raises may be applied at a time: always without a
// file, as for the reconciler, and never while the files cannot be read.
func (h *hours) open(team identity.Team, now time.Time) bool {
	if h.dir == "" {
		return true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Since(h.at) >= hoursFor {
		files, _, err := ReadTeamFiles(h.dir, *h.app.teams.Load(), h.app.running().Readiness)
		h.at, h.fail = time.Now(), err != nil
		h.by = make(map[identity.Team]func(time.Time) bool, len(files))
		for _, f := range files {
			h.by[f.Team] = f.Open
		}
	}
	open := h.by[team]
	return !h.fail && (open == nil || open(now))
}
