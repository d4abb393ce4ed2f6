package demo_test

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"crossfade/cmd/crossfade/demo"
)

func TestHtpasswdHoldsEveryAccountAndNoPassword(t *testing.T) {
	t.Parallel()
	accounts := demo.Accounts()
	file, err := demo.Htpasswd(accounts)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(file)), "\n")
	if len(lines) != len(accounts) {
		t.Fatalf("%d lines for %d accounts", len(lines), len(accounts))
	}
	for i, a := range accounts {
		user, hash, _ := strings.Cut(lines[i], ":")
		if user != a.User {
			t.Errorf("line %d is of %s, want %s", i+1, user, a.User)
		}
		if err := bcrypt.CompareHashAndPassword([]byte(hash), []byte(a.Password.Reveal())); err != nil {
			t.Errorf("the password of %s: %v", a.User, err)
		}
		if strings.Contains(string(file), a.Password.Reveal()) {
			t.Errorf("the file shows the password of %s", a.User)
		}
		if printed := fmt.Sprintf("%+v", a); strings.Contains(printed, a.Password.Reveal()) {
			t.Errorf("the account prints its password: %s", printed)
		}
	}
}
