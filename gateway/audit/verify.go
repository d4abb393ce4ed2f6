package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What is a kind of finding.
type What string

// The findings.
const (
	// Altered: a line is not the one that the next line, or the store, names.
	Altered What = "altered"
	// Removed: lines are missing between two that are there.
	Removed What = "removed"
	// Reordered: a line stands behind one that came after it.
	Reordered What = "reordered"
	// Repeated: a line has the number of one that was there already.
	Repeated What = "repeated"
	// Truncated: lines at the end, or at the beginning of a file, are missing.
	Truncated What = "truncated"
	// Torn: bytes that are no line, and that no line accounts for.
	Torn What = "torn"
	// Replaced: the store knows another chain of the same file, of which there
	// is no line.
	Replaced What = "replaced"
)

// Finding is one break of a chain.
type Finding struct {
	File    string `json:"file"`
	Line    int    `json:"line"` // from 1; 0 for the file as a whole
	Replica string `json:"replica,omitempty"`
	// Seq is the number of the line that is wrong, or of the first one missing.
	Seq  int64  `json:"seq,omitempty"`
	What What   `json:"what"`
	Text string `json:"text"`
}

// Chain is what was found of one replica.
type Chain struct {
	Replica string    `json:"replica"`
	First   int64     `json:"first"`
	Last    int64     `json:"last"`
	From    time.Time `json:"from"`
	To      time.Time `json:"to"`
	Lines   int64     `json:"lines"`
	Files   []string  `json:"files"`
	// Torn and Lost are what the trail itself tells: tails of crashes, and
	// records that found no room.
	Torn int   `json:"torn"`
	Lost int64 `json:"lost"`
	// Head is how far the store knows the chain; 0 when it was not asked or
	// knows none.
	Head int64 `json:"head,omitempty"`
}

// Report is the result of Verify.
type Report struct {
	Chains   []Chain   `json:"chains"`
	Findings []Finding `json:"findings"`
	// More are the findings beyond MaxFindings.
	More int `json:"more,omitempty"`
	// Unseen are the replicas that the store knows and no file holds.
	Unseen []string `json:"unseen,omitempty"`
}

// Intact reports whether no break was found.
func (r Report) Intact() bool { return len(r.Findings) == 0 }

const (
	// MaxFindings bounds a report.
	MaxFindings = 1000
	// maxGaps bounds how many gaps of a chain are followed at once; of further
	// ones no line is recognised as reordered.
	maxGaps = 1000
)

// Verify reads files and looks for every break of the chains in them, one chain
// a replica. It sorts the files of a chain by itself and changes nothing. heads,
// if not nil, are what the store knows; without them, nobody can tell whether
// lines were taken off the end, or all of them written anew. Its memory is
// bounded by the number of files and replicas. The error is a file that cannot
// be read.
func Verify(files []string, heads map[string]Head) (Report, error) {
	v := &verifier{heads: heads}
	parts := make(map[string][]part) // by replica
	var seen []os.FileInfo
	for _, name := range files {
		info, err := os.Stat(name)
		if err != nil {
			return Report{}, fmt.Errorf("verify the audit trail: %w", err)
		}
		if slices.ContainsFunc(seen, func(other os.FileInfo) bool { return os.SameFile(info, other) }) {
			continue
		}
		seen = append(seen, info)
		if err := v.survey(name, parts); err != nil {
			return Report{}, err
		}
	}
	for _, replica := range slices.Sorted(maps.Keys(parts)) {
		of := parts[replica]
		slices.SortStableFunc(of, func(a, b part) int { return int(min(max(a.first-b.first, -1), 1)) })
		if err := v.chain(replica, of); err != nil {
			return Report{}, err
		}
	}
	v.unseen(parts)
	slices.SortStableFunc(v.report.Findings, func(a, b Finding) int {
		if a.File != b.File {
			return slices.Index(files, a.File) - slices.Index(files, b.File)
		}
		return a.Line - b.Line
	})
	return v.report, nil
}

type verifier struct {
	heads  map[string]Head
	report Report
}

// part is a file with lines of one replica.
type part struct {
	file  string
	first int64
}

func (v *verifier) add(f Finding) {
	if len(v.report.Findings) >= MaxFindings {
		v.report.More++
		return
	}
	v.report.Findings = append(v.report.Findings, f)
}

