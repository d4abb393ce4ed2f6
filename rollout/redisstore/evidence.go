package redisstore

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
)

var _ evidence.Store = (*Store)(nil)

// runsACall is how many runs one call of a script merges, so that none holds
// the server up for long: about 10 ms.
const runsACall = 200

// runRow is a run as scripts read and write it: what is zero or follows from the
// rest is left out, for there are many. Times are in milliseconds: First since
// 1970, Until after From, and the others after First.
type runRow struct {
	ID           string `json:"id,omitempty"`
	Account      string `json:"a,omitempty"`
	Pipeline     string `json:"p,omitempty"`
	Grade        uint8  `json:"g,omitempty"`
	Reason       string `json:"r,omitempty"`
	Trace        string `json:"t,omitempty"`
	First        int64  `json:"at,omitempty"`
	Worst        int64  `json:"w,omitempty"`
	Last         int64  `json:"l,omitempty"`
	From         *int64 `json:"x,omitempty"` // nil for never, as Locked and Enforced
	Until        int64  `json:"y,omitempty"`
	EnforcedFrom *int64 `json:"e,omitempty"`
	LockedOut    *int64 `json:"k,omitempty"`
	Config       string `json:"c,omitempty"`
	Detail       string `json:"d,omitempty"`
	Flags        string `json:"s,omitempty"` // letters, of which flagged says the meaning
	// Failure and Also are of runs with a security signal only.
	Failure *failureRow `json:"m,omitempty"`
	Also    string      `json:"n,omitempty"`
}

// failureRow is evidence.Failure; its time is in milliseconds since 1970.
type failureRow struct {
	Reason string `json:"r,omitempty"`
	Detail string `json:"d,omitempty"`
	Trace  string `json:"t,omitempty"`
	At     int64  `json:"w,omitempty"`
}

// wideRow is a run as it was written before, which is still read: all times since
// 1970, 0 for none, and each flag by its name.
type wideRow struct {
	runRow
	First    *int64 `json:"f"`
	Legacy   bool   `json:"legacy"`
	Token    bool   `json:"token"`
	Enforced bool   `json:"enforced"`
	Refused  bool   `json:"refused"`
	Brownout bool   `json:"brownout"`
	Observed bool   `json:"observed"`
}

// runFlag is a letter for what is true of a run.
type runFlag struct {
	letter string
	is     *bool
}

func flagged(r *evidence.Run) [9]runFlag {
	return [9]runFlag{
		{"l", &r.Legacy},
		{"t", &r.Token},
		{"e", &r.Enforced},
		{"r", &r.Refused},
		{"b", &r.Brownout},
		{"o", &r.Observed},
		{"w", &r.Broke},
		{"n", &r.Tokenless},
		{"u", &r.Unjudged},
	}
}

func rowOf(id string, r evidence.Run) runRow {
	first := millis(r.First)
	since := func(t time.Time) *int64 {
		if t.IsZero() {
			return nil
		}
		return new(millis(t) - first)
	}
	row := runRow{
		ID: id, Account: r.Account, Pipeline: r.Pipeline, Grade: uint8(r.Grade), Reason: string(r.Reason), Trace: r.TraceID,
		First: first, Worst: millis(r.Worst) - first, Last: millis(r.Last) - first,
		From: since(r.FirstExpiry), EnforcedFrom: since(r.EnforcedFrom), LockedOut: since(r.LockedOut),
		Config: r.Config, Detail: r.Detail, Also: string(r.Also),
	}
	if f := r.Failure; f != (evidence.Failure{}) {
		row.Failure = &failureRow{string(f.Reason), f.Detail, f.TraceID, millis(f.At)}
	}
	if row.From != nil {
		row.Until = millis(r.LastExpiry) - millis(r.FirstExpiry)
	}
	for _, f := range flagged(&r) {
		if *f.is {
			row.Flags += f.letter
		}
	}
	return row
}

