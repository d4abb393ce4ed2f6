package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"crossfade/gateway/agent"
	agenttoken "crossfade/gateway/agent/token"
)

// exitNotPermitted is the exit code of a run that was refused: by the gateway,
// or by the agent that had no token. It is EX_NOPERM of sysexits.
const exitNotPermitted = 77

// agentHost is where the agent of a wrapped command listens.
const agentHost = "127.0.0.1"

// Bounds of the agent.
const (
	// agentHeaders is how long a worker may take to send a request's header.
	agentHeaders = 10 * time.Second
	// agentDrain is how long requests in flight may take at the end.
	agentDrain = 10 * time.Second
	// agentSpans is how long an agent waits at its end for the collector of
	// traces to take the last ones. The end of every wrapped command waits with it.
	agentSpans = 2 * time.Second
	// agentAgain is after which time a long-running agent says the same again.
	agentAgain = time.Hour
)

// agentOptions are the flags of the agent.
type agentOptions struct {
	gateway, mode, listen, caFile, legacyHeader, netrc, metrics string
	log                                                         bool
	runID, tokenDir                                             string

	// families are those of the configuration, write the flags of that name and
	// writes what they or the configuration say.
	families []agent.Family
	write    []string
	writes   []agent.Write

	source, audience, resource, tokenCommand string
	scopes                                   []string
	params                                   agenttoken.Params
}

