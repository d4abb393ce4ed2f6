// Package redisstore keeps rollouts, and what is known of Luigi's tasks and
// workers, in Redis: standalone, Sentinel or Cluster, or one that lives in the
// process.
//
// All keys of a team share the hash tag {team}, so a Redis Cluster keeps them
// on one slot and one script may touch them together. With the default prefix:
//
//	crossfade:store                hash: id, schema, created_at
//	crossfade:teams                set of the ids of known teams
//	crossfade:{team}:rollout       hash: percent, previous, revision, ...
//	crossfade:{team}:history       stream: one entry a change, about the last 1000
//	crossfade:{team}:latch:<run>   string with a sliding time to live
//	crossfade:{team}:latched:<how> sorted set: the runs that have a latch, enforced or unenforced, by its end
//	crossfade:{team}:count:<day>   hash: requests by verdict, reason and evidence, and by scheme
//	crossfade:{team}:runs:<day>    hash: the runs that are kept, and why these; see recordDay
//	crossfade:{team}:unkept:<day>  HyperLogLog of the runs that are not
//	crossfade:{team}:refusals:<day>  hash: what would have been refused, how often and when last
//	crossfade:{team}:accounts      hash: account -> when it used which credential, and last failed
//	crossfade:{team}:families      sorted set: account and family, by the last use
//	crossfade:{team}:families:clean  the same by the last use without fault
//	crossfade:{team}:since         string: when the team's evidence began
//	crossfade:replicas             sorted set: gateways by their last sign of life, and what they are
//	crossfade:lease                string: the replica that reads files, with a time to live
//	crossfade:gaps                 sorted set: losses of evidence, by their end
//	crossfade:events               channel: "<revision> <team>" for each change
//	crossfade:audit:heads          hash: replica -> how far its audit trail has come
//
// Evidence is what takes room. Redis 7.0 tells (MEMORY USAGE; a test holds the bytes
// of one to 20%) for 100 teams that make 10,000 runs a day together, each with 3
// accounts that run 10 pipelines and 4 families in each, once there is all that is
// kept:
//
//	key                 one of them               bytes   kept      all
//	runs:<day>          run                         350   45 days   159 MB
//	count:<day>         day                         310   90 days   2.8 MB
//	refusals:<day>      account, pipeline, reason   120   45 days   1.6 MB
//	unkept:<day>        day with runs not kept   14,000   45 days   -      (at most)
//	families            account and family           52   always    0.6 MB
//	families:clean      account and family           52   always    0.6 MB
//	accounts            account                      75   always    0.1 MB
//
// The server then uses about 170 MB (used_memory), after 90 days as after a year.
// It needs room for as much again while it saves or a replica joins. Of a
// run more than the 24 that are kept of an account, a pipeline and a day nothing is
// left but its count, so a team with 100 pairs of account and pipeline takes 0.8 MB a
// day at most, but for failed runs: they have a row of up to 750 bytes. Whoever
// has the credentials of one account and means harm can make it 11 MB a day
// (evidence.MaxPipelines, MaxRuns, MaxBadOfAccount; names of 200 bytes) and 0.3 MB of
// refusals (evidence.MaxRefusals), and 13 MB of families once (evidence.MaxFamilies).
// Each further account of the team may do the same, until there are
// evidence.MaxPairs. The benchmarks Size and Hostile of this package measure both.
//
// A run of several days is kept on its first only, and whoever sees it for the first
// time on a later one looks it up in the days before.
//
// A write needs three steps, since the first two keys live on other slots: it
// makes the store's id if there is none, adds the team to the set, and then
// runs one script that compares, writes, appends and publishes. After a crash
// between the steps the set may name a team without a rollout, which readers
// take for a team that was never written; a rollout that the set does not name
// cannot be.
//
// Where a node of a Cluster is away, and the Cluster goes on without it
// (cluster-require-full-coverage no), the teams on it keep the percentage that is
// known, and all others are read and changed as ever; only where it has the first
// or the second key can nothing be read or changed until it, or its replica, is
// back. Evidence of the teams on it waits, that of the others is recorded; where it
// has the list of losses, teams that have some wait as well, and no raise is judged.
//
// The keys about Luigi belong to no team, so each lies on a slot of its own, and
// no script touches two of them:
//
//	crossfade:luigi:task:<id>      hash with a time to live: family; of the
//	                               execution under way worker, sign (of life, by
//	                               its starts), until (it is forgotten), started
//	                               (JSON); ended (by whom, of late)
//	crossfade:luigi:worker:<id>    hash with a sliding time to live: principal,
//	                               team, token, seen
//	crossfade:luigi:open           sorted set: tasks under way, by a time that is
//	                               no later than the last sign of life
//
// Ids of more than 128 bytes stand there as their SHA-256. Redis 7.0 needs about
// 150 bytes for a task of a usual id that was registered, 1.2 KB while it is
// under way (with parameters, an OIDC identity and a worker's name of 90 bytes)
// and 430 bytes afterwards, 230 bytes for a worker and 150 bytes for an entry of
// the set. 100,000 tasks a day take about 45 MB.
package redisstore

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
)

// DefaultPrefix begins every key unless Options say otherwise.
const DefaultPrefix = "crossfade"

