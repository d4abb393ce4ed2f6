package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"crossfade/config"
)

var knownTeams = []string{"billing", "data-eng", "growth", "ml-platform", "search"}

// teamFiles writes files into a directory and loads it.
func teamFiles(t *testing.T, files map[string]string) ([]config.TeamFile, config.Errors) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, mistakes, err := config.LoadTeamFiles(dir, config.TeamOptions{
		Teams: knownTeams, Platform: &config.Default().Readiness, Reasons: reasons, Now: now,
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range mistakes {
		mistakes[i].File = strings.TrimPrefix(mistakes[i].File, dir+"/")
	}
	for i := range got {
		got[i].File = strings.TrimPrefix(got[i].File, dir+"/")
	}
	return got, mistakes
}

func TestTeamFilesAreRead(t *testing.T) {
	got, mistakes := teamFiles(t, map[string]string{
		"data-eng.yaml": "# two weeks without a failure\npercent: 50\n",
		"billing.yaml": `percent: 10
reason: week 1
override: { percent: 10, reason: the two failing runs are a test }
apply_hours: ["Mon-Thu 09:00-16:00 Europe/Berlin", "Fri 09:00-12:00"]
brownouts:
  - { from: 2027-03-31T10:00:00Z, for: 30m, percent: 100 }
`,
		"growth.yaml": "retired: true\n",
		"ml-platform.yaml": `percent: 5
longest_cycle: 31d
limits: { window: 4w, missing: 0.05%, tokens_sent: 99%, clean_after: 6, bad_runs: 0.005, confidence: 99.9%, broken_a_day: 0.5, census_days: 3, indeterminate: 0.1%, soak_runs: 21, retire_after: 15d }
fixed:
  - { account: svc-train, pipeline: DailyReport, reason: aud_mismatch, at: 2026-11-28T12:00:00Z }
  - { account: svc-train, reason: expired_mid_run, at: 2026-11-01 }
`,
		".search.yaml.swp":   "not read",
		"README.md":          "not read",
		"ml-platform.yaml~":  "not read",
		".ml-platform.yaml":  "not read",
		"ml-platform.yaml.x": "not read",
	})
	if len(mistakes) > 0 {
		t.Errorf("mistakes: %v", mistakes)
	}
	want := []config.TeamFile{
		{
			Team: "billing", File: "billing.yaml", Line: 1, Percent: 10, Reason: "week 1",
			Override:   config.Override{Percent: 10, Reason: "the two failing runs are a test"},
			ApplyHours: []string{"Mon-Thu 09:00-16:00 Europe/Berlin", "Fri 09:00-12:00"},
			Brownouts:  []config.Brownout{{From: time.Date(2027, 3, 31, 10, 0, 0, 0, time.UTC), For: 30 * time.Minute, Percent: 100}},
		},
		{Team: "data-eng", File: "data-eng.yaml", Line: 2, Percent: 50},
		{Team: "growth", File: "growth.yaml", Percent: 100, Retired: true},
		{
			Team: "ml-platform", File: "ml-platform.yaml", Line: 1, Percent: 5, LongestCycle: 31 * 24 * time.Hour,
			Limits: config.Limits{
				Window: 28 * 24 * time.Hour, Missing: 0.0005, TokensSent: 0.99, CleanAfter: 6, BadRuns: 0.005, Confidence: 0.999,
				BrokenADay: 0.5, CensusDays: 3, Indeterminate: 0.001, SoakRuns: 21, RetireAfter: 15 * 24 * time.Hour,
			},
			Fixed: []config.Fixed{
				{Account: "svc-train", Pipeline: "DailyReport", Reason: "aud_mismatch", At: now},
				{Account: "svc-train", Reason: "expired_mid_run", At: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)},
			},
		},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(config.TeamFile{})); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	friday := time.Date(2026, 11, 27, 11, 0, 0, 0, time.UTC)
	for at, open := range map[time.Time]bool{friday: true, friday.Add(time.Hour): false, friday.Add(-21 * time.Hour): true} {
		if got[0].Open(at) != open || !got[1].Open(at) {
			t.Errorf("at %s: billing is open %t, data-eng %t", at, got[0].Open(at), got[1].Open(at))
		}
	}
}

