package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// probing is a configuration whose probes are entries, YAML flow mappings by
// name, beside the files that they name.
func probing(t *testing.T, issuerURL, entries string, more map[string]string) (file string) {
	t.Helper()
	lines := map[string]string{"probe": "{ timeout: 2s, principals: { " + entries + " } }"}
	for key, value := range more {
		lines[key] = value
	}
	dir := files(t, map[string]string{"etl.secret": "svc-etl-secret\n", "billing.secret": "svc-billing-secret", "wrong.secret": "wrong-0815", "empty.secret": "\n"})
	for key, value := range lines {
		lines[key] = strings.ReplaceAll(value, "DIR", dir)
	}
	return whole(t, issuerURL, "http://127.0.0.1:1", lines)
}

const etlProbe = "svc-etl: { client_id: svc-etl, client_secret_file: DIR/etl.secret, audience: luigi }"

func TestProbeAnswersFirstAndThenSaysWhyAndWhoActs(t *testing.T) {
	t.Parallel()
	idp := issuer(t, 0)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	for name, tc := range map[string]struct {
		entries string
		code    int
		first   string
		said    []string
	}{
		"all is well": {
			etlProbe, exitOK, "OK. svc-etl\n",
			[]string{"match_allow, evidence probe", "team data-eng, roles [runner]", "aud        luigi", "sub        svc-etl", "exp        "},
		},
		"another audience": {
			strings.Replace(etlProbe, "audience: luigi", "audience: finance", 1), exitRefused, "WOULD BREAK. svc-etl: aud_mismatch\n",
			[]string{`the token is for "finance"; this gateway accepts "luigi"`, "Who acts: team", "What to do: Ask for the gateway's audience", "probe.principals.svc-etl.audience", "aud        finance"},
		},
		"another client": {
			"svc-etl: { client_id: svc-billing, client_secret_file: DIR/billing.secret, audience: luigi }", exitRefused, "WOULD BREAK. svc-etl: principal_unmapped\n",
			[]string{`no principal for subject "svc-billing"`, "Who acts: platform", `svc-etl: { oidc: { subject: "svc-billing" } }`, "principals.yaml"},
		},
		"a wrong secret": {
			strings.Replace(etlProbe, "etl.secret", "wrong.secret", 1), exitRefused, "WOULD BREAK. svc-etl: token_absent\n",
			[]string{"The identity provider gave no token.", "invalid_client", "Who acts: idp", "probe.principals.svc-etl"},
		},
		"an empty secret": {
			strings.Replace(etlProbe, "etl.secret", "empty.secret", 1), exitFailure, "COULD NOT BE JUDGED. svc-etl\n",
			[]string{"empty.secret is empty", "Who acts: platform", "nobody was asked"},
		},
		"a provider that is away": {
			strings.Replace(etlProbe, "audience", "token_url: "+gone.URL+", audience", 1), exitFailure, "COULD NOT BE JUDGED. svc-etl\n",
			[]string{"connection refused", "Who acts: idp", "crossfade check --connect"},
		},
		"an exchange that the provider does not offer": {
			"svc-etl: { subject_token_file: DIR/etl.secret, audience: luigi }", exitRefused, "WOULD BREAK. svc-etl: token_absent\n",
			[]string{"token_exchange at " + idp.URL(), "unsupported_grant_type"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := run(t, "probe", "svc-etl", "-c", probing(t, idp.URL(), tc.entries, nil)).want(t, tc.code, tc.said...)
			if !strings.HasPrefix(got.stdout, tc.first) {
				t.Errorf("the answer is not first: %v", got)
			}
			for _, secret := range []string{"svc-etl-secret", "svc-billing-secret", "0815", "eyJ"} {
				if strings.Contains(got.stdout+got.stderr, secret) {
					t.Errorf("%s is shown: %v", secret, got)
				}
			}
		})
	}
}

func TestProbeWithoutKeysIsNoMismatch(t *testing.T) {
	t.Parallel()
	idp := issuer(t, 0)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	file := probing(t, idp.URL(), etlProbe, map[string]string{
		"oidc": fmt.Sprintf("{ issuer: %s, audience: luigi, jwks_url: %s/keys }", idp.URL(), gone.URL),
	})
	run(t, "probe", "svc-etl", "-c", file).want(t, exitFailure,
		"COULD NOT BE JUDGED. svc-etl: jwks_unavailable", "these are its own words", "Who acts: idp", "could not be judged: svc-etl")
}

