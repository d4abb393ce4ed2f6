package config_test

import (
	"strings"
	"testing"
	"time"

	"crossfade/config"
)

func TestDurationsTakeDays(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"30s": 30 * time.Second, "5m": 5 * time.Minute, "1h30m": 90 * time.Minute, "1.5h": 90 * time.Minute, "0": 0, "0s": 0,
		"14d": 14 * day, "1d12h": 36 * time.Hour, "0.5d": 12 * time.Hour, "2w": 14 * day, "-7d": -7 * day,
		"106751d": 106751 * day, // the most that fits
	} {
		if got, err := config.ParseDuration(text); err != nil || got != want {
			t.Errorf("%q: got %s, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "14", "d", "14 d", "14D", "14days", "1y", "1d-12h", "106752d", "99999999999999999999d", "14d ", "1d12", "."} {
		got, err := config.ParseDuration(text)
		if err == nil {
			t.Errorf("%q is read as %s", text, got)
		} else if err.Error() != "must be a duration like 30s, 5m or 14d" {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// Every source takes days, and bounds hold for them too.
func TestDaysCountWhereverADurationIsConfigured(t *testing.T) {
	dir := t.TempDir()
	for name, src := range map[string]config.Source{
		"in a file":       {File: write(t, dir, "days.yaml", "upstream: http://127.0.0.1:1\naudit: { max_age: 14d }\n")},
		"in the variable": {File: write(t, dir, "none.yaml", "upstream: http://127.0.0.1:1\n"), Env: []string{"CROSSFADE_AUDIT_MAX_AGE=14d"}},
		"on command line": {File: write(t, dir, "none.yaml", "upstream: http://127.0.0.1:1\n"), Flags: map[string]any{"audit.max_age": "1w7d"}},
	} {
		if got := load(t, src).Audit.MaxAge; got != 14*24*time.Hour {
			t.Errorf("%s: %s", name, got)
		}
	}
	wrong := mistakes(t, config.Source{File: write(t, dir, "much.yaml", "upstream: http://127.0.0.1:1\naudit: { max_age: 367d }\n")})
	if len(wrong) != 1 || wrong[0].Key != "audit.max_age" || !strings.HasSuffix(wrong[0].Message, `from 1m to 366d, not "367d"`) {
		t.Errorf("got %v", wrong)
	}
}

// FuzzParseDuration holds the longer language to the shorter one: whatever Go
// reads means the same here.
func FuzzParseDuration(f *testing.F) {
	for _, seed := range []string{"14d", "1d12h", "1.5h", "-7d", "0", "9223372036854775807ns", "106751d23h47m16.854775807s", "1µs", "+1w", ".5d"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := config.ParseDuration(text)
		if err != nil && got != 0 {
			t.Errorf("%q: %s beside an error", text, got)
		}
		if want, plain := time.ParseDuration(text); plain == nil && (err != nil || got != want) {
			t.Errorf("%q: got %s, %v, want %s", text, got, err, want)
		}
		if err == nil && got < 0 && !strings.HasPrefix(text, "-") {
			t.Errorf("%q is negative: %s", text, got)
		}
		if again, err := config.ParseDuration(got.String()); err != nil || again != got {
			t.Errorf("%s does not read back: %s, %v", got, again, err)
		}
	})
}
