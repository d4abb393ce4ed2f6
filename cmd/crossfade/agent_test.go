package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"crossfade/cmd/crossfade/demo"
	"crossfade/rollout"
	"crossfade/rollout/rollouttest"
)

// asWorker as the first argument turns the test's binary into a stand-in for
// Luigi, which an agent wraps. The words behind it are what it does.
const asWorker = "run-as-the-worker"

// worker does what it is told, one word after the other, and returns its exit
// code: 4 where an unmodified Luigi would give up.
func worker(words []string) int {
	for i, word := range words {
		switch word {
		case "refresh": // tokens of a login
			return refreshLogin(words[i+1:])
		case "call": // one of Luigi's calls, with the credential that stands in the URL
			u, err := url.Parse(os.Getenv("CROSSFADE_SCHEDULER_URL"))
			if err != nil {
				return 98
			}
			user := u.User
			u.User = nil
			r, err := http.NewRequest(http.MethodPost, u.JoinPath("api/add_worker").String(),
				strings.NewReader(url.Values{"data": {`{"worker": "w1", "info": []}`}}.Encode()))
			if err != nil {
				return 98
			}
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			if user != nil {
				password, _ := user.Password()
				r.SetBasicAuth(user.Username(), password)
			}
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				return 98
			}
			body := map[string]any{}
			_ = json.NewDecoder(resp.Body).Decode(&body)
			_ = resp.Body.Close()
			if _, ok := body["response"]; !ok || resp.StatusCode != http.StatusOK {
				return 4
			}
		case "replay": // a pipeline, until stdin ends
			return replay(os.Stdin)
		case "config", "token", "netrc":
			file := os.Getenv(map[string]string{"config": "LUIGI_CONFIG_PATH", "token": "CROSSFADE_TOKEN_FILE", "netrc": "NETRC"}[word])
			text, err := os.ReadFile(file)
			if err != nil {
				return 97
			}
			info, _ := os.Stat(file)
			dir, _ := os.Stat(filepath.Dir(file))
			fmt.Printf("%s %s %s\n%s", file, info.Mode(), dir.Mode(), text)
		case "task": // the next one of the scheduler, from its beginning to its end
			if code := runTask(); code != 0 {
				return code
			}
		case "run":
			fmt.Println("run", os.Getenv("CROSSFADE_RUN"))
		case "written": // the files of other services' tokens, and who may read them
			for _, name := range strings.Fields(os.Getenv("WRITTEN")) {
				text, err := os.ReadFile(name)
				info, _ := os.Stat(name)
				if err != nil {
					return 97
				}
				fmt.Printf("%s %s %s\n", filepath.Base(name), info.Mode(), text)
			}
		case "arguments":
			fmt.Printf("%q\n", words)
			return 0
		case "wait": // for a signal; its number is the exit code
			got := make(chan os.Signal, 1)
			signal.Notify(got, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
			fmt.Println("waiting")
			return int((<-got).(syscall.Signal))
		case "die":
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		case "fail":
			return 3
		}
	}
	return 0
}

// wrapped is a command line of the agent's that wraps the worker.
func wrapped(t *testing.T, flags []string, words ...string) []string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := append([]string{"agent", "exec"}, flags...)
	return append(append(args, "--", self, asWorker), words...)
}

