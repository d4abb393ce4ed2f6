package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"
)

// Bounds of what is read of calls and replies.
const (
	// maxCall is up to which size a call is read for its task. A worker's are
	// below 2 KB, tasks with large parameters reach some hundred.
	maxCall = 1 << 20
	// maxWork is that of a reply which hands out a task, packed and unpacked.
	maxWork = 4 << 20
	// maxHanded is how many tasks one reply hands out at most: a batch.
	maxHanded = 10_000
	// maxID bounds the name of a task, of a family and of a worker in bytes.
	maxID = 4 << 10
)

const (
	apiPrefix   = "/api/"
	getWorkPath = apiPrefix + "get_work"
)

// aboutTask reports whether workers, and the code of tasks that they run, make a
// call about the task that its argument task_id names. What administrators do to a
// task is no call of the task's.
func aboutTask(path string) bool {
	switch strings.TrimPrefix(path, apiPrefix) {
	case "add_task", "set_task_status_message", "set_task_progress_percentage", "decrease_running_task_resources",
		"report_task_statistics", "add_scheduler_message_response", "get_scheduler_message_response",
		"get_task_status_message", "get_task_progress_percentage", "get_running_task_resources":
		return strings.HasPrefix(path, apiPrefix)
	default:
		return false
	}
}

// call is what is read of a worker's call. What stands in it is the worker's word.
type call struct {
	worker, task, family, batch string
	// ends tells an add_task after which its task is not out any more: it is done,
	// has failed, or waits for others. Workers register with runnable true or false.
	ends bool
}

// errCall is a call of which nobody can say what it is about.
var errCall = errors.New("the call cannot be read")

// readCall reads the arguments of a call: the JSON object in the one form field
// data, in the query or in the body. The scheduler reads more forms, and of two
// fields or two names the last; of those this says nothing, so that nobody learns
// another task's token by them.
func readCall(path, rawQuery, contentType string, body []byte) (call, error) {
	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		return call{}, errCall
	}
	fields := query["data"]
	if len(body) > 0 {
		kind, _, err := mime.ParseMediaType(contentType)
		if err != nil || kind != "application/x-www-form-urlencoded" {
			return call{}, errCall
		}
		form, err := url.ParseQuery(string(body))
		if err != nil {
			return call{}, errCall
		}
		fields = append(fields, form["data"]...)
	}
	if len(fields) != 1 {
		return call{}, errCall
	}
	args, err := members([]byte(fields[0]))
	if err != nil {
		return call{}, errCall
	}
	var c call
	for name, into := range map[string]*string{"worker": &c.worker, "task_id": &c.task, "family": &c.family, "batch_id": &c.batch} {
		if *into, err = text(args[name]); err != nil {
			return call{}, errCall
		}
	}
	status, err := text(args["status"])
	if err != nil {
		return call{}, errCall
	}
	c.ends = (len(args["runnable"]) == 0 || string(args["runnable"]) == "null") && path == apiPrefix+"add_task" && (status == "DONE" || status == "FAILED" || status == "PENDING" || status == "DISABLED")
	return c, nil
}

// work is what a reply to get_work hands out; the zero value is nothing.
type work struct {
	family, batch string
	tasks         []string
}

// errWork is a reply of which nobody can say what it hands out.
var errWork = errors.New("the scheduler's reply to get_work is of no form that is known")

// readWork reads a reply, which is not compressed any more: a task by itself, or
// the tasks of a batch, which the worker gives one id when it starts.
func readWork(body []byte) (work, error) {
	outer, err := members(body)
	if err != nil {
		return work{}, errWork
	}
	inner, err := members(outer["response"])
	if err != nil {
		return work{}, errWork
	}
	var w work
	task := ""
	for name, into := range map[string]*string{"task_id": &task, "task_family": &w.family, "batch_id": &w.batch} {
		if *into, err = text(inner[name]); err != nil {
			return work{}, errWork
		}
	}
	switch {
	case task != "":
		w.tasks, w.batch = []string{task}, ""
	case w.batch != "":
		var ids []json.RawMessage
		if json.Unmarshal(inner["batch_task_ids"], &ids) != nil || len(ids) > maxHanded {
			return work{}, errWork
		}
		for _, raw := range ids {
			id, err := text(raw)
			if err != nil || id == "" {
				return work{}, errWork
			}
			w.tasks = append(w.tasks, id)
		}
	default:
		return work{}, nil
	}
	for _, id := range w.tasks {
		if !hasFamily(id, w.family) {
			return work{}, errWork
		}
	}
	return w, nil
}

// hasFamily reports whether a task can be of a family by its id, which begins with
// it.
func hasFamily(id, family string) bool {
	return family != "" && len(id) > len(family) && strings.HasPrefix(id, family) && id[len(family)] == '_'
}

// members returns what a JSON object holds. A name that stands twice is an error:
// the scheduler goes by the last one, others by the first.
func members(data []byte) (map[string]json.RawMessage, error) {
	in := json.NewDecoder(bytes.NewReader(data))
	if first, err := in.Token(); err != nil || first != json.Delim('{') {
		return nil, errors.New("it is no JSON object")
	}
	all := make(map[string]json.RawMessage)
	for in.More() {
		key, err := in.Token()
		if err != nil {
			return nil, err
		}
		name, _ := key.(string)
		var value json.RawMessage
		if err := in.Decode(&value); err != nil {
			return nil, err
		}
		if _, twice := all[name]; twice {
			return nil, errors.New("a name stands twice")
		}
		all[name] = value
	}
	if _, err := in.Token(); err != nil {
		return nil, err
	}
	if rest := bytes.TrimLeft(data[in.InputOffset():], " \t\r\n"); len(rest) > 0 {
		return nil, errors.New("something stands behind the object")
	}
	return all, nil
}

// text returns a JSON string; null and nothing at all are "". A string that is no
// text (half a surrogate pair) could stand for any other, and is an error.
func text(raw json.RawMessage) (string, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return "", nil
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return "", err
	}
	if len(s) > maxID || strings.ContainsRune(s, utf8.RuneError) {
		return "", errors.New("it is no name")
	}
	return s, nil
}

// callOf reads a request whose body, if it has one, is kept in memory.
func callOf(r *http.Request, path string, body []byte) (call, error) {
	if r.ContentLength != int64(len(body)) || r.Header.Get("Content-Encoding") != "" || len(r.Header["Content-Type"]) > 1 {
		return call{}, errCall
	}
	return readCall(path, r.URL.RawQuery, r.Header.Get("Content-Type"), body)
}
