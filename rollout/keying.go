package rollout

// Keying says what a run is bucketed by. The path of requests, plans and pages
// all ask it, so that what is shown is what will be done.
type Keying struct {
	Stickiness Stickiness
	// Runs tells that clients have runs of their own (profile luigi). Without, as
	// in profile http, a run is its principal whatever Stickiness says.
	Runs bool
}

// Kind returns what is in effect bucketed: Stickiness, or StickPrincipal where
// clients have no runs.
func (k Keying) Kind() Stickiness {
	if !k.Runs {
		return StickPrincipal
	}
	return k.Stickiness
}

// Selects reports whether percent selects a run of the team that s is the state
// of, and whether what the run is bucketed by is known. Below 100 a run is not
// selected while its key is unknown, nor under an algorithm that this version
// does not know; at 100, or retired, every run is. It is pure and allocates
// nothing.
func (k Keying) Selects(s State, percent Percent, run Run) (selected, known bool) {
	var sep, rest string
	switch k.Kind() {
	case StickPrincipal:
		known = true
	case StickRun:
		sep, rest, known = "/", run.ID, run.ID != ""
	default:
		sep, rest, known = "/", run.Pipeline, run.Pipeline != ""
	}
	switch {
	case s.Retired || percent >= Full:
		return true, known
	case percent == 0 || !known || s.Algorithm != Algorithm:
		return false, known
	}
	return within(bucket(run.Team, run.Principal, sep, rest), percent), known
}

// Key returns a function that names what a principal's runs of a pipeline are
// bucketed by, to be asked with Threshold; nil where each run is bucketed by
// itself.
func (k Keying) Key() func(principal, pipeline string) string {
	switch k.Kind() {
	case StickPrincipal:
		return func(principal, _ string) string { return principal }
	case StickRun:
		return nil
	default:
		return func(principal, pipeline string) string { return principal + "/" + BoundPipeline(pipeline) }
	}
}
