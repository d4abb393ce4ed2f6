package audit

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"crossfade/gateway"
)

// maxStrangers bounds how many are told apart; who writes the trail bounds them
// by minute, not by month.
const maxStrangers = 10_000

// Stranger is what is known of requests of nobody that were let pass and that
// mode enforce would have refused.
type Stranger struct {
	Reason string `json:"reason"`
	Scheme string `json:"scheme"`
	// Client is the address; "" for many.
	Client string `json:"client,omitempty"`
	// Says is what the credential says of itself, for which nobody vouches.
	Says     string    `json:"says,omitempty"`
	Requests int64     `json:"requests"`
	Last     time.Time `json:"last"`
}

// Strangers reads from files who would have been refused since a time, of those
// that the gateway cannot name, most requests first. It believes the files: Verify
// says whether they are to be believed. broken counts the lines that cannot be
// read and that no crash explains.
func Strangers(files []string, since time.Time) (list []Stranger, broken int, err error) {
	found := make(map[Stranger]*Stranger)
	for _, name := range files {
		info, err := os.Stat(name)
		if err != nil {
			return nil, 0, fmt.Errorf("read the audit trail: %w", err)
		}
		if info.Mode().IsRegular() && info.ModTime().Before(since.Add(-time.Minute)) {
			continue // a minute is for a clock that was set
		}
		bad := 0
		err = each(name, func(l line) error {
			var u Use
			switch {
			case l.ok && l.header.Kind == KindTorn && bad > 0:
				bad-- // it accounts for the line before
			case l.ok && l.header.Kind != KindUse && l.header.Kind != KindCount:
			case !l.ok || json.Unmarshal(l.text, &u) != nil:
				bad++
			case u.Principal == "" && u.Outcome == string(gateway.WouldRefuse) && !l.header.Time.Before(since):
				add(found, u, l.header.Time)
			}
			return nil
		})
		if err != nil {
			return nil, 0, err
		}
		broken += bad
	}
	list = make([]Stranger, 0, len(found))
	for _, s := range found {
		list = append(list, *s)
	}
	slices.SortFunc(list, func(a, b Stranger) int {
		return cmp.Or(cmp.Compare(b.Requests, a.Requests), strings.Compare(a.Reason, b.Reason),
			strings.Compare(a.Client, b.Client), strings.Compare(a.Says, b.Says), strings.Compare(a.Scheme, b.Scheme))
	})
	return list, broken, nil
}

func add(found map[Stranger]*Stranger, u Use, at time.Time) {
	key := Stranger{Reason: u.Reason, Scheme: u.Scheme, Client: u.Client}
	if u.Unverified != nil {
		key.Says = u.Unverified.Subject
	}
	if found[key] == nil && len(found) >= maxStrangers {
		key.Client, key.Says = "", ""
	}
	s := found[key]
	if s == nil {
		s = &Stranger{Reason: key.Reason, Scheme: key.Scheme, Client: key.Client, Says: key.Says}
		found[key] = s
	}
	s.Requests += max(u.N, 1)
	if at.After(s.Last) {
		s.Last = at
	}
}
