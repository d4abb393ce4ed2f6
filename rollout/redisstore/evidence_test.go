package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
	"crossfade/rollout/redisstore"
	"crossfade/rollout/rollouttest"
)

func TestInProcessConformsToEvidence(t *testing.T) {
	t.Parallel()
	rollouttest.TestEvidence(t, func(t *testing.T) evidence.Store { return newInProcess(t) })
}

func TestRealRedisConformsToEvidence(t *testing.T) {
	t.Parallel()
	server := rollouttest.StartRedis(t)
	var n atomic.Int64
	rollouttest.TestEvidence(t, func(t *testing.T) evidence.Store {
		return newStore(t, redisstore.Options{URL: server.URL(), Prefix: fmt.Sprintf("test%d", n.Add(1))})
	})
}

// damagedBatch is of two teams on two days: 3 requests of each team and day, and a
// run, a use and a family of each.
func damagedBatch(seq int64, today evidence.Day) evidence.Batch {
	now := today.End().Add(-time.Hour)
	b := evidence.Batch{Replica: "a", Seq: seq, From: now, To: now.Add(time.Second), Teams: make(map[identity.Team]*evidence.TeamBatch)}
	for _, name := range []identity.Team{"damaged", "well"} {
		t := &evidence.TeamBatch{
			Days:     make(map[evidence.Day]*evidence.Daily),
			Accounts: map[string]evidence.Use{"svc": {Legacy: now}},
			Families: map[evidence.Family]evidence.FamilyUse{{Account: "svc", Name: "Load"}: {Last: now}},
		}
		for i, day := range []evidence.Day{today, today.Before()} {
			at := day.End().Add(-time.Hour)
			t.Days[day] = &evidence.Daily{
				Counts: map[evidence.Count]int64{{Verdict: "match_allow", Source: "client"}: 3},
				Runs: map[evidence.RunKey]evidence.Run{
					evidence.NewRunKey("svc", fmt.Sprint("w", i)): {Account: "svc", Pipeline: "Load", Worst: at, First: at, Last: at},
				},
			}
		}
		b.Teams[name] = t
	}
	return b
}

func TestADamagedKeyLosesOnlyWhatBelongsThere(t *testing.T) {
	t.Parallel()
	server := rollouttest.StartRedis(t)
	c := client(t, server)
	today := evidence.DayOf(time.Now())
	yesterday := today.Before()
	of := func(name string, day evidence.Day) string { return "{damaged}:" + name + ":" + string(day) }
	garble := func(key, field string) func(t *testing.T) {
		return func(t *testing.T) { c.HSet(t.Context(), key, field, "garbage") }
	}
	set := func(key string) func(t *testing.T) {
		return func(t *testing.T) { c.Set(t.Context(), key, "x", 0) }
	}
	for i, test := range []struct {
		name     string
		damage   func(prefix string) func(*testing.T)
		key      string // without prefix
		lost     int64
		today    int64 // requests of the damaged team that are there afterwards, -1 for a day that cannot be read
		yestoday int64
	}{
		{"the runs of a day", func(p string) func(*testing.T) { return set(p + of("runs", today)) }, of("runs", today), 3, -1, 3},
		{"the counts of a day", func(p string) func(*testing.T) { return set(p + of("count", today)) }, of("count", today), 3, -1, 3},
		{"the runs of the day before", func(p string) func(*testing.T) { return set(p + of("runs", yesterday)) }, of("runs", yesterday), 3, 3, -1},
		{"a count that is none", func(p string) func(*testing.T) { return garble(p+of("count", today), "v:match_allow::client") }, of("count", today), 3, -1, 3},
		{"the accounts", func(p string) func(*testing.T) { return set(p + "{damaged}:accounts") }, "{damaged}:accounts", 6, 3, 3},
		{"the families", func(p string) func(*testing.T) { return set(p + "{damaged}:families") }, "{damaged}:families", 6, 3, 3},
		{"the list of gaps", func(p string) func(*testing.T) {
			return func(t *testing.T) { set(p + of("runs", today))(t); set(p + "gaps")(t) }
		}, of("runs", today), 3, -1, 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			prefix := fmt.Sprintf("damage%d", i)
			s := newStore(t, redisstore.Options{URL: server.URL(), Prefix: prefix})
			test.damage(prefix + ":")(t)
			err := s.Record(t.Context(), damagedBatch(1, today))
			var lost *evidence.LostError
			if !errors.As(err, &lost) || errors.Is(err, rollout.ErrUnavailable) || lost.Requests() != test.lost {
				t.Fatalf("Record: %v, %+v", err, lost)
			}
			if text := err.Error(); !strings.Contains(text, prefix+":"+test.key) || !strings.Contains(text, "RENAME") || !strings.Contains(text, `team "damaged"`) {
				t.Errorf("it is told as: %s", text)
			}
			requests := func(team identity.Team, day evidence.Day) int64 {
				d, err := s.Daily(t.Context(), team, day)
				if err != nil {
					if !errors.Is(err, rollout.ErrUnavailable) || !strings.Contains(err.Error(), string(team)+"}:") {
						t.Errorf("reading: %v", err)
					}
					return -1
				}
				if len(d.Runs) != 1 {
					t.Errorf("%s has %d runs on %s, want one", team, len(d.Runs), day)
				}
				return d.Requests()
			}
			for day, want := range map[evidence.Day]int64{today: test.today, yesterday: test.yestoday} {
				if got := requests("damaged", day); got != want {
					t.Errorf("%d requests of the damaged team are recorded on %s, want %d", got, day, want)
				}
				if got := requests("well", day); got != 3 {
					t.Errorf("%d requests of the other team are recorded on %s, want 3", got, day)
				}
			}
			uses, err := s.Accounts(t.Context(), "well")
			families, err2 := s.Families(t.Context(), "well")
			if err != nil || err2 != nil || len(uses) != 1 || len(families) != 1 {
				t.Errorf("the other team's uses: %v, %v, %v, %v", uses, families, err, err2)
			}
			if gaps, err := s.Gaps(t.Context(), time.Time{}); test.name != "the list of gaps" && (err != nil || len(gaps) != 1 || gaps[0].Requests != test.lost) {
				t.Errorf("gaps: %+v, %v", gaps, err)
			}
		})
	}
}

