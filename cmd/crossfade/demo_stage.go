package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"crossfade/cmd/crossfade/app"
	"crossfade/cmd/crossfade/demo"
	"crossfade/config"
	"crossfade/gateway/identity"
	"crossfade/gateway/luigi/captures"
	"crossfade/rollout"
	"crossfade/rollout/redisstore"
)

// demoAudience is what the demo's tokens must be for; one agent of billing was
// set up for wrongAudience, as people do.
const (
	demoAudience  = "luigi"
	wrongAudience = "api://finance"
)

// Both are far less than a provider would take: little enough to be seen. A
// token ends before its key is withdrawn, at the second rotation after it.
const (
	rotateEvery   = 7 * time.Second
	tokenLifetime = 6 * time.Second // so agents fetch a new one after about four
)

// tokens is what goes along with the password of a worker of the demo.
type tokens uint8

const (
	rightToken tokens = iota
	wrongToken
	noTokens
)

// scene is what one account does in the demo.
type scene struct {
	team    identity.Team
	user    string
	capture string
	// workers says what goes along with each recorded worker's password.
	workers []tokens
	// pace is that of the replay: loops of about two seconds.
	pace float64
	// asks is what the team's file says at the start.
	asks rollout.Percent
	// loses tells that its workers start without their agents from its raise on,
	// as after a deployment that forgot them, until the raise was taken back.
	loses bool
}

func scenes() []scene {
	right := []tokens{rightToken, rightToken}
	return []scene{
		{team: "data-eng", user: "svc-etl", capture: captures.Success, workers: right, pace: 0.35},
		{team: "billing", user: "svc-billing", capture: captures.Contention, workers: []tokens{rightToken, wrongToken}, pace: 0.35},
		{team: "search", user: "svc-search", capture: captures.Failure, workers: []tokens{noTokens}, pace: 1.5},
		{team: "ml-platform", user: "svc-ml", capture: captures.Success, workers: right, pace: 0.35, asks: 50, loses: true},
		{team: "ml-platform", user: "svc-ml-batch", capture: captures.Success, workers: right, pace: 0.35, asks: 50, loses: true},
	}
}

// demoTeams are those of the scenes, in order.
func demoTeams() []identity.Team {
	var teams []identity.Team
	for _, sc := range scenes() {
		if !slices.Contains(teams, sc.team) {
			teams = append(teams, sc.team)
		}
	}
	return teams
}

// demoStage is everything that runs during the demo: a real gateway between
// real HTTP clients, with real agents beside those that have tokens, a stand-in
// scheduler and a built-in identity provider.
type demoStage struct {
	dir       string
	began     time.Time
	accounts  map[string]demo.Account // by user
	issuer    *demo.Issuer
	scheduler *http.Server
	upstream  string
	store     *redisstore.InProcess
	app       *app.App
	ran       bool // the app, which has closed itself then
	table     *rollout.Table
	repaired  atomic.Bool // see scene.loses
	agents    agents
	tally     *tally
	fetched   int64 // by the agents, once run has ended
	known     map[identity.Team]view
	looked    time.Time
	rest      time.Duration // until the next look
}

// newDemoStage writes the demo's files to dir and starts everything but the
// traffic; what agents have to say goes to n. On an error everything is closed,
// else close it.
func newDemoStage(ctx context.Context, dir, listen string, n *notice) (_ *demoStage, err error) {
	s := &demoStage{
		dir: dir, began: time.Now(), tally: newTally(scenes()),
		accounts: make(map[string]demo.Account), agents: make(agents), known: make(map[identity.Team]view),
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	clients := make(map[string]identity.Secret)
	for _, a := range demo.Accounts() {
		clients[a.User] = a.ClientSecret
		s.accounts[a.User] = a
	}
	if s.issuer, err = demo.NewIssuer(demo.IssuerOptions{Clients: clients, Lifetime: tokenLifetime}); err != nil {
		return nil, err
	}
	if err = s.startScheduler(); err != nil {
		return nil, err
	}
	if err = s.writeFiles(listen); err != nil {
		return nil, fmt.Errorf("the demo's files: %w", err)
	}
	if s.store, err = redisstore.OpenInProcess(redisstore.Options{MaxRuns: demoMaxRuns, InFlight: demoInFlight}); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "crossfade.yaml")
	s.app, err = app.New(ctx, app.Options{
		Load: func() (*config.Config, error) {
			c, err := config.Load(config.Source{File: file})
			if err != nil {
				return nil, err
			}
			scale(&c.Readiness)
			return c, nil
		},
		Log:     slog.New(slog.DiscardHandler),
		Version: thisBuild().Version,
		Store:   s.store,
		OnEvent: s.tally.saw,
		// The store is in this process: what is late is the machine, and not the store,
		// and a run whose latch is late would be spared for good.
		StoreTimeout: 10 * time.Second,
	})
	if err != nil {
		return nil, err
	}
	s.table = s.app.Table()
	if err = s.startAgents(ctx, n); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *demoStage) startScheduler() error {
	handler, err := demo.NewScheduler()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.upstream = "http://" + l.Addr().String()
	s.scheduler = &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = s.scheduler.Serve(l) }()
	return nil
}

