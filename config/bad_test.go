package config_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crossfade/config"
)

var update = flag.Bool("update", false, "rewrite golden files")

// The closed list of reasons, in short, and the time that tests take place at.
var (
	reasons = []string{"aud_mismatch", "expired_mid_run", "principal_mismatch", "role_missing"}
	now     = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
)

// Each file of testdata/bad holds one mistake, or one that must not hide
// others. The golden file is the table of what is said about it.
func TestEachMistakeIsNamedExactly(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	var b strings.Builder
	for _, file := range files {
		b.WriteString("# " + strings.TrimSuffix(filepath.Base(file), ".yaml") + "\n")
		c, err := config.Load(config.Source{File: file, Reasons: reasons, Now: now})
		var mistakes config.Errors
		if !errors.As(err, &mistakes) || len(mistakes) == 0 {
			t.Errorf("%s: got error %v, want Errors", file, err)
			continue
		}
		if c != nil {
			t.Errorf("%s: a configuration came with the error", file)
		}
		for _, m := range mistakes {
			if m.Line > 0 && m.File != file && !strings.Contains(m.File, "/sub/") {
				t.Errorf("%s: a line of an unexpected file: %v", file, m)
			}
		}
		b.WriteString(err.Error() + "\n\n")
	}
	golden(t, "testdata/bad.golden", b.String())
	if strings.Contains(b.String(), "hunter") {
		t.Error("a password is in a message")
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}
