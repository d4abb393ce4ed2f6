package chart_test

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

// patience bounds every wait for something that must come.
const patience = 2 * time.Minute

// built is the directory of the gateway's program, which all tests share.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "crossfade-chart")
	if err != nil {
		return "", err
	}
	c := exec.Command("go", "build", "-o", filepath.Join(dir, "crossfade"), "./cmd/crossfade")
	c.Dir = repository
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := built(); err == nil {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// secrets are those that somebody else makes, by name.
var secrets = sync.OnceValue(func() map[string]map[string]string {
	certificate := selfSigned()
	return map[string]map[string]string{
		"crossfade": {
			"redis-password": "s3cret\n",
			"luigi.htpasswd": "svc-etl:$5$crossfade$9woRHrWZfdgg/MQNXCqF3JDpikj8hpuacUta930L937\n",
			"api-keys.yaml":  "- { id: etl-2023, owner: svc-etl, sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 }\n",
		},
		"crossfade-tls":       certificate,
		"crossfade-admin-tls": certificate,
		"more":                {"CROSSFADE_HELP_CONTACT": "#platform"},
	}
})

// selfSigned is the content of a Secret of type kubernetes.io/tls.
func selfSigned() map[string]string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	of := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"luigi.example.com"}, NotAfter: time.Now().Add(24 * time.Hour)}
	certificate, err := x509.CreateCertificate(rand.Reader, of, of, key.Public(), key)
	if err != nil {
		panic(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	return map[string]string{
		corev1.TLSCertKey:       string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})),
		corev1.TLSPrivateKeyKey: string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})),
	}
}

// node is what a kubelet makes of a pod, as far as its files go.
type node struct {
	t         *testing.T
	root      string
	container corev1.Container
	pod       corev1.PodSpec
	manifests manifests
	versions  int
}

// place lays out the mounts of a container below a directory of this machine, in
// the way of a kubelet: the files of ConfigMaps and Secrets are links into ..data,
// which is a link that is replaced when they change
// (kubernetes.io, "Mounted ConfigMaps are updated automatically").
func place(t *testing.T, m manifests, pod corev1.PodSpec, name string) *node {
	t.Helper()
	n := &node{t: t, root: t.TempDir(), pod: pod}
	for _, c := range pod.Containers {
		if c.Name == name {
			n.container = c
		}
	}
	if n.container.Name == "" {
		t.Fatalf("there is no container %s", name)
	}
	n.put(m)
	return n
}

// put writes the files of manifests, or replaces those that are there.
func (n *node) put(m manifests) {
	n.t.Helper()
	n.manifests = m
	n.versions++
	for _, mount := range n.container.VolumeMounts {
		found := false
		for _, v := range n.pod.Volumes {
			if v.Name == mount.Name {
				found = true
				n.volume(filepath.Join(n.root, mount.MountPath), v)
			}
		}
		if !found && mount.Name != "state" { // of a claim
			n.t.Errorf("%s mounts %s, which is no volume", n.container.Name, mount.Name)
		}
		if err := os.MkdirAll(filepath.Join(n.root, mount.MountPath), 0o755); err != nil {
			n.t.Fatal(err)
		}
	}
}

func (n *node) volume(dir string, v corev1.Volume) {
	n.t.Helper()
	var files map[string]string
	mode := fs.FileMode(0o644)
	switch {
	case v.EmptyDir != nil:
		return
	case v.ConfigMap != nil:
		files = n.configMap(v.ConfigMap.Name)
	case v.Secret != nil:
		files = secrets()[v.Secret.SecretName]
		mode = fs.FileMode(*v.Secret.DefaultMode)
	case v.Projected != nil:
		files = map[string]string{}
		for _, s := range v.Projected.Sources {
			switch {
			case s.ServiceAccountToken != nil:
				files[s.ServiceAccountToken.Path] = "token"
			case s.ConfigMap.Optional == nil || !*s.ConfigMap.Optional:
				for name, text := range n.configMap(s.ConfigMap.Name) {
					files[name] = text
				}
			}
		}
	default:
		n.t.Fatalf("volume %s is of a new kind", v.Name)
	}
	if files == nil {
		n.t.Errorf("volume %s is of an object that there is not", v.Name)
	}
	version := fmt.Sprintf("..v%d", n.versions)
	for name, text := range files {
		write(n.t, filepath.Join(dir, version, name), n.here(text), mode)
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrExist) {
			n.t.Fatal(err)
		}
	}
	if len(files) == 0 {
		if err := os.MkdirAll(filepath.Join(dir, version), 0o755); err != nil {
			n.t.Fatal(err)
		}
	}
	link := filepath.Join(dir, "..data")
	if err := os.Symlink(version, link+"_tmp"); err != nil {
		n.t.Fatal(err)
	}
	if err := os.Rename(link+"_tmp", link); err != nil {
		n.t.Fatal(err)
	}
}

