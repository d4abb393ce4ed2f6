package identity_test

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"

	"crossfade/gateway/identity"
)

func TestNamesInASampleAreThoseOfClaimsAndFamilies(t *testing.T) {
	for name, want := range map[string]bool{
		"sub": true, "https://acme.dev/roles": true, "cognito:groups": true, "kubernetes.io": true, "LoadÜsers": true, "a-b_c": true,
		"": false, "ada@acme.dev": false, "two words": false, "a\nb": false, "\u202eevil": false, "<b>": false, "x=1": false, "a*": false,
		strings.Repeat("a", 40): true, strings.Repeat("a", 41): false, "\xff": false, "\ufffd": false,
	} {
		if shown, ok := identity.ShownName(name); ok != want || ok && shown != name {
			t.Errorf("%q is shown as %q, %t", name, shown, ok)
		}
	}
}

func TestNamesInASampleAreCountedWhereTheyFindNoRoom(t *testing.T) {
	for name, test := range map[string]struct {
		names []string
		most  int
		want  string
	}{
		"none":                         {nil, 60, "none"},
		"one":                          {[]string{"sub"}, 60, "sub"},
		"all":                          {[]string{"iss", "sub", "aud"}, 60, "iss, sub, aud"},
		"one that fits by itself":      {[]string{"sub"}, 3, "sub"},
		"as many as fit":               {[]string{"iss", "sub", "an_audience", "c", "d"}, 25, "iss, sub and 3 more"},
		"those that may not be shown":  {[]string{"iss", "a b", "sub", "x@y"}, 60, "iss, sub and 2 more"},
		"none that may be shown":       {[]string{"a b", "x@y"}, 60, "2 that cannot be shown"},
		"none that finds room":         {[]string{"audience"}, 4, "1 that cannot be shown"},
		"the first that is too long":   {[]string{strings.Repeat("a", 41), "b"}, 60, "b and 1 more"},
		"without counting what is not": {[]string{"a", "b"}, 4, "a, b"},
	} {
		if got := identity.ShownNames(test.names, test.most); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
	if got := identity.ShownWords([]identity.Role{"runner", "a role of many words"}, 60); got != "runner, a role of many words" {
		t.Errorf("words of the configuration: %q", got)
	}
}

func TestASampleIsBoundedAndPrintable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String().Draw(t, "text") + strings.Repeat(rapid.SampledFrom([]string{"", "ü", "a", "\n"}).Draw(t, "more"), rapid.IntRange(0, 300).Draw(t, "times"))
		got := identity.Sample("%s", text)
		if len(got) > identity.MaxSample || !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Fatalf("%q has %d bytes", got, len(got))
		}
		if len(text) <= identity.MaxSample && utf8.ValidString(text) && utf8.RuneCountInString(got) != utf8.RuneCountInString(text) {
			t.Fatalf("%q is cut to %q", text, got)
		}
		names := rapid.SliceOf(rapid.OneOf(rapid.String(), rapid.StringMatching(`[a-z]{1,20}`))).Draw(t, "names")
		most := rapid.IntRange(0, 200).Draw(t, "most")
		if got := identity.ShownNames(names, most); len(got) > max(most, len("100000 that cannot be shown")) {
			t.Fatalf("%q has %d bytes, at most %d", got, len(got), most)
		}
	})
}

// TestWhyAgreesWithToken: there is a why exactly where Token has a reason, and it
// asks for nothing that Token does not ask for.
func TestWhyAgreesWithToken(t *testing.T) {
	d, err := identity.NewDirectory([]identity.Entry{
		{Name: "svc", Team: "a", OIDC: []identity.TokenMatch{{Issuer: "https://one", Subject: "s1"}, {Subject: "s2", Claims: map[string]string{"k": "v"}}}},
		{Name: "by-k", Team: "b", OIDC: []identity.TokenMatch{{Claims: map[string]string{"k": "w"}}}},
		{Name: "by-l", Team: "b", OIDC: []identity.TokenMatch{{Claims: map[string]string{"l": "w"}}}},
	}, identity.ClaimRules{Teams: map[string]map[string]identity.Team{"g": {"x": "a", "y": "b"}}})
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		claims := map[string][]string{}
		for _, name := range []string{"k", "l", "g"} {
			claims[name] = rapid.SliceOfN(rapid.SampledFrom([]string{"v", "w", "x", "y"}), 0, 2).Draw(t, name)
		}
		asked := map[string]bool{}
		who := identity.TokenIdentity{
			Issuer: rapid.SampledFrom([]string{"https://one", "https://two"}).Draw(t, "issuer"), Subject: rapid.SampledFrom([]string{"s1", "s2", "s3"}).Draw(t, "subject"),
			Claim: func(name string) []string { asked[name] = true; return claims[name] },
		}
		_, reason := d.Token(who)
		byToken := len(asked)
		why := d.Why(who)
		if len(asked) != byToken {
			t.Fatalf("asked for %v", asked)
		}
		if reason != "" && (why == "" || len(why) > 100) {
			t.Fatalf("%s, because %q", reason, why)
		}
		if several := strings.Contains(why, "several teams"); reason != "" && several != (reason == identity.TeamUnmapped) {
			t.Fatalf("%s, because %q", reason, why)
		}
		for _, value := range []string{"s1", "s2", "s3"} {
			if strings.Contains(why, value) {
				t.Fatalf("%q shows the subject", why)
			}
		}
	})
}