// asProcess runs the real program and returns what it left behind. It starts in
// dir, with more in its environment.
func asProcess(t *testing.T, dir string, environ []string, args ...string) ran {
	t.Helper()
	c := command(t, args...)
	var stdout, stderr strings.Builder
	c.Dir, c.Stdout, c.Stderr = dir, &stdout, &stderr
	c.Env = append(c.Env, environ...)
	_ = c.Run()
	return ran{c.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// clientFlags name an account at an issuer.
func clientFlags(t *testing.T, idp *demo.Issuer) []string {
	p := clientOf(t, idp, "svc-etl")
	return []string{"--issuer", p.Issuer, "--client-id", p.ClientID, "--client-secret-file", p.SecretFile, "--audience", "luigi"}
}

func TestAWorkerBehindTheAgentPassesTheGatewayAtEveryPercentage(t *testing.T) {
	t.Parallel()
	redis, idp := rollouttest.StartRedis(t), issuer(t, 0)
	gateway := start(t, "serve", "--config", whole(t, idp.URL(), scheduler(t).URL, map[string]string{"redis": redis.URL()}))
	missing := filepath.Join(t.TempDir(), "token")
	configuredAs := func(user string) string {
		return files(t, map[string]string{"luigi.cfg": "[core]\ndefault_scheduler_url = http://" + user + gateway.address + "/\n"})
	}
	both, alone := configuredAs("svc-etl:legacy-pass@"), configuredAs("")

	asProcess(t, both, nil, wrapped(t, clientFlags(t, idp), "call")...).want(t, exitOK)
	asProcess(t, alone, nil, wrapped(t, clientFlags(t, idp), "call")...).want(t, exitOK)
	got := asProcess(t, both, nil, wrapped(t, []string{"--token-file", missing}, "call")...).want(t, exitOK)
	if strings.Count(got.stderr, "crossfade agent: no token: ") != 1 || !strings.Contains(got.stderr, missing) {
		t.Errorf("that there is no token was not said once: %v", got)
	}

	changed(t, redis, rollout.Change{Team: "data-eng", Percent: 100, Actor: "test", Source: "api", Reason: "all of it"})
	eventually(t, "the gateway enforces", func() bool {
		return asProcess(t, both, nil, wrapped(t, []string{"--token-file", missing}, "call")...).code == exitNotPermitted
	})
	got = asProcess(t, both, nil, wrapped(t, []string{"--token-file", missing}, "call", "call")...).want(t, exitNotPermitted)
	_, refused, _ := strings.Cut(got.stderr, "crossfade agent: REFUSED ")
	lines := strings.Split(refused, "\n")
	if len(lines) != 4 || lines[0] != "legacy_refused: this run must use OIDC (data-eng is at 100%)." ||
		lines[1] != "  The agent had no token: "+missing+" does not exist. Set --token-file or --client-id." || !strings.HasPrefix(lines[2], "  More: crossfade explain ") || lines[3] != "" {
		t.Errorf("said\n%s", got.stderr)
	}
	asProcess(t, both, nil, wrapped(t, clientFlags(t, idp), "call")...).want(t, exitOK)
	asProcess(t, both, nil, wrapped(t, append(clientFlags(t, idp), "--mode", "token"), "call")...).want(t, exitOK)
}

// friendly is a gateway that lets everybody pass, and tells who came.
func friendly(t *testing.T) (server *httptest.Server, came func() []http.Header) {
	t.Helper()
	var mu sync.Mutex
	var all []http.Header
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		all = append(all, r.Header)
		mu.Unlock()
		_, _ = io.WriteString(w, `{"response": null}`)
	}))
	t.Cleanup(server.Close)
	return server, func() []http.Header {
		mu.Lock()
		defer mu.Unlock()
		return all
	}
}

// tokenFile is a file with a token.
func tokenFile(t *testing.T) string {
	return filepath.Join(files(t, map[string]string{"token": "tok-1\n"}), "token")
}

func TestExecGivesTheCommandWhatItNeedsAndLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	gateway, came := friendly(t)
	host := strings.Replace(gateway.Listener.Addr().String(), "127.0.0.1", "localhost", 1)
	home := files(t, map[string]string{
		"luigi.cfg": "[core]\nscheduler_url = http://nobody.invalid/\n",
		"own.cfg":   "[core]\nscheduler_url = http://svc:pw@" + host + "\n[T]\nn = 1\n",
		".netrc":    "machine a login b password c\n",
	})
	tmp := t.TempDir()
	environ := []string{"LUIGI_CONFIG_PATH=own.cfg", "HOME=" + home, "TMPDIR=" + tmp, "CROSSFADE_TOKEN_FILE=" + tokenFile(t)}
	got := asProcess(t, home, environ, wrapped(t, nil, "call", "config", "token", "netrc")...).want(t, exitOK,
		"[T]\nn = 1\n", "-rw------- drwx------\ntok-1\n", "machine localhost login oidc password tok-1\nmachine a login b password c\n")
	if n := strings.Count(got.stdout, "= http://svc:pw@127.0.0.1:"); n != 2 || strings.Contains(got.stdout, host) {
		t.Errorf("the configuration does not name the agent: %v", got)
	}
	if left, _ := os.ReadDir(tmp); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if all := came(); len(all) != 1 || all[0].Get("Crossfade-Token") != "tok-1" || all[0].Get("Authorization") != "Basic c3ZjOnB3" {
		t.Errorf("to the gateway came %v", all)
	}

	own := asProcess(t, home, environ, wrapped(t, []string{"--gateway", gateway.URL}, "arguments", "--scheduler-url", "http://x:y@"+host)...).want(t, exitOK)
	if !strings.Contains(own.stdout, `"--scheduler-url" "http://x:y@127.0.0.1:`) || strings.Contains(own.stdout, host) {
		t.Errorf("the command line was not pointed at the agent: %v", own)
	}
}

