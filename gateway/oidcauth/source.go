package oidcauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

// How long a key set is taken as current. A provider that publishes a key and
// signs with it at once is served by the fetch for the unknown key id; this age
// decides how long a key that was withdrawn still verifies.
const (
	minAge     = 5 * time.Minute
	maxAge     = time.Hour
	defaultAge = 15 * time.Minute // without Cache-Control
	// rediscover is when the discovery document is read again: jwks_uri moves,
	// but rarely.
	rediscover = time.Hour
	// firstRetry is the pause after the first failure while there are no keys at
	// all; it doubles up to the refresh interval.
	firstRetry = time.Second
)

// The ways in which a key can be missing. Only errNotPublished is the token's
// fault.
var (
	errNotPublished = errors.New("the issuer publishes no key that verifies it")
	errThrottled    = errors.New("the keys were fetched too recently to ask again")
	errUnavailable  = errors.New("the keys could not be fetched")
)

// source fetches and keeps the keys of one issuer. It fetches when someone
// asks, never by itself, so an issuer that nobody uses costs nothing.
//
// All fetches are shared: whoever needs one while one is under way waits for
// it. They run apart from the request that caused them, with a time limit of
// their own, so that neither a client that hangs up nor an issuer that hangs
// can do more than that.
type source struct {
	providers *Providers
	issuer    string
	client    *http.Client

	mu       sync.Mutex
	set      *keySet // nil before the first success and after StaleFor
	flight   *flight // nil if no fetch is under way
	started  uint64  // fetches begun
	last     time.Time
	failures int // in a row
	// asked is when a key id that was not there caused a fetch, and askedFor the
	// number of that fetch: the next such fetch is MinRefresh later. Zero while
	// nothing was asked for in vain.
	asked    time.Time
	askedFor uint64
	lastErr  error

	jwksURL    string
	configured bool // jwksURL is given and there is no discovery
	discovered time.Time
	advertised []string // algorithms
}

type flight struct {
	number uint64
	done   chan struct{}
	set    *keySet
	err    error
}

// find calls accept with key sets until it accepts one: the set at hand first,
// then, if it was asked for before this call, one fetch more. It returns nil or
// an error that wraps errNotPublished, errThrottled or errUnavailable.
//
// errNotPublished is proof: the set that lacks the key was asked for after the
// call, so a rotation just before it would show. A fetch that was already under
// way proves nothing.
func (s *source) find(ctx context.Context, accept func(*keySet) bool) error {
	s.mu.Lock()
	arrival := s.started
	s.mu.Unlock()
	set, err := s.current(ctx)
	for asked := false; ; asked = true {
		switch {
		case err != nil:
			return err
		case accept(set):
			if asked {
				s.vindicate(set)
			}
			return nil
		case set.number > arrival:
			s.blame(set)
			return errNotPublished
		}
		set, err = s.newer(ctx, set)
	}
}

// blame holds a fetch against its asker: the key was not there, so the next
// unknown key id has to wait. It does so too for the first fetch of all, which
// nobody's key id asked for.
func (s *source) blame(set *keySet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if set.fetched.After(s.asked) {
		s.asked, s.askedFor = set.fetched, set.number
	}
}

// vindicate forgets that a fetch was asked for by a key id, because the key was
// there: that was a rotation, and the next one may follow at once. Nobody but
// the provider can make keys appear, so a flood cannot use this.
func (s *source) vindicate(set *keySet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.askedFor == set.number {
		s.asked = time.Time{}
	}
}

