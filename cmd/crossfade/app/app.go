// Package app is the running gateway: it wires a configuration to the packages
// that do the work, listens, reloads and drains. Commands and tests embed it.
package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"crossfade/config"
	"crossfade/gateway"
	"crossfade/gateway/audit"
	"crossfade/gateway/console"
	"crossfade/gateway/identity"
	"crossfade/gateway/luigi"
	"crossfade/gateway/oidcauth"
	"crossfade/gateway/probe"
	"crossfade/gateway/shadow"
	"crossfade/gateway/telemetry"
	"crossfade/rollout"
	"crossfade/rollout/assess"
	"crossfade/rollout/effect"
	"crossfade/rollout/evidence"
	"crossfade/rollout/fleet"
	"crossfade/rollout/reconcile"
)

// Options configures an App.
type Options struct {
	// Load reads the configuration: once at the start and again at each
	// reload. Required.
	Load func() (*config.Config, error)
	// Log is what the gateway has to say about itself; access lines go where
	// the configuration says. Required.
	Log     *slog.Logger
	Version string
	// Store replaces the Redis of the configuration; the caller closes it.
	Store Store
	// OnEvent, if set, is told of every event before telemetry. It must not
	// block.
	OnEvent func(*gateway.Event)
	// Stdout is where audit lines go that the configuration sends to the
	// standard output; os.Stdout by default.
	Stdout io.Writer
	// Notices is where the one-time token of the admin API is printed; nil makes
	// none.
	Notices io.Writer
	// Watch reloads when a file of the configuration changes.
	Watch bool
	// Notify tells a service manager of the gateway's life, in the words of
	// sd_notify(3); nil tells nobody.
	Notify func(state string) error
	// Watchdog is how often Notify hears that the gateway runs; 0 is never.
	Watchdog time.Duration
	// ProbeSettle is within which time a new probe has its first turn; the zero
	// value is right for all but tests.
	ProbeSettle time.Duration
	// StoreTimeout bounds what a request waits for the store; 50 ms when 0, which is
	// right where the store is another process.
	StoreTimeout time.Duration
	// Keys says how keys of issuers are fetched; the zero value is right for
	// all but tests. OnRefresh is the App's own.
	Keys oidcauth.ProviderOptions
}

// App is a gateway that listens. Create it with New, serve with Run.
type App struct {
	options   Options
	log       *slog.Logger
	started   time.Time
	telemetry *telemetry.Telemetry
	providers *oidcauth.Providers
	store     *store
	table     *rollout.Table
	runs      *rollout.Runs
	registry  *luigi.Registry
	evidence  *evidence.Recorder
	name      string                 // of this process among all gateways
	hash      atomic.Pointer[string] // of the running configuration
	member    *fleet.Member
	// reconciler follows the teams' files and watches raises; mistakes are those of
	// the files.
	reconciler *reconcile.Reconciler
	mistakes   atomic.Pointer[config.Errors]
	// keying is what runs are bucketed by, and effect how much of each team its
	// percentage is in effect for.
	keying rollout.Keying
	effect *effect.Watcher
	// Of the running configuration: the teams, sorted, and the ids of each one's
	// static credentials.
	teams       atomic.Pointer[[]string]
	credentials atomic.Pointer[map[identity.Team][]string]
	// assessor says how ready teams are, by the settings of the running configuration
	// and what the teams' files say.
	assessor  *assess.Assessor
	assessed  *assess.Watcher
	settings  atomic.Pointer[settings]
	files     *fileView
	shadow    *shadow.Runner
	transport *http.Transport
	accessLog *accessLog
	audit     *audit.Trail // nil without one
	// auditor is what must be ready before anything is served, nil if nothing
	// must.
	auditor gateway.Auditor
	probes  *probe.Runner
	// profile is the one that runs were set up for: requests must not be read by
	// another one after a reload.
	profile config.Profile

	handler atomic.Pointer[gateway.Handler]
	// console is the admin API, nil without a listener for it; oneTime is the token
	// that is printed.
	console atomic.Pointer[console.Console]
	oneTime identity.Secret
	cert    atomic.Pointer[tls.Certificate]
	// adminTLS tells that the admin listener speaks TLS, with adminCert.
	adminTLS  bool
	adminCert atomic.Pointer[tls.Certificate]

	reload  sync.Mutex // one reload at a time; guards config
	config  *config.Config
	watcher *config.Watcher
	// questions is when a proxy's question was refused and logged last; nanoseconds.
	questions atomic.Int64

	listener net.Listener
	metrics  net.Listener
	admin    net.Listener
	draining atomic.Bool

	supervisor supervisor // systemd, or nobody
}

