package audit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"crossfade/gateway/audit"
)

// many writes n lines, slowly enough that files are rotated among them.
func many(t *testing.T, o audit.Options, n int) {
	t.Helper()
	tr := open(t, o)
	for range n {
		tr.observe(addTask())
		time.Sleep(time.Second)
	}
	tr.close()
}

func TestAChainGoesOnAcrossFilesAndRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "audit.jsonl")
		for range 3 {
			many(t, audit.Options{File: file, MaxSize: 4000}, 20)
		}
		tr := open(t, audit.Options{File: file, MaxAge: time.Hour})
		for range 3 { // by age
			tr.observe(addTask())
			time.Sleep(time.Hour)
		}
		tr.close()

		files := siblings(t, file)
		if len(files) < 10 || files[len(files)-1] != file {
			t.Fatalf("files %v", files)
		}
		for _, name := range files[:len(files)-1] {
			if size := len(read(t, name)); size > 4000+1000 {
				t.Errorf("%s has %d bytes", name, size)
			}
		}
		shuffled := append([]string{file}, slices.Clone(files)...) // one of them twice
		rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		r := verify(t, shuffled...)
		if len(r.Chains) != 1 || r.Chains[0].First != 1 || r.Chains[0].Last != r.Chains[0].Lines || len(r.Chains[0].Files) != len(files) ||
			!strings.HasPrefix(r.Chains[0].Replica, "web1-") {
			t.Errorf("%+v", r.Chains)
		}
		uses := 0
		for _, name := range files {
			uses += strings.Count(read(t, name), `"kind":"use"`)
		}
		if uses != 63 {
			t.Errorf("%d of 63 uses", uses)
		}
		if c := verify(t, files[3:]...).Chains[0]; c.First == 1 || c.Last != r.Chains[0].Last {
			t.Errorf("the later files alone: %+v", c)
		}
		lost, err := audit.Verify(slices.Delete(slices.Clone(files), 4, 5), nil)
		if err != nil || len(lost.Findings) != 1 || lost.Findings[0].What != audit.Removed || lost.Findings[0].File != files[5] || lost.Findings[0].Line != 1 {
			t.Errorf("a file is missing: %+v, %v", lost.Findings, err)
		}
		if err := os.Remove(file); err != nil { // as by a crash between two files
			t.Fatal(err)
		}
		files = files[:len(files)-1]
		many(t, audit.Options{File: file}, 1)
		verify(t, append(files, file)...)
		if got := kinds(t, read(t, file)); got != "rotate open use close" {
			t.Errorf("lines %s", got)
		}
	})
}

func TestAFileThatSomebodyMovesIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "audit.jsonl")
		tr := open(t, audit.Options{File: file})
		tr.observe(addTask())
		time.Sleep(2 * time.Second)
		if err := os.Rename(file, file+".1"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		tr.observe(addTask())
		time.Sleep(2 * time.Second)
		// A directory in its place cannot be written: lines wait until it is gone.
		if err := errors.Join(os.Rename(file, file+".2"), os.Mkdir(file, 0o700)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		tr.observe(addTask())
		time.Sleep(2 * time.Second)
		if tr.Ready() {
			t.Error("ready without a file")
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if !tr.Ready() {
			t.Errorf("not ready with a new file: %v", tr.reports())
		}
		tr.close()
		if r := verify(t, file, file+".2", file+".1"); r.Chains[0].Last != r.Chains[0].Lines {
			t.Errorf("%+v", r.Chains)
		}
	})
}

