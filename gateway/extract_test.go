package gateway_test

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"crossfade/gateway"
	"crossfade/gateway/identity"
)

// statics are the static bearer tokens of a configuration.
type statics map[string]bool

func (s statics) IsStaticBearer(value string) bool { return s[value] }
func (s statics) Bearers() bool                    { return len(s) > 0 }

const (
	jwt       = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"
	staticJWT = "eyJ0eXAiOiJzdGF0aWMifQ.bm90LmEudG9rZW4.c3RhdGlj"
	opaque    = "s3cr3t-opaque-token"
)

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// shown is Presented with its secrets revealed, for comparison.
type shown struct {
	legacy, user, legacySecret string
	token                      string
	companion                  bool
	problem                    identity.Reason
}

func show(p gateway.Presented) shown {
	s := shown{companion: p.Companion, problem: p.Problem}
	if p.Legacy.Present() {
		s.legacy, s.user, s.legacySecret = p.Legacy.Scheme.String(), p.Legacy.User, p.Legacy.Secret.Reveal()
	}
	if p.Token.Present() {
		s.token = p.Token.Secret.Reveal()
	}
	return s
}

func TestExtractReadsWhatARequestPresents(t *testing.T) {
	t.Parallel()
	header := func(pairs ...string) http.Header {
		h := http.Header{}
		for i := 0; i < len(pairs); i += 2 {
			h.Add(pairs[i], pairs[i+1])
		}
		return h
	}
	withStatics := gateway.Extractor{APIKeyHeader: "X-Api-Key", Static: statics{opaque: true, staticJWT: true}}
	plain := gateway.Extractor{}
	multiple := identity.MultipleCredentials
	tests := []struct {
		name   string
		reader gateway.Extractor
		header http.Header
		query  string
		want   shown
	}{
		{"nothing at all", withStatics, header(), "", shown{}},
		{"an empty Authorization is nothing", withStatics, header("Authorization", " "), "", shown{}},
		{"empty headers beside a full one do not count", withStatics, header("Authorization", "", "Authorization", basic("a", "b")), "", shown{legacy: "basic", user: "a", legacySecret: "b"}},
		{"user and password", withStatics, header("Authorization", basic("svc-etl", "pass")), "", shown{legacy: "basic", user: "svc-etl", legacySecret: "pass"}},
		{"the scheme is read in any case (RFC 9110 section 11.1)", withStatics, header("Authorization", "bAsIc "+basic("a", "b")[6:]), "", shown{legacy: "basic", user: "a", legacySecret: "b"}},
		{"spaces between scheme and credentials", withStatics, header("Authorization", "Basic   "+basic("a", "b")[6:]+"  "), "", shown{legacy: "basic", user: "a", legacySecret: "b"}},
		{"colons belong to the password", withStatics, header("Authorization", basic("a", "b:c:d")), "", shown{legacy: "basic", user: "a", legacySecret: "b:c:d"}},
		{"an empty password", withStatics, header("Authorization", basic("a", "")), "", shown{legacy: "basic", user: "a"}},
		{"an empty user", withStatics, header("Authorization", basic("", "b")), "", shown{legacy: "basic", legacySecret: "b"}},
		{"bytes that are not UTF-8 are kept as they are", withStatics, header("Authorization", basic("j\xfcrgen", "\xff\x00")), "", shown{legacy: "basic", user: "j\xfcrgen", legacySecret: "\xff\x00"}},
		{"malformed base64 is a user that no file holds", withStatics, header("Authorization", "Basic !!!"), "", shown{legacy: "basic", legacySecret: "!!!"}},
		{"base64 without its padding is malformed", withStatics, header("Authorization", "Basic YTpi=YQ"), "", shown{legacy: "basic", legacySecret: "YTpi=YQ"}},
		{"base64 without a colon is a user that no file holds", withStatics, header("Authorization", "Basic YWJj"), "", shown{legacy: "basic", legacySecret: "abc"}},
		{"Basic without credentials is still a credential, a bad one", withStatics, header("Authorization", "Basic"), "", shown{legacy: "basic"}},

		{"the reserved user with a JWT sends a token", withStatics, header("Authorization", basic("oidc", jwt)), "", shown{token: jwt}},
		{"the reserved user with an encrypted JWT sends a token too", withStatics, header("Authorization", basic("oidc", "a.b.c.d.e")), "", shown{token: "a.b.c.d.e"}},
		{"the reserved user with a password is a user like any other", withStatics, header("Authorization", basic("oidc", "password")), "", shown{legacy: "basic", user: "oidc", legacySecret: "password"}},
		{"the reserved user is spelled in one way only", withStatics, header("Authorization", basic("OIDC", jwt)), "", shown{legacy: "basic", user: "OIDC", legacySecret: jwt}},
		{"another user may have a password that looks like a JWT", withStatics, header("Authorization", basic("a", jwt)), "", shown{legacy: "basic", user: "a", legacySecret: jwt}},

		{"a bearer token", withStatics, header("Authorization", "Bearer "+jwt), "", shown{token: jwt}},
		{"a bearer token in capitals", withStatics, header("Authorization", "BEARER "+jwt), "", shown{token: jwt}},
		{"a static bearer token", withStatics, header("Authorization", "Bearer "+opaque), "", shown{legacy: "static_bearer", legacySecret: opaque}},
		{"a static bearer token that looks like a JWT", withStatics, header("Authorization", "Bearer "+staticJWT), "", shown{legacy: "static_bearer", legacySecret: staticJWT}},
		{"an opaque bearer value is a wrong static token where those are in use", withStatics, header("Authorization", "Bearer other"), "", shown{legacy: "static_bearer", legacySecret: "other"}},
		{"an opaque bearer value is a token where no static ones are", plain, header("Authorization", "Bearer other"), "", shown{token: "other"}},

		{"two Authorization headers", withStatics, header("Authorization", basic("a", "b"), "Authorization", basic("a", "b")), "", shown{problem: multiple}},
		{"two Authorization headers of different schemes", withStatics, header("Authorization", basic("a", "b"), "Authorization", "Bearer "+jwt), "", shown{problem: multiple}},
		{"a scheme that nobody handles", withStatics, header("Authorization", "Digest username=a"), "", shown{problem: identity.SchemeUnsupported}},
		{"a value without a scheme", withStatics, header("Authorization", jwt), "", shown{problem: identity.SchemeUnsupported}},
		{"two values in one header are a scheme that nobody handles or a bad secret, never two chances", withStatics, header("Authorization", basic("a", "b")+", Bearer "+jwt), "", shown{legacy: "basic", legacySecret: basic("a", "b")[6:] + ", Bearer " + jwt}},

		{"an API key", withStatics, header("X-API-Key", "k1"), "", shown{legacy: "api_key", legacySecret: "k1"}},
		{"an API key where none are configured", plain, header("X-API-Key", "k1"), "", shown{}},
		{"an API key and a user", withStatics, header("X-API-Key", "k1", "Authorization", basic("a", "b")), "", shown{legacy: "basic", user: "a", legacySecret: "b", problem: multiple}},
		{"an API key and a static bearer token", withStatics, header("X-API-Key", "k1", "Authorization", "Bearer "+opaque), "", shown{legacy: "static_bearer", legacySecret: opaque, problem: multiple}},
		{"two API keys", withStatics, header("X-API-Key", "k1", "X-API-Key", "k2"), "", shown{problem: multiple}},
		{"an API key with a JWT in Authorization: the JWT is the companion", withStatics, header("X-API-Key", "k1", "Authorization", "Bearer "+jwt), "", shown{legacy: "api_key", legacySecret: "k1", token: jwt, companion: true}},
		{"an API key with a JWT as the reserved user's password: likewise", withStatics, header("X-API-Key", "k1", "Authorization", basic("oidc", jwt)), "", shown{legacy: "api_key", legacySecret: "k1", token: jwt, companion: true}},
		{"an API key beside a scheme that nobody handles governs", withStatics, header("X-API-Key", "k1", "Authorization", "Digest username=a"), "", shown{legacy: "api_key", legacySecret: "k1"}},

		{"a companion token", withStatics, header("Authorization", basic("a", "b"), "Crossfade-Token", jwt), "", shown{legacy: "basic", user: "a", legacySecret: "b", token: jwt, companion: true}},
		{"a companion token beside a static bearer token", withStatics, header("Authorization", "Bearer "+opaque, "Crossfade-Token", jwt), "", shown{legacy: "static_bearer", legacySecret: opaque, token: jwt, companion: true}},
		{"a companion token alone does not govern", withStatics, header("Crossfade-Token", jwt), "", shown{token: jwt, companion: true}},
		{"two companion tokens", withStatics, header("Authorization", basic("a", "b"), "Crossfade-Token", jwt, "Crossfade-Token", jwt), "", shown{legacy: "basic", user: "a", legacySecret: "b", problem: multiple}},
		{"a companion token beside a bearer token", withStatics, header("Authorization", "Bearer "+jwt, "Crossfade-Token", jwt), "", shown{token: jwt, problem: multiple}},
		{"a companion token beside an API key and a bearer token", withStatics, header("X-API-Key", "k1", "Authorization", "Bearer "+jwt, "Crossfade-Token", jwt), "", shown{legacy: "api_key", legacySecret: "k1", token: jwt, companion: true, problem: multiple}},
		{"an empty companion token is nothing", withStatics, header("Authorization", basic("a", "b"), "Crossfade-Token", ""), "", shown{legacy: "basic", user: "a", legacySecret: "b"}},

		{"a token in the query", plain, header(), "a=b&access_token=" + jwt, shown{problem: identity.TokenInQuery}},
		{"a token in the query beside a good one", plain, header("Authorization", "Bearer "+jwt), "access_token=" + jwt, shown{token: jwt, problem: identity.TokenInQuery}},
		{"a token in the query behind percent signs", plain, header(), "%61ccess%5Ftoken=" + jwt, shown{problem: identity.TokenInQuery}},
		{"an empty token in the query is none", plain, header(), "access_token=&access_token", shown{}},
		{"other names in the query that hold the word are none", plain, header(), "token=1&access_tokens=2&my_access_token=3&%zz=access_token", shown{}},
		{"two Authorization headers and a token in the query", plain, header("Authorization", basic("a", "b"), "Authorization", "Bearer x"), "access_token=x", shown{problem: multiple}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := show(tt.reader.Extract(tt.header, tt.query)); got != tt.want {
				t.Errorf("\n got  %+v\n want %+v", got, tt.want)
			}
		})
	}
}

