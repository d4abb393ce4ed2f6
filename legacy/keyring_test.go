package legacy_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway/identity"
	"crossfade/legacy"
)

// Hashes of "legacy-pass" for tests in which the time of hashing matters
// little; see testdata/vectors.jsonl for more.
const (
	password   = "legacy-pass"
	bcrypt4    = "$2b$04$abcdefghijklmnopqrstuuzWXr.po7nfCYH1wq50YeRlcMgvcOYGe"
	sha512     = "$6$rounds=1500$saltstringsaltst$W995nS2Ehj3jMclknZE8FxXd.Qqb7J2uGohqJpYAc5ZWSqv2SeMiAF.IP.sQq79EwRIZ2Oa4xJzpVv6D0DdOs/"
	sha512Long = "$6$ab$5RF9xGFY9Q1gdnMP1kCuqBrRPUvLScvd8Lpp5JD.ajWhoXmR5K1eI9IelqJW.uAsW8Fj352PW/6qrKEg6a0OT1"
	sha256     = "$5$rounds=1500$saltstringsaltst$bsaz/0KMZqbtBsrifhmJlzSmktIP8mfk5JuU9EZgEE7"
	apr1       = "$apr1$abc$y5dX47jiCIuqAbpq4k4S3/"
)

// bcryptOf returns a well-formed bcrypt hash of the cost that no known
// password opens.
func bcryptOf(cost string) string { return "$2y$" + cost + "$" + strings.Repeat("x", 53) }

func write(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t testing.TB, o legacy.Options) *legacy.Keyring {
	t.Helper()
	k, err := legacy.Load(o)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func basic(user, secret string) identity.Credential {
	return identity.Credential{Scheme: identity.SchemeBasic, User: user, Secret: identity.NewSecret(secret)}
}

func apiKey(secret string) identity.Credential {
	return identity.Credential{Scheme: identity.SchemeAPIKey, Secret: identity.NewSecret(secret)}
}

func bearer(secret string) identity.Credential {
	return identity.Credential{Scheme: identity.SchemeStaticBearer, Secret: identity.NewSecret(secret)}
}

// calls records what OnVerify is told.
type calls struct {
	mu   sync.Mutex
	list []string
}

func (c *calls) add(scheme string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, scheme)
}

// take returns the calls since the last time.
func (c *calls) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := c.list
	c.list = nil
	return list
}