func (w wideRow) run() evidence.Run {
	row := w.runRow
	r := evidence.Run{
		Account: row.Account, Pipeline: row.Pipeline, Grade: evidence.Grade(row.Grade), Reason: identity.Reason(row.Reason),
		TraceID: row.Trace, Config: row.Config, Detail: row.Detail, Also: evidence.Signals(row.Also),
		Legacy: w.Legacy, Token: w.Token, Enforced: w.Enforced, Refused: w.Refused, Brownout: w.Brownout, Observed: w.Observed,
	}
	if f := row.Failure; f != nil {
		r.Failure = evidence.Failure{Reason: identity.Reason(f.Reason), Detail: f.Detail, TraceID: f.Trace, At: instant(f.At)}
	}
	base := row.First
	if w.First != nil {
		base, r.First, r.LastExpiry = 0, instant(*w.First), instant(row.Until)
	} else {
		r.First = instant(base)
		if row.From != nil {
			r.LastExpiry = instant(base + *row.From + row.Until)
		}
		for _, f := range flagged(&r) {
			*f.is = strings.Contains(row.Flags, f.letter)
		}
	}
	r.Worst, r.Last = instant(base+row.Worst), instant(base+row.Last)
	after := func(at *int64) time.Time {
		if at == nil {
			return time.Time{}
		}
		return instant(base + *at)
	}
	r.FirstExpiry, r.EnforcedFrom, r.LockedOut = after(row.From), after(row.EnforcedFrom), after(row.LockedOut)
	return r
}

// Record implements evidence.Store. What a key does not take that somebody else
// has written is lost for its team and day, and nothing else is.
//
// Each team's day is one step on the server,
// in pieces if it has many runs; of a batch that comes again the requests are
// counted once, and all else may be merged twice without a difference.
//
// The nodes of a Cluster are written to at the same time, so that who waits for one
// that hangs keeps no team of another one waiting.
func (s *Store) Record(ctx context.Context, b evidence.Batch) error {
	secret, err := s.secret(ctx)
	if err != nil {
		return err
	}
	r := recording{s: s, batch: b, secret: []byte(secret), losses: make(chan teamLoss, len(b.Teams)), pending: make(map[identity.Team]bool)}
	var gaps, nodes sync.WaitGroup
	gaps.Go(func() { r.noteLosses(ctx) })
	for _, teams := range s.byNode(ctx, b) {
		nodes.Go(func() { r.record(ctx, teams) })
	}
	nodes.Wait()
	close(r.losses)
	gaps.Wait()
	return r.result()
}

// recordTeam records the part of a team, and returns what of it is lost.
func (s *Store) recordTeam(ctx context.Context, b evidence.Batch, name identity.Team, secret []byte) (*evidence.LostError, error) {
	lost, team := &evidence.LostError{}, b.Teams[name]
	rest := team.Requests()
	if name == "" && rest == 0 {
		return lost, nil // nothing but losses
	}
	if err := rollout.ValidateTeam(name); err != nil { // a key of it might belong to another
		lost.Parts = append(lost.Parts, evidence.LostPart{Team: name, Requests: rest, Err: fmt.Errorf("evidence is lost: %w", err)})
		return lost, nil
	}
	for _, day := range slices.Sorted(maps.Keys(team.Days)) {
		d := team.Days[day]
		part := evidence.LostPart{Team: name, Day: day, Requests: d.Requests()}
		before := len(lost.Parts)
		err := s.recordDay(ctx, b, name, day, d, secret)
		if err := s.lose(ctx, lost, part, err, kept{s.teamKey(name, "count:"+string(day)), "hash"},
			kept{s.teamKey(name, "runs:"+string(day)), "hash"}, kept{s.teamKey(name, "unkept:"+string(day)), "string"}, kept{s.teamKey(name, "refusals:"+string(day)), "hash"}); err != nil {
			return nil, err
		}
		if len(lost.Parts) > before {
			rest -= part.Requests
		}
	}
	for _, use := range []struct {
		record func(context.Context, identity.Team, *evidence.TeamBatch) error
		kept
	}{
		{s.recordAccounts, kept{s.teamKey(name, "accounts"), "hash"}},
		{s.recordFamilies, kept{s.teamKey(name, "families"), "zset"}},
		{s.recordClean, kept{s.teamKey(name, "families:clean"), "zset"}},
		{s.recordSince, kept{s.teamKey(name, "since"), "string"}},
	} {
		before := len(lost.Parts)
		if err := s.lose(ctx, lost, evidence.LostPart{Team: name, Requests: rest}, use.record(ctx, name, team), use.kept); err != nil {
			return nil, err
		}
		if len(lost.Parts) > before {
			rest = 0
		}
	}
	return lost, nil
}

