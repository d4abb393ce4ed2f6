// Package console is the admin API and the pages for people: it shows what the
// teams stand at and lets those who may change it, over HTTP under /api/v1/.
// openapi.json describes the API, and a test holds description and handlers
// together.
//
// # The pages
//
// They are for reading: nothing on them changes anything. All is rendered here and
// works without scripts; a script that comes from here renews what changes. They
// stand on what the API says, and whoever may read that may see them.
//
// # Who may do what
//
// A change always needs a credential: a token of one of the gateway's issuers,
// judged by the same rules as those of requests, or the one-time token that a
// process prints when it starts. A lead changes the own team, which is the one of
// the token's principal; an operator changes every team. A worker's token makes
// nobody a lead: the configuration names who is one.
//
// What sets a percentage at once passes by the checks, so a lead may only lower
// by it; to raise, a lead asks, as the team's file does, and the guard decides.
//
// What nobody can take back is for operators: a retirement, and what a restore
// makes of a store. A lead asks for a retirement by the team's file, where others
// look at it before it counts; here one token that was stolen would do. A restore
// puts back what the gateway itself has known and nothing that a caller brings:
// that could retire a team past the guard.
//
// Where the listener is out of reach for other machines, reading is open and the
// one-time token is good. A request that something in front has passed on is
// never from this machine, whatever its address says. Everywhere else reading
// needs to be a viewer, a lead or an operator.
//
// # Browsers
//
// There are no cookies, so no page of another site can change anything with what
// a browser remembers, and who wants to see the pages from another machine needs
// something in front that sends a token. It could still read, by a name of its own that resolves to
// 127.0.0.1; therefore the Host of a request from this machine must be a name of
// this machine. Requests that a page of another origin made are refused.
package console

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/assess"
	"crossfade/rollout/effect"
	"crossfade/rollout/fleet"
	"crossfade/rollout/readiness"
)

const (
	// Prefix is where the API is.
	Prefix = "/api/v1/"
	// source is what the history says of where changes came from.
	source = "api"
	// timeout bounds what a request asks of the store and the guard, and of keys.
	timeout = 10 * time.Second
)

// Authenticator judges tokens. It never returns nil.
type Authenticator interface {
	Authenticate(ctx context.Context, c identity.Credential) *identity.Authentication
}

// Table is what the API reads and changes; a rollout.Table is one.
type Table interface {
	Loaded() bool
	Err() error
	LoadedAt() time.Time
	Lookup(team identity.Team) (rollout.State, bool)
	States() []rollout.State
	Known() rollout.Snapshot
	Refresh(ctx context.Context) error
	Write(ctx context.Context, c rollout.Change) (rollout.State, error)
}

// History reads what was done to a team, the last first.
type History interface {
	History(ctx context.Context, team identity.Team, limit int) ([]rollout.Entry, error)
}

// Forecast says what a step of a team would do to its runs.
type Forecast func(ctx context.Context, s rollout.State, step rollout.Step) (effect.Forecast, error)

// Store is what the API asks of the store itself. Errors match
// rollout.ErrUnavailable.
type Store interface {
	Load(ctx context.Context) (rollout.Snapshot, error)
	Restore(ctx context.Context, s rollout.Snapshot, by rollout.Setting) ([]identity.Team, error)
	Fleet(ctx context.Context) (all []fleet.Replica, now time.Time, err error)
}

// File is what is known of a team's file.
type File struct {
	// Management says how the file and the team's request agree, Name is the
	// file's; "" for none.
	Management, Name string
	// Warnings are what stands in it without effect.
	Warnings []string
}

