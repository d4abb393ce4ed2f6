package luigi

import (
	"bytes"
	"strings"
)

// Filters reports whether replies to the procedure list tasks of several
// families, so that Filter has a say in them.
func Filters(method string) bool {
	_, ok := shapes[method]
	return ok
}

// shape is where a reply has its tasks.
type shape uint8

const (
	tasksByID     shape = iota // {id: task}
	tasksByStatus              // {status: {id: task}}
	tasksRunning               // [{..., "running": {id: task}}]
)

var shapes = map[string]shape{
	"task_list":         tasksByID,
	"graph":             tasksByID,
	"dep_graph":         tasksByID,
	"inverse_dep_graph": tasksByID,
	"task_search":       tasksByStatus,
	"worker_list":       tasksRunning,
	"resource_list":     tasksRunning,
}

// Filter takes out of the body of a reply, not compressed, the tasks whose
// family may not be seen. Everything else stays byte for byte. Of a worker's
// description the first task goes as well, of a task the ids of dependencies
// that are not shown by themselves. How many tasks a search has found is not
// told, since a search finds hidden ones too; of workers and resources the
// counts stay. ok is false for a reply that cannot be understood: then nothing
// of it may be shown.
func Filter(method string, body []byte, visible func(family string) bool) (filtered []byte, ok bool) {
	kind, ok := shapes[method]
	if !ok {
		return nil, false
	}
	reply, ok := response(body)
	if !ok {
		return nil, false
	}
	f := filter{visible: visible}
	f.out.Grow(len(body))
	f.out.WriteString(`{"response": `)
	switch kind {
	case tasksByID:
		ok = f.tasks(reply)
	case tasksByStatus:
		ok = f.groups(reply)
	case tasksRunning:
		ok = f.holders(reply)
	}
	f.out.WriteString("}")
	return f.out.Bytes(), ok
}

type filter struct {
	visible func(family string) bool
	out     bytes.Buffer
}

// tasks writes an object of tasks by id without those that may not be seen.
// Values that are no objects are no tasks: num_tasks, when there are too many of
// them, becomes the -1 by which the scheduler itself says that nobody counted.
func (f *filter) tasks(data []byte) bool {
	all, ok := members(data)
	if !ok {
		return false
	}
	shown := make(map[string]bool)
	kept := all[:0:0]
	for _, m := range all {
		if m.value[0] == '{' {
			task, ok := members(m.value)
			if !ok {
				return false
			}
			if !f.shows(m.name, task) {
				continue
			}
			shown[string(m.name)] = true
		}
		kept = append(kept, m)
	}
	f.out.WriteByte('{')
	for i, m := range kept {
		f.name(i, m)
		if m.value[0] != '{' {
			f.out.WriteString("-1")
		} else if !f.task(m.value, shown) {
			return false
		}
	}
	f.out.WriteByte('}')
	return true
}

// shows reports whether a task may be seen. Where nobody has registered it, the
// scheduler makes its family up from the id (status UNKNOWN): then every family
// that it can have must be visible.
func (f *filter) shows(rawID []byte, task []member) bool {
	family, ok := textOf(lastMember(task, "name"))
	if !ok || !f.visible(family) {
		return false
	}
	if status, ok := textOf(lastMember(task, "status")); ok && status != "UNKNOWN" {
		return true
	}
	id, ok := decodeString(rawID)
	if !ok {
		return false
	}
	for family := range PossibleFamilies(id) {
		if !f.visible(family) {
			return false
		}
	}
	return true
}

// task writes a task, and of its dependencies only those that are shown.
func (f *filter) task(data []byte, shown map[string]bool) bool {
	fields, ok := members(data)
	if !ok {
		return false
	}
	f.out.WriteByte('{')
	for i, m := range fields {
		f.name(i, m)
		if string(m.name) != "deps" || m.value[0] != '[' {
			f.out.Write(m.value)
			continue
		}
		deps, ok := elements(m.value)
		if !ok {
			return false
		}
		f.out.WriteByte('[')
		first := true
		for _, id := range deps {
			if len(id) < 2 || !shown[string(id[1:len(id)-1])] {
				continue
			}
			if !first {
				f.out.WriteString(", ")
			}
			first = false
			f.out.Write(id)
		}
		f.out.WriteByte(']')
	}
	f.out.WriteByte('}')
	return true
}

// groups writes an object of objects of tasks, without those that have none left.
func (f *filter) groups(data []byte) bool {
	all, ok := members(data)
	if !ok {
		return false
	}
	f.out.WriteByte('{')
	written := 0
	for _, m := range all {
		before := f.out.Len()
		f.name(written, m)
		start := f.out.Len()
		if !f.tasks(m.value) {
			return false
		}
		if f.out.Len() == start+len("{}") {
			f.out.Truncate(before)
			continue
		}
		written++
	}
	f.out.WriteByte('}')
	return true
}

// holders writes a list of workers or resources with the tasks that run there.
func (f *filter) holders(data []byte) bool {
	all, ok := elements(data)
	if !ok {
		return false
	}
	f.out.WriteByte('[')
	for i, holder := range all {
		if i > 0 {
			f.out.WriteString(", ")
		}
		if !f.holder(holder) {
			return false
		}
	}
	f.out.WriteByte(']')
	return true
}

func (f *filter) holder(data []byte) bool {
	fields, ok := members(data)
	if !ok {
		return false
	}
	// Luigi shows tasks as Family(parameter=value, ...).
	first, ok := textOf(lastMember(fields, "first_task_display_name"))
	family, _, _ := strings.Cut(first, "(")
	hide := !ok || !f.visible(family) // what a worker says of itself may be anything
	f.out.WriteByte('{')
	for i, m := range fields {
		f.name(i, m)
		switch {
		case string(m.name) == "running" && m.value[0] == '{':
			if !f.tasks(m.value) {
				return false
			}
		case hide && (string(m.name) == "first_task" || string(m.name) == "first_task_display_name"):
			f.out.WriteString(`""`)
		default:
			f.out.Write(m.value)
		}
	}
	f.out.WriteByte('}')
	return true
}

// name writes what stands before the i-th value of an object.
func (f *filter) name(i int, m member) {
	if i > 0 {
		f.out.WriteString(", ")
	}
	f.out.WriteByte('"')
	f.out.Write(m.name)
	f.out.WriteString(`": `)
}
