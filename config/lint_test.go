package config_test

import (
	"path/filepath"
	"strings"
	"testing"

	"crossfade/config"
)

func TestWhatIsSuspiciousAmongPrincipalsIsNamedWithItsPlace(t *testing.T) {
	const dir = "testdata/lint"
	c, err := config.Load(config.Source{File: filepath.Join(dir, "crossfade.yaml"), Partial: true})
	if err != nil {
		t.Fatal(err)
	}
	files, err := config.TeamFileNames(string(c.Rollout.Dir))
	if err != nil {
		t.Fatal(err)
	}
	owner := func(line int, name string) config.Owner {
		return config.Owner{Name: name, Credential: "basic:" + name, File: "users.htpasswd", Line: line}
	}
	o := config.LintOptions{TeamFiles: files, Owners: []config.Owner{
		owner(1, "svc-etl"), owner(2, "svc-load"), owner(3, "svc-billing"), owner(4, "svc-new"), owner(5, "nightly"), owner(7, "bob"),
	}}
	findings, err := c.LintPrincipals(o)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, f := range findings {
		b.WriteString(string(f.Check) + "\n  " + f.Error() + "\n")
	}
	golden(t, "testdata/lint.golden", b.String())

	t.Run("without files of credentials nobody is missed", func(t *testing.T) {
		o := o
		o.Owners = nil
		findings, err := c.LintPrincipals(o)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range findings {
			if f.Check == config.CheckNoEntry || f.Check == config.CheckNoCredential {
				t.Errorf("%s: %v", f.Check, f)
			}
		}
	})
	t.Run("with an empty file everybody is", func(t *testing.T) {
		o := o
		o.Owners = []config.Owner{}
		findings, err := c.LintPrincipals(o)
		if err != nil {
			t.Fatal(err)
		}
		missing := 0
		for _, f := range findings {
			if f.Check == config.CheckNoCredential {
				missing++
			}
		}
		if missing != 7 { // svc-old has none, and svc-load two
			t.Errorf("%d users are missed: %v", missing, findings)
		}
	})
}

func TestAPrincipalsFileWithoutDoubtHasNoFindings(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "crossfade.yaml", "principals: principals.yaml\noidc: { issuer: https://a.example, audience: luigi }\n")
	write(t, dir, "principals.yaml", `svc-etl: { team: data-eng, oidc: { subject: 0oa1 } }
svc-load: { team: data-eng, oidc: { subject: 0oa2 } }
`)
	c, err := config.Load(config.Source{File: filepath.Join(dir, "crossfade.yaml"), Partial: true})
	if err != nil {
		t.Fatal(err)
	}
	findings, err := c.LintPrincipals(config.LintOptions{Owners: []config.Owner{{Name: "svc-etl"}, {Name: "svc-load"}}})
	if err != nil || len(findings) > 0 {
		t.Errorf("%v, %v", findings, err)
	}
	if _, err := config.Default().LintPrincipals(config.LintOptions{}); err == nil || !strings.Contains(err.Error(), "no principals file") {
		t.Errorf("without a file: %v", err)
	}
	if _, err := config.TeamFileNames(filepath.Join(dir, "none")); err == nil {
		t.Error("a directory that is not there was listed")
	}
}
