package evidence_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"crossfade/gateway/identity"
	"crossfade/rollout/evidence"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// store keeps batches in memory, or fails.
type store struct {
	mu      sync.Mutex
	err     error
	delay   time.Duration
	batches []evidence.Batch
}

func (s *store) Record(ctx context.Context, b evidence.Batch) error {
	s.mu.Lock()
	delay := s.delay
	s.mu.Unlock()
	if delay > 0 { // without the lock, for a bubble's time does not pass while somebody waits for one
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	s.batches = append(s.batches, b)
	return nil
}

func (s *store) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *store) recorded() []evidence.Batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.batches
}

// counted adds up the requests of all batches.
func (s *store) counted() (n int64) {
	for _, b := range s.recorded() {
		n += b.Requests()
	}
	return n
}

func newRecorder(t *testing.T, o evidence.RecorderOptions) *evidence.Recorder {
	t.Helper()
	r, err := evidence.NewRecorder(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func closing(t *testing.T, r *evidence.Recorder) {
	t.Helper()
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// sees returns what a request of a run teaches, now.
func sees(account, run string, g evidence.Grade) *evidence.Observation {
	return &evidence.Observation{
		At: time.Now(), Team: "data-eng", Account: account, Run: run, Pipeline: "Load", Family: "Load",
		Scheme: identity.SchemeBasic, Verdict: "match_allow", Source: "client", Grade: g, Legacy: true, Token: true,
		TokenExpiry: time.Now().Add(time.Hour),
	}
}

func TestRequestsOfASecondBecomeOneBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{}
		r := newRecorder(t, evidence.RecorderOptions{Store: s, Replica: "a"})
		defer closing(t, r)
		began := time.Now()
		for range 50 {
			r.Observe(sees("svc", "w1", evidence.Clean))
		}
		r.Observe(&evidence.Observation{At: time.Now(), Team: "data-eng", Verdict: "match_deny", Reason: "legacy_unknown"})
		bad := sees("svc", "w2", evidence.WouldBreak)
		bad.Reason, bad.TraceID = "aud_mismatch", "4bf9"
		r.Observe(bad)
		time.Sleep(evidence.DefaultEvery)
		synctest.Wait()
		batches := s.recorded()
		if len(batches) != 1 {
			t.Fatalf("%d batches, want one", len(batches))
		}
		b := batches[0]
		if b.Replica != "a" || b.Seq != 1 || !b.From.Equal(began) || !b.To.Equal(time.Now()) || b.Lost() != 0 {
			t.Errorf("the batch is of %s %d, %s to %s", b.Replica, b.Seq, b.From, b.To)
		}
		d := b.Teams["data-eng"].Days[evidence.DayOf(began)]
		want := map[evidence.Count]int64{
			{Verdict: "match_allow", Source: "client"}: 50, {Verdict: "match_deny", Reason: "legacy_unknown"}: 1,
			{Verdict: "match_allow", Reason: "aud_mismatch", Source: "client"}: 1,
		}
		if diff := cmp.Diff(want, d.Counts); diff != "" {
			t.Errorf("counts (-want +got):\n%s", diff)
		}
		if len(d.Runs) != 2 {
			t.Fatalf("%d runs, want two: nobody is no run", len(d.Runs))
		}
		got := d.Runs[evidence.NewRunKey("svc", "w2")]
		if got.Grade != evidence.WouldBreak || got.Reason != "aud_mismatch" || got.TraceID != "4bf9" || got.Pipeline != "Load" {
			t.Errorf("the bad run: %+v", got)
		}
		use := b.Teams["data-eng"].Accounts["svc"]
		if use.Legacy.IsZero() || use.Token.IsZero() || use.Reason != "aud_mismatch" {
			t.Errorf("the account: %+v", use)
		}
		if len(b.Teams["data-eng"].Families) != 1 {
			t.Errorf("families: %v", b.Teams["data-eng"].Families)
		}
	})
}

