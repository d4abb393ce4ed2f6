package redisstore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// timeout bounds a dial, a read and a write. Requests have shorter ones in
// their context.
const timeout = time.Second

// clientOptions reads the URL. Its errors never show any part of the URL but
// the names of parameters: what a parser complains about in a mistyped URL is
// often a piece of the password.
func clientOptions(opt Options) (*redis.UniversalOptions, error) {
	if opt.URL == "" {
		return nil, errors.New("redis: no URL")
	}
	u, err := url.Parse(opt.URL)
	if err != nil {
		return nil, errURL
	}
	query := u.Query()
	addrs, master, cluster := query["addr"], query.Get("master_name"), query.Get("cluster")
	for name := range query {
		if !slices.Contains([]string{"addr", "master_name", "cluster", "db"}, name) {
			return nil, fmt.Errorf("redis URL: unknown parameter %q: addr, master_name, cluster and db are known", name)
		}
	}
	if cluster != "" && cluster != "true" && cluster != "false" {
		return nil, errors.New("redis URL: the parameter cluster must be true or false")
	}
	for _, name := range []string{"addr", "master_name", "cluster"} {
		query.Del(name)
	}
	u.RawQuery = query.Encode()
	single, err := redis.ParseURL(u.String())
	if err != nil {
		return nil, errURL
	}
	out := &redis.UniversalOptions{
		Addrs: append([]string{single.Addr}, addrs...), MasterName: master, IsClusterMode: cluster == "true",
		DB: single.DB, Username: single.Username, Password: single.Password, TLSConfig: single.TLSConfig,
		DialTimeout: timeout, ReadTimeout: timeout, WriteTimeout: timeout, PoolTimeout: timeout,
		ContextTimeoutEnabled: true,
		// Whoever needs another attempt makes it: the table by polling, a person
		// by looking first. Attempts behind their backs only hide an outage.
		MaxRetries: -1, DialerRetries: 1,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	switch {
	case clustered(out) && cluster == "false":
		return nil, errors.New("redis URL: several addresses are a cluster or, with master_name, sentinels")
	case clustered(out) && out.DB != 0:
		return nil, errors.New("redis URL: a cluster has only database 0")
	case u.Scheme == "unix" && (clustered(out) || master != ""):
		return nil, errors.New("redis URL: unix names one server: leave out addr, master_name and cluster")
	case u.Scheme != "rediss" && opt.TLS != nil:
		return nil, errors.New("redis URL: TLS settings need the scheme rediss")
	case opt.Password != nil && out.Password != "":
		return nil, errors.New("redis: two passwords: leave it out of the URL or out of the options")
	}
	if u.Scheme == "unix" {
		path := single.Addr
		out.Dialer = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: timeout}).DialContext(ctx, "unix", path)
		}
	}
	if out.TLSConfig != nil {
		// The name to verify is that of each server dialled, not of the first.
		out.TLSConfig.ServerName = ""
		if opt.TLS != nil {
			out.TLSConfig = opt.TLS.Clone()
			out.TLSConfig.MinVersion = max(out.TLSConfig.MinVersion, tls.VersionTLS12)
		}
		out.Dialer = dialTLS(out.TLSConfig)
	}
	if opt.Password != nil {
		user := out.Username
		out.CredentialsProviderContext = func(ctx context.Context) (string, string, error) {
			password, err := opt.Password(ctx)
			return user, password.Reveal(), err
		}
	}
	return out, nil
}

// clustered reports whether the addresses are nodes of a Cluster.
func clustered(o *redis.UniversalOptions) bool {
	return o.MasterName == "" && (o.IsClusterMode || len(o.Addrs) > 1)
}

// errHandshake says that a server took the connection and not the handshake: one
// that does not speak TLS waits for the end of a line that never comes.
var errHandshake = errors.New("the server does not answer the TLS handshake")

// dialTLS dials a server and shakes hands with it, and tells apart which of the two
// failed. It takes less than timeout, so that who waits for just that long learns it.
func dialTLS(config *tls.Config) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, timeout*3/4)
		defer cancel()
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		config := config.Clone()
		if config.ServerName == "" {
			config.ServerName = host
		}
		secure := tls.Client(conn, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			if ctx.Err() != nil {
				err = fmt.Errorf("%w: %w", errHandshake, err)
			}
			return nil, err
		}
		return secure, nil
	}
}

var errURL = errors.New("redis URL cannot be read: it must look like redis://user:password@host:6379/0 (rediss for TLS), with special characters of the password percent-encoded")