// A mistake is named with file, line and key, and leaves the other teams.
func TestAMistakeInATeamFileLeavesTheOthers(t *testing.T) {
	for name, test := range map[string]struct{ file, text, want string }{
		"above 100":      {"data-eng.yaml", "percent: 101\n", "data-eng.yaml:1: percent: must be a whole number from 0 to 100, not \"101\""},
		"a percent sign": {"data-eng.yaml", "percent: 50%\n", "data-eng.yaml:1: percent: must be a whole number, not \"50%\""},
		"a fraction":     {"data-eng.yaml", "percent: 12.5\n", "data-eng.yaml:1: percent: must be a whole number, not \"12.5\""},
		"below 0":        {"data-eng.yaml", "percent: -1\n", "data-eng.yaml:1: percent: must be a whole number from 0 to 100, not \"-1\""},
		"no percentage":  {"data-eng.yaml", "reason: week 2\n", "data-eng.yaml: percent: is missing: write percent: 0, or what the team asks for"},
		"nothing at all": {"data-eng.yaml", "", "data-eng.yaml: is empty"},
		"a key that is not known": {
			"data-eng.yaml", "\npercnt: 50\n",
			"data-eng.yaml:2: percnt: unknown key (did you mean \"percent\"?)",
		},
		"a key twice":            {"data-eng.yaml", "percent: 5\npercent: 50\n", "data-eng.yaml:2: percent: stands twice, first on line 1"},
		"a team that is unknown": {"data-egn.yaml", "percent: 5\n", "data-egn.yaml: no principal is of a team \"data-egn\" (did you mean \"data-eng\"?)"},
		"a name that is no team": {"Data Eng.yaml", "percent: 5\n", "Data Eng.yaml: the name of a team's file must be a team id of 1 to 63 of a-z, 0-9, dot, underscore and hyphen that begins with a letter or digit"},
		"another ending":         {"data-eng.yml", "percent: 5\n", "data-eng.yml: is not read: a team's file ends in .yaml (did you mean \"data-eng.yaml\"?)"},
		"retired and not at 100": {"data-eng.yaml", "percent: 50\nretired: true\n", "data-eng.yaml:1: percent: is 50 and the team is retired, which means 100: remove one of the two"},
		"an override for nothing": {
			"data-eng.yaml", "percent: 50\noverride: { percent: 50 }\n",
			"data-eng.yaml:2: override: needs reason: an override is for one percentage and says why",
		},
		"hours that are none": {
			"data-eng.yaml", "percent: 50\napply_hours: [office]\n",
			"data-eng.yaml:2: apply_hours[0]: must be days, times and a time zone like \"Mon-Fri 09:00-16:00 Europe/Berlin\", not \"office\"",
		},
		"a brownout without a length": {
			"data-eng.yaml", "percent: 50\nbrownouts:\n  - { from: 2027-03-31T10:00:00Z, percent: 100 }\n",
			"data-eng.yaml:3: brownouts[0]: needs for: a brownout is like { from: 2027-03-31T10:00:00Z, for: 30m, percent: 100 }",
		},
		"more windows than are kept": {
			"data-eng.yaml", "percent: 50\nbrownouts:\n" + strings.Repeat("  - { from: 2027-03-31T10:00:00Z, for: 1h, percent: 100 }\n", 51),
			"data-eng.yaml:2: brownouts: has 51 windows, at most 50 are kept: remove those that have passed",
		},
		"limits that are looser than the platform's": {
			"data-eng.yaml", "percent: 50\nlimits:\n  window: 7d\n  missing: 1%\n  tokens_sent: 0\n  clean_after: 4\n  bad_runs: 0.02\n" +
				"  confidence: 99%\n  broken_a_day: 1.5\n  census_days: 1\n  indeterminate: 0.006\n  soak_runs: 0\n  retire_after: 13d\n",
			`data-eng.yaml:3: limits.window: is 7d, which is looser than the platform's 14d: a team can only be stricter
data-eng.yaml:4: limits.missing: is 0.01, which is looser than the platform's 0.001: a team can only be stricter
data-eng.yaml:5: limits.tokens_sent: is 0, which is looser than the platform's 0.99: a team can only be stricter
data-eng.yaml:6: limits.clean_after: is 4, which is looser than the platform's 5: a team can only be stricter
data-eng.yaml:7: limits.bad_runs: is 0.02, which is looser than the platform's 0.01: a team can only be stricter
data-eng.yaml:8: limits.confidence: is 0.99, which is looser than the platform's 0.995: a team can only be stricter
data-eng.yaml:9: limits.broken_a_day: is 1.5, which is looser than the platform's 1: a team can only be stricter
data-eng.yaml:10: limits.census_days: is 1, which is looser than the platform's 2: a team can only be stricter
data-eng.yaml:11: limits.indeterminate: is 0.006, which is looser than the platform's 0.005: a team can only be stricter
data-eng.yaml:12: limits.soak_runs: is 0, which is looser than the platform's 20: a team can only be stricter
data-eng.yaml:13: limits.retire_after: is 13d, which is looser than the platform's 14d: a team can only be stricter`,
		},
		"a limit that nothing could keep": {
			"data-eng.yaml", "percent: 50\nlimits: { missing: 0 }\n",
			"data-eng.yaml:2: limits.missing: must be a share like 0.01 or 1% from 0.00001 to 0.5, not \"0\"",
		},
		"a cycle of an hour": {
			"data-eng.yaml", "percent: 50\nlongest_cycle: 1h\n",
			"data-eng.yaml:2: longest_cycle: must be a duration like 30s, 5m or 14d from 1d to 35d, not \"1h\"",
		},
		"the cycle among the limits": {
			"data-eng.yaml", "percent: 50\nlimits: { longest_cycle: 31d }\n",
			"data-eng.yaml:2: limits.longest_cycle: unknown key (did you mean \"longest_cycle\"?)",
		},
		"a limit beside the limits": {
			"data-eng.yaml", "percent: 50\nwindow: 20d\n",
			"data-eng.yaml:2: window: unknown key (did you mean \"limits.window\"?)",
		},
		"more days of a census than the window has": {
			"data-eng.yaml", "percent: 50\nlimits: { census_days: 20 }\n",
			"data-eng.yaml:2: limits.census_days: asks for clean runs on 20 days, and only 14d of evidence count: lower it or lengthen the window",
		},
		"a repair of the future": {
			"data-eng.yaml", "percent: 50\nfixed:\n  - { account: svc-etl, reason: aud_mismatch, at: 2026-11-28T12:00:01Z }\n",
			"data-eng.yaml:3: fixed[0].at: is 2026-11-28T12:00:01Z, which is in the future: write when the repair was in place",
		},
		"a repair of nothing": {
			"data-eng.yaml", "percent: 50\nfixed:\n  - { pipeline: DailyReport }\n",
			"data-eng.yaml:3: fixed[0]: needs account, reason and at: a repair is like { account: svc-etl, pipeline: DailyReport, reason: aud_mismatch, at: 2027-03-31T10:00:00Z }",
		},
		"a repair of a reason that is none": {
			"data-eng.yaml", "percent: 50\nfixed:\n  - { account: svc-etl, reason: aud_mismach, at: 2026-11-28 }\n",
			"data-eng.yaml:3: fixed[0].reason: is \"aud_mismach\", which is no reason that a verdict can have (did you mean \"aud_mismatch\"?)",
		},
		"more repairs than are read": {
			"data-eng.yaml", "percent: 50\nfixed:\n" + strings.Repeat("  - { account: svc-etl, reason: aud_mismatch, at: 2026-11-28 }\n", 101),
			"data-eng.yaml:2: fixed: has 101 entries, at most 100 are read: remove those that are older than the window",
		},
		"brownouts that follow each other": {
			"data-eng.yaml", "percent: 50\nbrownouts:\n  - { from: 2027-03-31T10:00:00Z, for: 24h, percent: 100 }\n  - { from: 2027-04-01T10:00:00Z, for: 24h, percent: 100 }\n",
			"data-eng.yaml:4: brownouts[1]: makes the brownouts last longer than 1d in 7 days: that is a raise which no check was asked about. Shorten them, put them further apart, or raise percent",
		},
		"half a day every other day, not in their order": {
			"data-eng.yaml", "percent: 50\nbrownouts:\n  - { from: 2027-03-31, for: 12h, percent: 100 }\n  - { from: 2027-03-27, for: 12h, percent: 100 }\n  - { from: 2027-03-29, for: 12h, percent: 100 }\n",
			"data-eng.yaml:5: brownouts[2]: makes the brownouts last longer than 1d in 7 days: that is a raise which no check was asked about. Shorten them, put them further apart, or raise percent",
		},
		"a brownout of a week": {
			"data-eng.yaml", "percent: 50\nbrownouts:\n  - { from: 2027-03-31T10:00:00Z, for: 168h, percent: 100 }\n",
			"data-eng.yaml:3: brownouts[0].for: must be a duration like 30s, 5m or 14d from 1m to 24h, not \"168h\"",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, mistakes := teamFiles(t, map[string]string{test.file: test.text, "search.yaml": "percent: 1\n"})
			if diff := cmp.Diff(test.want, mistakes.Error()); diff != "" {
				t.Errorf("mistakes (-want +got):\n%s", diff)
			}
			if len(got) != 1 || got[0].Team != "search" {
				t.Errorf("the other team's file: %+v", got)
			}
		})
	}
	if _, _, err := config.LoadTeamFiles(filepath.Join(t.TempDir(), "rollout.d"), config.TeamOptions{}); err == nil || !strings.Contains(err.Error(), "rollout.d") {
		t.Errorf("a directory that is not there: %v", err)
	}
}