// volatile are the parts of an output that differ each time.
var volatile = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`http://127\.0\.0\.1:\d+`), "https://idp.example"},
	{regexp.MustCompile(`/[^\s"]*/(\w+\.(?:yaml|secret))`), "/etc/crossfade/$1"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ, in [\dms]+`), "2026-11-24T12:05:00Z, in 5m0s"},
	{regexp.MustCompile(`, in \d+m?s\n`), ", in 34ms\n"},
}

func steady(text string) string {
	for _, v := range volatile {
		text = v.pattern.ReplaceAllString(text, v.with)
	}
	return text
}

func TestProbesLookLikeThisToPeople(t *testing.T) {
	t.Parallel()
	idp := issuer(t, 0)
	entries := etlProbe +
		", svc-loader: { client_id: svc-billing, client_secret_file: DIR/billing.secret, audience: finance }" +
		", svc-search: { client_id: svc-search, client_secret_file: DIR/empty.secret }"
	file := probing(t, idp.URL(), entries, nil)
	principals := filepath.Join(filepath.Dir(file), "principals.yaml")
	if err := os.WriteFile(principals, []byte(read(t, principals)+
		"svc-loader: { team: data-eng, oidc: { subject: loader }, roles: [runner] }\nsvc-search: { team: search, oidc: { subject: svc-search }, roles: [runner] }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, args := range [][]string{{"svc-etl"}, {"svc-loader"}, {"--all"}, {"--all", "-o", "markdown"}} {
		got := run(t, append([]string{"probe", "-c", file}, args...)...)
		fmt.Fprintf(&text, "$ crossfade probe %s\n%s%sexit code %d\n\n", strings.Join(args, " "), steady(got.stdout), steady(got.stderr), got.code)
	}
	golden(t, "probe.golden", text.String())
}

func TestProbeTellsProgramsTheSame(t *testing.T) {
	t.Parallel()
	idp := issuer(t, 0)
	file := probing(t, idp.URL(), etlProbe, nil)
	var one struct {
		Account, Result, Verdict, Evidence, Source, From string
		Token                                            struct {
			Verified bool
			Sub      string
			Aud      []string
			Exp      time.Time
		}
		Principal struct{ Name, Team string }
	}
	got := run(t, "probe", "svc-etl", "-c", file, "-o", "json").want(t, exitOK)
	if err := json.Unmarshal([]byte(got.stdout), &one); err != nil {
		t.Fatal(err)
	}
	if one.Account != "svc-etl" || one.Result != "ok" || one.Verdict != "match_allow" || one.Evidence != "probe" ||
		one.Source != "client_credentials" || one.From != idp.URL() || one.Principal.Team != "data-eng" ||
		!one.Token.Verified || one.Token.Sub != "svc-etl" || len(one.Token.Aud) != 1 || one.Token.Exp.Before(time.Now()) {
		t.Errorf("%+v", one)
	}
	var all []map[string]any
	got = run(t, "probe", "--all", "-c", file, "-o", "json").want(t, exitOK)
	if err := json.Unmarshal([]byte(got.stdout), &all); err != nil || len(all) != 1 || all[0]["result"] != "ok" {
		t.Errorf("%v, %v", all, err)
	}
	run(t, "probe", "svc-etl", "-c", file, "-o", "yaml").want(t, exitOK, "verdict: match_allow")
}

func TestWhoCannotBeProbedIsToldWhatIsMissing(t *testing.T) {
	t.Parallel()
	idp := issuer(t, 0)
	file := probing(t, idp.URL(), etlProbe, nil)
	unprobed := whole(t, idp.URL(), "http://127.0.0.1:1", nil)
	nobody := filepath.Join(files(t, map[string]string{"c.yaml": "upstream: http://127.0.0.1:1\n"}), "c.yaml")
	for name, tc := range map[string]struct {
		args []string
		said []string
	}{
		"no name":              {[]string{"-c", file}, []string{"name one account", "Run `crossfade probe --help`"}},
		"two names":            {[]string{"svc-etl", "svc-ann", "-c", file}, []string{"name one account"}},
		"a name and all":       {[]string{"svc-etl", "--all", "-c", file}, []string{"leave the name out"}},
		"a format":             {[]string{"svc-etl", "-o", "xml", "-c", file}, []string{"-o xml: use one of"}},
		"a slip":               {[]string{"svc-elt", "-c", file}, []string{`"svc-elt" has no entry in`, `did you mean "svc-etl"?`}},
		"nothing like it":      {[]string{"xyzzy", "-c", file}, []string{`"xyzzy" has no entry in`}},
		"an entry alone":       {[]string{"svc-etl", "-c", unprobed}, []string{"nothing says how to obtain a token for it", "    svc-etl: { client_id:", "subject_token_file"}},
		"all of none":          {[]string{"--all", "-c", unprobed}, []string{"no account is configured to be probed", "probe:"}},
		"no principals":        {[]string{"svc-etl", "-c", nobody}, []string{"no principals file is configured"}},
		"no configuration":     {[]string{"svc-etl", "-c", "/nowhere.yaml"}, []string{"/nowhere.yaml"}},
		"a mistake in it":      {[]string{"svc-etl", "-c", probing(t, idp.URL(), "svc-etl: { client_id: x }", nil)}, []string{"client_secret_file: is missing"}},
		"a secret in the open": {[]string{"svc-etl", "-c", probing(t, idp.URL(), "svc-etl: { client_id: x, client_secret: hunter2 }", nil)}, []string{`did you mean "client_secret_file"?`}},
	} {
		t.Run(name, func(t *testing.T) {
			got := run(t, append([]string{"probe"}, tc.args...)...).want(t, exitUsage, tc.said...)
			if got.stdout != "" || strings.Contains(got.stderr, "hunter2") {
				t.Errorf("%v", got)
			}
		})
	}
}

func TestCheckJudgesProbesAsServeDoes(t *testing.T) {
	t.Parallel()
	idp := issuer(t, 0)
	run(t, "check", probing(t, idp.URL(), etlProbe, nil)).want(t, exitOK, "probes: 1 account, each every 1h0m0s, at most 6 a minute")
	query := strings.Replace(etlProbe, "audience", "token_url: \"https://idp.example/token?x=1\", audience", 1)
	file := probing(t, idp.URL(), query, nil)
	for _, args := range [][]string{{"check", file}, {"probe", "svc-etl", "-c", file}, {"serve", "-c", file}} {
		run(t, args...).want(t, exitUsage, "probe.principals.svc-etl: ", "must not hold a query")
	}
}
