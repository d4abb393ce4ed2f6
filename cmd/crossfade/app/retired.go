package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"crossfade/rollout"
	"crossfade/rollout/attest"
	"crossfade/rollout/readiness"
)

const (
	// retiredFor is for how long after a retirement its evidence is written if it is
	// not there: a gateway that was away meanwhile catches up, and a file that
	// somebody has removed long after stays away.
	retiredFor = 24 * time.Hour
	// retiredHistory is how many changes it names.
	retiredHistory = 1000
	// retiredTimeout bounds what the store is asked for it.
	retiredTimeout = 5 * time.Second
)

// keepRetired writes down in the state directory on what evidence a team was
// retired, once: whoever retired it may not have thought of it, and evidence is
// forgotten. For one goroutine.
func (a *App) keepRetired(dir string, r readiness.Report) error {
	s, _ := a.table.Lookup(r.Team)
	if dir == "" || !s.Retired || time.Since(s.UpdatedAt) >= retiredFor {
		return nil
	}
	name := filepath.Join(dir, fmt.Sprintf("retired-%s-r%d.md", r.Team, s.Revision))
	if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), retiredTimeout)
	defer cancel()
	history, err := a.store.History(ctx, r.Team, retiredHistory)
	if err != nil {
		return err
	}
	gateways, now, err := a.store.Fleet(ctx)
	if err != nil {
		return err
	}
	if err := replaceFile(name, attest.New(r, history, gateways, now).Markdown()); err != nil {
		return err
	}
	a.log.Info("the evidence of a retirement was written", "team", r.Team, "file", name)
	return nil
}

// noteReadiness notes how ready a team is.
func (a *App) noteReadiness(dir string, r readiness.Report) {
	a.telemetry.Readiness(r)
	if err := a.keepRetired(dir, r); err != nil && !errors.Is(err, rollout.ErrUnavailable) {
		a.log.Warn("the evidence of a retirement was not written; it is tried again for a day", "team", r.Team, "error", err)
	}
}
