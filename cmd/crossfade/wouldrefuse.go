package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"crossfade/cmd/crossfade/app"
	"crossfade/config"
	"crossfade/gateway/audit"
	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
	"crossfade/rollout/redisstore"
)

// refusedRow is who would be refused, and why.
type refusedRow struct {
	// Account is empty for requests of nobody.
	Account  string          `json:"account"`
	Team     identity.Team   `json:"team"`
	Pipeline string          `json:"pipeline,omitempty"`
	Reason   identity.Reason `json:"reason"`
	// Requests and Runs are counted; both are 0 where it is only known that there
	// was at least one request.
	Requests int64 `json:"requests,omitempty"`
	Runs     int   `json:"runs,omitempty"`
	// Share, if not 0, is how much percent of the runs it would be: which ones
	// cannot be told.
	Share int            `json:"share_percent,omitempty"`
	Last  time.Time      `json:"last"`
	Who   identity.Owner `json:"who_acts"`
	Means string         `json:"means"`
}

// refusedReport is what check --would-refuse found.
type refusedReport struct {
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	// Mode and Authorization are those of the configuration; what is reported is
	// of mode enforce whatever it is.
	Mode          config.Mode          `json:"mode"`
	Authorization config.Authorization `json:"authorization"`
	Refused       []refusedRow         `json:"refused"`
	// Accounts are how many of them there are, Requests and Runs all of theirs, and
	// Nobody the requests of those whom the gateway cannot name.
	Accounts int   `json:"accounts"`
	Requests int64 `json:"requests"`
	Runs     int   `json:"runs"`
	Nobody   int64 `json:"requests_of_nobody"`
	// Already are requests that the upstream itself refuses today: not in the rows.
	Already int64 `json:"refused_by_the_upstream_already"`
	// Seen is how many requests the answer stands on.
	Seen int64 `json:"requests_seen"`
	// Strangers are who the audit trail says nobody is.
	Strangers []audit.Stranger `json:"strangers,omitempty"`
	Notes     []string         `json:"notes"`
}

// refusedFacts are all that the report stands on.
type refusedFacts struct {
	now    time.Time
	days   []evidence.Day
	config *config.Config
	states map[identity.Team]rollout.State
	teams  map[identity.Team]teamDays
	gaps   []evidence.Gap
}

// teamDays are what is known of a team by day, and when its accounts were used.
type teamDays struct {
	uses     map[string]evidence.Use
	daily    map[evidence.Day]evidence.Daily
	refusals map[evidence.Day]map[evidence.Refusal]evidence.Refused
}

// refusedTimeout bounds the reading of weeks of evidence of many teams.
const refusedTimeout = time.Minute