func TestBrownoutsOfADayInAWeekAreNoMistake(t *testing.T) {
	for name, windows := range map[string]string{
		"a day in each of two weeks": "  - { from: 2027-03-31, for: 24h, percent: 100 }\n  - { from: 2027-04-07, for: 24h, percent: 100 }\n",
		"half an hour on each day":   "  - { from: 2027-03-31, for: 30m, percent: 100 }\n  - { from: 2027-04-01, for: 30m, percent: 100 }\n",
		"two that overlap":           "  - { from: 2027-03-31T00:00:00Z, for: 20h, percent: 100 }\n  - { from: 2027-03-31T04:00:00Z, for: 20h, percent: 50 }\n",
	} {
		if _, mistakes := teamFiles(t, map[string]string{"data-eng.yaml": "percent: 50\nbrownouts:\n" + windows}); len(mistakes) > 0 {
			t.Errorf("%s: %v", name, mistakes)
		}
	}
}

func TestAnOverrideForAnotherPercentageIsTold(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"none":           {"percent: 50\n", ""},
		"for this one":   {"percent: 50\noverride: { percent: 50, reason: a test }\n", ""},
		"left over":      {"percent: 75\noverride:\n  reason: a test\n  percent: 50\n", "data-eng.yaml:4: override.percent: is 50 while percent is 75, so the override has no effect: it is for the raise to 50 alone. Remove it, or correct one of the two"},
		"and it lowers":  {"percent: 0\noverride: { percent: 50, reason: a test }\n", "data-eng.yaml:2: override.percent: is 50 while percent is 0, so the override has no effect: it is for the raise to 50 alone. Remove it, or correct one of the two"},
		"of the retired": {"retired: true\noverride: { percent: 50, reason: a test }\n", "data-eng.yaml:2: override.percent: is 50 while percent is 100, so the override has no effect: it is for the raise to 50 alone. Remove it, or correct one of the two"},
	} {
		got, mistakes := teamFiles(t, map[string]string{"data-eng.yaml": test.text})
		if len(got) != 1 || len(mistakes) > 0 {
			t.Errorf("%s: it must keep nobody from anything: %v", name, mistakes)
			continue
		}
		said := ""
		for _, w := range got[0].Warnings {
			w.File = filepath.Base(w.File)
			said += w.Error()
		}
		if said != test.want {
			t.Errorf("%s: told %q, want %q", name, said, test.want)
		}
	}
}

