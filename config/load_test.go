package config_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"crossfade/config"
)

// load loads and fails the test on any mistake.
func load(t *testing.T, src config.Source) *config.Config {
	t.Helper()
	c, err := config.Load(src)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// mistakes loads what must be wrong.
func mistakes(t *testing.T, src config.Source) config.Errors {
	t.Helper()
	_, err := config.Load(src)
	var wrong config.Errors
	if !errors.As(err, &wrong) {
		t.Fatalf("got %v, want Errors", err)
	}
	return wrong
}

// write makes a file below dir with its directories.
func write(t *testing.T, dir, name, content string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestWithoutAFileFlagsAreEnough(t *testing.T) {
	c := load(t, config.Source{Dir: t.TempDir(), Flags: map[string]any{
		"upstream.url": "http://127.0.0.1:8083", "upstream.profile": "luigi", "mode": "observe", "listen.address": ":8082",
	}})
	if c.File != "" || c.Upstream.URL.String() != "http://127.0.0.1:8083" || c.Upstream.Profile != config.ProfileLuigi ||
		c.Listen.Address != ":8082" || c.Mode != config.ModeObserve || c.Rollout.Stickiness != config.StickinessPipeline {
		t.Errorf("got %+v", c)
	}
	if len(c.Files()) != 0 {
		t.Errorf("files: %v", c.Files())
	}
}

func TestAGatewayThatOnlyAnswersProxiesNeedsNoUpstream(t *testing.T) {
	file := write(t, t.TempDir(), "c.yaml", "listen: { trusted_proxies: [127.0.0.1], forward_auth: /auth }\n")
	c := load(t, config.Source{File: file})
	if c.Upstream.URL != nil || c.Listen.ForwardAuth != "/auth" || c.Upstream.Profile != config.ProfileHTTP || c.Rollout.Stickiness != config.StickinessPrincipal {
		t.Errorf("got %+v", c)
	}
	again := load(t, config.Source{File: file, Flags: map[string]any{"listen.forward_auth": "/check"}})
	if again.Hash() == c.Hash() {
		t.Error("another path has the same hash")
	}
}

func TestWithoutAnythingOnlyTheUpstreamIsMissing(t *testing.T) {
	wrong := mistakes(t, config.Source{Dir: t.TempDir()})
	if len(wrong) != 1 || wrong[0].Key != "upstream.url" ||
		!strings.Contains(wrong[0].Message, "--upstream") || !strings.Contains(wrong[0].Message, "CROSSFADE_UPSTREAM_URL") {
		t.Errorf("got %v", wrong)
	}
	c := load(t, config.Source{Dir: t.TempDir(), Partial: true})
	want := config.Default()
	want.Rollout.Stickiness = config.StickinessPrincipal
	want.OIDC = config.OIDC{}
	if diff := cmp.Diff(want, c, cmpopts.IgnoreUnexported(config.Config{}),
		cmpopts.EquateComparable(config.Secret{}, config.SecretURL{}), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("an empty configuration is not the default (-want +got):\n%s", diff)
	}
}

func TestTheFirstFileOfTheDocumentationLoads(t *testing.T) {
	c := load(t, config.Source{File: "testdata/good/first.yaml"})
	if c.Listen.Address != ":8082" || c.Redis.URL.Reveal() != "redis://localhost:6379/0" ||
		c.Legacy.Htpasswd != "testdata/good/luigi.htpasswd" || c.Metrics.Address != "127.0.0.1:9091" {
		t.Errorf("got %+v", c)
	}
	if len(c.OIDC.Issuers) != 1 || c.OIDC.Issuers[0].Issuer != "https://acme.okta.com/oauth2/luigi" ||
		!cmp.Equal(c.OIDC.Issuers[0].Audiences, []string{"api://luigi"}) || c.OIDC.Issuers[0].Skew.Nbf != 30*time.Second {
		t.Errorf("issuers: %+v", c.OIDC.Issuers)
	}
}

func TestTheFullFileOfTheDocumentationLoads(t *testing.T) {
	c := load(t, config.Source{File: "testdata/good/full.yaml"})
	equal := func(what string, got, want any) {
		t.Helper()
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	const skew = 30 * time.Second
	equal("mode", c.Mode, config.ModeEnforce)
	equal("listen", c.Listen, config.Listen{Address: ":8082", TrustedProxies: []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.7/32"),
	}})
	equal("metrics", c.Metrics.Address, ":9091")
	equal("admin", c.Admin, config.Admin{
		Address: "127.0.0.1:8081", Viewers: config.Access{Groups: []string{"data"}},
		Leads:     config.Access{Groups: []string{"data-leads"}},
		Operators: config.Access{Groups: []string{"platform"}, Principals: []string{"svc-deploy"}},
	})
	equal("max_body", c.Upstream.MaxBody, 8*config.MiB)
	equal("timeout", c.Upstream.Timeout, time.Minute)
	equal("abort", c.Upstream.Luigi.Abort, false)
	equal("grace", c.Upstream.Luigi.Grace, 5*time.Minute)
	equal("legacy", c.Legacy, config.Legacy{
		Htpasswd: "testdata/good/luigi.htpasswd",
		APIKeys:  config.APIKeys{Header: "X-API-Key", File: "testdata/good/api-keys.yaml"},
		Bearer:   config.Bearer{File: "testdata/good/static-tokens.yaml"}, Concurrency: 2, Cache: time.Minute,
		Throttle: config.Throttle{Failures: 20, Every: 10 * time.Second},
	})
	equal("issuers", c.OIDC.Issuers, []config.Issuer{
		{
			Issuer: "https://acme.okta.com/oauth2/luigi", Audiences: []string{"api://luigi"}, Preset: "okta",
			Skew: config.Skew{Exp: skew, Nbf: skew, Iat: skew},
		},
		{
			Issuer: "http://127.0.0.1:9000/realms/acme", Audiences: []string{"luigi"}, Preset: "keycloak",
			JWKSURL: "http://127.0.0.1:9000/keys", Algorithms: []string{"RS256", "ES256"},
			AuthorizedParties: []string{"luigi-workers"}, Tenants: []string{"acme"}, TokenTypes: []string{"at+jwt", "JWT"},
			Scopes: []string{"luigi.write"}, MaxLifetime: 12 * time.Hour,
			Skew:        config.Skew{Exp: 10 * time.Second, Nbf: time.Minute, Iat: skew},
			GroupsClaim: "roles", RequireGroups: true, SubjectClaim: "client_id",
		},
	})
	equal("readiness", c.Readiness, config.Readiness{
		LongestCycle: 31 * 24 * time.Hour,
		Limits: config.Limits{
			Window: 28 * 24 * time.Hour, Missing: 0.001, TokensSent: 0.995, CleanAfter: 10, BadRuns: 0.005, Confidence: 0.999,
			BrokenADay: 0.5, CensusDays: 3, Indeterminate: 0.01, SoakRuns: 50, RetireAfter: 60 * 24 * time.Hour,
		},
		Waivers: []config.Waiver{{
			Team: "data-eng", Account: "svc-etl", Reason: "role_missing", Owner: "the security team", Why: "TICKET-7",
			Until: time.Date(2027, 3, 31, 0, 0, 0, 0, time.UTC),
		}},
	})
	equal("deny", c.OIDC.Deny, config.Deny{
		File: "testdata/good/deny.yaml", Subjects: []string{"0oaGone"}, TokenIDs: []string{"stolen-1"},
		IssuedBefore: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	})
	equal("headers", []string{c.Headers.User, c.Headers.Email, c.Headers.AuthRequestUser},
		[]string{"X-Remote-Account", "X-Forwarded-Email", ""})
	equal("exempt", c.Exempt.Paths, []string{"/healthz"})
	equal("authorization", c.Authorization, config.AuthorizationEnforce)
	equal("rollout", c.Rollout, config.Rollout{
		Dir: "testdata/good/rollout.d", ColdStart: config.ColdStartSnapshot, Stickiness: config.StickinessRun,
	})
	equal("state_dir", c.StateDir, config.Path("testdata/good/state"))
	equal("redis", []string{c.Redis.URL.Reveal(), c.Redis.Username, c.Redis.Password.Reveal(), c.Redis.Prefix},
		[]string{"rediss://redis.internal:6379/0", "crossfade", "hunter2", "fade"})
	equal("audit", c.Audit, config.Audit{
		File: "testdata/good/audit.jsonl", Stdout: false, Required: true, Parameters: []string{"day", "country"},
		MaxSize: 16 * config.MiB, MaxAge: time.Hour,
	})
	equal("access log", c.AccessLog, config.AccessLog{File: "-", Format: config.LogJSON})
	equal("shadow", c.Shadow, config.Shadow{Queue: 64, Workers: 2, Timeout: time.Second})
	asked := config.ProbeTarget{Audience: "luigi", Scopes: []string{"luigi.write"}}
	etl, billing, third := asked, asked, asked
	etl.Issuer = "https://acme.okta.com/oauth2/luigi"
	billing.TokenURL, billing.Audience = "http://127.0.0.1:9000/token", "other"
	third.Issuer, third.Resource = "http://127.0.0.1:9000/realms/acme", "https://luigi"
	equal("probe", c.Probe, config.Probe{
		Every: 30 * time.Minute, PerMinute: 12, Timeout: 10 * time.Second, ProbeTarget: asked,
		Principals: map[string]config.ProbeAccount{
			"svc-etl": {
				Source: config.ProbeClientCredentials, ProbeTarget: etl,
				ClientID: "0oa1b2c3", ClientSecretFile: "testdata/good/svc-etl.secret",
			},
			"svc-billing": {
				Source: config.ProbeTokenExchange, ProbeTarget: billing, SubjectTokenFile: "testdata/good/billing.token",
			},
			"svc.token-only": {
				Source: config.ProbeClientCredentials, ProbeTarget: third, ClientID: "x",
				ClientAuth: "private_key_jwt", ClientKeyFile: "testdata/good/svc-etl.secret", ClientKeyID: "k1",
			},
		},
	})
	equal("help", c.Help, config.Help{URL: "https://wiki.acme.dev/oidc", Contact: "#platform"})
	equal("sunset", c.Sunset, time.Date(2027, 3, 31, 0, 0, 0, 0, time.UTC))
	equal("drain", c.Drain, time.Minute)
	const okta, local = "https://acme.okta.com/oauth2/luigi", "http://127.0.0.1:9000/realms/acme"
	equal("principals", c.Principals, []config.Principal{
		{Name: "luigi", Legacy: []string{"luigi"}, Shared: true, MayBe: []string{"svc-etl", "svc-billing"}},
		{
			Name: "svc-billing", Team: "billing", Legacy: []string{"svc-billing"}, Roles: []string{"runner"},
			OIDC: []config.TokenMatch{{Issuer: okta, Subject: "0oa9z8y7"}, {Issuer: local, Claims: map[string]string{"repository": "acme/billing"}}},
		},
		{
			Name: "svc-etl", Team: "data-eng", Legacy: []string{"svc-etl", "etl"}, Roles: []string{"runner"},
			Owner: "#data-eng",
			OIDC:  []config.TokenMatch{{Issuer: okta, Subject: "0oa1b2c3"}},
		},
		{Name: "svc.token-only", Team: "billing", Legacy: []string{}, OIDC: []config.TokenMatch{{Issuer: local, Subject: "x"}}},
	})
	equal("roles", c.Roles, &config.Roles{
		Roles: map[string]config.Role{
			"runner":   {Execute: []string{"Extract*", "Load*"}, View: []string{"*"}},
			"operator": {Execute: []string{"*"}, View: []string{"*"}, Admin: []string{"*"}},
		},
		Claims: map[string]map[string]string{"groups": {"luigi-operators": "operator"}},
		Teams:  map[string]map[string]string{"groups": {"data": "data-eng"}},
	})
	var files []string
	for _, name := range []string{
		"api-keys.yaml", "deny.yaml", "full.yaml", "luigi.htpasswd", "principals.yaml",
		"redis.password", "roles.yaml", "static-tokens.yaml", "svc-etl.secret",
	} {
		files = append(files, "testdata/good/"+name)
	}
	equal("files", c.Files(), files)
}

func TestEachSourceOverridesTheOneBefore(t *testing.T) {
	file := "upstream: http://127.0.0.1:1\ndrain: 2s\nmetrics: \":2\"\nlegacy: { concurrency: 2 }\nlisten: { address: \":20\", trusted_proxies: [10.0.0.0/8] }\n"
	for _, tt := range []struct {
		name  string
		file  string
		env   []string
		flags map[string]any
		want  string
	}{
		{name: "a default stands when nothing else is said", want: "30s 127.0.0.1:9091 0 []"},
		{name: "a file overrides the default", file: file, want: "2s :2 2 [10.0.0.0/8]"},
		{
			name: "a variable overrides the file", file: file,
			env:  []string{"CROSSFADE_DRAIN=3s", "CROSSFADE_METRICS=:3", "CROSSFADE_LEGACY_CONCURRENCY=3", "CROSSFADE_LISTEN_TRUSTED_PROXIES=10.3.0.0/16, 10.4.0.0/16"},
			want: "3s :3 3 [10.3.0.0/16 10.4.0.0/16]",
		},
		{
			name: "a flag overrides the variable", file: file,
			env:   []string{"CROSSFADE_DRAIN=3s", "CROSSFADE_METRICS_ADDRESS=:3", "CROSSFADE_LEGACY_CONCURRENCY=3"},
			flags: map[string]any{"drain": 4 * time.Second, "metrics": ":4", "legacy.concurrency": 4, "listen.trusted_proxies": []string{"::1", "10.5.0.0/16"}},
			want:  "4s :4 4 [::1/128 10.5.0.0/16]",
		},
		{name: "an empty variable is no variable", file: file, env: []string{"CROSSFADE_DRAIN="}, want: "2s :2 2 [10.0.0.0/8]"},
		{name: "off disables a listener", file: file, env: []string{"CROSSFADE_METRICS=off"}, want: "2s  2 [10.0.0.0/8]"},
		{name: "so does empty text in a flag", file: file, flags: map[string]any{"metrics": ""}, want: "2s  2 [10.0.0.0/8]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			src := config.Source{Dir: t.TempDir(), Env: tt.env, Flags: tt.flags, Partial: true}
			if tt.file != "" {
				src.File = write(t, src.Dir, "crossfade.yaml", tt.file)
			}
			c := load(t, src)
			var networks []string
			for _, p := range c.Listen.TrustedProxies {
				networks = append(networks, p.String())
			}
			got := strings.Join([]string{c.Drain.String(), c.Metrics.Address, string(rune('0' + c.Legacy.Concurrency)), "[" + strings.Join(networks, " ") + "]"}, " ")
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestVariablesThatAreNotKeys(t *testing.T) {
	for _, tt := range []struct {
		env, want string
	}{
		{"CROSSFADE_TOKEN_FILE=/run/token", ""},
		{"CROSSFADE_TOKEN=a.b.c", ""},
		{"CROSSFADE_SCHEDULER_URL=http://x", ""},
		{"CROSSFADE_SERVICE_HOST=10.0.0.1", ""},
		{"CROSSFADE_SERVICE_PORT_METRICS=9091", ""},
		{"CROSSFADE_PORT=tcp://10.0.0.1:8082", ""},
		{"CROSSFADE_PORT_8082_TCP_ADDR=10.0.0.1", ""},
		{"CROSSFADE_REDIS_PORT=tcp://10.0.0.1:6379", ""},
		{"OTHER=1", ""},
		{"CROSSFADE_LISTEN_PORT=8082", "environment: CROSSFADE_LISTEN_PORT: unknown variable"},
		{"CROSSFADE_UPSTREM_URL=http://x", `environment: CROSSFADE_UPSTREM_URL: unknown variable (did you mean "CROSSFADE_UPSTREAM_URL"?)`},
		{"CROSSFADE_MODE=enforced", `environment: CROSSFADE_MODE: must be observe or enforce, not "enforced" (did you mean "enforce"?)`},
		{"CROSSFADE_UPSTREAM_MAX_BODY=lots", `environment: CROSSFADE_UPSTREAM_MAX_BODY: must be a size like 512KiB or 4MiB from 1KiB to 1GiB, not "lots"`},
		{"CROSSFADE_REDIS_PASSWORD_FILE=nowhere", "environment: CROSSFADE_REDIS_PASSWORD_FILE: cannot read DIR/nowhere: no such file or directory"},
		{"CROSSFADE_LEGACY_API_KEYS_HEADER=Cookie", `environment: CROSSFADE_LEGACY_API_KEYS_HEADER: must be a header that has no meaning of its own, not "Cookie"`},
		{"CROSSFADE_OIDC_ISSUER=https://id.example.com", "environment: oidc.audiences: is missing: without it a token for any other service would be good here"},
	} {
		t.Run(tt.env, func(t *testing.T) {
			dir := t.TempDir()
			_, err := config.Load(config.Source{Dir: dir, Env: []string{tt.env}, Partial: true})
			got := ""
			if err != nil {
				got = strings.ReplaceAll(err.Error(), dir, "DIR")
			}
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestFlagsAreCheckedLikeTheFile(t *testing.T) {
	_, err := config.Load(config.Source{Dir: t.TempDir(), Partial: true, Flags: map[string]any{
		"mode": "enforced", "upstream.ulr": "http://x", "audit.required": "perhaps", "oidc.issuers": "x", "listen.address.port": "1",
	}})
	want := `command line: audit.required: must be true or false, not "perhaps"
command line: listen.address.port: unknown key (did you mean "listen.address"?)
command line: mode: must be observe or enforce, not "enforced" (did you mean "enforce"?)
command line: oidc.issuers: must be a list, not a single value
command line: upstream.ulr: unknown key (did you mean "upstream.url"?)`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestMistakesOfEverySourceComeTogether(t *testing.T) {
	dir := t.TempDir()
	file := write(t, dir, "crossfade.yaml", "mode: enforced\nprincipals: p.yaml\nroles: r.yaml\n")
	write(t, dir, "p.yaml", "svc: { team: A, roles: [runner] }\n")
	write(t, dir, "r.yaml", "roles: [runner]\n")
	wrong := mistakes(t, config.Source{
		File: file, Dir: dir, Env: []string{"CROSSFADE_DRAIN=soon"}, Flags: map[string]any{"upstream": "here"},
	})
	var files []string
	for _, m := range wrong {
		files = append(files, strings.TrimPrefix(m.File, dir+"/")+" "+m.Key)
	}
	want := []string{"crossfade.yaml mode", "p.yaml svc.team", "r.yaml roles", "command line upstream.url", "environment CROSSFADE_DRAIN"}
	if diff := cmp.Diff(want, files); diff != "" {
		t.Errorf("(-want +got):\n%s\n%v", diff, wrong)
	}
}

func TestTheFileIsSearchedInOrder(t *testing.T) {
	dir := t.TempDir()
	content := func(port string) string { return "upstream: http://127.0.0.1:" + port + "\n" }
	home := write(t, dir, "home/.config/crossfade/crossfade.yaml", content("1"))
	xdg := write(t, dir, "xdg/crossfade/crossfade.yaml", content("2"))
	named := write(t, dir, "named.yaml", content("3"))
	env := []string{"HOME=" + filepath.Join(dir, "home")}
	src := config.Source{Dir: filepath.Join(dir, "cwd"), Env: env}
	expect := func(want string) {
		t.Helper()
		if c := load(t, src); c.File != want {
			t.Errorf("got %s, want %s", c.File, want)
		}
	}
	expect(home)
	src.Env = append(env, "XDG_CONFIG_HOME="+filepath.Join(dir, "xdg"))
	expect(xdg)
	expect(write(t, dir, "cwd/crossfade.yaml", content("4")))
	src.Env = append(src.Env, "CROSSFADE_CONFIG=../named.yaml")
	expect(named)
	src.File = "../xdg/crossfade/crossfade.yaml"
	expect(xdg)
	src.File = "nowhere.yaml"
	wrong := mistakes(t, src)
	if len(wrong) != 1 || wrong[0].Error() != filepath.Join(dir, "cwd/nowhere.yaml")+": cannot be read: no such file or directory" {
		t.Errorf("got %v", wrong)
	}
}

func TestPathsAreRelativeToWhatNamesThem(t *testing.T) {
	dir := t.TempDir()
	file := write(t, dir, "etc/crossfade.yaml", "upstream: http://127.0.0.1:1\nlegacy: { htpasswd: users, bearer: /dev/null }\n")
	write(t, dir, "etc/users", "")
	write(t, dir, "cwd/keys", "")
	write(t, dir, "cwd/roles", "roles: { r: {} }")
	c := load(t, config.Source{
		File: file, Dir: filepath.Join(dir, "cwd"),
		Env: []string{"CROSSFADE_LEGACY_API_KEYS=keys"}, Flags: map[string]any{"roles": "roles", "access_log": "-"},
	})
	got := []config.Path{c.Legacy.Htpasswd, c.Legacy.Bearer.File, c.Legacy.APIKeys.File, c.RolesFile, c.AccessLog.File}
	want := []config.Path{config.Path(dir + "/etc/users"), "/dev/null", config.Path(dir + "/cwd/keys"), config.Path(dir + "/cwd/roles"), "-"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestASecretOfAHigherSourceReplacesTheOther(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "pw", "from-file\n")
	write(t, dir, "url", "redis://other:6379/1\r\n")
	file := write(t, dir, "crossfade.yaml", "redis: { url: \"redis://first:6379\", password: inline }\n")
	for _, tt := range []struct {
		name, env, url, password string
	}{
		{"nothing above", "", "redis://first:6379", "inline"},
		{"a password file above", "CROSSFADE_REDIS_PASSWORD_FILE=pw", "redis://first:6379", "from-file"},
		{"a password above", "CROSSFADE_REDIS_PASSWORD=env", "redis://first:6379", "env"},
		{"a URL file above", "CROSSFADE_REDIS_URL_FILE=url", "redis://other:6379/1", "inline"},
		{"a short URL above", "CROSSFADE_REDIS=redis://third", "redis://third", "inline"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := load(t, config.Source{File: file, Dir: dir, Env: []string{tt.env}, Partial: true})
			if tt.env == "CROSSFADE_REDIS=redis://third" && len(c.Files()) != 1 {
				t.Errorf("files: %v", c.Files())
			}
			if c.Redis.URL.Reveal() != tt.url || c.Redis.Password.Reveal() != tt.password {
				t.Errorf("got %s and %s", c.Redis.URL.Reveal(), c.Redis.Password.Reveal())
			}
		})
	}
}

func TestAFileThatIsTooLargeIsNotRead(t *testing.T) {
	file := write(t, t.TempDir(), "crossfade.yaml", "upstream: http://127.0.0.1:1\n#"+strings.Repeat("x", 1<<20))
	wrong := mistakes(t, config.Source{File: file})
	if len(wrong) != 1 || wrong[0].Message != "cannot be read: it is larger than 1MiB" {
		t.Errorf("got %v", wrong)
	}
}

func TestAliasesAreFollowedWithinBounds(t *testing.T) {
	dir := t.TempDir()
	c := load(t, config.Source{File: write(t, dir, "a.yaml", "upstream: &u http://127.0.0.1:1\nhelp: { url: *u }\n")})
	if c.Help.URL != "http://127.0.0.1:1" {
		t.Errorf("got %q", c.Help.URL)
	}
	bomb := "upstream: http://127.0.0.1:1\noidc:\n  issuers:\n  - &i { issuer: https://id.example.com, audiences: [" +
		strings.Repeat("a, ", 2000) + "a] }\n" + strings.Repeat("  - *i\n", 50000)
	wrong := mistakes(t, config.Source{File: write(t, dir, "b.yaml", bomb)})
	if len(wrong) > 501 || !strings.Contains(wrong.Error(), "aliases expand to more than") {
		t.Errorf("got %d mistakes, the first %v", len(wrong), wrong[0])
	}
	self := mistakes(t, config.Source{File: write(t, dir, "c.yaml", "upstream: &a { url: *a }\n")})
	if len(self) == 0 {
		t.Error("an alias of itself was accepted")
	}
}

func TestAMistakeIsNotNamedTwice(t *testing.T) {
	wrong := mistakes(t, config.Source{File: "testdata/bad/ten-mistakes.yaml"})
	if len(wrong) < 10 {
		t.Errorf("%d mistakes, want at least ten", len(wrong))
	}
	seen := map[string]bool{}
	for _, m := range wrong {
		if seen[m.Key] {
			t.Errorf("%s stands twice", m.Key)
		}
		seen[m.Key] = true
		if m.Line == 0 || m.Column == 0 {
			t.Errorf("no place: %+v", m)
		}
	}
}