// current returns the key set that is in force, fetching one if there is none
// or if it is out of date.
func (s *source) current(ctx context.Context) (*keySet, error) {
	now := s.providers.now()
	s.mu.Lock()
	if s.set != nil && now.Sub(s.set.fetched) > s.providers.staleFor {
		s.set = nil
	}
	set, f := s.set, s.flight
	due := f == nil && !now.Before(s.nextRetry())
	switch {
	case set == nil && f == nil && !due:
		err := s.lastErr
		s.mu.Unlock()
		return nil, fmt.Errorf("%w: %w", errUnavailable, err)
	case set == nil:
		if f == nil {
			f = s.begin()
		}
		s.mu.Unlock()
		return f.wait(ctx)
	case now.Before(set.refresh):
		s.mu.Unlock()
		return set, nil
	}
	if due {
		f = s.begin()
	}
	healthy := s.failures == 0
	s.mu.Unlock()
	if f == nil || !healthy || now.Before(set.stale) {
		return set, nil // it refreshes in the background, or the provider is down
	}
	// Out of date, and the provider was well when last seen: a key that was
	// withdrawn meanwhile must not verify just because nobody asked for an hour.
	if fresh, err := f.wait(ctx); err == nil {
		return fresh, nil
	} else if ctx.Err() != nil {
		return nil, err
	}
	return set, nil
}

// newer returns a set other than old, which has been found wanting: one that
// has arrived since, the one that is under way, or one that is fetched now if
// the interval allows.
func (s *source) newer(ctx context.Context, old *keySet) (*keySet, error) {
	s.mu.Lock()
	if s.set != nil && s.set.number > old.number {
		defer s.mu.Unlock()
		return s.set, nil
	}
	f := s.flight
	if f == nil {
		since := s.asked
		if s.failures > 0 {
			since = s.last
		}
		if wait := since.Add(s.providers.minRefresh).Sub(s.providers.now()); !since.IsZero() && wait > 0 {
			err := s.lastErr
			s.mu.Unlock()
			if err != nil {
				return nil, fmt.Errorf("%w: %w", errUnavailable, err)
			}
			return nil, fmt.Errorf("%w: next in %s", errThrottled, wait.Round(time.Millisecond))
		}
		f = s.begin()
		s.asked, s.askedFor = s.last, f.number
	}
	s.mu.Unlock()
	return f.wait(ctx)
}

// nextRetry is the earliest time of the next fetch that nobody's key id asks
// for.
func (s *source) nextRetry() time.Time {
	if s.failures == 0 {
		return time.Time{}
	}
	pause := s.providers.minRefresh
	if s.set == nil && s.failures < 30 {
		pause = min(pause, firstRetry<<(s.failures-1))
	}
	return s.last.Add(pause)
}

// begin starts a fetch; the caller holds the lock.
func (s *source) begin() *flight {
	s.started++
	s.last = s.providers.now()
	f := &flight{number: s.started, done: make(chan struct{})}
	s.flight = f
	if !s.providers.spawn(func(ctx context.Context) { s.run(ctx, f) }) {
		f.err = fmt.Errorf("%w: the gateway is shutting down", errUnavailable)
		s.flight = nil
		s.failures++
		s.lastErr = errors.New("the gateway is shutting down")
		close(f.done)
	}
	return f
}

func (s *source) run(ctx context.Context, f *flight) {
	set, err := s.fetch(ctx, f.number)
	s.mu.Lock()
	s.flight = nil
	if err != nil {
		s.failures++
		s.lastErr = err
		f.err = fmt.Errorf("%w: %w", errUnavailable, err)
	} else {
		s.failures, s.lastErr = 0, nil
		s.set, f.set = set, set
	}
	s.mu.Unlock()
	if s.providers.onRefresh != nil {
		s.providers.onRefresh(s.issuer, err)
	}
	close(f.done)
}

func (f *flight) wait(ctx context.Context) (*keySet, error) {
	select {
	case <-f.done:
		return f.set, f.err
	case <-ctx.Done():
		select {
		case <-f.done: // both are ready: an answer is better than none
			return f.set, f.err
		default:
			return nil, fmt.Errorf("%w: the request ended first: %w", errUnavailable, context.Cause(ctx))
		}
	}
}