func (o *agentOptions) addFlags(c *cobra.Command) {
	f := c.PersistentFlags()
	f.StringVar(&o.gateway, "gateway", "", "the gateway's URL (exec: by default where Luigi's configuration has its scheduler)")
	f.StringVar(&o.mode, "mode", "auto", "auto: both credentials while the worker has a legacy one; companion; token: the token alone")
	f.StringVar(&o.caFile, "ca-file", "", "PEM file of the authorities that are trusted for the gateway and the issuer; default: the system's")
	f.StringVar(&o.legacyHeader, "legacy-header", agent.DefaultLegacyHeader, "the header of API keys")
	f.StringVar(&o.metrics, "metrics", "", "serve /metrics, /livez and /readyz on this address")

	f.StringVar(&o.runID, "run-id", "", "what the run is called, in logs and audit trails; default: that of the GitHub Actions job, or by chance")
	f.StringArrayVar(&o.write, "write", nil, "AUDIENCE=FILE: keep a token for another service fresh in FILE; may be repeated")

	f.StringVar(&o.source, "source", "auto", "where tokens come from: auto, "+strings.Join(sources(), ", "))
	f.StringVar(&o.audience, "audience", "", "the gateway's name at the issuer")
	f.StringSliceVar(&o.scopes, "scope", nil, "scopes to ask for")
	f.StringVar(&o.resource, "resource", "", "the target service of RFC 8707, a URI")
	f.StringVar(&o.params.File, "token-file", "", "file that something else keeps a token in (file; default $"+agent.TokenFileVariable+")")
	f.StringVar(&o.params.Issuer, "issuer", "", "the issuer's URL (client_credentials, token_exchange; login: whose, if there are several)")
	f.StringVar(&o.params.TokenURL, "token-url", "", "the token endpoint, instead of --issuer")
	f.StringVar(&o.params.ClientID, "client-id", "", "the client's name at the issuer")
	f.StringVar(&o.params.ClientAuth, "client-auth", "", "how the client proves itself; default: what the files below allow")
	f.StringVar(&o.params.SecretFile, "client-secret-file", "", "file with the client's secret")
	f.StringVar(&o.params.KeyFile, "client-key-file", "", "file with the client's private key, PEM or JWK (private_key_jwt)")
	f.StringVar(&o.params.KeyID, "client-key-id", "", "the kid of that key")
	f.StringVar(&o.params.CertFile, "client-cert-file", "", "PEM file with the client's certificate (tls_client_auth)")
	f.StringVar(&o.params.CertKeyFile, "client-cert-key-file", "", "PEM file with its key")
	f.StringVar(&o.params.SubjectTokenFile, "subject-token-file", "", "file with the token to exchange (token_exchange)")
	f.StringVar(&o.params.SubjectTokenType, "subject-token-type", "", "its type")
	f.StringVar(&o.params.RequestedTokenType, "requested-token-type", "", "the type to get for it")
	f.StringVar(&o.params.ServiceAccount, "service-account", "", "whose token the metadata server issues (gcp)")
	f.StringVar(&o.tokenCommand, "token-command", "", "program, and its arguments between spaces, that prints a token (exec)")
	_ = c.RegisterFlagCompletionFunc("mode", cobra.FixedCompletions(agent.Modes(), cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("source", cobra.FixedCompletions(append([]string{"auto"}, sources()...), cobra.ShellCompDirectiveNoFileComp))
}

func (p *program) agentCommand() *cobra.Command {
	var o agentOptions
	c := &cobra.Command{
		Use:   "agent",
		Short: "Add a fresh token to what a worker sends",
		Long: `Listen on loopback or a unix socket, and pass on to the gateway what workers send,
with an OIDC token that is fetched and kept fresh. Only the worker's scheduler URL
changes. A legacy credential that the worker sends is kept, with the token beside it
in Crossfade-Token (--mode token replaces it). Without a token nothing is sent that
has no legacy credential.

Where tokens come from (--source auto): --subject-token-file, --client-id,
--token-command, --token-file or $CROSSFADE_TOKEN_FILE, the variables of GitHub
Actions, $AWS_WEB_IDENTITY_TOKEN_FILE, what ` + "`crossfade login`" + ` has left, in this order.

Every flag can stand in a file, agent.yaml (--config), and all but --write in variables
such as CROSSFADE_AGENT_GATEWAY and CROSSFADE_AGENT_TOKEN_ISSUER; flags win. In the file
alone, families map task families to tokens of their own: the agent obtains them when the
scheduler hands out a task, before the worker learns of it, and calls about the task
carry them. With --token-dir the task's code finds them in files.

With the standard OTEL_ variables the agent sends a span for each request (OTLP) and
tells the gateway of it, so that a trace leads from the worker to the service.

Whoever can connect to the agent speaks with its token. On a machine with other
users listen on a unix socket (mode 0600), or use ` + "`crossfade agent exec`" + `, whose
URL has a secret in it.`,
		Example: `  crossfade agent --gateway https://luigi.acme.dev:8082 --token-file /var/run/luigi/token
  crossfade agent --gateway https://luigi.acme.dev:8082 --listen unix:/run/luigi/agent.sock \
      --issuer https://acme.okta.com/oauth2/luigi --client-id luigi-etl --client-secret-file /etc/luigi/secret
  crossfade agent exec -- luigi --module pipelines LoadUsers`,
	}
	o.addFlags(c)
	c.Flags().StringVar(&o.listen, "listen", "127.0.0.1:8182", "127.0.0.1:PORT or unix:PATH")
	c.Flags().StringVar(&o.netrc, "netrc", "", "keep an entry for the gateway (user oidc) fresh in this netrc file; it is removed at the end")
	c.Flags().StringVar(&o.tokenDir, "token-dir", "", "directory for the tokens of task families while tasks of theirs run, in files named after them")
	c.PersistentFlags().StringVarP(&p.configFile, "config", "c", "",
		"configuration file of the agent (default: crossfade-agent.yaml here, agent.yaml in $XDG_CONFIG_HOME/crossfade or /etc/crossfade)")
	c.RunE = func(c *cobra.Command, _ []string) error {
		configured, err := p.agentConfigured(c, o)
		if err != nil {
			return err
		}
		return p.agent(c.Context(), configured)
	}
	c.AddCommand(p.agentExec(&o))
	return c
}

func (p *program) agentExec(o *agentOptions) *cobra.Command {
	c := &cobra.Command{
		Use:   "exec [flags] -- COMMAND [ARGUMENT]...",
		Short: "Run a command behind an agent of its own",
		Long: `Start an agent on a free port, run the command so that it finds it, and end with
it. Signals and the exit code pass through; the exit code is 77 if the command failed
and the gateway, or the agent for want of a token, had refused it; 126 and 127 are
those of shells, and 130 says that it was interrupted before the command began.

Luigi needs no change: it finds the agent by LUIGI_CONFIG_PATH, a private copy of your
own file of that name with only the scheduler's URL replaced; a --scheduler-url on its
command line is taken away. Of another program it is replaced, where other users of the
machine can read it. Code that names a scheduler itself (luigi.build with scheduler_url)
takes it from the environment. Every command finds there:
  CROSSFADE_SCHEDULER_URL  the agent's URL, with the user and password of your own one
  CROSSFADE_TOKEN_FILE     a file with the token, kept fresh
  NETRC                    a copy of your netrc file with the token for the gateway
  CROSSFADE_RUN            the id of the run (--run-id)
  CROSSFADE_TOKEN_DIR      with families: a directory where a file named after the
                           family has its token while a task of it runs
and 127.0.0.1 in no_proxy if there is a proxy.`,
		Example: `  crossfade agent exec -- luigi --module pipelines LoadUsers
  crossfade agent exec --gateway https://luigi.acme.dev:8082 --token-file token -- python nightly.py
  crossfade agent exec --mode token -- sh -c 'curl -d data={} "${CROSSFADE_SCHEDULER_URL}api/is_paused"'`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("there is no command to run: crossfade agent exec -- COMMAND")
			}
			return nil
		},
	}
	c.Flags().SetInterspersed(false)
	c.Flags().BoolVar(&o.log, "log", false, "log to stderr what the agent does")
	c.RunE = func(c *cobra.Command, args []string) error {
		configured, err := p.agentConfigured(c, *o)
		if err != nil {
			return err
		}
		return p.agentRun(c.Context(), configured, args)
	}
	return c
}

