package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"crossfade/rollout/attest"
	"crossfade/rollout/readiness"
)

const (
	// reportHistory is how many changes a report names: as many as the API tells.
	reportHistory = 1000
	// maxReport bounds what is read of a file that is verified.
	maxReport = 64 << 20
)

// reportName checks that a report may be written to a file: what stands there is
// evidence, too, and never replaced.
func reportName(name string) error {
	if ext := strings.ToLower(filepath.Ext(name)); ext != ".md" && ext != ".json" {
		return usage("--report %s: name a file that ends in .md or .json", name)
	}
	if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
		if err != nil {
			return usage("--report: %w", err)
		}
		return usage("--report: %s exists: name a new file", name)
	}
	return nil
}

// writeEvidence writes down on what evidence a team stands, with its history and
// the gateways.
func (p *program) writeEvidence(ctx context.Context, s assessments, r readiness.Report, name string) error {
	history, err := s.history(ctx, r.Team, reportHistory)
	if err != nil {
		return err
	}
	gateways, now, err := s.gateways(ctx)
	if err != nil {
		return err
	}
	document := attest.New(r, history, gateways, now)
	text := document.Markdown()
	if strings.EqualFold(filepath.Ext(name), ".json") {
		if text, err = document.JSON(); err != nil {
			return err
		}
	}
	sum, err := attest.Verify(text)
	if err != nil {
		return fmt.Errorf("report of %s: %w", r.Team, err)
	}
	if err := writeNew(name, text); err != nil {
		return fmt.Errorf("report of %s: %w", r.Team, err)
	}
	_, _ = fmt.Fprintf(p.stderr, "The evidence of %s is in %s, SHA-256 %s.\n", r.Team, name, sum)
	return nil
}

// writeNew writes a file that must not be there yet, and leaves none that is not
// whole.
func writeNew(name string, text []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, bytes.NewReader(text))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(name))
	}
	return nil
}

// verifyReport checks the digest of a file.
func (p *program) verifyReport(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return usage("--verify: %w", err)
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxReport))
	if err != nil {
		return usage("--verify: %w", err)
	}
	switch sum, err := attest.Verify(text); {
	case errors.Is(err, attest.ErrForm):
		return usage("--verify %s: %w, or its last line is gone", name, err)
	case err != nil:
		return fmt.Errorf("--verify %s: %w: it was changed after it was written", name, err)
	default:
		_, err = fmt.Fprintf(p.stdout, "%s is as it was written, SHA-256 %s.\n", name, sum)
		return err
	}
}
