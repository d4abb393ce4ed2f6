package console

import (
	_ "embed"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"crossfade/gateway/identity"
)

//go:embed openapi.json
var openapi []byte

// handler answers what admit has let in; a problem is written for it.
type handler func(w http.ResponseWriter, r *http.Request) *problem

// resource is what may be done to one path, by method.
type resource struct {
	path    string // below Prefix, as http.ServeMux has it
	methods map[string]handler
}

func (c *Console) resources() []resource {
	return []resource{
		{"teams", map[string]handler{http.MethodGet: c.teams}},
		{"teams/{team}", map[string]handler{http.MethodGet: c.team}},
		{"teams/{team}/rollout", map[string]handler{http.MethodGet: c.team, http.MethodPut: c.changing(c.set)}},
		{"teams/{team}/request", map[string]handler{http.MethodPost: c.changing(c.ask)}},
		{"teams/{team}/hold", map[string]handler{http.MethodPost: c.changing(c.hold), http.MethodDelete: c.changing(c.release)}},
		{"teams/{team}/rollback", map[string]handler{http.MethodPost: c.changing(c.rollback)}},
		{"teams/{team}/retire", map[string]handler{http.MethodGet: c.retirement, http.MethodPost: c.operating(c.retire)}},
		{"teams/{team}/history", map[string]handler{http.MethodGet: c.history}},
		{"readiness", map[string]handler{http.MethodGet: c.readinesses}},
		{"readiness/{team}", map[string]handler{http.MethodGet: c.readiness}},
		{"replicas", map[string]handler{http.MethodGet: c.replicas}},
		{"restore", map[string]handler{http.MethodGet: c.restoration, http.MethodPost: c.operating(c.restore)}},
		{"plan", map[string]handler{http.MethodPost: c.plan}},
		{"openapi.json", map[string]handler{http.MethodGet: c.description}},
	}
}

// Routes are the paths that there are, of the API and of pages, with {team} for
// any team, in order: the closed set of what Options.Observed is told.
func Routes() []string {
	all := pageRoutes()
	for _, res := range (&Console{}).resources() {
		all = append(all, Prefix+res.path)
	}
	slices.Sort(all)
	return all
}

// routeOf is the one of Routes that a request is for, "" if it is for none.
func (c *Console) routeOf(r *http.Request) string {
	_, pattern := c.routes.Handler(r)
	if pattern == "/" { // which is for all that is not there
		return ""
	}
	return routeName(pattern)
}

func (c *Console) mux() *http.ServeMux {
	mux := http.NewServeMux()
	for _, res := range c.resources() {
		mux.HandleFunc(Prefix+res.path, func(w http.ResponseWriter, r *http.Request) {
			method := r.Method
			if method == http.MethodHead {
				method = http.MethodGet // whose body the server leaves out
			}
			handle, ok := res.methods[method]
			if !ok {
				p := refuse(http.StatusMethodNotAllowed, methodNotAllowed, fmt.Sprintf("%s cannot be done to %s.", clip(r.Method), r.URL.Path), "Use a method of Allow.")
				p.allow = res.allow()
				p.write(w)
				return
			}
			if p := handle(w, r); p != nil {
				p.write(w)
			}
		})
	}
	c.addPages(mux)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		c.reject(w, r, refuse(http.StatusNotFound, routeUnknown, "There is nothing here.", "Look at "+Prefix+"openapi.json."))
	})
	return mux
}

func (res resource) allow() string {
	methods := slices.Collect(maps.Keys(res.methods))
	if slices.Contains(methods, http.MethodGet) {
		methods = append(methods, http.MethodHead)
	}
	slices.Sort(methods)
	return strings.Join(methods, ", ")
}

func (c *Console) description(w http.ResponseWriter, _ *http.Request) *problem {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(openapi) // whoever is gone needs nothing
	return nil
}

// named returns the team of the path, if there is such a team.
func (c *Console) named(r *http.Request) (identity.Team, *problem) {
	team := identity.Team(r.PathValue("team"))
	if slices.Contains(c.o.Teams, team) {
		return team, nil
	}
	if _, ok := c.o.Table.Lookup(team); ok {
		return team, nil
	}
	return "", c.unknown(team)
}

// unknown says that there is no such team, and which one was probably meant.
func (c *Console) unknown(team identity.Team) *problem {
	var names []string
	for _, known := range c.o.Teams {
		names = append(names, string(known))
	}
	for _, s := range c.o.Table.States() {
		names = append(names, string(s.Team))
	}
	do := "Look at " + Prefix + "teams."
	if name := c.o.Nearest(clip(string(team)), names); name != "" {
		do = fmt.Sprintf("Did you mean %s? %s", name, do)
	}
	return refuse(http.StatusNotFound, teamUnknown, fmt.Sprintf("There is no team %q.", clip(string(team))), do)
}

// changing lets those through who may change the team of the path.
func (c *Console) changing(next handler) handler {
	return func(w http.ResponseWriter, r *http.Request) *problem {
		who := callerOf(r)
		if !who.known {
			return unauthorised(identity.TokenAbsent, "A change needs a token.")
		}
		team := identity.Team(r.PathValue("team"))
		if !who.mayChange(team) {
			c.denied(r)
			name := who.name
			if who.leads {
				name = fmt.Sprintf("%s, who leads %s,", who.name, who.team)
			}
			return refuseFor(http.StatusForbidden, identity.ActionDenied, fmt.Sprintf("%s may not change %s.", name, clip(string(team))),
				"Ask a lead of the team, or an operator; admin.leads and admin.operators name them.")
		}
		if _, p := c.named(r); p != nil {
			return p
		}
		return next(w, r)
	}
}

// operating lets operators through.
func (c *Console) operating(next handler) handler {
	return func(w http.ResponseWriter, r *http.Request) *problem {
		who, team := callerOf(r), identity.Team(r.PathValue("team"))
		switch {
		case !who.known:
			return unauthorised(identity.TokenAbsent, "A change needs a token.")
		case who.operates && team == "":
			return next(w, r)
		case who.operates:
			if _, p := c.named(r); p != nil {
				return p
			}
			return next(w, r)
		}
		c.denied(r)
		do := "Ask an operator; admin.operators names them."
		if who.mayChange(team) {
			do = "Put `retired: true` into the team's file, where others look at it first, or ask an operator; admin.operators names them."
		}
		return refuseFor(http.StatusForbidden, identity.ActionDenied, fmt.Sprintf("%s may not do what nobody can take back: that is for operators.", who.name), do)
	}
}

// denied notes that somebody wanted what is not theirs.
func (c *Console) denied(r *http.Request) {
	c.o.Log.Warn("an admin request was refused", "actor", callerOf(r).name, "reason", identity.ActionDenied, "method", r.Method, "path", r.URL.Path)
}
