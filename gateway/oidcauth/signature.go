package oidcauth

import (
	"context"
	"errors"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"

	"crossfade/gateway/identity"
)

// publishedKeys is go-oidc's KeySet over a source. Unlike oidc.RemoteKeySet it
// never fetches because a signature does not hold, and it says what went wrong:
// go-oidc flattens the error of a key set into text, so the outcome is also
// recorded in the attempt that the context carries.
type publishedKeys struct{ *rules }

var _ oidc.KeySet = publishedKeys{}

// attempt is the outcome of one verification of a signature.
type attempt struct {
	made bool // the key set was asked
	bad  *finding
}

type attemptKey struct{}

var errSignature = errors.New("the signature does not hold")

// VerifySignature implements oidc.KeySet. The algorithm is checked against the
// allow-list once more, before any key is looked at.
func (k publishedKeys) VerifySignature(ctx context.Context, jwt string) ([]byte, error) {
	jws, err := jose.ParseSignedCompact(jwt, k.algs)
	if err != nil {
		return nil, err
	}
	payload, bad := k.verify(ctx, jws)
	if a, ok := ctx.Value(attemptKey{}).(*attempt); ok {
		a.made, a.bad = true, bad
	}
	if bad != nil {
		return nil, errSignature
	}
	return payload, nil
}

func (k publishedKeys) verify(ctx context.Context, jws *jose.JSONWebSignature) ([]byte, *finding) {
	header := jws.Signatures[0].Header
	if header.KeyID == "" {
		return k.verifyNameless(ctx, jws, header.Algorithm)
	}
	var keys []jose.JSONWebKey
	err := k.source.find(ctx, func(set *keySet) bool {
		keys = set.named(header.KeyID)
		return len(keys) > 0
	})
	if err != nil {
		f := k.missing(err, identity.KidUnknown, "key id "+show(header.KeyID)).
			named("kid in the header is in no key set of issuer %s", k.place())
		return nil, &f
	}
	payload, fitting := try(jws, header.Algorithm, keys)
	switch {
	case payload != nil:
		return payload, nil
	case fitting == 0:
		f := found(identity.AlgKeyMismatch, "the token says alg %s, but its key %s is for %s", header.Algorithm, show(header.KeyID), describe(keys[0]))
		if keys[0].Algorithm != "" {
			f.detail += " and alg " + show(keys[0].Algorithm)
		}
		f = f.named("alg in the header does not fit the key of issuer %s that kid names, which is for %s", k.place(), describe(keys[0]))
		return nil, &f
	}
	f := found(identity.SignatureInvalid, "the signature does not hold with the published key %s", show(header.KeyID)).
		named("the signature does not hold with the key of issuer %s that kid names", k.place())
	return nil, &f
}

// verifyNameless tries the keys that fit: kid is optional (RFC 7515 section
// 4.1.4). Without a name, a rotation looks like a forgery, so the keys are
// fetched again, within the same limit as for an unknown key id.
func (k publishedKeys) verifyNameless(ctx context.Context, jws *jose.JSONWebSignature, alg string) ([]byte, *finding) {
	var payload []byte
	var fitting int
	err := k.source.find(ctx, func(set *keySet) bool {
		payload, fitting = try(jws, alg, set.keys)
		return payload != nil
	})
	switch {
	case err == nil:
		return payload, nil
	case errors.Is(err, errNotPublished) && fitting == 0:
		f := found(identity.AlgKeyMismatch, "the token says alg %s and names no key, and no published key is for that", alg).
			named("the header names no kid, and no key of issuer %s fits its alg", k.place())
		return nil, &f
	}
	f := k.missing(err, identity.SignatureInvalid, "a token that names no key").
		named("the header names no kid, and the signature holds with no key of issuer %s", k.place())
	return nil, &f
}

// try verifies with each key that fits alg, and returns how many did. The
// payload of a JWT is never empty, so nil means that none verified it.
func try(jws *jose.JSONWebSignature, alg string, keys []jose.JSONWebKey) (payload []byte, fitting int) {
	for _, key := range keys {
		if !fits(alg, key) {
			continue
		}
		if fitting++; fitting > maxTries {
			return nil, fitting
		}
		if payload, err := jws.Verify(key.Key); err == nil {
			return payload, fitting
		}
	}
	return nil, fitting
}

// missing turns an error of source.find into a finding without a sample.
func (k publishedKeys) missing(err error, notPublished identity.Reason, what string) finding {
	reason := identity.JWKSUnavailable
	switch {
	case errors.Is(err, errNotPublished):
		reason = notPublished
	case errors.Is(err, errThrottled):
		reason = identity.KidRefreshThrottled
	}
	return found(reason, "%s: %v", what, err)
}

// newOIDCVerifier returns go-oidc's verifier of signatures for r. It checks the
// issuer a second time; audience and times are checked here, each with its own
// reason and skew.
func newOIDCVerifier(r *rules) *oidc.IDTokenVerifier {
	return oidc.NewVerifier(r.URL, publishedKeys{r}, &oidc.Config{
		SupportedSigningAlgs: r.Algorithms,
		SkipClientIDCheck:    true,
		SkipExpiryCheck:      true,
	})
}

// checkSignature verifies t. verified is true when the signature held, even if
// bad says that go-oidc could not read the claims.
func (r *rules) checkSignature(ctx context.Context, t *token) (verified bool, bad *finding) {
	var a attempt
	_, err := r.verifier.Verify(context.WithValue(ctx, attemptKey{}, &a), t.raw)
	switch {
	case err == nil:
		return a.made, nil // made: a success without our key set would be none
	case a.bad != nil:
		return false, a.bad
	case a.made:
		f := found(identity.ClaimTypeInvalid, "the claims cannot be read: %s", shorten(err.Error())).
			named("a claim that every token may have is of a type that cannot be read")
		return true, &f
	default:
		f := found(identity.MalformedJWT, "the header cannot be read: %s", shorten(err.Error())).
			named("the header cannot be read")
		return false, &f
	}
}