func TestACensusThatThePlatformAsksForInVainIsNoMistakeOfATeam(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "data-eng.yaml"), []byte("percent: 50\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	platform := config.Default().Readiness
	platform.Window, platform.LongestCycle = 20*time.Second, time.Second // as only a program can set them
	files, mistakes, err := config.LoadTeamFiles(dir, config.TeamOptions{Platform: &platform})
	if err != nil || len(mistakes) > 0 || len(files) != 1 {
		t.Errorf("%d files, mistakes %v, %v", len(files), mistakes, err)
	}
}

func TestTheDigestOfATeamFileIsOfWhatItAsksFor(t *testing.T) {
	digest := func(text string) string {
		got, mistakes := teamFiles(t, map[string]string{"data-eng.yaml": text})
		if len(got) != 1 {
			t.Fatalf("%q: %v", text, mistakes)
		}
		return got[0].Digest()
	}
	base := digest("percent: 50\noverride: { percent: 50, reason: a }\n")
	for _, same := range []string{
		"# comment\noverride: { reason: a, percent: 50 }\npercent: 50   # here too\n",
		"percent: 50\nreason: week 2\noverride: { percent: 50, reason: a }\napply_hours: [Mon 00:00-24:00]\n",
		"percent: 50\noverride: { percent: 50, reason: a }\nlongest_cycle: 31d\nlimits: { window: 20d }\nfixed: { account: svc-etl, reason: aud_mismatch, at: 2026-11-01 }\n",
	} {
		if digest(same) != base {
			t.Errorf("%q asks for the same and is told apart", same)
		}
	}
	seen := map[string]string{base: "the first"}
	for _, other := range []string{
		"percent: 51\noverride: { percent: 50, reason: a }\n", "percent: 50\n", "percent: 50\noverride: { percent: 50, reason: b }\n",
		"percent: 100\n", "retired: true\n", "percent: 50\nbrownouts: [{ from: 2027-03-31, for: 1h, percent: 100 }]\n",
	} {
		d := digest(other)
		if seen[d] != "" {
			t.Errorf("%q and %q are not told apart", other, seen[d])
		}
		seen[d] = other
	}
}

