package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"crossfade/gateway/agent"
	agenttoken "crossfade/gateway/agent/token"
	"crossfade/gateway/identity"
)

const deployed = "../../deploy/agent"

// unit is a unit of systemd: the values of each key, in their order.
type unit map[string][]string

// parseUnit reads the file as systemd.syntax(7) says, as far as ours go.
func parseUnit(t *testing.T, path string) unit {
	t.Helper()
	u, section := unit{}, ""
	text := strings.ReplaceAll(read(t, path), "\\\n", " ")
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '[' && strings.HasSuffix(line, "]"):
			section = line[1 : len(line)-1]
		default:
			key, value, ok := strings.Cut(line, "=")
			if !ok || section == "" {
				t.Fatalf("%s: %q is no assignment", path, line)
			}
			u[section+"."+key] = append(u[section+"."+key], value)
		}
	}
	return u
}

// one returns the value of a key that is there once.
func (u unit) one(t *testing.T, key string) string {
	t.Helper()
	if len(u[key]) != 1 {
		t.Fatalf("%s is %q", key, u[key])
	}
	return u[key][0]
}

// pod is what of a pod's specification matters to an agent.
type pod struct {
	RestartPolicy      string `yaml:"restartPolicy"`
	ServiceAccountName string `yaml:"serviceAccountName"`
	Automount          *bool  `yaml:"automountServiceAccountToken"`
	SecurityContext    struct {
		RunAsNonRoot   bool                  `yaml:"runAsNonRoot"`
		RunAsUser      int                   `yaml:"runAsUser"`
		FSGroup        int                   `yaml:"fsGroup"`
		SeccompProfile struct{ Type string } `yaml:"seccompProfile"`
	} `yaml:"securityContext"`
	InitContainers []container `yaml:"initContainers"`
	Containers     []container
	Volumes        []struct {
		Name      string
		ConfigMap struct{ Name string } `yaml:"configMap"`
		Projected struct {
			Sources []struct {
				ServiceAccountToken struct {
					Path, Audience    string
					ExpirationSeconds int `yaml:"expirationSeconds"`
				} `yaml:"serviceAccountToken"`
			}
		}
	}
}

type container struct {
	Name, Image   string
	RestartPolicy string `yaml:"restartPolicy"`
	Command, Args []string
	Env           []struct{ Name, Value string }
	Ports         []struct {
		Name          string
		ContainerPort int `yaml:"containerPort"`
	}
	StartupProbe    podProbe `yaml:"startupProbe"`
	ReadinessProbe  podProbe `yaml:"readinessProbe"`
	LivenessProbe   podProbe `yaml:"livenessProbe"`
	SecurityContext struct {
		AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
		ReadOnlyRootFilesystem   bool  `yaml:"readOnlyRootFilesystem"`
		Capabilities             struct{ Drop []string }
	} `yaml:"securityContext"`
	VolumeMounts []struct {
		Name      string
		MountPath string `yaml:"mountPath"`
	} `yaml:"volumeMounts"`
}

type podProbe struct {
	HTTPGet struct{ Path, Port string } `yaml:"httpGet"`
}

func (c container) mounts(volume string) (at string) {
	for _, m := range c.VolumeMounts {
		if m.Name == volume {
			at = m.MountPath
		}
	}
	return at
}

// object is one of the manifest.
type object struct {
	Kind     string
	Metadata struct{ Name string }
	Data     map[string]string
	Spec     struct {
		Template struct{ Spec pod }
	}
}

func manifest(t *testing.T) map[string]object {
	t.Helper()
	all := map[string]object{}
	for in := yaml.NewDecoder(strings.NewReader(read(t, deployed+"/kubernetes.yaml"))); ; {
		var o object
		if err := in.Decode(&o); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all[o.Kind] = o
	}
}

