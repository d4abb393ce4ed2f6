package oidcauth_test

import (
	"strings"

	"crossfade/gateway/identity"
)

// parseCases are tokens that fail before anybody looks for a key.
var parseCases = []reasonCase{
	{name: "a good token is verified", token: claimsWith(nil)},
	{
		name:  "a token with the right audience among several is verified",
		token: claimsWith(object{"aud": []string{"account", "api://luigi"}}),
	},
	{
		name:  "a token larger than the bound is not even parsed",
		token: func(*idp) string { return strings.Repeat("a", 16<<10+1) },
		want:  []identity.Reason{identity.TokenOversize},
	},
	{
		name:  "a token without dots is opaque",
		token: func(*idp) string { return "gho_16C7e42F292c6912E7710c838347Ae178B4a" },
		want:  []identity.Reason{identity.OpaqueUnsupported},
	},
	{
		name:  "a token of five segments is encrypted",
		token: func(*idp) string { return "a.b.c.d.e" },
		want:  []identity.Reason{identity.JWEUnsupported},
	},
	{
		name:  "a token of two segments is malformed",
		token: func(*idp) string { return "a.b" },
		want:  []identity.Reason{identity.MalformedJWT},
	},
	{
		name:  "base64 with padding is malformed",
		token: func(p *idp) string { return b64(`{"alg":"RS256"}`) + "=." + b64("{}") + ".x" },
		want:  []identity.Reason{identity.MalformedJWT},
	},
	{
		name: "a line break within base64 is malformed",
		token: func(p *idp) string {
			t := p.token(p.good())
			return t[:5] + "\n" + t[5:]
		},
		want: []identity.Reason{identity.MalformedJWT},
	},
	{
		name: "left-over bits in the signature are malformed, so that a token has one spelling",
		token: func(p *idp) string {
			t := p.token(p.good())
			return t[:len(t)-1] + next(t[len(t)-1])
		},
		want: []identity.Reason{identity.MalformedJWT},
	},
	{
		name:  "a payload that is a list is malformed",
		token: func(p *idp) string { return signRaw(p.keys[0], `{"alg":"RS256"}`, `["iss"]`) },
		want:  []identity.Reason{identity.MalformedJWT},
	},
	{
		name:  "a payload with something behind it is malformed",
		token: func(p *idp) string { return signRaw(p.keys[0], `{"alg":"RS256"}`, encode(p.good())+"{}") },
		want:  []identity.Reason{identity.MalformedJWT},
	},
	{
		name:  "a payload that is not UTF-8 is malformed",
		token: func(p *idp) string { return signRaw(p.keys[0], `{"alg":"RS256"}`, "{\"sub\":\"\xff\"}") },
		want:  []identity.Reason{identity.MalformedJWT},
	},
	{
		name: "a payload nested too deeply is malformed",
		token: func(p *idp) string {
			return signRaw(p.keys[0], `{"alg":"RS256"}`, `{"a":`+strings.Repeat("[", 40)+strings.Repeat("]", 40)+`}`)
		},
		want: []identity.Reason{identity.MalformedJWT},
	},
	{
		name: "a number of a hundred digits is malformed",
		token: func(p *idp) string {
			return signRaw(p.keys[0], `{"alg":"RS256"}`, `{"n":`+strings.Repeat("9", 100)+`}`)
		},
		want: []identity.Reason{identity.MalformedJWT},
	},
	{
		name:  "an expiry in quotes has the wrong type",
		token: claimsWith(object{"exp": "tomorrow"}),
		want:  []identity.Reason{identity.ClaimTypeInvalid},
	},
	{
		name:  "an expiry beyond the year 9999 has the wrong type",
		token: claimsWith(object{"exp": 1e15}),
		want:  []identity.Reason{identity.ClaimTypeInvalid},
	},
	{
		name:  "an audience that holds a number has the wrong type",
		token: claimsWith(object{"aud": []any{"api://luigi", 7}}),
		want:  []identity.Reason{identity.ClaimTypeInvalid},
	},
	{
		name:  "a subject that is a number has the wrong type, and so there is no subject",
		token: claimsWith(object{"sub": 7}),
		want:  []identity.Reason{identity.ClaimTypeInvalid, identity.SubjectMissing},
	},
	{
		name:  "a subject with a line break has the wrong type and is no subject",
		token: claimsWith(object{"sub": "svc-etl\r\nX-Forwarded-User: admin"}),
		want:  []identity.Reason{identity.ClaimTypeInvalid, identity.SubjectMissing},
	},
	{
		name: "a claim that stands twice is ambiguous",
		token: func(p *idp) string {
			return signRaw(p.keys[0], `{"alg":"RS256","kid":"key-1"}`, payload(p, `"sub"`, `"sub":"admin","sub"`))
		},
		want: []identity.Reason{identity.AmbiguousClaim},
	},
	{
		name: "a claim that stands once more in other letters is ambiguous",
		token: func(p *idp) string {
			return signRaw(p.keys[0], `{"alg":"RS256","kid":"key-1"}`, payload(p, `"sub"`, `"Sub":"admin","sub"`))
		},
		want: []identity.Reason{identity.AmbiguousClaim},
	},
	{
		name: "a claim that stands once more with a long s is ambiguous",
		token: func(p *idp) string {
			return signRaw(p.keys[0], `{"alg":"RS256","kid":"key-1"}`, payload(p, `"sub"`, `"ſub":"admin","sub"`))
		},
		want: []identity.Reason{identity.AmbiguousClaim},
	},
	{
		name: "an escaped spelling of the same claim is ambiguous",
		token: func(p *idp) string {
			return signRaw(p.keys[0], `{"alg":"RS256","kid":"key-1"}`, payload(p, `"sub"`, `"s\u0075b":"admin","sub"`))
		},
		want: []identity.Reason{identity.AmbiguousClaim},
	},
	{
		name: "a member that stands twice inside a claim is ambiguous",
		token: func(p *idp) string {
			return signRaw(p.keys[0], `{"alg":"RS256","kid":"key-1"}`, payload(p, `"sub"`, `"realm_access":{"roles":[],"roles":["admin"]},"sub"`))
		},
		want: []identity.Reason{identity.AmbiguousClaim},
	},
	{
		name: "a header parameter that stands twice is ambiguous",
		token: func(p *idp) string {
			return signRaw(p.keys[0], `{"alg":"none","alg":"RS256","kid":"key-1"}`, encode(p.good()))
		},
		want: []identity.Reason{identity.AmbiguousClaim},
	},
	{
		name:  "names inside a claim may differ in case, because they are data",
		token: claimsWith(object{"resource_access": object{"App": object{}, "app": object{}}}),
	},
	{
		name: "a token that demands an extension is refused",
		token: func(p *idp) string {
			return sign(p.keys[0], object{"crit": []string{"b64"}, "b64": false}, p.good())
		},
		want: []identity.Reason{identity.CritUnsupported},
	},
}

// payload is the good payload as text, for mistakes that no encoder makes.
func payload(p *idp, replace, by string) string {
	text := encode(p.good())
	if !strings.Contains(text, replace) {
		panic(replace)
	}
	return strings.Replace(text, replace, by, 1)
}

// next returns the character after c in the alphabet of base64url; c ends a
// group whose last bits are zero.
func next(c byte) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return string(alphabet[strings.IndexByte(alphabet, c)+1])
}
