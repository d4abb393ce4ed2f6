package app

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"crossfade/config"
	"crossfade/gateway/identity"
	"crossfade/legacy"
	"crossfade/rollout"
	"crossfade/rollout/assess"
	"crossfade/rollout/fleet"
	"crossfade/rollout/readiness"
)

// AssessStore is what readiness is assessed from.
type AssessStore interface {
	assess.Store
	Fleet(ctx context.Context) (all []fleet.Replica, now time.Time, err error)
}

// NewAssessor returns what says how ready teams are, for a command without a
// gateway: by its configuration, the teams' files in dir, "" for none, and the
// static credentials of a keyring, which may be nil.
//
// Evidence is current if the gateways gathered it under what they judge by now. A
// command knows that if they judge by what its own configuration says. Where they
// do not, differ, do not say or cannot be read, an account's last run is taken for
// current.
func NewAssessor(ctx context.Context, c *config.Config, dir string, k *legacy.Keyring, keying rollout.Keying, s AssessStore) (*assess.Assessor, error) {
	files := &fileView{dir: dir, read: func() ([]config.TeamFile, error) {
		read, _, err := config.LoadTeamFiles(dir, config.TeamOptions{Platform: &c.Readiness, Reasons: Reasons()})
		return read, err
	}}
	settings := settingsOf(c, k)
	if all, now, err := s.Fleet(ctx); err != nil || !judgeAlike(all, now, settings.judges) {
		settings.config = nil
	}
	return assess.New(assess.Options{
		Store: s, Keying: keying,
		Settings: func(team identity.Team) assess.Settings { return settings.of(team, files) },
		Skewed: func(ctx context.Context) (bool, error) {
			all, now, err := s.Fleet(ctx)
			return skewed(all, now), err
		},
		Late: func(ctx context.Context, team identity.Team) (time.Duration, error) {
			all, now, err := s.Fleet(ctx)
			return fleet.Late(fleet.Alive(all, now), team), err
		},
	})
}

// assessTeams makes what says how ready teams are, by the configuration that is in
// force.
func (a *App) assessTeams() (err error) {
	a.assessor, err = assess.New(assess.Options{
		Store: a.store.Store, Keying: a.keying,
		Settings: func(team identity.Team) assess.Settings { return a.settings.Load().of(team, a.files) },
		Skewed: func(context.Context) (bool, error) {
			return skewed(a.member.Known()), unseen(a.member.Age())
		},
		Late: func(_ context.Context, team identity.Team) (time.Duration, error) { return a.late(team), nil },
	})
	return err
}

// unseen is the error of a gateway that has not been able to look for so long at which
// others there are: nobody knows then whether they record what they observe.
func unseen(age time.Duration) error {
	if age <= fleet.Silent {
		return nil
	}
	return fmt.Errorf("%w: for %s it was not seen which gateways there are, nor how late their evidence is: look whether Redis takes what is written to the key of replicas",
		rollout.ErrUnavailable, age.Truncate(time.Second))
}

// late is how late the evidence of a team is that gateways gather: this one's by now,
// that of the others as of their last sign of life.
func (a *App) late(team identity.Team) time.Duration {
	others := slices.DeleteFunc(fleet.Alive(a.member.Known()), func(r fleet.Replica) bool { return r.ID == a.name })
	late := max(time.Since(a.evidence.Until()), fleet.Late(others, team))
	if since, ok := a.evidence.Behind()[team]; ok {
		late = max(late, time.Since(since))
	}
	return late
}

// watchReadiness tells telemetry once a minute how ready the teams are: neither a
// scrape nor a request waits for evidence. In the state directory, "" for none, it
// keeps on what evidence teams were retired.
func (a *App) watchReadiness(stateDir string) (err error) {
	a.assessed, err = assess.Watch(assess.WatchOptions{
		Report: a.assessor.Fresh, Told: func(r readiness.Report) { a.noteReadiness(stateDir, r) },
		States: func() ([]rollout.State, bool) {
			var states []rollout.State
			for _, name := range *a.teams.Load() {
				s, _ := a.table.Lookup(identity.Team(name))
				s.Team = identity.Team(name)
				states = append(states, s)
			}
			return states, a.table.Loaded()
		},
		Failed: func(team identity.Team, err error) {
			if err != nil {
				a.log.Warn("it cannot be said how ready a team is; its metrics stay as they were", "team", team, "error", err)
				return
			}
			a.log.Info("it can be said again how ready a team is", "team", team)
		},
	})
	return err
}

// Readiness says how ready a team is as it stands, by the checks that its raises
// are guarded by. Errors match rollout.ErrUnavailable. Safe for concurrent use.
func (a *App) Readiness(ctx context.Context, team identity.Team) (readiness.Report, error) {
	s, _ := a.table.Lookup(team)
	s.Team = team
	return a.assessor.Report(ctx, s)
}

// readFiles reads what the teams' files say, past those with a mistake.
func (a *App) readFiles() ([]config.TeamFile, error) {
	platform := a.running().Readiness
	read, _, err := config.LoadTeamFiles(a.files.dir, config.TeamOptions{Teams: *a.teams.Load(), Platform: &platform, Reasons: Reasons()})
	return read, err
}

// skewed reports whether gateways that are alive serve by configurations that
// differ.
func skewed(all []fleet.Replica, now time.Time) bool {
	config := ""
	for _, r := range all {
		switch {
		case now.Sub(r.Seen) > fleet.Silent:
		case config == "":
			config = r.Config
		case config != r.Config:
			return true
		}
	}
	return false
}

