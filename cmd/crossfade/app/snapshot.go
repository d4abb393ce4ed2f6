package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"crossfade/config"
	"crossfade/gateway/identity"
	"crossfade/gateway/telemetry"
	"crossfade/rollout"
)

// snapshotFile is where the state directory keeps the last known percentages:
// for a start while Redis is away, and so that a Redis which was restored to an
// older state is noticed by a gateway that starts anew.
const snapshotFile = "rollout.json"

// savedSnapshot is the form of the file.
type savedSnapshot struct {
	StoreID string          `json:"store_id"`
	At      time.Time       `json:"at"`
	Teams   []rollout.State `json:"teams"`
}

// SnapshotFile is the file of the state directory.
func SnapshotFile(c *config.Config) string { return filepath.Join(string(c.StateDir), snapshotFile) }

// snapshotPath is empty without a state directory. An in-process Redis is a new
// store at each start, so there is nothing to keep.
func snapshotPath(c *config.Config) string {
	if c.StateDir == "" || c.Redis.InProcess() {
		return ""
	}
	return SnapshotFile(c)
}

// LoadSnapshot reads the file of a state directory; nil without one.
func LoadSnapshot(path string) (*rollout.Snapshot, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("state_dir: %w", err)
	}
	var saved savedSnapshot
	if err := json.Unmarshal(text, &saved); err != nil || saved.StoreID == "" {
		return nil, fmt.Errorf("state_dir: %s is damaged: remove it to start without the percentages that it held", path)
	}
	s := &rollout.Snapshot{StoreID: saved.StoreID, At: saved.At, Teams: make(map[identity.Team]rollout.State)}
	for _, state := range saved.Teams {
		if state.Percent.Validate() != nil || rollout.ValidateTeam(state.Team) != nil {
			return nil, fmt.Errorf("state_dir: %s is damaged: remove it to start without the percentages that it held", path)
		}
		s.Teams[state.Team] = state
	}
	return s, nil
}

// saveSnapshot replaces the file as a whole, so that a crash leaves the old
// one.
func saveSnapshot(path string, s rollout.Snapshot) error {
	saved := savedSnapshot{StoreID: s.StoreID, At: s.At, Teams: make([]rollout.State, 0, len(s.Teams))}
	for _, state := range s.Teams {
		saved.Teams = append(saved.Teams, state)
	}
	text, err := json.Marshal(saved)
	if err != nil {
		return err
	}
	return replaceFile(path, text)
}

// replaceFile writes a file as a whole, in a directory that is made if need be.
func replaceFile(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone already if all went well
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// rolloutChanged counts what changed and keeps it for the next start.
func (a *App) rolloutChanged(path string) func(was, is rollout.Snapshot) {
	return func(was, is rollout.Snapshot) {
		if path != "" {
			if err := saveSnapshot(path, is); err != nil {
				a.log.Error("the percentages were not saved for a start without Redis", "error", err)
			}
		}
		if was.StoreID == "" {
			return // the first reading is no change
		}
		for team, now := range is.Teams {
			before := was.Teams[team]
			if direction := directionOf(before, now); direction != "" {
				a.telemetry.RolloutChanged(team, direction, now.Source)
				a.log.Info("rollout changed", "team", team, "from", before.Percent, "to", now.Percent,
					"revision", now.Revision, "source", now.Source)
			}
		}
	}
}

// directionOf is empty for a change that leaves the percentage as it is.
func directionOf(was, is rollout.State) string {
	switch {
	case is.Retired && !was.Retired:
		return telemetry.DirectionRetire
	case is.Percent > was.Percent:
		return telemetry.DirectionRaise
	case is.Percent < was.Percent:
		return telemetry.DirectionLower
	default:
		return ""
	}
}