func TestWhatACrashLeavesIsAccountedFor(t *testing.T) {
	for name, tc := range map[string]struct {
		crash func(text string) string
		kinds string // from the crash on
		torn  int
		found audit.What
	}{
		"half a line":                      {func(s string) string { return s + `{"kind":"use","ti` }, "torn open use close", 1, ""},
		"half a line, and a newline":       {func(s string) string { return s + "{\"kind\":\"use\",\"ti\n" }, "torn open use close", 1, ""},
		"a line without its newline":       {func(s string) string { return strings.TrimSuffix(s, "\n") }, "open use close", 0, ""},
		"an empty line":                    {func(s string) string { return s + "\n" }, "torn open use close", 1, ""},
		"a block of zeros":                 {func(s string) string { return s + strings.Repeat("\x00", 100_000) }, "torn open use close", 1, ""},
		"more than any line":               {func(s string) string { return s + strings.Repeat("x", audit.MaxLine+70_000) }, "torn open use close", 1, ""},
		"JSON that is no line":             {func(s string) string { return s + `{"level":"INFO"}` }, "torn open use close", 1, ""},
		"less than the first line":         {func(string) string { return `{"kind":"open","ti` }, "torn open use close", 1, ""},
		"a few bytes of the first line":    {func(string) string { return `{"ki` }, "torn open use close", 1, ""},
		"more lines than a crash can tear": {func(s string) string { return s + "one\ntwo\nthr" }, "torn open use close", 1, audit.Torn},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "audit.jsonl")
			write(t, audit.Options{File: file}, addTask())
			crashed := tc.crash(read(t, file))
			if err := os.WriteFile(file, []byte(crashed), 0o600); err != nil {
				t.Fatal(err)
			}
			r, err := audit.Verify([]string{file}, nil)
			if err != nil || len(r.Findings) != 1 || r.Findings[0].What != audit.Torn {
				t.Errorf("before the next start: %+v, %v", r.Findings, err)
			}
			write(t, audit.Options{File: file}, addTask())
			text := read(t, file)
			if !strings.HasPrefix(text, crashed) {
				t.Error("what was there has changed")
			}
			behind := strings.TrimPrefix(text[len(crashed):], "\n")
			if got := kinds(t, behind); got != tc.kinds {
				t.Errorf("lines %s, want %s", got, tc.kinds)
			}
			if r, err = audit.Verify([]string{file}, nil); err != nil {
				t.Fatal(err)
			}
			if tc.found == "" && !r.Intact() || tc.found != "" && (len(r.Findings) != 1 || r.Findings[0].What != tc.found) {
				t.Errorf("want %q, found %+v", tc.found, r.Findings)
			}
			if r.Chains[0].Torn != tc.torn || r.Chains[0].First != 1 {
				t.Errorf("%+v", r.Chains)
			}
		})
	}
}

func TestAFileOfSomethingElseIsLeftAlone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "crossfade.yaml")
	const text = "mode: observe\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := tryOpen(t, audit.Options{File: file}); err == nil || !strings.Contains(err.Error(), "holds something else") || !strings.Contains(err.Error(), file) {
		t.Errorf("got %v", err)
	}
	if read(t, file) != text {
		t.Error("it was written to")
	}
	if _, err := tryOpen(t, audit.Options{File: filepath.Join(file, "x")}); err == nil {
		t.Error("a file below a file")
	}
}

func TestOnlyOneGatewayWritesAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	first := open(t, audit.Options{File: file})
	if _, err := tryOpen(t, audit.Options{File: file}); err == nil || !strings.Contains(err.Error(), "another gateway") {
		t.Errorf("got %v", err)
	}
	first.close()
	write(t, audit.Options{File: file}, addTask())
	verify(t, file)
}

// tampering is what somebody does to the lines of a file.
type tampering struct {
	change func(lines []string) []string
	found  audit.What
	line   int
	seq    int64
}