func TestARunIsRecordedAgainOnlyWhenItHasNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{}
		r := newRecorder(t, evidence.RecorderOptions{Store: s})
		defer closing(t, r)
		key := evidence.NewRunKey("svc", "w1")
		expiry := time.Now().Add(time.Hour)
		// told reports whether a batch after the request tells of the run.
		told := func(g evidence.Grade, expiry time.Time) bool {
			before := len(s.recorded())
			o := sees("svc", "w1", g)
			o.TokenExpiry = expiry
			r.Observe(o)
			time.Sleep(evidence.DefaultEvery)
			synctest.Wait()
			batches := s.recorded()
			if len(batches) != before+1 {
				t.Fatalf("%d batches after one second", len(batches)-before)
			}
			for _, d := range batches[before].Teams["data-eng"].Days {
				if _, ok := d.Runs[key]; ok {
					return true
				}
			}
			return false
		}
		for _, step := range []struct {
			what string
			told bool
			want bool
		}{
			{"the first request", told(evidence.Clean, expiry), true},
			{"another one", told(evidence.Clean, expiry), false},
			{"a worse one", told(evidence.NoToken, expiry), true},
			{"a better one", told(evidence.Clean, expiry), false},
			{"a renewed token", told(evidence.Clean, expiry.Add(time.Minute)), true},
		} {
			if step.told != step.want {
				t.Errorf("%s: told %t, want %t", step.what, step.told, step.want)
			}
		}
		time.Sleep(time.Minute)
		if !told(evidence.Clean, expiry) {
			t.Error("a run that goes on is not told after a minute")
		}
	})
}

func TestARunBelongsToTheDayOnWhichItBegan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{}
		r := newRecorder(t, evidence.RecorderOptions{Store: s})
		defer closing(t, r)
		today := evidence.DayOf(time.Now())
		r.Observe(sees("svc", "w1", evidence.Clean))
		for time.Now().Before(today.End().Add(time.Hour)) {
			r.Observe(sees("svc", "w1", evidence.Clean))
			time.Sleep(20 * time.Minute)
		}
		before := len(s.recorded())
		r.Observe(sees("svc", "w1", evidence.NoToken))
		all := sees("web", "", evidence.Clean)
		all.DayRun = true
		r.Observe(all)
		time.Sleep(evidence.DefaultEvery)
		synctest.Wait()
		batches := s.recorded()[before:]
		days := batches[len(batches)-1].Teams["data-eng"].Days
		key := evidence.NewRunKey("svc", "w1")
		if got := days[today].Runs[key]; got.Grade != evidence.NoToken {
			t.Errorf("the day on which it began knows %+v", got)
		}
		tomorrow := days[evidence.DayOf(time.Now())]
		if _, ok := tomorrow.Runs[key]; ok {
			t.Error("the run counts on a second day")
		}
		if len(tomorrow.Runs) != 1 {
			t.Errorf("the account without runs has %d on the day", len(tomorrow.Runs))
		}
		if n := tomorrow.Counts[evidence.Count{Verdict: "match_allow", Source: "client"}]; n != 2 {
			t.Errorf("%d requests count on the day on which they were, want 2", n)
		}
	})
}

func TestPeopleInBrowsersAreToldApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{}
		r := newRecorder(t, evidence.RecorderOptions{Store: s})
		sees := func(account, run string, byDay bool) time.Time {
			o := sees(account, run, evidence.NoToken)
			o.DayRun, o.Family = byDay, "Family of "+account+run
			r.Observe(o)
			defer time.Sleep(time.Second)
			return o.At.UTC()
		}
		worker, ada, both, web := sees("svc", "w", false), sees("ada", "", false), sees("both", "w", false), sees("web", "", true)
		looks := sees("both", "", false)
		closing(t, r)
		got := map[string]evidence.Use{}
		var families []string
		for _, b := range s.recorded() {
			for account, u := range b.Teams["data-eng"].Accounts {
				got[account] = got[account].Merge(u)
			}
			for f := range b.Teams["data-eng"].Families {
				families = append(families, f.Name)
			}
		}
		slices.Sort(families)
		use := func(run, page time.Time) evidence.Use {
			at := latest(run, page)
			return evidence.Use{Legacy: at, Token: at, Failed: at, Run: run, Page: page}
		}
		want := map[string]evidence.Use{
			"svc": use(worker, time.Time{}), "ada": use(time.Time{}, ada), "both": use(both, looks), "web": use(web, time.Time{}),
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("uses (-want +got):\n%s", diff)
		}
		if want := []string{"Family of bothw", "Family of svcw", "Family of web"}; !slices.Equal(families, want) {
			t.Errorf("families %q, want %q: what people look at is none", families, want)
		}
	})
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func TestARunKeepsWhatItWasJudgedBy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{}
		r := newRecorder(t, evidence.RecorderOptions{Store: s})
		for _, o := range []evidence.Observation{
			{Config: "aaaa"},
			{Config: "bbbb", Observed: true, Grade: evidence.WouldBreak, Reason: "aud_mismatch", Detail: "for ä" + strings.Repeat("ä", 500)},
			{Config: "cccc" + strings.Repeat("c", 500), Grade: evidence.WouldBreak, Reason: "expired", Detail: "a later one"},
		} {
			o.At, o.Team, o.Account, o.Run = time.Now(), "data-eng", "svc", "w"
			r.Observe(&o)
			time.Sleep(time.Millisecond)
		}
		closing(t, r)
		got := s.recorded()[0].Teams["data-eng"].Days[evidence.DayOf(time.Now())].Runs[evidence.NewRunKey("svc", "w")]
		if got.Config != "cccccccccccccccc" || !got.Observed {
			t.Errorf("judged under %q, observed %t", got.Config, got.Observed)
		}
		if want := "for " + strings.Repeat("ä", 98); got.Reason != "aud_mismatch" || got.Detail != want {
			t.Errorf("%s, detail %q, want %q", got.Reason, got.Detail, want)
		}
	})
}

func TestARunThatWasSilentOvernightIsAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{}
		r := newRecorder(t, evidence.RecorderOptions{Store: s, Every: time.Minute})
		sees := func() { r.Observe(sees("svc", "set by hand", evidence.Clean)) }
		began := map[evidence.Day]bool{}
		for range 3 { // every night for two hours, over midnight
			time.Sleep(time.Until(evidence.DayOf(time.Now()).End()) - time.Hour)
			began[evidence.DayOf(time.Now())] = true
			for range 12 {
				sees()
				time.Sleep(10 * time.Minute)
			}
		}
		time.Sleep(time.Until(evidence.DayOf(time.Now()).End()) + time.Hour)
		first := evidence.DayOf(time.Now())
		for range 8 * 24 * 6 { // and then for eight days
			sees()
			time.Sleep(10 * time.Minute)
		}
		began[first], began[evidence.DayOf(first.End().AddDate(0, 0, 6))] = true, true
		closing(t, r)
		got := map[evidence.Day]bool{}
		for _, b := range s.recorded() {
			for day, d := range b.Teams["data-eng"].Days {
				if len(d.Runs) > 0 {
					got[day] = true
				}
			}
		}
		if diff := cmp.Diff(began, got); diff != "" {
			t.Errorf("days on which a run began (-want +got):\n%s", diff)
		}
	})
}