// New loads the configuration, builds everything and opens the listeners, so
// that a bad configuration or a taken port is an error before anything is
// served. Nothing that is away at the start keeps it from starting: neither
// Redis nor an issuer nor the upstream. Call Run, or Close if you will not.
func New(ctx context.Context, o Options) (_ *App, err error) {
	c, err := o.Load()
	if err != nil {
		return nil, err
	}
	a := &App{options: o, log: o.Log, started: time.Now(), name: replicaName()}
	a.supervisor = supervisor{notify: o.Notify, log: o.Log}
	defer func() {
		if err != nil {
			a.Close()
		}
	}()
	a.reload.Lock() // a change that is seen from here on waits until all is built
	defer a.reload.Unlock()
	if o.Watch {
		if c, err = a.watch(c.Files()); err != nil {
			return nil, err
		}
	}
	a.config, a.profile = c, c.Upstream.Profile
	if a.accessLog, err = openAccessLog(c.AccessLog); err != nil {
		return nil, err
	}
	a.telemetry, err = telemetry.New(ctx, telemetry.Options{
		Version: o.Version, Issuers: issuerNames(c),
		AccessLog: a.accessLog.writer(), AccessLogFormat: a.accessLog.format, AccessLogColor: a.accessLog.terminal,
		Report: func(err error) { report(a.log, "telemetry", err) },
	})
	if err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	o.Keys.OnRefresh = a.telemetry.JWKSRefresh
	a.providers = oidcauth.NewProviders(o.Keys)
	if a.store, err = openStore(c.Redis, o.Store); err != nil {
		return nil, err
	}
	a.telemetry.RedisUp(true) // until it is known to be away
	if a.audit, err = a.openAudit(c); err != nil {
		return nil, err
	}
	if c.Audit.Required {
		a.auditor = a.audit
	}
	path := snapshotPath(c)
	known, err := LoadSnapshot(path)
	if err != nil {
		return nil, err
	}
	var initial *rollout.Snapshot // to serve from while Redis is away
	if c.Rollout.ColdStart == config.ColdStartSnapshot {
		initial = known
	}
	a.table, err = rollout.NewTable(rollout.TableOptions{
		Store: a.store.Store, Report: a.storeReports, Changed: a.rolloutChanged(path), Initial: initial, Known: known,
	})
	if err != nil {
		return nil, err
	}
	a.keying = KeyingOf(c)
	a.runs, err = rollout.NewRuns(rollout.RunsOptions{
		Table: a.table, Store: a.store.Store, Stickiness: a.keying.Stickiness, LatchRuns: a.keying.Runs,
		Timeout: a.options.StoreTimeout,
	})
	if err != nil {
		return nil, err
	}
	a.registry, err = luigi.NewRegistry(luigi.RegistryOptions{Store: a.store.Store, Abandoned: a.audit.Executed, Timeout: a.options.StoreTimeout})
	if err != nil {
		return nil, err
	}
	a.evidence, err = evidence.NewRecorder(evidence.RecorderOptions{
		Store: a.store.Store, Replica: a.name, Report: func(err error) { report(a.log, "recording of evidence", err) },
		Lost: func(err error) { a.log.Error("evidence is lost", "error", err) },
	})
	if err != nil {
		return nil, err
	}
	a.telemetry.ObserveEvidence(a.evidence.Lost)
	a.shadow = shadow.NewRunner(shadow.RunnerOptions{
		Queue: c.Shadow.Queue, Workers: c.Shadow.Workers, Deadline: c.Shadow.Timeout,
	})
	a.telemetry.ObserveShadow(a.shadow.Depth, a.shadow.Shed)
	a.telemetry.ObserveRollout(a.table, a.runs.Latched)
	if a.probes, err = probe.NewRunner(probeRecorder{a.telemetry.Probes(), a.audit, a.log}); err != nil {
		return nil, err
	}
	a.transport = gateway.NewTransport()
	a.transport.ResponseHeaderTimeout = c.Upstream.Timeout
	a.files = &fileView{dir: string(c.Rollout.Dir), read: a.readFiles}
	if err = a.assessTeams(); err != nil {
		return nil, err
	}
	if err = a.listenAdmin(c); err != nil {
		return nil, err
	}
	if err = a.apply(c); err != nil {
		return nil, err
	}
	// What looks at teams asks which gateways there are.
	if err = a.join(); err != nil {
		return nil, err
	}
	if err = a.watchEffect(); err != nil {
		return nil, err
	}
	stateDir := ""
	if path != "" {
		stateDir = filepath.Dir(path)
	}
	if err = a.watchReadiness(stateDir); err != nil {
		return nil, err
	}
	if err = a.follow(c); err != nil {
		return nil, err
	}
	if err = a.listen(c); err != nil {
		return nil, err
	}
	return a, nil
}

