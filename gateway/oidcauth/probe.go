package oidcauth

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// ProbeResult is what was seen of one issuer.
type ProbeResult struct {
	Issuer string `json:"issuer"`
	Preset string `json:"preset"`
	// JWKSURL is where the keys are, as configured or discovered; empty if
	// discovery failed.
	JWKSURL string      `json:"jwks_url,omitempty"`
	Keys    []ProbedKey `json:"keys"`
	// Took is how long the provider needed.
	Took time.Duration `json:"took_ns"`
	// Warnings are sentences about what works and yet will refuse tokens.
	Warnings []string `json:"warnings,omitempty"`
	// Err says why there are no keys; nil if there are.
	Err error `json:"-"`
}

// ProbedKey is one published key that can verify signatures.
type ProbedKey struct {
	ID string `json:"id"`
	// Kind is for people: "RSA 2048", "EC P-256".
	Kind string `json:"kind"`
	// Algorithm is what the key is published for; may be empty.
	Algorithm string `json:"algorithm,omitempty"`
}

// Probe asks every issuer for its discovery document and keys, all at once and
// regardless of how recently they were fetched, and returns the results in the
// order of the configuration. It ends when ctx does. Offline there is nothing
// to probe.
func (v *Verifier) Probe(ctx context.Context) []ProbeResult {
	if v.offline {
		return nil
	}
	out := make([]ProbeResult, len(v.issuers))
	var running sync.WaitGroup
	for n, r := range v.issuers {
		running.Go(func() { out[n] = r.probe(ctx) })
	}
	running.Wait()
	return out
}

func (r *rules) probe(ctx context.Context) ProbeResult {
	begin := time.Now()
	set, err := r.source.probe(ctx)
	out := ProbeResult{Issuer: r.URL, Preset: r.Preset, Keys: []ProbedKey{}, Took: time.Since(begin), Err: err}
	var advertised []string
	out.JWKSURL, advertised = r.source.endpoints()
	if err != nil {
		return out
	}
	for _, k := range set.keys {
		out.Keys = append(out.Keys, ProbedKey{k.KeyID, describe(k), k.Algorithm})
	}
	if len(advertised) > 0 && !slices.ContainsFunc(advertised, r.allows) {
		out.Warnings = append(out.Warnings, fmt.Sprintf("%s is allowed, but the issuer says that it signs with %s", list(r.Algorithms), list(advertised)))
	}
	if !slices.ContainsFunc(set.keys, func(k jose.JSONWebKey) bool {
		return slices.ContainsFunc(r.Algorithms, func(alg string) bool { return fits(alg, k) })
	}) {
		out.Warnings = append(out.Warnings, fmt.Sprintf("no published key is for an allowed algorithm (%s): every token will be refused", list(r.Algorithms)))
	}
	return out
}