// Options are the options of New.
type Options struct {
	// URL names the server: redis:// (plain), rediss:// (TLS) or unix://, as in
	// redis://user:password@host:6379/0. More servers are added by
	// ?addr=host:port, once or more. With ?master_name=NAME all of them are
	// Sentinels, with ?cluster=true or several addresses nodes of a Cluster.
	// It may hold a password, which no error shows.
	URL string
	// Password, if set, is asked at each new connection, so that a rotated one
	// is picked up. The URL must not hold another.
	Password func(context.Context) (identity.Secret, error)
	// TLS, if set, is used in place of the system's settings by rediss URLs.
	TLS *tls.Config
	// Prefix begins every key and the channel; DefaultPrefix by default.
	Prefix string
	// Client is used in place of URL, Password and TLS, with the timeouts that
	// it has, and is not closed by Store.Close. It should have
	// ContextTimeoutEnabled set, or a slow server holds requests up for as long
	// as its ReadTimeout.
	Client redis.UniversalClient
	// Now is the clock for changes without a time, time.Now by default.
	Now func() time.Time
	// MaxRuns is how many runs are kept of an account, a pipeline and a day;
	// evidence.MaxRuns when 0, which is right for all but a demonstration in which
	// seconds stand for days.
	MaxRuns int
	// InFlight is how long ago a run was heard of that counts as in flight;
	// rollout.InFlight when 0, which is right in the same cases.
	InFlight time.Duration
}

// Store is a rollout.Store, an evidence.Store and a luigi.Store on Redis. It is safe for concurrent use.
type Store struct {
	client redis.UniversalClient
	owned  bool
	prefix string
	now    func() time.Time
	// counted is how many latches of a kind are counted at most.
	counted int
	maxRuns int // see Options.MaxRuns
	// inFlight is as in Options.
	inFlight time.Duration
	// lastID is the id of the store as Record could last read it.
	lastID atomic.Pointer[string]
}

var _ rollout.Store = (*Store)(nil)

// New returns a store. It does not connect: that happens at the first call, and
// again whenever a connection is lost. From then on go-redis prints nothing on the
// standard error of the process: each of its troubles is the error of a call, too,
// and a log of one form must stay so during an outage.
func New(opt Options) (*Store, error) {
	redis.SetLogger(&logging.VoidLogger{})
	s := &Store{client: opt.Client, prefix: cmp.Or(opt.Prefix, DefaultPrefix), now: opt.Now, counted: rollout.MaxLatchCount, maxRuns: cmp.Or(opt.MaxRuns, evidence.MaxRuns), inFlight: cmp.Or(opt.InFlight, rollout.InFlight)}
	if s.inFlight < 0 {
		return nil, fmt.Errorf("redis store: a run cannot be heard of in %s", -s.inFlight)
	}
	if s.maxRuns < 0 {
		return nil, fmt.Errorf("redis store: %d runs of an account, pipeline and day are fewer than none", s.maxRuns)
	}
	if strings.ContainsAny(s.prefix, "{}") {
		return nil, fmt.Errorf("redis prefix %q: must not hold braces, which mark the slot of a Redis Cluster", s.prefix)
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.client != nil {
		return s, nil
	}
	universal, err := clientOptions(opt)
	if err != nil {
		return nil, err
	}
	s.client, s.owned = newClient(universal), true
	return s, nil
}

// topologyEvery is how often it is read which node of a Cluster has which slots,
// while the client is in use. Clients that ask a dead node hear from nobody that
// its replica has taken over, and go-redis would find out after a minute.
const topologyEvery = 2 * time.Second

func newClient(o *redis.UniversalOptions) redis.UniversalClient {
	if !clustered(o) {
		return redis.NewUniversalClient(o)
	}
	cluster := o.Cluster()
	cluster.ClusterStateReloadInterval = topologyEvery
	return redis.NewClusterClient(cluster)
}

// Close closes the connections that the store opened.
func (s *Store) Close() error {
	if !s.owned {
		return nil
	}
	if err := s.client.Close(); err != nil && !errors.Is(err, redis.ErrClosed) {
		return fmt.Errorf("close redis connections: %w", err)
	}
	return nil
}

// Ping asks the server for a sign of life.
func (s *Store) Ping(ctx context.Context) error {
	return unavailable("ping", s.client.Ping(ctx).Err())
}

func (s *Store) storeKey() string { return s.prefix + ":store" }
func (s *Store) teamsKey() string { return s.prefix + ":teams" }
func (s *Store) channel() string  { return s.prefix + ":events" }

// teamKey returns a key of the team, with its hash tag.
func (s *Store) teamKey(team identity.Team, name string) string {
	return s.prefix + ":{" + string(team) + "}:" + name
}

func (s *Store) latchKey(key rollout.LatchKey) string {
	return s.teamKey(key.Team, "latch:"+key.Run)
}

// latchedKeys are the keys by which the latches of a team are counted: those that
// are enforced, and the others.
func (s *Store) latchedKeys(team identity.Team) []string {
	return []string{s.teamKey(team, "latched:enforced"), s.teamKey(team, "latched:unenforced")}
}

// unavailable wraps what went wrong, and returns nil for nil. Replies of the
// server (a wrong password, LOADING, READONLY) count like a lost connection:
// the store cannot be used, and the text says why and, where that is known, what
// to do.
func unavailable(what string, err error) error {
	if err == nil {
		return nil
	}
	if do := advice(err); do != "" {
		return fmt.Errorf("%w: %s: %w (%s)", rollout.ErrUnavailable, what, err, do)
	}
	return fmt.Errorf("%w: %s: %w", rollout.ErrUnavailable, what, err)
}
