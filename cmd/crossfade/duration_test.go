package main

import (
	"testing"
	"time"
)

func TestTimeSpansAreReadAsPeopleSayThem(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"7d": 7 * day, "36h": 36 * time.Hour, "1d12h": 36 * time.Hour, "90m": 90 * time.Minute, "2w": 14 * day, "0d1h": time.Hour, "366d": 366 * day,
	} {
		if got, err := parseDays(text); err != nil || got != want {
			t.Errorf("%q is %s, %v; want %s", text, got, err, want)
		}
	}
	const says = "must be a time span like 7d or 36h, in whole numbers and without a sign, at most 366d"
	for _, text := range []string{
		"", "d", "7", "0d", "-7d", "+7d", "7d-1h", "7d+1h", "-1h", "1.5d", "7.0d", ".5d", "1d1.5h", "367d", "365d25h", "7 d", "7dd", "week",
		"99999999999999999999d", "1d9999999h", "366d1ns",
	} {
		if got, err := parseDays(text); err == nil || err.Error() != says {
			t.Errorf("%q is read as %s, %v", text, got, err)
		}
	}
}

func FuzzDays(f *testing.F) {
	for _, text := range []string{"7d", "1d12h", "36h", "-1d", "+1d", "1.5d", "d", "9223372036s"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if got, err := parseDays(text); err == nil && (got <= 0 || got > 366*24*time.Hour || text[0] < '0' || text[0] > '9') {
			t.Errorf("%q is read as %s", text, got)
		}
	})
}
