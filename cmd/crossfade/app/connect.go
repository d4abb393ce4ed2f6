package app

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"crossfade/config"
	"crossfade/gateway/oidcauth"
)

// connectTimeout bounds each attempt of Connect.
const connectTimeout = 5 * time.Second

// Connection is one attempt to reach what a configuration names.
type Connection struct {
	Kind string `json:"kind"` // redis, issuer or upstream
	To   string `json:"to"`   // without any secret
	// Seen is what answered; empty if nothing did, then Err says why.
	Seen     string        `json:"seen,omitempty"`
	Err      string        `json:"error,omitempty"`
	Took     time.Duration `json:"took_ns"`
	Warnings []string      `json:"warnings,omitempty"`
}

// Connect tries Redis, each issuer and the upstream, if there is one, and says what it saw. It
// changes nothing anywhere. local are the addresses of this machine on which
// the upstream should not answer; see LocalAddresses.
func Connect(ctx context.Context, c *config.Config, parts *Parts, transport http.RoundTripper, local []netip.Addr) []Connection {
	var all []Connection
	if !c.Redis.InProcess() {
		all = append(all, connectRedis(ctx, c.Redis))
	}
	probe, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	for _, r := range parts.Verifier.Probe(probe) {
		all = append(all, connectionOf(r))
	}
	if c.Upstream.URL == nil { // a proxy has it, and only asks
		return all
	}
	return append(all, connectUpstream(ctx, c, transport, local))
}

func connectRedis(ctx context.Context, c config.Redis) (conn Connection) {
	conn = Connection{Kind: "redis", To: c.URL.String()}
	start := time.Now()
	defer func() { conn.Took = time.Since(start) }()
	store, err := OpenRedis(c)
	if err != nil {
		conn.Err = err.Error()
		return conn
	}
	defer func() { _ = store.Close() }()
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if err := store.Ping(ctx); err != nil {
		conn.Err = err.Error()
		return conn
	}
	snapshot, err := store.Load(ctx)
	if err != nil {
		conn.Err = err.Error()
		return conn
	}
	conn.Seen = fmt.Sprintf("answers; %d teams have a percentage", len(snapshot.Teams))
	return conn
}

func connectionOf(r oidcauth.ProbeResult) Connection {
	conn := Connection{Kind: "issuer", To: r.Issuer, Took: r.Took, Warnings: r.Warnings}
	if r.Err != nil {
		conn.Err = r.Err.Error()
		return conn
	}
	keys := make([]string, len(r.Keys))
	for i, k := range r.Keys {
		keys[i] = k.Kind + " " + k.ID
	}
	conn.Seen = fmt.Sprintf("preset %s, keys at %s: %s", r.Preset, r.JWKSURL, strings.Join(keys, ", "))
	return conn
}

// connectUpstream asks the upstream for a sign of life, with the request that
// Luigi's scheduler answers with 204.
func connectUpstream(ctx context.Context, c *config.Config, transport http.RoundTripper, local []netip.Addr) Connection {
	conn := Connection{Kind: "upstream", To: c.Upstream.URL.Redacted()}
	status, server, took, err := head(ctx, c.Upstream.URL, transport)
	conn.Took = took
	if err != nil {
		conn.Err = err.Error()
		return conn
	}
	conn.Seen = "answers HEAD / with " + status
	if server != "" {
		conn.Seen += ", " + server
	}
	conn.Warnings = aroundTheGateway(ctx, c.Upstream.URL, transport, local)
	return conn
}

func head(ctx context.Context, to *url.URL, transport http.RoundTripper) (status, server string, took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	start := time.Now()
	r, err := http.NewRequestWithContext(ctx, http.MethodHead, to.JoinPath("/").String(), nil)
	if err != nil {
		return "", "", 0, err
	}
	resp, err := transport.RoundTrip(r)
	took = time.Since(start)
	if err != nil {
		return "", "", took, err
	}
	_ = resp.Body.Close()
	return resp.Status, resp.Header.Get("Server"), took, nil
}

// aroundTheGateway tries the upstream's port on the other addresses of this
// machine. Whoever reaches one of them needs no credential at all: luigid, for
// one, listens on all interfaces unless told otherwise.
func aroundTheGateway(ctx context.Context, upstream *url.URL, transport http.RoundTripper, local []netip.Addr) []string {
	host, port := upstream.Hostname(), upstream.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[upstream.Scheme]
	}
	addr, err := netip.ParseAddr(host)
	if host != "localhost" && (err != nil || !addr.IsLoopback()) {
		return []string{fmt.Sprintf("%s is not a loopback address: whoever reaches it goes around the gateway; "+
			"let only the gateway connect to it, by a firewall or network policy", host)}
	}
	var open []string
	for _, a := range local {
		if a == addr {
			continue
		}
		other := *upstream
		other.Host = net.JoinHostPort(a.String(), port)
		if _, _, _, err := head(ctx, &other, transport); err == nil {
			open = append(open, other.Host)
		}
	}
	if len(open) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("the upstream also answers on %s, which goes around the gateway: "+
		"bind it to %s (luigid: --address %s)", strings.Join(open, ", "), host, host)}
}

// LocalAddresses are the addresses of this machine that others may reach.
func LocalAddresses() []netip.Addr {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, a := range addresses {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil || prefix.Addr().IsLoopback() || prefix.Addr().IsLinkLocalUnicast() {
			continue
		}
		out = append(out, prefix.Addr())
	}
	return out
}
