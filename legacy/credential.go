package legacy

import (
	"crypto/sha256"
	"encoding/hex"
	"time"

	"crossfade/gateway/identity"
)

// digest is the SHA-256 of a secret that is too long to be guessed, which is
// why it needs no salt and no costly hash.
type digest [sha256.Size]byte

func digestOf(secret string) digest { return sha256.Sum256([]byte(secret)) }

// Digest returns what stands under sha256 in the files of keys and tokens:
// "sha256:" and 64 hexadecimal digits.
func Digest(secret identity.Secret) string {
	d := digestOf(secret.Reveal())
	return "sha256:" + hex.EncodeToString(d[:])
}

// credential is one static credential with every answer that it can give,
// built in advance, for requests to share.
type credential struct {
	id      string // without the scheme
	owner   string
	scheme  identity.Scheme
	line    int       // of its file
	expires time.Time // zero for never
	revoked bool

	// good is the answer before expires, late the answer from then on. They are
	// the same where the credential does not expire; both are rejections where
	// it is revoked.
	good, late *identity.Authentication
}

// newCredential builds a credential that neither expires nor is revoked.
func newCredential(scheme identity.Scheme, id, owner string, dir *identity.Directory) credential {
	c := credential{id: id, owner: owner, scheme: scheme}
	principal, mayBe := dir.Legacy(owner)
	c.good = &identity.Authentication{
		Status:       identity.StatusVerified,
		Principal:    principal,
		CredentialID: scheme.String() + ":" + id,
		MayBe:        mayBe,
	}
	c.late = c.good
	return c
}

// limit sets when the credential ends, the zero time for never, and whether it
// is revoked.
func (c *credential) limit(expires time.Time, revoked bool) {
	c.expires, c.revoked = expires, revoked
	c.good.Expires = expires
	c.late = c.good
	const isRevoked = "The credential is marked as revoked."
	if revoked {
		c.good = c.rejected(isRevoked, identity.LegacyRevoked)
		c.late = c.good
	}
	if expires.IsZero() {
		return
	}
	hasExpired := "The credential expired at " + expires.UTC().Format(time.RFC3339) + "."
	if revoked {
		c.late = c.rejected(hasExpired+" "+isRevoked, identity.LegacyExpired, identity.LegacyRevoked)
	} else {
		c.late = c.rejected(hasExpired, identity.LegacyExpired)
	}
}

// rejected returns a copy of the good answer, which names the principal, as a
// rejection.
func (c *credential) rejected(detail string, reasons ...identity.Reason) *identity.Authentication {
	a := *c.good
	a.Status = identity.StatusRejected
	a.Reasons = identity.SortReasons(reasons)
	a.Detail = detail
	return &a
}

// judge returns the answer at the time now, for someone who knew the secret.
func (c *credential) judge(now time.Time) *identity.Authentication {
	if !c.expires.IsZero() && !now.Before(c.expires) {
		return c.late
	}
	return c.good
}