func TestAPasswordOfTheUsersNetrcFileIsSentAsBefore(t *testing.T) {
	t.Parallel()
	gateway, came := friendly(t)
	home := files(t, map[string]string{".netrc": "machine 127.0.0.1 login svc password pw\n"})
	environ := []string{"HOME=" + home}
	url := "--scheduler-url=" + gateway.URL
	asProcess(t, home, environ, wrapped(t, []string{"--token-file", tokenFile(t)}, "call", url)...).want(t, exitOK)
	asProcess(t, home, environ, wrapped(t, []string{"--token-file", tokenFile(t), "--mode", "token"}, "call", url)...).want(t, exitOK)
	asProcess(t, home, environ, wrapped(t, []string{"--token-file", tokenFile(t)}, "netrc", url)...).want(t, exitOK, "\nmachine 127.0.0.1 login svc password pw\n")
	all := came()
	if len(all) != 2 || all[0].Get("Authorization") != "Basic c3ZjOnB3" || all[0].Get("Crossfade-Token") != "tok-1" || all[1].Get("Authorization") != "Bearer tok-1" {
		t.Errorf("to the gateway came %v", all)
	}
}

func TestExecExitsWithTheCodeOfItsCommand(t *testing.T) {
	t.Parallel()
	gateway, _ := friendly(t)
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Crossfade-Reason", "aud_mismatch")
		w.WriteHeader(http.StatusUnauthorized)
	}))
	t.Cleanup(refusing.Close)
	good, missing := tokenFile(t), filepath.Join(t.TempDir(), "none")
	flags := func(url, file string, more ...string) []string {
		return append([]string{"--gateway", url, "--token-file", file}, more...)
	}
	dir := t.TempDir()
	for name, tc := range map[string]struct {
		args []string
		code int
		said string
	}{
		"success":                  {wrapped(t, flags(gateway.URL, good), "call"), exitOK, ""},
		"a failure of its own":     {wrapped(t, flags(gateway.URL, good), "call", "fail"), 3, ""},
		"a signal":                 {wrapped(t, flags(gateway.URL, good), "die"), 128 + 9, ""},
		"a refusal":                {wrapped(t, flags(refusing.URL, good), "call"), exitNotPermitted, "REFUSED aud_mismatch"},
		"no token and no password": {wrapped(t, flags(gateway.URL, missing), "call"), exitNotPermitted, "REFUSED agent_no_token"},
		"no token in mode token: it is not started":  {wrapped(t, flags(gateway.URL, missing, "--mode", "token"), "config"), exitNotPermitted, "is not started"},
		"success, although something was refused":    {append(wrapped(t, flags(refusing.URL, good)), "token"), exitOK, ""},
		"a signal, although something was refused":   {wrapped(t, flags(gateway.URL, missing), "die"), 128 + 9, ""},
		"a command that nobody has":                  {append([]string{"agent", "exec"}, append(flags(gateway.URL, good), "--", "crossfade-no-such-command")...), 127, "not found"},
		"no command":                                 {append([]string{"agent", "exec"}, flags(gateway.URL, good)...), exitUsage, "no command to run"},
		"no gateway":                                 {wrapped(t, []string{"--token-file", good}), exitUsage, "--gateway"},
		"no source of tokens":                        {wrapped(t, []string{"--gateway", gateway.URL}), exitUsage, "set --token-file"},
		"a source that nobody knows":                 {wrapped(t, flags(gateway.URL, good, "--source", "oracle")), exitUsage, "not known"},
		"a mode that nobody knows":                   {wrapped(t, flags(gateway.URL, good, "--mode", "both")), exitUsage, "auto, companion, token"},
		"a gateway with a password for all to share": {wrapped(t, flags("http://a:hunter2@h", good)), exitUsage, "no user"},
		"authorities that are missing":               {wrapped(t, flags(gateway.URL, good, "--ca-file", missing)), exitUsage, "--ca-file"},
		"authorities that are none":                  {wrapped(t, flags(gateway.URL, good, "--ca-file", good)), exitUsage, "no certificate"},
		"a place that others reach":                  {append([]string{"agent", "--listen", "0.0.0.0:0"}, flags(gateway.URL, good)...), exitUsage, "others would reach it"},
	} {
		t.Run(name, func(t *testing.T) {
			got := asProcess(t, dir, nil, tc.args...).want(t, tc.code, tc.said)
			if strings.Contains(got.stderr, "hunter2") || strings.Contains(got.stderr, "tok-1") {
				t.Errorf("a secret was said: %v", got)
			}
		})
	}
}