func TestADamagedKeyInTheProcessLosesOnlyWhatBelongsThere(t *testing.T) {
	t.Parallel()
	today := evidence.DayOf(time.Now())
	for _, key := range []string{"runs:" + string(today), "count:" + string(today), "accounts", "families"} {
		s := newInProcess(t)
		s.Damage("crossfade:{damaged}:" + key)
		err := s.Record(t.Context(), damagedBatch(1, today))
		var lost *evidence.LostError
		if !errors.As(err, &lost) || lost.Requests() == 0 || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", key, err)
		}
		if d, err := s.Daily(t.Context(), "well", today); err != nil || d.Requests() != 3 {
			t.Errorf("%s: the other team has %d requests, %v", key, d.Requests(), err)
		}
	}
}

// reply is an error that a server sent.
type reply string

func (r reply) Error() string { return string(r) }
func (reply) RedisError()     {}

// TestOnlyDamageIsIncurable looks at replies as servers write them.
func TestOnlyDamageIsIncurable(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		// Redis 7.
		"WRONGTYPE Operation against a key holding the wrong kind of value":                                                                 true,
		"WRONGTYPE Operation against a key holding the wrong kind of value script: f31e, on @user_script:102.":                              true,
		"WRONGTYPE Key is not a valid HyperLogLog string value. script: f31e, on @user_script:78.":                                          true,
		"INVALIDOBJ Corrupted HLL object detected script: f31e, on @user_script:78.":                                                        true,
		"ERR hash value is not an integer script: f31e, on @user_script:5.":                                                                 true,
		"ERR user_script:111: Expected value but found invalid token at character 1 script: f31e, on @user_script:111.":                     true,
		"OOM command not allowed when used memory > 'maxmemory'. script: f31e, on @user_script:13.":                                         false,
		"READONLY You can't write against a read only replica. script: f31e, on @user_script:125.":                                          false,
		"ERR The user executing the script can't run this command or subcommand script: f31e, on @user_script:123.":                         false,
		"ERR The user executing the script can't access at least one of the keys mentioned in the command script: f31e, on @user_script:1.": false,
		"MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk. script: f31e, on @user_script:1.": false,
		"NOREPLICAS Not enough good replicas to write. script: f31e, on @user_script:1.":                                                    false,
		"BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.":                                            false,
		"LOADING Redis is loading the dataset in memory":                                                                                    false,
		"NOAUTH Authentication required.": false, "NOPERM this user has no permissions to access one of the keys": false,
		"CLUSTERDOWN Hash slot not served": false, "MOVED 3999 127.0.0.1:6381": false, "ASK 3999 127.0.0.1:6381": false,
		"ERR max number of clients reached": false, "ERR unknown command 'EVALSHA'": false, "ERR something new": false,
		// Redis 6.
		"ERR Error running script (call to f_f31e): @user_script:9: WRONGTYPE Operation against a key holding the wrong kind of value":    true,
		"ERR Error running script (call to f_f31e): @user_script:9: user_script:9: Expected value but found invalid token at character 1": true,
		"ERR Error running script (call to f_f31e): @user_script:9: -OOM command not allowed when used memory > 'maxmemory'.":             false,
		"ERR Error running script (call to f_f31e): @user_script:9: -READONLY You can't write against a read only replica.":               false,
	} {
		if got := redisstore.Incurable(fmt.Errorf("record: %w", reply(text))); got != want {
			t.Errorf("%q is incurable: %t", text, got)
		}
	}
	for _, err := range []error{context.DeadlineExceeded, io.EOF, redis.ErrClosed, errors.New("WRONGTYPE of somebody else")} {
		if redisstore.Incurable(err) {
			t.Errorf("%v is taken for a damage", err)
		}
	}
}