// deployedAgents are the command lines in deploy, by file, without the program.
func deployedAgents(t *testing.T) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	err := filepath.WalkDir(deployed, func(path string, d fs.DirEntry, err error) error {
		name, _ := filepath.Rel(deployed, path)
		switch {
		case err != nil || d.IsDir():
			return err
		case filepath.Ext(path) == ".service":
			words := strings.Fields(parseUnit(t, path).one(t, "Service.ExecStart"))
			if filepath.Base(words[0]) != "crossfade" {
				t.Errorf("%s starts %s", name, words[0])
			}
			all[name] = words[1:]
		case name == "kubernetes.yaml":
			for _, c := range manifest(t)["Job"].Spec.Template.Spec.InitContainers {
				words := append(slices.Clone(c.Command), c.Args...)
				if words[0] != "crossfade" {
					t.Errorf("%s starts %s", name, words[0])
				}
				all[name] = words[1:]
			}
		default:
			t.Errorf("%s is not tested", name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 3 {
		t.Fatalf("there are %d files with an agent", len(all))
	}
	return all
}

// flagOf returns the value of a flag in a command line, "" if it is not there.
func flagOf(words []string, flag string) string {
	for i, word := range words {
		if value, ok := strings.CutPrefix(word, flag+"="); ok {
			return value
		}
		if word == flag && i+1 < len(words) {
			return words[i+1]
		}
	}
	return ""
}

// generous is a provider that gives a token to whoever asks.
func generous(t *testing.T) *httptest.Server {
	t.Helper()
	var s *httptest.Server
	s = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		answer := map[string]any{"access_token": "tok-1", "token_type": "Bearer", "expires_in": 300}
		if r.Method == http.MethodGet {
			answer = map[string]any{"issuer": s.URL, "token_endpoint": s.URL + "/token"}
		}
		_ = json.NewEncoder(w).Encode(answer)
	}))
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// TestWhatIsDeployedStarts runs each command line as it stands there, with
// nothing replaced but the values that name another machine, and asks what its
// probes ask.
func TestWhatIsDeployedStarts(t *testing.T) {
	t.Parallel()
	for name, words := range deployedAgents(t) {
		t.Run(name, func(t *testing.T) {
			gateway, came := friendly(t)
			idp, u := generous(t), newPerson(t)
			dir := files(t, map[string]string{"secret": "s3cret", "token": "tok-subject"})
			here := map[string]string{
				"--gateway": gateway.URL, "--issuer": idp.URL, "--metrics": "127.0.0.1:0",
				"--client-secret-file": dir + "/secret", "--subject-token-file": dir + "/token", "--listen": "127.0.0.1:0",
			}
			if strings.HasPrefix(flagOf(words, "--listen"), "unix:") {
				here["--listen"] = "unix:" + dir + "/agent.sock"
			}
			client := flagOf(words, "--client-id")
			err := u.logins(t).Of(idp.URL, client).Save(t.Context(), agenttoken.Session{Issuer: idp.URL, ClientID: client, Refresh: identity.NewSecret("r")})
			if err != nil {
				t.Fatal(err)
			}
			var args []string
			for i, word := range words {
				flag, _, together := strings.Cut(word, "=")
				value, known := here[flag]
				switch {
				case known && together:
					word = flag + "=" + value
				case i > 0 && here[words[i-1]] != "":
					word = here[words[i-1]]
				}
				args = append(args, word)
			}
			if flagOf(args, "--metrics") == "" {
				args = append(args, "--metrics", "127.0.0.1:0")
			}

			var stdout bytes.Buffer
			var stderr lockedBuffer
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan int, 1)
			go func() {
				ended <- with{environ: []string{"HOME=" + u.home}}.program(&stdout, &stderr).run(ctx, args)
			}()
			var said struct{ Msg, Listen, Metrics string }
			eventually(t, "the agent listens", func() bool {
				select {
				case code := <-ended:
					t.Fatalf("%v: exit code %d: %s", args, code, stderr.String())
				default:
				}
				for line := range strings.Lines(stderr.String()) {
					if json.Unmarshal([]byte(line), &said) == nil && said.Msg == "crossfade agent listens" {
						return true
					}
				}
				return false
			})
			web := newClient(t)
			for _, path := range probedPaths(t) {
				eventually(t, path+" is served", func() bool {
					status, _ := get(t, web, "http://"+said.Metrics+path)
					if strings.Contains(stderr.String(), "no new token") {
						t.Fatal(stderr.String())
					}
					return status == http.StatusOK
				})
			}
			worker, url := web, "http://"+said.Listen+"/api/ping"
			if socket, ok := strings.CutPrefix(here["--listen"], "unix:"); ok {
				worker, url = unixClient(t, socket), "http://localhost/api/ping"
			}
			resp, err := worker.Post(url, "application/x-www-form-urlencoded", strings.NewReader("data={}"))
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if all := came(); len(all) != 1 || !strings.HasPrefix(all[0].Get("Authorization"), "Bearer tok-1") {
				t.Errorf("to the gateway came %v", all)
			}
			cancel()
			if code := <-ended; code != exitOK {
				t.Errorf("exit code %d: %s", code, stderr.String())
			}
		})
	}
}