// agent runs until ctx is done.
func (p *program) agent(ctx context.Context, o agentOptions) (err error) {
	defer p.oneProcessor()()
	ctx, stop := untilHangup(ctx)
	defer stop()
	log := p.logger()
	s, err := p.newAgentStage(o, o.gateway, agentAgain, log)
	if err != nil {
		return err
	}
	defer s.close()
	log = s.log
	if err := s.writeAll(ctx, o.writes, false); err != nil {
		return err
	}
	listener, err := agent.Listen(ctx, o.listen)
	if errors.Is(err, agent.ErrAddress) {
		return usage("--listen: %w", err)
	} else if err != nil {
		return err
	}
	proxy, err := s.proxy(listener.Addr(), "")
	if err == nil {
		err = s.keepNetrc(o.netrc)
	}
	if err != nil {
		_ = listener.Close()
		return err
	}
	if o.netrc != "" {
		upkeep, err := agent.NewUpkeep(ctx, agent.UpkeepOptions{
			Tokens: s.keeper, Netrc: o.netrc, Machine: s.gateway.Hostname(), Report: s.report,
		})
		if err != nil {
			_ = listener.Close()
			return fmt.Errorf("--netrc: %w", err)
		}
		defer func() { err = errors.Join(err, upkeep.Close()) }()
	}
	servers := newServing()
	metrics, err := s.serveMetrics(ctx, servers, o.metrics)
	if err != nil {
		_ = listener.Close()
		return err
	}
	servers.start(listener, proxy, log)
	log.Info("crossfade agent listens", "listen", listener.Addr().String(), "gateway", s.gateway.Redacted(), "mode", s.mode.String(), "metrics", metrics)
	select {
	case <-ctx.Done():
	case err = <-servers.failed:
	}
	drain, cancel := context.WithTimeout(p.force, agentDrain)
	defer cancel()
	servers.end(drain)
	return err
}

// untilHangup ends with the terminal, too, so that the tokens in files do not
// outlive it; not under nohup.
func untilHangup(ctx context.Context) (_ context.Context, stop context.CancelFunc) {
	if signal.Ignored(syscall.SIGHUP) {
		return ctx, func() {}
	}
	return signal.NotifyContext(ctx, syscall.SIGHUP)
}

// keepNetrc checks that a netrc file has no credential of somebody else's for
// the gateway: it would be written over.
func (s *agentStage) keepNetrc(file string) error {
	if file == "" {
		return nil
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return usage("--netrc: %w", err)
	}
	if user, _, ok := agent.NetrcCredential(string(text), s.gateway.Hostname()); ok && user != agent.TokenUser {
		return usage("--netrc: %s has an entry of %q for %s, which would be lost: remove it, or name another file and set NETRC to it",
			file, user, s.gateway.Hostname())
	}
	return nil
}

// serveMetrics serves metrics and health if that is asked for.
func (s *agentStage) serveMetrics(ctx context.Context, servers *serving, address string) (listens string, err error) {
	if address == "" {
		return "", nil
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return "", fmt.Errorf("--metrics: %w", err)
	}
	servers.start(l, s.metrics.handler(), s.log)
	return l.Addr().String(), nil
}

