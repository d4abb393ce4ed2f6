package config

import "strings"

// Nearest returns the candidate that was most likely meant by word, as in the
// suggestions of mistakes, or "".
func Nearest(word string, candidates []string) string { return nearest(word, candidates) }

// nearest returns the candidate that was most likely meant by word, or "".
// Case and the choice of "-" or "_" do not count, otherwise the edit distance
// decides; one edit in four letters (and one more) is the most that still
// looks like a slip. A word that begins exactly one candidate means it too.
func nearest(word string, candidates []string) string {
	best, distance := "", 2+len(word)/4
	plain := strings.NewReplacer("-", "_", " ", "_")
	word = strings.ToLower(plain.Replace(word))
	begins := ""
	for _, c := range candidates {
		lower := strings.ToLower(plain.Replace(c))
		if d := edits(word, lower, distance); d < distance && d < len(c) {
			best, distance = c, d
		}
		if len(word) >= 3 && strings.HasPrefix(lower, word) {
			if begins != "" {
				begins = "\x00"
			} else {
				begins = c
			}
		}
	}
	if best == "" && begins != "\x00" {
		return begins
	}
	return best
}

// edits is the optimal string alignment distance of a and b: insertions,
// deletions, substitutions and swaps of neighbours. It may stop at limit.
func edits(a, b string, limit int) int {
	if abs(len(a)-len(b)) >= limit {
		return limit
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

func abs(n int) int { return max(n, -n) }
