// Package reconcile brings the live percentages to what teams ask for: it passes
// on the changes of their files as requests, applies requests when their checks
// hold, and takes back raises that hurt. One replica does so at a time, the one
// with the lease.
//
// A file counts when it is seen to change. A replica that starts with a file
// which says something else than the team's request cannot know which of the two
// is younger, so it takes the file's word only where that lowers, and shows the
// difference otherwise: restarts and rolling updates never flap a team.
// Nor does a mount that is late: a file that says what
// the team asked for before, and is there when the replica starts, lowers only
// after it has had time to catch up; see lag.
package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
)

const (
	// DefaultEvery is the time between two looks, which heal what no notice told.
	DefaultEvery = 2 * time.Second
	// leaseFor is how long the lease lasts without another look. A replica that
	// dies is followed after so long.
	leaseFor = 15 * time.Second
	// lag is how long a replica's files may be older than those of others. Within
	// that time of its start a file that the team had before its present one is not
	// believed, since the younger one is probably on its way; afterwards somebody has
	// taken it back. A mounted ConfigMap follows within the kubelet's sync period,
	// one minute, and the delay of its cache
	// (kubernetes.io/docs/tasks/configure-pod-container/configure-pod-configmap).
	lag = 2 * time.Minute
	// timeout bounds a call to the store or the guard.
	timeout = 2 * time.Second
)

// File is what a team's file asks for.
type File struct {
	Team   identity.Team
	Name   string
	Digest string
	// Percent is what it asks for, Override the reason of an override for just
	// that percentage; "" for none.
	Percent  rollout.Percent
	Override string
	Reason   string
	// Retire asks for the end of static credentials; Percent is 100 then.
	Retire bool
	// Brownouts are its windows.
	Brownouts []rollout.Brownout
	// Warnings are what stands in it without effect, for people.
	Warnings []string
	// Open reports whether raises may be applied at a time; nil is always.
	Open func(time.Time) bool
}

// Management is how a team's file and its request agree.
type Management uint8

// The kinds of management.
const (
	// Unmanaged: the team has no file, or had one that is gone. Its request
	// stays.
	Unmanaged Management = iota
	// Managed: the request is what the file says.
	Managed
	// Differs: the file says something else, and was not seen to change, or somebody
	// asked for another percentage in its place.
	Differs
	// Broken: the file has a mistake. The request stays.
	Broken
)

// String returns the word for it.
func (m Management) String() string {
	switch m {
	case Managed:
		return "managed"
	case Differs:
		return "file differs"
	case Broken:
		return "file has a mistake"
	default:
		return "unmanaged"
	}
}

// Status is what is known of a team.
type Status struct {
	Management Management
	// File is the name of the team's file, "" for none.
	File string
	// Warnings are those of the file.
	Warnings []string
	// Step is what became of the request at the last look.
	Step rollout.Step
}

// Options are the options of New.
type Options struct {
	// Table is read and written, Lease says whose turn it is, Guard is asked
	// before a raise. Required.
	Table Table
	Lease rollout.Leaser
	Guard rollout.Guard
	// Files reads the files of all teams: those without a mistake, and the names
	// of those with one by team. An error says that none could be read: the teams
	// are asked for what they were asked for before, by whichever replica can read
	// files if there is one. Required.
	Files func() (files []File, broken map[identity.Team]string, err error)
	// Credentials lists the ids of the static credentials of a team, which are
	// recorded when it is retired; nil is none.
	Credentials func(identity.Team) []string
	// Evidence is what raises are taken back by; nil takes none back by itself.
	Evidence Evidence
	// Alert is told, once for each raise, of accounts that are refused without
	// that a rollback follows. May be nil; the terms of Applied hold.
	Alert func(team identity.Team, why string)
	// Holder names this replica among all.
	Holder string
	// Every is the time between two looks; DefaultEvery when 0.
	Every time.Duration
	// Applied is told of each change that was made, Report when looking begins to
	// fail, fails otherwise (see rollout.Trouble), and with nil when all is well again. Both may be nil, are called by
	// one goroutine and must return soon.
	Applied func(was, is rollout.State)
	Report  func(error)
}

// Table is what a Reconciler needs of a rollout.Table.
type Table interface {
	Loaded() bool
	Lookup(team identity.Team) (rollout.State, bool)
	States() []rollout.State
	Write(ctx context.Context, c rollout.Change) (rollout.State, error)
}

// Reconciler is the loop. Close it. Status is safe for concurrent use.
type Reconciler struct {
	o      Options
	kick   chan struct{}
	cancel context.CancelFunc
	done   sync.WaitGroup

	held   atomic.Bool
	status atomic.Pointer[map[identity.Team]Status]

	// What this process has seen of each file, and of teams that were raised of
	// late; of its goroutine alone.
	seen    map[identity.Team]sighting
	files   []File // as they could last be read, as is broken
	broken  map[identity.Team]string
	watched map[identity.Team]watch
}

