package oidcauth_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"crossfade/gateway/identity"
	"crossfade/gateway/oidcauth"
)

var update = flag.Bool("update", false, "write the golden files")

// sampleCases are failures of which reasonCases has no example that says as much.
var sampleCases = []struct {
	name   string
	change func(*world)
	token  func(*idp) string
	want   identity.Reason
}{
	{
		name:   "a subject that no entry has",
		change: func(w *world) { w.options.Directory = samplesDirectory(w.T) },
		token: claimsWith(object{
			"sub": "0oaunknown", "email": "ada@acme.dev", "preferred_username": "ada", "https://acme.dev/roles": []string{"x"}, "na\nme": 1, "ada@acme.dev": true,
		}),
		want: identity.PrincipalUnmapped,
	},
	{
		name:   "a subject of another issuer's entry",
		change: func(w *world) { w.options.Directory = samplesDirectory(w.T) },
		token:  claimsWith(object{"sub": "0oaelsewhere"}),
		want:   identity.PrincipalUnmapped,
	},
	{
		name:   "a token that two entries mean",
		change: func(w *world) { w.options.Directory = samplesDirectory(w.T) },
		token:  claimsWith(object{"sub": "0oaother", "a": "1", "b": "2"}),
		want:   identity.PrincipalUnmapped,
	},
	{
		name:   "two teams by claims",
		change: func(w *world) { w.options.Directory = samplesDirectory(w.T) },
		token:  claimsWith(object{"sub": "0oaother", "department": []string{"d1", "d2"}}),
		want:   identity.TeamUnmapped,
	},
	{
		name:   "an expired token that nobody maps is told by its expiry",
		change: func(w *world) { w.options.Directory = samplesDirectory(w.T) },
		token:  claimsWith(object{"sub": "0oaunknown", "exp": at(-time.Hour), "iat": at(-2 * time.Hour)}),
		want:   identity.Expired,
	},
	{
		name: "an audience beside a subject that nobody maps is told by its name",
		change: func(w *world) {
			w.options.Directory = samplesDirectory(w.T)
		},
		token: claimsWith(object{"sub": "0oaunknown", "aud": "api://finance"}),
		want:  identity.AudMismatch,
	},
	{
		name:   "a client that is called like the subject is told by its name",
		change: func(w *world) { w.issuer.AuthorizedParties = []string{"client-2"} },
		token:  claimsWith(object{"sub": "0oa1b2c3", "azp": "0oa1b2c3"}),
		want:   identity.AzpMismatch,
	},
	{
		name:   "so is one that is called like the mailbox",
		change: func(w *world) { w.issuer.AuthorizedParties = []string{"client-2"} },
		token:  claimsWith(object{"email": "ada@acme.dev", "azp": "ada@acme.dev"}),
		want:   identity.AzpMismatch,
	},
	{
		name:   "and one whose name is written otherwise",
		change: func(w *world) { w.issuer.AuthorizedParties = []string{"client-2"} },
		token:  claimsWith(object{"email": "Ada@acme.dev", "azp": "ada@acme.dev"}),
		want:   identity.AzpMismatch,
	},
	{
		name:   "or with signs that a quotation escapes",
		change: func(w *world) { w.issuer.AuthorizedParties = []string{"client-2"} },
		token:  claimsWith(object{"upn": `ACME\ada`, "azp": `ACME\ada`}),
		want:   identity.AzpMismatch,
	},
	{
		name:   "a subject on the deny list",
		change: func(w *world) { w.options.Deny = oidcauth.Deny{Subjects: []string{"0oa1b2c3"}} },
		token:  claimsWith(nil),
		want:   identity.PrincipalUnmapped,
	},
	{
		name:   "a token id on the deny list, of a token with another fault",
		change: func(w *world) { w.options.Deny = oidcauth.Deny{TokenIDs: []string{"j-1"}} },
		token:  claimsWith(object{"aud": "api://finance"}),
		want:   identity.Expired,
	},
	{
		name:   "a number for a time",
		change: func(*world) {},
		token:  claimsWith(object{"iat": -17.25}),
		want:   identity.ClaimTypeInvalid,
	},
}