// judgeAlike reports whether there are gateways alive and all of them judge
// credentials by what has this hash.
func judgeAlike(all []fleet.Replica, now time.Time, hash string) bool {
	alive := fleet.Alive(all, now)
	return len(alive) > 0 && !slices.ContainsFunc(alive, func(r fleet.Replica) bool { return r.Judges == "" || r.Judges != hash })
}

// settings are what a configuration says of all teams.
type settings struct {
	limits   readiness.Limits
	waivers  map[identity.Team][]readiness.Waiver
	accounts map[identity.Team]map[string]readiness.Account
	entries  map[string]config.Principal // by the name of an account before it had one
	hashes   config.EvidenceHashes
	judges   string // the hash of hashes
	config   func(account string) string
}

func settingsOf(c *config.Config, k *legacy.Keyring) *settings {
	s := &settings{
		limits: limitsOf(c.Readiness.LongestCycle, c.Readiness.Limits), hashes: c.EvidenceHashes(),
		waivers: make(map[identity.Team][]readiness.Waiver), accounts: make(map[identity.Team]map[string]readiness.Account),
		entries: make(map[string]config.Principal),
	}
	s.config, s.judges = s.hashes.Of, s.hashes.Hash()
	for _, w := range c.Readiness.Waivers {
		team := identity.Team(w.Team)
		s.waivers[team] = append(s.waivers[team], readiness.Waiver{
			Account: w.Account, Reason: identity.Reason(w.Reason), Owner: w.Owner, Why: w.Why, Until: w.Until,
		})
	}
	secrets := make(map[string]bool)
	if k != nil {
		for _, credential := range k.Credentials() {
			secrets[credential.Principal.Name] = true
		}
	}
	for _, p := range c.Principals {
		team := identity.Team(p.Team)
		if team == "" {
			continue
		}
		if !p.Shared && team != identity.Unassigned { // a shared one stays unassigned without a companion
			for _, user := range p.Legacy {
				s.entries["legacy:"+user] = p // as identity.Directory names who has no entry
			}
		}
		if s.accounts[team] == nil {
			s.accounts[team] = make(map[string]readiness.Account)
		}
		s.accounts[team][p.Name] = readiness.Account{
			Owner: p.Owner, Legacy: secrets[p.Name] || k == nil && len(p.Legacy) > 0, OIDC: len(p.OIDC) > 0,
		}
	}
	return s
}

// entered is assess.Settings.Entered.
func (s *settings) entered(account string) (name string, team identity.Team, ok bool) {
	p, ok := s.entries[account]
	return p.Name, identity.Team(p.Team), ok
}

// of returns what the configuration and the team's file say of a team. A file
// that cannot be read says nothing.
func (s *settings) of(team identity.Team, files *fileView) assess.Settings {
	o := assess.Settings{Limits: s.limits, Waivers: s.waivers[team], Accounts: s.accounts[team], Config: s.config, Entered: s.entered}
	f, ok := files.of(team)
	if !ok {
		return o
	}
	o.Limits = o.Limits.Stricter(limitsOf(f.LongestCycle, f.Limits))
	for _, fix := range f.Fixed {
		o.Fixed = append(o.Fixed, readiness.Fix{Account: fix.Account, Pipeline: fix.Pipeline, Reason: identity.Reason(fix.Reason), At: fix.At})
	}
	return o
}

func limitsOf(cycle time.Duration, l config.Limits) readiness.Limits {
	return readiness.Limits{
		Cycle: cycle, Window: l.Window, Missing: float64(l.Missing), Tokens: float64(l.TokensSent), CleanAfter: l.CleanAfter,
		BadRuns: float64(l.BadRuns), Confidence: float64(l.Confidence), BrokenADay: l.BrokenADay, CensusDays: l.CensusDays,
		Indeterminate: float64(l.Indeterminate), SoakRuns: l.SoakRuns, RetireAfter: l.RetireAfter,
	}
}

// filesFor is how long it is remembered what the teams' files say.
const filesFor = time.Second

// fileView is what the teams' files say now, for whoever asks while requests are
// made of them elsewhere. It is safe for concurrent use.
type fileView struct {
	dir  string // "" without a directory
	read func() ([]config.TeamFile, error)

	mu   sync.Mutex
	at   time.Time
	by   map[identity.Team]config.TeamFile
	fail bool
}

// look reads the files unless it was done a moment ago, with the lock held.
func (v *fileView) look() {
	if time.Since(v.at) < filesFor {
		return
	}
	files, err := v.read()
	v.at, v.fail = time.Now(), err != nil
	v.by = make(map[identity.Team]config.TeamFile, len(files))
	for _, f := range files {
		v.by[identity.Team(f.Team)] = f
	}
}

// of returns a team's file; ok is false if there is none that can be read.
func (v *fileView) of(team identity.Team) (f config.TeamFile, ok bool) {
	if v.dir == "" {
		return config.TeamFile{}, false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.look()
	f, ok = v.by[team]
	return f, ok
}

// open reports whether a team's raises may be applied at a time: always without a
// file, as for the reconciler, and never while the files cannot be read.
func (v *fileView) open(team identity.Team, now time.Time) bool {
	if v.dir == "" {
		return true
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.look()
	f, ok := v.by[team]
	return !v.fail && (!ok || f.Open(now))
}
