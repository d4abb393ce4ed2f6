// Generate writes the Grafana dashboards of Crossfade:
//
//	go run . [-runbook URL] DIRECTORY
//
// It is a module of its own, so that nothing of the gateway depends on what
// builds its dashboards. What it writes is committed; its test fails when that
// is not current, and `make dashboards` renews it.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

// runbook is the page that the panels link to, as the alerts beside these
// dashboards do. Who serves it elsewhere generates with -runbook, or replaces
// this text in the files.
const runbook = "https://wiki.acme.dev/crossfade/RUNBOOK.md"

func main() {
	base := flag.String("runbook", runbook, "`URL` of the runbook that panels link to")
	flag.Usage = func() {
		_, _ = fmt.Fprintln(flag.CommandLine.Output(), "usage: generate [-runbook URL] DIRECTORY")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := write(flag.Arg(0), *base); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

// write writes every dashboard to a file in dir.
func write(dir, runbook string) error {
	files, err := render(runbook)
	if err != nil {
		return err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil { //nolint:gosec // Grafana reads them as somebody else
			return err
		}
	}
	return nil
}

// render returns the dashboards as JSON by the names of their files. Equal
// sources give equal bytes.
func render(runbook string) (map[string][]byte, error) {
	files := map[string][]byte{}
	for name, b := range map[string]board{
		"overview.json": overview(),
		"team.json":     team(),
		"gateway.json":  gateway(),
	} {
		built, err := b.build(runbook)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if files[name], err = encode(built); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return files, nil
}

func encode(d classic) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(d)
	return b.Bytes(), err
}