func TestEveryTamperingIsFoundAtItsLine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	write(t, audit.Options{File: file}, addTask(), addTask(), addTask(), addTask(), addTask(), addTask()) // lines 1 to 8
	original := strings.SplitAfter(strings.TrimSuffix(read(t, file), "\n"), "\n")
	original[len(original)-1] += "\n"
	if len(original) != 8 {
		t.Fatalf("%d lines", len(original))
	}
	edit := func(i int, from, to string) func([]string) []string {
		return func(l []string) []string {
			if !strings.Contains(l[i-1], from) {
				panic("nothing to change: " + l[i-1])
			}
			l[i-1] = strings.Replace(l[i-1], from, to, 1)
			return l
		}
	}
	head := func(seq int64) map[string]audit.Head {
		var h audit.Header
		if err := json.Unmarshal([]byte(original[0]), &h); err != nil {
			t.Fatal(err)
		}
		heads := map[string]audit.Head{h.Replica: {Replica: h.Replica, Seq: seq, Hash: strings.Repeat("ab", 32)}}
		if seq < 8 {
			var next audit.Header
			if err := json.Unmarshal([]byte(original[seq]), &next); err != nil {
				t.Fatal(err)
			}
			heads[h.Replica] = audit.Head{Replica: h.Replica, Seq: seq, Hash: next.Prev}
		}
		return heads
	}
	for name, tc := range map[string]struct {
		tampering
		heads map[string]audit.Head
	}{
		"an account is changed":             {tampering{edit(3, "svc-etl", "svc-bil"), audit.Altered, 3, 3}, nil},
		"one space is put in":               {tampering{edit(7, `:`, `: `), audit.Altered, 7, 7}, nil},
		"a line ends like on Windows":       {tampering{edit(2, "\n", "\r\n"), audit.Altered, 2, 2}, nil},
		"the first line is changed":         {tampering{edit(1, `"resumed":false`, `"resumed":true`), audit.Altered, 1, 1}, nil},
		"the hash of a line is changed":     {tampering{edit(5, `"prev":"`, `"prev":"0000`), audit.Torn, 5, 0}, nil},
		"a line is broken":                  {tampering{edit(4, "{", "["), audit.Torn, 4, 0}, nil},
		"a line is emptied":                 {tampering{func(l []string) []string { l[3] = "\n"; return l }, audit.Torn, 4, 0}, nil},
		"a line is removed":                 {tampering{func(l []string) []string { return slices.Delete(l, 3, 4) }, audit.Removed, 4, 4}, nil},
		"three lines are removed":           {tampering{func(l []string) []string { return slices.Delete(l, 2, 5) }, audit.Removed, 3, 3}, nil},
		"the first line is removed":         {tampering{func(l []string) []string { return l[1:] }, audit.Truncated, 1, 1}, nil},
		"two lines change places":           {tampering{func(l []string) []string { l[3], l[4] = l[4], l[3]; return l }, audit.Reordered, 5, 4}, nil},
		"a line is moved to the end":        {tampering{func(l []string) []string { return append(append(l[:2:2], l[3:]...), l[2]) }, audit.Reordered, 8, 3}, nil},
		"a line is copied":                  {tampering{func(l []string) []string { return slices.Insert(l, 6, l[2]) }, audit.Repeated, 7, 3}, nil},
		"the last line is cut":              {tampering{func(l []string) []string { l[7] = l[7][:40]; return l }, audit.Torn, 8, 0}, nil},
		"the last newline is cut":           {tampering{func(l []string) []string { l[7] = strings.TrimSuffix(l[7], "\n"); return l }, audit.Torn, 8, 0}, nil},
		"all lines are there twice":         {tampering{func(l []string) []string { return append(l, l...) }, audit.Repeated, 9, 1}, nil},
		"lines of somebody else are put in": {tampering{func(l []string) []string { return slices.Insert(l, 3, "hello\n") }, audit.Torn, 4, 0}, nil},
		"the end is removed":                {tampering{func(l []string) []string { return l[:6] }, audit.Truncated, 6, 7}, head(7)},
		"all of it was written anew":        {tampering{func(l []string) []string { return l }, audit.Altered, 8, 8}, head(8)},
		"the last line is changed":          {tampering{edit(7, "svc-etl", "svc-bil"), audit.Altered, 7, 7}, head(7)},
	} {
		t.Run(name, func(t *testing.T) {
			changed := filepath.Join(t.TempDir(), "audit.jsonl")
			if err := os.WriteFile(changed, []byte(strings.Join(tc.change(slices.Clone(original)), "")), 0o600); err != nil {
				t.Fatal(err)
			}
			r, err := audit.Verify([]string{changed}, tc.heads)
			if err != nil || r.Intact() || len(r.Findings) > 2 {
				t.Fatalf("not found, or too often: %+v, %v", r, err)
			}
			if !slices.ContainsFunc(r.Findings, func(f audit.Finding) bool {
				return f.File == changed && f.What == tc.found && f.Line == tc.line && f.Seq == tc.seq && f.Text != ""
			}) {
				t.Errorf("want %s in line %d, found %+v", tc.found, tc.line, r.Findings)
			}
		})
	}
	for seq := int64(1); seq < 8; seq++ {
		if r, err := audit.Verify([]string{file}, head(seq)); err != nil || !r.Intact() || r.Chains[0].Head != seq {
			t.Errorf("the head of line %d: %+v, %v", seq, r, err)
		}
	}
}