// watch reloads whenever a file of the configuration changes; a failed reload
// has said so itself. It loads the configuration once more, so that no change
// falls between the loading and the watching. The caller holds reload.
func (a *App) watch(files []string) (*config.Config, error) {
	var err error
	if a.watcher, err = config.NewWatcher(files, func() { _ = a.Reload() }); err != nil {
		return nil, fmt.Errorf("watching the configuration: %w", err)
	}
	c, err := a.options.Load()
	if err != nil {
		return nil, err
	}
	a.watcher.SetFiles(c.Files())
	return c, nil
}

// apply builds the parts of c and puts them in force.
func (a *App) apply(c *config.Config) error {
	parts, err := Build(c, a.providers, Hooks{OnCache: a.telemetry.TokenCache})
	if err != nil {
		return err
	}
	cert, err := loadCertificate(telemetry.ListenerClients, c.Listen.TLS)
	if err != nil {
		return err
	}
	adminCert, err := loadCertificate(telemetry.ListenerAdmin, c.Admin.TLS)
	if err != nil {
		return err
	}
	running := *c
	running.Upstream.Profile = a.profile
	handler, err := NewHandler(&running, parts, Shared{
		Rollout: a.runs, Registry: a.registry, Upstream: a.transport, Shadow: a.shadow,
		Recorder: recorder{a.telemetry, a.audit, a.evidence, &a.settings, &a.questions, a.log, a.options.OnEvent}, Auditor: a.auditor,
		Transport:  a.telemetry.Transport(ModeOf(c), a.transport),
		Deprecated: a.started,
		ErrorLog:   slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
		Legacy:     a.telemetry.Authenticator,
		Tokens:     a.telemetry.TokenAuthenticator,
	})
	if err != nil {
		return err
	}
	admin, err := a.buildConsole(c, parts)
	if err != nil {
		return err
	}
	a.audit.SetConfiguration(c.Hash())
	a.telemetry.SetTeams(parts.Directory.Teams())
	a.setTeams(parts.Directory.Teams())
	credentials := CredentialsOf(parts.Keyring)
	a.credentials.Store(&credentials)
	a.settings.Store(settingsOf(c, parts.Keyring))
	a.telemetry.SetIssuers(issuerNames(c))
	if cert != nil { // a listener that began with TLS keeps its certificate when none is named any more
		a.telemetry.CertificateExpiry(telemetry.ListenerClients, cert.Leaf.NotAfter)
		a.cert.Store(cert)
	}
	if adminCert != nil && a.adminTLS {
		a.telemetry.CertificateExpiry(telemetry.ListenerAdmin, adminCert.Leaf.NotAfter)
		a.adminCert.Store(adminCert)
	}
	a.handler.Store(handler)
	a.console.Store(admin)
	parts.Probes.Settle = a.options.ProbeSettle
	if a.auditor != nil {
		parts.Probes.Ready = a.auditor.Ready
	}
	a.probes.SetPlan(parts.Probes)
	hash := c.Hash()
	a.hash.Store(&hash)
	a.telemetry.Reloaded(true, hash)
	return nil
}

