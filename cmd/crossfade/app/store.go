package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"crossfade/config"
	"crossfade/gateway/identity"
	"crossfade/gateway/luigi"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
	"crossfade/rollout/fleet"
	"crossfade/rollout/redisstore"
)

// Store is what replicas share: percentages and latches, the evidence, and what
// is known of Luigi's tasks and workers.
type Store interface {
	rollout.Store
	evidence.Store
	fleet.Store
	luigi.Store
}

// store is the one in use, and what ends it.
type store struct {
	Store
	// name says which one it is, without any secret.
	name  string
	close func() error
}

// Close frees what was opened here.
func (s *store) Close() error {
	if s.close == nil {
		return nil
	}
	return s.close()
}

// openStore opens the store of a configuration without connecting to it, or
// takes the one that is given.
func openStore(c config.Redis, given Store) (*store, error) {
	switch {
	case given != nil:
		return &store{Store: given, name: "given"}, nil
	case c.InProcess():
		s, err := redisstore.NewInProcess()
		if err != nil {
			return nil, fmt.Errorf("in-process Redis: %w", err)
		}
		return &store{Store: s, name: "in-process, forgotten on exit", close: s.Close}, nil
	}
	s, err := OpenRedis(c)
	if err != nil {
		return nil, err
	}
	return &store{Store: s, name: c.URL.String(), close: s.Close}, nil
}

// OpenRedis opens the configured Redis, without connecting to it.
func OpenRedis(c config.Redis) (*redisstore.Store, error) {
	o, err := redisOptions(c)
	if err != nil {
		return nil, &ConfigError{err}
	}
	s, err := redisstore.New(o)
	if err != nil {
		return nil, &ConfigError{fmt.Errorf("redis: %w", err)}
	}
	return s, nil
}

// redisOptions are the options of the configured Redis; none when it is in
// process.
func redisOptions(c config.Redis) (redisstore.Options, error) {
	o := redisstore.Options{Prefix: c.Prefix}
	if c.InProcess() {
		return o, nil
	}
	address, err := url.Parse(c.URL.Reveal())
	if err != nil {
		return o, errors.New("redis.url is no URL") // the parser's error would show it
	}
	if c.Username != "" {
		address.User = url.User(c.Username)
	}
	o.URL = address.String()
	if c.PasswordFile != "" || !c.Password.Empty() {
		o.Password = func(context.Context) (identity.Secret, error) { return redisPassword(c) }
	}
	if c.CAFile != "" {
		pem, err := os.ReadFile(string(c.CAFile))
		if err != nil {
			return o, fmt.Errorf("redis.ca_file: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return o, fmt.Errorf("redis.ca_file: %s holds no PEM certificate", c.CAFile)
		}
		o.TLS = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}
	}
	return o, nil
}

// redisPassword reads the password again for each new connection, so that a
// rotated one is picked up.
func redisPassword(c config.Redis) (identity.Secret, error) {
	if c.PasswordFile == "" {
		return identity.NewSecret(c.Password.Reveal()), nil
	}
	text, err := os.ReadFile(string(c.PasswordFile))
	if err != nil {
		return identity.Secret{}, errors.New("redis.password_file cannot be read")
	}
	return identity.NewSecret(strings.TrimRight(string(text), "\r\n")), nil
}
