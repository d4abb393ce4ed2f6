package legacy

import (
	"errors"
	"fmt"
	"strings"

	"github.com/go-crypt/crypt/algorithm/shacrypt"
	"golang.org/x/crypto/bcrypt"

	"crossfade/gateway/identity"
)

// What Hash takes for a cost of 0.
const (
	// DefaultBcryptCost takes about 60 ms of a core.
	DefaultBcryptCost = 10
	// DefaultRounds of SHA-crypt take about as long.
	DefaultRounds = 200_000
)

// Hash returns a new hash of password, with a random salt, to stand after
// "user:" in an htpasswd file. Scheme is Bcrypt, which the empty string stands
// for too, SHA512Crypt or SHA256Crypt; cost is bcrypt's cost (4 to 16) or the
// rounds of SHA-crypt (1,000 to 1,000,000), and 0 stands for the default.
//
// A password of more than 72 bytes is an error with bcrypt, which would ignore
// the rest of it.
func Hash(password identity.Secret, scheme string, cost int) (string, error) {
	switch {
	case password.Empty():
		return "", errors.New("hash a password: it is empty: choose one that is not")
	case password.Len() > maxPassword:
		return "", fmt.Errorf("hash a password: it has %d bytes and more than %d are never accepted: choose a shorter one", password.Len(), maxPassword)
	}
	switch scheme {
	case "", Bcrypt:
		return newBcrypt(password, cost)
	case SHA512Crypt:
		return newSHACrypt(password, shacrypt.VariantSHA512, cost)
	case SHA256Crypt:
		return newSHACrypt(password, shacrypt.VariantSHA256, cost)
	default:
		return "", fmt.Errorf("hash a password: scheme %q is not offered for new hashes: use %s, %s or %s", scheme, Bcrypt, SHA512Crypt, SHA256Crypt)
	}
}

func newBcrypt(password identity.Secret, cost int) (string, error) {
	if cost == 0 {
		cost = DefaultBcryptCost
	}
	switch {
	case cost < minBcryptCost || cost > maxBcryptCost:
		return "", fmt.Errorf("hash a password: bcrypt cost %d is not in %d to %d: leave it out for %d", cost, minBcryptCost, maxBcryptCost, DefaultBcryptCost)
	case password.Len() > bcryptLength:
		return "", fmt.Errorf("hash a password: it has %d bytes and bcrypt ignores all after %d: choose a shorter one or %s", password.Len(), bcryptLength, SHA512Crypt)
	}
	value, err := bcrypt.GenerateFromPassword([]byte(password.Reveal()), cost)
	if err != nil {
		return "", fmt.Errorf("hash a password with bcrypt: %w", err)
	}
	// $2a$ and $2y$ are the same hash; htpasswd writes the latter and every
	// server that reads its files knows it.
	return "$2y$" + strings.TrimPrefix(string(value), "$2a$"), nil
}

func newSHACrypt(password identity.Secret, variant shacrypt.Variant, rounds int) (string, error) {
	if rounds == 0 {
		rounds = DefaultRounds
	}
	if rounds < minRounds || rounds > maxRounds {
		return "", fmt.Errorf("hash a password: %d rounds of SHA-crypt are not in %d to %d: leave them out for %d", rounds, minRounds, maxRounds, DefaultRounds)
	}
	hasher, err := shacrypt.New(shacrypt.WithVariant(variant), shacrypt.WithIterations(rounds), shacrypt.WithSaltLength(16))
	if err != nil {
		return "", fmt.Errorf("hash a password with SHA-crypt: %w", err)
	}
	d, err := hasher.Hash(password.Reveal())
	if err != nil {
		return "", fmt.Errorf("hash a password with SHA-crypt: %w", err)
	}
	return d.Encode(), nil
}