// storeReports notes when the store goes away, when it is not what it was, and
// when all is well again. The percentages in force stay as they are meanwhile.
func (a *App) storeReports(err error) {
	a.telemetry.RedisUp(err == nil || errors.Is(err, rollout.ErrRegressed))
	report(a.log, "rollout store", err)
}

// report logs the begin and the end of a trouble.
func report(log *slog.Logger, of string, err error) {
	if err != nil {
		log.Error(of+" in trouble", "error", err)
		return
	}
	log.Info(of + " well again")
}

// Reload loads the configuration again and puts it in force for new requests.
// A mistake leaves the running configuration as it is, and is returned, logged
// and counted. Safe for concurrent use.
func (a *App) Reload() (err error) {
	a.reload.Lock()
	defer a.reload.Unlock()
	if a.handler.Load() == nil {
		return errors.New("the gateway did not start")
	}
	done := a.supervisor.reloading()
	defer func() {
		if err != nil {
			done("the new configuration has mistakes; the running one stays in force: " + err.Error())
			return
		}
		done(a.status(a.config))
	}()
	c, err := a.options.Load()
	if err == nil {
		err = a.apply(c)
	}
	if err != nil {
		a.telemetry.Reloaded(false, a.config.Hash())
		a.log.Error("the new configuration has mistakes; the running one stays in force", "error", err)
		return err
	}
	for _, key := range needsRestart(a.config, c) {
		a.log.Warn("a change takes effect at the next start only", "key", key)
	}
	a.config = c
	if a.watcher != nil {
		a.watcher.SetFiles(c.Files())
	}
	a.log.Info("configuration reloaded", "hash", c.Hash(), "mode", c.Mode)
	return nil
}

// needsRestart names the keys that differ and that a reload cannot change.
func needsRestart(was, is *config.Config) []string {
	var keys []string
	for _, k := range []struct {
		key     string
		changed bool
	}{
		{"listen.address", was.Listen.Address != is.Listen.Address},
		{"listen.tls", was.Listen.TLS.Enabled() != is.Listen.TLS.Enabled()},
		{"metrics", was.Metrics.Address != is.Metrics.Address},
		{"admin.address", was.Admin.Address != is.Admin.Address},
		{"admin.tls", was.Admin.TLS.Enabled() != is.Admin.TLS.Enabled()},
		{"redis", was.Redis != is.Redis},
		{"access_log", was.AccessLog != is.AccessLog},
		{"audit", !reflect.DeepEqual(was.Audit, is.Audit)},
		{"shadow", was.Shadow != is.Shadow},
		{"upstream.profile", was.Upstream.Profile != is.Upstream.Profile},
		{"upstream.timeout", was.Upstream.Timeout != is.Upstream.Timeout},
		{"rollout.dir", was.Rollout.Dir != is.Rollout.Dir},
		{"rollout.stickiness", was.Rollout.Stickiness != is.Rollout.Stickiness},
	} {
		if k.changed {
			keys = append(keys, k.key)
		}
	}
	return keys
}

// ServeHTTP hands a request to the configuration in force when it arrives. A
// reload does not touch requests in flight.
func (a *App) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.handler.Load().ServeHTTP(w, r)
}

// Table is the rollout as this replica knows it.
func (a *App) Table() *rollout.Table { return a.table }

// Store is what the replicas share.
func (a *App) Store() Store { return a.store.Store }

// Addr is where clients connect, with the port that was chosen for port 0.
func (a *App) Addr() string { return a.listener.Addr().String() }