// kept is a key with the type that it has, as TYPE names it.
type kept struct{ key, kind string }

// lose adds a part to lost if err says that it cannot be recorded into keys, and
// else returns err.
func (s *Store) lose(ctx context.Context, lost *evidence.LostError, part evidence.LostPart, err error, keys ...kept) error {
	if err == nil || !incurable(err) {
		return err
	}
	part.Key = s.guilty(ctx, keys)
	of := ""
	if part.Team != "" {
		of = fmt.Sprintf(" of team %q", string(part.Team))
	}
	var reply redis.Error
	errors.As(err, &reply)
	part.Err = fmt.Errorf("evidence%s is lost until %s is repaired: %w (%s)", of, part.Key, reply, moveAway)
	lost.Parts = append(lost.Parts, part)
	return nil
}

// guilty returns the first key that is of another type than it should be; all of
// them if none is, or if nobody can say.
func (s *Store) guilty(ctx context.Context, keys []kept) string {
	names := make([]string, len(keys))
	types := make([]*redis.StatusCmd, len(keys))
	_, err := s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, k := range keys {
			names[i], types[i] = strconv.Quote(k.key), p.Type(ctx, k.key)
		}
		return nil
	})
	for i, k := range keys {
		if kind := types[i].Val(); err == nil && kind != "none" && kind != k.kind {
			return "key " + names[i]
		}
	}
	return "key " + strings.Join(names, " or ")
}

// lastGaps is among how many gaps, the last ones, one is looked for that grows: one
// for each replica that may be there and each team that it may lose of, and some.
const lastGaps = 1000

// addGap notes a gap, together with one of the same replica and team that it touches. The same
// one twice is one.
func (s *Store) addGap(ctx context.Context, gap evidence.Gap) error {
	rows, err := s.client.ZRevRange(ctx, s.gapsKey(), 0, lastGaps-1).Result()
	if err != nil {
		return unavailable("record a loss of evidence", err)
	}
	old := ""
	for _, row := range rows {
		var known evidence.Gap
		if err := json.Unmarshal([]byte(row), &known); err != nil {
			continue // not ours
		}
		if joined, ok := known.Join(gap); ok {
			gap, old = joined, row
			break
		}
	}
	text, err := json.Marshal(gap)
	if err != nil {
		return fmt.Errorf("record a loss of evidence: %w", err)
	}
	_, err = s.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
		if old != "" {
			p.ZRem(ctx, s.gapsKey(), old)
		}
		p.ZAdd(ctx, s.gapsKey(), redis.Z{Score: float64(gap.To.UnixMilli()), Member: string(text)})
		p.ZRemRangeByScore(ctx, s.gapsKey(), "-inf", fmt.Sprint(gap.To.Add(-evidence.Retention).UnixMilli()))
		return nil
	})
	return unavailable("record a loss of evidence", err)
}

// dayPart is what recordDay reads.
type dayPart struct {
	Replica string           `json:"replica"`
	Seq     int64            `json:"seq"`
	Counts  map[string]int64 `json:"counts"`
	Runs    []runRow         `json:"runs"`
	Expire  int64            `json:"expire"`      // of counts
	RunsEnd int64            `json:"expire_runs"` // of runs
	Idle    int64            `json:"idle"`        // milliseconds, as Longest
	Longest int64            `json:"longest"`     // of a run
	MaxRuns int              `json:"max_runs"`
	MaxBad  int              `json:"max_bad"`
	BadAll  int              `json:"max_bad_of_account"`
	Bad     evidence.Grade   `json:"bad"`    // the least of the bad grades
	Signal  evidence.Grade   `json:"signal"` // and of the security signals
	MaxPipe int              `json:"max_pipelines"`
	MaxPair int              `json:"max_pairs"`
}