func TestReplicasAreToldApartAlsoInOneFile(t *testing.T) {
	dir := t.TempDir()
	var both bytes.Buffer
	for _, name := range []string{"a.jsonl", "b.jsonl"} {
		write(t, audit.Options{File: filepath.Join(dir, name)}, addTask(), addTask())
	}
	a := strings.SplitAfter(read(t, filepath.Join(dir, "a.jsonl")), "\n")
	b := strings.SplitAfter(read(t, filepath.Join(dir, "b.jsonl")), "\n")
	for i := range a {
		both.WriteString(a[i] + b[i])
	}
	mixed := filepath.Join(dir, "mixed.jsonl")
	if err := os.WriteFile(mixed, both.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := verify(t, mixed); len(r.Chains) != 2 || r.Chains[0].Last != 4 || r.Chains[1].Last != 4 {
		t.Errorf("%+v", r.Chains)
	}
	if r := verify(t, filepath.Join(dir, "b.jsonl"), filepath.Join(dir, "a.jsonl")); len(r.Chains) != 2 {
		t.Errorf("%+v", r.Chains)
	}
	if _, err := audit.Verify([]string{filepath.Join(dir, "none.jsonl")}, nil); err == nil {
		t.Error("a file that is not there")
	}
}

// heads is a store that tests take away.
type heads struct {
	mu   sync.Mutex
	kept map[string]string
	seqs map[string]int64
	err  error
}

func newHeads() *heads { return &heads{kept: map[string]string{}, seqs: map[string]int64{}} }

func (h *heads) PutHead(_ context.Context, replica string, seq int64, head string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != nil {
		return h.err
	}
	if seq < h.seqs[replica] {
		return errors.New("it goes back")
	}
	h.kept[replica], h.seqs[replica] = head, seq
	return nil
}

func (h *heads) Heads(context.Context) (map[string]string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := map[string]string{}
	for replica, head := range h.kept {
		all[replica] = head
	}
	return all, h.err
}

func (h *heads) away(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err = err
}

// known is what the store knows.
func (h *heads) known(t *testing.T) map[string]audit.Head {
	t.Helper()
	texts, err := h.Heads(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := audit.ParseHeads(texts)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func TestHeadsAreCheckpointedAndTheirStoreMayBeAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, store := filepath.Join(t.TempDir(), "audit.jsonl"), newHeads()
		away := errors.New("connection refused")
		store.away(away)
		tr := open(t, audit.Options{File: file, Heads: store})
		tr.observe(addTask())
		time.Sleep(20 * time.Second)
		if reports := tr.reports(); len(reports) != 1 || !errors.Is(reports[0], away) || !tr.Ready() {
			t.Errorf("while it is away: %v, ready %v", reports, tr.Ready())
		}
		store.away(nil)
		time.Sleep(6 * time.Second)
		known := store.known(t)
		if reports := tr.reports(); len(reports) != 2 || reports[1] != nil || len(known) != 1 {
			t.Errorf("when it is back: %v, %v", reports, known)
		}
		for replica, h := range known {
			if h.Seq != 2 || h.Replica != replica || h.Host != "web1" || h.File != file || h.At.IsZero() {
				t.Errorf("head %+v", h)
			}
		}
		tr.observe(addTask())
		tr.close()
		r, err := audit.Verify([]string{file}, store.known(t))
		if err != nil || !r.Intact() || r.Chains[0].Head != 4 || r.Chains[0].Last != 4 {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

func TestAnEndThatWasTakenAwayShowsForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, store := filepath.Join(t.TempDir(), "audit.jsonl"), newHeads()
		write(t, audit.Options{File: file, Heads: store}, addTask(), addTask(), addTask())
		whole := strings.SplitAfter(read(t, file), "\n")
		if err := os.WriteFile(file, []byte(strings.Join(whole[:2], "")), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := audit.Verify([]string{file}, store.known(t))
		if err != nil || len(r.Findings) != 1 || r.Findings[0].What != audit.Truncated || r.Findings[0].Seq != 3 {
			t.Errorf("%+v, %v", r.Findings, err)
		}
		if r := verify(t, file); r.Chains[0].Last != 2 {
			t.Errorf("%+v", r)
		}

		// The gateway starts, finds it, and overtakes the head.
		tr := open(t, audit.Options{File: file, Heads: store})
		for range 20 {
			tr.observe(addTask())
			time.Sleep(time.Second)
		}
		tr.close()
		if reports := tr.reports(); len(reports) != 2 || !strings.Contains(fmt.Sprint(reports[0]), "cut off") || reports[1] != nil {
			t.Errorf("reported: %v", reports)
		}
		for _, known := range []map[string]audit.Head{nil, store.known(t)} {
			r, err := audit.Verify([]string{file}, known)
			if err != nil || len(r.Findings) != 1 || r.Findings[0].What != audit.Truncated || !strings.Contains(r.Findings[0].Text, "line 2") {
				t.Errorf("later: %+v, %v", r.Findings, err)
			}
		}
	})
}

func TestAChainThatWasReplacedAltogetherShows(t *testing.T) {
	file, store := filepath.Join(t.TempDir(), "audit.jsonl"), newHeads()
	write(t, audit.Options{File: file, Heads: store}, addTask())
	if err := os.Rename(file, file+".old"); err != nil {
		t.Fatal(err)
	}
	write(t, audit.Options{File: file, Heads: store}, addTask())
	r, err := audit.Verify([]string{file}, store.known(t))
	if err != nil || len(r.Findings) != 1 || r.Findings[0].What != audit.Replaced {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err = audit.Verify([]string{file, file + ".old"}, store.known(t)); err != nil || !r.Intact() || len(r.Chains) != 2 {
		t.Errorf("with the old file: %+v, %v", r, err)
	}
	other := filepath.Join(t.TempDir(), "audit.jsonl")
	write(t, audit.Options{File: other, Heads: store}, addTask())
	if r, err = audit.Verify([]string{other}, store.known(t)); err != nil || !r.Intact() || len(r.Unseen) != 2 {
		t.Errorf("another file's chains are none of its: %+v, %v", r, err)
	}
}

func TestTasksAreFoundByWhoRanThem(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	tr := open(t, audit.Options{File: file, Parameters: []string{"day"}})
	now := time.Now()
	for i, by := range []struct{ account, team, family string }{
		{"svc-etl", "data-eng", "LoadUsers"}, {"svc-etl", "data-eng", "Extract"}, {"svc-billing", "billing", "LoadUsers"},
	} {
		e := execution()
		e.By.Principal, e.Family, e.Task = by.account, by.family, fmt.Sprint(by.family, "_", i)
		e.By.Team, e.By.ClientRun = "data-eng", fmt.Sprint("run-", i)
		if by.team == "billing" {
			e.By.Team = "billing"
		}
		e.Ended = now.Add(-time.Duration(i) * time.Hour)
		tr.Executed(e)
	}
	tr.close()
	appended, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = appended.WriteString("broken"); err != nil {
		t.Fatal(err)
	}
	_ = appended.Close()
	for name, tc := range map[string]struct {
		filter audit.Filter
		want   string
	}{
		"all, the newest last":    {audit.Filter{}, "LoadUsers_2 Extract_1 LoadUsers_0"},
		"of an account":           {audit.Filter{Account: "svc-etl"}, "Extract_1 LoadUsers_0"},
		"of a team":               {audit.Filter{Team: "billing"}, "LoadUsers_2"},
		"of a family and account": {audit.Filter{Family: "LoadUsers", Account: "svc-etl"}, "LoadUsers_0"},
		"since half an hour":      {audit.Filter{Since: now.Add(-30 * time.Minute)}, "LoadUsers_0"},
		"of a run":                {audit.Filter{ClientRun: "run-1"}, "Extract_1"},
		"of nobody":               {audit.Filter{Account: "svc"}, ""},
		"since tomorrow":          {audit.Filter{Since: now.Add(24 * time.Hour)}, ""},
	} {
		tasks, broken, err := audit.Tasks([]string{file}, tc.filter)
		if err != nil || broken != 1 && !tc.filter.Since.After(now) {
			t.Errorf("%s: %d broken lines, %v", name, broken, err)
		}
		var ids []string
		for _, task := range tasks {
			ids = append(ids, task.Task.Task)
		}
		if got := strings.Join(ids, " "); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
	if _, _, err := audit.Tasks([]string{file + ".none"}, audit.Filter{}); err == nil {
		t.Error("a file that is not there")
	}
}

// FuzzVerify reads whatever stands in a file: without a panic, within bounds,
// and never intact when a line of the trail is missing in the middle.
func FuzzVerify(f *testing.F) {
	file := filepath.Join(f.TempDir(), "audit.jsonl")
	tr, err := audit.New(audit.Options{File: file, Host: "web1"})
	if err != nil {
		f.Fatal(err)
	}
	for range 3 {
		tr.Observe(context.Background(), addTask())
	}
	tr.Executed(execution())
	if err := tr.Close(context.Background()); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(file)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-7])
	f.Add(bytes.ReplaceAll(good, []byte("svc-etl"), []byte("svc")))
	f.Add([]byte("\n\n\x00\n{}\n"))
	f.Add([]byte(`{"kind":"torn","replica":"a","seq":9223372036854775807,"prev":"` + strings.Repeat("0", 64) + "\"}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		name := filepath.Join(t.TempDir(), "audit.jsonl")
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := audit.Verify([]string{name}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Findings) > audit.MaxFindings {
			t.Errorf("%d findings", len(r.Findings))
		}
		// What shares its beginning and its end with the whole and lacks some of
		// its middle is no chain.
		if len(text) < len(good) && len(r.Chains) == 1 && r.Chains[0].First == 1 && r.Chains[0].Last == 6 &&
			bytes.HasPrefix(good, text[:min(len(text), 200)]) && bytes.HasSuffix(good, text[max(len(text)-200, 0):]) && r.Intact() {
			t.Errorf("intact: %q", text)
		}
		if _, _, err := audit.Tasks([]string{name}, audit.Filter{}); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzContinue starts a gateway on whatever stands in a file: it refuses, or
// keeps what was there and goes on from it.
func FuzzContinue(f *testing.F) {
	for _, text := range []string{"", "\n", "{", `{"kind":"`, "\x00\x00", "{\"kind\":\"open\"}\n\n", "mode: observe\n", strings.Repeat("\n", 1000)} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		name := filepath.Join(t.TempDir(), "audit.jsonl")
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
		tr, err := audit.New(audit.Options{File: name, Host: "web1"})
		if err != nil {
			return
		}
		if err := tr.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		after, err := os.ReadFile(name)
		if err != nil || !bytes.HasPrefix(after, text) {
			t.Fatalf("what was there is gone: %v", err)
		}
	})
}
