package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"crossfade/cmd/crossfade/app"
	"crossfade/config"
)

// configFlags are the flags that stand for keys of the configuration.
var configFlags = []struct{ flag, key, usage string }{
	{"upstream", "upstream.url", "the service behind the gateway, for instance http://127.0.0.1:8083"},
	{"profile", "upstream.profile", "how requests are understood: luigi or http"},
	{"mode", "mode", "observe refuses nothing, enforce applies the decisions"},
	{"listen", "listen.address", "where clients connect, host:port"},
	{"metrics", "metrics.address", "where /metrics, /livez and /readyz are, host:port, or off"},
	{"htpasswd", "legacy.htpasswd", "password file of the legacy users"},
	{"issuer", "oidc.issuer", "the OIDC issuer's URL"},
	{"audience", "oidc.audience", "the audience that tokens must have"},
	{"principals", "principals", "file that maps identities to principals and teams"},
	{"roles", "roles", "file that says what roles may do"},
	{"redis", "redis.url", "where percentages are kept, redis://host:port/db"},
	{"access-log", "access_log.file", "file of the access log; - is stdout, off is none"},
}

// addConfigFlags adds the flags and returns a function that collects those
// that were set.
func addConfigFlags(c *cobra.Command) func() map[string]any {
	for _, f := range configFlags {
		c.Flags().String(f.flag, "", f.usage)
	}
	_ = c.RegisterFlagCompletionFunc("mode", cobra.FixedCompletions([]string{"observe", "enforce"}, cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("profile", cobra.FixedCompletions([]string{"luigi", "http"}, cobra.ShellCompDirectiveNoFileComp))
	return func() map[string]any {
		set := make(map[string]any)
		for _, f := range configFlags {
			if flag := c.Flags().Lookup(f.flag); flag.Changed {
				set[f.key] = flag.Value.String()
			}
		}
		return set
	}
}

func (p *program) serveCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the gateway",
		Long: `Run the gateway until SIGINT or SIGTERM; then requests in flight may end, and
a second signal ends at once. SIGHUP and changed files reload the configuration;
one with mistakes leaves the running one in force.

Flags go before CROSSFADE_ environment variables, those before the file.`,
		Example: `  # the first day: refuse nothing, count everything
  crossfade serve --upstream http://127.0.0.1:8083 --profile luigi --mode observe --listen :8082

  # by file
  crossfade serve --config crossfade.yaml`,
		Args: cobra.NoArgs,
	}
	flags := addConfigFlags(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		return p.serve(c.Context(), flags())
	}
	return c
}

// gcPercent lets the heap grow to five times what is live before it is
// collected: that is some ten megabytes here, and requests are mostly garbage.
// GOGC in the environment goes before it.
const gcPercent = 400

func (p *program) serve(ctx context.Context, flags map[string]any) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	o := app.Options{
		Load:    func() (*config.Config, error) { return config.Load(p.source(flags)) },
		Log:     p.logger(),
		Version: thisBuild().Version,
		Notices: p.stderr,
		Watch:   true,
	}
	if err := managed(&o); err != nil {
		return err
	}
	a, err := app.New(ctx, o)
	if err != nil {
		return err
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		for {
			select {
			case <-hup:
				_ = a.Reload() // it logs what is wrong
			case <-ctx.Done():
				return
			}
		}
	}()
	return a.Run(ctx, p.force)
}

// managed lets a service manager hear what becomes of the gateway, if the
// environment names one (sd_notify(3), sd_watchdog_enabled(3)).
func managed(o *app.Options) error {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return nil
	}
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return usage("WATCHDOG_USEC or WATCHDOG_PID of the service manager: %w", err)
	}
	o.Watchdog = limit / 2 // as sd_watchdog_enabled(3) recommends
	o.Notify = func(state string) error {
		_, err := daemon.SdNotify(false, state)
		return err
	}
	return nil
}