// writeFiles writes what a platform engineer and four team leads would.
func (s *demoStage) writeFiles(listen string) error {
	htpasswd, err := demo.Htpasswd(demo.Accounts())
	if err != nil {
		return err
	}
	var principals strings.Builder
	for _, a := range demo.Accounts() {
		fmt.Fprintf(&principals, "%s: { team: %s, oidc: { subject: %s }, roles: [runner] }\n", a.User, a.Team, a.User)
	}
	metrics, admin := freeOr("127.0.0.1:9091"), freeOr("127.0.0.1:8081")
	if strings.HasSuffix(listen, ":0") { // any port will do, so none is taken that others want
		metrics, admin = "127.0.0.1:0", "127.0.0.1:0"
	}
	files := map[string]string{
		"users.htpasswd":  string(htpasswd),
		"principals.yaml": principals.String(),
		"roles.yaml":      "roles: { runner: { execute: [\"*\"], view: [\"*\"] } }\n",
		"crossfade.yaml": fmt.Sprintf(`# The demo's configuration; each start writes it anew.
mode: enforce
listen: %s
metrics: %s
admin: %s
upstream: { url: %s, profile: luigi }
legacy: { htpasswd: users.htpasswd }
oidc: { issuer: %s, audience: %s }
principals: principals.yaml
roles: roles.yaml
rollout: { dir: rollout.d, stickiness: run }    # each loop of the demo is a new run
access_log: access.jsonl
help: { contact: "#platform" }
`, freeOr(listen), metrics, admin, s.upstream, s.issuer.URL(), demoAudience),
	}
	for _, a := range demo.Accounts() {
		files[secretFile(a.User)] = a.ClientSecret.Reveal() + "\n"
	}
	for _, sc := range scenes() {
		files[filepath.Join("rollout.d", string(sc.team)+".yaml")] = fmt.Sprintf("percent: %d\n", sc.asks)
	}
	if err := os.MkdirAll(filepath.Join(s.dir, "rollout.d"), 0o750); err != nil {
		return err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// freeOr returns the address if nobody listens there, else the same host with
// any free port.
func freeOr(address string) string {
	l, err := net.Listen("tcp", address)
	if err != nil {
		host, _, _ := net.SplitHostPort(address)
		return net.JoinHostPort(host, "0")
	}
	_ = l.Close()
	return address
}

// play replays one account's traffic until ctx is done.
func (s *demoStage) play(ctx context.Context, sc scene) error {
	account := s.accounts[sc.user]
	connections := &http.Transport{MaxIdleConnsPerHost: 8}
	defer connections.CloseIdleConnections()
	var traffic *demo.Traffic
	var sends []tokens // by worker, as it has started
	traffic, err := demo.NewTraffic(demo.TrafficOptions{
		Capture:  sc.capture,
		BaseURL:  "http://" + s.app.Addr(),
		Client:   &http.Client{Transport: connections},
		User:     account.User,
		Password: account.Password,
		Rename: func(loop int, worker string) string {
			// At the end stays the process id, by which the stand-in tells parts apart.
			name := strings.Replace(worker, "Worker(", fmt.Sprintf("Worker(loop=%d, account=%s, ", loop, sc.user), 1)
			i := slices.Index(traffic.Workers(), worker)
			sends[i] = s.sends(sc, i)
			s.tally.starts(sc.team, name, sends[i])
			return name
		},
		Through:  func(worker int) string { return s.agents.url(post{sc.user, sends[worker]}) },
		Edition:  func(loop int) string { return fmt.Sprintf("%s, loop %d", sc.user, loop) },
		Pace:     sc.pace,
		OnResult: func(r demo.Result) { s.tally.sent(sc.team, r) },
	})
	if err != nil {
		return err
	}
	sends = make([]tokens, len(traffic.Workers()))
	return traffic.Run(ctx)
}

// sends is what goes along with the password of a worker that starts now.
func (s *demoStage) sends(sc scene, worker int) tokens {
	if sc.loses && s.lost(sc.team) {
		return noTokens
	}
	return sc.workers[worker%len(sc.workers)]
}

// lost reports whether the workers of a team start without their agents: since it
// was raised, until the raise was taken back by itself; then they are put back for
// good.
func (s *demoStage) lost(team identity.Team) bool {
	state, _ := s.table.Lookup(team)
	if state.Hold.Source == byRollback {
		s.repaired.Store(true)
	}
	return state.Percent > 0 && !s.repaired.Load()
}

// close ends what was started; the app ends by its own Run.
func (s *demoStage) close() {
	_ = s.agents.close()
	if s.app != nil && !s.ran {
		s.app.Close()
	}
	if s.scheduler != nil {
		_ = s.scheduler.Close()
	}
	if s.issuer != nil {
		_ = s.issuer.Close()
	}
	if s.store != nil {
		_ = s.store.Close()
	}
}

// rotateKeys lets the identity provider sign with a new key now and then, as
// real ones do, until ctx is done. No request may be lost over it.
func (s *demoStage) rotateKeys(ctx context.Context) error {
	tick := time.NewTicker(rotateEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := s.issuer.Rotate(); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// run serves and plays until ctx is done, then drains. The store stays open, for
// what is to be read at the end. Run may be called once.
func (s *demoStage) run(ctx, force context.Context) error {
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- s.app.Run(serving, force) }()

	played := make(chan error, len(scenes()))
	for _, sc := range scenes() {
		go func() { played <- s.play(ctx, sc) }()
	}
	errs := []error{s.rotateKeys(ctx)}
	for range scenes() {
		errs = append(errs, <-played)
	}
	s.fetched = s.agents.fetched()
	errs = append(errs, s.agents.close())
	stop() // the last request was answered: now the gateway may end
	errs = append(errs, <-ended)
	s.ran = true
	return errors.Join(errs...)
}
