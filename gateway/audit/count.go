package audit

import "time"

const (
	// StrangerLines is how many requests of nobody have a line of their own in
	// a minute.
	StrangerLines = 600
	// strangers is how many kinds of them are told apart by address in a minute.
	strangers = 256
	// maxCounts bounds the open counts.
	maxCounts = 4096
)

// count is a number of requests of one kind within a minute.
type count struct {
	key         record
	example     record // the first of them
	n           int64
	first, last time.Time
}

// counts are the open ones. They belong to the writer.
type counts struct {
	open map[record]*count
	// order is that of their beginning.
	order []*count

	// What strangers did in this minute.
	minute       int64
	lines, kinds int
}

func newCounts() *counts { return &counts{open: make(map[record]*count)} }

// line reports whether the request has a line of its own.
func (c *counts) line(r record) bool {
	if r.counted {
		return false
	}
	if r.principal != "" {
		return true
	}
	c.turn(r.minute)
	c.lines++
	return c.lines <= StrangerLines
}

// turn begins a minute anew.
func (c *counts) turn(minute int64) {
	if minute > c.minute {
		c.minute, c.lines, c.kinds = minute, 0, 0
	}
}

// add counts a request. When there is no room for another count, the oldest
// one is closed early and returned.
func (c *counts) add(r record) (early *count) {
	key := r.key(true)
	found := c.open[key]
	if found == nil && r.principal == "" {
		c.turn(r.minute)
		if c.kinds++; c.kinds > strangers {
			key = r.key(false)
			found = c.open[key]
		}
	}
	if found == nil {
		if len(c.order) >= maxCounts {
			early = c.order[0]
			delete(c.open, early.key)
			c.order[0] = nil
			c.order = c.order[1:]
		}
		found = &count{key: key, example: r, first: r.at, last: r.at}
		c.open[key] = found
		c.order = append(c.order, found)
	}
	found.n++
	if r.at.Before(found.first) {
		found.first = r.at
	}
	if r.at.After(found.last) {
		found.last = r.at
	}
	return early
}

// close takes out the counts of minutes before this one.
func (c *counts) close(minute int64) []*count {
	var closed []*count
	open := c.order[:0:0]
	for _, n := range c.order {
		if n.key.minute < minute {
			closed = append(closed, n)
			delete(c.open, n.key)
		} else {
			open = append(open, n)
		}
	}
	if len(closed) > 0 {
		c.order = open
	}
	return closed
}

// use lays a count out: what its requests have in common, and what the first of
// them was like.
func (n *count) use() Use {
	r := n.key
	r.trace, r.configuration, r.percent = n.example.trace, n.example.configuration, n.example.percent
	r.governing.detail, r.candidate.detail = n.example.governing.detail, n.example.candidate.detail
	if n.example.principal != "" {
		r.client, r.pipeline = n.example.client, n.example.pipeline
	}
	u := r.use()
	u.N, u.First = n.n, moment(n.first)
	return u
}
