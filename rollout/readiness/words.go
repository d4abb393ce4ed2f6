package readiness

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// some joins the first of many names.
func some(names []string) string {
	const most = 3
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// somePairs joins the first of many accounts and pipelines, in order.
func somePairs(pairs map[pair]bool) string {
	var names []string
	for _, p := range slices.SortedFunc(maps.Keys(pairs), pair.compare) {
		names = append(names, p.String())
	}
	return some(names)
}

func countOf[K, V comparable](m map[K]V, what V) int {
	n := 0
	for _, v := range m {
		if v == what {
			n++
		}
	}
	return n
}

func share[N int | int64](part, all N) float64 {
	if all <= 0 {
		return 0
	}
	return float64(part) / float64(all)
}

// ofRuns is "1,240 of 1,245 runs (99.6%)".
func ofRuns(part, all int) string {
	return fmt.Sprintf("%s of %s (%s)", thousands(part), counted(all, "run"), ratio(share(part, all)))
}

// wereBad is "1 of 1,245 runs was bad".
func wereBad(bad, all int) string {
	verb := "were"
	if bad == 1 {
		verb = "was"
	}
	return fmt.Sprintf("%s of %s %s bad", thousands(bad), counted(all, "run"), verb)
}

// ratio writes a share in percent with as many digits as tell something. What is
// not all is never rounded to 100%, and what is something never to 0%.
func ratio(x float64) string {
	percent := x * 100
	switch {
	case percent <= 0:
		return "0%"
	case percent >= 100:
		return "100%"
	case percent < 0.001:
		return "under 0.001%"
	case percent > 99.9:
		return digits(math.Floor(percent*1000)/1000, 3)
	case percent < 1:
		return digits(percent, 3)
	default:
		return digits(percent, 1)
	}
}

// ratioUp writes a bound in percent with two digits, rounded up so that it stays
// one.
func ratioUp(x float64) string {
	return digits(math.Ceil(x*1e4-1e-9)/100, 2)
}

// digits writes a percentage with at most so many digits after the point.
func digits(percent float64, n int) string {
	text := strconv.FormatFloat(percent, 'f', n, 64)
	if strings.Contains(text, ".") {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	return text + "%"
}

// number is how many whole days there are; less than a day is written in smaller
// units.
func number(d time.Duration) string {
	switch {
	case d < time.Hour:
		return about(d)
	case d < day:
		return counted(int(d/time.Hour), "hour")
	}
	return strconv.Itoa(int(d / day))
}

// days is "21 days". Less than a day is written in smaller units.
func days(d time.Duration) string {
	if d < day {
		return about(d)
	}
	return counted(int(d/day), "day")
}

// about writes a duration in its largest unit.
func about(d time.Duration) string {
	switch {
	case d >= 2*day:
		return counted(int(d/day), "day")
	case d >= 2*time.Hour:
		return counted(int(d/time.Hour), "hour")
	case d >= 2*time.Minute:
		return counted(int(d/time.Minute), "minute")
	default:
		return counted(int(d/time.Second), "second")
	}
}

// counted is "1 run" or "1,240 runs".
func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return thousands(n) + " " + what + "s"
}

// thousands writes a number with commas.
func thousands(n int) string {
	text := strconv.Itoa(n)
	var b strings.Builder
	for i, digit := range text {
		if i > 0 && (len(text)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(digit)
	}
	return b.String()
}

// About writes a duration in its largest unit: "5 days".
func About(d time.Duration) string { return about(d) }

// Counted is "1 run" or "1,240 runs".
func Counted(n int, what string) string { return counted(n, what) }

// Ratio writes a share of 0 to 1 in percent. What is not all is never "100%", and
// what is something never "0%".
func Ratio(x float64) string { return ratio(x) }