// fetch reads the discovery document, unless it is known, and the key set. Only
// one fetch runs at a time, so the fields of discovery need the lock only
// against readers.
func (s *source) fetch(ctx context.Context, number uint64) (*keySet, error) {
	if err := s.discover(ctx); err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.jwksURL, nil)
	if err != nil {
		return nil, fmt.Errorf("the URL of the keys: %w", err)
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	req.Header.Set("Cache-Control", "no-cache") // a cache in between may predate the rotation
	resp, err := s.client.Do(req)
	if err == nil && resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		err = fmt.Errorf("%s answered %s", s.jwksURL, resp.Status)
	}
	if err != nil {
		s.forget()
		return nil, fmt.Errorf("fetching keys: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body) // bounded by the transport
	if err != nil {
		s.forget()
		return nil, fmt.Errorf("fetching keys from %s: %w", s.jwksURL, err)
	}
	keys, err := parseKeys(body)
	if err != nil {
		s.forget()
		return nil, fmt.Errorf("keys from %s: %w", s.jwksURL, err)
	}
	now := s.providers.now()
	age := ageOf(resp.Header)
	return &keySet{
		keys: keys, number: number,
		fetched: now, refresh: now.Add(age * 4 / 5), stale: now.Add(age),
	}, nil
}

// discover finds the URL of the keys through go-oidc, which compares the issuer
// in the document exactly (OpenID Connect Discovery section 4.3). A document
// that cannot be read again leaves the known URL in force.
func (s *source) discover(ctx context.Context) error {
	s.mu.Lock()
	known := s.jwksURL != "" && (s.configured || s.providers.now().Before(s.discovered.Add(rediscover)))
	s.mu.Unlock()
	if known {
		return nil
	}
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, s.client), s.issuer)
	var doc struct {
		JWKSURL    string   `json:"jwks_uri"`
		Algorithms []string `json:"id_token_signing_alg_values_supported"`
	}
	if err == nil {
		if err = provider.Claims(&doc); err == nil {
			err = s.checkKeysURL(doc.JWKSURL)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		if s.jwksURL != "" {
			return nil
		}
		return fmt.Errorf("discovery: %w", shortened(err))
	}
	s.jwksURL, s.discovered, s.advertised = doc.JWKSURL, s.providers.now(), doc.Algorithms
	return nil
}

func (s *source) checkKeysURL(raw string) error {
	if raw == "" {
		return errors.New("the document has no jwks_uri")
	}
	u, err := checkURL(raw)
	if err != nil {
		return fmt.Errorf("jwks_uri %s %w", show(raw), err)
	}
	if u.Scheme != "https" && strings.HasPrefix(s.issuer, "https:") {
		return fmt.Errorf("jwks_uri %s must be https, as the issuer is", show(raw))
	}
	return nil
}

// forget makes the next fetch discover again, in case the keys have moved.
func (s *source) forget() {
	s.mu.Lock()
	s.discovered = time.Time{}
	s.mu.Unlock()
}

// probe fetches whether or not it is time to, and returns what is published.
func (s *source) probe(ctx context.Context) (*keySet, error) {
	s.mu.Lock()
	f := s.flight
	if f == nil {
		f = s.begin()
	}
	s.mu.Unlock()
	return f.wait(ctx)
}

// endpoints returns what discovery said.
func (s *source) endpoints() (jwksURL string, advertised []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.jwksURL, s.advertised
}

// ageOf reads Cache-Control (RFC 9111 section 5.2.2) within our bounds.
func ageOf(h http.Header) time.Duration {
	for directive := range strings.SplitSeq(strings.Join(h.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		switch strings.ToLower(name) {
		case "no-store", "no-cache":
			return minAge
		case "max-age":
			seconds, err := strconv.ParseInt(strings.Trim(value, `"`), 10, 32)
			if err != nil {
				return minAge // RFC 9111 section 4.2.1: invalid freshness is stale
			}
			return min(max(time.Duration(seconds)*time.Second, minAge), maxAge)
		}
	}
	return defaultAge
}

// shortened keeps the chain of an error whose text may quote a whole page.
func shortened(err error) error {
	if len(err.Error()) <= 400 {
		return err
	}
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return syntax
	}
	return errors.New(shorten(err.Error()))
}
