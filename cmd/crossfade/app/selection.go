package app

import (
	"context"
	"slices"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
)

// NewlySelected names the accounts and pipelines that a raise selects, of those
// that were seen of late, and about how many runs of theirs a day are kept.
func NewlySelected(ctx context.Context, s evidence.DailyReader, team identity.Team, from, to rollout.Percent, now time.Time) (names []string, aDay float64, err error) {
	const days = 7
	runs := 0
	day := evidence.DayOf(now)
	for range days {
		d, err := s.Daily(ctx, team, day)
		if err != nil {
			return nil, 0, err
		}
		for _, r := range d.Runs {
			key := r.Account + "/" + r.Pipeline
			if r.Pipeline == "" || rollout.Selected(team, key, from) || !rollout.Selected(team, key, to) {
				continue
			}
			runs++
			if name := r.Account + " / " + r.Pipeline; !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
		day = day.Before()
	}
	slices.Sort(names)
	return names, float64(runs) / days, nil
}