// wouldRefuse reports who would be refused by the evidence of the last span.
func (p *program) wouldRefuse(ctx context.Context, source config.Source, span time.Duration, trails []string) (refusedReport, error) {
	cfg, err := config.Load(source)
	if err != nil {
		return refusedReport{}, err
	}
	files, err := p.trailFiles(cfg, trails)
	if err != nil {
		return refusedReport{}, err
	}
	if cfg.Redis.InProcess() {
		return refusedReport{}, &exitError{exitStore, errors.New("no Redis is configured, so there is no evidence to be reached from here: " +
			"name one under `redis` in the configuration, by CROSSFADE_REDIS_URL or by --redis")}
	}
	store, err := app.OpenRedis(cfg.Redis)
	if err != nil {
		return refusedReport{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, refusedTimeout)
	defer cancel()
	facts, err := readRefused(ctx, store, cfg, time.Now().UTC(), span)
	if err := errors.Join(err, store.Close()); err != nil {
		return refusedReport{}, err
	}
	r := refused(facts)
	if len(files) == 0 {
		if r.Nobody > 0 {
			r.Notes = append(r.Notes, "The evidence does not say who nobody is: the audit trail has addresses, and --audit FILE reads it.")
		}
		return r, nil
	}
	strangers, broken, err := audit.Strangers(files, r.Since)
	if err != nil {
		return r, err
	}
	r.Strangers = strangers
	if broken > 0 {
		r.Notes = append(r.Notes, plural(broken, "line")+" of the audit trail cannot be read: `crossfade audit verify` says more.")
	}
	r.Notes = append(r.Notes, "The audit trail that was read is that of "+plural(len(files), "file")+"; each gateway writes its own.")
	return r, nil
}

// trailFiles are the audit files to read: those named or, if they are there, the
// configured ones.
func (p *program) trailFiles(cfg *config.Config, named []string) ([]string, error) {
	if len(named) == 0 {
		if cfg.Audit.File == "" {
			return nil, nil
		}
		return audit.Files(string(cfg.Audit.File))
	}
	return p.auditFiles(named)
}

// readRefused reads the evidence of all teams.
func readRefused(ctx context.Context, s *redisstore.Store, cfg *config.Config, now time.Time, span time.Duration) (refusedFacts, error) {
	f := refusedFacts{now: now, config: cfg, teams: make(map[identity.Team]teamDays)}
	start := now.Add(-span)
	for day := evidence.DayOf(now); day.End().After(start); day = day.Before() {
		f.days = append(f.days, day)
	}
	snapshot, err := s.Load(ctx)
	if err != nil {
		return f, err
	}
	f.states = snapshot.Teams
	teams := map[identity.Team]bool{identity.Unassigned: true}
	for team := range f.states {
		teams[team] = true
	}
	for _, team := range teamsOf(cfg) {
		teams[identity.Team(team)] = true
	}
	for team := range teams {
		t := teamDays{
			daily: make(map[evidence.Day]evidence.Daily), refusals: make(map[evidence.Day]map[evidence.Refusal]evidence.Refused),
		}
		if t.uses, err = s.Accounts(ctx, team); err != nil {
			return f, err
		}
		for _, day := range f.days {
			if t.daily[day], err = s.Daily(ctx, team, day); err != nil {
				return f, err
			}
			if t.refusals[day], err = s.Refusals(ctx, team, day); err != nil {
				return f, err
			}
		}
		f.teams[team] = t
	}
	f.gaps, err = s.Gaps(ctx, start)
	return f, err
}

// refused says who would be refused if the configuration were in mode enforce. It
// is pure.
//
// Requests that would be whatever the percentage is were counted when they came:
// credentials that are not good, and roles. What a percentage adds to that are the
// runs that it selects and that use a static credential, by how they were judged.
func refused(f refusedFacts) refusedReport {
	r := refusedReport{
		Until: f.now, Mode: f.config.Mode, Authorization: f.config.Authorization, Refused: []refusedRow{}, Notes: []string{},
	}
	if len(f.days) > 0 {
		r.Since = f.days[len(f.days)-1].End().AddDate(0, 0, -1)
	}
	t := refusedTally{report: &r, config: f.config, rows: make(map[refusedRow]*refusedRow), teams: make(map[string]identity.Team)}
	for _, p := range f.config.Principals {
		if p.Team != "" {
			t.teams[p.Name] = identity.Team(p.Team)
		}
	}
	empty := 0
	for _, day := range f.days {
		before := r.Seen
		for team, known := range f.teams {
			for _, n := range known.daily[day].Counts {
				r.Seen += n
			}
			t.unkept += known.daily[day].Unkept
			for kind, n := range known.refusals[day] {
				t.refusal(team, kind, n)
			}
			for _, run := range known.daily[day].Runs {
				t.run(f.states[team], team, run)
			}
		}
		if r.Seen == before {
			empty++
		}
	}
	for team, known := range f.teams {
		for account, use := range known.uses {
			t.use(f.states[team], team, account, use)
		}
	}
	r.Refused = t.sorted()
	r.total()
	t.notes(f, empty)
	return r
}

// refusedTally is the state of one pass over the evidence.
type refusedTally struct {
	report *refusedReport
	config *config.Config
	rows   map[refusedRow]*refusedRow
	teams  map[string]identity.Team // of accounts, by the configuration

	unkept   int64
	enforced int // runs that were refused then
	unjudged int // runs of which nobody knows
	noKey    int // runs that belong to no pipeline
}

// row returns the row of its kind.
func (t *refusedTally) row(team identity.Team, account, pipeline string, reason identity.Reason) *refusedRow {
	if of, ok := t.teams[account]; ok {
		team = of // what a refused credential names has no team when it is counted
	}
	key := refusedRow{Account: account, Team: team, Pipeline: pipeline, Reason: reason}
	row := t.rows[key]
	if row == nil {
		info, _ := reason.Info()
		row = &refusedRow{Account: account, Team: team, Pipeline: pipeline, Reason: reason, Who: info.Owner, Means: info.Means}
		if row.Who == identity.OwnerTeam && (account == "" || team == identity.Unassigned) {
			row.Who = identity.OwnerPlatform // nobody knows whose it is
		}
		t.rows[key] = row
	}
	return row
}

func (t *refusedTally) refusal(team identity.Team, kind evidence.Refusal, n evidence.Refused) {
	switch {
	case kind.Roles && t.config.Authorization != config.AuthorizationEnforce:
	case kind.Already:
		t.report.Already += n.Requests
	default:
		row := t.row(team, kind.Account, kind.Pipeline, kind.Reason)
		row.Requests += n.Requests
		row.Last = later(row.Last, n.Last)
	}
}

// run judges a run as if it began now.
func (t *refusedTally) run(s rollout.State, team identity.Team, run evidence.Run) {
	if run.Refused {
		t.enforced++
	}
	if !run.Legacy {
		return
	}
	in, share := t.selects(s, team, run.Account, run.Pipeline)
	if !in {
		if s.Percent > 0 && run.Pipeline == "" {
			t.noKey++
		}
		return
	}
	if run.Grade == evidence.Indeterminate {
		t.unjudged++
		return
	}
	run = run.Without(func(evidence.Signal) bool { return true }) // what it is by its other requests
	reason := refusedFor(s, run.Grade == evidence.NoToken, run.Reason)
	if run.Grade != evidence.NoToken && run.Grade != evidence.WouldBreak {
		return // the token governs, and is good
	}
	row := t.row(team, run.Account, run.Pipeline, reason)
	row.Runs++
	row.Share = share
	row.Last = later(row.Last, run.Worst)
}

// use adds accounts that failed outside of any run: of what people do in browsers
// it is known when that was last and why, and not how often.
func (t *refusedTally) use(s rollout.State, team identity.Team, account string, u evidence.Use) {
	if u.Failed.Before(t.report.Since) || u.Legacy.Before(t.report.Since) {
		return
	}
	info, _ := u.Reason.Info()
	reason := refusedFor(s, u.Reason == identity.TokenAbsent, u.Reason)
	in, share := t.selects(s, team, account, "")
	if !in || share > 0 || info.Indeterminate || u.Reason == identity.PrincipalMismatch || u.Reason == identity.TeamMismatch {
		return // both credentials are good there, and the token governs
	}
	for key := range t.rows {
		if key.Account == account && key.Reason == reason {
			return
		}
	}
	row := t.row(team, account, "", reason)
	row.Last = u.Failed
}

// refusedFor is why a selected run is refused.
func refusedFor(s rollout.State, noToken bool, otherwise identity.Reason) identity.Reason {
	switch {
	case noToken && s.Retired:
		return identity.LegacyRetired
	case noToken:
		return identity.LegacyRefused
	default:
		return otherwise
	}
}

// selects reports whether the percentage of a team asks a run of the account and
// pipeline for a token. With a share it does so of that part of such runs, in
// percent, and which ones cannot be told.
func (t *refusedTally) selects(s rollout.State, team identity.Team, account, pipeline string) (in bool, share int) {
	k := app.KeyingOf(t.config)
	if k.Kind() == rollout.StickRun && !s.Retired && s.Percent > 0 && s.Percent < rollout.Full {
		return true, int(s.Percent)
	}
	in, _ = k.Selects(s, s.Percent, rollout.Run{Team: team, Principal: account, Pipeline: pipeline})
	return in, 0
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// sorted are the rows: accounts first, by team and name, then nobody.
func (t *refusedTally) sorted() []refusedRow {
	rows := make([]refusedRow, 0, len(t.rows))
	for _, row := range t.rows {
		rows = append(rows, *row)
	}
	slices.SortFunc(rows, func(a, b refusedRow) int {
		if (a.Account == "") != (b.Account == "") {
			return strings.Compare(b.Account, a.Account)
		}
		return cmp.Or(cmp.Compare(a.Team, b.Team), cmp.Compare(a.Account, b.Account), cmp.Compare(a.Pipeline, b.Pipeline), cmp.Compare(a.Reason, b.Reason))
	})
	return rows
}

// total adds the rows up.
func (r *refusedReport) total() {
	accounts := make(map[string]bool)
	for _, row := range r.Refused {
		if row.Account == "" {
			r.Nobody += row.Requests
			continue
		}
		accounts[row.Account] = true
		r.Requests += row.Requests
		r.Runs += row.Runs
	}
	r.Accounts = len(accounts)
}

// notes say what the numbers leave out, and what cannot be known from them.
func (t *refusedTally) notes(f refusedFacts, empty int) {
	say := func(format string, args ...any) {
		t.report.Notes = append(t.report.Notes, fmt.Sprintf(format, args...))
	}
	if t.config.Mode == config.ModeEnforce {
		say("The configuration is in mode enforce already; what is told is what came while a gateway was in mode observe.")
	}
	if t.enforced > 0 {
		say("%s refused in this time, so a gateway was in mode enforce then: who it refused is not told here.", were(t.enforced, "run"))
	}
	if empty > 0 && empty < len(f.days) {
		say("Nothing was recorded on %d of the %d days.", empty, len(f.days))
	}
	missing := int64(0)
	for _, gap := range f.gaps {
		missing += gap.Requests
	}
	if missing > 0 {
		say("%s lost, and who sent them is not known.", were(int(missing), "request"))
	}
	if t.report.Already > 0 {
		say("%s refused by the upstream itself (401 or 403): nothing would change for them.", were(int(t.report.Already), "more request"))
	}
	if t.unkept > 0 {
		say("About %s not kept, there being enough of their kind: numbers of runs are the least that it would be.", were(int(t.unkept), "run"))
	}
	if t.unjudged > 0 {
		say("%s of teams that have a percentage could not be judged: whether they would be refused is not known.", plural(t.unjudged, "run"))
	}
	if t.noKey > 0 {
		say("%s registered no task: below 100%% nothing is refused to them.", plural(t.noKey, "run"))
	}
	if t.config.Authorization == config.AuthorizationEnforce && t.config.RolesFile == "" {
		say("authorization is enforce without a roles file: roles refuse nobody.")
	}
	say("Requests are told as the configuration of the time judged them. Runs that are under way at the switch are not refused on the percentage.")
}

// were is "1 run was" or "2 runs were".
func were(n int, what string) string {
	if n == 1 {
		return "1 " + what + " was"
	}
	return plural(n, what) + " were"
}

// writeRefused writes the report: the answer, the rows, the totals, and what else
// is to be known.
func (p *program) writeRefused(out *output, r refusedReport) error {
	t := table{{"ACCOUNT", "TEAM", "PIPELINE", "REASON", "HOW OFTEN", "LAST (UTC)", "WHO ACTS"}}
	for _, row := range r.Refused {
		account, team := row.Account, string(row.Team)
		if account == "" {
			account, team = "(nobody)", "-"
		}
		t = append(t, []string{
			account, team, cmp.Or(row.Pipeline, "-"), string(row.Reason), row.often(),
			row.Last.UTC().Format("2006-01-02 15:04"), row.who(),
		})
	}
	if out.format != "table" && out.format != "markdown" {
		return out.write(p.stdout, r, nil)
	}
	var b strings.Builder
	span := fmt.Sprintf("from %s to %s UTC", r.Since.Format("2006-01-02 15:04"), r.Until.UTC().Format("2006-01-02 15:04"))
	switch {
	case r.Seen == 0:
		fmt.Fprintf(&b, "NOT KNOWN. No gateway recorded a request %s.\n", span)
	case len(r.Refused) == 0:
		fmt.Fprintf(&b, "NOBODY would be refused in mode enforce, authorization %s: of %s %s, none.\n", r.Authorization, plural(int(r.Seen), "request"), span)
	default:
		who := strings.ToUpper(plural(r.Accounts, "account"))
		if r.Accounts == 0 {
			who = "NO ACCOUNT, but requests of nobody,"
		}
		fmt.Fprintf(&b, "%s would be refused in mode enforce, authorization %s: of %s %s,\n%s.\n\n",
			who, r.Authorization, plural(int(r.Seen), "request"), span, r.sum())
	}
	if _, err := p.stdout.Write([]byte(b.String())); err != nil {
		return err
	}
	if len(r.Refused) > 0 {
		if err := out.write(p.stdout, r, t); err != nil {
			return err
		}
	}
	if len(r.Strangers) > 0 {
		if err := p.writeStrangers(out, r); err != nil {
			return err
		}
	}
	if len(r.Refused) > 0 {
		if _, err := fmt.Fprintln(p.stdout); err != nil {
			return err
		}
		if err := out.write(p.stdout, r, r.meanings()); err != nil {
			return err
		}
	}
	for _, note := range r.Notes {
		if _, err := fmt.Fprintln(p.stderr, note); err != nil {
			return err
		}
	}
	return nil
}

// sum is the totals in words.
func (r refusedReport) sum() string {
	var parts []string
	if r.Requests > 0 {
		parts = append(parts, plural(int(r.Requests), "request")+" of accounts")
	}
	if r.Runs > 0 {
		parts = append(parts, plural(r.Runs, "run")+" of accounts")
	}
	if r.Nobody > 0 {
		parts = append(parts, plural(int(r.Nobody), "request")+" of nobody who is known")
	}
	if len(parts) == 0 {
		return "at least once"
	}
	return strings.Join(parts, ", ")
}

func (row refusedRow) often() string {
	var parts []string
	if row.Requests > 0 {
		parts = append(parts, plural(int(row.Requests), "request"))
	}
	switch {
	case row.Runs > 0 && row.Share > 0:
		parts = append(parts, fmt.Sprintf("%d%% of %s", row.Share, plural(row.Runs, "run")))
	case row.Runs > 0:
		parts = append(parts, plural(row.Runs, "run"))
	case row.Requests == 0:
		parts = append(parts, "at least once")
	}
	return strings.Join(parts, ", ")
}

func (row refusedRow) who() string {
	switch row.Who {
	case identity.OwnerTeam:
		return "team " + string(row.Team)
	case identity.OwnerIDP:
		return "identity provider"
	default:
		return string(row.Who)
	}
}

// meanings explains each reason of the rows once.
func (r refusedReport) meanings() table {
	means := make(map[string]string)
	for _, row := range r.Refused {
		means[string(row.Reason)] = row.Means
	}
	t := table{{"REASON", "MEANS"}}
	for _, reason := range slices.Sorted(maps.Keys(means)) {
		t = append(t, []string{reason, means[reason]})
	}
	return t
}

// maxStrangersShown is how many strangers people are shown; programs get all.
const maxStrangersShown = 20

func (p *program) writeStrangers(out *output, r refusedReport) error {
	if _, err := fmt.Fprintf(p.stdout, "\nWho nobody is, by the audit trail (what it says of itself is not verified):\n"); err != nil {
		return err
	}
	if out.format == "markdown" {
		if _, err := fmt.Fprintln(p.stdout); err != nil {
			return err
		}
	}
	t := table{{"FROM", "SAYS", "SCHEME", "REASON", "REQUESTS", "LAST (UTC)"}}
	for _, s := range r.Strangers[:min(len(r.Strangers), maxStrangersShown)] {
		t = append(t, []string{
			cmp.Or(s.Client, "-"), cmp.Or(s.Says, "-"), s.Scheme, s.Reason, fmt.Sprint(s.Requests), s.Last.UTC().Format("2006-01-02 15:04"),
		})
	}
	if err := out.write(p.stdout, r, t); err != nil {
		return err
	}
	if more := len(r.Strangers) - maxStrangersShown; more > 0 {
		_, err := fmt.Fprintf(p.stdout, "and %d more; -o json shows all\n", more)
		return err
	}
	return nil
}
