package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Heads keeps, outside of this machine, how far each chain has come. It is
// implemented by *redisstore.Store; its methods are safe for concurrent use.
type Heads interface {
	// PutHead keeps the head of a replica, unless the one that is kept has a
	// higher seq: then it stays and the error says so.
	PutHead(ctx context.Context, replica string, seq int64, head string) error
	// Heads returns the heads of all replicas.
	Heads(ctx context.Context) (map[string]string, error)
}

// Head is how far the chain of a replica has come.
type Head struct {
	Replica string    `json:"replica"`
	Seq     int64     `json:"seq"`
	Hash    string    `json:"hash"` // SHA-256 of line Seq, in hex
	Host    string    `json:"host"`
	File    string    `json:"file,omitempty"` // absolute, "" without one
	At      time.Time `json:"at"`
}

// ParseHeads reads what Heads.Heads returns.
func ParseHeads(texts map[string]string) (map[string]Head, error) {
	heads := make(map[string]Head, len(texts))
	for replica, text := range texts {
		var h Head
		if err := json.Unmarshal([]byte(text), &h); err != nil || h.Replica != replica || h.Seq < 1 {
			return nil, fmt.Errorf("the stored head of replica %q is damaged", replica)
		}
		heads[replica] = h
	}
	return heads, nil
}

const (
	// checkpointEvery is how often a head that moved is stored.
	checkpointEvery = 5 * time.Second
	// checkpointTimeout bounds one talk with the store.
	checkpointTimeout = 2 * time.Second
)

// checkpoint stores the head of the chain, beside the writer, so that no store
// holds up a line.
type checkpoint struct {
	trail  *Trail
	heads  Heads
	health health
	// resumed is where the chain stood at the start; asked tells that it was
	// compared with the store.
	resumed Head
	asked   bool
	stored  int64

	mu   sync.Mutex
	head Head // the last line that is on disk
}

func newCheckpoint(t *Trail, o Options, resumed Head) *checkpoint {
	return &checkpoint{trail: t, heads: o.Heads, health: health{report: o.Report}, resumed: resumed}
}

// set tells the head. A nil checkpoint forgets it.
func (c *checkpoint) set(h Head) {
	if c != nil {
		c.mu.Lock()
		c.head = h
		c.mu.Unlock()
	}
}

func (c *checkpoint) run() {
	defer close(c.trail.ended)
	ticker := time.NewTicker(checkpointEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			c.health.note(c.store())
		case <-c.trail.done:
			c.health.note(c.store())
			return
		}
	}
}

// store compares with the store once, and then stores the head if it moved.
func (c *checkpoint) store() error {
	ctx, cancel := context.WithTimeout(context.Background(), checkpointTimeout)
	defer cancel()
	if !c.asked {
		if err := c.compare(ctx); err != nil {
			return err
		}
	}
	c.mu.Lock()
	head := c.head
	c.mu.Unlock()
	if head.Seq <= c.stored {
		return nil
	}
	head.At = moment(time.Now())
	text, err := json.Marshal(head)
	if err != nil {
		return fmt.Errorf("checkpoint the audit trail: %w", err)
	}
	if err := c.heads.PutHead(ctx, head.Replica, head.Seq, string(text)); err != nil {
		return fmt.Errorf("checkpoint the audit trail: %w", err)
	}
	c.stored = head.Seq
	return nil
}

// compare looks whether the file was cut off while nobody wrote it. What is
// found goes into the chain, where it stays when the head is overtaken.
func (c *checkpoint) compare(ctx context.Context) error {
	texts, err := c.heads.Heads(ctx)
	if err != nil {
		return fmt.Errorf("read the checkpoints of the audit trail: %w", err)
	}
	c.asked = true
	text, ok := texts[c.resumed.Replica]
	if !ok {
		return nil
	}
	heads, err := ParseHeads(map[string]string{c.resumed.Replica: text})
	if err != nil {
		return err
	}
	known := heads[c.resumed.Replica]
	if known.Seq < c.resumed.Seq || known.Seq == c.resumed.Seq && known.Hash == c.resumed.Hash {
		return nil
	}
	c.trail.push(item{behind: &known})
	return fmt.Errorf("%w: the store knows line %d of %s, the file ended with line %d: lines were lost or taken away; run `crossfade audit verify`",
		errCutOff, known.Seq, known.Replica, c.resumed.Seq)
}

var errCutOff = errors.New("the audit trail was cut off")

// health reports changes: the first failure, and nil when it is over. It is for
// one goroutine.
type health struct {
	report  func(error) // may be nil
	failing bool
}

func (h *health) note(err error) {
	if h.report != nil && (err != nil) != h.failing {
		h.report(err)
	}
	h.failing = err != nil
}
