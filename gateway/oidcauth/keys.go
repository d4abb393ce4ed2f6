package oidcauth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Bounds of a key set. Real ones hold two to ten keys.
const (
	maxKeys = 100
	// maxTries bounds the keys that a token without a key id is tried with:
	// each costs a verification, and a stranger chooses how often.
	maxTries = 8
	// RSA keys below 2048 bits must not be used (RFC 7518 section 3.3); far
	// larger ones only cost time.
	minRSABits, maxRSABits = 2048, 8192
)

// keySet is one fetched key set. It is immutable.
type keySet struct {
	keys []jose.JSONWebKey
	// number counts the fetches of a source: a set with a higher number than a
	// token saw at its arrival was asked for after it.
	number uint64
	// fetched is when the set arrived; it is refreshed in the background from
	// refresh on and is out of date at stale.
	fetched, refresh, stale time.Time
}

// parseKeys reads a JSON Web Key Set (RFC 7517 section 5) and keeps the keys
// that can verify signatures. Members that are not understood are ignored, as
// the RFC asks; one broken key must not take the others along. A set without
// any usable key is an error: it is far more often a fault of the provider than
// its wish, and the keys that were good a minute ago go on serving.
func parseKeys(body []byte) ([]jose.JSONWebKey, error) {
	var doc struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil, errors.New("the answer is not a JSON Web Key Set")
	}
	if len(doc.Keys) > maxKeys {
		return nil, fmt.Errorf("the key set has %d keys; at most %d are read", len(doc.Keys), maxKeys)
	}
	var keys []jose.JSONWebKey
	for _, raw := range doc.Keys {
		if key, ok := parseKey(raw); ok {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("the key set has no usable key for signatures (%d keys in all)", len(doc.Keys))
	}
	return keys, nil
}

func parseKey(raw json.RawMessage) (key jose.JSONWebKey, ok bool) {
	var use struct {
		Use string   `json:"use"`
		Ops []string `json:"key_ops"`
	}
	if json.Unmarshal(raw, &use) != nil || key.UnmarshalJSON(raw) != nil {
		return key, false
	}
	if use.Use != "" && use.Use != "sig" { // RFC 7517 section 4.2
		return key, false
	}
	if use.Ops != nil && !slices.Contains(use.Ops, "verify") { // section 4.3
		return key, false
	}
	switch k := key.Key.(type) {
	case *rsa.PublicKey:
		bits := k.N.BitLen()
		return key, bits >= minRSABits && bits <= maxRSABits
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return key, true
	default: // secrets and private keys, which no issuer may publish
		return key, false
	}
}

// fits reports whether alg can be verified with key: by its type and curve (RFC
// 7518 section 3.1), and by the alg that the key names for itself (RFC 7517
// section 4.4).
func fits(alg string, key jose.JSONWebKey) bool {
	if key.Algorithm != "" && key.Algorithm != alg {
		return false
	}
	switch k := key.Key.(type) {
	case *rsa.PublicKey:
		return strings.HasPrefix(alg, "RS") || strings.HasPrefix(alg, "PS")
	case *ecdsa.PublicKey:
		switch alg {
		case string(jose.ES256):
			return k.Curve == elliptic.P256()
		case string(jose.ES384):
			return k.Curve == elliptic.P384()
		default:
			return alg == string(jose.ES512) && k.Curve == elliptic.P521()
		}
	case ed25519.PublicKey:
		return alg == string(jose.EdDSA)
	default:
		return false
	}
}

// named returns the keys of an id. Several keys may share one (RFC 7517 section
// 4.5).
func (s *keySet) named(kid string) []jose.JSONWebKey {
	var keys []jose.JSONWebKey
	for _, k := range s.keys {
		if k.KeyID == kid {
			keys = append(keys, k)
		}
	}
	return keys
}

// describe says what kind of key it is, for the operator.
func describe(key jose.JSONWebKey) string {
	switch k := key.Key.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", k.N.BitLen())
	case *ecdsa.PublicKey:
		return "EC " + k.Curve.Params().Name
	default:
		return "Ed25519"
	}
}
