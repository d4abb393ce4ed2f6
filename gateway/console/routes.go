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
		{"teams/{team}/history", map[string]handler{http.MethodGet: c.history}},
		{"plan", map[string]handler{http.MethodPost: c.plan}},
		{"openapi.json", map[string]handler{http.MethodGet: c.description}},
	}
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
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		refuse(http.StatusNotFound, routeUnknown, "There is nothing here.", "Look at "+Prefix+"openapi.json.").write(w)
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
	return "", refuse(http.StatusNotFound, teamUnknown, fmt.Sprintf("There is no team %q.", clip(string(team))), "Look at "+Prefix+"teams.")
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
			c.o.Log.Warn("an admin request was refused", "actor", who.name, "reason", identity.ActionDenied, "method", r.Method, "path", r.URL.Path)
			return refuseFor(http.StatusForbidden, identity.ActionDenied, fmt.Sprintf("%s may not change %s.", who.name, clip(string(team))),
				"Ask a lead of the team, or an operator; admin.leads and admin.operators name them.")
		}
		if _, p := c.named(r); p != nil {
			return p
		}
		return next(w, r)
	}
}
