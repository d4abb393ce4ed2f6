// Package oidcauth judges OIDC tokens: it reads them strictly, chooses the
// issuer by the claim iss, verifies the signature with keys that it fetches
// and keeps, checks time, binding and identity, and maps the claims to a
// principal through the identity.Directory.
//
// A Verifier belongs to one configuration and is immutable; its cache of
// judgements dies with it. Providers hold what outlives a configuration:
// discovery documents and key sets, so that a reload forgets no key.
//
// # What is reported
//
// Every check that can run does run, and all failures are reported in the
// order of identity.Reasons; the first one is primary. Checks of time, binding
// and identity run even when the signature could not be verified. What they
// read is then the client's word: Token.Verified is false and there is no
// Principal, so nothing but a refusal can come of it.
//
// # When the keys cannot be had
//
// An outage is not a forgery: it is jwks_unavailable or kid_refresh_throttled,
// and the status follows the primary reason. Both come before every reason of
// the stages signature, time, binding and identity, so a token that could not
// be verified is identity.StatusUnavailable even if it claims to have expired:
// that claim is unverified too, and a shadow verdict made out of it would call
// an outage of the provider a mistake of the team. Nobody is let in by this,
// because Unavailable is refused like Rejected, only with 503 in place of 401.
// The further reasons still stand in the list. Only what is wrong whatever the
// keys are (the token cannot be parsed, the issuer is unknown, the algorithm
// is not allowed) outranks an outage.
//
// # Claim names
//
// A claim inside an object is named with dots: "realm_access.roles". Names of
// claims may hold dots themselves ("kubernetes.io"), so at each level the
// longest name that exists wins: "kubernetes.io.serviceaccount.name" works.
// The name "groups" means the groups claim of the issuer, whatever it is called
// there (see Issuer.GroupsClaim), so that one rule serves several issuers.
package oidcauth