func TestSignalsReachTheWrappedCommand(t *testing.T) {
	t.Parallel()
	gateway, _ := friendly(t)
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP} {
		c := command(t, wrapped(t, []string{"--gateway", gateway.URL, "--token-file", tokenFile(t)}, "wait")...)
		var stdout lockedBuffer
		c.Stdout = &stdout
		c.Dir = t.TempDir()
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- c.Wait() }()
		t.Cleanup(func() { _ = c.Process.Kill() })
		eventually(t, "the command waits", func() bool { return strings.Contains(stdout.String(), "waiting") })
		if err := c.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		<-ended
		if got := c.ProcessState.ExitCode(); got != int(s) {
			t.Errorf("%s: exit code %d", s, got)
		}
	}
}

func TestTheAgentServesWorkersUntilItIsTold(t *testing.T) {
	t.Parallel()
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(s.String(), func(t *testing.T) { servesUntil(t, s) })
	}
}

// servesUntil is the life of a long-running agent that a signal ends.
func servesUntil(t *testing.T, end syscall.Signal) {
	gateway, came := friendly(t)
	dir := files(t, map[string]string{"netrc": "# mine\nmachine a login b password c\n"})
	socket, netrc := filepath.Join(dir, "agent.sock"), filepath.Join(dir, "netrc")
	c := command(t, "agent", "--gateway", gateway.URL, "--listen", "unix:"+socket, "--token-file", tokenFile(t), "--netrc", netrc, "--metrics", "127.0.0.1:0")
	var log lockedBuffer
	c.Stderr = &log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	t.Cleanup(func() { _ = c.Process.Kill() })
	var said struct{ Msg, Listen, Gateway, Mode, Metrics string }
	eventually(t, "the agent listens", func() bool {
		for line := range strings.Lines(log.String()) {
			if json.Unmarshal([]byte(line), &said) == nil && said.Msg == "crossfade agent listens" {
				return true
			}
		}
		return false
	})
	if said.Listen != socket || said.Gateway != gateway.URL || said.Mode != "auto" {
		t.Errorf("it says %+v", said)
	}
	if info, err := os.Stat(socket); err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if got := read(t, netrc); got != "machine 127.0.0.1 login oidc password tok-1\n# mine\nmachine a login b password c\n" {
		t.Errorf("netrc %q", got)
	}
	client := newClient(t)
	over := unixClient(t, socket)
	for range 3 {
		resp, err := over.Post("http://localhost/api/ping", "application/x-www-form-urlencoded", strings.NewReader("data={}"))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
	}
	if all := came(); len(all) != 3 || all[2].Get("Authorization") != "Bearer tok-1" {
		t.Errorf("to the gateway came %v", all)
	}
	if status, body := get(t, client, "http://"+said.Metrics+"/metrics"); status != 200 ||
		!strings.Contains(body, `crossfade_agent_requests_total{outcome="forwarded"} 3`) ||
		!strings.Contains(body, `crossfade_agent_token_refresh_total{result="ok"} 1`) || strings.Contains(body, "tok-1") {
		t.Errorf("metrics: %d %s", status, body)
	}
	for path, want := range map[string]int{"/livez": 200, "/readyz": 200, "/x": 404} {
		if status, _ := get(t, client, "http://"+said.Metrics+path); status != want {
			t.Errorf("%s: %d", path, status)
		}
	}
	if err := c.Process.Signal(end); err != nil {
		t.Fatal(err)
	}
	<-ended
	if code := c.ProcessState.ExitCode(); code != exitOK {
		t.Errorf("exit code %d\n%s", code, log.String())
	}
	if got := read(t, netrc); got != "# mine\nmachine a login b password c\n" {
		t.Errorf("netrc at the end %q", got)
	}
	if _, err := os.Stat(socket); err == nil {
		t.Error("the socket was left behind")
	}
	if strings.Contains(log.String(), "tok-1") {
		t.Error("a token was logged")
	}
}