// Options are the options of New. All but Readiness, Days, Waivers, InEffect,
// Credentials, OneTime, Nearest, Ready, Changed, Observed, Now, Self, Guide, Contact and the
// accesses are required.
type Options struct {
	Tokens  Authenticator
	Table   Table
	History History
	Store   Store
	Guard   rollout.Guard
	// Readiness says how ready teams are.
	Readiness Assessor
	// Forecast is asked about each step of a plan.
	Forecast Forecast
	// Days, if set, returns how the last days of a team went, the present one last
	// and at most so many.
	Days func(ctx context.Context, team identity.Team, most int) ([]assess.Day, error)
	// Waivers, if set, returns the security signals that the configuration accepts.
	// The map is only read.
	Waivers func() map[identity.Team][]readiness.Waiver
	// InEffect, if set, returns for how many of its runs a team's percentage is in
	// effect; false while that is not known. It must not wait for anything.
	InEffect func(rollout.State) (effect.Share, bool)
	// Teams are the teams of the configuration.
	Teams []identity.Team
	// Credentials lists the ids of the static credentials of a team, which end with
	// its retirement; nil is none.
	Credentials func(identity.Team) []string
	// Self is the id of this gateway among all.
	Self string
	// Nearest, if set, returns the candidate that was most likely meant by a word,
	// or "".
	Nearest func(word string, candidates []string) string
	// Files returns what is known of the teams' files. The map is only read.
	Files func() map[identity.Team]File
	// Open reports whether a team's raises may be applied at a time.
	Open func(team identity.Team, now time.Time) bool
	// Guide is the address of what the configuration calls help, and Contact whom to
	// ask, as people write it: "#platform".
	Guide, Contact string
	// Viewers may read, Leads may change their own team, Operators all of them.
	Viewers, Leads, Operators Access
	// Loopback tells that only this machine reaches the listener.
	Loopback bool
	// OneTime is the token that serves as an operator's on this machine; none
	// when empty.
	OneTime identity.Secret
	// Ready, if set, reports whether a change can be recorded; none is made while it
	// cannot.
	Ready func() bool
	// Changed is told of each change that was made, after it. It must not block.
	Changed func(ctx context.Context, done Done)
	// Observed, if set, is told of each request when it is answered: what it is for,
	// one of Routes or "" for anything else, and the status. It must not block.
	Observed func(route string, status int)
	Log      *slog.Logger
	// Now is the clock, time.Now by default.
	Now func() time.Time
}

// Done is a change that was made, and by whom.
type Done struct {
	Change rollout.Change
	// Was and Is are the team before and after.
	Was, Is rollout.State
	// Token is what the caller's token says; nil for the one-time token.
	Token *identity.TokenInfo
	// Client is the address that it came from, as the connection says; the zero
	// Addr if that is none.
	Client netip.Addr
}

// Console is the API. It is safe for concurrent use.
type Console struct {
	o      Options
	routes *http.ServeMux
	// turn has room for the change that is under way. Changes that read at once
	// and write one after another would only meet each other's conflicts.
	turn chan struct{}
	// looking is whoever looks at all teams.
	looking singleflight.Group
}

// New checks the options and builds the API.
func New(o Options) (*Console, error) {
	if o.Tokens == nil || o.Table == nil || o.History == nil || o.Store == nil || o.Guard == nil || o.Readiness == nil || o.Forecast == nil || o.Files == nil || o.Open == nil || o.Log == nil {
		return nil, errors.New("admin API: tokens, table, history, store, guard, readiness, forecast, files, hours and a log are needed")
	}
	if o.Ready == nil {
		o.Ready = func() bool { return true }
	}
	if o.InEffect == nil {
		o.InEffect = func(rollout.State) (effect.Share, bool) { return effect.Share{}, false }
	}
	if o.Changed == nil {
		o.Changed = func(context.Context, Done) {}
	}
	if o.Credentials == nil {
		o.Credentials = func(identity.Team) []string { return nil }
	}
	if o.Waivers == nil {
		o.Waivers = func() map[identity.Team][]readiness.Waiver { return nil }
	}
	if o.Nearest == nil {
		o.Nearest = func(string, []string) string { return "" }
	}
	if o.Observed == nil {
		o.Observed = func(string, int) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	c := &Console{o: o, turn: make(chan struct{}, 1)}
	c.routes = c.mux()
	return c, nil
}

// ServeHTTP answers one request: who it is from is settled before anything else.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	if !strings.HasPrefix(r.URL.Path, Prefix) {
		pageHeaders(h)
	}
	answer := &statusWriter{ResponseWriter: w, status: http.StatusOK}
	defer func() { c.o.Observed(c.routeOf(r), answer.status) }()
	who, refusal := c.admit(r)
	if refusal != nil && (refusal.unfit() || !isAsset(r)) {
		c.reject(answer, r, refusal)
		return
	}
	c.routes.ServeHTTP(answer, r.WithContext(context.WithValue(r.Context(), callerKey{}, who)))
}

// statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

type callerKey struct{}

// callerOf is whom admit has let in.
func callerOf(r *http.Request) caller {
	who, _ := r.Context().Value(callerKey{}).(caller)
	return who
}