func TestAStoreKeepsAsManyRunsAsItsOptionsSay(t *testing.T) {
	t.Parallel()
	const all = 3 * evidence.MaxRuns
	day := evidence.DayOf(time.Date(2126, 5, 1, 0, 0, 0, 0, time.UTC))
	batch := evidence.Batch{Replica: "a", Seq: 1, Teams: map[identity.Team]*evidence.TeamBatch{"data-eng": {
		Days: map[evidence.Day]*evidence.Daily{day: {Runs: make(map[evidence.RunKey]evidence.Run)}},
	}}}
	for i := range all {
		at := day.End().Add(-time.Hour)
		batch.Teams["data-eng"].Days[day].Runs[evidence.NewRunKey("svc-etl", fmt.Sprint(i))] = evidence.Run{
			Account: "svc-etl", Pipeline: "Load", First: at, Last: at, Token: true,
		}
	}
	for name, tc := range map[string]struct{ max, kept int }{
		"by default":            {0, evidence.MaxRuns},
		"fewer than there were": {40, 40},
		"more than there were":  {1000, all},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := redisstore.OpenInProcess(redisstore.Options{MaxRuns: tc.max})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = s.Close() })
			if err := s.Record(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
			if d, err := s.Daily(t.Context(), "data-eng", day); err != nil || len(d.Runs) != tc.kept {
				t.Errorf("%d runs are kept, want %d (%v)", len(d.Runs), tc.kept, err)
			}
		})
	}
	if _, err := redisstore.OpenInProcess(redisstore.Options{MaxRuns: -1}); err == nil {
		t.Error("fewer runs than none are kept")
	}
}