func (s *Store) recordDay(ctx context.Context, b evidence.Batch, team identity.Team, day evidence.Day, d *evidence.Daily, secret []byte) error {
	part := dayPart{
		Replica: b.Replica, Seq: b.Seq, Counts: make(map[string]int64, len(d.Counts)+len(d.Schemes)+1),
		Expire: day.End().Add(evidence.Retention).UnixMilli(), RunsEnd: day.End().Add(evidence.RunRetention).UnixMilli(), Bad: evidence.WouldBreak, Signal: evidence.IdentityDrift,
		Idle: evidence.RunIdle.Milliseconds(), Longest: rollout.LatchMax.Milliseconds(),
		MaxRuns: s.maxRuns, MaxBad: evidence.MaxBad, BadAll: evidence.MaxBadOfAccount, MaxPipe: evidence.MaxPipelines, MaxPair: evidence.MaxPairs,
	}
	for c, n := range d.Counts {
		part.Counts["v:"+c.Verdict+":"+string(c.Reason)+":"+c.Source] = n
	}
	for scheme, n := range d.Schemes {
		part.Counts["s:"+scheme.String()] = n
	}
	if d.Unkept > 0 {
		part.Counts["unkept"] = d.Unkept
	}
	if err := s.recordRefusals(ctx, b, team, day, d.Refusals); err != nil {
		return err
	}
	rows := make([]runRow, 0, len(d.Runs))
	for key, run := range d.Runs {
		rows = append(rows, rowOf(runID(secret, key), run))
	}
	keys := []string{
		s.teamKey(team, "count:"+string(day)), s.teamKey(team, "unkept:"+string(day)), s.teamKey(team, "runs:"+string(day)),
	}
	for range evidence.RunDays {
		day = day.Before()
		keys = append(keys, s.teamKey(team, "runs:"+string(day)))
	}
	for {
		part.Runs = rows[:min(len(rows), runsACall)]
		rows = rows[len(part.Runs):]
		text, err := json.Marshal(part)
		if err != nil {
			return fmt.Errorf("record evidence: %w", err)
		}
		if err := recordDay.Run(ctx, s.client, keys, text).Err(); err != nil {
			return unavailable("record evidence of team "+string(team), err)
		}
		if len(rows) == 0 {
			return nil
		}
		part.Counts = nil // once
	}
}

// runID is what a run is kept under, and what the choice among many is made by:
// nobody outside knows the store's id, so nobody can work out a run that is
// chosen.
func runID(secret []byte, key evidence.RunKey) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write(key[:])
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// recordAccounts notes when accounts were used.
func (s *Store) recordAccounts(ctx context.Context, team identity.Team, t *evidence.TeamBatch) error {
	if len(t.Accounts) == 0 {
		return nil
	}
	args := make([]any, 0, 7*len(t.Accounts))
	for account, u := range t.Accounts {
		args = append(args, account, millis(u.Legacy), millis(u.Token), millis(u.Failed), string(u.Reason), millis(u.Run), millis(u.Page))
	}
	err := recordAccounts.Run(ctx, s.client, []string{s.teamKey(team, "accounts")}, args...).Err()
	return unavailable("record the accounts of team "+string(team), err)
}

// recordFamilies notes when families were used, recordClean when without fault.
func (s *Store) recordFamilies(ctx context.Context, team identity.Team, t *evidence.TeamBatch) error {
	return s.recordTimes(ctx, team, "families", t, func(u evidence.FamilyUse) time.Time { return u.Last })
}

func (s *Store) recordClean(ctx context.Context, team identity.Team, t *evidence.TeamBatch) error {
	return s.recordTimes(ctx, team, "families:clean", t, func(u evidence.FamilyUse) time.Time { return u.Clean })
}

func (s *Store) recordTimes(ctx context.Context, team identity.Team, key string, t *evidence.TeamBatch, when func(evidence.FamilyUse) time.Time) error {
	var members []redis.Z
	for f, u := range t.Families {
		if at := when(u); !at.IsZero() {
			members = append(members, redis.Z{Score: float64(millis(at)), Member: familyMember(f)})
		}
	}
	if len(members) == 0 {
		return nil
	}
	key = s.teamKey(team, key)
	_, err := s.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.ZAddArgs(ctx, key, redis.ZAddArgs{GT: true, Members: members})
		p.ZRemRangeByRank(ctx, key, 0, -evidence.MaxFamilies-1)
		return nil
	})
	return unavailable("record the families of team "+string(team), err)
}

