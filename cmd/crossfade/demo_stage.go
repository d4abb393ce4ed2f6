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
	"strings"
	"time"

	"crossfade/cmd/crossfade/app"
	"crossfade/cmd/crossfade/demo"
	"crossfade/config"
	"crossfade/gateway/identity"
	"crossfade/gateway/luigi/captures"
	"crossfade/rollout"
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

// scene is what one team does in the demo.
type scene struct {
	team    identity.Team
	capture string
	// workers says what goes along with each recorded worker's password.
	workers []tokens
	percent rollout.Percent
}

func scenes() []scene {
	return []scene{
		{"data-eng", captures.Success, []tokens{rightToken, rightToken}, 0},
		{"billing", captures.Contention, []tokens{rightToken, wrongToken}, 0},
		{"search", captures.Failure, []tokens{noTokens, noTokens}, 0},
		{"ml-platform", captures.Success, []tokens{rightToken, noTokens}, 50},
	}
}

// demoStage is everything that runs during the demo: a real gateway between
// real HTTP clients, with real agents beside those that have tokens, a stand-in
// scheduler and a built-in identity provider.
type demoStage struct {
	dir       string
	accounts  map[identity.Team]demo.Account
	issuer    *demo.Issuer
	scheduler *http.Server
	upstream  string
	app       *app.App
	table     *rollout.Table // of the app, for who goes on after its end
	agents    agents
	tally     *tally
	fetched   int64 // by the agents, once run has ended
}

// newDemoStage writes the demo's files to dir and starts everything but the
// traffic; what agents have to say goes to n. On an error everything is closed.
func newDemoStage(ctx context.Context, dir, listen string, n *notice) (_ *demoStage, err error) {
	s := &demoStage{
		dir: dir, tally: newTally(scenes()),
		accounts: make(map[identity.Team]demo.Account), agents: make(agents),
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	clients := make(map[string]identity.Secret)
	for _, a := range demo.Accounts() {
		clients[a.User] = a.ClientSecret
		s.accounts[a.Team] = a
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
	file := filepath.Join(dir, "crossfade.yaml")
	s.app, err = app.New(ctx, app.Options{
		Load:    func() (*config.Config, error) { return config.Load(config.Source{File: file}) },
		Log:     slog.New(slog.DiscardHandler),
		Version: version,
		OnEvent: s.tally.saw,
	})
	if err != nil {
		return nil, err
	}
	s.table = s.app.Table()
	if err = s.table.Refresh(ctx); err != nil {
		return nil, err
	}
	for _, sc := range scenes() {
		if _, err = s.setPercent(ctx, sc.team, sc.percent, "where the demo begins"); err != nil {
			return nil, err
		}
	}
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
	metrics := freeOr("127.0.0.1:9091")
	if strings.HasSuffix(listen, ":0") { // any port will do, so none is taken that others want
		metrics = "127.0.0.1:0"
	}
	files := map[string]string{
		"users.htpasswd":  string(htpasswd),
		"principals.yaml": principals.String(),
		"roles.yaml":      "roles: { runner: { execute: [\"*\"], view: [\"*\"] } }\n",
		"crossfade.yaml": fmt.Sprintf(`# The demo's configuration; each start writes it anew.
mode: enforce
listen: %s
metrics: %s
upstream: { url: %s, profile: luigi }
legacy: { htpasswd: users.htpasswd }
oidc: { issuer: %s, audience: %s }
principals: principals.yaml
roles: roles.yaml
rollout: { stickiness: run }    # each loop of the demo is a new run
access_log: access.jsonl
help: { contact: "#platform" }
`, freeOr(listen), metrics, s.upstream, s.issuer.URL(), demoAudience),
	}
	for _, a := range demo.Accounts() {
		files[secretFile(a.User)] = a.ClientSecret.Reveal() + "\n"
	}
	for _, sc := range scenes() {
		files[filepath.Join("rollout.d", string(sc.team)+".yaml")] = fmt.Sprintf("percent: %d\n", sc.percent)
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

// setPercent is what saving a file does: it is applied at once.
func (s *demoStage) setPercent(ctx context.Context, team identity.Team, to rollout.Percent, why string) (rollout.State, error) {
	return s.table.Write(ctx, rollout.Change{
		Team: team, Percent: to, Expect: rollout.AnyRevision, Actor: "demo", Source: "demo", Reason: why,
	})
}

// play replays one team's traffic until ctx is done.
func (s *demoStage) play(ctx context.Context, sc scene) error {
	account := s.accounts[sc.team]
	connections := &http.Transport{MaxIdleConnsPerHost: 8}
	defer connections.CloseIdleConnections()
	var traffic *demo.Traffic
	traffic, err := demo.NewTraffic(demo.TrafficOptions{
		Capture:  sc.capture,
		BaseURL:  "http://" + s.app.Addr(),
		Client:   &http.Client{Transport: connections},
		User:     account.User,
		Password: account.Password,
		Through:  func(worker int) string { return s.agents.url(post{sc.team, sc.sends(worker)}) },
		Rename: func(loop int, worker string) string {
			// At the end stays the process id, by which the stand-in tells parts apart.
			name := strings.Replace(worker, "Worker(", fmt.Sprintf("Worker(loop=%d, team=%s, ", loop, sc.team), 1)
			for i, recorded := range traffic.Workers() {
				if recorded == worker {
					s.tally.starts(name, sc.sends(i))
				}
			}
			return name
		},
		Edition:  func(loop int) string { return fmt.Sprintf("%s, loop %d", sc.team, loop) },
		Pace:     0.35,
		OnResult: func(r demo.Result) { s.tally.sent(sc.team, r) },
	})
	if err != nil {
		return err
	}
	return traffic.Run(ctx)
}

func (sc scene) sends(worker int) tokens {
	return sc.workers[worker%len(sc.workers)]
}

// close ends what was started; the app ends by its own Run.
func (s *demoStage) close() {
	_ = s.agents.close()
	if s.app != nil {
		s.app.Close()
	}
	if s.scheduler != nil {
		_ = s.scheduler.Close()
	}
	if s.issuer != nil {
		_ = s.issuer.Close()
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

// run serves and plays until ctx is done, then drains. onFile is told of each
// file of a team lead that was saved.
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
	s.app = nil
	s.close()
	return errors.Join(errs...)
}
