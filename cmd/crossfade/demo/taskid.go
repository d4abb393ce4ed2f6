package demo

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// taskID finds the ids of Luigi's tasks, which end in the digest of their
// parameters (luigi.task.task_id_str).
var taskID = regexp.MustCompile(`[A-Za-z0-9_.]+_[0-9a-f]{10}\b`)

const digestLength = 10

// stemOf is a task id without its digest. Within a recording it names one task.
// ok is false for what is no id.
func stemOf(id string) (stem string, ok bool) {
	if taskID.FindString(id) != id || id == "" {
		return "", false
	}
	return id[:len(id)-digestLength], true
}

// reissue gives a recorded task another digest, as if one more of its parameters
// had another value: a pipeline that runs again is other tasks.
func reissue(id, edition string) string {
	stem, ok := stemOf(id)
	if !ok {
		return id
	}
	sum := sha256.Sum256([]byte(edition + "\n" + id))
	return stem + hex.EncodeToString(sum[:])[:digestLength]
}

// taskIDs lists the tasks that requests name, sorted.
func taskIDs(lines []line) []string {
	found := make(map[string]bool)
	for _, l := range lines {
		text, err := url.QueryUnescape(l.body)
		if err != nil {
			continue // nothing that Luigi sends
		}
		for _, id := range taskID.FindAllString(text, -1) {
			found[id] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// renamingAll exchanges a worker's name and tasks' ids inside an urlencoded JSON
// text, in which neither Luigi nor anyone else escapes an id.
func renamingAll(from, to string, tasks []string, edition string) *strings.Replacer {
	var pairs []string
	if from != "" && from != to {
		pairs = append(pairs, url.QueryEscape(pythonString(from)), url.QueryEscape(pythonString(to)))
	}
	if edition != "" {
		for _, id := range tasks {
			pairs = append(pairs, id, reissue(id, edition))
		}
	}
	return strings.NewReplacer(pairs...)
}
