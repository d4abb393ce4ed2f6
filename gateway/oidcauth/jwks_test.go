package oidcauth_test

import (
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"crossfade/gateway/identity"
	"crossfade/gateway/oidcauth"
)

// jwk encodes a key with further members.
func jwk(key any, kid string, members ...string) string {
	text := encode(jose.JSONWebKey{Key: key, KeyID: kid})
	for _, m := range members {
		text = text[:len(text)-1] + "," + m + "}"
	}
	return text
}

func TestAKeySetIsReadKeyByKey(t *testing.T) {
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	public := rsaKeys()[0].Public()
	set := []string{
		jwk(public, "plain"),
		jwk(public, "verifies", `"key_ops":["verify"]`),
		jwk(public, "for signatures", `"use":"sig"`),
		jwk(ecKeys()[0].Public(), "elliptic"),
		jwk(edKey().Public(), "edwards"),
		// None of the following can verify anything.
		jwk(public, "signs", `"key_ops":["sign"]`),
		jwk(public, "encrypts", `"use":"enc"`),
		jwk(public, "unsaid use", `"use":7`),
		jwk(weak.Public(), "weak"),
		jwk(rsaKeys()[1], "private"),
		jwk([]byte("secret"), "symmetric"),
		`{"kty":"OKP","crv":"Ed448","x":"AA","kid":"unknown curve"}`,
		`{"kty":"lattice","kid":"unknown type"}`,
		`{"kty":"RSA","kid":"broken"}`,
		`"not a key"`,
	}
	p := newIDP()
	p.rawKeys = `{"keys":[` + strings.Join(set, ",") + `]}`
	w := newWorld(t, p, nil)
	var got []string
	result := w.v.Probe(t.Context())[0]
	for _, k := range result.Keys {
		got = append(got, k.ID)
	}
	if want := "[plain verifies for signatures elliptic edwards]"; fmt.Sprint(got) != want {
		t.Errorf("keys %v, want %s (%v)", got, want, result.Err)
	}
}

func TestAKeySetThatCannotBeUsedIsAnOutage(t *testing.T) {
	for name, text := range map[string]string{
		"too many keys":          `{"keys":[` + strings.Repeat(`{"kty":"x"},`, 100) + jwk(rsaKeys()[0].Public(), "key-1") + `]}`,
		"no key for signatures":  `{"keys":[` + jwk(rsaKeys()[0].Public(), "key-1", `"use":"enc"`) + `]}`,
		"a list":                 `[]`,
		"keys that are a string": `{"keys":"none"}`,
		"nothing":                ``,
	} {
		t.Run(name, func(t *testing.T) {
			p := newIDP()
			p.rawKeys = text + " "
			w := newWorld(t, p, nil)
			w.want(p.token(p.good()), identity.StatusUnavailable, identity.JWKSUnavailable)
		})
	}
}

func TestATokenWithoutKeyIDCostsAFewVerificationsOnly(t *testing.T) {
	var set []string
	for i := range 20 {
		set = append(set, jwk(rsaKeys()[0].Public(), fmt.Sprint("decoy-", i)))
	}
	p := newIDP()
	p.rawKeys = `{"keys":[` + strings.Join(append(set, jwk(rsaKeys()[1].Public(), "last")), ",") + `]}`
	w := newWorld(t, p, nil)
	w.want(sign(rsaKey("last", 1), nil, p.good()), identity.StatusVerified)
	w.clock.advance(oidcauth.DefaultMinRefresh)
	w.want(sign(rsaKey("", 1), nil, p.good()), identity.StatusRejected, identity.SignatureInvalid)
}