// sighting is what was seen of a file.
type sighting struct {
	digest string
	// changed tells that it was seen to become what it is, first that it was
	// there like this when the process began, and settled that the request was
	// what it says at some time since. Back tells that it was gone and is as it was.
	changed, first, settled, back bool
	gone                          string    // the digest of a file that is gone
	since                         time.Time // when it was first seen like this
}

// New starts a reconciler.
func New(o Options) (*Reconciler, error) {
	if o.Table == nil || o.Lease == nil || o.Guard == nil || o.Files == nil || o.Holder == "" {
		return nil, errors.New("reconcile rollouts: a table, a lease, a guard, files and a name are needed")
	}
	if o.Applied == nil {
		o.Applied = func(rollout.State, rollout.State) {}
	}
	if o.Credentials == nil {
		o.Credentials = func(identity.Team) []string { return nil }
	}
	if o.Alert == nil {
		o.Alert = func(identity.Team, string) {}
	}
	if o.Report == nil {
		o.Report = func(error) {}
	}
	o.Every = cmp.Or(o.Every, DefaultEvery)
	ctx, cancel := context.WithCancel(context.Background())
	r := &Reconciler{o: o, kick: make(chan struct{}, 1), cancel: cancel, seen: make(map[identity.Team]sighting), watched: make(map[identity.Team]watch)}
	r.status.Store(&map[identity.Team]Status{})
	r.done.Go(func() { r.run(ctx) })
	return r, nil
}

// Close ends the loop and gives the lease back.
func (r *Reconciler) Close() error {
	r.cancel()
	r.done.Wait()
	if !r.held.Load() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return r.o.Lease.Yield(ctx, r.o.Holder)
}

// Look makes the reconciler look soon, for instance because a file has changed.
func (r *Reconciler) Look() {
	select {
	case r.kick <- struct{}{}:
	default: // it is going to
	}
}

// Leads reports whether this replica had the lease at the last look.
func (r *Reconciler) Leads() bool { return r.held.Load() }

// Status returns what is known of each team. A replica without the lease knows
// of its own files, and no steps. The map is shared and must not be changed.
func (r *Reconciler) Status() map[identity.Team]Status { return *r.status.Load() }

func (r *Reconciler) run(ctx context.Context) {
	tick := time.NewTicker(r.o.Every)
	defer tick.Stop()
	var trouble rollout.Trouble
	for {
		err := r.look(ctx)
		if ctx.Err() != nil {
			return
		}
		if trouble.Tell(err, time.Now()) {
			r.o.Report(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-r.kick:
		case <-tick.C:
		}
	}
}

// look does all there is to do now.
func (r *Reconciler) look(ctx context.Context) error {
	if !r.o.Table.Loaded() {
		return nil // and who reads the table says why
	}
	ttl := leaseFor
	yields := false
	files, broken, unread := r.o.Files()
	if unread != nil {
		// What holds and rollbacks need is done without files, at every other look: the
		// lease ends soon and is left alone for longer than it is between two looks of
		// a replica with files, which so gets it, whenever it looks.
		files, broken, ttl = r.files, r.broken, r.o.Every/2
		yields = r.held.Load()
	} else {
		r.files, r.broken = files, broken
		r.sight(files, broken)
	}
	began := time.Now()
	var held bool
	var err error
	if !yields {
		held, err = r.lease(ctx, ttl)
	}
	r.held.Store(held)
	status := make(map[identity.Team]Status)
	by := make(map[identity.Team]File, len(files))
	for _, f := range files {
		by[f.Team] = f
	}
	teams := make(map[identity.Team]bool)
	for _, s := range r.o.Table.States() {
		teams[s.Team] = true
	}
	for _, f := range files {
		teams[f.Team] = true
	}
	errs := []error{unread, err}
	for _, team := range slices.Sorted(maps.Keys(teams)) {
		f, ok := by[team]
		if held && time.Since(began) < ttl/2 { // else another may have it by now
			_, mistaken := broken[team]
			s, err := r.team(ctx, team, f, ok, mistaken)
			errs = append(errs, err)
			status[team] = s
		} else {
			state, _ := r.o.Table.Lookup(team)
			status[team] = Status{Management: r.management(state, f, ok), File: f.Name, Warnings: f.Warnings}
		}
	}
	for team, name := range broken {
		s := status[team]
		s.Management, s.File = Broken, name
		status[team] = s
	}
	r.status.Store(&status)
	return errors.Join(errs...)
}

func (r *Reconciler) lease(ctx context.Context, ttl time.Duration) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return r.o.Lease.Lease(ctx, r.o.Holder, ttl)
}

