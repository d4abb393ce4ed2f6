package image_test

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

// repository is where the image is built.
const repository = "../../.."

// patience bounds every wait for something that must come.
const patience = 2 * time.Minute

// dockerfile reads the Dockerfile as BuildKit does: its two stages and the arguments
// before them.
func dockerfile(t *testing.T) (build, final instructions.Stage, args []instructions.ArgCommand) {
	t.Helper()
	text, err := os.ReadFile(repository + "/deploy/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	stages, args, err := instructions.Parse(parsed.AST, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(parsed.Warnings) > 0 || len(stages) != 2 {
		t.Fatalf("%d stages, warnings %v", len(stages), parsed.Warnings)
	}
	return stages[0], stages[1], args
}

// copyContext puts what a COPY names into a directory, as far as .dockerignore lets it.
func copyContext(t *testing.T, c *instructions.CopyCommand, into string) {
	t.Helper()
	f, err := os.Open(repository + "/.dockerignore")
	if err != nil {
		t.Fatal(err)
	}
	patterns, err := ignorefile.ReadAll(f)
	_ = f.Close()
	if err != nil {
		t.Fatal(err)
	}
	ignored, err := patternmatcher.New(patterns)
	if err != nil {
		t.Fatal(err)
	}
	for _, source := range c.SourcePaths {
		copied := 0
		err := filepath.WalkDir(filepath.Join(repository, source), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			name, err := filepath.Rel(repository, path)
			if err != nil {
				return err
			}
			if out, err := ignored.MatchesOrParentMatches(name); out || err != nil {
				return err
			}
			below, err := filepath.Rel(filepath.Join(repository, source), path)
			if err != nil {
				return err
			}
			to := filepath.Join(into, c.DestPath, below)
			switch {
			case below == "." && strings.HasSuffix(c.DestPath, "/"):
				to = filepath.Join(into, c.DestPath, filepath.Base(name))
			case below == ".":
				to = filepath.Join(into, c.DestPath)
			}
			copied++
			return copyFile(path, to)
		})
		if err != nil {
			t.Fatal(err)
		}
		if copied == 0 {
			t.Errorf("COPY %s finds nothing: .dockerignore keeps all of it out", source)
		}
	}
}

func copyFile(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, text, info.Mode().Perm())
}

// imageVersion is what the test builds the image as.
const imageVersion = "v1.2.3-test"

// runBuild does by hand what a builder does with the first stage: an empty directory
// stands for its root, and commands see paths below it in the place of /src and /out.
// The tool chain is the one of this machine.
func runBuild(t *testing.T, stage instructions.Stage) (root string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "image") // longer than one test
	if err != nil {
		t.Fatal(err)
	}
	root, here := dir, dir
	environ := append(os.Environ(), "TARGETOS=linux", "TARGETARCH="+goEnv(t, "GOARCH"))
	given := map[string]string{"VERSION": imageVersion}
	for _, command := range stage.Commands {
		switch c := command.(type) {
		case *instructions.WorkdirCommand:
			here = filepath.Join(root, c.Path)
			if err := os.MkdirAll(here, 0o755); err != nil {
				t.Fatal(err)
			}
		case *instructions.CopyCommand:
			copyContext(t, c, here)
		case *instructions.ArgCommand:
			for _, a := range c.Args {
				value := given[a.Key]
				if value == "" && a.Value != nil {
					value = *a.Value
				}
				if a.Key == "TARGETARCH" || a.Key == "TARGETOS" {
					continue // the builder's own, set above
				}
				environ = append(environ, a.Key+"="+value)
			}
		case *instructions.RunCommand:
			script := strings.ReplaceAll(strings.Join(c.CmdLine, " "), "/out", filepath.Join(root, "out"))
			run := exec.Command("sh", "-c", script)
			run.Dir, run.Env = here, environ
			if out, err := run.CombinedOutput(); err != nil {
				t.Fatalf("RUN %s: %v\n%s", script, err, out)
			}
		default:
			t.Fatalf("%s is not known here", command.Name())
		}
	}
	return root
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// image is what the final stage makes of the first one.
type image struct {
	root        string
	user, group uint32
	entrypoint  []string
	command     []string
	health      []string
	labels      map[string]string
}