func TestOnlyARequestWithTheRightPasswordIsLockedOut(t *testing.T) {
	enforced := func(o evidence.Observation) evidence.Observation {
		o.Enforced = true
		return o
	}
	refusedToken := enforced(evidence.Observation{Token: true, Refused: true, Grade: evidence.WouldBreak})
	password := evidence.Observation{Legacy: true, Grade: evidence.NoToken}
	accepted := enforced(evidence.Observation{Legacy: true, Token: true})
	refusedPassword := enforced(evidence.Observation{Legacy: true, Refused: true, Grade: evidence.NoToken})
	brownout := refusedPassword
	brownout.Brownout = true
	for name, test := range map[string]struct {
		requests []evidence.Observation
		enforced int // the number of the request from which on, -1 for never
		locked   int
	}{
		"a password that is refused":                                  {[]evidence.Observation{accepted, refusedPassword, refusedPassword}, 0, 1},
		"a password with a bad token, both refused":                   {[]evidence.Observation{enforced(evidence.Observation{Legacy: true, Token: true, Refused: true})}, 0, 0},
		"bad tokens in a run that uses the password where it may":     {[]evidence.Observation{password, refusedToken, password}, 1, -1},
		"bad tokens in a run that uses the password beside good ones": {[]evidence.Observation{refusedToken, accepted, refusedToken}, 0, -1},
		"a password that is refused where nothing is enforced":        {[]evidence.Observation{{Legacy: true, Refused: true}}, -1, -1},
		"a password that a brownout refuses":                          {[]evidence.Observation{brownout, password}, -1, -1},
		"one that a raise refuses after a brownout":                   {[]evidence.Observation{brownout, password, refusedPassword}, 2, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &store{}
				r := newRecorder(t, evidence.RecorderOptions{Store: s})
				var at []time.Time
				for _, o := range test.requests {
					o.At, o.Team, o.Account, o.Run = time.Now(), "data-eng", "svc", "w"
					at = append(at, o.At.UTC())
					r.Observe(&o)
					time.Sleep(time.Millisecond)
				}
				closing(t, r)
				when := func(n int) time.Time {
					if n < 0 {
						return time.Time{}
					}
					return at[n]
				}
				got := s.recorded()[0].Teams["data-eng"].Days[evidence.DayOf(at[0])].Runs[evidence.NewRunKey("svc", "w")]
				if !got.EnforcedFrom.Equal(when(test.enforced)) || !got.LockedOut.Equal(when(test.locked)) {
					t.Errorf("enforced from %s, locked out at %s; the requests were at %v", got.EnforcedFrom, got.LockedOut, at)
				}
			})
		})
	}
}

func TestAnOutageOfTheStoreLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{err: errors.New("away")}
		var told []bool
		r := newRecorder(t, evidence.RecorderOptions{Store: s, Report: func(err error) { told = append(told, err == nil) }})
		for i := range 600 { // ten minutes
			r.Observe(sees("svc", fmt.Sprint("w", i%20), evidence.Clean))
			time.Sleep(time.Second)
		}
		s.fail(nil)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if n := s.counted(); n != 600 {
			t.Errorf("%d requests are recorded, want 600", n)
		}
		for i, b := range s.recorded() {
			if b.Seq != int64(i+1) {
				t.Errorf("batch %d has the number %d", i, b.Seq)
			}
		}
		closing(t, r)
		if r.Lost() != 0 || !reflect.DeepEqual(told, []bool{false, true}) {
			t.Errorf("lost %d, reported %v", r.Lost(), told)
		}
	})
}

// picky is a store that never takes a team's part.
type picky struct {
	store
	refuses bool
}

func (s *picky) Record(ctx context.Context, b evidence.Batch) error {
	if err := s.store.Record(ctx, b); err != nil || !s.refuses {
		return err
	}
	return &evidence.LostError{Parts: []evidence.LostPart{
		{Team: "data-eng", Key: "runs", Requests: b.Teams["data-eng"].Requests(), Err: errors.New("runs are damaged")},
		{Team: "data-eng", Key: "accounts", Err: errors.New("accounts are damaged")},
	}}
}

func TestWhatIsNeverTakenIsCountedToldOnceAndHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &picky{refuses: true}
		var told, reports []string
		r := newRecorder(t, evidence.RecorderOptions{
			Store:  s,
			Lost:   func(err error) { told = append(told, err.Error()) },
			Report: func(err error) { reports = append(reports, fmt.Sprint(err)) },
		})
		request := func(n int) {
			for range n {
				r.Observe(sees("svc", "w", evidence.Clean))
				time.Sleep(time.Second)
			}
			synctest.Wait()
		}
		request(100)
		if n := len(s.recorded()); n < 50 || r.Lost() != s.counted() {
			t.Errorf("%d batches in 100 seconds, lost %d of %d requests", n, r.Lost(), s.counted())
		}
		if want := []string{"runs are damaged", "accounts are damaged"}; !reflect.DeepEqual(told, want) || reports != nil {
			t.Errorf("told %q, reported %q", told, reports)
		}
		s.refuses = false
		before := r.Lost()
		request(10)
		time.Sleep(time.Hour)
		if r.Lost() != before || len(told) != 2 {
			t.Errorf("after the repair: lost %d, told %q", r.Lost()-before, told)
		}
		s.refuses = true
		request(10)
		if len(told) != 4 {
			t.Errorf("damaged anew: told %q", told)
		}
		closing(t, r)
	})
}

func TestItIsKnownUpToWhenAllIsRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{}
		r := newRecorder(t, evidence.RecorderOptions{Store: s})
		defer closing(t, r)
		late := func() time.Duration { return time.Since(r.Until()) }
		time.Sleep(10500 * time.Millisecond) // with nothing to record
		if d := late(); d > evidence.DefaultEvery {
			t.Errorf("of nothing it is %s late", d)
		}
		s.fail(errors.New("away"))
		r.Observe(sees("svc", "w1", evidence.Clean))
		time.Sleep(20 * time.Second)
		if d := late(); d < 19*time.Second || d > 22*time.Second {
			t.Errorf("after 20 s without a store it is %s late", d)
		}
		s.fail(nil)
		time.Sleep(3 * time.Second)
		if d := late(); d > 2*evidence.DefaultEvery || s.counted() != 1 {
			t.Errorf("when the store is back it is %s late, %d requests recorded", d, s.counted())
		}
	})
}

func TestAnAttemptWithoutAnswerIsMadeAgainWithTheSameNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{delay: time.Minute}
		r := newRecorder(t, evidence.RecorderOptions{Store: s})
		r.Observe(sees("svc", "w", evidence.Clean))
		time.Sleep(10 * time.Second)
		s.mu.Lock()
		s.delay = 0
		s.mu.Unlock()
		time.Sleep(10 * time.Second) // attempts last longer and longer
		synctest.Wait()
		if got := s.recorded(); len(got) != 1 || got[0].Seq != 1 || got[0].Requests() != 1 {
			t.Errorf("recorded: %+v", got)
		}
		closing(t, r)
	})
}

func TestWhatFindsNoRoomIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{}
		r := newRecorder(t, evidence.RecorderOptions{Store: s, MaxRuns: 10})
		for account := range 5 {
			for i := range 4 {
				r.Observe(sees(fmt.Sprint("svc", account), fmt.Sprint("w", i), evidence.Clean))
			}
		}
		time.Sleep(evidence.DefaultEvery)
		synctest.Wait()
		if got := s.recorded()[0]; got.Lost() != 10 || got.Requests() != 20 {
			t.Errorf("the batch counts %d requests and says that %d found no room", got.Requests(), got.Lost())
		}
		closing(t, r)
		if r.Lost() != 10 {
			t.Errorf("lost %d, want 10", r.Lost())
		}
	})
}

func TestOneAccountCannotDrownTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{}
		r := newRecorder(t, evidence.RecorderOptions{Store: s, MaxRuns: 3000})
		for i := range 4000 { // a made-up worker for each request
			if i%1000 == 0 {
				synctest.Wait() // what came is folded
			}
			r.Observe(sees("flood", fmt.Sprint("w", i), evidence.Clean))
		}
		r.Observe(sees("flood", "failing", evidence.WouldBreak))
		r.Observe(sees("honest", "w", evidence.Clean))
		time.Sleep(evidence.DefaultEvery)
		synctest.Wait()
		closing(t, r)
		b := s.recorded()[0]
		d := b.Teams["data-eng"].Days[evidence.DayOf(time.Now())]
		if b.Lost() != 0 || d.Unkept == 0 || int(d.Unkept)+len(d.Runs) != 4002 {
			t.Errorf("lost %d, %d runs and %d not kept, want 4002 in all and no loss", b.Lost(), len(d.Runs), d.Unkept)
		}
		for _, key := range []evidence.RunKey{evidence.NewRunKey("honest", "w"), evidence.NewRunKey("flood", "failing")} {
			if _, ok := d.Runs[key]; !ok {
				t.Error("an honest run, or a failing one, found no room")
			}
		}
	})
}

func TestABurstThatNobodyFoldsInTimeIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{}
		r := newRecorder(t, evidence.RecorderOptions{Store: s})
		const burst = 100_000
		for i := range burst {
			r.Observe(sees("svc", fmt.Sprint("w", i%10), evidence.Clean))
		}
		closing(t, r)
		lost := int64(0)
		for _, b := range s.recorded() {
			lost += b.Lost()
		}
		if s.counted()+lost != burst || lost != r.Lost() {
			t.Errorf("%d recorded and %d lost of %d; the recorder says %d", s.counted(), lost, burst, r.Lost())
		}
	})
}

