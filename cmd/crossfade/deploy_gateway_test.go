package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"crossfade/config"
)

const gatewayUnit = "../../deploy/systemd/crossfade.service"

// analyze is systemd-analyze, which reads units as systemd does.
func analyze(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("systemd-analyze")
	if err != nil && runtime.GOOS == "linux" {
		t.Fatalf("this test needs systemd-analyze in PATH: `make test` installs it (%v)", err)
	} else if err != nil {
		t.Skip("there is no systemd on " + runtime.GOOS)
	}
	return program
}

// specifiers are what systemd puts in the place of those that the unit uses, for the
// system manager (systemd.unit(5), "Specifiers").
var specifiers = strings.NewReplacer("%d", "/run/credentials/crossfade.service", "%S", "/var/lib", "%L", "/var/log")

// unitEnvironment is what the unit sets, by name.
func unitEnvironment(t *testing.T, u unit) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, pair := range u["Service.Environment"] {
		name, value, _ := strings.Cut(pair, "=")
		all[name] = specifiers.Replace(value)
	}
	return all
}

// TestTheGatewaysUnitFitsWhatTheProgramReads gives the program what the unit gives it,
// with the directories of systemd replaced by one of the test.
func TestTheGatewaysUnitFitsWhatTheProgramReads(t *testing.T) {
	u := parseUnit(t, gatewayUnit)
	start := strings.Fields(u.one(t, "Service.ExecStart"))
	if start[0] != "/usr/local/bin/crossfade" || start[1] != "serve" {
		t.Errorf("it starts %v", start)
	}
	file := flagOf(start, "--config")
	if want := []string{start[0] + " check --config " + file, "/bin/kill -HUP $MAINPID"}; !slices.Equal(u["Service.ExecReload"], want) {
		t.Errorf("a reload is %q, want %q: the files are checked before the signal", u["Service.ExecReload"], want)
	}

	dir := files(t, map[string]string{
		"crossfade.yaml": "mode: enforce\nupstream: { url: http://127.0.0.1:8083, profile: luigi }\nredis: redis://127.0.0.1:6379/0\n",
		"redis-password": "s3cret\n",
	})
	var environ []string
	for name, value := range unitEnvironment(t, u) {
		for _, credential := range u["Service.LoadCredential"] {
			id, from, _ := strings.Cut(credential, ":")
			if filepath.Dir(from) != filepath.Dir(file) {
				t.Errorf("the credential %s comes from %s", id, from)
			}
			value = strings.Replace(value, "/run/credentials/crossfade.service/"+id, filepath.Join(dir, filepath.Base(from)), 1)
		}
		environ = append(environ, name+"="+value)
	}
	c, err := config.Load(config.Source{File: filepath.Join(dir, filepath.Base(file)), Env: environ})
	if err != nil {
		t.Fatal(err)
	}
	state, logs := "/var/lib/"+u.one(t, "Service.StateDirectory"), "/var/log/"+u.one(t, "Service.LogsDirectory")
	if c.Redis.Password.Reveal() != "s3cret" || string(c.StateDir) != state || string(c.Audit.File) != logs+"/audit.jsonl" {
		t.Errorf("the password is read: %t, state is in %s, the trail in %s", c.Redis.Password.Reveal() == "s3cret", c.StateDir, c.Audit.File)
	}
	with{environ: environ}.run(t, "check", "--config", filepath.Join(dir, filepath.Base(file))).want(t, exitOK)
}

func TestTheGatewaysUnitIsHardened(t *testing.T) {
	u := parseUnit(t, gatewayUnit)
	for key, want := range map[string]string{
		"Service.Type": "notify", "Service.User": "crossfade", "Service.Restart": "on-failure", "Service.RestartPreventExitStatus": "2",
		"Service.KillMode": "mixed", "Service.WatchdogSec": "30", "Install.WantedBy": "multi-user.target",
		"Service.ProtectSystem": "strict", "Service.NoNewPrivileges": "yes", "Service.CapabilityBoundingSet": "",
	} {
		if got := u.one(t, key); got != want {
			t.Errorf("%s=%s, want %s", key, got, want)
		}
	}
	for _, family := range []string{"AF_INET", "AF_INET6", "AF_UNIX"} {
		if !slices.Contains(strings.Fields(u.one(t, "Service.RestrictAddressFamilies")), family) {
			t.Errorf("without %s it reaches nobody, or systemd does not hear it", family)
		}
	}

	// What systemd itself says: it knows every key and value, and finds the service
	// little exposed: 1.3 of 10, of which the network is the most.
	program := analyze(t)
	dir := files(t, map[string]string{"crossfade.service": strings.ReplaceAll(read(t, gatewayUnit), "/usr/local/bin/crossfade ", "/bin/sh ")})
	file := filepath.Join(dir, "crossfade.service")
	for _, args := range [][]string{
		{"verify", "--man=no", "--system", file},
		{"security", "--offline=true", "--threshold=15", "--no-pager", file},
	} {
		c := exec.Command(program, args...)
		c.Env = append(os.Environ(), "HOME="+dir, "XDG_RUNTIME_DIR="+dir)
		out, err := c.CombinedOutput()
		if err != nil || args[0] == "verify" && strings.Contains(string(out), "crossfade.service") {
			t.Errorf("systemd-analyze %s: %v\n%s", args[0], err, out)
		}
	}
}