func runFinal(t *testing.T, stage instructions.Stage, built string) image {
	t.Helper()
	i := image{root: t.TempDir(), labels: map[string]string{}}
	for _, command := range stage.Commands {
		switch c := command.(type) {
		case *instructions.CopyCommand:
			if c.From == "" {
				copyContext(t, c, i.root)
				continue
			}
			for _, source := range c.SourcePaths {
				from := filepath.Join(built, source)
				err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
					if err != nil || d.IsDir() {
						return err
					}
					below, err := filepath.Rel(from, path)
					if err != nil {
						return err
					}
					return copyFile(path, filepath.Join(i.root, c.DestPath, below))
				})
				if err != nil {
					t.Fatal(err)
				}
			}
		case *instructions.LabelCommand:
			for _, l := range c.Labels {
				i.labels[strings.Trim(l.Key, `"`)] = strings.Trim(l.Value, `"`)
			}
		case *instructions.UserCommand:
			if _, err := fmt.Sscanf(c.User, "%d:%d", &i.user, &i.group); err != nil || i.user == 0 || i.group == 0 {
				t.Errorf("USER %s is no number, or root", c.User)
			}
		case *instructions.EntrypointCommand:
			if c.PrependShell {
				t.Error("the entry point needs a shell")
			}
			i.entrypoint = c.CmdLine
		case *instructions.CmdCommand:
			if c.PrependShell {
				t.Error("the command needs a shell")
			}
			i.command = c.CmdLine
		case *instructions.HealthCheckCommand:
			if c.Health.Test[0] != "CMD" {
				t.Errorf("the health check needs a shell: %v", c.Health.Test)
			}
			i.health = c.Health.Test[1:]
		case *instructions.RunCommand:
			t.Error("there is nothing in the final image that could run a command")
		}
	}
	return i
}

// exec returns a command in the image, as its user. As root it sees nothing but the
// image, of which it may write nothing; otherwise it runs among the files of this machine.
func (i image) exec(t *testing.T, environ []string, words ...string) *exec.Cmd {
	t.Helper()
	if os.Getuid() != 0 {
		c := exec.Command(filepath.Join(i.root, words[0]), words[1:]...)
		c.Dir, c.Env = filepath.Join(i.root, "etc/crossfade"), environ
		return c
	}
	c := exec.Command(words[0], words[1:]...)
	c.Err = nil // it is looked up inside
	c.Dir, c.Env = "/etc/crossfade", environ
	c.SysProcAttr = &syscall.SysProcAttr{Chroot: i.root, Credential: &syscall.Credential{Uid: i.user, Gid: i.group}}
	return c
}

// listing is every file with its size.
func listing(t *testing.T, root string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		all = append(all, fmt.Sprint(path, " ", info.Mode(), " ", info.Size()))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// writeExample gives the image an example's configuration with a password file.
func (i image) writeExample(t *testing.T, provider string) {
	t.Helper()
	dir := filepath.Join(i.root, "etc/crossfade")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(repository, "deploy/examples", provider))); err != nil {
		t.Fatal(err)
	}
	// The password is "secret"; SHA-512-crypt with a salt of its own.
	const htpasswd = "svc-etl:$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1\n"
	if err := os.WriteFile(filepath.Join(dir, "luigi.htpasswd"), []byte(htpasswd), 0o644); err != nil {
		t.Fatal(err)
	}
	// A builder makes files of root; t.TempDir makes its directory for its user alone.
	for dir := i.root; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// built is what the first stage leaves behind, made once for all tests.
var built struct {
	sync.Once
	root string
}

// program is the one that the image has.
func program(t *testing.T) string {
	t.Helper()
	built.Do(func() {
		build, _, _ := dockerfile(t)
		built.root = runBuild(t, build)
	})
	if built.root == "" {
		t.Fatal("the image could not be built")
	}
	return filepath.Join(built.root, "out/crossfade")
}

