package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"crossfade/config"
	"crossfade/gateway/telemetry"
	"crossfade/rollout"
)

// Limits of the listening side.
const (
	// headerTimeout ends connections that send their headers drop by drop.
	headerTimeout = 10 * time.Second
	// idleTimeout is above the pause of Luigi's idle workers (6 s at most).
	idleTimeout = 2 * time.Minute
	// maxHeaderBytes bounds a request's headers; a larger one gets a 431.
	// Tornado, below luigid, takes 64 KiB.
	maxHeaderBytes = 256 << 10
)

// listen opens the listeners and serves nothing yet.
func (a *App) listen(c *config.Config) error {
	var err error
	if a.listener, err = net.Listen("tcp", c.Listen.Address); err != nil {
		return fmt.Errorf("listen.address: %w: choose another address with --listen, or stop what holds it", err)
	}
	if c.Listen.TLS.Enabled() {
		a.listener = tlsListener(a.listener, &a.cert)
	}
	if c.Metrics.Address == "" {
		return nil
	}
	if a.metrics, err = net.Listen("tcp", c.Metrics.Address); err != nil {
		return fmt.Errorf("metrics.address: %w: choose another address with --metrics, or \"off\"", err)
	}
	return nil
}

// tlsListener speaks TLS on a listener, with the certificate that is in force when
// a client connects.
func tlsListener(l net.Listener, cert *atomic.Pointer[tls.Certificate]) net.Listener {
	return tls.NewListener(l, &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if cert := cert.Load(); cert != nil {
				return cert, nil
			}
			return nil, errors.New("no certificate is configured any more")
		},
	})
}

// loadCertificate loads the certificate of a listener, which key names; nil for
// none.
func loadCertificate(key telemetry.Listener, t config.TLS) (*tls.Certificate, error) {
	if !t.Enabled() {
		return nil, nil
	}
	cert, err := tls.LoadX509KeyPair(string(t.Cert), string(t.Key))
	if err != nil {
		return nil, &ConfigError{fmt.Errorf("%s.tls: %w", key, err)}
	}
	if cert.Leaf == nil {
		if cert.Leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
			return nil, fmt.Errorf("%s.tls: %w", key, err)
		}
	}
	return &cert, nil
}

// Run serves until ctx is done. Then it stops to be ready, takes no new
// connections, and waits for requests in flight as long as the configuration
// says, or until force is done: then it ends at once. It closes everything and
// returns nil after a clean end. Run may be called once.
func (a *App) Run(ctx, force context.Context) error {
	server := a.server(a)
	server.Protocols = new(http.Protocols)
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetHTTP2(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	metrics := a.server(a.metricsHandler())

	admin := a.adminServer()

	failed := make(chan error, 3)
	serve := func(s *http.Server, l net.Listener) {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			failed <- err
		}
	}
	go serve(server, a.listener)
	if a.metrics != nil {
		go serve(metrics, a.metrics)
	}
	if a.admin != nil {
		go serve(admin, a.admin)
	}
	a.announce()
	unwatch := a.supervisor.watch(a.options.Watchdog)
	defer unwatch()

	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	a.draining.Store(true)
	longest := a.running().Drain
	a.supervisor.stopping(longest)
	drain, cancel := context.WithTimeout(force, longest)
	defer cancel()
	a.log.Info("draining: no new connections, requests in flight may end", "longest", longest)
	if shutErr := server.Shutdown(drain); shutErr != nil {
		a.log.Warn("requests in flight were cut off", "error", shutErr)
		_ = server.Close()
	}
	_ = metrics.Close()
	if err := admin.Shutdown(drain); err != nil {
		_ = admin.Close()
	}
	flush, cancelFlush := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancelFlush()
	return errors.Join(err, a.shut(flush))
}

// running is the configuration in force.
func (a *App) running() *config.Config {
	a.reload.Lock()
	defer a.reload.Unlock()
	return a.config
}

func (a *App) server(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
		// OPTIONS * is the upstream's to answer, like everything else.
		DisableGeneralOptionsHandler: true,
	}
}

// announce says what runs and where, and what is doubtful about it.
func (a *App) announce() {
	c := a.running()
	a.log.Info("crossfade serves",
		"version", a.options.Version, "mode", c.Mode, "profile", c.Upstream.Profile,
		"listen", a.Addr(), "upstream", UpstreamOf(c), "metrics", a.MetricsAddr(), "admin", a.AdminAddr(),
		"store", a.store.name, "audit", auditName(c), "configuration", c.File)
	for _, w := range c.Warnings() {
		a.log.Warn(w.Message, "key", w.Key)
	}
	a.printOneTime()
	a.supervisor.ready(a.status(c))
}

// status is one line about a gateway that serves c, for who looks at the service.
func (a *App) status(c *config.Config) string {
	return fmt.Sprintf("mode %s on %s, in front of %s", c.Mode, a.Addr(), UpstreamOf(c))
}

// metricsHandler serves what needs no login and holds no secret.
func (a *App) metricsHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", a.telemetry.Handler())
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if reason := a.notReady(); reason != "" {
			http.Error(w, "not ready: "+reason, http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, a.readiness())
	})
	return mux
}

// readiness is what /readyz says of a replica that is ready. The percentages stay
// in force without Redis, and this tells how old they are; why is in the log, for
// the page is open to all.
func (a *App) readiness() string {
	err, age := a.table.Err(), a.table.Age().Round(time.Second)
	switch {
	case err == nil || !a.table.Loaded():
		return "ok\n"
	case errors.Is(err, rollout.ErrRegressed):
		return fmt.Sprintf("ok; Redis has lost percentages, and those of %s ago stay in force\n", age)
	default:
		return fmt.Sprintf("ok; Redis cannot be read, and the percentages of %s ago stay in force\n", age)
	}
}

// notReady says why this replica should get no requests, "" if it should. The
// upstream's health is its own affair: taking every gateway out of service
// would not mend it.
func (a *App) notReady() string {
	switch {
	case a.draining.Load():
		return "draining"
	case a.running().Mode == config.ModeEnforce && !a.table.Loaded():
		return "the percentages have not been read from Redis yet"
	default:
		return ""
	}
}
