package demo

import (
	"bytes"
	"fmt"

	"golang.org/x/crypto/bcrypt"

	"crossfade/gateway/identity"
)

// Account is one service account of the demo, with both of its identities.
type Account struct {
	Team     identity.Team
	User     string
	Password identity.Secret
	// ClientSecret authenticates the account, as the OAuth client User, at the
	// built-in identity provider.
	ClientSecret identity.Secret
}

// Accounts returns the demo's accounts in the order of the table: one a team, but
// for ml-platform, since a raise is only taken back by itself when it hurts two.
// Their secrets open nothing but the demo.
func Accounts() []Account {
	account := func(team identity.Team, user, password string) Account {
		return Account{team, user, identity.NewSecret(password), identity.NewSecret(user + "-secret")}
	}
	return []Account{
		account("data-eng", "svc-etl", "legacy-pass"),
		account("billing", "svc-billing", "billing-pass"),
		account("search", "svc-search", "search-pass"),
		account("ml-platform", "svc-ml", "ml-pass"),
		account("ml-platform", "svc-ml-batch", "batch-pass"),
	}
}

// Htpasswd writes the accounts' passwords as an htpasswd file. The hashes are
// bcrypt at its lowest cost: they protect nothing and must not slow the demo.
func Htpasswd(accounts []Account) ([]byte, error) {
	var file bytes.Buffer
	for _, a := range accounts {
		hash, err := bcrypt.GenerateFromPassword([]byte(a.Password.Reveal()), bcrypt.MinCost)
		if err != nil {
			return nil, fmt.Errorf("hash the password of %s: %w", a.User, err)
		}
		fmt.Fprintf(&file, "%s:%s\n", a.User, hash)
	}
	return file.Bytes(), nil
}