func TestTheEndRecordsWhatIsLeftOrCountsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{}
		r := newRecorder(t, evidence.RecorderOptions{Store: s})
		r.Observe(sees("svc", "w", evidence.Clean))
		closing(t, r)
		if s.counted() != 1 || r.Lost() != 0 {
			t.Errorf("recorded %d, lost %d", s.counted(), r.Lost())
		}

		away := &store{err: errors.New("away")}
		r = newRecorder(t, evidence.RecorderOptions{Store: away})
		r.Observe(sees("svc", "w", evidence.Clean))
		time.Sleep(5 * time.Second) // one batch waits
		r.Observe(sees("svc", "w", evidence.Clean))
		began := time.Now()
		closing(t, r)
		if r.Lost() != 2 || time.Since(began) > 2*evidence.DefaultTimeout {
			t.Errorf("lost %d, want 2; the end took %s", r.Lost(), time.Since(began))
		}
	})
}

func TestNewRecorderNamesWhatIsWrong(t *testing.T) {
	for name, o := range map[string]evidence.RecorderOptions{
		"no store":       {},
		"negative times": {Store: &store{}, Every: -1},
		"negative bound": {Store: &store{}, MaxRuns: -1},
	} {
		if r, err := evidence.NewRecorder(o); err == nil {
			t.Errorf("%s: no error", name)
			closing(t, r)
		}
	}
}

// What a request costs the machine: taking it, which the request waits for, and
// folding it, which it does not. The first alone is about 12 ns.
func BenchmarkObserve(b *testing.B) {
	r, err := evidence.NewRecorder(evidence.RecorderOptions{Store: &store{}})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	o := sees("svc", "w", evidence.Clean)
	b.ReportAllocs()
	for n := 1; b.Loop(); n++ {
		r.Observe(o)
		if n%(evidence.RingSize/2) == 0 {
			for r.Waiting() > 0 {
				runtime.Gosched()
			}
		}
	}
	if r.Lost() > 0 {
		b.Errorf("%d were lost: what was measured is no work", r.Lost())
	}
}

func TestABatchThatTakesLongIsRecordedInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{delay: 15 * time.Second} // 50,000 runs, say, or a store far away
		r := newRecorder(t, evidence.RecorderOptions{Store: s, Replica: "a"})
		for range 3 {
			r.Observe(sees("svc", "w1", evidence.Clean))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := s.counted(); n != 3 {
			t.Errorf("%d requests are recorded, want 3", n)
		}
		r.Observe(sees("svc", "w2", evidence.Clean))
		time.Sleep(20 * time.Second) // in the middle of a long attempt
		began := time.Now()
		closing(t, r)
		if took := time.Since(began); took > 3*evidence.DefaultTimeout {
			t.Errorf("the end took %s", took)
		}
	})
}

func TestNamesOfAClientAreNotKeptInAnyLength(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{}
		r := newRecorder(t, evidence.RecorderOptions{Store: s})
		defer closing(t, r)
		long := strings.Repeat("x", 1<<20)
		for _, run := range []string{long, long + "y", long} {
			o := sees("svc", run, evidence.Clean)
			o.Pipeline, o.Family = long, long
			r.Observe(o)
		}
		time.Sleep(evidence.DefaultEvery)
		synctest.Wait()
		team := s.recorded()[0].Teams["data-eng"]
		runs := team.Days[evidence.DayOf(time.Now())].Runs
		if len(runs) != 2 || len(team.Families) != 1 {
			t.Errorf("%d runs and %d families, want 2 and 1", len(runs), len(team.Families))
		}
		for _, run := range runs {
			if len(run.Pipeline) > 300 {
				t.Errorf("a pipeline of %d bytes is kept", len(run.Pipeline))
			}
		}
		for f := range team.Families {
			if len(f.Name) > 300 {
				t.Errorf("a family of %d bytes is kept", len(f.Name))
			}
		}
	})
}
