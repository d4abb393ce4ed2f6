package probe_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"crossfade/gateway/identity"
	"crossfade/gateway/probe"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// diary is a recorder that remembers when who was probed.
type diary struct {
	mu      sync.Mutex
	open    int
	entries []note
}

type note struct {
	account string
	at      time.Time // when it began
	outcome probe.Outcome
	trace   string
}

func (d *diary) Begin(ctx context.Context, account identity.Principal) (context.Context, string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open++
	return ctx, "trace of " + account.Name
}

func (d *diary) Observe(_ context.Context, r *probe.Result) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open--
	d.entries = append(d.entries, note{r.Account.Name, r.Start, r.Outcome, r.TraceID})
}

// told returns what was told so far.
func (d *diary) told() []note {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.entries)
}

// of returns when an account was probed, "" for all.
func (d *diary) of(account string) []time.Time {
	var all []time.Time
	for _, n := range d.told() {
		if account == "" || n.account == account {
			all = append(all, n.at)
		}
	}
	return all
}

// good judges every token as the entry of svc-etl.
func good() judge {
	return func() *identity.Authentication {
		return &identity.Authentication{
			Status: identity.StatusVerified, Principal: identity.Principal{Name: "svc-etl", Team: "data", Mapped: true},
		}
	}
}

// slow is a source that takes its time.
type slow struct {
	takes time.Duration
	mu    *sync.Mutex
	twice *bool // two were asked at once
	err   error
}

func (s slow) Token(ctx context.Context) (identity.Secret, error) {
	if !s.mu.TryLock() {
		*s.twice = true
	} else {
		defer s.mu.Unlock()
	}
	select {
	case <-time.After(s.takes):
	case <-ctx.Done():
		return identity.Secret{}, ctx.Err()
	}
	return identity.NewSecret("a.b.c"), s.err
}

// named is an account of team data.
func named(name string, source probe.Source) probe.Account {
	return probe.Account{
		Principal: identity.Principal{Name: name, Team: "data", Mapped: true},
		Source:    source, Settings: "1",
	}
}

func start(t *testing.T, d *diary) *probe.Runner {
	t.Helper()
	r, err := probe.NewRunner(d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func TestEachAccountIsProbedOnceInEachPeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &diary{}
		r := start(t, d)
		begun := time.Now()
		r.SetPlan(probe.Plan{
			Prober: probe.Prober{Tokens: good()}, Every: time.Hour, PerMinute: 60,
			Accounts: []probe.Account{named("svc-etl", given{}), named("svc-ann", given{})},
		})
		time.Sleep(24 * time.Hour)
		for _, name := range []string{"svc-etl", "svc-ann"} {
			at := d.of(name)
			if first := at[0].Sub(begun); first > time.Minute {
				t.Errorf("%s has its first turn after %s", name, first)
			}
			gaps := map[time.Duration]bool{}
			for i := 1; i < len(at); i++ {
				gap := at[i].Sub(at[i-1])
				gaps[gap] = true
				// A second is for the rate: the other one may be just before it.
				if gap > time.Hour+time.Second || gap < 54*time.Minute {
					t.Errorf("%s has turns %s apart", name, gap)
				}
			}
			if len(gaps) < 5 {
				t.Errorf("nothing is left to chance: %v", gaps)
			}
		}
		if first := d.told()[0]; first.trace != "trace of "+first.account {
			t.Errorf("%+v", first)
		}
	})
}

func TestTheRateOfAllTogetherIsBoundedAndOneIsProbedAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &diary{}
		r := start(t, d)
		var mu sync.Mutex
		var twice bool
		var accounts []probe.Account
		for i := range 30 {
			accounts = append(accounts, named(fmt.Sprintf("svc-%02d", i), slow{takes: 7 * time.Second, mu: &mu, twice: &twice}))
		}
		// 30 accounts every minute want more than the 6 a minute that there are.
		r.SetPlan(probe.Plan{Prober: probe.Prober{Tokens: good()}, Every: time.Minute, PerMinute: 6, Accounts: accounts})
		time.Sleep(time.Hour)
		all := d.of("")
		for i := 1; i < len(all); i++ {
			if gap := all[i].Sub(all[i-1]); gap < 10*time.Second {
				t.Fatalf("two probes %s apart", gap)
			}
		}
		if len(all) < 350 || twice {
			t.Errorf("%d probes in an hour, two at once: %v", len(all), twice)
		}
		for _, a := range accounts {
			if n := len(d.of(a.Principal.Name)); n < 10 || n > 14 {
				t.Errorf("%s was probed %d times of %d: not all wait alike", a.Principal.Name, n, len(all))
			}
		}
	})
}