// MetricsAddr is where metrics are; empty when they are disabled.
func (a *App) MetricsAddr() string {
	if a.metrics == nil {
		return ""
	}
	return a.metrics.Addr().String()
}

func issuerNames(c *config.Config) []string {
	var all []string
	for _, i := range c.OIDC.Issuers {
		all = append(all, i.Issuer)
	}
	return all
}

// recorder tells a listener of each event before telemetry and the audit trail
// do their work.
type recorder struct {
	*telemetry.Telemetry
	audit    *audit.Trail
	evidence *evidence.Recorder
	settings *atomic.Pointer[settings]
	// questions says when a proxy's question was refused last.
	questions *atomic.Int64
	log       *slog.Logger
	listener  func(*gateway.Event)
}

func (r recorder) Observe(ctx context.Context, ev *gateway.Event) {
	if r.listener != nil {
		r.listener(ev)
	}
	r.Telemetry.Observe(ctx, ev)
	r.audit.Observe(ctx, ev)
	r.refusedQuestion(ev)
	var o evidence.Observation
	if observation(ev, &o) {
		o.Config = r.settings.Load().hashes.Of(o.Account)
		r.evidence.Observe(&o)
	}
}

// questionPause is how long the log is silent about questions that are refused, after
// one: strangers may ask, and the access log has each.
const questionPause = int64(time.Minute)

// refusedQuestion logs what keeps a proxy from asking, which is most likely a mistake
// in its configuration or in ours.
func (r recorder) refusedQuestion(ev *gateway.Event) {
	reason := ev.Decision.Reason
	if reason != identity.ProxyUntrusted && reason != identity.OriginalAmbiguous {
		return
	}
	now, last := ev.Start.UnixNano(), r.questions.Load()
	if last != 0 && now-last < questionPause || !r.questions.CompareAndSwap(last, now) {
		return
	}
	r.log.Warn("a question at listen.forward_auth cannot be answered", "reason", reason, "client", ev.Client,
		"fault", ev.Fault, "do", gateway.Advice(reason), "silent", time.Duration(questionPause))
}

// Close frees everything without waiting for requests. It is for an App that
// never ran; Run closes by itself.
func (a *App) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = a.shut(ctx)
}

// shut ends all parts in the order in which they depend on each other.
func (a *App) shut(ctx context.Context) error {
	var errs []error
	closers := []func(){
		func() { closeIf(a.watcher) },
		func() { closeIf(a.listener) },
		func() { closeIf(a.metrics) },
		func() { closeIf(a.admin) },
		func() {
			if a.shadow != nil {
				a.shadow.Close()
			}
		},
		func() { closeIf(a.registry) },
		func() { closeIf(a.evidence) },
		func() { closeIf(a.member) }, // after what it has observed is recorded
		func() { closeIf(a.probes) },
		func() { errs = append(errs, a.audit.Close(ctx)) }, // after the last event, before the store
		func() { closeIf(a.reconciler) },                   // gives its lease back
		func() { closeIf(a.assessed) },
		func() { closeIf(a.effect) },
		func() { closeIf(a.runs) },
		func() { closeIf(a.table) },
		func() { closeIf(a.store) },
		func() {
			if a.providers != nil {
				a.providers.Close()
			}
		},
		func() {
			if a.transport != nil {
				a.transport.CloseIdleConnections()
			}
		},
		func() {
			if a.telemetry == nil {
				return
			}
			// What a collector or a pipe did not take is lost, and no failure of
			// the gateway.
			if err := a.telemetry.Close(ctx); err != nil {
				a.log.Warn("telemetry is lost", "error", err)
			}
		},
		func() { closeIf(a.accessLog) },
	}
	for _, closer := range closers {
		closer()
	}
	return errors.Join(errs...)
}

// closeIf closes what may never have been opened. Ends are not failures: what
// an end could lose is flushed by the part itself.
func closeIf[T interface {
	comparable
	Close() error
}](c T) {
	var none T
	if c != none {
		_ = c.Close()
	}
}