// TestRunsOfTheFormerFormAreReadAndMerged puts rows as they were written before in
// place of those of a run.
func TestRunsOfTheFormerFormAreReadAndMerged(t *testing.T) {
	t.Parallel()
	at := func(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
	const begin = 5049180000123 // 2130-01-01T10:40:00.123Z
	day := evidence.DayOf(at(begin))
	for _, test := range []struct {
		name, row string
		want      evidence.Run
	}{
		{
			"with all that a run may have",
			`{"a":"svc","p":"Load","g":3,"r":"aud_mismatch","t":"4bf9","w":5049180003123,"f":5049180000123,"l":5049180060123,"legacy":true,"token":true,` +
				`"enforced":true,"refused":true,"brownout":true,"x":5049183600000,"y":5049187200000,"e":5049180000123,"k":5049180003123,"c":"0a","d":"a detail","observed":true}`,
			evidence.Run{
				Account: "svc", Pipeline: "Load", Grade: evidence.WouldBreak, Reason: "aud_mismatch", TraceID: "4bf9", Worst: at(begin + 3000),
				First: at(begin), Last: at(begin + 60_000), Legacy: true, Token: true, Enforced: true, Refused: true, Brownout: true, Observed: true,
				FirstExpiry: at(5049183600000), LastExpiry: at(5049187200000), EnforcedFrom: at(begin), LockedOut: at(begin + 3000), Config: "0a", Detail: "a detail",
			},
		},
		{
			"with the least",
			`{"a":"svc","p":"","g":0,"r":"","t":"","w":5049180000123,"f":5049180000123,"l":5049180000123,"legacy":true,"token":false,"enforced":false,"refused":false,"brownout":false,"x":0,"y":0}`,
			evidence.Run{Account: "svc", Worst: at(begin), First: at(begin), Last: at(begin), Legacy: true},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := rollouttest.StartRedis(t)
			c := client(t, server)
			s := newStore(t, redisstore.Options{URL: server.URL()})
			read := func() evidence.Run {
				t.Helper()
				d, err := s.Daily(t.Context(), "team", day)
				if err != nil || len(d.Runs) != 1 {
					t.Fatalf("%d runs, %v", len(d.Runs), err)
				}
				for _, r := range d.Runs {
					return r
				}
				panic("unreachable")
			}
			seq := int64(0)
			record := func(on evidence.Day, r evidence.Run) {
				t.Helper()
				seq++
				err := s.Record(t.Context(), evidence.Batch{Replica: "a", Seq: seq, From: r.First, To: r.Last, Teams: map[identity.Team]*evidence.TeamBatch{
					"team": {Days: map[evidence.Day]*evidence.Daily{on: {Runs: map[evidence.RunKey]evidence.Run{evidence.NewRunKey("svc", "w"): r}}}},
				}})
				if err != nil {
					t.Fatal(err)
				}
			}
			record(day, evidence.Run{Account: "svc", Pipeline: test.want.Pipeline, First: at(begin), Worst: at(begin), Last: at(begin)})
			key := "crossfade:{team}:runs:" + string(day)
			for field := range c.HGetAll(t.Context(), key).Val() {
				if strings.HasPrefix(field, "r:") {
					c.HSet(t.Context(), key, field, test.row)
				}
			}
			if diff := cmp.Diff(test.want, read()); diff != "" {
				t.Errorf("read (-want +got):\n%s", diff)
			}
			// The next day, within the time that it may be silent.
			late := test.want.Last.Add(evidence.RunIdle)
			more := evidence.Run{Account: "svc", Grade: evidence.NoToken, Reason: "token_absent", First: late, Worst: late, Last: late.Add(time.Hour), Token: true, Config: "1"}
			record(evidence.DayOf(at(begin).AddDate(0, 0, 1)), more)
			if diff := cmp.Diff(test.want.Merge(more), read()); diff != "" {
				t.Errorf("merged (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEachKindOfEvidenceIsKeptForItsTime(t *testing.T) {
	t.Parallel()
	server := rollouttest.StartRedis(t)
	c := client(t, server)
	s := newStore(t, redisstore.Options{URL: server.URL()})
	batch := rollouttest.BusyBatch("team", firstDay, rollouttest.Busy{Accounts: 1, Pipelines: 1, Runs: 100})
	if err := s.Record(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	for kind, want := range map[string]time.Duration{
		"count": evidence.Retention, "runs": evidence.RunRetention, "unkept": evidence.RunRetention, "refusals": evidence.RunRetention,
	} {
		end := time.UnixMilli(c.PExpireTime(t.Context(), "crossfade:{team}:"+kind+":"+string(firstDay)).Val().Milliseconds())
		if got := end.Sub(firstDay.End()); got != want {
			t.Errorf("%s: kept until %v, which is %v after the day, want %v", kind, end, got, want)
		}
	}
	for _, kind := range []string{"accounts", "families", "families:clean", "since"} {
		if ttl := c.PTTL(t.Context(), "crossfade:{team}:"+kind).Val(); ttl != -1 {
			t.Errorf("%s end in %v, and shall not end", kind, ttl)
		}
	}
	d, err := s.Daily(t.Context(), "team", firstDay)
	if err != nil || d.Unkept == 0 {
		t.Errorf("the test says nothing about runs that are not kept: %d, %v", d.Unkept, err)
	}
}
