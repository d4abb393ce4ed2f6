package chart_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the golden files and the generated part of values.schema.json")

const (
	repository = "../../.."
	chart      = "../../helm/crossfade"
	release    = "gateway"
	namespace  = "luigi"
)

// cases are the values files of testdata.
var cases = []string{"default", "trial", "production", "everything"}

// tool is a program that `make check` installs.
func tool(t testing.TB, name string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(repository, ".tools", name+"-v*"))
	if err != nil || len(found) != 1 {
		t.Fatalf("there are %v, and one %s is needed: run make check", found, name)
	}
	path, err := filepath.Abs(found[0])
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// helm runs the real one, away from any cluster and any settings of this machine.
func helm(t testing.TB, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	dir := t.TempDir()
	c := exec.Command(tool(t, "helm"), args...)
	c.Env = []string{"HOME=" + dir, "HELM_CACHE_HOME=" + dir, "HELM_CONFIG_HOME=" + dir, "HELM_DATA_HOME=" + dir, "KUBECONFIG=" + filepath.Join(dir, "none")}
	var out, talk bytes.Buffer
	c.Stdout, c.Stderr = &out, &talk
	err = c.Run()
	return out.String(), talk.String(), err
}

func valuesFile(name string) string { return filepath.Join("testdata", name+".yaml") }

// template renders the chart with values files and flags.
func template(t testing.TB, name string, flags ...string) (string, error) {
	t.Helper()
	args := append([]string{"template", release, chart, "--namespace", namespace, "--kube-version", kubernetes, "--values", valuesFile(name)}, flags...)
	out, talk, err := helm(t, args...)
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, talk)
	}
	return out, nil
}

// object is one of the manifests.
type object struct {
	APIVersion string
	Kind       string
	Metadata   struct {
		Name, Namespace     string
		Labels, Annotations map[string]string
	}
	// source is the template it came from, text is what is installed.
	source, text string
}

func (o object) String() string { return o.Kind + " " + o.Metadata.Name }

// copied reports whether it holds rules or a dashboard, which are the same
// whatever the values.
func (o object) copied() bool {
	return strings.HasSuffix(o.source, "/monitoring.yaml") && o.Kind != "ServiceMonitor"
}

// as decodes it into a type of Kubernetes; a field that the type does not have is an
// error.
func (o object) as(t testing.TB, into any) {
	t.Helper()
	if err := yaml.UnmarshalStrict([]byte(o.text), into); err != nil {
		t.Errorf("%s: %v", o, err)
	}
}

type manifests []object

var rendered sync.Map // of render, by its arguments

// render returns what would be installed.
func render(t testing.TB, name string, flags ...string) manifests {
	t.Helper()
	key := fmt.Sprint(name, flags)
	if m, ok := rendered.Load(key); ok {
		return m.(manifests)
	}
	out, err := template(t, name, flags...)
	if err != nil {
		t.Fatal(err)
	}
	var all manifests
	for text := range strings.SplitSeq("\n"+out, "\n---\n") {
		if strings.TrimSpace(text) == "" {
			continue
		}
		o := object{text: strings.TrimSpace(text) + "\n"}
		if err := yaml.Unmarshal([]byte(text), &o); err != nil {
			t.Fatalf("%v in:\n%s", err, text)
		}
		if o.Kind == "" {
			t.Errorf("not an object:\n%s", text)
		}
		for line := range strings.Lines(text) {
			if source, ok := strings.CutPrefix(line, "# Source: "); ok {
				o.source = strings.TrimSpace(source)
			}
		}
		all = append(all, o)
	}
	rendered.Store(key, all)
	return all
}

// one returns the only object of a kind whose name ends so.
func (m manifests) one(t testing.TB, kind, suffix string) object {
	t.Helper()
	var found []object
	for _, o := range m {
		if o.Kind == kind && strings.HasSuffix(o.Metadata.Name, suffix) {
			found = append(found, o)
		}
	}
	if len(found) != 1 {
		t.Fatalf("of kind %s and named ...%s there are %v", kind, suffix, found)
	}
	return found[0]
}