// each calls use with every line of a file.
func each(name string, use func(line) error) error {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("read the audit trail: %w", err)
	}
	defer func() { _ = f.Close() }() // nothing was written
	for all := newLines(f); ; {
		l, err := all.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = use(l)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
}

// survey finds the replicas of a file, and what in it is no line and is not
// accounted for by the line behind it.
func (v *verifier) survey(name string, parts map[string][]part) error {
	first := make(map[string]int64)
	var bad struct {
		line
		lines int
	}
	report := func(text string) {
		v.add(Finding{File: name, Line: bad.number, What: Torn, Text: text})
		bad.lines = 0
	}
	err := each(name, func(l line) error {
		if !l.ok {
			if bad.lines++; bad.lines == 1 {
				bad.line = l
				bad.text = nil
			}
			return nil
		}
		if bad.lines > 0 {
			var t torn
			known := l.header.Kind == KindTorn && json.Unmarshal(l.text, &t) == nil
			switch {
			case known && bad.lines == 1 && t.Bytes == bad.size && t.SHA256 == hex.EncodeToString(bad.hash[:]):
				bad.lines = 0
			case known:
				report(fmt.Sprintf("%s that a crash is said to have left, but line %d accounts for %d bytes of one line: something was changed there", several(bad.lines, "broken line"), l.number, t.Bytes))
			default:
				report(several(bad.lines, "line") + " that the trail did not write, or that was damaged since: the line behind accounts for no crash")
			}
		}
		if at, ok := first[l.header.Replica]; !ok || l.header.Seq < at {
			first[l.header.Replica] = l.header.Seq
		}
		return nil
	})
	if err != nil {
		return err
	}
	if bad.lines > 0 {
		report("the file ends within a line: it was cut off, or a crash tore it and the gateway has not started since (it writes whole lines: if it runs, verify once more)")
	}
	for replica, at := range first {
		parts[replica] = append(parts[replica], part{name, at})
	}
	return nil
}

// place is a line that was read.
type place struct {
	file string
	line int
	seq  int64
	hash [sha256.Size]byte
}

// gap is a range of numbers that were skipped before a line.
type gap struct {
	from, to int64
	at       place
}

// run is a stretch of lines that stand where they do not belong, one behind the
// other: a file that was copied is one finding.
type run struct {
	what        What
	first, last place
}

// takes adds a line, if it continues the run.
func (r *run) takes(p place, what What) bool {
	if r.what != what || p.file != r.last.file || p.line != r.last.line+1 || p.seq != r.last.seq+1 {
		return false
	}
	r.last = p
	return true
}

// tell reports the run, if there is one, behind line seq.
func (r *run) tell(find func(at place, seq int64, what What, format string, args ...any), seq int64) {
	which := fmt.Sprintf("line %d", r.first.seq)
	if r.last.seq > r.first.seq {
		which = fmt.Sprintf("lines %d to %d", r.first.seq, r.last.seq)
	}
	switch r.what {
	case Reordered:
		find(r.first, r.first.seq, Reordered, "%s of the chain behind line %d: moved there", which, seq)
	case Repeated:
		find(r.first, r.first.seq, Repeated, "%s of the chain once more: copied, or put in", which)
	}
}

