package demo

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"crossfade/gateway/luigi/captures"
)

// maxPlayers bounds how many workers the stand-in remembers; the ones that
// were silent longest are forgotten first.
const maxPlayers = 1024

// part is one recorded worker.
type part struct {
	play    *play
	worker  string             // its recorded name
	replies map[string][]reply // by method, in recorded order
}

// play is one recording: workers that ran together.
type play struct {
	parts []*part
	tasks map[string]string // by stem: recorded ids
}

// cast is one performance of a play: who plays which part, by recorded name, and
// under which ids its tasks are known, by recorded id.
type cast map[string]string

// casting is one worker's part in a performance.
type casting struct {
	part *part
	cast cast
	next map[string]int // by method: how many replies were given
}

// casts gives parts to workers as they come.
type casts struct {
	openings map[string][]*part // by the stem of the first task that a worker registered

	mu      sync.Mutex
	workers *simplelru.LRU[string, *casting]
	open    *simplelru.LRU[openCast, cast] // performances with parts left
}

// openCast says which performance a worker may join.
type openCast struct {
	player string
	play   *play
}

func newCasts(recordings ...string) (*casts, error) {
	c := &casts{openings: make(map[string][]*part)}
	for _, name := range recordings {
		exchanges, err := captures.Load(name)
		if err != nil {
			return nil, err
		}
		if err := c.add(exchanges); err != nil {
			return nil, fmt.Errorf("recording %s: %w", name, err)
		}
	}
	var err error
	if c.workers, err = simplelru.NewLRU[string, *casting](maxPlayers, nil); err != nil {
		return nil, err
	}
	c.open, err = simplelru.NewLRU[openCast, cast](maxPlayers, nil)
	return c, err
}

func (c *casts) add(exchanges []captures.Exchange) error {
	p := &play{tasks: make(map[string]string)}
	parts := make(map[string]*part)
	for _, e := range exchanges {
		form, err := url.ParseQuery(e.RequestBody)
		if err != nil {
			return fmt.Errorf("exchange %d: %w", e.Seq, err)
		}
		call, err := readCall(strings.TrimPrefix(e.Path, "/api/"), last(form["data"], "{}"))
		if err != nil {
			return fmt.Errorf("exchange %d: %w", e.Seq, err)
		}
		if call.worker == "" {
			continue // these calls all get the same answer
		}
		opening, isTask := stemOf(call.task)
		if isTask {
			p.tasks[opening] = call.task
		}
		who := parts[call.worker]
		if who == nil {
			if !isTask {
				return fmt.Errorf("exchange %d: a worker begins without registering a task", e.Seq)
			}
			who = &part{play: p, worker: call.worker, replies: make(map[string][]reply)}
			parts[call.worker] = who
			p.parts = append(p.parts, who)
			c.openings[opening] = append(c.openings[opening], who)
		}
		who.replies[call.method] = append(who.replies[call.method], reply{e.Status, e.ResponseHeaders, e.ResponseBody})
	}
	return nil
}

// answer gives a worker the next reply of its part. ok is false when it has
// none, or its part has no such call.
func (c *casts) answer(player string, call call) (found reply, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	who, ok := c.workers.Get(call.worker)
	if !ok {
		if who = c.engage(player, call); who == nil {
			return reply{}, false
		}
	}
	if stem, ok := stemOf(call.task); ok {
		if recorded, ok := who.part.play.tasks[stem]; ok {
			who.cast[recorded] = call.task
		}
	}
	replies := who.part.replies[call.method]
	if len(replies) == 0 {
		return reply{}, false
	}
	// A client that asks on after the end hears the last word again.
	at := min(who.next[call.method], len(replies)-1)
	who.next[call.method] = at + 1
	found = replies[at]
	found.body = who.cast.rename(found.body)
	return found, true
}

// engage gives a worker that registers the first task of a part that part, in
// a performance that still needs it or in a new one. nil: there is none.
func (c *casts) engage(player string, call call) *casting {
	opening, ok := stemOf(call.task)
	if call.method != "add_task" || !ok || len(c.openings[opening]) == 0 {
		return nil
	}
	fits := closest(c.openings[opening], call.worker)
	at := openCast{player, fits[0].play}
	running, _ := c.open.Get(at)
	free := slices.IndexFunc(fits, func(p *part) bool { return running[p.worker] == "" })
	if running == nil || free < 0 {
		running, free = cast{}, 0
		c.open.Add(at, running)
	}
	chosen := fits[free]
	running[chosen.worker] = call.worker
	taken := func(p *part) bool { return running[p.worker] != "" }
	if !slices.ContainsFunc(chosen.play.parts, func(p *part) bool { return !taken(p) }) {
		c.open.Remove(at)
	}
	who := &casting{part: chosen, cast: running, next: make(map[string]int)}
	c.workers.Add(call.worker, who)
	return who
}

// closest returns the parts whose recorded name ends most like the worker's:
// names end in the process id, which tells parts with the same first task
// apart as long as a renaming keeps it. All of them, when nothing tells.
func closest(parts []*part, worker string) []*part {
	var best []*part
	most := -1
	for _, p := range parts {
		switch n := commonEnd(p.worker, worker); {
		case n > most:
			best, most = []*part{p}, n
		case n == most:
			best = append(best, p)
		}
	}
	return best
}

// commonEnd counts the bytes that two names share at their end.
func commonEnd(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[len(a)-1-n] == b[len(b)-1-n] {
		n++
	}
	return n
}

// rename puts the players' names where the recorded ones stand. A part that
// nobody plays yet keeps its recorded name.
func (c cast) rename(body string) string {
	pairs := make([]string, 0, 2*len(c))
	for _, recorded := range slices.Sorted(maps.Keys(c)) {
		pairs = append(pairs, pythonString(recorded), pythonString(c[recorded]))
	}
	return strings.NewReplacer(pairs...).Replace(body)
}
