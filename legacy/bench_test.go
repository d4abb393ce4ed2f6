package legacy_test

import (
	"testing"

	"crossfade/gateway/identity"
	"crossfade/legacy"
)

func hotPaths(t testing.TB) (*legacy.Keyring, map[string]identity.Credential) {
	const token = "a static bearer token that is longer than thirty-two bytes"
	path := write(t, "k", "- {id: a, owner: o, expires: 9999-01-01, sha256: "+legacy.Digest(identity.NewSecret(token))+"}\n")
	k := load(t, legacy.Options{HTPasswd: write(t, "h", "bob:"+bcrypt4), APIKeys: path, Bearers: path})
	return k, map[string]identity.Credential{
		"a remembered password": basic("bob", password),
		"a remembered failure":  basic("mallory", "wrong"),
		"an API key":            apiKey(token),
		"a static bearer token": bearer(token),
	}
}

func TestTheHotPathsHardlyAllocate(t *testing.T) {
	k, paths := hotPaths(t)
	for name, c := range paths {
		if got := testing.AllocsPerRun(1000, func() { k.Authenticate(t.Context(), c) }); got > maxAllocs {
			t.Errorf("%s: %v allocations, want at most %d", name, got, maxAllocs)
		}
	}
}

func BenchmarkAuthenticateCached(b *testing.B) {
	k, paths := hotPaths(b)
	for name, c := range paths {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				k.Authenticate(b.Context(), c)
			}
		})
	}
}
