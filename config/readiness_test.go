package config_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"crossfade/config"
)

func TestSharesAreRatiosOrPercentages(t *testing.T) {
	dir := t.TempDir()
	file := write(t, dir, "c.yaml", "upstream: http://127.0.0.1:1\n")
	for text, want := range map[string]config.Share{
		"0.001": 0.001, "0.1%": 0.001, "1e-3": 0.001, "1%": 0.01, ".5%": 0.005, "0.29%": 0.0029, "50%": 0.5, "+0.5": 0.5,
	} {
		c := load(t, config.Source{File: file, Env: []string{"CROSSFADE_READINESS_MISSING=" + text}})
		if c.Readiness.Missing != want {
			t.Errorf("%q is read as %v, want %v", text, c.Readiness.Missing, want)
		}
	}
	for _, text := range []string{"51%", "%", "1%%", "1 %", "-1%", "0", "1e-1%", "NaN", "inf", "0x1p-4", "0_1", "1e999", "one"} {
		wrong := mistakes(t, config.Source{File: file, Env: []string{"CROSSFADE_READINESS_MISSING=" + text}})
		if len(wrong) != 1 || !strings.HasPrefix(wrong[0].Message, "must be a share like 0.01 or 1% from 0.00001 to 0.5, not ") {
			t.Errorf("%q: %v", text, wrong)
		}
	}
}

// Each limit has a default, a range, and a way in which a team can make it
// stricter.
func TestEachLimitCanBeMadeStricter(t *testing.T) {
	limits, defaults := reflect.TypeFor[config.Limits](), reflect.ValueOf(config.Default().Readiness.Limits)
	for i := range limits.NumField() {
		f := limits.Field(i)
		if way := f.Tag.Get("stricter"); way != "more" && way != "less" {
			t.Errorf("%s is stricter when it is %q", f.Name, way)
		}
		if f.Tag.Get("range") == "" || defaults.Field(i).IsZero() {
			t.Errorf("%s has no range or no default", f.Name)
		}
	}
}

// FuzzShare reads whatever a variable holds: a share within its range, or a
// mistake that says what one looks like.
func FuzzShare(f *testing.F) {
	for _, seed := range []string{"0.5", "99%", "1e-2", "-0", "0.1%", "NaN", "0x1p-2", "1_0", "50.000000000000001%", "1e-400", "٣%"} {
		f.Add(seed)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		src := config.Source{Dir: dir, Partial: true, Flags: map[string]any{"readiness.tokens_sent": text}}
		c, err := config.Load(src)
		var wrong config.Errors
		switch {
		case errors.As(err, &wrong):
			if len(wrong) != 1 || wrong[0].Key != "readiness.tokens_sent" {
				t.Errorf("%q: %v", text, err)
			}
		case err != nil:
			t.Fatal(err)
		case !(c.Readiness.TokensSent >= 0 && c.Readiness.TokensSent <= 1):
			t.Errorf("%q is read as %v", text, c.Readiness.TokensSent)
		}
	})
}