// chain follows the lines of one replica through its files.
func (v *verifier) chain(replica string, files []part) error {
	c := Chain{Replica: replica}
	head, hasHead := v.heads[replica]
	if hasHead {
		c.Head = head.Seq
	}
	var last place
	var gaps []gap
	var astray run
	find := func(at place, seq int64, what What, format string, args ...any) {
		v.add(Finding{File: at.file, Line: at.line, Replica: replica, Seq: seq, What: what, Text: fmt.Sprintf(format, args...)})
	}
	for _, p := range files {
		c.Files = append(c.Files, p.file)
		err := each(p.file, func(l line) error {
			if !l.ok || l.header.Replica != replica {
				return nil
			}
			here := place{p.file, l.number, l.header.Seq, l.hash}
			c.Lines++
			c.note(l)
			var b behind
			if l.header.Kind == KindBehind && json.Unmarshal(l.text, &b) == nil {
				find(here, b.Found+1, Truncated, "the gateway found its file cut off behind line %d when it started: the store knew line %d (%s)", b.Found, b.Head, b.Hash)
			}
			if hasHead && here.seq == head.Seq && hex.EncodeToString(here.hash[:]) != head.Hash {
				find(here, here.seq, Altered, "line %d of the chain is not the one that was checkpointed on %s: it, or the whole chain up to it, was written anew", here.seq, head.At.Format(time.RFC3339))
			}
			switch {
			case last.seq == 0:
				c.First = here.seq
				switch {
				case here.seq == 1 && strings.Trim(l.header.Prev, "0") != "":
					find(here, 1, Altered, "the first line of the chain names one before it")
				case here.seq > 1 && l.header.Kind != KindRotate:
					find(here, 1, Truncated, "the chain begins with line %d, with which no file begins: lines before it were removed", here.seq)
				}
			case here.seq == last.seq+1:
				if l.header.Prev != hex.EncodeToString(last.hash[:]) {
					find(last, last.seq, Altered, "line %d of the chain is not the one that line %d (%s:%d) was written behind: one of the two was changed", last.seq, here.seq, here.file, here.line)
				}
			case here.seq > last.seq+1:
				if len(gaps) < maxGaps {
					gaps = append(gaps, gap{last.seq + 1, here.seq - 1, here})
				} else {
					find(here, last.seq+1, Removed, "%s missing before this line: removed", missing(last.seq+1, here.seq-1))
				}
			default:
				what := Repeated
				if fill(&gaps, here.seq) {
					what = Reordered
				}
				if !astray.takes(here, what) {
					astray.tell(find, last.seq)
					astray = run{what: what, first: here, last: here}
				}
				return nil // the chain goes on from where it was
			}
			astray.tell(find, last.seq)
			astray = run{}
			last = here
			return nil
		})
		if err != nil {
			return err
		}
	}
	astray.tell(find, last.seq)
	for _, g := range gaps {
		find(g.at, g.from, Removed, "%s missing before this line: removed", missing(g.from, g.to))
	}
	c.Last = last.seq
	if hasHead && head.Seq > last.seq {
		find(last, last.seq+1, Truncated, "the trail ends with line %d, but line %d was checkpointed on %s: %s cut off, or in a file that was not named", last.seq, head.Seq, head.At.Format(time.RFC3339), missing(last.seq+1, head.Seq))
	}
	v.report.Chains = append(v.report.Chains, c)
	return nil
}

// note keeps what a line tells about the chain.
func (c *Chain) note(l line) {
	if c.Lines == 1 {
		c.From = l.header.Time
	}
	c.To = l.header.Time
	switch l.header.Kind {
	case KindTorn:
		c.Torn++
	case KindLost:
		var n lost
		if json.Unmarshal(l.text, &n) == nil {
			c.Lost += n.Records
		}
	}
}

// fill takes a number out of the gaps, and reports whether it was missing.
func fill(gaps *[]gap, seq int64) bool {
	for i, g := range *gaps {
		if seq < g.from || seq > g.to {
			continue
		}
		var rest []gap
		if g.from < seq {
			rest = append(rest, gap{g.from, seq - 1, g.at})
		}
		if seq < g.to {
			rest = append(rest, gap{seq + 1, g.to, g.at})
		}
		*gaps = slices.Replace(*gaps, i, i+1, rest...)
		return true
	}
	return false
}

// unseen looks at the heads of chains that no file holds a line of. One that
// was written to the same file of the same machine as a chain that is there was
// replaced by it.
func (v *verifier) unseen(parts map[string][]part) {
	for _, replica := range slices.Sorted(maps.Keys(v.heads)) {
		if _, there := parts[replica]; there {
			continue
		}
		head := v.heads[replica]
		i := slices.IndexFunc(v.report.Chains, func(c Chain) bool {
			other, ok := v.heads[c.Replica]
			return ok && head.File != "" && other.File == head.File && other.Host == head.Host
		})
		if i < 0 {
			v.report.Unseen = append(v.report.Unseen, replica)
			continue
		}
		c := v.report.Chains[i]
		v.add(Finding{File: c.Files[0], Replica: replica, Seq: 1, What: Replaced, Text: fmt.Sprintf(
			"%s on %s held the chain %s up to line %d (%s); it is gone, and the chain %s was begun in its place: if the old files were put away, name them, too",
			head.File, head.Host, replica, head.Seq, head.At.Format(time.RFC3339), c.Replica)})
	}
}

func missing(from, to int64) string {
	if from == to {
		return fmt.Sprintf("line %d of the chain is", from)
	}
	return fmt.Sprintf("lines %d to %d of the chain are", from, to)
}

func several(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}
