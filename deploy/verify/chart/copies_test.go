package chart_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// copies are the directories of the repository that the chart carries: Helm reads no
// file outside of a chart.
var copies = map[string]string{"files/rules": "dashboards/rules/*.yaml", "files/dashboards": "dashboards/grafana/*.json"}

func TestTheCopiesInTheChartAreCurrent(t *testing.T) {
	t.Parallel()
	for to, from := range copies {
		want := map[string]bool{}
		sources, err := filepath.Glob(filepath.Join(repository, from))
		if err != nil || len(sources) == 0 {
			t.Fatalf("%s: %v, %v", from, sources, err)
		}
		for _, source := range sources {
			want[filepath.Base(source)] = true
			a, err := os.ReadFile(source)
			if err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(filepath.Join(chart, to, filepath.Base(source)))
			if err != nil || !bytes.Equal(a, b) {
				t.Errorf("%s in the chart is not %s: run make dashboards and commit (%v)", to, source, err)
			}
		}
		there, err := os.ReadDir(filepath.Join(chart, to))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range there {
			if !want[e.Name()] {
				t.Errorf("%s/%s in the chart comes from nowhere: remove it", to, e.Name())
			}
		}
	}
}

// runbook is where the files of the repository lead.
const runbook = "https://wiki.acme.dev/crossfade"

// TestRulesAndDashboardsArriveWhole compares what is installed with the repository's
// files; only the address of the runbook is another one. In particular nothing of
// what Prometheus and Grafana fill in is lost to Helm.
func TestRulesAndDashboardsArriveWhole(t *testing.T) {
	t.Parallel()
	const elsewhere = "https://wiki.example.com/crossfade"
	arrived := map[string]string{} // by the path in the repository
	for _, name := range []string{"production", "everything"} {
		for _, o := range render(t, name) {
			switch {
			case o.Kind == "PrometheusRule":
				file := strings.TrimPrefix(o.Metadata.Name, fullname(name)+"-") + ".yaml"
				var r monitoringv1.PrometheusRule
				o.as(t, &r)
				got, err := yaml.Marshal(r.Spec)
				if err != nil {
					t.Fatal(err)
				}
				arrived["rules/"+file+" by the operator"] = string(got)
			case o.copied():
				var c corev1.ConfigMap
				o.as(t, &c)
				for key, text := range c.Data {
					dir := "rules/"
					if strings.HasSuffix(key, ".json") {
						dir = "grafana/"
						if c.Labels["grafana_dashboard"] == "" {
							t.Errorf("%s is not found by Grafana's sidecar: %v", o, c.Labels)
						}
					}
					arrived[dir+strings.TrimPrefix(key, "crossfade-")] = text
				}
				if len(o.text) > 900<<10 { // of the 1 MiB that a ConfigMap may have
					t.Errorf("%s has %d bytes", o, len(o.text))
				}
			}
		}
	}
	if len(arrived) != 2+2+3 {
		t.Errorf("%d files arrive", len(arrived))
	}
	for path, got := range arrived {
		file, byOperator := strings.CutSuffix(path, " by the operator")
		text, err := os.ReadFile(filepath.Join(repository, "dashboards", file))
		if err != nil {
			t.Fatal(err)
		}
		want := strings.ReplaceAll(string(text), runbook, elsewhere)
		if byOperator {
			var spec monitoringv1.PrometheusRuleSpec
			if err := yaml.UnmarshalStrict([]byte(want), &spec); err != nil {
				t.Fatal(err)
			}
			again, err := yaml.Marshal(spec)
			if err != nil {
				t.Fatal(err)
			}
			want = string(again)
		}
		if strings.TrimSpace(got) != strings.TrimSpace(want) || got == "" {
			t.Errorf("%s is not what arrives", path)
		}
		if strings.HasPrefix(path, "rules/") {
			checkRules(t, path, got)
		}
	}
}

// checkRules has Prometheus read rules as they arrive.
func checkRules(t *testing.T, name, text string) {
	t.Helper()
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatalf("%v: run make needs", err)
	}
	file := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(promtool, "check", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", name, err, out)
	}
}

// TestAReleaseFitsIntoItsSecret: Helm keeps each release, with chart and manifests,
// as compressed JSON in a Secret, which may have 1 MiB (pkg/storage/driver there).
func TestAReleaseFitsIntoItsSecret(t *testing.T) {
	t.Parallel()
	var release struct {
		Files    []struct{ Data []byte } // base64 in JSON, as there
		Manifest string
	}
	err := filepath.WalkDir(chart, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		release.Files = append(release.Files, struct{ Data []byte }{text})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range render(t, "production") {
		release.Manifest += o.text
	}
	text, err := json.Marshal(release)
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	z, _ := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if _, err := z.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	size := base64.StdEncoding.EncodedLen(packed.Len())
	t.Logf("%d KiB of 1024", size>>10)
	if size > 512<<10 {
		t.Errorf("a release would have %d KiB of the 1024 that there are", size>>10)
	}
}