// agentRun runs a command behind an agent of its own.
func (p *program) agentRun(ctx context.Context, o agentOptions, args []string) (err error) {
	defer p.oneProcessor()()
	ctx, stop := untilHangup(ctx)
	defer stop()
	interrupted := &exitError{exitInterrupted, errors.New("agent exec: interrupted before the command was started")}
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	scheduler, err := agent.FindLuigiScheduler(args, p.lookup, dir)
	if err != nil {
		return usage("%w", err)
	}
	gateway := o.gateway
	if gateway == "" && scheduler.Configured {
		gateway = scheduler.URL.String()
	}
	log := slog.New(slog.DiscardHandler)
	if o.log {
		log = p.logger()
	}
	o.tokenDir, o.netrc = "", "" // those of a long-running agent
	if len(o.families) > 0 {
		if o.tokenDir, err = os.MkdirTemp("", "crossfade-tokens-"); err != nil { // 0700
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(o.tokenDir)) }()
	}
	s, err := p.newAgentStage(o, gateway, 0, log)
	if err != nil {
		return err
	}
	defer s.close()
	log = s.log
	netrc, err := p.userNetrc()
	if err != nil {
		return err
	}
	if user, password, ok := agent.NetrcCredential(netrc, scheduler.URL.Hostname()); ok && user != agent.TokenUser && s.mode != agent.ModeToken {
		scheduler = scheduler.WithCredential(user, password)
	}
	if s.mode == agent.ModeToken {
		// A worker that cannot do anything is not started.
		within, cancel := context.WithTimeout(ctx, agenttoken.DefaultTimeout)
		_, err := s.keeper.Token(within)
		cancel()
		if ctx.Err() != nil {
			return interrupted
		} else if err != nil {
			return &exitError{exitNotPermitted, fmt.Errorf("agent: no token, so the command is not started: %w", err)}
		}
	}
	if err := s.writeAll(ctx, o.writes, true); err != nil && ctx.Err() != nil {
		return interrupted
	} else if errors.Is(err, agent.ErrNoToken) {
		return &exitError{exitNotPermitted, fmt.Errorf("agent: the command is not started: %w", err)}
	} else if err != nil {
		return err
	}
	listener, err := agent.Listen(ctx, agentHost+":0")
	if err != nil {
		return err
	}
	secret := rand.Text()
	proxy, err := s.proxy(listener.Addr(), secret)
	if err != nil {
		_ = listener.Close()
		return err
	}
	servers := newServing()
	servers.start(listener, proxy, log)
	metrics, err := s.serveMetrics(ctx, servers, o.metrics)
	defer func() {
		now, cancel := context.WithCancel(context.Background())
		cancel() // whoever is left has lost the command it worked for
		servers.end(now)
	}()
	if errors.Is(err, syscall.EADDRINUSE) { // of another run that has the same configuration: it stops no work
		s.report.Say("metrics", fmt.Sprintf("crossfade agent: this run shows no metrics: %v\n", err))
	} else if err != nil {
		return err
	}
	log.Info("crossfade agent listens", "listen", listener.Addr().String(), "gateway", s.gateway.Redacted(), "mode", s.mode.String(), "metrics", metrics)
	code, signaled, err := p.behind(ctx, s, scheduler, agent.LoopbackURL(listener.Addr(), secret), netrc, args)
	switch {
	case err != nil && code == 0 && ctx.Err() != nil:
		return interrupted
	case err != nil && code != 0:
		return &exitError{code, fmt.Errorf("agent exec: %w", err)}
	case err != nil:
		return err
	case code == 0:
		return nil
	case proxy.Refused() && !signaled:
		code = exitNotPermitted
	}
	return &exitError{code, errors.New("")} // the command has said why
}

// userNetrc returns the text of the netrc file that the command would use.
func (p *program) userNetrc() (string, error) {
	for _, file := range agent.UserNetrc(p.environ) {
		text, err := os.ReadFile(file)
		switch {
		case err == nil:
			return string(text), nil
		case !errors.Is(err, os.ErrNotExist):
			return "", err
		}
	}
	return "", nil
}

// behind writes what a command needs to find the agent, runs it and cleans up.
// An error with a code of 0 is one of before the start.
func (p *program) behind(ctx context.Context, s *agentStage, scheduler agent.LuigiScheduler, agentURL, netrc string, args []string) (code int, signaled bool, err error) {
	dir, err := os.MkdirTemp("", "crossfade-agent-") // 0700
	if err != nil {
		return 0, false, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	w := agent.Wrapping{
		Args: args, Environ: p.environ, Scheduler: scheduler, Agent: agentURL, Dir: dir, Run: s.run, TokenDir: s.tokenDir, Netrc: netrc,
	}
	if own := p.getenv("LUIGI_CONFIG_PATH"); own != "" {
		text, err := os.ReadFile(own)
		if errors.Is(err, os.ErrNotExist) {
			s.report.Say("config", fmt.Sprintf("crossfade agent: LUIGI_CONFIG_PATH names %s, which does not exist.\n", own))
		} else if err != nil {
			return 0, false, err
		}
		w.Config = string(text)
	}
	plan, err := w.Plan()
	if err != nil {
		return 0, false, err
	}
	for name, text := range plan.Files {
		if err := os.WriteFile(name, []byte(text.Reveal()), 0o600); err != nil {
			return 0, false, err
		}
	}
	keep := agent.UpkeepOptions{
		Tokens: s.keeper, TokenFile: plan.TokenFile, Netrc: plan.Netrc, Machine: s.gateway.Hostname(), Report: s.report,
	}
	if keep.Machine == agentHost {
		// The agent itself goes by that name, and an entry would win over the
		// password in its URL (python-requests since 2.32.4).
		keep.Netrc = ""
	}
	upkeep, err := agent.NewUpkeep(ctx, keep)
	if err != nil {
		return 0, false, err
	}
	defer func() { _ = upkeep.Close() }() // the files go anyway
	if ctx.Err() != nil {
		return 0, false, errors.New("agent exec: interrupted before the command was started")
	}
	return agent.Command{Args: plan.Args, Environ: plan.Environ, Stdin: p.stdin, Stdout: p.stdout, Stderr: p.stderr}.Run()
}
