package config_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"crossfade/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// watching starts a watcher that only reacts to notices (or only polls) and
// returns a channel with one entry a callback.
func watching(t *testing.T, o config.WatcherOptions) (*config.Watcher, <-chan struct{}) {
	t.Helper()
	changes := make(chan struct{}, 100)
	o.OnChange = func() { changes <- struct{}{} }
	if o.Debounce == 0 {
		o.Debounce = time.Millisecond
	}
	w, err := o.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w, changes
}

// atomically replaces a file the way editors and deployment tools do.
func atomically(t *testing.T, file, content string) {
	t.Helper()
	if err := os.Rename(write(t, filepath.Dir(file), ".new", content), file); err != nil {
		t.Fatal(err)
	}
}

func TestTheWatcherSeesEveryWayOfChange(t *testing.T) {
	never := 24 * time.Hour
	for name, options := range map[string]config.WatcherOptions{
		"by notices": {Poll: never},
		"by polling": {Poll: time.Millisecond, PollOnly: true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			plain := write(t, dir, "plain/crossfade.yaml", "1")
			linked := write(t, dir, "elsewhere/users", "1")
			link := filepath.Join(dir, "plain/users")
			symlink(t, linked, link)
			// A ConfigMap: file -> ..data/file, ..data -> ..2026_1.
			write(t, dir, "map/..2026_1/principals.yaml", "1")
			write(t, dir, "map/..2026_2/principals.yaml", "2")
			symlink(t, "..2026_1", filepath.Join(dir, "map/..data"))
			mapped := filepath.Join(dir, "map/principals.yaml")
			symlink(t, "..data/principals.yaml", mapped)
			later := filepath.Join(dir, "plain/later")

			options.Files = []string{plain, link, mapped, later}
			_, changes := watching(t, options)
			for _, change := range []struct {
				name string
				do   func()
			}{
				{"written in place", func() { write(t, dir, "plain/crossfade.yaml", "2") }},
				{"replaced by a rename", func() { atomically(t, plain, "3") }},
				{"replaced again", func() { atomically(t, plain, "4") }},
				{"written behind a link", func() { write(t, dir, "elsewhere/users", "2") }},
				{"a link to another directory", func() {
					symlink(t, write(t, dir, "third/users", "3"), filepath.Join(dir, "plain/.link"))
					if err := os.Rename(filepath.Join(dir, "plain/.link"), link); err != nil {
						t.Fatal(err)
					}
				}},
				{"written behind the new link", func() { write(t, dir, "third/users", "4") }},
				{"a ConfigMap swapped", func() {
					symlink(t, "..2026_2", filepath.Join(dir, "map/..tmp"))
					if err := os.Rename(filepath.Join(dir, "map/..tmp"), filepath.Join(dir, "map/..data")); err != nil {
						t.Fatal(err)
					}
				}},
				{"created", func() { atomically(t, later, "1") }},
				{"removed", func() {
					if err := os.Remove(later); err != nil {
						t.Fatal(err)
					}
				}},
			} {
				for len(changes) > 0 { // a write in place may be seen in two steps
					<-changes
				}
				change.do()
				<-changes // the test's own time limit catches a change that nobody sees
				t.Log("seen:", change.name)
			}
		})
	}
}

func symlink(t *testing.T, to, from string) {
	t.Helper()
	if err := os.Symlink(to, from); err != nil {
		t.Fatal(err)
	}
}

func TestTheSameContentIsNoChange(t *testing.T) {
	dir := t.TempDir()
	file := write(t, dir, "crossfade.yaml", "1")
	marker := write(t, dir, "marker", "1")
	_, changes := watching(t, config.WatcherOptions{Files: []string{file, marker}, Poll: 24 * time.Hour})
	atomically(t, file, "1")
	now := time.Now()
	if err := os.Chtimes(file, now, now); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "neighbour", "2")
	// Events arrive in order: the marker's change is looked into last.
	atomically(t, marker, "2")
	<-changes
	if n := len(changes); n != 0 {
		t.Errorf("%d callbacks more than changes", n)
	}
}

func TestTheListOfFilesCanChange(t *testing.T) {
	dir := t.TempDir()
	a, b := write(t, dir, "a/a", "1"), write(t, dir, "b/b", "1")
	w, changes := watching(t, config.WatcherOptions{Files: []string{a}, Poll: 24 * time.Hour})
	w.SetFiles([]string{b})
	atomically(t, b, "2")
	<-changes
	w.SetFiles([]string{a, b})
	atomically(t, a, "2")
	<-changes
}

func TestClosingWaitsForTheCallback(t *testing.T) {
	file := write(t, t.TempDir(), "crossfade.yaml", "1")
	entered, release := make(chan struct{}), make(chan struct{})
	returned := false
	w, err := config.WatcherOptions{
		Files: []string{file}, Debounce: time.Millisecond, Poll: 24 * time.Hour,
		OnChange: func() {
			close(entered)
			<-release
			returned = true
		},
	}.Start()
	if err != nil {
		t.Fatal(err)
	}
	atomically(t, file, "2")
	<-entered
	go close(release)
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if !returned {
		t.Error("Close returned before the callback")
	}
	if err := w.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
}

func TestAWatcherNeedsSomeoneToTell(t *testing.T) {
	if _, err := config.NewWatcher(nil, nil); err == nil {
		t.Error("no error")
	}
	w, err := config.NewWatcher([]string{"/nowhere/at/all"}, func() {})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}
