package image_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

const composeDir = repository + "/deploy/compose"

// project is the compose file as Compose itself reads it.
func project(t *testing.T) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{composeDir + "/compose.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	p, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestEachServiceOfTheComposeFileFindsWhatItNeeds(t *testing.T) {
	p := project(t)
	builders := map[string]int{}
	for name, s := range p.Services {
		switch {
		case s.Build != nil:
			file := filepath.Join(s.Build.Context, s.Build.Dockerfile)
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			builders[s.Image]++
		case strings.HasSuffix(s.Image, ":compose"):
			builders[s.Image] += 0
			if s.PullPolicy != types.PullPolicyNever {
				t.Errorf("%s looks for its image at strangers'", name)
			}
		default:
			if _, tag, ok := strings.Cut(s.Image, ":"); !ok || tag == "latest" {
				t.Errorf("%s: the image %s names no version", name, s.Image)
			}
		}
		for _, v := range s.Volumes {
			if v.Type == types.VolumeTypeBind {
				if _, err := os.Stat(v.Source); err != nil || !v.ReadOnly {
					t.Errorf("%s: %s: it must be there, and is not to be written: %v", name, v.Source, err)
				}
			}
			if strings.HasSuffix(v.Source, "-secrets") && v.ReadOnly == (name == "setup") {
				t.Errorf("%s: setup alone writes secrets: %s", name, v.Source)
			}
		}
		for _, port := range s.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s: port %s is open to others", name, port.Published)
			}
		}
		for of, d := range s.DependsOn {
			on := p.Services[of]
			if d.Condition == types.ServiceConditionHealthy && on.HealthCheck == nil {
				t.Errorf("%s waits for the health of %s, which nobody checks", name, of)
			}
			if d.Condition == types.ServiceConditionCompletedSuccessfully && (on.Restart != "" || of != "setup") {
				t.Errorf("%s waits for the end of %s, which does not end", name, of)
			}
		}
		for _, v := range s.Volumes {
			_, waits := s.DependsOn["setup"]
			if behind := strings.TrimPrefix(s.NetworkMode, "service:"); behind != s.NetworkMode {
				_, waits = s.DependsOn[behind]
			}
			for of := range s.DependsOn {
				_, there := p.Services[of].DependsOn["setup"]
				waits = waits || there
			}
			if name != "setup" && strings.HasSuffix(v.Source, "-secrets") && !waits {
				t.Errorf("%s may start before setup has made %s", name, v.Source)
			}
		}
		if s.Image == "crossfade:compose" && (!s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"})) {
			t.Errorf("%s may write to its root, or has capabilities", name)
		}
	}
	for image, n := range builders {
		if n != 1 {
			t.Errorf("%d services build %s", n, image)
		}
	}
	for _, worker := range []string{"etl", "billing", "agent"} {
		if _, there := p.Services[worker].Networks["back"]; there {
			t.Errorf("%s can go around the gateway", worker)
		}
	}
	for _, where := range []string{"luigid", "redis"} {
		if n := p.Services[where].Networks; len(n) != 1 {
			t.Errorf("%s is on %v, and only the gateway may reach it", where, n)
		}
	}
}

// installation is what the mounts of a service hold, on this machine: a directory that
// stands for its root. setup has run.
type installation struct {
	*types.Project
	volumes string
}

func install(t *testing.T) installation {
	t.Helper()
	i := installation{project(t), t.TempDir()}
	for n := range 3 { // the first one is broken off before its end, the third changes nothing
		setup := exec.Command("sh", composeDir+"/setup.sh", i.volumes)
		if out, err := setup.CombinedOutput(); err != nil {
			t.Fatalf("setup.sh: %v\n%s", err, out)
		}
		if n > 0 {
			continue
		}
		if err := os.Remove(filepath.Join(i.volumes, "gateway", "done")); err != nil {
			t.Fatal(err)
		}
	}
	return i
}

// here returns where a path of a service is on this machine.
func (i installation) here(t *testing.T, service, path string) string {
	t.Helper()
	for _, v := range i.Services[service].Volumes {
		if below, err := filepath.Rel(v.Target, path); err == nil && filepath.IsLocal(below) {
			if v.Type == types.VolumeTypeBind {
				return filepath.Join(v.Source, below)
			}
			for _, made := range i.Services["setup"].Volumes {
				if made.Source == v.Source {
					return filepath.Join(i.volumes, strings.TrimPrefix(made.Target, "/out/"), below)
				}
			}
		}
	}
	t.Fatalf("%s has no %s", service, path)
	return ""
}