func TestTheImageIsBuiltAndServesAsNobody(t *testing.T) {
	program(t)
	_, final, _ := dockerfile(t)
	i := runFinal(t, final, built.root)
	i.writeExample(t, "keycloak")

	binary, err := elf.Open(filepath.Join(i.root, i.entrypoint[0]))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = binary.Close() }()
	libraries, err := binary.ImportedLibraries()
	if err != nil || len(libraries) > 0 || slices.ContainsFunc(binary.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		t.Errorf("the program is not static: it needs %v, %v", libraries, err)
	}
	// apply_hours need time zones, and there may be no database of them.
	if text, err := os.ReadFile(filepath.Join(i.root, i.entrypoint[0])); err != nil || !bytes.Contains(text, []byte("Europe/Berlin")) {
		t.Errorf("the program has no time zones of its own: %v", err)
	}

	if os.Getuid() != 0 {
		t.Log("only root can look at the image alone: the program runs among the files of this machine")
	}
	said, err := i.exec(t, nil, append(i.entrypoint, "version")...).CombinedOutput()
	if err != nil || !strings.Contains(string(said), imageVersion) {
		t.Errorf("version: %v\n%s", err, said)
	}
	said, err = i.exec(t, nil, append(i.entrypoint, "check")...).CombinedOutput()
	if err != nil {
		t.Errorf("check: %v\n%s", err, said)
	}

	before := listing(t, i.root)
	environ := []string{"CROSSFADE_LISTEN=127.0.0.1:0", "CROSSFADE_METRICS=" + freeAddress(t), "CROSSFADE_REDIS_URL=redis://127.0.0.1:1/0"}
	serve := i.exec(t, environ, append(i.entrypoint, i.command...)...)
	var log lockedBuffer
	serve.Stderr = &log
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- serve.Wait() }()
	t.Cleanup(func() { _ = serve.Process.Kill() })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		out, err := i.exec(t, environ, i.health...).CombinedOutput()
		if err == nil {
			break
		}
		select {
		case err := <-ended:
			t.Fatalf("the gateway ended: %v\n%s", err, log.String())
		case <-ctx.Done():
			t.Fatalf("the health check: %v: %s\n%s", err, out, log.String())
		case <-time.After(50 * time.Millisecond):
		}
	}
	if status, err := os.ReadFile("/proc/" + strconv.Itoa(serve.Process.Pid) + "/status"); err == nil && os.Getuid() == 0 {
		if want := fmt.Sprintf("Uid:\t%d\t", i.user); !strings.Contains(string(status), want) {
			t.Errorf("it does not run as %d:\n%s", i.user, status)
		}
	}
	_ = serve.Process.Signal(syscall.SIGTERM)
	if err := <-ended; err != nil {
		t.Errorf("%v\n%s", err, log.String())
	}
	if after := listing(t, i.root); !slices.Equal(before, after) {
		t.Errorf("the image was written to:\n%s", strings.Join(after, "\n"))
	}

	// What it is made of lies where the label says.
	sbom, err := os.ReadFile(filepath.Join(i.root, i.labels["crossfade.sbom"]))
	if err != nil {
		t.Fatal(err)
	}
	var made struct {
		BOMFormat  string `json:"bomFormat"`
		Components []struct{ Name, Version string }
	}
	if err := json.Unmarshal(sbom, &made); err != nil {
		t.Fatal(err)
	}
	known := slices.ContainsFunc(made.Components, func(c struct{ Name, Version string }) bool {
		return c.Name == "github.com/coreos/go-oidc/v3" && c.Version != ""
	})
	if made.BOMFormat != "CycloneDX" || !known {
		t.Errorf("%s with %d components, go-oidc among them: %t", made.BOMFormat, len(made.Components), known)
	}
	for _, label := range []string{"title", "description", "licenses", "version", "revision", "created"} {
		if i.labels["org.opencontainers.image."+label] == "" {
			t.Errorf("the annotation %s is missing", label)
		}
	}
}

func TestTheImagesBelowCanBePinnedByDigest(t *testing.T) {
	build, final, args := dockerfile(t)
	defaults := map[string]string{}
	for _, c := range args {
		for _, a := range c.Args {
			defaults["${"+a.Key+"}"] = *a.Value
		}
	}
	for _, stage := range []instructions.Stage{build, final} {
		name, known := defaults[stage.BaseName]
		_, tag, tagged := strings.Cut(name, ":")
		if !known || !tagged || tag == "latest" {
			t.Errorf("FROM %s is %q: it takes an argument, whose default names a version", stage.BaseName, name)
		}
	}
}
