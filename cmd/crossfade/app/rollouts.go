package app

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"crossfade/config"
	"crossfade/gateway/identity"
	"crossfade/legacy"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
	"crossfade/rollout/fleet"
	"crossfade/rollout/reconcile"
)

// follow starts to follow the teams' files, if there is a directory of them, and
// to watch raises.
func (a *App) follow(c *config.Config) (err error) {
	files := &teamFiles{app: a, dir: string(c.Rollout.Dir)}
	a.reconciler, err = reconcile.New(reconcile.Options{
		Table: a.table, Lease: a.store.Store, Guard: a.assessor, Files: files.read, Holder: a.name,
		Credentials: func(team identity.Team) []string { return (*a.credentials.Load())[team] },
		Evidence:    a.store.Store, Alert: func(team identity.Team, why string) {
			a.log.Error("accounts are refused after a raise; look at it", "team", team, "why", why)
			a.telemetry.RolloutAlert(team)
		},
		Report: func(err error) { report(a.log, "following the teams' files", err) },
	})
	return err
}

// Requests is what became of what teams ask for, at the last look: of all if this
// replica is the one that follows the files. The map is shared and must not be
// changed. Safe for concurrent use.
func (a *App) Requests() map[identity.Team]reconcile.Status { return a.reconciler.Status() }

// FileMistakes are what is wrong in the teams' files, as they were read last. Safe
// for concurrent use.
func (a *App) FileMistakes() config.Errors {
	if mistakes := a.mistakes.Load(); mistakes != nil {
		return *mistakes
	}
	return nil
}

// join gives signs of life, and looks for gateways that ended without a goodbye.
func (a *App) join() (err error) {
	a.member, err = fleet.Join(fleet.Options{
		Store: a.store.Store, Observed: a.evidence.Observed, Until: a.evidence.Until, Waiting: a.evidence.Behind,
		Self: func() fleet.Replica {
			return fleet.Replica{
				ID: a.name, Version: a.options.Version, Config: *a.hash.Load(), Started: a.started,
				Selects: a.keying.Kind().String(), Judges: a.settings.Load().judges,
				Regressed: errors.Is(a.table.Err(), rollout.ErrRegressed),
			}
		},
		Buried: func(r fleet.Replica, gap evidence.Gap) {
			a.log.Warn("a gateway has ended without a goodbye; its last seconds are missing in the evidence",
				"replica", r.ID, "seen", r.Seen, "requests", gap.Requests)
		},
	})
	return err
}

// replicaName tells this process apart from all others, and people where it is.
func replicaName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "somewhere"
	}
	return fmt.Sprintf("%s/%s", host, rand.Text()[:8])
}

// teamFiles reads the rollout directory for the reconciler, by one goroutine.
type teamFiles struct {
	app  *App
	dir  string
	said string // the mistakes that were told last
	// warned are the warnings that were told last.
	warned map[identity.Team][]string
}

// Reasons lists the reasons that a configuration may name.
func Reasons() []string {
	var words []string
	for _, info := range identity.Reasons() {
		words = append(words, string(info.Reason))
	}
	return words
}

// ReadTeamFiles reads the files of a rollout directory as requests. Each of teams
// may have one; nil allows any. Their limits may not be looser than the platform's.
// A mistake in one leaves the others.
func ReadTeamFiles(dir string, teams []string, platform config.Readiness) ([]reconcile.File, config.Errors, error) {
	read, mistakes, err := config.LoadTeamFiles(dir, config.TeamOptions{Teams: teams, Platform: &platform, Reasons: Reasons()})
	if err != nil {
		return nil, nil, err
	}
	var files []reconcile.File
	for _, f := range read {
		files = append(files, fileOf(f))
	}
	return files, mistakes, nil
}

// read returns the files of all teams of the running configuration. What is
// wrong with one is told when it changes.
func (t *teamFiles) read() (files []reconcile.File, broken map[identity.Team]string, err error) {
	if t.dir == "" {
		return nil, nil, nil
	}
	teams := *t.app.teams.Load()
	files, mistakes, err := ReadTeamFiles(t.dir, teams, t.app.running().Readiness)
	if err != nil {
		return nil, nil, err
	}
	broken = make(map[identity.Team]string)
	for _, m := range mistakes {
		for _, team := range teams {
			if strings.HasSuffix(m.File, "/"+team+".yaml") {
				broken[identity.Team(team)] = m.File
			}
		}
	}
	t.app.telemetry.RolloutFileMistakes(len(mistakes))
	t.app.mistakes.Store(&mistakes)
	if said := mistakes.Error(); said != t.said {
		t.said = said
		for _, m := range mistakes {
			t.app.log.Error("a team's file has a mistake; the team stays as it is, and the other files count",
				"file", m.File, "line", m.Line, "key", m.Key, "mistake", m.Error())
		}
		if len(mistakes) == 0 {
			t.app.log.Info("the teams' files have no mistakes any more")
		}
	}
	t.warn(files)
	return files, broken, nil
}

// warn tells of what stands in files without effect, once.
func (t *teamFiles) warn(files []reconcile.File) {
	warned := make(map[identity.Team][]string)
	for _, f := range files {
		if len(f.Warnings) == 0 {
			continue
		}
		if warned[f.Team] = f.Warnings; slices.Equal(t.warned[f.Team], f.Warnings) {
			continue
		}
		for _, w := range f.Warnings {
			t.app.log.Warn("something in a team's file has no effect; the rest of it counts", "team", f.Team, "file", f.Name, "warning", w)
		}
	}
	t.warned = warned
}

func fileOf(f config.TeamFile) reconcile.File {
	r := reconcile.File{
		Team: identity.Team(f.Team), Name: filepath.Join(filepath.Base(filepath.Dir(f.File)), filepath.Base(f.File)), Digest: f.Digest(), Percent: rollout.Percent(f.Percent),
		Reason: f.Reason, Retire: f.Retired, Open: f.Open,
	}
	if f.Override.Percent == f.Percent {
		r.Override = f.Override.Reason
	}
	for _, w := range f.Warnings {
		w.File = r.Name
		r.Warnings = append(r.Warnings, w.Error())
	}
	for _, b := range f.Brownouts {
		r.Brownouts = append(r.Brownouts, rollout.Brownout{From: b.From, Until: b.Until(), Percent: rollout.Percent(b.Percent)})
	}
	return r
}

// setTeams notes which teams the principals are of.
func (a *App) setTeams(teams []identity.Team) {
	names := make([]string, 0, len(teams))
	for _, team := range teams {
		if team != identity.Unassigned {
			names = append(names, string(team))
		}
	}
	slices.Sort(names)
	a.teams.Store(&names)
}

// CredentialsOf lists the ids of the static credentials of each team's principals.
// One that several principals share is of none.
func CredentialsOf(k *legacy.Keyring) map[identity.Team][]string {
	by := make(map[identity.Team][]string)
	for _, c := range k.Credentials() {
		if team := c.Principal.Team; team != "" && team != identity.Unassigned {
			by[team] = append(by[team], c.ID)
		}
	}
	return by
}