func write(t *testing.T, path, text string, mode fs.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func (n *node) configMap(name string) map[string]string {
	n.t.Helper()
	var c corev1.ConfigMap
	for _, o := range n.manifests {
		if o.Kind == "ConfigMap" && o.Metadata.Name == name {
			o.as(n.t, &c)
			if c.Data == nil {
				c.Data = map[string]string{}
			}
		}
	}
	return c.Data
}

// here moves the paths of the container to where they are on this machine.
func (n *node) here(text string) string {
	return regexp.MustCompile(`/(etc|var/lib)/crossfade|/var/run/secrets`).ReplaceAllString(text, n.root+"$0")
}

// command is what the container runs, with its environment and some more variables.
func (n *node) command(more ...string) *exec.Cmd {
	n.t.Helper()
	dir, err := built()
	if err != nil {
		n.t.Fatal(err)
	}
	words := append(append([]string{}, n.container.Command...), n.container.Args...)
	if words[0] != "crossfade" {
		n.t.Fatalf("the image is started as %v", words)
	}
	c := exec.Command(filepath.Join(dir, words[0]), words[1:]...)
	c.Dir = n.root
	for _, e := range n.container.Env {
		value := n.here(e.Value)
		if r := e.ValueFrom; r != nil && r.ResourceFieldRef != nil {
			limit := n.container.Resources.Limits[corev1.ResourceMemory]
			if r.ResourceFieldRef.Resource != "limits.memory" || r.ResourceFieldRef.ContainerName != n.container.Name {
				n.t.Errorf("%s is %+v", e.Name, r.ResourceFieldRef)
			}
			value = fmt.Sprint(limit.Value())
		}
		c.Env = append(c.Env, e.Name+"="+value)
	}
	for _, from := range n.container.EnvFrom {
		for name, value := range secrets()[from.SecretRef.Name] {
			c.Env = append(c.Env, name+"="+value)
		}
	}
	c.Env = append(c.Env, more...)
	return c
}

// TestTheGatewayAcceptsItsConfiguration runs `crossfade check` where the gateway's
// container would: each file that the configuration names has to be in a mount.
func TestTheGatewayAcceptsItsConfiguration(t *testing.T) {
	t.Parallel()
	for _, name := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, warning := range accepted(t, render(t, name)) {
				t.Log(warning)
				if name == "production" {
					t.Errorf("what a platform team would install is doubtful: %s", warning)
				}
			}
		})
	}
}

// TestTheConfigurationOfTheReadmeIsOne takes the values out of the chart's README.
func TestTheConfigurationOfTheReadmeIsOne(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(chart, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, values, _ := strings.Cut(string(text), "```yaml\n")
	values, _, found := strings.Cut(values, "```\n")
	file := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, []byte(values), 0o600); err != nil || !found {
		t.Fatal(found, err)
	}
	accepted(t, render(t, "default", "--values", file))
}

// accepted has the gateway check its configuration, and returns what it finds
// doubtful.
func accepted(t *testing.T, m manifests) (doubtful []string) {
	t.Helper()
	n := place(t, m, m.gateway(t).Spec, "crossfade")
	n.container.Command = []string{"crossfade", "check", "-o", "json"}
	out, err := n.command().CombinedOutput()
	var report struct {
		OK       bool
		Warnings []struct{ Key, Message string }
	}
	if jsonErr := json.Unmarshal(out, &report); jsonErr != nil || err != nil || !report.OK {
		t.Fatalf("%v, %v:\n%s", err, jsonErr, out)
	}
	for _, w := range report.Warnings {
		doubtful = append(doubtful, w.Key+" "+w.Message)
	}
	return doubtful
}

// running is a gateway that was started.
type running struct {
	*node
	cmd   *exec.Cmd
	at    addresses
	ended chan error

	mu   sync.Mutex
	said []string // the lines of its log
}

// addresses are where a gateway says that it listens.
type addresses struct{ Listen, Metrics, Admin string }

// start starts the container's own command. Only addresses are other ones: ports of
// this machine that are free, and the upstream.
func (n *node) start(upstream string) *running {
	n.t.Helper()
	r := &running{node: n, ended: make(chan error, 1)}
	r.cmd = n.command("CROSSFADE_LISTEN_ADDRESS=127.0.0.1:0", "CROSSFADE_METRICS_ADDRESS=127.0.0.1:0", "CROSSFADE_ADMIN_ADDRESS=127.0.0.1:0", "CROSSFADE_UPSTREAM_URL="+upstream)
	pipe, err := r.cmd.StderrPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = r.cmd.Process.Kill() })
	go func() {
		for lines := bufio.NewScanner(pipe); lines.Scan(); {
			r.mu.Lock()
			r.said = append(r.said, lines.Text())
			r.mu.Unlock()
		}
		r.ended <- r.cmd.Wait()
	}()
	r.eventually("the gateway serves", func() bool {
		return r.says("crossfade serves", &r.at)
	})
	return r
}

// says reports whether a line of the log has this message, and decodes it.
func (r *running) says(message string, into any) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, line := range r.said {
		var l struct{ Msg string }
		if json.Unmarshal([]byte(line), &l) == nil && l.Msg == message {
			return json.Unmarshal([]byte(line), into) == nil
		}
	}
	return false
}