func readText(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// configured copies the gateway's directory, with the paths of its volumes replaced.
func (i installation) configured(t *testing.T) (file string) {
	t.Helper()
	dir := t.TempDir()
	file = "/etc/crossfade/crossfade.yaml"
	if err := os.CopyFS(dir, os.DirFS(filepath.Dir(i.here(t, "gateway", file)))); err != nil {
		t.Fatal(err)
	}
	text := readText(t, filepath.Join(dir, "crossfade.yaml"))
	for _, path := range []string{"/run/crossfade", "/var/lib/crossfade"} {
		text = strings.ReplaceAll(text, path, i.here(t, "gateway", path))
	}
	file = filepath.Join(dir, "crossfade.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestTheGatewayOfTheComposeFileChecksAndServes(t *testing.T) {
	crossfade, i := program(t), install(t)
	file := i.configured(t)
	out, err := exec.Command(crossfade, "check", file).CombinedOutput()
	if err != nil {
		t.Fatalf("check: %v\n%s", err, out)
	}

	redis := i.startRedis(t)
	scheduler := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"response": null}`)
	}))
	t.Cleanup(scheduler.Close)
	address := freeAddress(t)
	environ := []string{
		"CROSSFADE_LISTEN_ADDRESS=" + address, "CROSSFADE_METRICS_ADDRESS=" + freeAddress(t), "CROSSFADE_ADMIN_ADDRESS=127.0.0.1:0",
		"CROSSFADE_UPSTREAM_URL=" + scheduler.URL, "CROSSFADE_REDIS_URL=redis://" + redis + "/0",
	}
	command := func(words []string) *exec.Cmd {
		words = slices.Clone(words)
		for n, word := range words {
			if word == "/etc/crossfade/crossfade.yaml" {
				words[n] = file
			}
		}
		c := exec.Command(crossfade, words...)
		c.Env = environ
		return c
	}
	serve := command(i.Services["gateway"].Command)
	log := run(t, serve)
	health := i.Services["gateway"].HealthCheck.Test
	if health[0] != "CMD" || health[1] != "/usr/local/bin/crossfade" {
		t.Errorf("the health check is %v", health)
	}
	eventually(t, "the gateway is ready", log, func() bool { return command(health[2:]).Run() == nil })

	// The worker of billing, by its own configuration and authorities.
	base := schedulerURL(t, i.here(t, "billing", env(i.Services["billing"], "LUIGI_CONFIG_PATH")))
	client := &http.Client{Timeout: patience, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: authorities(t, i.here(t, "billing", env(i.Services["billing"], "REQUESTS_CA_BUNDLE"))), MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, to string) (net.Conn, error) {
			if to != "gateway:8082" {
				return nil, fmt.Errorf("the worker goes to %s", to)
			}
			return (&net.Dialer{}).DialContext(ctx, network, address)
		},
	}}
	ping := func(password string) int {
		to := *base.JoinPath("api/ping")
		to.User = nil
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, to.String(), strings.NewReader(`data={"worker":"w"}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Crossfade-Abort", "off")
		r.SetBasicAuth(base.User.Username(), password)
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	password, _ := base.User.Password()
	if good, bad := ping(password), ping("guess"); good != http.StatusOK || bad != http.StatusUnauthorized {
		t.Errorf("its password gets %d, another one %d\n%s", good, bad, log)
	}
}

// env is a variable of a service.
func env(s types.ServiceConfig, name string) string {
	if v := s.Environment[name]; v != nil {
		return *v
	}
	return ""
}

// schedulerURL is what Luigi reads in its configuration.
func schedulerURL(t *testing.T, file string) *url.URL {
	t.Helper()
	for line := range strings.Lines(readText(t, file)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "default_scheduler_url = "); ok {
			u, err := url.Parse(value)
			if err != nil {
				t.Fatal(err)
			}
			return u
		}
	}
	t.Fatalf("%s names no scheduler", file)
	return nil
}

func authorities(t *testing.T, file string) *x509.CertPool {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(readText(t, file))) {
		t.Fatalf("%s holds no certificate", file)
	}
	return pool
}

// startRedis starts a real one by the file that the service has.
func (i installation) startRedis(t *testing.T) (address string) {
	t.Helper()
	address = freeAddress(t)
	_, port, _ := net.SplitHostPort(address)
	c := exec.Command(i.Services["redis"].Command[0], i.here(t, "redis", i.Services["redis"].Command[1]), "--port", port, "--bind", "127.0.0.1", "--dir", t.TempDir())
	log := run(t, c)
	check := i.Services["redis"].HealthCheck.Test
	script := strings.ReplaceAll(strings.ReplaceAll(check[1], "$$", "$"), "/run/redis", i.here(t, "redis", "/run/redis"))
	eventually(t, "Redis is healthy", log, func() bool {
		return exec.Command("sh", "-c", strings.Replace(script, "redis-cli ", "redis-cli -p "+port+" ", 1)).Run() == nil
	})
	return address
}

// run starts a command until the end of the test and returns what it says.
func run(t *testing.T, c *exec.Cmd) *lockedBuffer {
	t.Helper()
	log := &lockedBuffer{}
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Signal(syscall.SIGTERM)
		_ = c.Wait()
	})
	return log
}

func eventually(t *testing.T, what string, log *lockedBuffer, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s\n%s", what, log)
		}
	}
}