func TestHours(t *testing.T) {
	at := func(text string) time.Time {
		when, err := time.Parse("Mon 2006-01-02 15:04 MST", text)
		if err != nil {
			t.Fatal(err)
		}
		return when
	}
	for text, times := range map[string]map[string]bool{
		"Mon-Fri 09:00-16:00 Europe/Berlin": {
			"Mon 2026-11-23 07:59 UTC": false, "Mon 2026-11-23 08:00 UTC": true, "Fri 2026-11-27 14:59 UTC": true,
			"Fri 2026-11-27 15:00 UTC": false, "Sat 2026-11-28 10:00 UTC": false,
			"Mon 2026-07-06 07:00 UTC": true, // summer
		},
		"Sat-Mon 22:00-24:00": {
			"Sat 2026-11-28 23:59 UTC": true, "Sun 2026-11-29 22:00 UTC": true, "Tue 2026-11-24 23:00 UTC": false,
			"Tue 2026-11-24 00:00 UTC": false,
		},
		"wed 00:00-00:01 UTC": {"Wed 2026-11-25 00:00 UTC": true, "Wed 2026-11-25 00:01 UTC": false},
	} {
		h, err := config.ParseHours(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		for when, want := range times {
			if got := h.Contains(at(when)); got != want {
				t.Errorf("%q contains %s: %t, want %t", text, when, got, want)
			}
		}
	}
	for _, text := range []string{
		"", "Mon", "Mon 9:00-10:00", "Mon 10:00-09:00", "Mon 09:00-09:00", "Mon-Foo 09:00-10:00", "Monday 09:00-10:00",
		"Mon 09:00-25:00", "Mon 09:00", "Mon 09:00-10:00 Mars/Base", "Mon 09:00-10:00 Local", "Mon 09:00-10:00 UTC x", "- - -",
	} {
		if h, err := config.ParseHours(text); err == nil {
			t.Errorf("%q is read as %+v", text, h)
		}
	}
	if (config.Hours{}).Contains(time.Now()) {
		t.Error("no hours contain now")
	}
}

func FuzzTeamFile(f *testing.F) {
	for _, seed := range []string{
		"percent: 50\n", "percent: 50\noverride: { percent: 50, reason: x }\napply_hours: [Mon-Fri 09:00-16:00 Europe/Berlin]\n",
		"retired: true\nbrownouts: [{ from: 2027-03-31T10:00:00Z, for: 30m, percent: 100 }]\n", "percent: &a 5\nreason: *a\n",
		"percent: 5\nlongest_cycle: 31d\nlimits: { window: 4w, missing: 0.05%, census_days: 35 }\nfixed: [{ account: a, reason: aud_mismatch, at: 2026-11-01 }]\n",
	} {
		f.Add(seed)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(filepath.Join(dir, "data-eng.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		files, mistakes, err := config.LoadTeamFiles(dir, config.TeamOptions{
			Teams: knownTeams, Platform: &config.Default().Readiness, Reasons: reasons, Now: now,
		})
		if err != nil || len(files)+len(mistakes) == 0 {
			t.Fatalf("%d files, %v, %v", len(files), mistakes, err)
		}
		for _, file := range files {
			if file.Percent < 0 || file.Percent > 100 || file.Retired && file.Percent != 100 {
				t.Errorf("percent %d", file.Percent)
			}
			platform := config.Default().Readiness
			if m := file.Limits; m.Missing > platform.Missing || m.Window != 0 && m.Window < platform.Window || m.Confidence != 0 && m.Confidence < platform.Confidence {
				t.Errorf("looser than the platform's: %+v", m)
			}
			_ = file.Open(time.Now())
		}
	})
}
