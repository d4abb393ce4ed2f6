package demo

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
)

// call is the part of a worker's call that the stand-in looks at.
type call struct {
	method string
	worker string
	task   string
}

// argumentsOf takes the field "data" out of a request as luigid does: the last
// one wins, the body before the query, and without one there are no arguments.
func argumentsOf(r *http.Request) (string, error) {
	if err := r.ParseForm(); err != nil {
		return "", fmt.Errorf("read the form: %w", err)
	}
	return last(r.PostForm["data"], last(r.URL.Query()["data"], "{}")), nil
}

// bareWord finds the numbers that Python writes and JSON does not have. Inside
// a text it may hit a value that nobody here looks at.
var bareWord = regexp.MustCompile(`([:\[,]\s*)-?(?:Infinity|NaN)`)

// decode reads arguments leniently: duplicate names are forgiven.
func decode(arguments string) (map[string]any, error) {
	var values map[string]any
	d := json.NewDecoder(bytes.NewReader(bareWord.ReplaceAll([]byte(arguments), []byte("${1}null"))))
	d.UseNumber()
	if err := d.Decode(&values); err != nil {
		return nil, fmt.Errorf("read the arguments: %w", err)
	}
	if values == nil || d.More() {
		return nil, fmt.Errorf("read the arguments: not one JSON object")
	}
	return values, nil
}

func readCall(method, arguments string) (call, error) {
	values, err := decode(arguments)
	if err != nil {
		return call{}, err
	}
	worker, _ := values["worker"].(string)
	task, _ := values["task_id"].(string)
	return call{method, worker, task}, nil
}

// canonical writes arguments so that equal ones are equal text; what is no
// JSON object stays as it is.
func canonical(arguments string) string {
	values, err := decode(arguments)
	if err != nil {
		return arguments
	}
	text, err := json.Marshal(values) // sorts the names
	if err != nil {
		return arguments
	}
	return string(text)
}

// pythonString writes s as the inside of a JSON string.
func pythonString(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		return s // a string always encodes
	}
	return string(b.Bytes()[1 : b.Len()-2]) // without quotes and newline
}
