package demo_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"crossfade/cmd/crossfade/demo"
	"crossfade/gateway/identity"
)

// scene is a watched directory under a clock of its own.
type scene struct {
	t   *testing.T
	dir string

	mu sync.Mutex
	// log holds what was applied and reported since it was last read.
	log  []string
	fail error // what Apply returns
}

// watch runs act beside a watcher that looks every 250 ms.
func watch(t *testing.T, files map[string]string, act func(s *scene)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &scene{t: t, dir: t.TempDir()}
		for name, content := range files {
			s.write(name, content)
		}
		w, err := demo.NewWatcher(demo.WatcherOptions{
			Dir: s.dir,
			Apply: func(team identity.Team, percent int) error {
				s.note(fmt.Sprintf("%s=%d", team, percent))
				s.mu.Lock()
				defer s.mu.Unlock()
				return s.fail
			},
			Report: func(err error) { s.note(strings.ReplaceAll(err.Error(), s.dir, "DIR")) },
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.Run(ctx)
		}()
		synctest.Wait()
		act(s)
		cancel()
		<-done
	})
}

func (s *scene) write(name, content string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(content), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) note(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, line)
}

func (s *scene) failWith(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

// expect lets looks pass and compares what happened since the last time.
func (s *scene) expect(looks int, want ...string) {
	s.t.Helper()
	// A little after a look, so that what is written next is not in it.
	time.Sleep(time.Duration(looks)*250*time.Millisecond + time.Millisecond)
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if diff := cmp.Diff(want, s.log); diff != "" {
		s.t.Errorf("applied and reported (-want +got):\n%s", diff)
	}
	s.log = nil
}

func TestWatcherAppliesEveryFileAtTheStartAndThenWhatChanges(t *testing.T) {
	t.Parallel()
	watch(t, map[string]string{"billing.yaml": "percent: 0\n", "data-eng.yaml": "percent: 0\n"}, func(s *scene) {
		s.expect(3, "billing=0", "data-eng=0")
		s.write("data-eng.yaml", "# week 1\npercent: 50 # half\n")
		s.expect(1)
		s.expect(1, "data-eng=50")
		s.expect(10)
		s.write("search.yaml", "percent: 5")
		s.expect(2, "search=5")
		s.write("data-eng.yaml", "percent: 0\n")
		s.expect(2, "data-eng=0")
	})
}

func TestWatcherWaitsUntilTheEditorHasWritten(t *testing.T) {
	t.Parallel()
	watch(t, map[string]string{"data-eng.yaml": "percent: 10\n"}, func(s *scene) {
		s.expect(0, "data-eng=10")
		s.write("data-eng.yaml", "") // truncated, not yet filled
		s.expect(1)
		s.write("data-eng.yaml", "percent: 2")
		s.expect(1)
		s.write("data-eng.yaml", "percent: 25\n")
		s.expect(2, "data-eng=25")
	})
}

func TestWatcherReportsAMistakeOnceAndKeepsThePercentage(t *testing.T) {
	t.Parallel()
	watch(t, map[string]string{"data-eng.yaml": "percent: 10\n"}, func(s *scene) {
		s.expect(0, "data-eng=10")
		s.write("data-eng.yaml", "# oops\npercent: 150\n")
		s.expect(5, `data-eng.yaml:2: percent must be a whole number from 0 to 100, not "150"`)
		s.write("data-eng.yaml", "percent: 15\n")
		s.expect(2, "data-eng=15")
		s.write("data-eng.yaml", "# oops\npercent: 150\n")
		s.expect(5, `data-eng.yaml:2: percent must be a whole number from 0 to 100, not "150"`)
	})
}

func TestWatcherTriesAgainWhenApplyingFailsAndReportsItOnce(t *testing.T) {
	t.Parallel()
	watch(t, nil, func(s *scene) {
		s.failWith(errors.New("store is away"))
		s.write("data-eng.yaml", "percent: 50\n")
		s.expect(4, "data-eng=50", "data-eng.yaml: apply percent 50: store is away", "data-eng=50", "data-eng=50")
		s.failWith(nil)
		s.expect(3, "data-eng=50")
	})
}

func TestWatcherRemovingAFileChangesNothing(t *testing.T) {
	t.Parallel()
	watch(t, map[string]string{"data-eng.yaml": "percent: 50\n"}, func(s *scene) {
		s.expect(0, "data-eng=50")
		if err := os.Remove(filepath.Join(s.dir, "data-eng.yaml")); err != nil {
			t.Fatal(err)
		}
		s.expect(4)
		s.write("data-eng.yaml", "percent: 50\n")
		s.expect(4)
		s.write("data-eng.yaml", "percent: 60\n")
		s.expect(2, "data-eng=60")
	})
}

func TestWatcherIgnoresWhatEditorsLeaveBehind(t *testing.T) {
	t.Parallel()
	watch(t, map[string]string{
		".data-eng.yaml.swp": "x", ".data-eng.yaml": "percent: 1", "data-eng.yaml~": "percent: 2", "#data-eng.yaml#": "percent: 3",
		".yaml": "percent: 4", "README.md": "percent: 5", "4913": "", "data-eng.yml": "percent: 6",
	}, func(s *scene) {
		if err := os.Mkdir(filepath.Join(s.dir, "folder.yaml"), 0o700); err != nil {
			t.Fatal(err)
		}
		s.expect(4)
	})
}

func TestWatcherReportsFilesThatAreNone(t *testing.T) {
	t.Parallel()
	watch(t, map[string]string{"huge.yaml": "percent: 1\n#" + strings.Repeat("x", 64<<10)}, func(s *scene) {
		s.expect(4, "huge.yaml: more than 64 KiB is no rollout file")
		if err := os.RemoveAll(s.dir); err != nil {
			t.Fatal(err)
		}
		s.expect(4, "open DIR: no such file or directory")
	})
}

func TestWatcherOptionsThatCannotWork(t *testing.T) {
	t.Parallel()
	apply := func(identity.Team, int) error { return nil }
	for name, o := range map[string]demo.WatcherOptions{
		"no directory":        {Dir: filepath.Join(t.TempDir(), "missing"), Apply: apply},
		"nobody to tell":      {Dir: t.TempDir()},
		"a negative interval": {Dir: t.TempDir(), Apply: apply, Interval: -1},
	} {
		if _, err := demo.NewWatcher(o); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestParseRollout(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, content string
		want          int
		err           string
	}{
		{"none", "percent: 0", 0, ""},
		{"all", "percent: 100\n", 100, ""},
		{"with comments", "# this week\npercent: 50 # half\n# end", 50, ""},
		{"as a document", "---\npercent: 7\n", 7, ""},
		{"in braces", "{percent: 8}", 8, ""},
		{"an empty file", "", 0, "f.yaml:1: the file is empty; write percent: 0"},
		{"only comments", "# percent: 5\n", 0, "f.yaml:1: the file is empty; write percent: 0"},
		{"too much", "percent: 101", 0, `f.yaml:1: percent must be a whole number from 0 to 100, not "101"`},
		{"too little", "\npercent: -1", 0, `f.yaml:2: percent must be a whole number from 0 to 100, not "-1"`},
		{"a fraction", "percent: 12.5", 0, `f.yaml:1: percent must be a whole number from 0 to 100, not "12.5"`},
		{"a percent sign", "percent: 50%", 0, `f.yaml:1: percent must be a whole number from 0 to 100, not "50%"`},
		{"a text", `percent: "50"`, 0, `f.yaml:1: percent must be a whole number from 0 to 100, not "50"`},
		{"a word", "percent: half", 0, `f.yaml:1: percent must be a whole number from 0 to 100, not "half"`},
		{"a leading zero, which some read as octal", "percent: 050", 0, `f.yaml:1: percent must be a whole number from 0 to 100, not "050"`},
		{"a plus sign", "percent: +5", 0, `f.yaml:1: percent must be a whole number from 0 to 100, not "+5"`},
		{"nothing", "percent:", 0, "f.yaml:1: percent must be a whole number from 0 to 100, not empty"},
		{"a list", "percent: [5]", 0, "f.yaml:1: percent must be a whole number from 0 to 100, not a list"},
		{"a mapping", "percent: {at: 5}", 0, "f.yaml:1: percent must be a whole number from 0 to 100, not a mapping"},
		{"another key", "# x\npercnt: 5", 0, `f.yaml:2: unknown key "percnt"; the demo reads percent only`},
		{"a key beside it", "percent: 5\nreason: because", 0, `f.yaml:2: unknown key "reason"; the demo reads percent only`},
		{"twice", "percent: 5\npercent: 6", 0, "f.yaml:2: percent stands a second time"},
		{"a number alone", "50", 0, "f.yaml:1: expected percent: N"},
		{"no key", "{}", 0, "f.yaml:1: percent is missing; write percent: 0"},
		{"two documents", "percent: 5\n---\npercent: 6", 0, "f.yaml: a second document follows; keep one"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := demo.ParseRollout("f.yaml", []byte(tt.content))
			if text := errText(err); got != tt.want || text != tt.err {
				t.Errorf("%d, %s\nwant %d, %s", got, text, tt.want, tt.err)
			}
		})
	}
}

func TestParseRolloutNamesTheLineOfASyntaxError(t *testing.T) {
	t.Parallel()
	for content, want := range map[string]string{
		"percent: [5":           "f.yaml:1: ",
		"percent: 5\n\tx: 1":    "f.yaml:2: ",
		"percent: 5\n  more: 1": "f.yaml:2: ",
		"percent: *unknown":     "f.yaml: unknown anchor",
		"\x00":                  "f.yaml: control characters are not allowed",
	} {
		if _, err := demo.ParseRollout("f.yaml", []byte(content)); !strings.HasPrefix(errText(err), want) {
			t.Errorf("%q: error = %v, want %q", content, err, want)
		}
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func FuzzParseRollout(f *testing.F) {
	for _, seed := range []string{"percent: 50\n", "# c\n{percent: 1}", "percent: &a 5\nx: *a", "---\n...\n---", "? [a]\n: b", "%YAML 1.1\n", "<<: {percent: 5}"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, content string) {
		percent, err := demo.ParseRollout("f.yaml", []byte(content))
		if percent < 0 || percent > 100 || (err != nil && percent != 0) {
			t.Fatalf("%q: %d, %v", content, percent, err)
		}
		if err != nil && !strings.HasPrefix(err.Error(), "f.yaml:") {
			t.Fatalf("%q: the error does not begin with the file: %v", content, err)
		}
		if err == nil && !strings.Contains(content, fmt.Sprint(percent)) {
			t.Fatalf("%q was read as %d", content, percent)
		}
	})
}