func directory(t testing.TB) *identity.Directory {
	t.Helper()
	d, err := identity.NewDirectory([]identity.Entry{
		{Name: "svc-etl", Team: "data-eng", Roles: []identity.Role{"runner"}, Legacy: []string{"svc-etl"}},
		{Name: "shared-cron", Shared: true, MayBe: []string{"svc-etl"}, Legacy: []string{"cron"}},
	}, identity.ClaimRules{})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

var unknown = &identity.Authentication{
	Status:  identity.StatusRejected,
	Reasons: []identity.Reason{identity.LegacyUnknown},
}

func TestAuthenticate(t *testing.T) {
	noon := time.Date(2026, 6, 30, 12, 0, 0, 0, time.UTC)
	end := time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC)
	past := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	etl := identity.Principal{Name: "svc-etl", Team: "data-eng", Roles: []identity.Role{"runner"}, Mapped: true}
	k := load(t, legacy.Options{
		HTPasswd: write(t, "htpasswd", "svc-etl:"+bcrypt4+"\nbob:"+apr1+"\ncron:"+sha256+"\n"),
		APIKeys: write(t, "keys.yaml", `
- {id: etl-2023, owner: svc-etl, sha256: "`+legacy.Digest(identity.NewSecret("key-good"))+`", expires: 2026-07-01}
- {id: etl-2022, owner: svc-etl, sha256: "`+legacy.Digest(identity.NewSecret("key-old"))+`", expires: 2026-06-01}
- {id: etl-lost, owner: svc-etl, sha256: "`+legacy.Digest(identity.NewSecret("key-lost"))+`", revoked: true}
- {id: etl-both, owner: svc-etl, sha256: "`+legacy.Digest(identity.NewSecret("key-both"))+`", expires: 2026-06-01, revoked: true}
`),
		Bearers: write(t, "bearers.yaml", `
- {id: nightly, owner: carol, sha256: "`+legacy.Digest(identity.NewSecret("token-good"))+`", revoked: false}
`),
		Directory: directory(t),
		Now:       func() time.Time { return noon },
	})
	tests := map[string]struct {
		in   identity.Credential
		want *identity.Authentication
	}{
		"no credential is absent": {
			in: identity.Credential{}, want: &identity.Authentication{Status: identity.StatusAbsent},
		},
		"a right password names its principal": {
			in:   basic("svc-etl", password),
			want: &identity.Authentication{Status: identity.StatusVerified, Principal: etl, CredentialID: "basic:svc-etl"},
		},
		"an unmapped user is unassigned": {
			in: basic("bob", password),
			want: &identity.Authentication{
				Status:       identity.StatusVerified,
				Principal:    identity.Principal{Name: "legacy:bob", Team: identity.Unassigned},
				CredentialID: "basic:bob",
			},
		},
		"a shared credential lists whom it may turn into": {
			in: basic("cron", password),
			want: &identity.Authentication{
				Status:       identity.StatusVerified,
				Principal:    identity.Principal{Name: "shared-cron", Team: identity.Unassigned, Mapped: true},
				CredentialID: "basic:cron",
				MayBe:        []string{"svc-etl"},
			},
		},
		"a wrong password names nobody":        {in: basic("svc-etl", "wrong"), want: unknown},
		"an unknown user names nobody":         {in: basic("mallory", password), want: unknown},
		"an empty password names nobody":       {in: basic("svc-etl", ""), want: unknown},
		"an empty user names nobody":           {in: basic("", password), want: unknown},
		"user names are compared exactly":      {in: basic("SVC-ETL", password), want: unknown},
		"a token is not a static credential":   {in: identity.Credential{Scheme: identity.SchemeOIDC, Secret: identity.NewSecret("token-good")}, want: unknown},
		"a key is not a token":                 {in: bearer("key-good"), want: unknown},
		"a token is not a key":                 {in: apiKey("token-good"), want: unknown},
		"an empty key is unknown":              {in: apiKey(""), want: unknown},
		"a key's digest is not the key itself": {in: apiKey(legacy.Digest(identity.NewSecret("key-good"))), want: unknown},
		"a good key says when it expires": {
			in:   apiKey("key-good"),
			want: &identity.Authentication{Status: identity.StatusVerified, Principal: etl, CredentialID: "api_key:etl-2023", Expires: end},
		},
		"an expired key still names its principal": {
			in: apiKey("key-old"),
			want: &identity.Authentication{
				Status: identity.StatusRejected, Reasons: []identity.Reason{identity.LegacyExpired},
				Principal: etl, CredentialID: "api_key:etl-2022", Expires: past,
				Detail: "The credential expired at 2026-06-01T00:00:00Z.",
			},
		},
		"a revoked key still names its principal": {
			in: apiKey("key-lost"),
			want: &identity.Authentication{
				Status: identity.StatusRejected, Reasons: []identity.Reason{identity.LegacyRevoked},
				Principal: etl, CredentialID: "api_key:etl-lost",
				Detail: "The credential is marked as revoked.",
			},
		},
		"a key both expired and revoked has both reasons in the order of the list": {
			in: apiKey("key-both"),
			want: &identity.Authentication{
				Status: identity.StatusRejected, Reasons: []identity.Reason{identity.LegacyExpired, identity.LegacyRevoked},
				Principal: etl, CredentialID: "api_key:etl-both", Expires: past,
				Detail: "The credential expired at 2026-06-01T00:00:00Z. The credential is marked as revoked.",
			},
		},
		"a static bearer token names its principal": {
			in: bearer("token-good"),
			want: &identity.Authentication{
				Status:       identity.StatusVerified,
				Principal:    identity.Principal{Name: "legacy:carol", Team: identity.Unassigned},
				CredentialID: "static_bearer:nightly",
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			for range 2 { // the second answer comes out of the cache where there is one
				if diff := cmp.Diff(test.want, k.Authenticate(t.Context(), test.in)); diff != "" {
					t.Errorf("answer (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func TestAKeyExpiresAtItsMomentThoughItWasGoodBefore(t *testing.T) {
	end := time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC)
	now := end.Add(-time.Nanosecond)
	k := load(t, legacy.Options{
		APIKeys: write(t, "keys.yaml", `- {id: a, owner: o, expires: 2026-07-01T02:00:00+02:00, sha256: "`+legacy.Digest(identity.NewSecret("s"))+`"}`),
		Now:     func() time.Time { return now },
	})
	if got := k.Authenticate(t.Context(), apiKey("s")); !got.OK() || !got.Expires.Equal(end) {
		t.Errorf("one nanosecond before: %v until %v, want verified until %v", got.Status, got.Expires, end)
	}
	now = end
	if got := k.Authenticate(t.Context(), apiKey("s")); got.Primary() != identity.LegacyExpired {
		t.Errorf("at the moment: %v %v, want %v", got.Status, got.Reasons, identity.LegacyExpired)
	}
}

func TestIsStaticBearer(t *testing.T) {
	const jwtLike = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0."
	k := load(t, legacy.Options{Bearers: write(t, "b.yaml", `
- {id: live, owner: o, sha256: `+legacy.Digest(identity.NewSecret(jwtLike))+`}
- {id: late, owner: o, expires: 2001-01-01, sha256: `+legacy.Digest(identity.NewSecret("late"))+`}
- {id: gone, owner: o, revoked: true, sha256: `+legacy.Digest(identity.NewSecret("gone"))+`}
`)})
	for token, want := range map[string]bool{jwtLike: true, "late": true, "gone": true, "": false, "other": false, "live": false} {
		if got := k.IsStaticBearer(token); got != want {
			t.Errorf("IsStaticBearer(%q) = %v, want %v", token, got, want)
		}
	}
	if !k.Bearers() {
		t.Error("Bearers() = false with a file of tokens")
	}
}

func TestAnEmptyKeyringKnowsNobody(t *testing.T) {
	var seen calls
	for name, o := range map[string]legacy.Options{
		"without files":    {},
		"with empty files": {HTPasswd: write(t, "h", "# nobody\n"), APIKeys: write(t, "k", ""), Bearers: write(t, "b", "# none\n---\n")},
	} {
		t.Run(name, func(t *testing.T) {
			o.OnVerify = seen.add
			k := load(t, o)
			for _, c := range []identity.Credential{basic("a", "b"), apiKey("k"), bearer("t"), apiKey("")} {
				if diff := cmp.Diff(unknown, k.Authenticate(t.Context(), c)); diff != "" {
					t.Errorf("%v (-want +got):\n%s", c.Scheme, diff)
				}
			}
			if k.Bearers() != (o.Bearers != "") || k.Len() != 0 || k.IsStaticBearer("t") {
				t.Errorf("Bearers %v, Len %d, IsStaticBearer %v", k.Bearers(), k.Len(), k.IsStaticBearer("t"))
			}
			if got := seen.take(); len(got) > 0 {
				t.Errorf("computed %v with nobody to hide", got)
			}
		})
	}
}

func TestReload(t *testing.T) {
	var seen calls
	path := write(t, "htpasswd", "bob:"+bcrypt4+"\n")
	options := legacy.Options{HTPasswd: path, OnVerify: seen.add}
	var current atomic.Pointer[legacy.Keyring]
	current.Store(load(t, options))
	reload := func() error {
		next, err := legacy.Load(options)
		if err == nil {
			current.Store(next)
		}
		return err
	}
	bob := func() bool { return current.Load().Authenticate(context.Background(), basic("bob", password)).OK() }

	if first, second := bob(), bob(); !first || !second || len(seen.take()) != 1 {
		t.Fatal("a right password was not verified once and then remembered")
	}
	rewrite(t, path, "bob:not-a-hash\n")
	if err := reload(); err == nil {
		t.Fatal("a bad file was loaded")
	}
	if !bob() || len(seen.take()) != 0 {
		t.Error("a bad file did not leave the last good one and its verdicts in force")
	}
	rewrite(t, path, "alice:"+bcrypt4+"\n")
	if err := reload(); err != nil {
		t.Fatal(err)
	}
	if bob() || len(seen.take()) != 1 {
		t.Error("the remembered verdict outlived the reload that removed the user")
	}
}

func TestCredentialsAndSummary(t *testing.T) {
	end := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	k := load(t, legacy.Options{
		HTPasswd:  write(t, "h", "svc-etl:"+bcrypt4+"\nbob:"+apr1+"\neve:"+sha512+"\ndan:"+apr1+"\n"),
		APIKeys:   write(t, "k", "- {id: one, owner: svc-etl, expires: 2026-06-01, sha256: "+legacy.Digest(identity.NewSecret("1"))+"}\n"),
		Bearers:   write(t, "b", "- {id: two, owner: x, revoked: true, sha256: "+legacy.Digest(identity.NewSecret("2"))+"}\n"),
		Directory: directory(t),
		Now:       func() time.Time { return end },
	})
	etl, _ := directory(t).Legacy("svc-etl")
	nobody := func(owner string) identity.Principal {
		return identity.Principal{Name: "legacy:" + owner, Team: identity.Unassigned}
	}
	want := []legacy.Info{
		{ID: "api_key:one", Scheme: identity.SchemeAPIKey, Line: 1, Owner: "svc-etl", Principal: etl, Expires: end},
		{ID: "basic:bob", Scheme: identity.SchemeBasic, Line: 2, Owner: "bob", Principal: nobody("bob"), Hash: legacy.APR1, Cost: 1},
		{ID: "basic:dan", Scheme: identity.SchemeBasic, Line: 4, Owner: "dan", Principal: nobody("dan"), Hash: legacy.APR1, Cost: 1},
		{ID: "basic:eve", Scheme: identity.SchemeBasic, Line: 3, Owner: "eve", Principal: nobody("eve"), Hash: legacy.SHA512Crypt, Cost: 1500},
		{ID: "basic:svc-etl", Scheme: identity.SchemeBasic, Line: 1, Owner: "svc-etl", Principal: etl, Hash: legacy.Bcrypt, Cost: 4},
		{ID: "static_bearer:two", Scheme: identity.SchemeStaticBearer, Line: 1, Owner: "x", Principal: nobody("x"), Revoked: true},
	}
	if diff := cmp.Diff(want, k.Credentials()); diff != "" {
		t.Errorf("Credentials (-want +got):\n%s", diff)
	}
	wantSummary := legacy.Summary{
		Users: 4, Hashes: map[string]int{legacy.Bcrypt: 1, legacy.APR1: 2, legacy.SHA512Crypt: 1},
		APIKeys: 1, Bearers: 1, Expired: 1, Revoked: 1, Unassigned: 4,
	}
	if diff := cmp.Diff(wantSummary, k.Summary()); diff != "" {
		t.Errorf("Summary (-want +got):\n%s", diff)
	}
}

func TestLoadRefusesNegativeBounds(t *testing.T) {
	for _, o := range []legacy.Options{{Concurrency: -1}, {CacheTTL: -1}, {CacheSize: -1}} {
		if _, err := legacy.Load(o); err == nil {
			t.Errorf("Load(%+v) gave no error", o)
		}
	}
}

// rewrite replaces the content of a file.
func rewrite(t interface{ Fatal(...any) }, path, content string) {
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