// golden compares with a file, or writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v: run go test -update", err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("%s is another one; if that is meant, run go test -update and look at the diff:\n%s", file, diff)
	}
}

func TestHelmLintFindsNothing(t *testing.T) {
	t.Parallel()
	for _, name := range cases {
		out, talk, err := helm(t, "lint", "--strict", "--quiet", chart, "--values", valuesFile(name))
		if err != nil || strings.TrimSpace(out) != "" {
			t.Errorf("%s: %v\n%s%s", name, err, out, talk)
		}
	}
}

func TestWhatIsInstalledIsWhatWasReviewed(t *testing.T) {
	t.Parallel()
	for _, name := range cases {
		var text strings.Builder
		for _, o := range render(t, name) {
			if o.copied() {
				fmt.Fprintf(&text, "---\n# %s, as in dashboards/\n", o)
				continue
			}
			fmt.Fprintf(&text, "---\n%s\n", strings.Trim(o.text, "\n"))
		}
		golden(t, name, text.String())
	}
}

// TestTheNotesSayWhatToDoNext renders them as a ConfigMap: Helm shows them to who has
// a cluster only.
func TestTheNotesSayWhatToDoNext(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "crossfade")
	if err := os.CopyFS(dir, os.DirFS(chart)); err != nil {
		t.Fatal(err)
	}
	notes := filepath.Join(dir, "templates/NOTES.txt")
	text, err := os.ReadFile(notes)
	if err != nil {
		t.Fatal(err)
	}
	wrapped := `{{- define "notes" -}}` + string(text) + "{{- end -}}\nkind: ConfigMap\ndata:\n  notes: |\n{{ include \"notes\" . | indent 4 }}\n"
	if err := errors.Join(os.Remove(notes), os.WriteFile(filepath.Join(dir, "templates/notes.yaml"), []byte(wrapped), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, name := range cases {
		out, talk, err := helm(t, "template", release, dir, "--namespace", namespace, "--values", valuesFile(name), "--kube-version", kubernetes, "--show-only", "templates/notes.yaml")
		if err != nil {
			t.Fatalf("%v: %s", err, talk)
		}
		var shown struct{ Data struct{ Notes string } }
		if err := yaml.Unmarshal([]byte(out), &shown); err != nil {
			t.Fatal(err)
		}
		golden(t, name+".notes", shown.Data.Notes)
	}
}

func TestEveryValueIsTriedOnce(t *testing.T) {
	t.Parallel()
	read := func(file string) (values map[string]any) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal(text, &values); err != nil {
			t.Fatal(err)
		}
		return values
	}
	defaults := read(filepath.Join(chart, "values.yaml"))
	tried := map[string]bool{}
	for _, name := range cases {
		for key, value := range leaves("", read(valuesFile(name))) {
			if value != leaves("", defaults)[key] {
				tried[key] = true
				for at := strings.LastIndex(key, "."); at > 0; at = strings.LastIndex(key[:at], ".") {
					tried[key[:at]] = true
				}
			}
		}
	}
	for key := range leaves("", defaults) {
		if !tried[key] && !strings.HasPrefix(key, "securityContext.") && !strings.HasPrefix(key, "podSecurityContext.") { // nobody should
			t.Errorf("no values file of testdata changes %s", key)
		}
	}
}

// leaves are the values that are no mappings, as JSON, by their dotted keys. A
// mapping that is empty is one.
func leaves(prefix string, values map[string]any) map[string]string {
	all := map[string]string{}
	for key, value := range values {
		if inner, ok := value.(map[string]any); ok && len(inner) > 0 {
			for k, v := range leaves(prefix+key+".", inner) {
				all[k] = v
			}
			continue
		}
		text, _ := json.Marshal(value)
		all[prefix+key] = string(text)
	}
	return all
}