// probedPaths are those that the manifest has the kubelet ask.
func probedPaths(t *testing.T) []string {
	t.Helper()
	c := manifest(t)["Job"].Spec.Template.Spec.InitContainers[0]
	return []string{c.StartupProbe.HTTPGet.Path, c.ReadinessProbe.HTTPGet.Path, c.LivenessProbe.HTTPGet.Path}
}

func TestTheManifestIsANativeSidecarWithAnIdentityOfItsOwn(t *testing.T) {
	t.Parallel()
	objects := manifest(t)
	p := objects["Job"].Spec.Template.Spec
	if len(p.InitContainers) != 1 || len(p.Containers) != 1 || p.InitContainers[0].RestartPolicy != "Always" || p.RestartPolicy != "Never" {
		t.Fatalf("no Job with a sidecar: %+v", p)
	}
	side, worker := p.InitContainers[0], p.Containers[0]
	if side.Image != "crossfade:VERSION" {
		t.Errorf("the image %s is not published: the place of the version stays open", side.Image)
	}

	// Probes ask the port that the agent serves, on an address of the pod.
	host, port, _ := strings.Cut(flagOf(side.Args, "--metrics"), ":")
	for _, probe := range []podProbe{side.StartupProbe, side.ReadinessProbe, side.LivenessProbe} {
		if len(side.Ports) != 1 || probe.HTTPGet.Port != side.Ports[0].Name || strconv.Itoa(side.Ports[0].ContainerPort) != port || host != "" {
			t.Errorf("the probe %+v does not ask %s:%s", probe, host, port)
		}
	}

	// The worker's configuration leads to the agent.
	var config string
	for _, v := range p.Volumes {
		if v.ConfigMap.Name == objects["ConfigMap"].Metadata.Name {
			config = worker.mounts(v.Name)
		}
	}
	dir := files(t, objects["ConfigMap"].Data)
	scheduler, err := agent.FindLuigiScheduler(worker.Command, func(name string) (string, bool) {
		for _, e := range worker.Env {
			if e.Name == name {
				return strings.Replace(e.Value, config, dir, 1), true
			}
		}
		return "", false
	}, t.TempDir())
	if err != nil || config == "" || !scheduler.Configured || scheduler.URL.String() != "http://"+flagOf(side.Args, "--listen")+"/" {
		t.Errorf("the worker goes to %+v, %v", scheduler, err)
	}

	// The cluster's token is for the provider, short-lived, and the agent's alone.
	if p.ServiceAccountName != objects["ServiceAccount"].Metadata.Name || p.Automount == nil || *p.Automount {
		t.Errorf("service account %s, automount %v", p.ServiceAccountName, p.Automount)
	}
	found := false
	for _, v := range p.Volumes {
		for _, s := range v.Projected.Sources {
			token := s.ServiceAccountToken
			found = token.Audience == flagOf(side.Args, "--issuer") && token.ExpirationSeconds == 600 &&
				side.mounts(v.Name)+"/"+token.Path == flagOf(side.Args, "--subject-token-file") && worker.mounts(v.Name) == ""
		}
	}
	if !found {
		t.Error("the agent has no token of its own to exchange")
	}

	// Pod Security Standards, "restricted".
	if s := p.SecurityContext; !s.RunAsNonRoot || s.RunAsUser == 0 || s.FSGroup == 0 || s.SeccompProfile.Type != "RuntimeDefault" {
		t.Errorf("%+v", s)
	}
	for _, c := range []container{side, worker} {
		if s := c.SecurityContext; s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || !slices.Equal(s.Capabilities.Drop, []string{"ALL"}) {
			t.Errorf("%s: %+v", c.Name, s)
		}
	}
	if !side.SecurityContext.ReadOnlyRootFilesystem {
		t.Error("the agent needs to write nothing")
	}
}