func TestABearerSchemeWithoutAValueIsATokenThatIsThere(t *testing.T) {
	t.Parallel()
	p := gateway.Extractor{}.Extract(http.Header{"Authorization": {"Bearer"}}, "")
	if !p.Token.Present() || !p.Token.Secret.Empty() || p.Companion || p.Problem != "" {
		t.Errorf("got %+v: an empty token must be judged and fail, not be taken for no token", p)
	}
}

func FuzzExtract(f *testing.F) {
	f.Add(basic("svc-etl", "pass"), "", "k1", jwt, "data=%7B%7D", true)
	f.Add("Bearer "+jwt, "Bearer "+opaque, "", "", "access_token=x", false)
	f.Add("Basic !!!", "", "", "", "%61ccess_token=x", true)
	f.Add("Digest username=a", "\x00", " ", "\t", "%", true)
	f.Add("bearer  a.b.c", "", "", "", "", true)
	f.Fuzz(func(t *testing.T, first, second, key, companion, query string, static bool) {
		reader := gateway.Extractor{APIKeyHeader: "X-Api-Key"}
		if static {
			reader.Static = statics{opaque: true}
		}
		h := http.Header{"Authorization": {first, second}, "X-Api-Key": {key}, "Crossfade-Token": {companion}}
		p := reader.Extract(h, query)

		if p.Token.Present() && p.Token.Scheme != identity.SchemeOIDC {
			t.Errorf("a token of scheme %s", p.Token.Scheme)
		}
		if p.Legacy.Present() && !p.Legacy.Scheme.Legacy() {
			t.Errorf("a legacy credential of scheme %s", p.Legacy.Scheme)
		}
		if p.Legacy.Present() && p.Token.Present() && !p.Companion {
			t.Error("a token beside a legacy credential governs by itself")
		}
		if p.Companion && !p.Token.Present() {
			t.Error("a companion without a token")
		}
		if p.Problem == "" && filled(first) && filled(second) {
			t.Error("two Authorization headers are no problem")
		}
		sent := first + second + key + companion
		for _, c := range []identity.Credential{p.Legacy, p.Token} {
			if c.Scheme == identity.SchemeBasic || c.Secret.Empty() || strings.HasPrefix(strings.ToLower(first+second), "basic") {
				continue // decoded
			}
			if !strings.Contains(sent, c.Secret.Reveal()) {
				t.Errorf("a secret that nobody sent, of %d bytes", c.Secret.Len())
			}
		}
	})
}

// filled reports whether a value is more than white space as HTTP knows it.
func filled(value string) bool { return strings.Trim(value, " \t\r\n") != "" }
