package audit

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"
)

// Filter chooses executed tasks. Its zero fields choose all.
type Filter struct {
	// Since is when they ended at the earliest.
	Since time.Time
	// Account is the principal's name.
	Account, Team, Family string
	// ClientRun is what the client called its run.
	ClientRun string
}

func (f Filter) takes(t *Task) bool {
	return !t.Ended.Before(f.Since) && (f.Account == "" || f.Account == t.Principal) &&
		(f.Team == "" || f.Team == t.Team) && (f.Family == "" || f.Family == t.Family) &&
		(f.ClientRun == "" || f.ClientRun == t.ClientRun)
}

// Executed is an executed task as the trail tells it, with the replica that
// wrote the line.
type Executed struct {
	Task
	Replica string `json:"replica"`
}

// Tasks reads the executed tasks of files, in order of their end. It believes
// the files: Verify says whether they are to be believed. broken counts the
// lines that cannot be read and that no crash explains.
func Tasks(files []string, f Filter) (tasks []Executed, broken int, err error) {
	for _, name := range files {
		info, err := os.Stat(name)
		if err != nil {
			return nil, 0, fmt.Errorf("read the audit trail: %w", err)
		}
		// A minute is for a clock that was set: lines are older than their file.
		if info.Mode().IsRegular() && info.ModTime().Before(f.Since.Add(-time.Minute)) {
			continue
		}
		bad := 0
		err = each(name, func(l line) error {
			var t Task
			switch {
			case l.ok && l.header.Kind == KindTorn && bad > 0:
				bad-- // it accounts for the line before
			case l.ok && l.header.Kind != KindTask:
			case !l.ok || json.Unmarshal(l.text, &t) != nil:
				bad++
			case f.takes(&t):
				tasks = append(tasks, Executed{t, l.header.Replica})
			}
			return nil
		})
		if err != nil {
			return nil, 0, err
		}
		broken += bad
	}
	slices.SortStableFunc(tasks, func(a, b Executed) int { return a.Ended.Compare(b.Ended) })
	return tasks, broken, nil
}
