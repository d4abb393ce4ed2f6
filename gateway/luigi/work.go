package luigi

import (
	"cmp"
	"slices"
	"strings"
)

// Work is what a reply to get_work hands out. The zero value is nothing: there
// is no work at the moment, or none at all.
type Work struct {
	// Task is the id; "" for a batch, whose combined id the worker makes up.
	Task   string
	Family string
	Module string
	// BatchID and Batch name a batch and its tasks.
	BatchID string
	Batch   []string
	// parameters is the raw JSON object.
	parameters []byte
}

// Any reports whether the reply hands anything out.
func (w Work) Any() bool { return w.Task != "" || w.BatchID != "" }

// ParseWork reads the body of a reply to get_work, not compressed. ok is false
// for one that cannot be understood: nobody can say whose work it hands out.
func ParseWork(body []byte) (w Work, ok bool) {
	reply, ok := response(body)
	if !ok {
		return Work{}, false
	}
	fields, ok := members(reply)
	if !ok {
		return Work{}, false
	}
	for _, f := range []struct {
		name string
		into *string
	}{
		{"task_id", &w.Task}, {"task_family", &w.Family}, {"batch_id", &w.BatchID},
	} {
		if *f.into, ok = textOf(lastMember(fields, f.name)); !ok {
			return Work{}, false
		}
	}
	if ids := lastMember(fields, "batch_task_ids"); len(ids) > 0 && string(ids) != "null" {
		list, ok := elements(ids)
		if !ok {
			return Work{}, false
		}
		for _, raw := range list {
			id, ok := textOf(raw)
			if !ok {
				return Work{}, false
			}
			w.Batch = append(w.Batch, id)
		}
	}
	w.Module, _ = textOf(lastMember(fields, "task_module")) // nobody is judged by it, and workers put in anything
	w.parameters = lastMember(fields, "task_params")
	return w, true
}

// Parameters lists the parameters of the work handed out; see ReadParameters.
func (w Work) Parameters(allowed func(name string) bool) []Parameter {
	return ReadParameters(w.parameters, allowed)
}

// Bounds on what is kept of a task's parameters. Luigi itself has no bounds.
const (
	maxParameters     = 64
	maxParameterName  = 128
	maxParameterValue = 512
)

// ReadParameters lists the members of a JSON object of parameters in order of
// name, with the values of those names that are allowed. allowed may be nil.
// Values that are not text are kept as JSON. What is too much is left out, what
// is too long is cut; what is no object has none.
func ReadParameters[T string | []byte](raw T, allowed func(name string) bool) []Parameter {
	fields, ok := members([]byte(raw))
	if !ok {
		return nil
	}
	out := make([]Parameter, 0, min(len(fields), maxParameters))
	for _, f := range fields[:min(len(fields), maxParameters)] {
		name, ok := decodeString(f.name)
		if !ok {
			continue
		}
		p := Parameter{Name: shorten(name, maxParameterName)}
		if allowed != nil && allowed(name) {
			value, ok := textOf(f.value)
			if !ok {
				value = string(f.value)
			}
			value = shorten(value, maxParameterValue)
			p.Value = &value
		}
		out = append(out, p)
	}
	slices.SortStableFunc(out, func(a, b Parameter) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// shorten cuts s to about n bytes, between runes, and lets go of what s was
// part of.
func shorten(s string, n int) string {
	if len(s) <= n {
		return strings.Clone(s)
	}
	return strings.ToValidUTF8(s[:n], "") + "..."
}