func (r *running) eventually(what string, ok func() bool) {
	r.t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		select {
		case err := <-r.ended:
			r.t.Fatalf("the gateway ended before %s: %v\n%s", what, err, strings.Join(r.said, "\n"))
		default:
		}
		if time.Now().After(end) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.t.Fatalf("%s: not within %v\n%s", what, patience, strings.Join(r.said, "\n"))
		}
	}
}

func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// TestAGatewayRunsAsItsPodSays starts the container's command on the files that a
// kubelet would make, asks what the probes ask, and lets the values change: by the
// same pod, since the files reach the process that runs.
func TestAGatewayRunsAsItsPodSays(t *testing.T) {
	t.Parallel()
	var asked sync.Map
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked.Store(r.URL.Path, true) }))
	t.Cleanup(upstream.Close)

	flags := []string{
		"--set", "existingSecret=crossfade,config.legacy.htpasswd=/etc/crossfade/secrets/luigi.htpasswd,config.audit=/var/lib/crossfade/audit.jsonl",
		"--set", "config.admin=127.0.0.1:8081,config.upstream.profile=luigi,principals.svc-etl.team=data-eng,tests.enabled=true",
	}
	m := render(t, "trial", flags...)
	pod := m.gateway(t)
	r := place(t, m, pod.Spec, "crossfade").start(upstream.URL)
	c := r.container
	for name, probe := range map[string]*corev1.Probe{"startup": c.StartupProbe, "readiness": c.ReadinessProbe, "liveness": c.LivenessProbe} {
		if probe.HTTPGet.Port.StrVal != "metrics" {
			t.Errorf("the %s probe asks port %s", name, probe.HTTPGet.Port.String())
		}
		if status, body := get(t, "http://"+r.at.Metrics+probe.HTTPGet.Path); status != http.StatusOK {
			t.Errorf("the %s probe: %d %s", name, status, body)
		}
	}
	if status, _ := get(t, "http://"+r.at.Listen+"/static/visualiser/index.html"); status != http.StatusOK {
		t.Errorf("a request is answered by %d", status)
	}
	if _, ok := asked.Load("/static/visualiser/index.html"); !ok {
		t.Error("it did not reach the upstream")
	}
	if status, body := get(t, "http://"+r.at.Admin+"/api/v1/teams/data-eng"); status != http.StatusOK || strings.Contains(body, `"management":"managed"`) {
		t.Errorf("the console of a pod by port-forward: %d %s", status, body)
	}

	t.Run("helm test", func(t *testing.T) {
		var p corev1.Pod
		m.one(t, "Pod", "-test").as(t, &p)
		for _, container := range p.Spec.Containers {
			n := place(t, m, p.Spec, container.Name)
			for i, arg := range n.container.Args {
				n.container.Args[i] = strings.Replace(arg, "http://"+m.one(t, "Service", fullname("trial")).Metadata.Name+":8082", "http://"+r.at.Listen, 1)
			}
			out, err := n.command("CROSSFADE_UPSTREAM_URL=" + upstream.URL).CombinedOutput()
			if err != nil || !bytes.Contains(out, []byte("answers HEAD / with 200 OK")) {
				t.Errorf("%s: %v\n%s", container.Name, err, out)
			}
			n = place(t, m, p.Spec, container.Name)
			for i := range n.container.Args {
				n.container.Args[i] = "--upstream=http://127.0.0.1:1"
			}
			if out, err := n.command("CROSSFADE_UPSTREAM_URL=http://127.0.0.1:1").CombinedOutput(); err == nil {
				t.Errorf("%s is content with nothing behind it:\n%s", container.Name, out)
			}
		}
	})

	m = render(t, "trial", append(flags, "--set", "rollout.files.data-eng.percent=0")...)
	r.put(m)
	r.eventually("the team's first file is seen", func() bool {
		_, body := get(t, "http://"+r.at.Admin+"/api/v1/teams/data-eng")
		return strings.Contains(body, `"management":"managed","file":"rollout.d/data-eng.yaml"`)
	})
	flags = append(flags, "--set", "rollout.files.data-eng.percent=0,config.mode=enforce")
	m = render(t, "trial", flags...)
	r.put(m)
	r.eventually("mode enforce is in force", func() bool {
		status, _ := get(t, "http://"+r.at.Listen+"/static/visualiser/index.html")
		return status == http.StatusUnauthorized
	})
	if diff := cmp.Diff(pod, m.gateway(t)); diff != "" {
		t.Errorf("the pod is another one:\n%s", diff)
	}

	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-r.ended:
		if err != nil {
			t.Errorf("it ended with %v\n%s", err, strings.Join(r.said, "\n"))
		}
	case <-time.After(patience):
		t.Error("it did not end")
	}
	if _, err := os.Stat(filepath.Join(r.root, "var/lib/crossfade/audit.jsonl")); err != nil {
		t.Error(err)
	}
}
