package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"crossfade/cmd/crossfade/app"
	"crossfade/config"
	"crossfade/rollout"
)

// Exit codes, the same everywhere.
const (
	exitOK       = 0
	exitFailure  = 1
	exitUsage    = 2 // usage or configuration
	exitRefused  = 3 // refused by checks
	exitConflict = 4
	exitStore    = 5 // the store cannot be reached
)

// exitError is an error that knows its exit code.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }

func (e *exitError) Unwrap() error { return e.err }

func usage(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// program is one invocation: where it reads and writes, and what it was told
// from outside. Tests run one without a process.
type program struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	environ        []string
	// force is done when the user insists on an end.
	force context.Context
	// local returns the addresses of this machine that others may reach.
	local func() []netip.Addr

	configFile string
}

// run executes a command line and returns the exit code.
func (p *program) run(ctx context.Context, args []string) int {
	root := p.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if text := err.Error(); text != "" {
		_, _ = fmt.Fprintf(p.stderr, "crossfade: %s\n", text)
	}
	return exitCode(err)
}

func exitCode(err error) int {
	var known *exitError
	var mistakes config.Errors
	var unfit *app.ConfigError
	switch {
	case errors.As(err, &known):
		return known.code
	case errors.As(err, &mistakes), errors.As(err, &unfit):
		return exitUsage
	case errors.Is(err, rollout.ErrConflict):
		return exitConflict
	case errors.Is(err, rollout.ErrUnavailable), errors.Is(err, rollout.ErrRegressed):
		return exitStore
	default:
		return exitFailure
	}
}

func (p *program) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "crossfade",
		Short: "Fade static credentials out and OpenID Connect in",
		Long: `Crossfade is a gateway in front of an HTTP service. It accepts legacy static
credentials and OIDC tokens side by side, judges each legacy request again in
the shadow as if OIDC were already enforced, and shifts a per-team percentage to
OIDC only.

Exit codes: 0 ok, 1 failure, 2 usage or configuration, 3 refused by checks,
4 conflict, 5 store unreachable, 130 interrupted before it was done; ` + "`agent exec`" + `
returns its command's, or 77 if that was refused. Results go to stdout, talk to stderr.`,
		Example: `  crossfade demo
  crossfade serve --upstream http://127.0.0.1:8083 --profile luigi --mode observe --listen :8082
  crossfade check crossfade.yaml --connect
  crossfade readiness
  crossfade rollout status`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       thisBuild().Version,
	}
	root.SetVersionTemplate("crossfade {{.Version}}\n")
	root.PersistentFlags().StringVarP(&p.configFile, "config", "c", "",
		"configuration file (default: crossfade.yaml here, in $XDG_CONFIG_HOME/crossfade or /etc/crossfade)")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usage("%w\nRun `%s --help`.", err, c.CommandPath())
	})
	root.AddCommand(
		p.serveCommand(), p.checkCommand(), p.healthCommand(), p.demoCommand(), p.initCommand(),
		p.readinessCommand(), p.rolloutCommand(), p.principalsCommand(), p.policyCommand(), p.auditCommand(), p.explainCommand(),
		p.tokenCommand(), p.probeCommand(), p.legacyCommand(), p.agentCommand(),
		p.loginCommand(), p.logoutCommand(), p.whoamiCommand(), p.versionCommand(),
	)
	root.SetIn(p.stdin)
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	root.InitDefaultCompletionCmd() // remembers where to write
	usageErrors(root)
	return root
}

// usageErrors makes wrong arguments, of every command, errors of usage.
func usageErrors(c *cobra.Command) {
	check := c.Args
	if check == nil && c.HasSubCommands() {
		check = func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			hint := ""
			c.SuggestionsMinimumDistance = 2
			if near := c.SuggestionsFor(args[0]); len(near) > 0 {
				hint = fmt.Sprintf(" (did you mean %q?)", near[0])
			}
			return fmt.Errorf("%q is no command of %s%s", args[0], c.CommandPath(), hint)
		}
		if c.RunE == nil && c.Run == nil {
			c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
		}
	}
	if check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return usage("%w\nRun `%s --help`.", err, c.CommandPath())
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		usageErrors(sub)
	}
}

// source says where the configuration comes from; flags are the ones that were
// set, by their keys.
func (p *program) source(flags map[string]any) config.Source {
	return config.Source{File: p.configFile, Env: p.environ, Flags: flags, Reasons: app.Reasons()}
}

// logger writes the talk of long-running commands: text on a terminal, JSON
// elsewhere.
func (p *program) logger() *slog.Logger {
	if f, ok := p.stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return slog.New(slog.NewTextHandler(p.stderr, nil))
	}
	return slog.New(slog.NewJSONHandler(p.stderr, nil))
}
