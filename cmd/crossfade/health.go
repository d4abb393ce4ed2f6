package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"crossfade/config"
)

// healthTimeout bounds how long health waits for its answer: longer than any that is
// worth having, and shorter than what those who ask for it grant (6 s in our image).
const healthTimeout = 5 * time.Second

func (p *program) healthCommand() *cobra.Command {
	var metrics string
	var live bool
	c := &cobra.Command{
		Use:   "health",
		Short: "Ask the gateway or the agent on this machine whether it is ready",
		Long: `Ask the gateway on this machine whether it is ready for requests, by /readyz on the
address of its metrics, and print what it says. It is for containers without a shell.
The address is the one of the configuration, as serve finds it; --metrics names it
instead, that of an agent, too.

Exit code 0 if the answer is yes, 1 if it is no or there is none, 2 if there is no
address to ask.`,
		Example: `  crossfade health
  crossfade health --live                       # whether it runs; it may have to wait for Redis
  crossfade health --metrics 127.0.0.1:8183     # an agent`,
		Args: cobra.NoArgs,
	}
	c.Flags().StringVar(&metrics, "metrics", "", "where /livez and /readyz are, host:port (default: that of the configuration)")
	c.Flags().BoolVar(&live, "live", false, "ask whether it runs, by /livez")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if metrics == "" {
			source := p.source(nil)
			source.Partial = true // what serve was told by flags may be missing here
			cfg, err := config.Load(source)
			if err != nil {
				return err
			}
			if metrics = cfg.Metrics.Address; metrics == "" {
				return usage("metrics is off, and health is asked there: set metrics, or name an address with --metrics")
			}
		}
		path := "/readyz"
		if live {
			path = "/livez"
		}
		said, err := askHealth(c.Context(), metrics, path)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(p.stdout, said)
		return err
	}
	return c
}

// askHealth gets a page of the metrics' listener and returns its text. An answer other
// than 200 is an error.
func askHealth(ctx context.Context, address, path string) (said string, err error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", usage("--metrics %s: must be host:port", address)
	}
	// A listener on every address is asked on this machine's own.
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "localhost"
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+path, nil)
	if err != nil {
		return "", usage("--metrics %s: %w", address, err)
	}
	client := &http.Client{
		Transport: &http.Transport{DisableKeepAlives: true}, // and no proxy
		// A redirect is an answer of something else, and where it leads is nobody's health.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(r)
	if err != nil {
		return "", fmt.Errorf("no answer: %w: is it started, and its metrics on %s?", err, address)
	}
	defer func() { _ = resp.Body.Close() }()
	const most = 4 << 10 // a sentence
	text, err := io.ReadAll(io.LimitReader(resp.Body, most))
	if err != nil {
		return "", fmt.Errorf("the answer of %s breaks off: %w", address, err)
	}
	said = printable(strings.Join(strings.Fields(string(text)), " "))
	switch {
	case resp.StatusCode == http.StatusOK:
		return said, nil
	case resp.StatusCode == http.StatusServiceUnavailable && said != "":
		return "", errors.New(said)
	default:
		return "", fmt.Errorf("%s answers %s to %s: it is no gateway and no agent", address, resp.Status, path)
	}
}