func TestTheAgentOfTheComposeFileStarts(t *testing.T) {
	crossfade, i := program(t), install(t)
	agent := i.Services["agent"]
	metrics := freeAddress(t)
	var environ []string
	for name, value := range agent.Environment {
		switch {
		case name == "CROSSFADE_AGENT_LISTEN":
			value = ptr("127.0.0.1:0")
		case name == "CROSSFADE_AGENT_METRICS":
			value = &metrics
		case strings.HasPrefix(*value, "/"):
			value = ptr(i.here(t, "agent", *value))
		}
		environ = append(environ, name+"="+*value)
	}
	c := exec.Command(crossfade, agent.Command...)
	c.Env = environ
	log := run(t, c)
	health := slices.Clone(agent.HealthCheck.Test[2:])
	health[len(health)-1] = metrics
	eventually(t, "the agent is healthy", log, func() bool { return exec.Command(crossfade, health...).Run() == nil })
	if !strings.Contains(log.String(), "crossfade agent listens") {
		t.Errorf("it says:\n%s", log)
	}

	// Workers beside it come to where it listens.
	if u := schedulerURL(t, i.here(t, "etl", env(i.Services["etl"], "LUIGI_CONFIG_PATH"))); u.Host != env(agent, "CROSSFADE_AGENT_LISTEN") {
		t.Errorf("the worker goes to %s", u.Host)
	}
}

func ptr(text string) *string { return &text }

func TestTheCertificatesOfTheComposeFileAreForTheNamesThatAreAskedFor(t *testing.T) {
	i := install(t)
	for name, chain := range map[string]string{
		"gateway": readText(t, i.here(t, "gateway", "/run/crossfade/tls.crt")),
		"idp":     pkcs12(t, i.here(t, "idp", "/run/idp/idp.p12")),
	} {
		block, _ := pem.Decode([]byte(chain))
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		for _, who := range []string{"agent", "gateway"} {
			if _, err := cert.Verify(x509.VerifyOptions{DNSName: name, Roots: authorities(t, i.here(t, who, "/run/crossfade/ca.pem"))}); err != nil {
				t.Errorf("%s does not believe %s: %v", who, name, err)
			}
		}
	}
	config := readText(t, i.here(t, "idp", env(i.Services["idp"], "JSON_CONFIG_PATH")))
	if !strings.Contains(config, `"keystorePassword": "compose"`) || !strings.Contains(config, `"keystoreFile": "/run/idp/idp.p12"`) {
		t.Errorf("the provider does not find its key: %s", config)
	}
}

// pkcs12 is the certificate of a key store.
func pkcs12(t *testing.T, file string) string {
	t.Helper()
	out, err := exec.Command("openssl", "pkcs12", "-in", file, "-nokeys", "-clcerts", "-passin", "pass:compose").Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestSecretsOfTheComposeFileAreForThoseWhoNeedThem(t *testing.T) {
	i := install(t)
	err := filepath.WalkDir(i.volumes, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 && filepath.Base(filepath.Dir(path)) != "idp" {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	other := install(t)
	for _, secret := range []string{"redis/password", "agent/client-secret", "grafana/password", "etl/luigi.cfg"} {
		if readText(t, filepath.Join(i.volumes, secret)) == readText(t, filepath.Join(other.volumes, secret)) {
			t.Errorf("two installations have the same %s", secret)
		}
	}
}

func TestPrometheusAndGrafanaOfTheComposeFileFindTheirFiles(t *testing.T) {
	i := installation{project(t), t.TempDir()}
	root := t.TempDir()
	for _, v := range i.Services["prometheus"].Volumes {
		if v.Type == types.VolumeTypeBind {
			if err := copyFile(v.Source, filepath.Join(root, v.Target)); err != nil {
				t.Fatal(err)
			}
		}
	}
	out, err := exec.Command("promtool", "check", "config", filepath.Join(root, "etc/prometheus/prometheus.yml")).CombinedOutput()
	if err != nil || strings.Count(string(out), "rules found") != 2 {
		t.Errorf("promtool: %v\n%s", err, out)
	}
	for _, target := range []string{"gateway:9091", "agent:8183"} {
		service, port, _ := strings.Cut(target, ":")
		if !strings.Contains(readText(t, composeDir+"/prometheus.yml"), target) || i.Services[service].Name == "" {
			t.Errorf("%s is not scraped on %s", service, port)
		}
	}

	grafana := i.Services["grafana"]
	dashboards := ""
	for in := bufio.NewScanner(strings.NewReader(readText(t, i.here(t, "grafana", "/etc/grafana/provisioning/dashboards/crossfade.yaml")))); in.Scan(); {
		if _, path, ok := strings.Cut(in.Text(), "path: "); ok {
			dashboards = strings.Trim(path, " }")
		}
	}
	for _, name := range []string{"overview.json", "team.json", "gateway.json"} {
		if _, err := os.Stat(filepath.Join(i.here(t, "grafana", dashboards), name)); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(i.here(t, "grafana", env(grafana, "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"))); err != nil {
		t.Error(err)
	}
	if text := readText(t, i.here(t, "grafana", "/etc/grafana/provisioning/datasources/crossfade.yaml")); !strings.Contains(text, "http://prometheus:9090") {
		t.Errorf("the data source is elsewhere: %s", text)
	}
}
