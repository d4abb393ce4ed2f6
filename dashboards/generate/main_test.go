package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestCommittedDashboardsAreCurrent(t *testing.T) {
	t.Parallel()
	const dir = "../grafana"
	files, err := render(runbook)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(got, want) {
			t.Errorf("%s is not what the source says: run make dashboards and commit", filepath.Join(dir, name))
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if _, ok := files[e.Name()]; !ok {
			t.Errorf("%s comes from nowhere: remove it", filepath.Join(dir, e.Name()))
		}
	}
}

func TestTheRunbookCanBeServedElsewhere(t *testing.T) {
	t.Parallel()
	here, err := render(runbook)
	if err != nil {
		t.Fatal(err)
	}
	const elsewhere = "https://docs.example.org/gateway"
	there, err := render(elsewhere)
	if err != nil {
		t.Fatal(err)
	}
	for name := range here {
		if !bytes.Equal(bytes.ReplaceAll(here[name], []byte(runbook), []byte(elsewhere)), there[name]) {
			t.Errorf("%s: replacing the address in the file does not give what -runbook gives", name)
		}
	}
}

// A line is 24 wide; a panel that does not fit would overlap the next one.
func TestPanelsFillTheirLines(t *testing.T) {
	t.Parallel()
	for _, b := range []board{overview(), team(), gateway()} {
		for _, r := range b.rows {
			var heights []uint32
			at := uint32(0)
			for _, p := range r.panels {
				at += p.width
				heights = append(heights, p.height)
				switch {
				case at > 24:
					t.Errorf("%s: %s does not fit into its line", b.title, p.title)
				case at == 24:
					if slices.Min(heights) != slices.Max(heights) {
						t.Errorf("%s: the line that %s ends has heights %v", b.title, p.title, heights)
					}
					at, heights = 0, nil
				}
			}
			if at != 0 {
				t.Errorf("%s: the last line of %s is %d wide and not 24", b.title, r.title, at)
			}
		}
	}
}