// samplesDirectory knows some subjects, and rules by groups and department.
func samplesDirectory(t testing.TB) *identity.Directory {
	t.Helper()
	claim := func(name, value string) []identity.TokenMatch {
		return []identity.TokenMatch{{Claims: map[string]string{name: value}}}
	}
	d, err := identity.NewDirectory([]identity.Entry{
		{Name: "svc-etl", Team: "data-eng", OIDC: []identity.TokenMatch{{Subject: "0oa1b2c3"}}},
		{Name: "svc-far", Team: "data-eng", OIDC: []identity.TokenMatch{{Issuer: "https://far.example.com", Subject: "0oaelsewhere"}}},
		{Name: "by-a", Team: "data-eng", OIDC: claim("a", "1")},
		{Name: "by-b", Team: "data-eng", OIDC: claim("b", "2")},
	}, identity.ClaimRules{
		Roles: map[string]map[string]identity.Role{"groups": {"ops": "operator"}},
		Teams: map[string]map[string]identity.Team{"department": {"d1": "search", "d2": "billing"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// wellFormed checks what holds of every sample.
func wellFormed(t interface{ Errorf(string, ...any) }, what, sample string) {
	if sample == "" || len(sample) > identity.MaxSample || !utf8.ValidString(sample) ||
		strings.ContainsFunc(sample, func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("%s: the sample of %d bytes is %q", what, len(sample), sample)
	}
}

// TestEveryFaultOfATokenHasASample has the samples of all faults in a golden file,
// to be read by people.
func TestEveryFaultOfATokenHasASample(t *testing.T) {
	var b strings.Builder
	seen := map[identity.Reason]bool{}
	add := func(name string, a *identity.Authentication) {
		seen[a.Primary()] = true
		wellFormed(t, name, a.Sample)
		fmt.Fprintf(&b, "%s\n\t%s: %s\n", name, a.Primary(), a.Sample)
	}
	for _, c := range reasonCases {
		if len(c.want) == 0 {
			continue
		}
		p := newIDP(c.keys...)
		p.breakWith(c.fault)
		a := newWorld(t, p, func(w *world) {
			if c.issuer != nil {
				c.issuer(&w.issuer)
			}
		}).judge(c.token(p))
		if c.want[0].Indeterminate() { // nothing is said about the token
			seen[c.want[0]] = true
			continue
		}
		add(c.name, a)
	}
	for _, c := range sampleCases {
		p := newIDP()
		a := newWorld(t, p, c.change).judge(c.token(p))
		if a.Primary() != c.want {
			t.Errorf("%s: %v, want %s first", c.name, a.Reasons, c.want)
		}
		add(c.name, a)
	}
	for _, info := range identity.Reasons() {
		// Those that a verifier alone can find; what is only ever refused to a request
		// without an account, and what concerns two credentials, it does not.
		switch info.Stage {
		case identity.StageParse, identity.StageKey, identity.StageSignature, identity.StageTime, identity.StageBinding, identity.StageIdentity:
		default:
			continue
		}
		switch info.Reason {
		case identity.ExpiredMidRun, identity.PrincipalMismatch, identity.TeamMismatch:
		case identity.KidRefreshThrottled: // indeterminate
		default:
			if !seen[info.Reason] {
				t.Errorf("no example of %s", info.Reason)
			}
		}
	}
	file := filepath.Join("testdata", "samples.golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(b.String(), "\n")); diff != "" {
		t.Errorf("mismatch (-want +got); run with -update when it is meant:\n%s", diff)
	}
}

// Parts of values that tests look for in samples: of those that name somebody, and
// of those that bind a token to a place.
const (
	private = "Zq7priv"
	binding = "Zq7bind"
)

// onlyBinding reports whether all that is wrong with a verified token may be told
// with its values.
func onlyBinding(a *identity.Authentication) bool {
	return a.Token != nil && a.Token.Verified && !slices.ContainsFunc(a.Reasons, func(r identity.Reason) bool {
		info, _ := r.Info()
		return info.Stage != identity.StageTime && info.Stage != identity.StageBinding && r != identity.InsufficientScope
	})
}

// noValue checks that no value of a token is in its sample.
func noValue(t interface{ Errorf(string, ...any) }, token string, a *identity.Authentication) {
	wellFormed(t, fmt.Sprint(a.Reasons), a.Sample)
	if strings.Contains(a.Sample, private) {
		t.Errorf("%v: a value is in the sample %q", a.Reasons, a.Sample)
	}
	if strings.Contains(a.Sample, binding) && !onlyBinding(a) {
		t.Errorf("%v: a value that nobody vouches for is in the sample %q", a.Reasons, a.Sample)
	}
	for segment := range strings.SplitSeq(token, ".") {
		if len(segment) >= 12 && strings.Contains(a.Sample, segment[:12]) {
			t.Errorf("%v: a part of the token is in the sample %q", a.Reasons, a.Sample)
		}
	}
}

func TestNoValueOfATokenIsInItsSample(t *testing.T) {
	p := newIDP(ecKey("key-1", 0))
	strict := newWorld(t, p, func(w *world) {
		w.options.Directory = samplesDirectory(t)
		w.issuer.Algorithms, w.issuer.Scopes, w.issuer.AuthorizedParties = []string{"ES256"}, []string{"luigi.run"}, []string{"client-1"}
		w.issuer.RequireGroups, w.issuer.TokenTypes = true, []string{"at+jwt"}
	})
	byMail := newWorld(t, p, func(w *world) {
		w.options.Directory = samplesDirectory(t)
		w.issuer.SubjectClaim = "email"
	})
	plain := newWorld(t, p, func(w *world) { w.issuer.Preset, w.issuer.Tenants = "entra", []string{"tenant-1"} })
	worlds := []*world{strict, byMail, plain}

	values := rapid.OneOf(
		rapid.Just[any](private), rapid.Just[any](private+"@acme.dev"), rapid.Just[any]([]string{private, private + "2"}),
		rapid.Just[any](object{"inner": private, private: "x"}), rapid.Just[any](private+"\n\x1b[31m"+private), rapid.Just[any](17), rapid.Just[any](true),
		rapid.Just[any](strings.Repeat(private, 60)),
	)
	names := rapid.SampledFrom([]string{
		"sub", "email", "jti", "name", "preferred_username", "groups", "roles", "email_verified", "iss", "nonce", "_claim_names", "hasgroups", "Sub", "SUB",
		"https://acme.dev/team", "x5t", "na me", "ada@acme.dev", strings.Repeat("n", 300), "ü", "\u202e", "exp", "nbf",
	})
	bound := rapid.SampledFrom([]string{"aud", "azp", "client_id", "appid", "tid", "scope", "scp", "typ", "token_use"})
	rapid.Check(t, func(t *rapid.T) {
		claims := p.good()
		for range rapid.IntRange(0, 5).Draw(t, "claims") {
			claims[names.Draw(t, "name")] = values.Draw(t, "value")
		}
		for range rapid.IntRange(0, 3).Draw(t, "bound") {
			claims[bound.Draw(t, "claim")] = binding
		}
		if rapid.Bool().Draw(t, "called alike") { // then what binds names somebody
			alike := rapid.SampledFrom([]string{private, `ACME\` + private, private + `"`, private + strings.Repeat("x", 300)}).Draw(t, "like")
			claims["sub"], claims["azp"], claims["aud"] = alike, alike, alike
		}
		if rapid.Bool().Draw(t, "expired") {
			claims["exp"], claims["iat"] = at(-time.Hour), at(-2*time.Hour)
		}
		header := object{}
		if rapid.IntRange(0, 3).Draw(t, "header") == 0 {
			header[rapid.SampledFrom([]string{"kid", "typ", "crit", "alg", "jku"}).Draw(t, "member")] = values.Draw(t, "of it")
		}
		token := sign(rapid.SampledFrom([]signingKey{ecKey("key-1", 0), ecKey("key-1", 0), ecKey("key-1", 1), ecKey("", 1)}).Draw(t, "key"), header, claims)
		if rapid.IntRange(0, 9).Draw(t, "cut") == 0 {
			token = token[:len(token)-1-rapid.IntRange(0, len(token)-1).Draw(t, "by")] + private
		}
		w := rapid.SampledFrom(worlds).Draw(t, "verifier")
		a := w.v.Authenticate(w.Context(), credential(token))
		if a.OK() {
			if a.Sample != "" {
				t.Errorf("good, with the sample %q", a.Sample)
			}
			return
		}
		noValue(t, token, a)
	})
}

// FuzzSample signs whatever claims there are, with every text in them marked: no
// mark may come out again but in names.
func FuzzSample(f *testing.F) {
	p := newIDP(ecKey("key-1", 0))
	providers := oidcauth.NewProviders(oidcauth.ProviderOptions{Transport: p, Now: p.now})
	f.Cleanup(providers.Close)
	v, err := oidcauth.New(oidcauth.Options{
		Issuers: []oidcauth.Issuer{{
			URL: p.url, Audiences: []string{"api://luigi"}, Algorithms: []string{"ES256"}, AuthorizedParties: []string{"client-1"}, RequireGroups: true,
		}},
		Directory: samplesDirectory(f), Providers: providers, Now: p.now,
	})
	if err != nil {
		f.Fatal(err)
	}
	for _, more := range []object{nil, {"sub": nil}, {"aud": "x"}, {"groups": object{"a": []string{"b"}}}, {"Sub": "x"}, {"exp": "never"}, {"email_verified": "y"}} {
		f.Add(encode(p.good().with(more)))
	}
	f.Add(`{"sub":"\ud800","iss":"a","aud":[["b"]]}`)
	f.Fuzz(func(t *testing.T, payload string) {
		if strings.Contains(payload, private) {
			t.Skip("marked already")
		}
		var claims map[string]any
		if json.Unmarshal([]byte(payload), &claims) != nil {
			t.Skip("no claims")
		}
		if claims["iss"] == p.url { // else no more would be looked at
			delete(claims, "iss")
		}
		claims = marked(claims).(map[string]any)
		if _, ok := claims["iss"]; !ok {
			claims["iss"] = p.url
		}
		token := sign(ecKey("key-1", 0), nil, claims)
		a := v.Authenticate(t.Context(), credential(token))
		if a.OK() || onlyBinding(a) {
			return
		}
		noValue(t, token, a)
	})
}

// marked puts a mark before each text in a value of JSON.
func marked(value any) any {
	switch value := value.(type) {
	case string:
		return private + value
	case []any:
		out := make([]any, 0, len(value))
		for _, v := range value {
			out = append(out, marked(v))
		}
		return out
	case map[string]any:
		out := maps.Clone(value)
		for k, v := range out {
			out[k] = marked(v)
		}
		return out
	default:
		return value
	}
}