func TestExecThatIsInterruptedBeforeItsCommandSaysSo(t *testing.T) {
	t.Parallel()
	for name, flags := range map[string][]string{
		"that needs a token": {"--mode", "token"}, "that needs one for others": {"--write", "aws=aws"}, "that waits for one": nil,
	} {
		t.Run(name, func(t *testing.T) {
			provider, arrived, release := holding(t)
			defer release()
			dir := files(t, map[string]string{"secret": "s3cret"})
			c := command(t, wrapped(t, append([]string{
				"--gateway", "http://127.0.0.1:1", "--token-url", provider.URL, "--client-id", "c", "--client-secret-file", "secret",
			}, flags...), "run")...)
			var log lockedBuffer
			c.Dir, c.Stderr = dir, &log
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			<-arrived
			if err := c.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			_ = c.Wait()
			if code := c.ProcessState.ExitCode(); code != exitInterrupted || !strings.Contains(log.String(), "interrupted before the command was started") ||
				strings.Contains(log.String(), "no token") {
				t.Errorf("exit code %d\n%s", code, log.String())
			}
		})
	}
}

func TestARunWhoseMetricsHaveNoPlaceGoesOn(t *testing.T) {
	t.Parallel()
	gateway, _ := friendly(t)
	taken := gateway.Listener.Addr().String()
	asProcess(t, t.TempDir(), nil, wrapped(t, []string{"--gateway", gateway.URL, "--token-file", tokenFile(t), "--metrics", taken}, "run")...).
		want(t, exitOK, "this run shows no metrics: --metrics: ", "address already in use")
}

func TestAnAgentIsReadyForAsLongAsItsTokenIsGood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newAgentMetrics()
		ready := func() int {
			w := httptest.NewRecorder()
			m.handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/readyz", nil))
			return w.Code
		}
		for _, step := range []struct {
			when string
			does func()
			want int
		}{
			{"at the start", func() {}, 503},
			{"with a token", func() { m.refreshed(nil, time.Now().Add(time.Minute)) }, 200},
			{"while the provider is away", func() { m.refreshed(io.EOF, time.Time{}) }, 200},
			{"when the token has ended", func() { time.Sleep(time.Minute) }, 503},
			{"with one that has no end", func() { m.refreshed(nil, time.Time{}) }, 200},
			{"when that cannot be renewed", func() { m.refreshed(io.EOF, time.Time{}) }, 503},
		} {
			step.does()
			if got := ready(); got != step.want {
				t.Errorf("%s: %d, want %d", step.when, got, step.want)
			}
		}
	})
}

func TestANetrcEntryOfSomebodyElseIsNotWrittenOver(t *testing.T) {
	t.Parallel()
	gateway, _ := friendly(t)
	const text = "machine 127.0.0.1 login svc-etl password hunter2\n"
	netrc := filepath.Join(files(t, map[string]string{"netrc": text}), "netrc")
	got := run(t, "agent", "--gateway", gateway.URL, "--listen", "127.0.0.1:0", "--token-file", tokenFile(t), "--netrc", netrc).
		want(t, exitUsage, `an entry of "svc-etl"`)
	if read(t, netrc) != text || strings.Contains(got.stderr, "hunter2") {
		t.Errorf("%v", got)
	}
}

// unixClient talks to a socket.
func unixClient(t *testing.T, path string) *http.Client {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}