// sight notes what the files say and whether that is another thing than before.
func (r *Reconciler) sight(files []File, broken map[identity.Team]string) {
	began, now := len(r.seen) == 0, time.Now()
	for _, f := range files {
		was, known := r.seen[f.Team]
		switch {
		case !known:
			// A file that appears later was put there now.
			r.seen[f.Team] = sighting{digest: f.Digest, first: began, changed: !began, since: now}
		case was.digest != f.Digest:
			r.seen[f.Team] = sighting{digest: f.Digest, changed: true, since: now, back: was.gone == f.Digest}
		}
	}
	// What is gone is remembered as gone, so that it is a change when it returns. A
	// file with a mistake, or which could not be read just now, is not gone.
	for team, was := range r.seen {
		if _, mistaken := broken[team]; !mistaken && !slices.ContainsFunc(files, func(f File) bool { return f.Team == team }) && was.digest != "" {
			r.seen[team] = sighting{gone: was.digest}
		}
	}
	if began && len(r.seen) == 0 {
		r.seen[""] = sighting{} // the process has looked
	}
}

// management says how a team's file and its request agree, and notes that they
// did.
func (r *Reconciler) management(s rollout.State, f File, there bool) Management {
	switch {
	case !there:
		return Unmanaged
	case s.Request.Made() && s.Request.Digest == f.Digest:
		seen := r.seen[f.Team]
		seen.settled = true
		r.seen[f.Team] = seen
		if s.Request.Percent != f.Percent {
			return Differs
		}
		return Managed
	default:
		return Differs
	}
}

// team brings one team to what it asks for.
func (r *Reconciler) team(ctx context.Context, team identity.Team, f File, there, mistaken bool) (Status, error) {
	now := time.Now()
	s, _ := r.o.Table.Lookup(team)
	s.Team = team
	status := Status{File: f.Name, Warnings: f.Warnings}
	// What a file with a mistake says of the hours is not known, so raises wait.
	open := !mistaken && (!there || f.Open == nil || f.Open(now))
	s, watching := r.rollBack(ctx, s, now)
	if watching != nil {
		watching = fmt.Errorf("watch team %q after its raise: %w", team, watching)
	}
	var err error
	if there && r.asks(s, f, now) {
		request := rollout.Request{
			Percent: f.Percent, Digest: f.Digest, Override: f.Override, Retire: f.Retire, Brownouts: f.Brownouts,
			Source: "file", Actor: f.Name, Reason: f.Reason,
		}
		next := s
		next.Request = request
		next.Request.At = now
		status.Step = r.step(ctx, next, open, now)
		s, err = r.write(ctx, s, rollout.Ask(s, request, status.Step, now))
	} else {
		status.Step = r.step(ctx, s, open, now)
		if status.Step.Outcome.Applies() {
			s, err = r.write(ctx, s, rollout.Follow(s, status.Step, now))
		}
	}
	status.Management = r.management(s, f, there)
	return status, errors.Join(watching, err)
}

// asks reports whether what the file says is a new request.
func (r *Reconciler) asks(s rollout.State, f File, now time.Time) bool {
	seen := r.seen[f.Team]
	switch {
	case s.Request.Made() && s.Request.Digest == f.Digest:
		// What the admin API or a command asks for in the place of a file keeps the digest
		// of the file: one that was put back since is a change, even if it says what it
		// said.
		return seen.back && !seen.settled && s.Request.Percent != f.Percent && s.Request.At.Before(seen.since)
	case !s.Request.Made(): // the team's first file
		return true
	case seen.settled:
		// It was what the file says, and somebody has asked for something else
		// since: another replica, whose file has changed.
		return false
	case seen.changed:
		return true
	case slices.Contains(s.Request.Past, f.Digest) && now.Sub(seen.since) < lag:
		return false
	default:
		return seen.first && f.Percent < s.Percent
	}
}

// step asks the guard and says what becomes of the request.
func (r *Reconciler) step(ctx context.Context, s rollout.State, open bool, now time.Time) rollout.Step {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return rollout.Next(s, rollout.AskGuard(ctx, r.o.Guard, s, now), open, now)
}

// write makes a change. A conflict is none: whoever was faster is seen at the
// next look.
func (r *Reconciler) write(ctx context.Context, was rollout.State, c rollout.Change) (rollout.State, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if c.Retire {
		c.Credentials = r.o.Credentials(c.Team)
	}
	is, err := r.o.Table.Write(ctx, c)
	if errors.Is(err, rollout.ErrConflict) {
		return was, nil
	}
	if err != nil {
		return was, fmt.Errorf("change of team %q: %w", was.Team, err)
	}
	r.o.Applied(was, is)
	return is, nil
}
