package console_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"crossfade/gateway/console"
)

// description is openapi.json.
var description = sync.OnceValue(func() map[string]any {
	text, err := os.ReadFile("openapi.json")
	if err != nil {
		panic(err)
	}
	var d map[string]any
	if err := json.Unmarshal(text, &d); err != nil {
		panic(err)
	}
	return d
})

// at follows names into the description, and references on the way.
func at(node any, names ...string) any {
	node = resolve(node)
	for _, name := range names {
		m, _ := node.(map[string]any)
		node = resolve(m[name])
	}
	return node
}

func resolve(node any) any {
	m, _ := node.(map[string]any)
	ref, ok := m["$ref"].(string)
	if !ok {
		return node
	}
	return at(description(), strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
}

// operation returns the path of the description that a path is an instance of,
// and what stands under the method; nil if nothing does.
func operation(method, path string) (template string, op any) {
	if method == "HEAD" {
		method = "GET"
	}
	paths, _ := at(description(), "paths").(map[string]any)
	for template := range paths {
		want, have := strings.Split(template, "/"), strings.Split(path, "/")
		if slices.EqualFunc(want, have, func(w, h string) bool { return w == h || w == "{team}" && h != "" }) {
			return template, at(paths[template], strings.ToLower(method))
		}
	}
	return "", nil
}

// described reports what a reply is that the description does not say.
func described(method, path string, got answer) error {
	template, op := operation(method, path)
	if op == nil {
		if want := map[bool]int{true: 405, false: 404}[template != ""]; got.status != want && got.status != 401 && got.status != 403 && got.status != 421 {
			return fmt.Errorf("the description has no such operation, and the status is not %d", want)
		}
		return nil
	}
	response := at(op, "responses", strconv.Itoa(got.status))
	if response == nil {
		return fmt.Errorf("the description of %s has no status %d", template, got.status)
	}
	content := at(response, "content", got.header.Get("Content-Type"))
	if content == nil {
		return fmt.Errorf("the description of %s has no %s for %d", template, got.header.Get("Content-Type"), got.status)
	}
	headers, _ := at(response, "headers").(map[string]any)
	for name := range headers {
		if got.header.Get(name) == "" {
			return fmt.Errorf("the header %s is missing", name)
		}
	}
	if got.header.Get("ETag") != "" && headers["ETag"] == nil {
		return errors.New("the description does not tell of the ETag")
	}
	var body any
	if err := json.Unmarshal([]byte(got.body), &body); err != nil {
		return err
	}
	return fits("body", body, at(content, "schema"))
}

// fits reports where a value is not what a schema says, for the few words of JSON
// Schema that the description uses.
func fits(where string, value, schema any) error {
	s, ok := resolve(schema).(map[string]any)
	if !ok {
		return fmt.Errorf("%s has no schema", where)
	}
	if all, ok := s["enum"].([]any); ok && !slices.Contains(all, value) {
		return fmt.Errorf("%s is %v, which is none of %v", where, value, all)
	}
	kind, _ := s["type"].(string)
	switch v := value.(type) {
	case map[string]any:
		props, _ := s["properties"].(map[string]any)
		required, _ := s["required"].([]any)
		for _, name := range required {
			if _, ok := v[name.(string)]; !ok {
				return fmt.Errorf("%s lacks %v", where, name)
			}
		}
		for name, inner := range v {
			if props[name] == nil && s["additionalProperties"] == false {
				return fmt.Errorf("%s.%s is not described", where, name)
			}
			if props[name] != nil {
				if err := fits(where+"."+name, inner, props[name]); err != nil {
					return err
				}
			}
		}
		return kindIs(where, kind, "object")
	case []any:
		for i, inner := range v {
			if err := fits(fmt.Sprintf("%s[%d]", where, i), inner, s["items"]); err != nil {
				return err
			}
		}
		return kindIs(where, kind, "array")
	case string:
		if s["enum"] != nil {
			return nil
		}
		return kindIs(where, kind, "string")
	case bool:
		return kindIs(where, kind, "boolean")
	case float64:
		low, isLow := s["minimum"].(float64)
		high, isHigh := s["maximum"].(float64)
		if isLow && v < low || isHigh && v > high {
			return fmt.Errorf("%s is %v, which is out of bounds", where, v)
		}
		if kind == "integer" && v == float64(int64(v)) {
			return nil
		}
		return kindIs(where, kind, "number")
	default:
		return fmt.Errorf("%s is %v", where, value)
	}
}

func kindIs(where, want, have string) error {
	if want == have {
		return nil
	}
	return fmt.Errorf("%s is of type %s and not %s", where, have, want)
}

func TestTheDescriptionAndTheHandlersHaveTheSameOperations(t *testing.T) {
	t.Parallel()
	paths, _ := at(description(), "paths").(map[string]any)
	told := make(map[string][]string)
	for path, item := range paths {
		for method := range item.(map[string]any) {
			if method != "parameters" {
				told[path] = append(told[path], strings.ToUpper(method))
			}
		}
		slices.Sort(told[path])
	}
	if diff := differ(told, console.Operations()); diff != "" {
		t.Error(diff)
	}
	ids := make(map[string]bool)
	for path, methods := range told {
		for _, method := range methods {
			id, _ := at(paths[path], strings.ToLower(method), "operationId").(string)
			if id == "" || ids[id] {
				t.Errorf("%s %s has the operation id %q", method, path, id)
			}
			ids[id] = true
		}
	}
}

func differ(a, b map[string][]string) string {
	if maps.EqualFunc(a, b, slices.Equal[[]string]) {
		return ""
	}
	return fmt.Sprintf("the description has %v,\nthe handlers have   %v", a, b)
}

func TestEveryReferenceOfTheDescriptionHolds(t *testing.T) {
	t.Parallel()
	used := make(map[string]bool)
	var walk func(node any)
	walk = func(node any) {
		switch n := node.(type) {
		case map[string]any:
			if ref, ok := n["$ref"].(string); ok {
				used[ref] = true
				if resolve(n) == nil {
					t.Errorf("%s leads nowhere", ref)
				}
			}
			for _, inner := range n {
				walk(inner)
			}
		case []any:
			for _, inner := range n {
				walk(inner)
			}
		}
	}
	walk(description())
	components, _ := at(description(), "components").(map[string]any)
	for kind, all := range components {
		for name := range all.(map[string]any) {
			if kind != "securitySchemes" && !used["#/components/"+kind+"/"+name] {
				t.Errorf("nothing refers to %s %s", kind, name)
			}
		}
	}
}

// Each status that the description promises for an operation is brought about
// here, so that none stands there for nothing. send does the other half: it
// finds what is answered and not described.
func TestEveryStatusOfTheDescriptionCanBeHad(t *testing.T) {
	t.Parallel()
	long := `{"percent":1,"reason":"` + strings.Repeat("x", 2001) + `"}`
	longReason := `{"reason":"` + strings.Repeat("x", 2001) + `"}`
	huge := `{"reason":"` + strings.Repeat("x", 300<<10) + `"}`
	bodies := map[string]string{
		"PUT /teams/{team}/rollout": `{"percent":1}`, "POST /teams/{team}/request": `{"percent":1}`,
		"POST /teams/{team}/rollback": `{"reason":"x"}`, "POST /plan": `{"requests":[]}`, "POST /teams/{team}/hold": `{}`,
		"POST /teams/{team}/retire": `{}`, "POST /restore": `{}`,
	}
	had := make(map[string]bool)
	for path, methods := range console.Operations() {
		for _, method := range methods {
			id := method + " " + path
			good := ask{method: method, path: strings.ReplaceAll(path, "{team}", "data-eng"), token: "operator", body: bodies[id], header: match("*")}
			note := func(a *api, q ask) {
				q.header.Set("Content-Type", "application/json")
				had[fmt.Sprintf("%s %d", id, a.send(q).status)] = true
			}
			try := func(change func(*api, *ask)) {
				a, q := newAPI(t), good
				q.header = q.header.Clone()
				change(a, &q)
				note(a, q)
			}
			try(func(*api, *ask) {})
			try(func(_ *api, q *ask) { q.token = "expired" })
			try(func(_ *api, q *ask) { q.header.Set("Origin", "https://evil.example") })
			try(func(_ *api, q *ask) { q.host = "evil.example" })
			try(func(_ *api, q *ask) { q.token = "early" })
			try(func(_ *api, q *ask) { q.path = strings.ReplaceAll(path, "{team}", "nobody") })
			try(func(_ *api, q *ask) { q.path = strings.ReplaceAll(path, "{team}", "unassigned") })
			try(func(a *api, q *ask) {
				if id == "POST /plan" {
					q.body = `{"requests":[{"team":"nobody","percent":1}]}`
				}
			})
			try(func(a *api, _ *ask) { a.put(rollout100) })
			try(func(a *api, _ *ask) { a.put(retired) })
			try(func(_ *api, q *ask) { q.header.Set("If-Match", `"7"`) })
			try(func(_ *api, q *ask) { q.header.Del("If-Match") })
			try(func(a *api, _ *ask) { a.guard.say(noEvidence, nil) })
			try(func(a *api, _ *ask) { a.unassessed = errors.New("redis is away") })
			if path == "/readiness/{team}" {
				try(func(_ *api, q *ask) { q.path += "?percent=101" })
			}
			if path == "/teams/{team}/history" {
				try(func(_ *api, q *ask) { q.path += "?limit=none" })
			}
			if method == "DELETE" {
				try(func(a *api, q *ask) {
					a.put(held)
					q.path += "?reason=" + strings.Repeat("x", 2001)
				})
			}
			if q := good; q.body != "" {
				for _, body := range []string{`{`, huge, longReason, long} {
					try(func(a *api, q *ask) {
						a.put(rollout100)
						q.body = body
					})
				}
				a := newAPI(t)
				q.header = q.header.Clone()
				q.header.Set("Content-Type", "text/plain")
				had[fmt.Sprintf("%s %d", id, a.send(q).status)] = true
			}
		}
	}
	paths, _ := at(description(), "paths").(map[string]any)
	for path, methods := range console.Operations() {
		for _, method := range methods {
			responses, _ := at(paths[path], strings.ToLower(method), "responses").(map[string]any)
			for status := range responses {
				if id := method + " " + path + " " + status; !had[id] {
					t.Errorf("%s is described and was not had", id)
				}
			}
		}
	}
}