func TestTheUnitsAreHardenedAndFitTogether(t *testing.T) {
	t.Parallel()
	person := parseUnit(t, deployed+"/systemd/user/crossfade-agent.service")
	machine := parseUnit(t, deployed+"/systemd/system/crossfade-agent.service")
	for name, u := range map[string]unit{"user": person, "system": machine} {
		for key, want := range map[string]string{
			"Service.Type": "exec", "Service.Restart": "on-failure", "Service.NoNewPrivileges": "yes", "Service.UMask": "0077",
			"Service.MemoryDenyWriteExecute": "yes", "Service.SystemCallArchitectures": "native", "Service.SystemCallErrorNumber": "EPERM", "Unit.StartLimitIntervalSec": "0",
		} {
			if got := u.one(t, key); got != want {
				t.Errorf("%s: %s=%s, want %s", name, key, got, want)
			}
		}
		for _, family := range []string{"AF_INET", "AF_INET6", "AF_UNIX"} {
			if !slices.Contains(strings.Fields(u.one(t, "Service.RestrictAddressFamilies")), family) {
				t.Errorf("%s: without %s it reaches nobody", name, family)
			}
		}
	}
	run := strings.Fields(person.one(t, "Service.ExecStart"))
	if socket := flagOf(run, "--listen"); socket != "unix:%t/"+person.one(t, "Service.RuntimeDirectory")+"/agent.sock" || person.one(t, "Service.RuntimeDirectoryMode") != "0700" {
		t.Errorf("it listens on %s", socket)
	}
	if flagOf(run, "--source") != fromLogin || person.one(t, "Install.WantedBy") != "default.target" {
		t.Errorf("%v", run)
	}
	run = strings.Fields(machine.one(t, "Service.ExecStart"))
	credential, _, _ := strings.Cut(machine.one(t, "Service.LoadCredential"), ":")
	if flagOf(run, "--client-secret-file") != "%d/"+credential || machine.one(t, "Service.DynamicUser") != "yes" ||
		machine.one(t, "Service.ProtectSystem") != "strict" || machine.one(t, "Install.WantedBy") != "multi-user.target" {
		t.Errorf("%v", machine)
	}
	systemdKnows(t, "user", "%h/.local/bin/crossfade", "--user")
	systemdKnows(t, "system", "/usr/local/bin/crossfade", "--system")
}

// systemdKnows lets systemd itself read a unit: it knows every key and value.
func systemdKnows(t *testing.T, of, program, manager string) {
	t.Helper()
	text := read(t, filepath.Join(deployed, "systemd", of, "crossfade-agent.service"))
	if strings.Count(text, "ExecStart="+program+" ") != 1 {
		t.Errorf("the unit of the %s does not start %s", of, program)
	}
	dir := files(t, map[string]string{"crossfade-agent.service": strings.Replace(text, "="+program+" ", "=/bin/sh ", 1)})
	c := exec.Command(analyze(t), "verify", "--man=no", manager, filepath.Join(dir, "crossfade-agent.service"))
	c.Env = append(os.Environ(), "HOME="+dir, "XDG_RUNTIME_DIR="+dir)
	if out, err := c.CombinedOutput(); err != nil || strings.Contains(string(out), "crossfade-agent") {
		t.Errorf("systemd on the unit of the %s: %v\n%s", of, err, out)
	}
}