func TestWhoGetsNoTokenIsAskedForLessAndLessOften(t *testing.T) {
	for name, err := range map[string]error{
		"refused": probe.ErrRefused, "unavailable": errors.New("away"), "misconfigured": probe.ErrCredential,
	} {
		synctest.Test(t, func(t *testing.T) {
			d := &diary{}
			r := start(t, d)
			r.SetPlan(probe.Plan{
				Prober: probe.Prober{Tokens: good()}, Every: time.Hour,
				Accounts: []probe.Account{named("svc-bad", given{err: err}), named("svc-etl", given{})},
			})
			time.Sleep(10 * 24 * time.Hour)
			at := d.of("svc-bad")
			for i, want := range []time.Duration{2, 4, 8, 16, 24, 24} {
				want *= time.Hour
				if gap := at[i+1].Sub(at[i]); gap > want+time.Minute || gap < want*9/10 {
					t.Errorf("%s: the pause after failure %d is %s, want %s", name, i+1, gap, want)
				}
			}
			if n := len(d.of("svc-etl")); n < 240 {
				t.Errorf("%s: the other one was probed %d times in ten days", name, n)
			}
		})
	}
}

func TestAJudgementThatFailsIsNoReasonToAskLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &diary{}
		r := start(t, d)
		bad := judge(func() *identity.Authentication { return identity.Reject("", identity.AudMismatch) })
		r.SetPlan(probe.Plan{Prober: probe.Prober{Tokens: bad}, Every: time.Hour, Accounts: []probe.Account{named("svc-etl", given{})}})
		time.Sleep(24 * time.Hour)
		if n := len(d.of("")); n < 23 {
			t.Errorf("%d probes in a day", n)
		}
	})
}

func TestAnotherPlanKeepsTheTurnsOfThoseThatStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &diary{}
		r := start(t, d)
		plan := probe.Plan{
			Prober: probe.Prober{Tokens: good()}, Every: time.Hour, PerMinute: 60,
			Accounts: []probe.Account{
				named("svc-etl", given{}), named("svc-gone", given{}),
				named("svc-bad", given{err: probe.ErrRefused}), named("svc-moved", given{}),
			},
		}
		r.SetPlan(plan)
		time.Sleep(10 * time.Minute)
		moved := named("svc-moved", given{})
		moved.Settings = "2"
		plan.Accounts = []probe.Account{named("svc-etl", given{}), named("svc-bad", given{}), moved, named("svc-new", given{})}
		r.SetPlan(plan)
		changed := time.Now()
		time.Sleep(5 * time.Minute)
		for name, want := range map[string]int{"svc-etl": 1, "svc-gone": 1, "svc-bad": 2, "svc-moved": 2, "svc-new": 1} {
			if got := len(d.of(name)); got != want {
				t.Errorf("%s was probed %d times, want %d", name, got, want)
			}
		}
		time.Sleep(time.Until(changed.Add(3 * time.Hour)))
		if n := len(d.of("svc-gone")); n != 1 {
			t.Errorf("one that is no more was probed %d times", n)
		}
		if at := d.of("svc-etl"); at[1].Sub(at[0]) > time.Hour+time.Minute {
			t.Errorf("a reload put a turn off: %s", at[1].Sub(at[0]))
		}

		// Reloads without end bring nobody forward who is well, and nobody else more
		// than once a minute.
		plan.Accounts = []probe.Account{named("svc-etl", given{}), named("svc-bad", given{err: probe.ErrRefused})}
		r.SetPlan(plan)
		time.Sleep(2 * time.Hour)
		before, begun := len(d.of("svc-bad")), time.Now()
		for range 600 {
			r.SetPlan(plan)
			time.Sleep(time.Second)
		}
		if n := len(d.of("svc-bad")) - before; n < 8 || n > 11 {
			t.Errorf("%d probes in %s of reloads", n, time.Since(begun))
		}

		plan.Every = time.Minute
		r.SetPlan(plan)
		changed = time.Now()
		time.Sleep(70 * time.Second)
		if at := d.of("svc-etl"); !at[len(at)-1].After(changed) {
			t.Error("a shorter period begins after the longer one only")
		}
		r.SetPlan(probe.Plan{})
		n := len(d.of(""))
		time.Sleep(24 * time.Hour)
		if len(d.of("")) != n {
			t.Error("without a plan somebody is probed")
		}
	})
}

func TestAPlanThatChangesUnderAProbeLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &diary{}
		r := start(t, d)
		var mu sync.Mutex
		var twice bool
		plan := probe.Plan{
			Prober: probe.Prober{Tokens: good()}, Every: time.Hour, PerMinute: 60,
			Accounts: []probe.Account{named("svc-etl", slow{takes: 10 * time.Second, mu: &mu, twice: &twice})},
		}
		r.SetPlan(plan)
		for range 90 { // a probe is under way in some of them
			time.Sleep(time.Second)
			r.SetPlan(plan)
		}
		time.Sleep(10 * time.Minute)
		if n := len(d.of("svc-etl")); n != 1 {
			t.Errorf("probed %d times, want once", n)
		}
	})
}

func TestClosingEndsAProbeThatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &diary{}
		r := start(t, d)
		var mu sync.Mutex
		var twice bool
		r.SetPlan(probe.Plan{
			Prober: probe.Prober{Tokens: good(), Timeout: time.Hour}, Every: time.Hour,
			Accounts: []probe.Account{named("svc-etl", slow{takes: time.Hour, mu: &mu, twice: &twice})},
		})
		time.Sleep(2 * time.Minute)
		begun := time.Now()
		for range 2 {
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
		if d.open != 1 || len(d.entries) != 0 || time.Since(begun) > 0 {
			t.Errorf("%d begun and not told, %d told, closed after %s", d.open, len(d.entries), time.Since(begun))
		}
		r.SetPlan(probe.Plan{}) // after the end it does nothing
	})
}

// panics is a source with a defect.
type panics struct{}

func (panics) Token(context.Context) (identity.Secret, error) { panic("secret-0815") }

func TestAPanicOfAProbeIsItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &diary{}
		r := start(t, d)
		r.SetPlan(probe.Plan{
			Prober: probe.Prober{Tokens: good()}, Every: time.Hour,
			Accounts: []probe.Account{named("svc-bad", panics{}), named("svc-etl", given{})},
		})
		time.Sleep(30 * time.Minute)
		var got []string
		for _, n := range d.told() {
			got = append(got, n.account+" "+string(n.outcome))
		}
		slices.Sort(got)
		if want := []string{"svc-bad unavailable", "svc-etl ok"}; !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	})
}

func TestAProbeThatCannotBeRecordedWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &diary{}
		r := start(t, d)
		var ready atomic.Bool
		r.SetPlan(probe.Plan{
			Prober: probe.Prober{Tokens: good()}, Every: time.Hour, Ready: ready.Load,
			Accounts: []probe.Account{named("svc-etl", given{}), named("svc-ann", given{})},
		})
		time.Sleep(3 * time.Hour)
		if n := len(d.told()); n != 0 {
			t.Errorf("%d probes that nobody records", n)
		}
		ready.Store(true)
		time.Sleep(2 * time.Minute)
		if n := len(d.told()); n != 2 {
			t.Errorf("%d probes two minutes after recording works again", n)
		}
	})
}

func TestARunnerNeedsSomebodyToTell(t *testing.T) {
	if _, err := probe.NewRunner(nil); err == nil {
		t.Error("no error")
	}
}
