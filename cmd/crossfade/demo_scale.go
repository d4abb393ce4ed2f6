package main

import (
	"time"

	"crossfade/config"
)

// Time in the demo: its window is what 14 days are elsewhere.
const (
	demoWindow = 20 * time.Second
	demoDays   = 14
	demoCycle  = demoWindow / demoDays // a day
	// demoInFlight is how long a run is taken to go on of which no more is heard. It
	// lasts about two seconds, and the store hears of each once.
	demoInFlight = 4 * time.Second
	// demoMaxRuns is how many runs of a day are kept of an account and a pipeline: as
	// many as there are in two hours. Of a demo that lasts longer the windows thin
	// out, and in the end are empty.
	demoMaxRuns = 5000
)

// scale sets the limits that are times to less than a file may say, and those of
// runs to what such a window holds. The shares stay.
func scale(r *config.Readiness) {
	r.Window, r.LongestCycle, r.RetireAfter = demoWindow, demoCycle, demoWindow
	r.CensusDays = 1 // of the calendar
	r.SoakRuns = 5
	// A window of less than a day counts as a day (readiness.Judge), so what may
	// break in a day may break in each of those that this one stands for.
	r.BrokenADay *= demoDays
}