// recordSince notes when the team's evidence began, once.
func (s *Store) recordSince(ctx context.Context, team identity.Team, t *evidence.TeamBatch) error {
	if t.Since.IsZero() {
		return nil
	}
	return unavailable("record since when team "+string(team)+" is watched", s.client.SetNX(ctx, s.teamKey(team, "since"), millis(t.Since), 0).Err())
}

// familyMember writes a family so that no account and family can be taken for
// two others.
func familyMember(f evidence.Family) string {
	return strconv.Itoa(len(f.Account)) + ":" + f.Account + f.Name
}

func parseFamily(member string) (evidence.Family, bool) {
	length, rest, ok := strings.Cut(member, ":")
	n, err := strconv.Atoi(length)
	if !ok || err != nil || n < 0 || n > len(rest) {
		return evidence.Family{}, false
	}
	return evidence.Family{Account: rest[:n], Name: rest[n:]}, true
}

// Daily implements evidence.Store.
func (s *Store) Daily(ctx context.Context, team identity.Team, day evidence.Day) (evidence.Daily, error) {
	d := evidence.Daily{
		Counts: make(map[evidence.Count]int64), Schemes: make(map[identity.Scheme]int64), Runs: make(map[evidence.RunKey]evidence.Run),
	}
	var counts, runs *redis.MapStringStringCmd
	var unkept *redis.IntCmd
	_, err := s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		counts = p.HGetAll(ctx, s.teamKey(team, "count:"+string(day)))
		runs = p.HGetAll(ctx, s.teamKey(team, "runs:"+string(day)))
		unkept = p.PFCount(ctx, s.teamKey(team, "unkept:"+string(day)))
		return nil
	})
	for _, read := range []redis.Cmder{counts, runs, unkept} {
		if read.Err() != nil {
			return d, unavailable(fmt.Sprintf("read the evidence of team %s in key %q", team, read.Args()[1]), read.Err())
		}
	}
	if err != nil {
		return d, unavailable("read the evidence of team "+string(team), err)
	}
	d.Unkept = unkept.Val()
	for field, text := range counts.Val() {
		if err := addCount(&d, field, text); err != nil {
			return d, damaged(s.teamKey(team, "count:"+string(day)), fmt.Errorf("field %q: %w", field, err))
		}
	}
	for field, text := range runs.Val() {
		id, ok := strings.CutPrefix(field, "r:")
		if !ok {
			continue
		}
		key, run, err := parseRun(id, text)
		if err != nil {
			return d, damaged(s.teamKey(team, "runs:"+string(day)), fmt.Errorf("field %q: %w", field, err))
		}
		d.Runs[key] = run
	}
	return d, nil
}

// parseRun reads a run as recordDay writes it.
func parseRun(id, text string) (evidence.RunKey, evidence.Run, error) {
	key, err := hex.DecodeString(id)
	if err != nil || len(key) != len(evidence.RunKey{}) {
		return evidence.RunKey{}, evidence.Run{}, errors.New("its name is no key of a run")
	}
	var row wideRow
	if err := json.Unmarshal([]byte(text), &row); err != nil {
		return evidence.RunKey{}, evidence.Run{}, err
	}
	if int(row.Grade) >= len(evidence.Grades()) {
		return evidence.RunKey{}, evidence.Run{}, fmt.Errorf("grade %d is not known", row.Grade)
	}
	return evidence.RunKey(key), row.run(), nil
}

// parseUse reads an account as recordAccounts writes it. Before there were runs and
// pages in it, there were four parts.
func parseUse(text string) (evidence.Use, error) {
	parts := strings.Split(text, " ")
	if len(parts) == 4 {
		parts = append(parts, "0", "0")
	}
	if len(parts) != 6 {
		return evidence.Use{}, errors.New("unknown form")
	}
	f := fields{row: map[string]string{"legacy": parts[0], "token": parts[1], "failed": parts[2], "run": parts[4], "page": parts[5]}}
	u := evidence.Use{
		Legacy: f.time("legacy"), Token: f.time("token"), Failed: f.time("failed"), Reason: identity.Reason(parts[3]),
		Run: f.time("run"), Page: f.time("page"),
	}
	return u, f.err
}

// addCount takes a field of a day's counts.
func addCount(d *evidence.Daily, field, text string) error {
	kind, rest, _ := strings.Cut(field, ":")
	if kind == "seq" {
		return nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return err
	}
	switch kind {
	case "unkept":
		d.Unkept += n
	case "s":
		for _, scheme := range identity.Schemes() {
			if scheme.String() == rest {
				d.Schemes[scheme] = n
			}
		}
	case "v":
		parts := strings.Split(rest, ":")
		if len(parts) != 3 {
			return errors.New("it is no count of a verdict")
		}
		d.Counts[evidence.Count{Verdict: parts[0], Reason: identity.Reason(parts[1]), Source: parts[2]}] = n
	}
	return nil // a newer version may count more
}

// Accounts implements evidence.Store.
func (s *Store) Accounts(ctx context.Context, team identity.Team) (map[string]evidence.Use, error) {
	key := s.teamKey(team, "accounts")
	rows, err := s.client.HGetAll(ctx, key).Result()
	if err != nil {
		return nil, unavailable("read the accounts of team "+string(team), err)
	}
	uses := make(map[string]evidence.Use, len(rows))
	for account, text := range rows {
		if uses[account], err = parseUse(text); err != nil {
			return nil, damaged(key, fmt.Errorf("field %q: %w", account, err))
		}
	}
	return uses, nil
}

// Families implements evidence.Store.
func (s *Store) Families(ctx context.Context, team identity.Team) (map[evidence.Family]evidence.FamilyUse, error) {
	var last, clean *redis.ZSliceCmd
	_, err := s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		last = p.ZRangeWithScores(ctx, s.teamKey(team, "families"), 0, -1)
		clean = p.ZRangeWithScores(ctx, s.teamKey(team, "families:clean"), 0, -1)
		return nil
	})
	if err != nil {
		return nil, unavailable("read the families of team "+string(team), err)
	}
	families := make(map[evidence.Family]evidence.FamilyUse, len(last.Val()))
	for _, set := range []struct {
		key     string
		members []redis.Z
		use     func(at time.Time) evidence.FamilyUse
	}{
		{"families", last.Val(), func(at time.Time) evidence.FamilyUse { return evidence.FamilyUse{Last: at} }},
		{"families:clean", clean.Val(), func(at time.Time) evidence.FamilyUse { return evidence.FamilyUse{Clean: at} }},
	} {
		for _, m := range set.members {
			name, _ := m.Member.(string)
			f, ok := parseFamily(name)
			if !ok {
				return nil, damaged(s.teamKey(team, set.key), fmt.Errorf("field %q: %w", name, errors.New("it names no account and family")))
			}
			families[f] = families[f].Merge(set.use(instant(int64(m.Score))))
		}
	}
	return families, nil
}

// Since implements evidence.Store.
func (s *Store) Since(ctx context.Context, team identity.Team) (time.Time, error) {
	key := s.teamKey(team, "since")
	ms, err := s.client.Get(ctx, key).Int64()
	switch {
	case errors.Is(err, redis.Nil):
		return time.Time{}, nil
	case errors.Is(err, strconv.ErrSyntax), errors.Is(err, strconv.ErrRange):
		return time.Time{}, damaged(key, err)
	case err != nil:
		return time.Time{}, unavailable("read since when team "+string(team)+" is watched", err)
	}
	return instant(ms), nil
}

func (s *Store) gapsKey() string { return s.prefix + ":gaps" }

// Gaps implements evidence.Store.
func (s *Store) Gaps(ctx context.Context, since time.Time) ([]evidence.Gap, error) {
	rows, err := s.client.ZRangeByScore(ctx, s.gapsKey(), &redis.ZRangeBy{Min: fmt.Sprint(since.UnixMilli()), Max: "+inf"}).Result()
	if err != nil {
		return nil, unavailable("read the losses of evidence", err)
	}
	gaps := make([]evidence.Gap, len(rows))
	for i, row := range rows {
		if err := json.Unmarshal([]byte(row), &gaps[i]); err != nil {
			return nil, damaged(s.gapsKey(), fmt.Errorf("field %q: %w", row, err))
		}
	}
	return gaps, nil
}
